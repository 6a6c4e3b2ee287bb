/**
 * SlotsToCoeffs and CoeffsToSlots: the slot transform without bit reversal, its butterfly stages multiplied
 * together in groups of one level each. A group of `count` stages from stage `first` on has diagonals at
 * multiples k 2^(first-1), |k| < 2^count; in the last group they wrap around, k and k - 2^count being the
 * same (ir/interpreter/dft.ts).
 */
import { invariant } from '../../support/invariant.js';
import { keyClassFor, type Parameters } from '../../target/parameters.js';
import type { BlockBuilder } from '../../ir/builder.js';
import type { Value } from '../../ir/module.js';
import { printScale, type Scale } from '../../ir/scale.js';
import { levelOf } from '../expand-polynomial.js';

export interface StageGroup {
  readonly first: number;
  readonly count: number;
}

/** Steps in [0, slots), the unrotated 0 first. */
export interface GroupSteps {
  readonly baby: readonly number[];
  readonly giant: readonly number[];
}

/**
 * A giant step costs ModUp, key product and ModDown, a lazy baby step the key product only: 122 against 35 ms
 * on the machine of NUMBERS section 1.
 */
const giantCost = 3;

/**
 * Stages 1..logSlots in `groups` groups; where sizes differ the later are larger, because the last has fewest
 * steps.
 */
export function stageGroups(logSlots: number, groups: number): StageGroup[] {
  invariant(groups >= 1 && groups <= logSlots, `${logSlots} stages cannot fill ${groups} levels`);
  const result: StageGroup[] = [];
  for (let g = 0, first = 1; g < groups; g++) {
    const count = Math.floor((logSlots + 1 - first) / (groups - g));
    result.push({ first, count });
    first += count;
  }
  return result;
}

/** Baby and giant steps that cover every diagonal of the group once, at the least cost. */
export function groupSteps({ first, count }: StageGroup, slots: number): GroupSteps {
  const unit = 2 ** (first - 1);
  const wraps = unit * 2 ** count === slots;
  const total = wraps ? 2 ** count : 2 ** (count + 1);
  // k runs from `lowest` on; without wrapping the diagonal -2^count is zero and rounds the number up.
  const lowest = wraps ? 0 : -(2 ** count);
  let babies = 1;
  const cost = (b: number): number => b + giantCost * (total / b);
  while (2 * babies <= total && cost(2 * babies) < cost(babies)) babies *= 2;
  const step = (k: number): number => (((k * unit) % slots) + slots) % slots;
  const range = (length: number, of: (i: number) => number): number[] =>
    Array.from({ length }, (_, i) => step(of(i))).sort((x, y) => x - y);
  if (babies === total) return { baby: range(total, (i) => lowest + i), giant: [0] };
  return { baby: range(babies, (i) => i), giant: range(total / babies, (i) => lowest + i * babies) };
}

export interface LinearMapStage extends StageGroup {
  readonly inverse: boolean;
  /** Multiplies the matrix. */
  readonly factor: number;
  /** Scale at which the diagonals are encoded. */
  readonly plainScale: Scale;
}

/**
 * One group as a matrix-vector product: hoisted lazy baby steps, ModDown per giant step, rotated sum,
 * rescale.
 */
export function emitStageGroup(
  builder: BlockBuilder,
  parameters: Parameters,
  input: Value,
  stage: LinearMapStage,
  loc: string,
): Value {
  const { inverse, first, count, factor } = stage;
  const { baby, giant } = groupSteps(stage, parameters.slots);
  const lazy = keyClassFor(parameters, levelOf(input)).name;
  const rotated = builder.op('ct.rotate', [input], { axis: 'baby', steps: baby, lazy }, loc);
  const axes = [
    { name: 'giant', size: giant.length },
    { name: 'baby', size: baby.length },
  ];
  const diagonals = builder.op('pt.dft', [], { axes, inverse, first, count, baby, giant, factor }, loc);
  const scale = printScale(stage.plainScale);
  const product = builder.op('ct.contract', [rotated, diagonals], { over: ['baby'], scale }, loc);
  const parts = builder.op('ct.mod_down', [product], {}, loc);
  const sum =
    giant.length === 1
      ? builder.op('ct.index', [parts], { axis: 'giant', index: 0 }, loc)
      : builder.op('ct.rotate_each', [parts], { axis: 'giant', steps: giant, sum: true }, loc);
  return builder.op('ct.rescale', [sum], {}, loc);
}
