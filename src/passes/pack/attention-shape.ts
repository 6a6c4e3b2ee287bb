/**
 * Chooses how many key offsets share slots (U), are ciphertexts at once (B) and are looped over (G = groups /
 * (U B)).
 */
import { AegisError } from '../../support/diagnostics.js';
import { keySwitchCost, keySwitchTotal, multiplyCost } from '../../target/cost.js';
import type { AttentionRanges } from '../ranges.js';
import { typicalLevel, type PackContext } from './context.js';

export interface AttentionSpec {
  readonly heads: number;
  readonly headSize: number;
  /** Scores are scale * q.k. */
  readonly scale: number;
  readonly tokens: number;
  readonly ranges: AttentionRanges;
  readonly loc: string;
}

export interface AttentionShape {
  /** U */
  readonly offsetsInSlots: number;
  /** B */
  readonly offsetsInArray: number;
  /** G */
  readonly blocks: number;
}

/** Copies of K and V that may be alive at once; the loop over blocks takes the rest. */
const copiesLimitBytes = 2 ** 32;
/** Products in a typical exp' (degree 15 to 31). */
const exponentialProducts = 9;

export function chooseAttentionShape(
  ctx: PackContext,
  spec: AttentionSpec,
  headSlots: number,
  storeAll: boolean,
): AttentionShape {
  const { options, groups } = ctx;
  const spare = Math.min(ctx.period / headSlots, groups);
  let best: AttentionShape | undefined;
  let bestCost = Infinity;
  for (let offsetsInSlots = 1; offsetsInSlots <= spare; offsetsInSlots *= 2) {
    for (let offsetsInArray = 1; offsetsInSlots * offsetsInArray <= groups; offsetsInArray *= 2) {
      const shape = { offsetsInSlots, offsetsInArray, blocks: groups / (offsetsInSlots * offsetsInArray) };
      const wanted = (asked: number, value: number) => asked === 0 || asked === value;
      if (storeAll && shape.blocks > 1) continue;
      if (!wanted(options.offsetsInSlots, offsetsInSlots)) continue;
      if (!storeAll && !wanted(options.offsetsInArray, offsetsInArray)) continue;
      const cost = shapeCost(ctx, spec, shape);
      if (cost < bestCost) [best, bestCost] = [shape, cost];
    }
  }
  if (best !== undefined) return best;
  throw new AegisError({
    code: 'A112',
    node: spec.loc,
    pass: 'pack',
    message:
      `no arrangement of ${groups} key offsets fits ${ctx.period / headSlots} spare positions `
      + 'and the memory limit',
    help: 'leave the key offsets to the cost model, or raise the memory limit',
  });
}

function shapeCost(ctx: PackContext, spec: AttentionSpec, shape: AttentionShape): number {
  const { parameters } = ctx;
  const level = typicalLevel(parameters);
  const unit = keySwitchCost(parameters, level);
  const total = keySwitchTotal(unit);
  const d = spec.headSize;
  const { offsetsInSlots: u, offsetsInArray: b, blocks: g } = shape;
  const copiesBytes = 2 * d * b * 2 * (level + 1) * 2 ** parameters.logN * 8;
  if (copiesBytes > copiesLimitBytes) return Infinity;
  const hoisted = (count: number) => unit.modUp + count * (unit.keyProduct + unit.modDown);
  const spread = u === 1 ? 0 : 2 * d * (unit.modUp + u * unit.keyProduct + unit.modDown);
  const copies = b === 1 ? 0 : 2 * d * hoisted(b - 1);
  const moves = g === 1 ? 0 : g * (2 * d + 1) * total;
  const scores =
    g * b * (multiplyCost(parameters, level, d) + exponentialProducts * multiplyCost(parameters, level, 1));
  return spread + copies + moves + scores + g * d * multiplyCost(parameters, level, b);
}
