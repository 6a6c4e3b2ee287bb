/** What co-place asks of a device profile: seconds of a kernel and of a collective. */
import {
  kernelSeconds,
  kernelWork,
  type CollectiveKind,
  type KernelShape,
} from '../../target/kernel-cost.js';
import type { DeviceProfile } from '../../target/profile.js';

export interface CostModel {
  readonly kernel: (shape: KernelShape) => number;
  /** `bytes`: the most that one rank receives or sends. */
  readonly collective: (kind: CollectiveKind, bytes: number) => number;
}

export function profileCosts(profile: DeviceProfile, ranks: number): CostModel {
  const { latencySeconds, bandwidth } = profile.link;
  return {
    kernel: (shape) => kernelSeconds(profile, kernelWork(shape), shape.logN, { ranks }),
    collective: (kind, bytes) => {
      if (ranks === 1 || bytes === 0) return 0;
      const steps = (ranks - 1) * (kind === 'all_reduce' ? 2 : 1);
      return steps * latencySeconds + bytes / bandwidth;
    },
  };
}
