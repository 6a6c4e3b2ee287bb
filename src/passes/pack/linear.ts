/**
 * Linear layers by generalised diagonals (DESIGN section 4): a rotation by r brings feature u + r of the same
 * token to
 * position u where 0 <= u + r < c, so 2c - 1 diagonals need neither masks nor a second level. Baby steps are
 * hoisted per
 * input ciphertext, giant steps are summed in the extended basis. Token blocks are a batch axis.
 */
import type { AttrValue, Value } from '../../ir/module.js';
import type { Axis } from '../../ir/types.js';
import { axesCount } from '../../ir/types.js';
import { keySwitchCost, keySwitchTotal } from '../../target/cost.js';
import { chainedSum, chainKeys, chainRotations, giantChain, type GiantChain } from '../chained-sum.js';
import { tokenAxes, typicalLevel, type PackContext } from './context.js';
import { blocksOf, elementsOf, readColumns, type Packed } from './layout.js';

export interface MatrixSpec {
  /** Name of a rank-2 constant [out, in] of the packed module. */
  readonly weight: string;
  /** Output feature at (element, position) of the result; -1 leaves zero. */
  readonly rows: Int32Array;
  readonly outAxes: readonly Axis[];
  readonly factor: number;
}

/** Applies a matrix: one level, result at the positions of `rows`. */
export function applyMatrix(ctx: PackContext, x: Packed, spec: MatrixSpec, loc: string): Value {
  const inputs = elementsOf(x.value);
  const columns = readColumns(x);
  const needed = neededDiagonals(ctx.period, spec.rows, columns);
  const blocks = blocksOf(x.value);
  const split = chooseSplit(ctx, needed, blocks * inputs, blocks * axesCount(spec.outAxes));

  const flat = ctx.reshape(x.value, [...tokenAxes(blocks), { name: 'i', size: inputs }], loc);
  const babies = ctx.builder.op('ct.rotate', [flat], { axis: 'b', steps: ctx.reduceAll(split.baby) }, loc);
  const axes: Axis[] = [
    ...spec.outAxes,
    { name: 'g', size: split.giant.length },
    { name: 'i', size: inputs },
    { name: 'b', size: split.baby.length },
  ];
  const diagonals = ctx.builder.op(
    'pt.diagonals',
    [],
    {
      axes: axes as unknown as AttrValue,
      period: ctx.period,
      weight: spec.weight,
      rows: ctx.addTable(spec.rows),
      columns: ctx.addTable(columns),
      baby: split.baby,
      giant: split.giant,
      factor: spec.factor,
    },
    loc,
  );
  const partial = ctx.builder.op('ct.contract', [babies, diagonals], { over: ['i', 'b'] }, loc);
  if (split.chain !== undefined) {
    ctx.reduceAll(chainKeys(split.chain));
    return ctx.rescale(chainedSum(ctx.builder, partial, 'g', split.chain, ctx.slots, loc), loc);
  }
  const attrs = { axis: 'g', steps: ctx.reduceAll(split.giant), sum: true };
  return ctx.rescale(ctx.builder.op('ct.rotate_each', [partial], attrs, loc), loc);
}

/** The r in (-c, c) for which some position u has an output feature and u + r an input feature. */
function neededDiagonals(period: number, rows: Int32Array, columns: Int32Array): number[] {
  const occupied = (table: Int32Array) =>
    Array.from({ length: period }, (_, u) => {
      for (let i = u; i < table.length; i += period) if ((table[i] ?? -1) >= 0) return true;
      return false;
    });
  const [outs, ins] = [occupied(rows), occupied(columns)];
  const needed: number[] = [];
  for (let r = 1 - period; r < period; r++) {
    if (outs.some((used, u) => used && ins[u + r] === true)) needed.push(r);
  }
  return needed;
}

interface Split {
  readonly baby: number[];
  readonly giant: number[];
  /** Giant steps one after another, for fewer keys. */
  readonly chain?: GiantChain;
}

