import { forEachKernel } from '../../src/target/kernel-cost.js';
import type { DeviceProfile } from '../../src/target/profile.js';

/** Two cores; a term takes 1 ns and a word nothing on one thread, half of it on two; memory 1 ns a byte. */
export function measuredProfile(): DeviceProfile {
  const kernels = (speed: number) =>
    forEachKernel(() => ({ termSeconds: 1e-9 / speed, wordSeconds: 0, byteSeconds: 1e-9 }));
  return {
    format: 1,
    name: 'measured',
    provenance: { modularRate: 'made up' },
    memoryBytes: 2 ** 34,
    memoryBandwidth: 1e10,
    modularRate: 1e9,
    efficiency: 1,
    launchSeconds: 1e-6,
    link: { bandwidth: 1e9, latencySeconds: 1e-6, background: false },
    measured: {
      backend: 'avx512ifma',
      cores: 2,
      cacheBytes: 2 ** 24,
      grainSeconds: 1e-5,
      tables: [
        { threads: 1, kernels: kernels(1) },
        { threads: 2, kernels: kernels(2) },
      ],
    },
  };
}
