/** The prime chain of one compilation: ranked once, on the first module that is planned. */
import type { Module } from '../ir/module.js';
import type { ValueBounds } from '../passes/plan-levels.js';
import { rankChains, type Chain } from '../passes/plan-levels/chain.js';
import { defined } from '../support/invariant.js';
import type { Parameters } from '../target/parameters.js';
import type { DeviceProfile } from '../target/profile.js';

/** What the report says of a chain. */
export interface ChainReport {
  readonly usableLevels: number;
  readonly specials: number;
  /** Predicted, before the exact plan; null where no trial was made. */
  readonly seconds: number | null;
}

/** Keys smaller than this share are worth another try where they have a limit. */
const lighterBy = 0.8;

export class ChainChoice {
  private ranked: readonly Chain[] = [];
  private taken = 0;

  /** `fixed`: the parameters that modules come with are taken as they are. */
  constructor(
    private readonly fixed: boolean,
    private readonly profile: DeviceProfile | undefined,
  ) {}

  /** For a packed module with open levels. */
  parametersFor(module: Module, bounds: ValueBounds): Parameters {
    if (this.fixed) return defined(module.parameters, 'parameters');
    if (this.ranked.length === 0) this.ranked = rankChains(module, bounds, this.profile);
    return defined(this.ranked[this.taken], 'chain').parameters;
  }

  /** Goes on to the fastest chain with keys that are much smaller; false if there is none. */
  lighter(): boolean {
    const limit = lighterBy * (this.ranked[this.taken]?.keyBytes ?? 0);
    const next = this.ranked.findIndex(({ keyBytes }, i) => i > this.taken && keyBytes <= limit);
    if (next < 0) return false;
    this.taken = next;
    return true;
  }

  /** Fastest first. */
  get report(): readonly ChainReport[] {
    return this.ranked.map(({ parameters: { literal }, seconds }) => ({
      usableLevels: literal.usableLevels,
      specials: literal.specials,
      seconds: seconds === Infinity ? null : seconds,
    }));
  }
}
