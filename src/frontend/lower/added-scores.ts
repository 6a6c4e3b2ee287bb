/**
 * Constants added to attention scores, or put in their place: masks and position biases. Recognised by value:
 * what is far below every score closes a key to a query.
 */
import type { Constant } from '../../ir/module.js';
import { elementCount } from '../model.js';
import { broadcastIndex } from '../kernels/call.js';

/** [batch, heads, queries, keys]; batch and heads are 1 where all items or heads have the same. */
export interface Added {
  readonly batch: number;
  readonly heads: number;
  readonly values: Float64Array;
}

export interface ScoreSizes {
  readonly batch: number;
  readonly heads: number;
  readonly queries: number;
  readonly keys: number;
}

/** exp(-1000) is 0 in double precision: keys that lie so far below the best one are not seen at all. */
const closedBelow = -1000;

/** A constant that broadcasts to scores of the ONNX shape [.., queries, keys]. */
export function addedConstant(
  values: Float64Array,
  shape: readonly number[],
  scoresShape: readonly number[],
  sizes: ScoreSizes,
): Added {
  const all = elementCount(scoresShape);
  const spread = broadcastIndex(shape, scoresShape) ?? Int32Array.from({ length: all }, (_, i) => i);
  const area = sizes.queries * sizes.keys;
  const same = (a: number, b: number): boolean => {
    for (let i = 0; i < area; i++) {
      if (values[spread[a * area + i] as number] !== values[spread[b * area + i] as number]) return false;
    }
    return true;
  };
  const { batch, heads } = sizes;
  const items = Array.from({ length: batch }, (_, b) => b);
  const each = Array.from({ length: heads }, (_, h) => h);
  const sameHeads = items.every((b) => each.every((h) => same(b * heads, b * heads + h)));
  const sameItems = items.every((b) => each.every((h) => same(h, b * heads + h)));
  const own = { batch: sameItems ? 1 : batch, heads: sameHeads ? 1 : heads };
  const out = new Float64Array(own.batch * own.heads * area);
  for (let i = 0; i < out.length; i++) {
    const part = Math.floor(i / area);
    const lead = Math.floor(part / own.heads) * heads + (part % own.heads);
    out[i] = values[spread[lead * area + (i % area)] as number] as number;
  }
  return { ...own, values: out };
}

/** Sum of two; what closes a key closes it whatever the other adds. */
export function addedSum(a: Added | null, b: Added, { queries, keys }: ScoreSizes): Added {
  if (a === null) return b;
  const [batch, heads] = [Math.max(a.batch, b.batch), Math.max(a.heads, b.heads)];
  const area = queries * keys;
  const values = new Float64Array(batch * heads * area);
  const from = (one: Added, i: number): number => {
    const [item, head] = [Math.floor(i / area / heads), Math.floor(i / area) % heads];
    const lead = (one.batch === 1 ? 0 : item * one.heads) + (one.heads === 1 ? 0 : head);
    return one.values[lead * area + (i % area)] as number;
  };
  for (let i = 0; i < values.length; i++) values[i] = from(a, i) + from(b, i);
  return { batch, heads, values };
}

export function scaledAdded(added: Added | null, factor: number): Added | null {
  return added === null ? null : { ...added, values: added.values.map((value) => value * factor) };
}

/** The same for more queries, which see all keys, and more keys, which nobody sees. */
export function paddedAdded(
  { batch, heads, values }: Added,
  { queries, keys }: Pick<ScoreSizes, 'queries' | 'keys'>,
  sizes: ScoreSizes,
): Added {
  const area = sizes.queries * sizes.keys;
  const wide = Float64Array.from({ length: batch * heads * area }, (_, i) => {
    const [row, key] = [Math.floor((i % area) / sizes.keys), i % sizes.keys];
    if (key >= keys) return -Infinity;
    const at = (Math.floor(i / area) * queries + row) * keys + key;
    return row >= queries ? 0 : (values[at] as number);
  });
  return { batch, heads, values: wide };
}

export interface AttentionConstants {
  /** [batch * queries, batch * keys] */
  readonly keep?: Constant;
  /** [.., batch * queries, batch * keys] */
  readonly bias?: Constant;
}

/**
 * Mask and bias of an attention whose batch items lie beside each other as tokens: items do not see each
 * other. Each row of the bias has its largest value at 0, which the softmax does not notice. A string says
 * what cannot be expressed.
 */
export function attentionConstants(added: Added | null, sizes: ScoreSizes): AttentionConstants | string {
  const { batch, queries, keys } = sizes;
  const heads = added?.heads ?? 1;
  const [height, width] = [batch * queries, batch * keys];
  const keep = new Float64Array(height * width);
  const bias = new Float64Array(heads * height * width);
  for (let b = 0; b < batch; b++) {
    const item = added === null || added.batch === 1 ? 0 : b;
    for (let h = 0; h < heads; h++) {
      for (let q = 0; q < queries; q++) {
        const first = ((item * heads + h) * queries + q) * keys;
        const row = added?.values.subarray(first, first + keys) ?? new Float64Array(keys);
        const top = row.reduce((a, value) => Math.max(a, value), -Infinity);
        if (!(top > closedBelow) || top === Infinity) return `query ${q} sees no key`;
        for (let k = 0; k < keys; k++) {
          const below = (row[k] as number) - top;
          const at = (b * queries + q) * width + b * keys + k;
          const seen = below > closedBelow ? 1 : 0;
          if (h > 0 && seen !== keep[at]) return 'heads with different masks';
          keep[at] = seen;
          bias[h * height * width + at] = seen === 0 ? 0 : below;
        }
      }
    }
  }
  const biased = bias.some((value) => value !== 0);
  const masked = keep.some((value) => value === 0);
  return {
    ...(masked ? { keep: { shape: [height, width], data: keep } } : {}),
    ...(biased ? { bias: { shape: [heads, height, width].slice(heads === 1 ? 1 : 0), data: bias } } : {}),
  };
}
