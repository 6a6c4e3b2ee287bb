/**
 * Minimum of a min-sum problem: pruning, then elimination where its tables fit; else bounds by message
 * passing remove what no better solution takes until they fit. What is left then is a gap, and it is stated.
 */
import { defined } from '../../../support/invariant.js';
import { Bound } from './bound.js';
import { cutset, eliminate, eliminationOrder } from './eliminate.js';
import { at, incidence, restrict, size, valueOf, type Problem } from './graph.js';
import { prune } from './prune.js';

export interface SolverLimits {
  /** Entries of the largest table of an elimination. */
  readonly tableEntries: number;
  /** Sweeps of message passing between two tries. */
  readonly sweeps: number;
  /** Tries. */
  readonly rounds: number;
  /** Neighbourhoods searched for a better solution in each try but the first. */
  readonly neighbourhoods: number;
}

export const defaultLimits: SolverLimits = { tableEntries: 2e6, sweeps: 40, rounds: 6, neighbourhoods: 4 };

/** Entries of the largest table in a neighbourhood. */
const neighbourhoodEntries = 2e4;

export interface Solution {
  readonly choice: readonly number[];
  readonly value: number;
  /** No solution is better than this. */
  readonly bound: number;
  readonly statistics: SolverStatistics;
}

export interface SolverStatistics {
  readonly variables: number;
  readonly values: number;
  /** Values left after pruning. */
  readonly keptValues: number;
  /** Entries of the largest table; 0 if elimination did not fit. */
  readonly largestTable: number;
  readonly sweeps: number;
}

/** Tables this many times smaller than the limit are made at once. */
const eagerness = 64;

/** Rounding of sums of many costs. */
const tolerance = 1e-9;

export function solve(problem: Problem, limits: SolverLimits = defaultLimits): Solution {
  const values = problem.unary.reduce((sum, costs) => sum + costs.length, 0);
  let { problem: current, kept } = prune(problem);
  const full = (choice: readonly number[]): number[] => choice.map((i, v) => defined(kept[v]?.[i], 'value'));
  const statistics = (largestTable: number, sweeps: number): SolverStatistics => ({
    variables: problem.unary.length,
    values,
    keptValues: kept.reduce((sum, list) => sum + list.length, 0),
    largestTable,
    sweeps,
  });
  let incumbent: { value: number; choice: number[] } = { value: Infinity, choice: [] };
  let bound = -Infinity;
  for (let round = 0; ; round++) {
    const order = eliminationOrder(current);
    // A large table is worth some sweeps first: they may remove most of it.
    if (order.largest <= limits.tableEntries / (round === 0 ? eagerness : 1)) {
      const found = eliminate(current, order);
      // Bounds may have removed all but the incumbent.
      const choice = found.value <= incumbent.value ? full(found.choice) : incumbent.choice;
      const value = valueOf(problem, choice);
      return { choice, value, bound: value, statistics: statistics(order.largest, round * limits.sweeps) };
    }
    const messages = new Bound(current);
    for (let i = 0; i < limits.sweeps; i++) messages.sweep();
    bound = Math.max(bound, messages.value());
    const start = messages.decode();
    const reduced = improve(current, descend(current, start), round === 0 ? 0 : limits.neighbourhoods);
    const value = valueOf(current, reduced);
    if (value < incumbent.value) incumbent = { value, choice: full(reduced) };
    const slack = incumbent.value - bound;
    if (round === limits.rounds || slack <= tolerance * incumbent.value) {
      const proven = slack <= tolerance * incumbent.value ? incumbent.value : bound;
      return { ...incumbent, bound: proven, statistics: statistics(0, (round + 1) * limits.sweeps) };
    }
    const keep = current.unary.map((_, v) => {
      const surplus = messages.surplus(v);
      return [...surplus.keys()].filter(
        (i) => at(surplus, i) <= slack * (1 + tolerance) || kept[v]?.[i] === incumbent.choice[v],
      );
    });
    const smaller = prune(restrict(current, keep));
    kept = smaller.kept.map((list, v) =>
      list.map((i) => defined(kept[v]?.[defined(keep[v]?.[i], 'kept')], 'value')),
    );
    current = smaller.problem;
  }
}

/**
 * Holds some variables and chooses all others anew, exactly; which are held changes from one neighbourhood to
 * the next.
 */
function improve(problem: Problem, start: readonly number[], neighbourhoods: number): number[] {
  const held = problem.unary.map(() => 0);
  let choice = [...start];
  for (let i = 0; i < neighbourhoods; i++) {
    const cut = cutset(problem, neighbourhoodEntries, held);
    cut.forEach((v) => (held[v] = at(held, v) + 1));
    const kept = problem.unary.map((costs, v) => (cut.includes(v) ? [at(choice, v)] : [...costs.keys()]));
    const smaller = restrict(problem, kept);
    const order = eliminationOrder(smaller);
    if (order.largest > 100 * neighbourhoodEntries) continue;
    const found = eliminate(smaller, order);
    choice = found.choice.map((value, v) => at(defined(kept[v], 'variable'), value));
  }
  return choice;
}

/** Single changes until none improves. */
function descend(problem: Problem, start: readonly number[]): number[] {
  const choice = [...start];
  const pairs = incidence(problem);
  for (let changed = true; changed;) {
    changed = false;
    for (const [v, costs] of problem.unary.entries()) {
      const costOf = (i: number): number => {
        let cost = at(costs, i);
        for (const { a, b, table } of defined(pairs[v], 'pairs')) {
          cost +=
            a === v
              ? at(table, i * size(problem, b) + (choice[b] ?? 0))
              : at(table, (choice[a] ?? 0) * costs.length + i);
        }
        return cost;
      };
      let [best, bestCost] = [choice[v] ?? 0, costOf(choice[v] ?? 0)];
      for (let i = 0; i < costs.length; i++) {
        const cost = costOf(i);
        if (cost < bestCost) [best, bestCost, changed] = [i, cost, true];
      }
      choice[v] = best;
    }
  }
  return choice;
}
