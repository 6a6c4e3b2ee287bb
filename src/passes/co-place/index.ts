/**
 * co-place: from the final cipher module to a Placement on a mesh of one axis (DESIGN section 6), by
 * strategy, at the least predicted time. See docs/passes/co-place.md.
 */
import { defined, invariant } from '../../support/invariant.js';
import type { Module } from '../../ir/module.js';
import type { Placement } from '../../ir/placement.js';
import { dealtLimbs } from '../../ir/sharding.js';
import { checkPlacement } from '../../ir/verify-placement.js';
import type { DeviceProfile } from '../../target/profile.js';
import { profileCosts } from './costs.js';
import type { OpCost } from './op-cost.js';
import type { Strategy } from './options.js';
import { placedFunctions, type MemoryEstimate } from './place.js';
import { placeWithin } from './memory-limit.js';
import { defaultLimits, type SolverLimits, type SolverStatistics } from './solver/solve.js';

export { strategies, type Strategy } from './options.js';
export type { OpCost } from './op-cost.js';

export const meshAxis = 'ranks';

export interface CoPlaceOptions {
  readonly strategy: Strategy;
  readonly devices: number;
  readonly profile: DeviceProfile;
  /** Bytes of one rank; none unless given. */
  readonly memoryLimit?: number | undefined;
  readonly limits?: SolverLimits | undefined;
}

export interface CoPlaceReport {
  /** Predicted, of one run of the entry function. */
  readonly seconds: number;
  readonly computeSeconds: number;
  readonly communicationSeconds: number;
  /** The most that one rank receives or sends. */
  readonly communicatedBytes: number;
  /** By ONNX node. */
  readonly byLocation: ReadonlyMap<string, OpCost>;
  /** (seconds - lower bound) / seconds. */
  readonly gap: number;
  /** Estimated, of the rank that needs most. */
  readonly memoryBytes: number;
  readonly memory: MemoryEstimate;
  /** False: no placement within the memory limit was found; this one needs least of those tried. */
  readonly fits: boolean;
  readonly solver: readonly SolverStatistics[];
}

export function coPlace(
  cipher: Module,
  options: CoPlaceOptions,
): { placement: Placement; report: CoPlaceReport } {
  invariant(cipher.phase === 'cipher', `co-place takes phase cipher, not ${cipher.phase}`);
  const { strategy, devices, profile, limits = defaultLimits } = options;
  invariant(Number.isSafeInteger(devices) && devices >= 1, `${devices} devices`);
  const parameters = defined(cipher.parameters, 'parameters');
  const costing = { parameters, ranks: devices, costs: profileCosts(profile, devices) };
  const found = placeWithin(cipher, options.memoryLimit ?? Infinity, {
    ...costing,
    // One rank: everything is whole.
    strategy: devices === 1 ? 'replicate' : strategy,
    limbs: dealtLimbs(parameters.maxLevel + 1, parameters.specials, devices),
    limits,
  });
  const { placer, entry, memory } = found;
  const { compute, communication, bytes } = entry.cost;
  const seconds = compute + communication;
  const placement: Placement = {
    mesh: { axes: [{ name: meshAxis, size: devices }] },
    strategy,
    functions: placedFunctions(placer, entry),
  };
  const faults = checkPlacement(cipher, placement);
  invariant(faults.length === 0, `the placement is legal: ${faults.slice(0, 3).join('; ')}`);
  const report: CoPlaceReport = {
    seconds,
    computeSeconds: compute,
    communicationSeconds: communication,
    communicatedBytes: bytes,
    byLocation: entry.byLocation,
    gap: seconds === 0 ? 0 : Math.max(0, (seconds - found.bound) / seconds),
    memoryBytes: memory.residentBytes + memory.valueBytes,
    memory,
    fits: found.fits,
    solver: placer.statistics(),
  };
  return { placement, report };
}
