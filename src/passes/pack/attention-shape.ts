/**
 * Chooses how many features of a head share slots (F), how many key offsets do (U), are ciphertexts at once
 * (B) and are looped over (G = groups / (U B)), and which rotation keys the loop takes.
 */
import type { Value } from '../../ir/module.js';
import { AegisError } from '../../support/diagnostics.js';
import {
  bootstrapCost,
  keySwitchCost,
  keySwitchTotal,
  multiplyCost,
  switchingKeyBytes,
} from '../../target/cost.js';
import type { Parameters } from '../../target/parameters.js';
import type { AttentionRanges } from '../ranges.js';
import { featuresInArray, headRows, sumsInSlotsCost, type SlotShape } from './attention-slots.js';
import { typicalLevel, type PackContext } from './context.js';
import { plainFeatures } from './layout.js';
import { linearCost } from './linear.js';

export interface AttentionSpec {
  readonly heads: number;
  readonly headSize: number;
  /** Features of V in a head. */
  readonly valueSize: number;
  /** Scores are scale * q.k. */
  readonly scale: number;
  readonly tokens: number;
  /** Token blocks P of queries and of keys. */
  readonly tokenBlocks: number;
  readonly ranges: AttentionRanges;
  /** Relative error of exp' and of the inverses that the budget leaves the node. */
  readonly tolerance?: number | undefined;
  /** [queries, keys]: 1 where a query sees a key, else 0. */
  readonly keep?: Float64Array | undefined;
  /** [queries, keys] or [heads, queries, keys], added to the scores. */
  readonly bias?: Float64Array | undefined;
  /** The soft cap of a score. */
  readonly capped: (score: number) => number;
  /** One in all slots of a kept key, zero elsewhere; the block axis, if there are several blocks. */
  readonly mask?: Value | undefined;
  readonly loc: string;
}

export interface AttentionShape {
  /** F */
  readonly featuresInSlots: number;
  /** U */
  readonly offsetsInSlots: number;
  /** Offsets in slots that are rotated at once: all of U, or about sqrt(U) where memory is short. */
  readonly babyOffsets: number;
  /** B */
  readonly offsetsInArray: number;
  /** G */
  readonly trips: number;
  /**
   * The loop carries the rotated queries and turns its sums by one step per iteration (Horner): one key
   * instead of G. Noise of G rotations adds up.
   */
  readonly carried: boolean;
  /** R: steps of a carried loop that go together. */
  readonly together: number;
}

/**
 * Copies of K and V, and scores, of a token block that may be alive at once, for each coefficient of the
 * ring: 4 GiB at N = 2^16. The loop takes the rest.
 */
const workingBytesPerCoefficient = 2 ** 16;
/** Steps that go together: each further one saves less. */
const largestTogether = 8;
/** Scores, weights and products of the steps of a token block that go together, for each coefficient. */
const togetherBytesPerCoefficient = 2 ** 18;
/** Products in a typical exp' (degree 15 to 31). */
const exponentialProducts = 9;
const exponentialDepth = 5;

/**
 * With `rounds`, all offsets at once (G = 1) keep their weights from round to round; a loop makes them anew
 * in each round.
 */
