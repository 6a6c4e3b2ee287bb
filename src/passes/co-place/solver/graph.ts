/** Min-sum problems over discrete variables with costs of single variables and of pairs. */
import { defined } from '../../../support/invariant.js';

export interface PairCost {
  readonly a: number;
  readonly b: number;
  /** Row-major, a slow. */
  readonly table: Float64Array;
}

export interface Problem {
  /** By variable, by value; Infinity forbids. */
  readonly unary: readonly Float64Array[];
  /** At most one per pair of variables, a < b. */
  readonly pairs: readonly PairCost[];
}

export function at(table: Float64Array | Uint16Array | readonly number[], index: number): number {
  return table[index] as number;
}

/** Collects costs; several of one pair are added. */
export class ProblemBuilder {
  readonly unary: Float64Array[] = [];
  private readonly pairs = new Map<string, { a: number; b: number; table: Float64Array }>();

  variable(costs: Float64Array): number {
    this.unary.push(costs);
    return this.unary.length - 1;
  }

  /** `cost` by value of a and value of b; a = b adds to the variable's own costs. */
  pair(a: number, b: number, cost: (i: number, j: number) => number): void {
    if (a === b) {
      const own = defined(this.unary[a], 'variable');
      own.forEach((old, i) => (own[i] = old + cost(i, i)));
      return;
    }
    if (a > b) return this.pair(b, a, (i, j) => cost(j, i));
    const [rows, columns] = [
      defined(this.unary[a], 'variable').length,
      defined(this.unary[b], 'variable').length,
    ];
    const key = `${a},${b}`;
    let known = this.pairs.get(key);
    if (known === undefined) {
      known = { a, b, table: new Float64Array(rows * columns) };
      this.pairs.set(key, known);
    }
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++)
        known.table[i * columns + j] = at(known.table, i * columns + j) + cost(i, j);
    }
  }

  finish(): Problem {
    return {
      unary: this.unary,
      pairs: [...this.pairs.values()].filter(({ table }) => table.some((x) => x !== 0)),
    };
  }
}

export function valueOf(problem: Problem, choice: readonly number[]): number {
  let sum = 0;
  problem.unary.forEach((costs, v) => (sum += at(costs, choice[v] ?? 0)));
  for (const { a, b, table } of problem.pairs) {
    sum += at(table, (choice[a] ?? 0) * size(problem, b) + (choice[b] ?? 0));
  }
  return sum;
}

export function size(problem: Problem, variable: number): number {
  return defined(problem.unary[variable], 'variable').length;
}

/** Pairs by variable. */
export function incidence(problem: Problem): PairCost[][] {
  const lists: PairCost[][] = problem.unary.map(() => []);
  for (const pair of problem.pairs) {
    defined(lists[pair.a], 'variable').push(pair);
    defined(lists[pair.b], 'variable').push(pair);
  }
  return lists;
}

/** The problem on some values of each variable, in order. */
export function restrict(problem: Problem, kept: readonly (readonly number[])[]): Problem {
  const of = (v: number): readonly number[] => defined(kept[v], 'variable');
  const unary = problem.unary.map((costs, v) => Float64Array.from(of(v), (i) => at(costs, i)));
  const pairs = problem.pairs.map(({ a, b, table }) => {
    const [columns, rows, others] = [size(problem, b), of(a), of(b)];
    const smaller = new Float64Array(rows.length * others.length);
    let next = 0;
    for (const i of rows) for (const j of others) smaller[next++] = at(table, i * columns + j);
    return { a, b, table: smaller };
  });
  return { unary, pairs };
}
