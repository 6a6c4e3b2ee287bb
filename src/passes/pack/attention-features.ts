/**
 * Attention of short sequences, F features of a head in slots (attention.ts): slot k + F*(h + H*v) + c*t
 * holds feature k + F*j of head h at ciphertext j. Projections write v = 0 only; all other positions are
 * zero, so copies are sums of rotations, without masks and levels:
 *
 *     Q'[j](v, t) = Q[j](t)            rotations by -F*H*v
 *     K'[j](v, t) = K[j](t + v)        rotations by (c - F*H)*v; V' alike
 *     s           = sum_k sum_j Q'[j] K'[j]     rotations by k, kept at k = 0, copied by rotations by -k
 *     den, O[j]   = sums over v                 rotations by F*H*v, kept at v = 0
 */
import type { Value } from '../../ir/module.js';
import { offsetStride, positionsWhere, type SlotShape } from './attention-slots.js';
import type { PackContext } from './context.js';
import { sumRotations } from './group-sums.js';

interface Spec {
  readonly heads: number;
  readonly tokens: number;
  readonly tokenBlocks: number;
  readonly loc: string;
}

function ones(ctx: PackContext): string {
  return ctx.addConstant('one', [1], new Float64Array([1]));
}

export function spreadQueries(ctx: PackContext, queries: Value, shape: SlotShape, loc: string): Value {
  return sumRotations(ctx, queries, -offsetStride(shape), shape.offsetsInSlots, loc);
}

/** Of K or V: cyclic in the tokens of a block. */
export function spreadKeys(ctx: PackContext, keys: Value, shape: SlotShape, loc: string): Value {
  return sumRotations(ctx, keys, ctx.period - offsetStride(shape), shape.offsetsInSlots, loc);
}

/** A key mask, one in all slots of a token, at v = 0 only, so that copies can be added to it. One level. */
export function maskAtStart(ctx: PackContext, spec: Spec, mask: Value, shape: SlotShape): Value {
  if (shape.offsetsInSlots === 1) return mask;
  const first = positionsWhere(ctx.period, spec.heads, shape, (_, v) => v === 0);
  return ctx.timesPlain(mask, ctx.vector(ones(ctx), [], first, undefined, 1, spec.loc), [], spec.loc);
}

/** Products of features to scores at every k: one level. Unused positions become zero. */
export function sumFeatures(ctx: PackContext, spec: Spec, products: Value, shape: SlotShape): Value {
  const { heads, loc } = spec;
  const { featuresInSlots } = shape;
  const sums = sumRotations(ctx, products, 1, featuresInSlots, loc);
  const first = positionsWhere(ctx.period, heads, shape, (k) => k === 0);
  const kept = ctx.timesPlain(sums, ctx.vector(ones(ctx), [], first, undefined, 1, loc), [], loc);
  return sumRotations(ctx, kept, -1, featuresInSlots, loc);
}

/**
 * factor * sum over v, at every k: one level. At v = 0, or at every v; other positions become zero. `used`
 * marks the positions that hold it.
 */
export function sumOffsetsInSlots(
  ctx: PackContext,
  { heads, loc }: Spec,
  terms: Value,
  shape: SlotShape,
  { factor, everywhere }: { factor: number; everywhere: boolean },
): { value: Value; used: Int32Array } {
  const stride = offsetStride(shape);
  const sums = sumRotations(ctx, terms, stride, shape.offsetsInSlots, loc);
  const first = positionsWhere(ctx.period, heads, shape, (_, v) => v === 0);
  const kept = ctx.timesPlain(sums, ctx.vector(ones(ctx), [], first, undefined, factor, loc), [], loc);
  if (!everywhere) return { value: kept, used: first };
  const value = sumRotations(ctx, kept, -stride, shape.offsetsInSlots, loc);
  return { value, used: positionsWhere(ctx.period, heads, shape, () => true) };
}

/** Weighted values summed over v, at v = 0 of the value's tokens; zero elsewhere. One level. */
export function sumWeighted(ctx: PackContext, spec: Spec, weighted: Value, shape: SlotShape): Value {
  const { heads, loc, tokens, tokenBlocks } = spec;
  const sums = sumRotations(ctx, weighted, offsetStride(shape), shape.offsetsInSlots, loc);
  const first = positionsWhere(ctx.period, heads, shape, (_, v) => v === 0);
  const table = ctx.tokenTable(tokenBlocks, 0, tokens, () => 0);
  return ctx.timesPlain(sums, ctx.vector(ones(ctx), [], first, table, 1, loc), [], loc);
}
