/** The minimum of a level problem: dynamic programming over all of it where its tables fit. */
import { eliminate, eliminationOrder, type Order } from '../co-place/solver/eliminate.js';
import { valueOf, type Problem } from '../co-place/solver/graph.js';
import { prune } from '../co-place/solver/prune.js';
import { defaultLimits, solve, type Solution, type SolverLimits } from '../co-place/solver/solve.js';

/** A table has no dimension for the variable that it eliminates: 250 million entries take about 400 MB. */
export const levelLimits: SolverLimits = { ...defaultLimits, tableEntries: 2.5e8 };

/** Tables up to here are made in the time that pruning would take. */
const smallTable = 1e6;

/**
 * Elimination at once where tables are small, else of what pruning leaves. Where that does not fit either,
 * bounds and branching (co-place/solver/solve.ts), which may leave a gap.
 */
export function solveLevels(problem: Problem, limits: SolverLimits): Solution {
  const values = countValues(problem);
  const sizes = { variables: problem.unary.length, values, keptValues: values };
  if (problem.unary.some((costs) => costs.length === 0)) {
    const statistics = { ...sizes, largestTable: 0, sweeps: 0 };
    return { choice: [], value: Infinity, bound: Infinity, statistics };
  }
  const { order, reduced, kept } = reduce(problem, limits);
  if (order.largest > limits.tableEntries) return solve(problem, limits);
  const found = eliminate(reduced, order);
  const choice = found.choice.map((i, v) => kept?.[v]?.[i] ?? i);
  const value = found.value === Infinity ? Infinity : valueOf(problem, choice);
  const statistics = { ...sizes, keptValues: countValues(reduced), largestTable: order.largest, sweeps: 0 };
  return { choice, value, bound: value, statistics };
}

/** Whether elimination alone solves the problem. */
export function fits(problem: Problem, limits: SolverLimits): boolean {
  return reduce(problem, limits).order.largest <= limits.tableEntries;
}

interface Reduced {
  readonly reduced: Problem;
  readonly order: Order;
  /** Values by variable, where some were removed. */
  readonly kept: readonly (readonly number[])[] | undefined;
}

function reduce(problem: Problem, limits: SolverLimits): Reduced {
  const order = eliminationOrder(problem);
  if (order.largest <= Math.min(smallTable, limits.tableEntries))
    return { reduced: problem, order, kept: undefined };
  const { problem: reduced, kept } = prune(problem);
  return { reduced, order: eliminationOrder(reduced), kept };
}

function countValues(problem: Problem): number {
  return problem.unary.reduce((sum, costs) => sum + costs.length, 0);
}
