/**
 * Sums of rotations by multiples of one step, in stages: inside a token's group they add up features or key
 * offsets, and they copy a value to positions that are zero.
 */
import type { Value } from '../../ir/module.js';
import { keySwitchCost, keySwitchTotal } from '../../target/cost.js';
import { axesCount } from '../../ir/types.js';
import { typicalLevel, type PackContext } from './context.js';
import { ctType } from './layout.js';

/** Rotations of a stage at most, the unrotated one counted. */
const largestRadix = 8;

interface Stages {
  /** In NTTs: key switches of `elements` ciphertexts, and new keys. */
  readonly cost: number;
  /** Rotation steps of every stage, each with 0 first. */
  readonly steps: readonly (readonly number[])[];
}

/** The cheapest stages: wide ones save ModUps and ModDowns, narrow ones take fewer keys. */
function cheapestStages(ctx: PackContext, step: number, count: number, elements: number): Stages {
  const unit = keySwitchCost(ctx.parameters, typicalLevel(ctx.parameters));
  const stageCost = (turns: readonly number[]): number => {
    const fresh = turns.filter((turn) => !ctx.steps.has(turn)).length;
    const switches = unit.modUp + turns.length * unit.keyProduct + unit.modDown;
    return elements * switches + fresh * ctx.newKey * keySwitchTotal(unit);
  };
  const best: Stages[] = [{ cost: 0, steps: [] }];
  for (let bits = 1; 2 ** bits <= count; bits++) {
    let cheapest: Stages = { cost: Infinity, steps: [] };
    for (let radix = 1; 2 ** radix <= largestRadix && radix <= bits; radix++) {
      const before = best[bits - radix] ?? { cost: Infinity, steps: [] };
      const stride = step * 2 ** (bits - radix);
      const turns = Array.from({ length: 2 ** radix - 1 }, (_, i) => ctx.reduce(stride * (i + 1)));
      const cost = before.cost + stageCost(turns);
      if (cost < cheapest.cost) cheapest = { cost, steps: [...before.steps, [0, ...turns]] };
    }
    best.push(cheapest);
  }
  return best.at(-1) ?? { cost: 0, steps: [] };
}

/** NTTs of sumRotations for `elements` ciphertexts, new keys included. */
export function sumCost(ctx: PackContext, step: number, count: number, elements: number): number {
  return elements === 0 ? 0 : cheapestStages(ctx, step, count, elements).cost;
}

/** sum over i < count of rot(value, step i), for every element; `count` is a power of two. No level. */
export function sumRotations(
  ctx: PackContext,
  value: Value,
  step: number,
  count: number,
  loc: string,
): Value {
  return cheapestStages(ctx, step, count, axesCount(ctType(value).axes)).steps.reduce((sum, turns) => {
    const steps = ctx.reduceAll(turns);
    const turned = ctx.builder.op('ct.rotate', [sum], { axis: turnAxis, steps }, loc);
    return ctx.builder.op('ct.sum', [turned], { axis: turnAxis }, loc);
  }, value);
}

const turnAxis = 'turn';
