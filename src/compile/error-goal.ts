/** `--max-error`: tolerances for every approximated node, until the predicted error keeps the goal. */
import { runTensor } from '../ir/interpreter/tensor.js';
import { isWitness, type Module } from '../ir/module.js';
import { nodeRanges } from '../passes/calibrate.js';
import { allocate, sensitivities } from '../passes/error-budget.js';
import { probesOf } from '../passes/measure-bounds.js';
import { approximationMargin, type OutputError } from '../passes/predict-error.js';
import type { Ranges } from '../passes/ranges.js';
import { AegisError } from '../support/diagnostics.js';
import { defined } from '../support/invariant.js';

/** Absolute at the model's outputs, or a fraction of what they range over on the calibration inputs. */
export interface ErrorGoal {
  readonly value: number;
  readonly isFraction: boolean;
}

export interface Attempt<C> {
  readonly candidate: C;
  readonly parts: Readonly<Record<string, OutputError>>;
  /** Predicted time of a run. */
  readonly seconds: number;
}

/** Every attempt is a run of all passes. */
const mostAttempts = 6;
/** Of what noise leaves of the goal: predictions of the next attempt are not exact. */
const aim = 0.6;
/** An attempt that uses less of the goal is followed by a coarser one. */
const used = 0.25;
const [leastStep, largestStep] = [1 / 64, 16];

/**
 * The fastest attempt whose predicted errors keep the goal. Errors: A106 no attempt does, A107 there are no
 * calibration inputs or outputs to measure by.
 */
export function withinGoal<C>(
  goal: ErrorGoal,
  tensor: Module,
  ranges: Ranges,
  attempt: (ranges: Ranges) => Attempt<C>,
): C {
  const probes = probesOf(ranges);
  const limits = limitsOf(goal, tensor, probes);
  const measured = nodeRanges(ranges);
  const nodes = sensitivities(tensor, probes, measured, limits);
  let share = aim / approximationMargin;
  let best: Attempt<C> | undefined;
  let least: { ratio: number; parts: Attempt<C>['parts'] } | undefined;
  for (let i = 0; i < mostAttempts; i++) {
    const tolerances = allocate(tensor, nodes, measured, share);
    const found = withoutWitnesses(attempt(withTolerances(ranges, tolerances)));
    const { total, noise, approximation } = ratios(found.parts, limits);
    if (total < (least?.ratio ?? Infinity)) least = { ratio: total, parts: found.parts };
    const step = (aim * Math.max(0.1, 1 - noise)) / Math.max(approximation, 1e-9);
    if (total <= 1) {
      // Coarser than an attempt that kept the goal is tried once.
      const first = best === undefined;
      if (first || found.seconds < (best?.seconds ?? 0)) best = found;
      if (!first || approximation >= used * (1 - noise)) break;
      share *= Math.min(largestStep, step);
    } else if (best !== undefined || noise >= 1) break;
    else share *= Math.max(leastStep, Math.min(0.5, step));
  }
  if (best !== undefined) return best.candidate;
  throw unreachable(defined(least, 'attempt').parts, limits);
}

function withoutWitnesses<C>(attempt: Attempt<C>): Attempt<C> {
  const outputs = Object.entries(attempt.parts).filter(([name]) => !isWitness(name));
  return { ...attempt, parts: Object.fromEntries(outputs) };
}

/** The most accurate attempt says what is reachable. */
function unreachable(parts: Readonly<Record<string, OutputError>>, limits: Limits): AegisError {
  const texts = Object.entries(parts).map(([name, { predictedError, noise }]) => {
    const [error, wanted] = [predictedError, limits[name] ?? 0].map((x) => x.toExponential(1));
    return `${name} within ${error} (noise alone ${noise.toExponential(1)}), not ${wanted}`;
  });
  return new AegisError({
    code: 'A106',
    pass: 'error-budget',
    message: `the error budget cannot be kept: reachable is ${texts.join(', ')}`,
    help: 'raise --max-error; noise falls with narrower ranges of the values that are bootstrapped',
  });
}

type Limits = Readonly<Record<string, number>>;

function limitsOf(goal: ErrorGoal, tensor: Module, probes: readonly Record<string, Float64Array>[]): Limits {
  if (probes.length === 0) {
    throw new AegisError({
      code: 'A107',
      message: 'the ranges hold no calibration inputs: an error budget has nothing to measure by',
      help: 'calibrate with samples at this length, or leave out --max-error',
    });
  }
  if (!goal.isFraction) return Object.fromEntries(tensor.outputs.map(({ name }) => [name, goal.value]));
  const outputs = probes.map((probe) => runTensor(tensor, probe));
  return Object.fromEntries(
    tensor.outputs.map(({ name }) => {
      let [min, max] = [Infinity, -Infinity];
      for (const values of outputs) {
        for (const x of defined(values[name], 'output')) [min, max] = [Math.min(min, x), Math.max(max, x)];
      }
      return [name, goal.value * Math.max(max - min, Number.MIN_VALUE)];
    }),
  );
}

function ratios(
  parts: Readonly<Record<string, OutputError>>,
  limits: Limits,
): { total: number; noise: number; approximation: number } {
  const worst = (key: keyof OutputError): number =>
    Math.max(...Object.entries(parts).map(([name, part]) => part[key] / defined(limits[name], 'limit')));
  return { total: worst('predictedError'), noise: worst('noise'), approximation: worst('approximation') };
}

function withTolerances(ranges: Ranges, tolerances: ReadonlyMap<number, number>): Ranges {
  const nodes = ranges.nodes.map((node) => {
    const tolerance = tolerances.get(node.op);
    return tolerance === undefined ? node : { ...node, tolerance };
  });
  return { ...ranges, nodes };
}
