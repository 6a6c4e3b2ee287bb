/**
 * The weights file: safetensors with the constants that recipes read, keys sorted, so that equal weights give
 * equal bytes.
 */
import { createHash } from 'node:crypto';
import { invariant } from '../support/invariant.js';
import type { Constant } from '../ir/module.js';
import { littleEndian } from '../ir/printer.js';

/**
 * F32 where every value is a float, which is what models hold; F64 where the compiler computed finer values.
 */
function tensorBytes(
  name: string,
  constant: Constant,
): { readonly dtype: 'F32' | 'F64'; readonly bytes: Uint8Array } {
  const { data } = constant;
  const single = Float32Array.from(data);
  let exact = true;
  for (let i = 0; i < data.length; i++) {
    const value = data[i] as number;
    invariant(Number.isFinite(value), `constant ${name} is finite`);
    if (single[i] !== value) exact = false;
  }
  return exact
    ? { dtype: 'F32', bytes: littleEndian(single, 4) }
    : { dtype: 'F64', bytes: littleEndian(data, 8) };
}

/**
 * 8 bytes of header length, JSON header padded with spaces to a multiple of 8, then the data in key order.
 */
export function writeWeights(constants: ReadonlyMap<string, Constant>): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: { format: 'aegis-weights', version: '1' } };
  const parts: Uint8Array[] = [];
  let offset = 0;
  for (const name of [...constants.keys()].sort()) {
    const constant = constants.get(name);
    if (constant === undefined) continue;
    const { dtype, bytes } = tensorBytes(name, constant);
    header[name] = { dtype, shape: constant.shape, data_offsets: [offset, offset + bytes.length] };
    offset += bytes.length;
    parts.push(bytes);
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const headerBytes = Math.ceil(text.length / 8) * 8;
  const file = new Uint8Array(8 + headerBytes + offset);
  new DataView(file.buffer).setBigUint64(0, BigInt(headerBytes), true);
  file.fill(0x20, 8, 8 + headerBytes);
  file.set(text, 8);
  let at = 8 + headerBytes;
  for (const part of parts) {
    file.set(part, at);
    at += part.length;
  }
  return file;
}

export function sha256Hex(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
