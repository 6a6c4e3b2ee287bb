/**
 * Linear maps of the tokens by generalised diagonals: a rotation by period * r brings token t + r to token t,
 * cyclically in a block, so diagonal r holds weight[t, t + r]. Baby steps are hoisted, giant steps are summed
 * in the extended basis. With token blocks each distance between blocks has diagonals of its own.
 *
 *     y = sum_s sum_G rot(sum_b rot(x_(p + s), b) * d_(G + b, s) turned by -G, G)
 */
import type { AttrValue, Value } from '../../ir/module.js';
import { defined } from '../../support/invariant.js';
import { keySwitchCost, keySwitchTotal } from '../../target/cost.js';
import { tokenAxes, typicalLevel, type PackContext } from './context.js';
import { blocksOf, type Packed } from './layout.js';
import { shiftBlocks, widened } from './tokens.js';

interface Diagonals {
  /** Block p reads block p + distance. */
  readonly distance: number;
  /** Tokens, in [0, groups), rising. */
  readonly shifts: readonly number[];
}

/** weight x for a constant [outTokens, tokens]: one level. Padded tokens of the result are zero. */
export function mixTokens(ctx: PackContext, x: Packed, weight: string, loc: string): Packed {
  const { shape, data } = ctx.constantOf(weight);
  const [count, tokens] = [defined(shape[0], 'rows'), defined(shape[1], 'columns')];
  const at = (to: number, from: number): number =>
    to < count && from < tokens ? (data[to * tokens + from] as number) : 0;
  const blocks = ctx.blocksFor(count);
  const from = Math.max(blocks, blocksOf(x.value));
  const value = blocks === 1 ? x.value : widened(ctx, x.value, from, loc);
  const parts = usedDiagonals(ctx, at, blocks, from).map((diagonals) =>
    mixed(
      ctx,
      shiftBlocks(ctx, value, diagonals.distance, blocks, loc),
      { blocks, from, at, diagonals },
      loc,
    ),
  );
  const sum =
    parts.length === 0
      ? ctx.timesPlain(shiftBlocks(ctx, value, 0, blocks, loc), ctx.realConstant(0, loc), [], loc)
      : ctx.rescale(
          parts.reduce((a, b) => ctx.builder.op('ct.add', [a, b], {}, loc)),
          loc,
        );
  return { ...x, value: sum, tokens: count };
}

type At = (to: number, from: number) => number;

function usedDiagonals({ groups }: PackContext, at: At, blocks: number, from: number): Diagonals[] {
  return Array.from({ length: from }, (_, distance) => {
    const used = new Set<number>();
    for (let p = 0; p < blocks; p++) {
      const block = (p + distance) % from;
      for (let t = 0; t < groups; t++) {
        for (let k = 0; k < groups; k++) {
          if (at(p * groups + t, block * groups + k) !== 0) used.add((k - t + groups) % groups);
        }
      }
    }
    return { distance, shifts: [...used].sort((a, b) => a - b) };
  }).filter(({ shifts }) => shifts.length > 0);
}

interface Mix {
  /** Token blocks of the result, and of the operand. */
  readonly blocks: number;
  readonly from: number;
  readonly at: At;
  readonly diagonals: Diagonals;
}

/** What one distance between blocks adds, before the rescale. */
function mixed(ctx: PackContext, value: Value, mix: Mix, loc: string): Value {
  const { babies, giants } = split(ctx, mix.diagonals.shifts);
  const steps = (shifts: readonly number[]) => ctx.reduceAll(shifts.map((shift) => shift * ctx.period));
  const rotated = ctx.builder.op('ct.rotate', [value], { axis: 'b', steps: steps(babies) }, loc);
  const plain = diagonalVectors(ctx, mix, babies, giants, loc);
  const partial = ctx.builder.op('ct.contract', [rotated, plain], { over: ['b'] }, loc);
  const attrs = { axis: 'g', steps: steps(giants), sum: true };
  return ctx.builder.op('ct.rotate_each', [partial], attrs, loc);
}

/** Cheapest power-of-two number of baby steps. */
function split(ctx: PackContext, shifts: readonly number[]): { babies: number[]; giants: number[] } {
  const unit = keySwitchCost(ctx.parameters, typicalLevel(ctx.parameters));
  let best = { babies: [0], giants: [0] };
  let bestCost = Infinity;
  for (let count = 1; count <= ctx.groups; count *= 2) {
    const babies = [...new Set(shifts.map((shift) => shift % count))].sort((a, b) => a - b);
    const giants = [...new Set(shifts.map((shift) => shift - (shift % count)))].sort((a, b) => a - b);
    const cost =
      babies.length * unit.keyProduct + babies.length * unit.modDown + giants.length * keySwitchTotal(unit);
    if (cost < bestCost) [best, bestCost] = [{ babies, giants }, cost];
  }
  return best;
}

/** d_(G + b)[t] turned right by G: slot t holds what token t - G gets from token t + b. */
function diagonalVectors(
  ctx: PackContext,
  { blocks, from, at, diagonals }: Mix,
  babies: readonly number[],
  giants: readonly number[],
  loc: string,
): Value {
  const { groups, period } = ctx;
  const rows = blocks * giants.length * babies.length;
  const data = new Float64Array(rows * groups);
  const features = new Int32Array(rows * period);
  for (let row = 0; row < rows; row++) {
    const baby = defined(babies[row % babies.length], 'baby step');
    const giant = defined(giants[Math.floor(row / babies.length) % giants.length], 'giant step');
    const p = Math.floor(row / babies.length / giants.length);
    const block = (p + diagonals.distance) % from;
    const used = diagonals.shifts.includes(giant + baby);
    for (let t = 0; t < groups; t++) {
      const to = p * groups + ((t - giant + groups) % groups);
      data[row * groups + t] = used ? at(to, block * groups + ((t + baby) % groups)) : 0;
    }
    features.fill(row * groups, row * period, (row + 1) * period);
  }
  const axes = [...tokenAxes(blocks), { name: 'g', size: giants.length }, { name: 'b', size: babies.length }];
  return ctx.builder.op(
    'pt.vector',
    [],
    {
      axes: axes as unknown as AttrValue,
      period,
      constant: ctx.addConstant(`${loc}:diagonals of tokens`, [rows, groups], data),
      features: ctx.addTable(features),
      tokens: ctx.addTable(Int32Array.from({ length: groups }, (_, t) => t)),
      factor: 1,
    },
    loc,
  );
}
