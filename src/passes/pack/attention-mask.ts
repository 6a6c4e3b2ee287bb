/**
 * Constant masks and biases of attention, as plaintexts beside the scores (attention.ts). In iteration g the
 * slot (h, v, t) of element b holds the score of query t - U B g with key t + v + U b, cyclically in a token
 * block.
 */
import type { AttrValue, Value } from '../../ir/module.js';
import { axisSize, type Axis } from '../../ir/types.js';
import type { AttentionShape, AttentionSpec } from './attention-shape.js';
import { tokenAxis, type PackContext } from './context.js';

/** A value for every head, query and key; padded tokens included. */
export interface PairValues {
  readonly name: string;
  readonly heads: number;
  readonly at: (head: number, query: number, key: number) => number;
}

export interface HeadSlots {
  /** Heads, padded to a power of two. */
  readonly headSlots: number;
}

/** Padded keys are closed. Padded queries see all others, so that their denominators stay in range. */
export function keepOf(spec: AttentionSpec, keep: Float64Array): PairValues {
  const { tokens } = spec;
  const at = (_: number, query: number, key: number): number =>
    key >= tokens ? 0 : query >= tokens ? 1 : (keep[query * tokens + key] as number);
  return { name: 'keep', heads: 1, at };
}

/** shift + scale * bias; pairs with a padded token keep the score 0. */
export function biasOf(spec: AttentionSpec, bias: Float64Array, scale: number, shift: number): PairValues {
  const { tokens, heads, loc } = spec;
  const all = tokens * tokens;
  const perHead = bias.length > all;
  const at = (head: number, query: number, key: number): number =>
    key >= tokens || query >= tokens
      ? shift
      : shift + scale * (bias[(perHead ? head * all : 0) + query * tokens + key] as number);
  return { name: `${loc}:bias of scores`, heads: perHead ? heads : 1, at };
}

/**
 * The plaintext array that meets scores with the axes `axes` (query blocks p, key blocks q, offsets b, steps
 * r that go together) in one iteration of the loop over offsets, or without a loop.
 */
export function offsetVector(
  ctx: PackContext,
  spec: AttentionSpec,
  shape: AttentionShape & HeadSlots,
  axes: readonly Axis[],
  values: PairValues,
): Value {
  const { loc } = spec;
  const size = (name: string): number => axisSize(axes, name) ?? 1;
  const [blocks, keyBlocks, copies, together] = [size(tokenAxis), size('q'), size('b'), size('r')];
  const own = [...axes].filter(({ name }) => [tokenAxis, 'q', 'b', 'r'].includes(name));
  const iterations = shape.trips / together;
  const order = ['r', tokenAxis, 'q', 'b'];
  const sorted = [...own].sort((a, b) => order.indexOf(a.name) - order.indexOf(b.name));
  const features: number[] = [];
  for (let i = 0; i < iterations * together; i++) {
    // The carried loop starts at the last offset.
    const g = shape.carried ? shape.trips - 1 - i : i;
    for (let pq = 0; pq < blocks * keyBlocks; pq++) {
      for (let b = 0; b < copies; b++) features.push(...positions(ctx, spec, shape, values, { g, pq, b }));
    }
  }
  const attrs: Record<string, AttrValue> = {
    axes: sorted.map((axis) => ({ ...axis })) as unknown as AttrValue,
    period: ctx.period,
    constant: offsetTable(ctx, shape, values, { blocks, keyBlocks }),
    features: ctx.addTable(Int32Array.from(features)),
    tokens: ctx.addTable(Int32Array.from({ length: ctx.groups }, (_, t) => t)),
    factor: 1,
  };
  if (iterations > 1) attrs.iterations = iterations;
  return ctx.builder.op('pt.vector', [], attrs, loc);
}

/** Where each position of a token's group reads the table of offsets. */
function positions(
  { period, groups }: PackContext,
  spec: AttentionSpec,
  { headSlots, offsetsInSlots, offsetsInArray }: AttentionShape & HeadSlots,
  values: PairValues,
  { g, pq, b }: { g: number; pq: number; b: number },
): number[] {
  const blocks = spec.tokenBlocks ** 2;
  return Array.from({ length: period }, (_, u) => {
    const [h, v] = [u % headSlots, Math.floor(u / headSlots)];
    if (h >= spec.heads || v >= offsetsInSlots) return -1;
    const offset = v + offsetsInSlots * (b + offsetsInArray * g);
    return (((values.heads === 1 ? 0 : h) * blocks + pq) * groups + offset) * groups;
  });
}

/** [heads, query block, key block, offset, t]: what slot t of the offset's ciphertext holds. */
function offsetTable(
  ctx: PackContext,
  { offsetsInSlots, offsetsInArray }: AttentionShape,
  values: PairValues,
  { blocks, keyBlocks }: { blocks: number; keyBlocks: number },
): string {
  const { groups } = ctx;
  const stretch = offsetsInSlots * offsetsInArray;
  const shape = [values.heads, blocks, keyBlocks, groups, groups];
  const data = new Float64Array(shape.reduce((product, size) => product * size, 1));
  let next = 0;
  for (let h = 0; h < values.heads; h++) {
    for (let p = 0; p < blocks; p++) {
      for (let q = 0; q < keyBlocks; q++) {
        for (let offset = 0; offset < groups; offset++) {
          const turned = offset - (offset % stretch);
          for (let t = 0; t < groups; t++) {
            const query = p * groups + ((t - turned + groups) % groups);
            const key = q * groups + ((t + (offset % stretch)) % groups);
            data[next++] = values.at(h, query, key);
          }
        }
      }
    }
  }
  return ctx.addConstant(values.name, shape, data);
}
