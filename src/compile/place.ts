/** From a cipher module to a plan for some devices: placement by strategy, overlap, the memory limit. */
import { lowerToPlan, type LoweredPlan } from '../backend/index.js';
import type { Module } from '../ir/module.js';
import { coPlace, type CoPlaceReport, type Strategy } from '../passes/co-place/index.js';
import type { Placement } from '../ir/placement.js';
import { AegisError } from '../support/diagnostics.js';
import { defaultProfile, loadProfile, type DeviceProfile } from '../target/profile.js';

export { defaultProfile } from '../target/profile.js';

export const compilerVersion = 'aegis 0.1.0';
export const maxDevices = 64;

export interface PlacementOptions {
  /** Ranks of the plan; 1 unless given. */
  readonly devices?: number | undefined;
  readonly strategy?: Strategy | undefined;
  /** The device that the plan is made for. */
  readonly profile?: DeviceProfile | undefined;
  /** False: collectives stay blocking. */
  readonly overlap?: boolean | undefined;
  /** Bytes that a rank may hold. */
  readonly memoryLimit?: number | undefined;
}

export interface PlacedModule {
  readonly cipher: Module;
  readonly placement: Placement | undefined;
  /** Undefined on one device. */
  readonly report: CoPlaceReport | undefined;
}

/** Decides where the work of a module is done; `memoryLimit` is for lowerWithin. */
export function place(cipher: Module, options: PlacementOptions): PlacedModule {
  return placeWithin(cipher, { ...options, memoryLimit: undefined });
}

function placeWithin(cipher: Module, options: PlacementOptions): PlacedModule {
  const { devices = 1, strategy = 'coplaced', memoryLimit } = options;
  if (devices === 1) return { cipher, placement: undefined, report: undefined };
  const { placement, report } = coPlace(cipher, {
    strategy,
    devices,
    profile: profileOf(options),
    memoryLimit,
  });
  return { cipher, placement, report };
}

/**
 * The plan of a placed module; where a rank would hold more than the limit, of a placement that holds less.
 * Error B110
 * if that does not fit either.
 */
export function lowerWithin(placed: PlacedModule, options: PlacementOptions): LoweredPlan {
  const { memoryLimit = Infinity, devices = 1 } = options;
  const lowered = lowerPlaced(placed, options);
  if (lowered.summary.peakBytes <= memoryLimit) return lowered;
  if (devices === 1) checkMemory(lowered.summary.peakBytes, memoryLimit);
  const smaller = lowerPlaced(placeWithin(placed.cipher, options), options);
  checkMemory(smaller.summary.peakBytes, memoryLimit);
  return smaller;
}

/** The plan of a placed module. */
export function lowerPlaced({ cipher, placement }: PlacedModule, options: PlacementOptions): LoweredPlan {
  if (placement === undefined) return lowerToPlan(cipher, { compilerVersion });
  const overlap = options.overlap ?? true;
  return lowerToPlan(cipher, { compilerVersion, placement, profile: profileOf(options), overlap });
}

function profileOf(options: PlacementOptions): DeviceProfile {
  return options.profile ?? loadProfile(defaultProfile);
}

/** Error B110 where a rank would need more than the limit. */
export function checkMemory(peakBytes: number, limit: number): void {
  if (peakBytes <= limit) return;
  throw new AegisError({
    code: 'B110',
    message: `a rank needs ${peakBytes} bytes but the memory limit allows ${limit}`,
    help: 'raise --memory-limit, use more --devices, or compile for a smaller --seq-len',
  });
}
