/**
 * Where attention holds what in the slots of a token's group: position k + F*(h + H*v) for F features k and U
 * key offsets v in slots, H heads padded to a power of two. And what sums over k and v cost.
 */
import { sumCost } from './group-sums.js';
import type { PackContext } from './context.js';

export interface SlotShape {
  /** H: heads, padded to a power of two. */
  readonly headSlots: number;
  /** F */
  readonly featuresInSlots: number;
  /** U */
  readonly offsetsInSlots: number;
}

/** Heads, features of Q and K in a head, and of V. */
interface HeadSizes {
  readonly heads: number;
  readonly headSize: number;
  readonly valueSize: number;
}

/** Ciphertexts of a head's features. */
export function featuresInArray(size: number, { featuresInSlots }: { featuresInSlots: number }): number {
  return Math.ceil(size / featuresInSlots);
}

/** Distance of key offsets in a token's group. */
export function offsetStride({ featuresInSlots, headSlots }: SlotShape): number {
  return featuresInSlots * headSlots;
}

/** Feature at (element j, position u): at every v with F = 1, else at v = 0; -1 elsewhere. */
export function headRows(
  period: number,
  { heads, headSize: size }: Pick<HeadSizes, 'heads' | 'headSize'>,
  { headSlots, featuresInSlots, offsetsInSlots }: SlotShape,
): Int32Array {
  const count = featuresInArray(size, { featuresInSlots });
  const used = headSlots * featuresInSlots * (featuresInSlots === 1 ? offsetsInSlots : 1);
  const rows = new Int32Array(count * period).fill(-1);
  for (let j = 0; j < count; j++) {
    for (let u = 0; u < used; u++) {
      const head = Math.floor(u / featuresInSlots) % headSlots;
      const feature = (u % featuresInSlots) + featuresInSlots * j;
      if (head < heads && feature < size) rows[j * period + u] = head * size + feature;
    }
  }
  return rows;
}

/** Of each position of a token's group: 0 where scores use it and `kept` holds, else -1. */
export function positionsWhere(
  period: number,
  heads: number,
  { headSlots, featuresInSlots, offsetsInSlots }: SlotShape,
  kept: (feature: number, offset: number) => boolean,
): Int32Array {
  return Int32Array.from({ length: period }, (_, u) => {
    const [k, rest] = [u % featuresInSlots, Math.floor(u / featuresInSlots)];
    const [h, v] = [rest % headSlots, Math.floor(rest / headSlots)];
    return h < heads && v < offsetsInSlots && kept(k, v) ? 0 : -1;
  });
}

/** NTTs of all sums in slots for one token block, scores of `scores` ciphertexts; new keys included. */
export function sumsInSlotsCost(
  ctx: PackContext,
  { headSize, valueSize }: HeadSizes,
  shape: SlotShape,
  { scores, rounds }: { scores: number; rounds: number },
): number {
  const { offsetsInSlots: offsets, featuresInSlots: features } = shape;
  const stride = offsetStride(shape);
  const [keys, values] = [featuresInArray(headSize, shape), featuresInArray(valueSize, shape)];
  const denominators = rounds + 1;
  return (
    sumCost(ctx, -stride, offsets, keys + (rounds === 0 ? 0 : denominators))
    + sumCost(ctx, ctx.period - stride, offsets, keys + values)
    + sumCost(ctx, 1, features, scores)
    + sumCost(ctx, -1, features, scores)
    + sumCost(ctx, stride, offsets, values + denominators)
  );
}
