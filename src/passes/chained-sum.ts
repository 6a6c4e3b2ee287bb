/** Giant steps as a Horner chain: fewer keys against a ModDown and a ModUp more for each. */
import type { BlockBuilder } from '../ir/builder.js';
import type { Value } from '../ir/module.js';
import { defined } from '../support/invariant.js';

/** Giant steps first + stride * i, i < count, of which `present` lists those that a sum has, rising. */
export interface GiantChain {
  readonly first: number;
  readonly stride: number;
  readonly count: number;
  readonly present: readonly number[];
}

/** The chain of some giant steps, which are first + multiples of `stride`. */
export function giantChain(giants: readonly number[], stride: number): GiantChain {
  const first = Math.min(...giants);
  const present = giants.map((giant) => (giant - first) / stride).sort((a, b) => a - b);
  return { first, stride, count: 1 + Math.max(...present), present };
}

/** Steps whose keys the chain takes; none is 0. */
export function chainKeys({ first, stride, count }: GiantChain): number[] {
  return [...(count > 1 ? [stride] : []), ...(first === 0 ? [] : [first])];
}

/** Rotations of the chain, one after another. */
export function chainRotations({ first, count }: GiantChain): number {
  return count - 1 + (first === 0 ? 0 : 1);
}

/**
 * sum over i of rot(parts[i], giant i), element i of `axis` being that of giant step `present[i]`: the sum is
 * rotated by one stride before each part is added, at last by `first`. Noise of all rotations adds up.
 * `slots` is N/2.
 */
export function chainedSum(
  builder: BlockBuilder,
  parts: Value,
  axis: string,
  chain: GiantChain,
  slots: number,
  loc: string,
): Value {
  const turned = (value: Value, step: number): Value => {
    const steps = [((step % slots) + slots) % slots];
    if (steps[0] === 0) return value;
    const rotated = builder.op('ct.rotate', [value], { axis: 'turn', steps }, loc);
    return builder.op('ct.index', [rotated], { axis: 'turn', index: 0 }, loc);
  };
  let sum: Value | undefined;
  for (let i = chain.count - 1; i >= 0; i--) {
    if (sum !== undefined) sum = turned(sum, chain.stride);
    const index = chain.present.indexOf(i);
    if (index < 0) continue;
    const part = builder.op('ct.index', [parts], { axis, index }, loc);
    sum = sum === undefined ? part : builder.op('ct.add', [sum, part], {}, loc);
  }
  return turned(defined(sum, 'a chain has parts'), chain.first);
}