export function chooseAttentionShape(
  ctx: PackContext,
  spec: AttentionSpec,
  headSlots: number,
  rounds: number,
): AttentionShape {
  const { groups } = ctx;
  const shape = cheapestShape(ctx, spec, headSlots, rounds);
  if (shape !== undefined) return { ...shape, together: stepsTogether(ctx, spec, shape) };
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

function cheapestShape(
  ctx: PackContext,
  spec: AttentionSpec,
  headSlots: number,
  rounds: number,
): AttentionShape | undefined {
  const { options, groups } = ctx;
  const wanted = (asked: number, value: number) => asked === 0 || asked === value;
  let best: AttentionShape | undefined;
  let bestCost = Infinity;
  for (const { featuresInSlots, offsetsInSlots } of slotShares(ctx, spec, headSlots)) {
    if (!wanted(options.featuresInSlots, featuresInSlots)) continue;
    if (!wanted(options.offsetsInSlots, offsetsInSlots)) continue;
    const babyOffsets = chooseBabyOffsets(ctx, spec, offsetsInSlots);
    for (let offsetsInArray = 1; offsetsInSlots * offsetsInArray <= groups; offsetsInArray *= 2) {
      const trips = groups / (offsetsInSlots * offsetsInArray);
      if (!wanted(options.offsetsInArray, offsetsInArray)) continue;
      const carried = trips > 1 && trips * typicalKeyBytes(ctx) > options.offsetKeysLimitBytes;
      if (carried && options.offsetsTogether !== 0 && trips % options.offsetsTogether !== 0) continue;
      const slotShape = { featuresInSlots, offsetsInSlots, babyOffsets };
      const shape = { ...slotShape, headSlots, offsetsInArray, trips, carried, together: 1 };
      const cost = shapeCost(ctx, spec, shape, rounds);
      if (cost < bestCost) [best, bestCost] = [shape, cost];
    }
  }
  return best;
}

/** Powers of two F and U with H F U positions in a token's group. */
function slotShares(
  { period, groups }: PackContext,
  { headSize, valueSize }: AttentionSpec,
  headSlots: number,
): { featuresInSlots: number; offsetsInSlots: number }[] {
  const spare = period / headSlots;
  const result: { featuresInSlots: number; offsetsInSlots: number }[] = [];
  for (let features = 1; features < 2 * Math.min(headSize, valueSize) && features <= spare; features *= 2) {
    for (let offsets = 1; offsets <= Math.min(spare / features, groups); offsets *= 2) {
      result.push({ featuresInSlots: features, offsetsInSlots: offsets });
    }
  }
  return result;
}

/** As many as fit: each saves a decomposition of Q, a ModDown of the sums and a pass over K and V. */
function stepsTogether(ctx: PackContext, spec: AttentionSpec, shape: AttentionShape): number {
  const { offsetsTogether: asked } = ctx.options;
  if (!shape.carried) return 1;
  if (asked !== 0) return asked;
  const { offsetsInArray: b, trips } = shape;
  const alive = (exponentialProducts + 1) * b * spec.tokenBlocks + featuresInArray(spec.headSize, shape);
  let together = 1;
  while (
    2 * together <= Math.min(largestTogether, trips)
    && 2 * together * alive * ciphertextBytes(ctx) <= togetherBytesPerCoefficient * 2 ** ctx.parameters.logN
  ) {
    together *= 2;
  }
  return together;
}

function blockLimit({ parameters }: PackContext): number {
  return workingBytesPerCoefficient * 2 ** parameters.logN;
}

function typicalKeyBytes(ctx: PackContext): number {
  return switchingKeyBytes(ctx.parameters, typicalLevel(ctx.parameters));
}

function ciphertextBytes({ parameters }: PackContext): number {
  return 2 * (typicalLevel(parameters) + 1) * 2 ** parameters.logN * 8;
}

/**
 * With P blocks U grows by P, and so does the array: P^2 times the rotations of one block, which needs no
 * split.
 */
function chooseBabyOffsets(ctx: PackContext, spec: AttentionSpec, offsetsInSlots: number): number {
  const rotated = spec.headSize * spec.tokenBlocks * offsetsInSlots;
  const small = rotated * ciphertextBytes(ctx) <= ctx.options.spreadLimitBytes;
  if (spec.tokenBlocks === 1 || small) return offsetsInSlots;
  return 2 ** Math.ceil(Math.log2(offsetsInSlots) / 2);
}

/** For P query blocks, each against P key blocks. */
function shapeCost(
  ctx: PackContext,
  spec: AttentionSpec,
  shape: AttentionShape & SlotShape,
  rounds: number,
): number {
  const { parameters } = ctx;
  const level = typicalLevel(parameters);
  const unit = keySwitchCost(parameters, level);
  const total = keySwitchTotal(unit);
  const { tokenBlocks: p } = spec;
  const { featuresInSlots: f, offsetsInSlots: u, babyOffsets: v, offsetsInArray: b, trips: g } = shape;
  const d = featuresInArray(spec.headSize, shape);
  const working = 2 * d * b * p + (exponentialProducts + 1) * b * p * p;
  const limit = g === 1 ? blockLimit(ctx) : p * blockLimit(ctx);
  if (b > 1 && working * ciphertextBytes(ctx) > limit) return Infinity;
  const hoisted = (count: number) => unit.modUp + count * (unit.keyProduct + unit.modDown);
  const giants = u === v ? 0 : (u / v) * (unit.modUp + unit.keyProduct) + unit.modDown;
  const masked = u === 1 ? 0 : 2 * d * (unit.modUp + v * unit.keyProduct + unit.modDown + giants);
  const scores = g * b * p * (rounds + 1);
  const spread = f === 1 ? masked : sumsInSlotsCost(ctx, spec, shape, { scores, rounds });
  const linear = projectionsCost(ctx, spec, shape);
  const copies = b === 1 ? 0 : 2 * d * hoisted(b - 1);
  const product = (terms: number) => multiplyCost(parameters, level, terms);
  const weights = product(d) + exponentialProducts * product(1);
  const sums = g * d * product(b * p);
  if (g === 1) {
    const all = b * p * (weights + 2 * rounds * product(1));
    return p * (linear + spread + copies + all + sums) + weightBootstraps(parameters, b * p * p, rounds);
  }
  const moves = g * (2 * d + 1 + rounds * (d + 2)) * total;
  const passes = g * b * p * ((rounds + 1) * weights + rounds * (rounds + 1) * product(1));
  return p * (linear + spread + copies + moves + passes + sums);
}

/** The linear layers that make Q, K and V and the one that reads the result. */
function projectionsCost(ctx: PackContext, spec: AttentionSpec, shape: AttentionShape & SlotShape): number {
  const { period } = ctx;
  const width = spec.heads * spec.headSize;
  const hidden = plainFeatures(width, period);
  const inputs = hidden.length / period;
  const rows = headRows(period, spec, shape);
  const heads = rows.length / period;
  const make = linearCost(ctx, { from: hidden, to: rows, inputs, outputs: heads });
  return 3 * make + linearCost(ctx, { from: rows, to: hidden, inputs: heads, outputs: inputs });
}

/**
 * Weights that are kept through all rounds wait for inverses made from them, and no bootstrap of Q and K
 * serves the last round: they are bootstrapped themselves where scores, exp', rounds and the product exceed
 * the levels.
 */
function weightBootstraps(parameters: Parameters, count: number, rounds: number): number {
  const levels = 1 + exponentialDepth + 2 * rounds + 2;
  return rounds > 0 && levels > parameters.literal.usableLevels ? bootstrapCost(parameters, count) : 0;
}
