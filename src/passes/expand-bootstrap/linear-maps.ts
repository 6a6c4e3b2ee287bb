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
import { chainedSum, giantChain, type GiantChain } from '../chained-sum.js';
import { levelOf } from '../expand-polynomial.js';

export interface StageGroup {
  readonly first: number;
  readonly count: number;
}

/** Steps in [0, slots), the unrotated 0 first. */
export interface GroupSteps {
  readonly baby: readonly number[];
  readonly giant: readonly number[];
  /** Giant steps one after another, for fewer keys. */
  readonly chain?: GiantChain;
}

/**
 * A giant step costs ModUp, key product and ModDown, a lazy baby step the key product only: 122 against 35 ms
 * on the machine of NUMBERS section 1.
 */
const giantCost = 3;
/** A giant step of a chain has a ModDown of its own. */
const chainedCost = 5;

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

/**
 * Baby and giant steps that cover every diagonal of the group once, at the least cost; a key counts as
 * `keyCost` lazy baby steps, 0 where keys are plenty. Only where they are not are chains tried.
 */
export function groupSteps({ first, count }: StageGroup, slots: number, keyCost = 0): GroupSteps {
  const unit = 2 ** (first - 1);
  const wraps = unit * 2 ** count === slots;
  const total = wraps ? 2 ** count : 2 ** (count + 1);
  // k runs from `lowest` on; without wrapping the diagonal -2^count is zero and rounds the number up.
  const lowest = wraps ? 0 : -(2 ** count);
  const { babies, chained } = cheapestSplit(total, lowest !== 0, keyCost);
  const step = (k: number): number => (((k * unit) % slots) + slots) % slots;
  const range = (length: number, of: (i: number) => number): number[] =>
    Array.from({ length }, (_, i) => step(of(i))).sort((x, y) => x - y);
  if (babies === total) return { baby: range(total, (i) => lowest + i), giant: [0] };
  const baby = range(babies, (i) => i);
  if (!chained) return { baby, giant: range(total / babies, (i) => lowest + i * babies) };
  const giants = Array.from({ length: total / babies }, (_, i) => (lowest + i * babies) * unit);
  const chain = giantChain(giants, babies * unit);
  return { baby, giant: giants.map((giant) => (giant + slots) % slots), chain };
}

/** `shifted`: the lowest giant step is not 0. */
function cheapestSplit(
  total: number,
  shifted: boolean,
  keyCost: number,
): { babies: number; chained: boolean } {
  let best = { babies: 1, chained: false };
  let bestCost = Infinity;
  for (let babies = 1; babies <= total; babies *= 2) {
    const giants = total / babies;
    const chainKeys = (giants > 1 ? 1 : 0) + (shifted ? 1 : 0);
    const forms = [
      { chained: false, cost: babies + giantCost * giants + keyCost * (babies + giants - 2) },
      { chained: true, cost: babies + chainedCost * giants + keyCost * (babies - 1 + chainKeys) },
    ];
    for (const { chained, cost } of forms) {
      if (cost >= bestCost || (chained && (keyCost === 0 || giants === 1))) continue;
      [best, bestCost] = [{ babies, chained }, cost];
    }
  }
  return best;
}

export interface LinearMapStage extends StageGroup {
  readonly inverse: boolean;
  /** Multiplies the matrix. */
  readonly factor: number;
  /** Scale at which the diagonals are encoded. */
  readonly plainScale: Scale;
  /** False: the rescale is left to what follows. */
  readonly rescaled: boolean;
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
  keyCost: number,
  loc: string,
): Value {
  const { inverse, first, count, factor, rescaled } = stage;
  const finished = (sum: Value): Value => (rescaled ? builder.op('ct.rescale', [sum], {}, loc) : sum);
  const { baby, giant, chain } = groupSteps(stage, parameters.slots, keyCost);
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
  if (chain !== undefined) {
    const sum = chainedSum(builder, parts, 'giant', chain, parameters.slots, loc);
    return finished(sum);
  }
  const sum =
    giant.length === 1
      ? builder.op('ct.index', [parts], { axis: 'giant', index: 0 }, loc)
      : builder.op('ct.rotate_each', [parts], { axis: 'giant', steps: giant, sum: true }, loc);
  return finished(sum);
}