/** Cheapest power-of-two baby-step count, counting rotations and the keys that nobody else uses yet. */
function chooseSplit(ctx: PackContext, needed: readonly number[], inputs: number, outputs: number): Split {
  let best: Split | undefined;
  let bestCost = Infinity;
  for (let count = 1; count <= 2 * ctx.period; count *= 2) {
    const split = splitBy(needed, count);
    const chained = { ...split, chain: giantChain(split.giant, count) };
    for (const one of ctx.savesKeys ? [split, chained] : [split]) {
      const cost = splitCost(ctx, one, inputs, outputs);
      if (cost < bestCost) [best, bestCost] = [one, cost];
    }
  }
  return best ?? { baby: [0], giant: [0] };
}

/** In NTTs. */
function splitCost(ctx: PackContext, split: Split, inputs: number, outputs: number): number {
  const unit = keySwitchCost(ctx.parameters, typicalLevel(ctx.parameters));
  const rotations = (steps: readonly number[]) => steps.filter((step) => ctx.reduce(step) !== 0);
  const { baby, giant, chain } = split;
  const giantKeys = chain === undefined ? rotations(giant) : chainKeys(chain);
  const keys = new Set([...rotations(baby), ...giantKeys].map((step) => ctx.reduce(step)));
  const newKeys = [...keys].filter((step) => !ctx.steps.has(step)).length;
  const turns =
    chain === undefined
      ? rotations(giant).length * (unit.modUp + unit.keyProduct)
      : chainRotations(chain) * keySwitchTotal(unit);
  return (
    inputs * (unit.modUp + rotations(baby).length * unit.keyProduct)
    + outputs * (giant.length * unit.modDown + turns)
    + newKeys * ctx.newKey * keySwitchTotal(unit)
  );
}

/**
 * NTTs of a linear layer from features at `from` to features at `to`, whose arrays have `inputs` and
 * `outputs` elements. An estimate: all features are taken to be contiguous.
 */
export function linearCost(
  ctx: PackContext,
  { from, to, inputs, outputs }: { from: Int32Array; to: Int32Array; inputs: number; outputs: number },
): number {
  const needed = neededDiagonals(ctx.period, to, from);
  return splitCost(ctx, chooseSplit(ctx, needed, inputs, outputs), inputs, outputs);
}

function splitBy(needed: readonly number[], count: number): Split {
  const baby = new Set<number>();
  const giant = new Set<number>();
  for (const r of needed) {
    const low = ((r % count) + count) % count;
    baby.add(low);
    giant.add(r - low);
  }
  const sorted = (set: Set<number>) => (set.size === 0 ? [0] : [...set].sort((a, b) => a - b));
  return { baby: sorted(baby), giant: sorted(giant) };
}

/** y -> scale * y + shift, the argument of an approximation; `rest` at padded tokens, by default shift. */
export interface Affine {
  readonly scale: number;
  readonly shift: number;
  readonly rest?: number;
}

/**
 * Bias at the positions of `rows`, for the value's tokens only: padded tokens must stay zero (DESIGN section
 * 4).
 * `scale * bias + shift` on tokens, `rest` on padded tokens.
 */
export function addBias(
  ctx: PackContext,
  value: Value,
  rows: Int32Array,
  axes: readonly Axis[],
  bias: Float64Array | undefined,
  affine: Affine,
  tokens: number,
  loc: string,
): Value {
  if (bias === undefined && affine.shift === 0) return value;
  const width = bias?.length ?? Math.max(...rows) + 1;
  const blocks = blocksOf(value);
  const rest = affine.rest ?? affine.shift;
  const padded = tokens < blocks * ctx.groups && rest !== 0;
  const data = new Float64Array(width * (padded ? 2 : 1)).fill(rest);
  for (let f = 0; f < width; f++) data[f] = (bias?.[f] ?? 0) * affine.scale + affine.shift;
  const name = ctx.addConstant(`${loc}:bias`, [padded ? 2 : 1, width], data);
  const table = ctx.tokenTable(blocks, 0, tokens, () => 0, padded ? width : -1);
  const plain = ctx.vector(name, axes, rows, table, 1, loc);
  return ctx.builder.op('ct.add_plain', [value, plain], {}, loc);
}
