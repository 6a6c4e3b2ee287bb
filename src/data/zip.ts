/**
 * The part of ZIP that NumPy uses: entries stored or deflated, no encryption, no split archives, less than 4
 * GiB. The central directory is believed, the local headers only tell where the data starts. Errors: D120
 * damaged, D121 a form that is not read, D122 too large.
 */
import { deflateRawSync, inflateRawSync } from 'node:zlib';
import { AegisError } from '../support/diagnostics.js';
import { invariant } from '../support/invariant.js';

const localSignature = 0x04034b50;
const centralSignature = 0x02014b50;
const endSignature = 0x06054b50;
const localBytes = 30;
const centralBytes = 46;
const endBytes = 22;
const maxCommentBytes = 0xffff;
const zip64Marker = 0xffffffff;
const utf8Flag = 0x0800;
const encryptedFlag = 0x0001;
const stored = 0;
const deflated = 8;
/** Samples hold a few named arrays; more entries than this are not samples. */
const maxEntries = 4096;
/** All entries together, unpacked. */
const maxUnpackedBytes = 2 ** 31;

export interface ZipEntry {
  readonly name: string;
  readonly bytes: Uint8Array;
}

interface CentralEntry {
  readonly name: string;
  readonly flags: number;
  readonly method: number;
  readonly crc: number;
  readonly packedBytes: number;
  readonly unpackedBytes: number;
  readonly offset: number;
}

/** `source` names the archive in messages. */
export function readZip(archive: Uint8Array, source: string): ZipEntry[] {
  const view = new DataView(archive.buffer, archive.byteOffset, archive.byteLength);
  const central = readCentralDirectory(archive, view, source);
  const total = central.reduce((sum, entry) => sum + entry.unpackedBytes, 0);
  if (total > maxUnpackedBytes) {
    throw zipError('D122', `${source} unpacks to ${total} bytes, the limit is ${maxUnpackedBytes}`);
  }
  return central.map((entry) => ({ name: entry.name, bytes: unpack(archive, view, entry, source) }));
}

function readCentralDirectory(archive: Uint8Array, view: DataView, source: string): CentralEntry[] {
  const end = findEnd(view, source);
  const count = view.getUint16(end + 10, true);
  const directoryBytes = view.getUint32(end + 12, true);
  const directoryOffset = view.getUint32(end + 16, true);
  if (directoryOffset === zip64Marker || count === 0xffff) {
    throw zipError('D121', `${source} is a ZIP64 archive, which is not read`);
  }
  if (count > maxEntries) {
    throw zipError('D122', `${source} has ${count} entries, the limit is ${maxEntries}`);
  }
  if (directoryOffset + directoryBytes > end) {
    throw damaged(source, 'the central directory lies outside the file');
  }
  const entries: CentralEntry[] = [];
  const names = new Set<string>();
  let at = directoryOffset;
  for (let i = 0; i < count; i++) {
    if (at + centralBytes > end || view.getUint32(at, true) !== centralSignature) {
      throw damaged(source, `entry ${i} of the central directory is cut or damaged`);
    }
    const nameBytes = view.getUint16(at + 28, true);
    const extraBytes = view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
    const next = at + centralBytes + nameBytes + extraBytes;
    if (next > end) throw damaged(source, `entry ${i} of the central directory is cut`);
    const name = decodeName(archive.subarray(at + centralBytes, at + centralBytes + nameBytes), source);
    if (names.has(name)) throw damaged(source, `entry ${JSON.stringify(name)} occurs twice`);
    names.add(name);
    entries.push({
      name,
      flags: view.getUint16(at + 8, true),
      method: view.getUint16(at + 10, true),
      crc: view.getUint32(at + 16, true),
      packedBytes: view.getUint32(at + 20, true),
      unpackedBytes: view.getUint32(at + 24, true),
      offset: view.getUint32(at + 42, true),
    });
    at = next;
  }
  return entries;
}

/** The end record is the last thing in the file, behind it only its own comment. */
function findEnd(view: DataView, source: string): number {
  const first = Math.max(0, view.byteLength - endBytes - maxCommentBytes);
  for (let at = view.byteLength - endBytes; at >= first; at--) {
    if (view.getUint32(at, true) !== endSignature) continue;
    if (at + endBytes + view.getUint16(at + 20, true) === view.byteLength) return at;
  }
  throw damaged(source, 'it has no end-of-archive record; the file is cut or not a ZIP archive');
}

