/** NumPy's .npz: a ZIP archive of .npy files, as numpy.savez and numpy.savez_compressed write it. */
import { AegisError } from '../support/diagnostics.js';
import { readNpy, writeNpy } from './npy.js';
import type { Tensor } from './types.js';
import { readZip, writeZip } from './zip.js';

const suffix = '.npy';

export function parseNpz(archive: Uint8Array, source: string): Map<string, Tensor> {
  const tensors = new Map<string, Tensor>();
  for (const { name, bytes } of readZip(archive, source)) {
    if (!name.endsWith(suffix)) {
      const message = `${source} holds ${JSON.stringify(name)}, expected .npy files only`;
      throw new AegisError({ code: 'D121', message });
    }
    const key = name.slice(0, -suffix.length);
    tensors.set(key, readNpy(bytes, `array ${JSON.stringify(key)} of ${source}`));
  }
  return tensors;
}

export function formatNpz(tensors: ReadonlyMap<string, Tensor>): Uint8Array {
  return writeZip(
    [...tensors].map(([name, tensor]) => ({ name: `${name}${suffix}`, bytes: writeNpy(tensor) })),
  );
}
