/**
 * error-budget: how much error every approximated node may make, so that the outputs keep a bound. What a
 * node's error does to the outputs is measured on the tensor phase: the node is disturbed by errors of random
 * sign and the outputs are compared. Levels are what accuracy costs, so the budget is spent where it saves
 * most levels. See docs/passes/error-budget.md.
 */
import { cappedScore, runTensor } from '../ir/interpreter/tensor.js';
import { entryName, type Module, type Op } from '../ir/module.js';
import { AegisError } from '../support/diagnostics.js';
import { defined } from '../support/invariant.js';
import { depthOfSeries } from './approximation/paterson-stockmeyer.js';
import { fitInverse, planSoftmax } from './pack/attention.js';
import { activationOf } from './pack/activation-of.js';
import { fitInverseSqrt } from './pack/inverse-sqrt.js';
import { approximateActivation } from './pack/nonlinear.js';
import { normalisation, widenPositive } from './pack/approximate.js';
import type { NodeRange, NodeRanges } from './ranges.js';

export interface SensitiveNode {
  /** Index in `main` of the tensor phase, as in the ranges. */
  readonly op: number;
  readonly node: string;
  /** Largest change of an output by errors of 1 in the node's unit (NodeRange.tolerance). */
  readonly sensitivity: number;
}

type Tensors = Readonly<Record<string, Float64Array>>;

/** Small beside what any node may err, large beside rounding. */
const disturbance = 1e-4;
const [mostProbes, draws] = [2, 2];

/** Every node that has a range, in program order. `limits`: an output's error counts over its limit. */
export function sensitivities(
  module: Module,
  probes: readonly Tensors[],
  ranges: NodeRanges,
  limits: Readonly<Record<string, number>>,
): SensitiveNode[] {
  const few = probes.slice(0, mostProbes);
  const exact = few.map((probe) => runTensor(module, probe));
  return mainOf(module).flatMap((op, index) => {
    if (ranges.get(index) === undefined) return [];
    let sensitivity = 0;
    few.forEach((probe, i) => {
      for (let draw = 0; draw < draws; draw++) {
        const sign = signs(index + 1 + 7919 * draw);
        const found = runTensor(module, probe, {
          disturb: (other, result, operands) => {
            if (other === op) disturb(module, op, result, operands, sign);
          },
        });
        for (const { name } of module.outputs) {
          const change = largestDifference(found[name], exact[i]?.[name]) / disturbance;
          sensitivity = Math.max(sensitivity, change / defined(limits[name], 'limit'));
        }
      }
    });
    return [{ op: index, node: op.loc, sensitivity }];
  });
}

/** In units of NodeRange.tolerance. An error e of every weight moves a mean of values by e max |v|. */
function disturb(
  module: Module,
  op: Op,
  result: Float64Array,
  operands: readonly Float64Array[],
  sign: () => number,
): void {
  const add = (i: number, error: number): void => {
    result[i] = (result[i] ?? 0) + error;
  };
  if (op.kind === 'tensor.attention') {
    const largest = defined(operands[2], 'v').reduce((max, x) => Math.max(max, Math.abs(x)), 0);
    result.forEach((_, i) => add(i, sign() * disturbance * largest));
  } else if (op.kind === 'tensor.layer_norm' || op.kind === 'tensor.rms_norm') {
    const type = op.operands[0]?.type;
    const width = type?.kind === 'tensor' ? (type.shape.at(-1) ?? 1) : 1;
    const beta = op.attrs.beta === undefined ? undefined : module.constants.get(op.attrs.beta as string);
    let factor = 0;
    result.forEach((x, i) => {
      if (i % width === 0) factor = sign() * disturbance;
      add(i, factor * (x - (beta?.data[i % width] ?? 0)));
    });
  } else {
    result.forEach((_, i) => add(i, sign() * disturbance));
  }
}

/** xorshift32: the same signs everywhere. */
function signs(seed: number): () => number {
  let state = seed | 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state < 0 ? -1 : 1;
  };
}

function largestDifference(a: Float64Array | undefined, b: Float64Array | undefined): number {
  return defined(a, 'output').reduce((max, x, i) => Math.max(max, Math.abs(x - (b?.[i] ?? NaN))), 0);
}

