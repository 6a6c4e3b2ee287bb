/** Rows of `simulate` and `compare` (CONTRACT): simulations beside a plan for one device. */
import { readPlan } from '../backend/index.js';
import { simulate, type ByBlock, type Simulation } from '../backend/simulate.js';
import type { Strategy } from '../passes/co-place/index.js';
import { AegisError } from '../support/diagnostics.js';
import type { DeviceProfile } from '../target/profile.js';

export interface Row {
  readonly strategy: string;
  readonly devices: number;
  readonly latencyS: number;
  /** Beside the one-device plan made under the same memory limit; beside the unlimited one if none fits. */
  readonly speedup: number | null;
  readonly efficiency: number | null;
  readonly exposedCommS: number;
  readonly commBytes: ByBlock;
  readonly peakBytesPerDevice: number;
  readonly fits: boolean;
}

export interface CompareRow extends Row {
  /** The one-device plan of `speedup` and `efficiency`. */
  readonly reference: 'limited' | 'unlimited';
  /** Beside the one-device plan made without a memory limit. */
  readonly speedupUnlimited: number;
  readonly efficiencyUnlimited: number;
}

export function rowOf(s: Simulation, referenceS: number | undefined): Row {
  const speedup = referenceS === undefined ? null : referenceS / s.latencyS;
  return {
    strategy: s.strategy,
    devices: s.devices,
    latencyS: s.latencyS,
    speedup,
    efficiency: speedup === null ? null : speedup / s.devices,
    exposedCommS: s.exposedCommS,
    commBytes: s.commBytes,
    peakBytesPerDevice: s.peakBytesPerDevice,
    fits: s.fits,
  };
}

/** Bytes of the plan. Error B110 where nothing fits the limit. */
export type LowerVariant = (variant: {
  readonly strategy: Strategy;
  readonly devices: number;
  readonly memoryLimit: number | undefined;
}) => Uint8Array;

export interface Comparison {
  readonly rows: readonly CompareRow[];
  readonly simulations: readonly Simulation[];
  /** One device under the limit; null if no plan fits. */
  readonly limitedS: number | null;
  readonly unlimitedS: number;
}

export interface CompareOptions {
  readonly profile: DeviceProfile;
  readonly devices: readonly number[];
  readonly strategies: readonly Strategy[];
  readonly kernelSpeed?: number;
  readonly onVariant?: (strategy: Strategy, devices: number, fraction: number) => void;
}

/** Strategies differ from two devices on: one device has one row. */
export function compareVariants(lower: LowerVariant, options: CompareOptions): Comparison {
  const { profile, kernelSpeed = 1, onVariant } = options;
  const memoryLimit = profile.memoryBytes;
  const variants = options.devices.flatMap((devices) =>
    (devices === 1 ? (['coplaced'] as const) : options.strategies).map((strategy) => ({ strategy, devices })),
  );
  const total = variants.length + 1;
  const simulated = (strategy: Strategy, devices: number, limit: number | undefined): Simulation =>
    simulate(readPlan(lower({ strategy, devices, memoryLimit: limit })), { profile, kernelSpeed });
  /** Under the limit, or where nothing fits it without; `fits` says so. */
  const best = (strategy: Strategy, devices: number): Simulation => {
    try {
      return simulated(strategy, devices, memoryLimit);
    } catch (error) {
      if (!isOverLimit(error)) throw error;
      return simulated(strategy, devices, undefined);
    }
  };
  onVariant?.('coplaced', 1, 0);
  const unlimited = simulated('coplaced', 1, undefined);
  // What fits without a limit is the best within it.
  const limited = unlimited.fits ? unlimited : best('coplaced', 1);
  const simulations = variants.map(({ strategy, devices }, i) => {
    onVariant?.(strategy, devices, (i + 1) / total);
    return devices === 1 ? limited : best(strategy, devices);
  });
  const limitedS = limited.fits ? limited.latencyS : null;
  const unlimitedS = unlimited.latencyS;
  const rows = simulations.map((one) => {
    const free = rowOf(one, unlimitedS);
    return {
      ...rowOf(one, limitedS ?? unlimitedS),
      reference: limitedS === null ? ('unlimited' as const) : ('limited' as const),
      speedupUnlimited: free.speedup ?? 0,
      efficiencyUnlimited: free.efficiency ?? 0,
    };
  });
  return { rows, simulations, limitedS, unlimitedS };
}

function isOverLimit(error: unknown): boolean {
  return error instanceof AegisError && error.diagnostics.every(({ code }) => code === 'B110');
}
