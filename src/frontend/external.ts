/** External tensor data: files beside the model, never outside its folder. */
import type { Hash } from 'node:crypto';
import { closeSync, fstatSync, openSync, readSync, realpathSync } from 'node:fs';
import { dirname, isAbsolute, join, relative, resolve, sep } from 'node:path';
import { maxElements, refuse } from './model.js';
import type { ExternalReader } from './protobuf.js';

/** Gives the bytes of a location, or undefined when there is no such file. */
export type ExternalLoader = (location: string) => Uint8Array | undefined;

/** Largest external file; weights of 2^30 elements in float32 are twice what BERT-large needs. */
const maxExternalBytes = 4 * maxElements;

export class ExternalData {
  private readonly files = new Map<string, Uint8Array>();
  constructor(private readonly loader: ExternalLoader) {}

  readonly read: ExternalReader = (location, offset, length, what) => {
    const parts = location.split(/[\\/]/);
    if (location === '' || isAbsolute(location) || /^[a-zA-Z]:/.test(location) || parts.includes('..')) {
      refuse({ code: 'F105', message: `${what} points outside the model's folder: "${location}"` });
    }
    let bytes = this.files.get(location);
    if (bytes === undefined) {
      bytes = this.loader(location);
      if (bytes === undefined) {
        return refuse({
          code: 'F105',
          message: `${what} needs the file "${location}"`,
          help: 'keep the external data beside the model, under its name',
        });
      }
      this.files.set(location, bytes);
    }
    if (offset + length > bytes.length) {
      const range = `bytes ${offset} to ${offset + length}`;
      const message = `${what} needs ${range} of "${location}", which has ${bytes.length}`;
      refuse({ code: 'F105', message });
    }
    return bytes.subarray(offset, offset + length);
  };

  hashInto(hash: Hash): void {
    for (const [, bytes] of [...this.files].sort(([a], [b]) => (a < b ? -1 : 1))) hash.update(bytes);
  }
}

/** Reads a whole file of bounded size; undefined when it cannot be read. */
export function readBounded(path: string, limitBytes: number): Uint8Array | undefined {
  let file: number;
  try {
    file = openSync(path, 'r');
  } catch {
    return undefined;
  }
  try {
    const status = fstatSync(file);
    if (!status.isFile()) return undefined;
    if (status.size > limitBytes) {
      refuse({ code: 'F102', message: `"${path}" has ${status.size} bytes, more than ${limitBytes}` });
    }
    const bytes = new Uint8Array(status.size);
    let done = 0;
    while (done < bytes.length) {
      // One read system call takes at most 2 GiB.
      const count = readSync(file, bytes, done, Math.min(bytes.length - done, 2 ** 30), done);
      if (count === 0) return undefined;
      done += count;
    }
    return bytes;
  } finally {
    closeSync(file);
  }
}

/** A loader for the folder of a model file; symbolic links that leave the folder are refused too. */
export function folderLoader(modelPath: string): ExternalLoader {
  const folder = realpathSync(dirname(resolve(modelPath)));
  return (location) => {
    let path: string;
    try {
      path = realpathSync(join(folder, location));
    } catch {
      return undefined;
    }
    const inside = relative(folder, path);
    if (inside === '..' || inside.startsWith(`..${sep}`) || isAbsolute(inside)) {
      return refuse({ code: 'F105', message: `"${location}" leads outside the model's folder` });
    }
    return readBounded(path, maxExternalBytes);
  };
}
