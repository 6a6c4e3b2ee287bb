/**
 * plan-levels: the level of every value and where to bootstrap, at the least predicted time and with a proven
 * gap. From `cipher` with open levels to `cipher` with exact levels and scales.
 * See docs/passes/plan-levels.md.
 */
import { walkOps, type Module, type Value } from '../ir/module.js';
import { AegisError } from '../support/diagnostics.js';
import { defined, invariant } from '../support/invariant.js';
import type { DeviceProfile } from '../target/profile.js';
import type { Solution, SolverLimits } from './co-place/solver/solve.js';
import { fits, levelLimits, solveLevels } from './plan-levels/solve.js';
import { dropLevelsWhereCheaper } from './drop-levels.js';
import { hasRange, type ValueBounds } from './plan-levels/attributes.js';
import { buildPlanned } from './plan-levels/build.js';
import { planGreedily } from './plan-levels/greedy.js';
import { callTimes, pricesFor, type LevelPrices } from './plan-levels/price.js';
import { buildLevelProblem } from './plan-levels/problem.js';
import { axesCount } from '../ir/types.js';
import { ctTypeOf } from './expand-polynomial.js';
import { iterationsOf } from './lazy-mod-down.js';

export { type ValueBounds } from './plan-levels/attributes.js';

/** How a plan was found: without any relaxation, with a lower bound beside it, or by the greedy walk. */
export type LevelMethod = 'exact' | 'bounded' | 'greedy';

export interface LevelReport {
  readonly method: LevelMethod;
  /** Ciphertexts that pass a bootstrap in one run. */
  readonly bootstraps: number;
  /** Predicted, of one run on one device of the profile. */
  readonly seconds: number;
  /** No plan takes less. */
  readonly boundSeconds: number;
  /** (seconds - boundSeconds) / seconds. */
  readonly gap: number;
  /** Of the greedy plan, whose ops run at the lowest levels that their users take; null if it found none. */
  readonly greedySeconds: number | null;
  readonly greedyBootstraps: number | null;
  /** Of building and solving the problem, without the greedy plan. */
  readonly solveSeconds: number;
  readonly variables: number;
  /** Entries of the largest table of the elimination; 0 if it did not fit. */
  readonly largestTable: number;
}

export interface PlanLevelsOptions {
  /** The device that ops are priced for. */
  readonly profile?: DeviceProfile | undefined;
  readonly limits?: SolverLimits | undefined;
  /** Seconds, for the report; 0 unless given. */
  readonly now?: (() => number) | undefined;
  readonly onReport?: ((report: LevelReport) => void) | undefined;
}

/** Users of one value whose adjustments are shared exactly, tried in this order. */
const sharersTried = [2, 3, 4, 6, Infinity];
/** A plan this near to its bound is good enough. */
const wantedGap = 0.01;
/** Rounding of sums of many prices. */
const tolerance = 1e-9;

/**
 * Errors: L101, no plan gives a node its levels; L102, a bootstrap of a value whose range is not known.
 */
export function planLevels(module: Module, bounds: ValueBounds, options: PlanLevelsOptions = {}): Module {
  const parameters = defined(module.parameters, 'parameters');
  const prices = pricesFor(parameters, options.profile);
  const now = options.now ?? (() => 0);
  const start = now();
  const { planned, solution } = planExactly(module, bounds, prices, options.limits ?? levelLimits);
  const solveSeconds = now() - start;
  const greedy = pricedGreedy(module, bounds, prices);
  const best = greedy !== undefined && greedy.seconds < planned.seconds * (1 - tolerance) ? greedy : planned;
  const boundSeconds = Math.min(solution.bound, best.seconds);
  const gap = (best.seconds - boundSeconds) / best.seconds;
  options.onReport?.({
    method: best === greedy ? 'greedy' : gap <= tolerance ? 'exact' : 'bounded',
    bootstraps: countBootstraps(best.module),
    seconds: best.seconds,
    boundSeconds,
    gap: gap <= tolerance ? 0 : gap,
    greedySeconds: greedy?.seconds ?? null,
    greedyBootstraps: greedy === undefined ? null : countBootstraps(greedy.module),
    solveSeconds,
    variables: solution.statistics.variables,
    largestTable: solution.statistics.largestTable,
  });
  return best.module;
}