function mainOf(module: Module): readonly Op[] {
  const main = module.functions.find((func) => func.name === entryName);
  return defined(main, 'main').body.ops;
}

/** Tolerances that are weighed: a quarter each, so about half a level of a smooth function. */
const ladder = Array.from({ length: 12 }, (_, k) => 4 ** -(k + 1));
/** What a finer polynomial of the same depth counts, in levels. */
const degreeCost = 0.05;

/**
 * Tolerances by op, so that sum of sensitivity * tolerance stays within `share` of the limits (1 for all).
 * From the coarsest ones on, the node is refined next that gains most error per level. Where even the finest
 * ones exceed the share, those.
 */
export function allocate(
  module: Module,
  nodes: readonly SensitiveNode[],
  ranges: NodeRanges,
  share: number,
): Map<number, number> {
  const ops = mainOf(module);
  const levels = nodes.map(({ op }) => {
    const known = new Map<number, number>();
    return (rung: number): number => {
      const value = known.get(rung) ?? levelsOf(module, ops, op, ranges, ladder[rung] ?? 0);
      known.set(rung, value);
      return value;
    };
  });
  const rungs = nodes.map(() => 0);
  const errorOf = (i: number, rung: number): number => (nodes[i]?.sensitivity ?? 0) * (ladder[rung] ?? 0);
  const total = (): number => rungs.reduce((sum, rung, i) => sum + errorOf(i, rung), 0);
  while (total() > share) {
    let [best, most] = [-1, 0];
    rungs.forEach((rung, i) => {
      if (rung + 1 >= ladder.length) return;
      const price = (levels[i]?.(rung + 1) ?? Infinity) - (levels[i]?.(rung) ?? 0);
      const gain = (errorOf(i, rung) - errorOf(i, rung + 1)) / (Math.max(0, price) + degreeCost);
      if (gain > most) [best, most] = [i, gain];
    });
    if (best < 0) break;
    rungs[best] = (rungs[best] ?? 0) + 1;
  }
  return new Map(nodes.map(({ op }, i) => [op, ladder[rungs[i] ?? 0] ?? 0]));
}

/** Levels of the node's polynomials; Infinity where none keeps the tolerance. */
function levelsOf(
  module: Module,
  ops: readonly Op[],
  index: number,
  ranges: NodeRanges,
  tolerance: number,
): number {
  const op = defined(ops[index], 'op');
  const range = defined(ranges.get(index), 'range');
  try {
    return depthOf(module, op, range, tolerance);
  } catch (error) {
    if (error instanceof AegisError) return Infinity;
    throw error;
  }
}

function depthOf(module: Module, op: Op, range: NodeRange, tolerance: number): number {
  const fn = activationOf(op);
  if (fn !== undefined) {
    const { stages, timesArgument } = approximateActivation(fn, range.interval, tolerance);
    return stages.reduce((sum, stage) => sum + depthOfSeries(stage.length), timesArgument ? 1 : 0);
  }
  if (range.kind === 'variance') {
    const epsilon = op.attrs.epsilon as number;
    const { min, max } = range.interval;
    const { shift } = normalisation(widenPositive({ min: min + epsilon, max: max + epsilon }));
    const { coefficients, steps } = fitInverseSqrt(shift, tolerance, op.loc);
    return depthOfSeries(coefficients.length) + 2 * steps.length;
  }
  const keys = op.operands[1]?.type;
  const tokens = keys?.kind === 'tensor' ? (keys.shape[0] ?? 1) : 1;
  const keep = op.attrs.keep === undefined ? undefined : module.constants.get(op.attrs.keep as string)?.data;
  const spec = {
    tokens,
    ranges: defined(range.attention, 'attention ranges'),
    keep,
    mask: op.operands[3],
    tolerance,
    capped: cappedScore(op),
  };
  const softmax = planSoftmax(spec, 2 ** Math.ceil(Math.log2(tokens)));
  const inverses = softmax.denominators.map((one) =>
    depthOfSeries(fitInverse(one, tolerance).coefficients.length),
  );
  return depthOfSeries(softmax.exponential.length) + inverses.reduce((a, b) => a + b, 0) + 2 * softmax.rounds;
}