function unpack(archive: Uint8Array, view: DataView, entry: CentralEntry, source: string): Uint8Array {
  const what = `entry ${JSON.stringify(entry.name)}`;
  if ((entry.flags & encryptedFlag) !== 0) throw zipError('D121', `${what} of ${source} is encrypted`);
  const { offset, packedBytes, unpackedBytes } = entry;
  if ([offset, packedBytes, unpackedBytes].includes(zip64Marker)) {
    throw zipError('D121', `${what} of ${source} is larger than 4 GiB`);
  }
  if (offset + localBytes > archive.length || view.getUint32(offset, true) !== localSignature) {
    throw damaged(source, `${what} has no local header at byte ${offset}`);
  }
  const start = offset + localBytes + view.getUint16(offset + 26, true) + view.getUint16(offset + 28, true);
  if (start + packedBytes > archive.length) throw damaged(source, `${what} is cut`);
  const packed = archive.subarray(start, start + packedBytes);
  const bytes = unpackBytes(packed, entry, source, what);
  if (bytes.length !== unpackedBytes) {
    throw damaged(source, `${what} has ${bytes.length} bytes, the directory says ${unpackedBytes}`);
  }
  if (crc32(bytes) !== entry.crc) throw damaged(source, `${what} does not match its checksum`);
  return bytes;
}

function unpackBytes(packed: Uint8Array, entry: CentralEntry, source: string, what: string): Uint8Array {
  if (entry.method === stored) return packed;
  if (entry.method !== deflated) {
    throw zipError(
      'D121',
      `${what} of ${source} is compressed with method ${entry.method}`,
      'write it with numpy.savez or numpy.savez_compressed',
    );
  }
  try {
    // The limit is what the directory promises, so that a small file cannot unpack to all of memory.
    return inflateRawSync(packed, { maxOutputLength: Math.max(1, entry.unpackedBytes) });
  } catch {
    throw damaged(source, `${what} cannot be inflated`);
  }
}

/** Deflates where that helps. Dates are fixed: same arrays, same bytes. */
export function writeZip(entries: readonly ZipEntry[]): Uint8Array {
  const parts: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let offset = 0;
  for (const { name, bytes } of entries) {
    const nameBytes = new TextEncoder().encode(name);
    const squeezed = deflateRawSync(bytes);
    const method = squeezed.length < bytes.length ? deflated : stored;
    const body = method === deflated ? squeezed : bytes;
    const fields = new DataView(new ArrayBuffer(26));
    fields.setUint16(0, 20, true); // version 2.0: deflate
    fields.setUint16(2, utf8Flag, true);
    fields.setUint16(4, method, true);
    fields.setUint16(8, 0x21, true); // 1 January 1980, the oldest date there is
    fields.setUint32(10, crc32(bytes), true);
    fields.setUint32(14, body.length, true);
    fields.setUint32(18, bytes.length, true);
    fields.setUint16(22, nameBytes.length, true);
    const common = new Uint8Array(fields.buffer);
    parts.push(uint32(localSignature), common, nameBytes, body);
    const tail = new DataView(new ArrayBuffer(14));
    tail.setUint32(10, offset, true);
    directory.push(uint32(centralSignature), uint16(20), common, new Uint8Array(tail.buffer), nameBytes);
    offset += 4 + common.length + nameBytes.length + body.length;
    invariant(offset < zip64Marker, 'archives of 4 GiB and more are not written');
  }
  const directoryBytes = directory.reduce((sum, part) => sum + part.length, 0);
  const end = new DataView(new ArrayBuffer(endBytes));
  end.setUint32(0, endSignature, true);
  end.setUint16(8, entries.length, true);
  end.setUint16(10, entries.length, true);
  end.setUint32(12, directoryBytes, true);
  end.setUint32(16, offset, true);
  return Buffer.concat([...parts, ...directory, new Uint8Array(end.buffer)]);
}

function decodeName(bytes: Uint8Array, source: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw damaged(source, 'an entry name is not UTF-8');
  }
}

function uint32(value: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, value, true);
  return new Uint8Array(view.buffer);
}

function uint16(value: number): Uint8Array {
  return uint32(value).subarray(0, 2);
}

const crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 0 ? crc >>> 1 : (crc >>> 1) ^ 0xedb88320;
  return crc;
});

/** node:zlib has crc32 only from Node 20.15 on. */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ (crcTable[(crc ^ byte) & 0xff] as number);
  return (crc ^ 0xffffffff) >>> 0;
}

function zipError(code: string, message: string, help?: string): AegisError {
  return new AegisError({ code, message, help });
}

function damaged(source: string, what: string): AegisError {
  return zipError('D120', `${source} is damaged: ${what}`);
}
