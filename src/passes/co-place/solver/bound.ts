/**
 * Lower bounds by reparametrisation: sequential message passing that moves costs between variables and pairs
 * without changing any sum (SRMP, Kolmogorov 2015; on pairs it is TRW-S). The bound never falls.
 */
import { defined } from '../../../support/invariant.js';
import { at, incidence, size, type PairCost, type Problem } from './graph.js';

export class Bound {
  readonly unary: Float64Array[];
  private readonly tables = new Map<PairCost, Float64Array>();
  private readonly pairs: PairCost[][];

  constructor(private readonly problem: Problem) {
    this.unary = problem.unary.map((costs) => Float64Array.from(costs));
    for (const pair of problem.pairs) this.tables.set(pair, Float64Array.from(pair.table));
    this.pairs = incidence(problem);
  }

  /** One sweep forward and back. */
  sweep(): void {
    const { length } = this.unary;
    for (let v = 0; v < length; v++) this.visit(v, true);
    for (let v = length - 1; v >= 0; v--) this.visit(v, false);
  }

  value(): number {
    let sum = 0;
    for (const costs of this.unary) sum += least(costs);
    for (const table of this.tables.values()) sum += least(table);
    return sum;
  }

  /** Greedy choice along the order, each variable given the earlier ones. */
  decode(): number[] {
    const choice: number[] = [];
    this.unary.forEach((costs, v) => {
      let [best, bestCost] = [0, Infinity];
      for (let i = 0; i < costs.length; i++) {
        let cost = at(costs, i);
        for (const pair of defined(this.pairs[v], 'pairs')) {
          const other = pair.a === v ? pair.b : pair.a;
          if (other < v) cost += this.entry(pair, v, i, choice[other] ?? 0);
        }
        if (cost < bestCost) [best, bestCost] = [i, cost];
      }
      choice.push(best);
    });
    return choice;
  }

  /** By how much the bound rises if the variable takes each value. */
  surplus(v: number): Float64Array {
    this.collect(v);
    const costs = defined(this.unary[v], 'variable');
    const floor = least(costs);
    const result = costs.map((cost) => cost - floor);
    this.distribute(v, defined(this.pairs[v], 'pairs'), defined(this.pairs[v], 'pairs').length);
    return result;
  }

  private visit(v: number, forward: boolean): void {
    this.collect(v);
    const list = defined(this.pairs[v], 'pairs');
    const later = list.filter((pair) => (pair.a === v) === forward);
    this.distribute(v, later, Math.max(later.length, list.length - later.length));
  }

  private collect(v: number): void {
    const costs = defined(this.unary[v], 'variable');
    for (const pair of defined(this.pairs[v], 'pairs')) {
      const table = defined(this.tables.get(pair), 'table');
      const others = size(this.problem, pair.a === v ? pair.b : pair.a);
      const [step, stride] = pair.a === v ? [others, 1] : [1, costs.length];
      for (let i = 0; i < costs.length; i++) {
        let smallest = Infinity;
        for (let j = 0, k = i * step; j < others; j++, k += stride) {
          const cost = table[k] as number;
          if (cost < smallest) smallest = cost;
        }
        if (smallest === Infinity) costs[i] = Infinity;
        else if (smallest !== 0) {
          costs[i] = at(costs, i) + smallest;
          for (let j = 0, k = i * step; j < others; j++, k += stride)
            table[k] = (table[k] as number) - smallest;
        }
      }
    }
  }

  private distribute(v: number, pairs: readonly PairCost[], parts: number): void {
    if (pairs.length === 0) return;
    const costs = defined(this.unary[v], 'variable');
    const share = costs.map((cost) => (cost === Infinity ? 0 : cost / parts));
    for (const pair of pairs) {
      const table = defined(this.tables.get(pair), 'table');
      const others = size(this.problem, pair.a === v ? pair.b : pair.a);
      const [step, stride] = pair.a === v ? [others, 1] : [1, costs.length];
      for (let i = 0; i < costs.length; i++) {
        const part = at(share, i);
        if (part === 0) continue;
        for (let j = 0, k = i * step; j < others; j++, k += stride) table[k] = (table[k] as number) + part;
      }
    }
    for (let i = 0; i < costs.length; i++) costs[i] = at(costs, i) - pairs.length * at(share, i);
  }

  private entry(pair: PairCost, v: number, i: number, j: number): number {
    const table = defined(this.tables.get(pair), 'table');
    return pair.a === v
      ? at(table, i * size(this.problem, pair.b) + j)
      : at(table, j * size(this.problem, pair.b) + i);
  }
}

function least(costs: Float64Array): number {
  let smallest = Infinity;
  for (const cost of costs) if (cost < smallest) smallest = cost;
  return smallest;
}
