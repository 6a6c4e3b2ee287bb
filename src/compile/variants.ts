/** Plans of one model by strategy and number of devices: each strategy on the module that suits it best. */
import type { Module } from '../ir/module.js';
import type { Strategy } from '../passes/co-place/index.js';
import { localModDown } from '../passes/local-mod-down.js';
import type { DeviceProfile } from '../target/profile.js';
import { readPlan } from '../backend/index.js';
import { simulate } from '../backend/simulate.js';
import { checkMemory, lowerPlaced, place } from './place.js';

export interface Variant {
  readonly strategy: Strategy;
  readonly devices: number;
  /** Bytes of one rank. */
  readonly memoryLimit: number | undefined;
}

interface Lowered {
  readonly plan: Uint8Array;
  readonly peakBytes: number;
  readonly seconds: number;
}

export class VariantLowering {
  private readonly known = new Map<string, readonly Lowered[]>();

  /** `modules`: the same model, cut into different numbers of token blocks. */
  constructor(
    private readonly modules: readonly Module[],
    private readonly options: { readonly profile: DeviceProfile; readonly overlap: boolean },
  ) {}

  /** The fastest plan within the limit. Error B110 if there is none. */
  lower({ strategy, devices, memoryLimit }: Variant): Uint8Array {
    const all = this.all(strategy, devices);
    const fits = all.filter(({ peakBytes }) => peakBytes <= (memoryLimit ?? Infinity));
    const smallest = Math.min(...all.map(({ peakBytes }) => peakBytes));
    if (fits.length === 0) checkMemory(smallest, memoryLimit ?? Infinity);
    return fits.reduce((a, b) => (b.seconds < a.seconds ? b : a)).plan;
  }

  private all(strategy: Strategy, devices: number): readonly Lowered[] {
    const key = `${devices === 1 ? '' : strategy} ${devices}`;
    const known = this.known.get(key);
    if (known !== undefined) return known;
    // The published form of output aggregation has rounding points of its own: another module.
    const published =
      strategy === 'limb' && devices > 1 ? this.modules.map((one) => localModDown(one, devices)) : [];
    const made = [...this.modules, ...published].map((cipher): Lowered => {
      const options = { ...this.options, strategy, devices };
      const { plan, summary } = lowerPlaced(place(cipher, options), options);
      const { latencyS } = simulate(readPlan(plan), { profile: this.options.profile });
      return { plan, peakBytes: summary.peakBytes, seconds: latencyS };
    });
    this.known.set(key, made);
    return made;
  }
}
