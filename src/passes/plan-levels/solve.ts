/** The minimum of a level problem: dynamic programming over all of it where its tables fit. */
import { eliminate, eliminationOrder } from '../co-place/solver/eliminate.js';
import { valueOf, type Problem } from '../co-place/solver/graph.js';
import { defaultLimits, solve, type Solution, type SolverLimits } from '../co-place/solver/solve.js';

/** 16 million entries take about 300 MB while the largest variable is eliminated. */
export const levelLimits: SolverLimits = { ...defaultLimits, tableEntries: 1.6e7 };

/**
 * Elimination at once where it fits: pruning the hundreds of small domains first would take ten times longer
 * than their tables. Otherwise bounds and branching (co-place/solver/solve.ts), which may leave a gap.
 */
export function solveLevels(problem: Problem, limits: SolverLimits): Solution {
  const values = problem.unary.reduce((sum, costs) => sum + costs.length, 0);
  const sizes = { variables: problem.unary.length, values, keptValues: values };
  if (problem.unary.some((costs) => costs.length === 0)) {
    const statistics = { ...sizes, largestTable: 0, sweeps: 0 };
    return { choice: [], value: Infinity, bound: Infinity, statistics };
  }
  const order = eliminationOrder(problem);
  if (order.largest > limits.tableEntries) return solve(problem, limits);
  const found = eliminate(problem, order);
  const { choice } = found;
  const value = found.value === Infinity ? Infinity : valueOf(problem, choice);
  return { choice, value, bound: value, statistics: { ...sizes, largestTable: order.largest, sweeps: 0 } };
}

/** Whether elimination alone solves the problem. */
export function fits(problem: Problem, limits: SolverLimits): boolean {
  return eliminationOrder(problem).largest <= limits.tableEntries;
}