interface Found {
  readonly planned: Priced;
  readonly solution: Solution;
}

/** The best of problems that tell more and more users of one value apart, until the gap is small. */
function planExactly(module: Module, bounds: ValueBounds, prices: LevelPrices, limits: SolverLimits): Found {
  let best: Found | undefined;
  for (const sharers of sharersTried) {
    const options = { prices, sharers, known: (value: Value) => hasRange(value, bounds) };
    let model = buildLevelProblem(module, options);
    if (best !== undefined && !fits(model.problem, againWithin(limits))) break;
    let solution = solveLevels(model.problem, limits);
    if (solution.value === Infinity) {
      // Only to say which node needs a range.
      model = buildLevelProblem(module, { ...options, known: () => true });
      solution = solveLevels(model.problem, limits);
    }
    if (solution.value === Infinity) {
      // Throws: its plans are among those that there are none of.
      planGreedily(module, bounds, prices);
      invariant(false, 'the greedy walk has a plan where there is none');
    }
    const planned = priced(buildPlanned(module, model.levelsOf(solution.choice), bounds), prices);
    best = {
      planned: best !== undefined && best.planned.seconds <= planned.seconds ? best.planned : planned,
      solution: { ...solution, bound: Math.max(solution.bound, best?.solution.bound ?? 0) },
    };
    if (best.planned.seconds - best.solution.bound <= wantedGap * best.planned.seconds) break;
  }
  return defined(best, 'plan');
}

/** The first problem may take a while; those that only narrow its gap are small or left alone. */
function againWithin(limits: SolverLimits): SolverLimits {
  return { ...limits, tableEntries: Math.min(limits.tableEntries, 1.6e7) };
}

interface Priced {
  readonly module: Module;
  readonly seconds: number;
}

function priced(module: Module, prices: LevelPrices): Priced {
  return { module, seconds: prices.module(module) };
}

/** With the levels that drop-levels would find for it; undefined if the walk finds no plan. */
function pricedGreedy(module: Module, bounds: ValueBounds, prices: LevelPrices): Priced | undefined {
  try {
    return priced(dropLevelsWhereCheaper(planGreedily(module, bounds, prices), prices), prices);
  } catch (error) {
    if (error instanceof AegisError && error.diagnostics.every(({ code }) => code.startsWith('L')))
      return undefined;
    throw error;
  }
}

/** For progress and summaries: `9 bootstraps, 17.05 s predicted, 4.1 % below greedy, optimal`. */
export function describeLevels(report: LevelReport): string {
  const { bootstraps, seconds, greedySeconds, gap } = report;
  const saved = greedySeconds === null ? 0 : 100 * (1 - seconds / greedySeconds);
  const against = greedySeconds === null ? 'greedy finds no plan' : `${saved.toFixed(1)} % below greedy`;
  const proven = gap === 0 ? 'optimal' : `gap ${(100 * gap).toFixed(2)} %`;
  return `${bootstraps} bootstraps, ${seconds.toPrecision(4)} s predicted, ${against}, ${proven}`;
}

/** Ciphertexts that pass a bootstrap in one run of a planned module. */
export function countBootstraps(module: Module): number {
  const calls = callTimes(module);
  return module.functions.reduce((sum, func) => {
    const times = iterationsOf(func);
    let own = 0;
    walkOps(func.body, (op) => {
      if (op.kind !== 'ct.bootstrap') return;
      own += (times.get(op) ?? 1) * axesCount(ctTypeOf(defined(op.results[0], 'result')).axes);
    });
    return sum + own * (calls.get(func.name) ?? 0);
  }, 0);
}
