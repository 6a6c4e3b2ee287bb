/** Removal of values that no better solution needs: unsupported, or never better than another value. */
import { defined } from '../../../support/invariant.js';
import { at, incidence, restrict, size, type PairCost, type Problem } from './graph.js';

export interface Pruned {
  readonly problem: Problem;
  /** Kept values by variable. */
  readonly kept: readonly (readonly number[])[];
}

/** Until nothing changes. */
export function prune(problem: Problem): Pruned {
  const sides = incidence(problem).map((pairs, v) => pairs.map((pair) => sideOf(problem, pair, v)));
  const alive = problem.unary.map((costs) => living(costs));
  const queue = new Set(problem.unary.keys());
  for (const v of queue) {
    queue.delete(v);
    const own = defined(sides[v], 'pairs');
    const before = defined(alive[v], 'values');
    const supported = before.filter((i) => own.every((side) => isSupported(side, i, alive)));
    alive[v] = undominated(defined(problem.unary[v], 'variable'), supported, own, alive);
    if (alive[v].length === before.length) continue;
    for (const { other } of own) queue.add(other);
  }
  const kept = alive.map((values) => [...values]);
  return { problem: restrict(problem, kept), kept };
}

/** A pair as one of its variables sees it: value i there with value j of the other at i step + j stride. */
interface Side {
  readonly other: number;
  readonly table: Float64Array;
  readonly step: number;
  readonly stride: number;
}

function sideOf(problem: Problem, { a, b, table }: PairCost, v: number): Side {
  const columns = size(problem, b);
  return a === v
    ? { other: b, table, step: columns, stride: 1 }
    : { other: a, table, step: 1, stride: columns };
}

function living(costs: Float64Array): Int32Array {
  return Int32Array.from(costs.keys()).filter((i) => at(costs, i) < Infinity);
}

function isSupported(side: Side, i: number, alive: readonly Int32Array[]): boolean {
  return leastCost(side, i, defined(alive[side.other], 'values')) < Infinity;
}

function leastCost({ table, step, stride }: Side, i: number, others: Int32Array): number {
  let least = Infinity;
  for (let k = 0; k < others.length; k++) {
    const cost = table[i * step + (others[k] as number) * stride] as number;
    if (cost < least) least = cost;
  }
  return least;
}

/** Rounding of sums of a few costs, relative to the costs. */
const tolerance = 1e-9;

/** Goldstein's criterion: r goes if some t is at least as good whatever the neighbours take. */
function undominated(
  costs: Float64Array,
  values: Int32Array,
  sides: readonly Side[],
  alive: readonly Int32Array[],
): Int32Array {
  // The least over the neighbours of r - t is at most r's least minus t's least: most pairs need no more.
  const least = new Float64Array(costs.length);
  for (const i of values) {
    least[i] = at(costs, i);
    for (const side of sides)
      least[i] = at(least, i) + leastCost(side, i, defined(alive[side.other], 'values'));
  }
  const left = [...values];
  // From the last on: of equal values the first one stays.
  for (let k = left.length - 1; k >= 0; k--) {
    const r = at(left, k);
    const mayBeat = (t: number): boolean => at(least, t) <= at(least, r) * (1 + tolerance) + tolerance ** 2;
    if (left.some((t) => t !== r && mayBeat(t) && marginOf(costs, r, t, sides, alive) >= 0))
      left.splice(k, 1);
  }
  return Int32Array.from(left);
}

/** By how much r costs more than t at least; NaN or less than 0 if it may cost less. */
function marginOf(
  costs: Float64Array,
  r: number,
  t: number,
  sides: readonly Side[],
  alive: readonly Int32Array[],
): number {
  let margin = at(costs, r) - at(costs, t);
  for (const { other, table, step, stride } of sides) {
    const others = alive[other] as Int32Array;
    let least = Infinity;
    for (let k = 0; k < others.length; k++) {
      const j = (others[k] as number) * stride;
      const mine = table[r * step + j] as number;
      if (mine === Infinity) continue;
      const difference = mine - (table[t * step + j] as number);
      if (difference < least) least = difference;
    }
    margin += least;
    if (margin === -Infinity) return margin;
  }
  return margin;
}
