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
  const alive: boolean[][] = problem.unary.map((costs) => [...costs].map((cost) => cost < Infinity));
  const pairs = incidence(problem);
  const queue = new Set(problem.unary.keys());
  for (const v of queue) {
    queue.delete(v);
    const before = count(alive, v);
    dropUnsupported(problem, v, defined(pairs[v], 'pairs'), alive);
    dropDominated(problem, v, defined(pairs[v], 'pairs'), alive);
    if (count(alive, v) === before) continue;
    for (const pair of defined(pairs[v], 'pairs')) queue.add(pair.a === v ? pair.b : pair.a);
  }
  const kept = alive.map((list) => list.flatMap((yes, i) => (yes ? [i] : [])));
  return { problem: restrict(problem, kept), kept };
}

function count(alive: readonly boolean[][], v: number): number {
  return defined(alive[v], 'variable').filter(Boolean).length;
}

function costOf(problem: Problem, pair: PairCost, v: number, i: number, j: number): number {
  return pair.a === v
    ? at(pair.table, i * size(problem, pair.b) + j)
    : at(pair.table, j * size(problem, pair.b) + i);
}

function living(alive: readonly boolean[][], v: number): number[] {
  return defined(alive[v], 'variable').flatMap((yes, i) => (yes ? [i] : []));
}

function dropUnsupported(problem: Problem, v: number, pairs: readonly PairCost[], alive: boolean[][]): void {
  const own = defined(alive[v], 'variable');
  for (const i of living(alive, v)) {
    own[i] = pairs.every((pair) => {
      const other = pair.a === v ? pair.b : pair.a;
      return living(alive, other).some((j) => costOf(problem, pair, v, i, j) < Infinity);
    });
  }
}

/** Goldstein's criterion: r goes if some t is at least as good whatever the neighbours take. */
function dropDominated(problem: Problem, v: number, pairs: readonly PairCost[], alive: boolean[][]): void {
  const own = defined(alive[v], 'variable');
  const costs = defined(problem.unary[v], 'variable');
  // From the last on: of equal values the first one stays.
  for (const r of living(alive, v).reverse()) {
    const beaten = living(alive, v).some((t) => {
      if (t === r) return false;
      let margin = at(costs, r) - at(costs, t);
      for (const pair of pairs) {
        const other = pair.a === v ? pair.b : pair.a;
        let least = Infinity;
        for (const j of living(alive, other)) {
          const [mine, theirs] = [costOf(problem, pair, v, r, j), costOf(problem, pair, v, t, j)];
          if (mine < Infinity) least = Math.min(least, mine - theirs);
        }
        margin += least;
        if (margin === -Infinity) return false;
      }
      return margin >= 0;
    });
    if (beaten) own[r] = false;
  }
}
