/**
 * Movements of whole tokens. Inside a block they are rotations by period * tokens; between blocks the array
 * moves along its axis p, which costs nothing but one mask where a rotation has carried tokens past the end
 * of a block.
 */
import type { Value } from '../../ir/module.js';
import { tokenAxis, type PackContext } from './context.js';
import { blocksOf, ctType, elementAxes, type Packed } from './layout.js';

/** Tokens first .. first+count-1 moved to the front, all others zero: one level. `factor` multiplies. */
export function selectTokens(
  ctx: PackContext,
  x: Packed,
  first: number,
  count: number,
  factor: number,
  loc: string,
): Packed {
  const value = shiftTokens(ctx, x, { by: first, begin: 0, count, factor }, ctx.blocksFor(count), loc);
  return { ...x, value, tokens: count };
}

/** Mean over tokens at token 0: log2(groups) rotations, then one level. Padded tokens are zero. */
export function meanTokens(ctx: PackContext, x: Packed, loc: string): Packed {
  let { value } = x;
  if (blocksOf(value) > 1) value = ctx.builder.op('ct.sum', [value], { axis: tokenAxis }, loc);
  for (let step = ctx.period; step < ctx.slots; step *= 2) {
    value = ctx.builder.op('ct.add', [value, ctx.rotate(value, step, loc)], {}, loc);
  }
  return selectTokens(ctx, { ...x, value }, 0, 1, 1 / x.tokens, loc);
}

/**
 * A constant [n, features] put before or after the tokens of x; with several blocks, before costs a level.
 */
export function concatTokens(
  ctx: PackContext,
  x: Packed,
  constant: string,
  before: boolean,
  loc: string,
): Packed {
  const [count, width] = ctx.constantOf(constant).shape as [number, number];
  const total = x.tokens + count;
  const blocks = ctx.blocksFor(total);
  let value = widened(ctx, x.value, blocks, loc);
  if (before && blocks === 1) value = ctx.rotate(value, -count * ctx.period, loc);
  else if (before) {
    const shift = { by: -count, begin: count, count: x.tokens, factor: 1 };
    value = shiftTokens(ctx, { ...x, value }, shift, blocks, loc);
  }
  const tokens = ctx.tokenTable(blocks, before ? 0 : x.tokens, count, (t) => t * width);
  const plain = ctx.vector(ctx.keep(constant), elementAxes(value), x.features, tokens, 1, loc);
  return { ...x, value: ctx.builder.op('ct.add_plain', [value, plain], {}, loc), tokens: total };
}

interface Shift {
  /** Token t of the result is token t + by, a negative number to move to the back. */
  readonly by: number;
  /** Tokens of the result that are kept; the others are zero. */
  readonly begin: number;
  readonly count: number;
  readonly factor: number;
}

/**
 * One level: a mask for the tokens of the same block, one for those that the rotation takes from the next.
 */
function shiftTokens(ctx: PackContext, x: Packed, shift: Shift, blocks: number, loc: string): Value {
  const { groups } = ctx;
  const block = Math.floor(shift.by / groups);
  const inside = shift.by - block * groups;
  const one = ctx.addConstant('one', [1], new Float64Array([1]));
  const features = new Int32Array(ctx.period);
  const parts = [0, 1].flatMap((next) => {
    const tokens = Int32Array.from({ length: blocks * groups }, (_, t) => {
      const kept = t >= shift.begin && t < shift.begin + shift.count;
      return kept && Number((t % groups) + inside >= groups) === next ? 0 : -1;
    });
    if (tokens.every((entry) => entry < 0)) return [];
    const moved = ctx.rotate(shiftBlocks(ctx, x.value, block + next, blocks, loc), inside * ctx.period, loc);
    const mask = ctx.vector(one, [], features, tokens, shift.factor, loc);
    return [ctx.builder.op('ct.contract', [moved, mask], { over: [] }, loc)];
  });
  const sum = parts.reduce((a, b) => ctx.builder.op('ct.add', [a, b], {}, loc));
  return ctx.rescale(sum, loc);
}

/** Block p of the result is block p + by of the operand, cyclically; the axis goes if `blocks` is 1. */
export function shiftBlocks(ctx: PackContext, value: Value, by: number, blocks: number, loc: string): Value {
  const size = blocksOf(value);
  if (size === 1) return value;
  const start = ((by % size) + size) % size;
  const { builder } = ctx;
  if (blocks === 1) return builder.op('ct.index', [value], { axis: tokenAxis, index: start }, loc);
  if (start === 0) return value;
  const parts = [
    { start, size: size - start },
    { start: 0, size: start },
  ].map((range) => builder.op('ct.slice', [value], { axis: tokenAxis, ...range }, loc));
  return builder.op('ct.concat', parts, { axis: tokenAxis }, loc);
}

/** A value of one block as the first of several. */
export function widened(ctx: PackContext, value: Value, blocks: number, loc: string): Value {
  if (blocksOf(value) === blocks) return value;
  const axes = ctType(value).axes;
  const first = ctx.reshape(value, [{ name: tokenAxis, size: 1 }, ...axes], loc);
  const rest = [{ name: tokenAxis, size: blocks - 1 }, ...axes];
  const zero = ctx.builder.op('ct.zero', [], { axes: rest.map((axis) => ({ ...axis })) }, loc);
  return ctx.builder.op('ct.concat', [first, zero], { axis: tokenAxis }, loc);
}
