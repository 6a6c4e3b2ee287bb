/** Variable elimination: exact minimum of a min-sum problem, exponential in the width of the order only. */
import { defined } from '../../../support/invariant.js';
import { at, size, type Problem } from './graph.js';

export interface Order {
  readonly variables: readonly number[];
  /** Entries of the largest table. */
  readonly largest: number;
}

/** A graph that loses its variables one by one. */
class Shrinking {
  readonly left: Set<number>;
  private readonly near: Set<number>[];
  private readonly tables: number[];
  private readonly fills: number[];

  constructor(
    private readonly problem: Problem,
    private readonly byFill: boolean,
  ) {
    this.left = new Set(problem.unary.keys());
    this.near = problem.unary.map(() => new Set());
    for (const { a, b } of problem.pairs) {
      this.around(a).add(b);
      this.around(b).add(a);
    }
    this.tables = problem.unary.map((_, v) => this.tableOf(v));
    this.fills = problem.unary.map((_, v) => (byFill ? this.fillOf(v) : 0));
  }

  around(v: number): Set<number> {
    return defined(this.near[v], 'variable');
  }

  /** Entries of the table that eliminating a variable makes, itself included. */
  table(v: number): number {
    return at(this.tables, v);
  }

  /** Fewest fill-in edges, then the smallest table, then the lowest number. */
  next(): number {
    let best = -1;
    for (const v of this.left) {
      if (best >= 0) {
        const difference = at(this.fills, v) - at(this.fills, best) || this.table(v) - this.table(best);
        if (difference >= 0) continue;
      }
      best = v;
    }
    return best;
  }

  /** Takes a variable away; its neighbours become neighbours of each other if it was eliminated. */
  remove(v: number, eliminated: boolean): void {
    const around = [...this.around(v)];
    this.left.delete(v);
    for (const u of around) {
      this.around(u).delete(v);
      if (eliminated) for (const w of around) if (w !== u) this.around(u).add(w);
    }
    const touched = new Set(around);
    if (this.byFill) for (const u of around) for (const w of this.around(u)) touched.add(w);
    for (const u of touched) {
      this.tables[u] = this.tableOf(u);
      if (this.byFill) this.fills[u] = this.fillOf(u);
    }
  }

  private tableOf(v: number): number {
    let product = size(this.problem, v);
    for (const u of this.around(v)) product *= size(this.problem, u);
    return product;
  }

  private fillOf(v: number): number {
    const list = [...this.around(v)];
    let missing = 0;
    list.forEach((u, i) => {
      for (let j = i + 1; j < list.length; j++) if (!this.around(u).has(at(list, j))) missing++;
    });
    return missing;
  }
}

function greedyOrder(problem: Problem, byFill: boolean): Order {
  const graph = new Shrinking(problem, byFill);
  const variables: number[] = [];
  let largest = 1;
  while (graph.left.size > 0) {
    const v = graph.next();
    largest = Math.max(largest, graph.table(v));
    variables.push(v);
    graph.remove(v, true);
  }
  return { variables, largest };
}

/** By fewest fill-in edges or by smallest table, whichever needs less. */
export function eliminationOrder(problem: Problem): Order {
  const [byFill, byTable] = [greedyOrder(problem, true), greedyOrder(problem, false)];
  return byTable.largest < byFill.largest ? byTable : byFill;
}

/**
 * Variables without which the elimination fits: those of most neighbours, of `held` the least often first.
 */
export function cutset(problem: Problem, tableEntries: number, held: readonly number[]): number[] {
  const graph = new Shrinking(problem, false);
  const cut: number[] = [];
  while (graph.left.size > 0) {
    const v = graph.next();
    if (graph.table(v) <= tableEntries) {
      graph.remove(v, true);
      continue;
    }
    let widest = v;
    for (const u of graph.left) {
      const difference = at(held, u) - at(held, widest) || graph.around(widest).size - graph.around(u).size;
      if (difference < 0) widest = u;
    }
    cut.push(widest);
    graph.remove(widest, false);
  }
  return cut;
}

interface Factor {
  /** Rising. */
  readonly scope: readonly number[];
  /** The last variable fastest. */
  readonly table: Float64Array;
}

interface Step {
  readonly variable: number;
  readonly scope: readonly number[];
  readonly best: Uint16Array;
}

/** The minimum and where it lies; of equal values the first one. */
export function eliminate(problem: Problem, order: Order): { value: number; choice: number[] } {
  const rank = new Map(order.variables.map((v, i) => [v, i]));
  const buckets: Factor[][] = problem.unary.map(() => []);
  let constant = 0;
  const place = (factor: Factor): void => {
    if (factor.scope.length === 0) constant += at(factor.table, 0);
    else {
      const first = Math.min(...factor.scope.map((v) => defined(rank.get(v), 'rank')));
      defined(buckets[first], 'bucket').push(factor);
    }
  };
  problem.unary.forEach((table, v) => place({ scope: [v], table }));
  problem.pairs.forEach(({ a, b, table }) => place({ scope: [a, b], table }));
  const steps = order.variables.map((variable, i) => {
    const factors = defined(buckets[i], 'bucket');
    buckets[i] = [];
    const { step, message } = eliminateOne(problem, variable, factors);
    place(message);
    return step;
  });
  const choice = problem.unary.map(() => 0);
  for (const { variable, scope, best } of steps.reverse()) {
    const index = scope.reduce((sum, v) => sum * size(problem, v) + (choice[v] ?? 0), 0);
    choice[variable] = at(best, index);
  }
  return { value: constant, choice };
}

function eliminateOne(
  problem: Problem,
  variable: number,
  bucket: readonly Factor[],
): { step: Step; message: Factor } {
  const factors = merged(problem, bucket);
  const scope = [...new Set(factors.flatMap((factor) => factor.scope))]
    .filter((v) => v !== variable)
    .sort((x, y) => x - y);
  const total = entries(problem, scope);
  const values = size(problem, variable);
  const table = new Float64Array(total).fill(Infinity);
  const best = new Uint16Array(total);
  const sums = new Float64Array(total);
  for (let value = 0; value < values; value++) {
    sums.fill(0);
    for (const factor of factors) {
      const strides = scope.map((v) => strideOf(problem, factor, v));
      addBroadcast(sums, factor.table, value * strideOf(problem, factor, variable), {
        sizes: scope.map((v) => size(problem, v)),
        strides,
      });
    }
    for (let index = 0; index < total; index++) {
      const sum = sums[index] as number;
      if (sum < (table[index] as number)) {
        table[index] = sum;
        best[index] = value;
      }
    }
  }
  return { step: { variable, scope, best }, message: { scope, table } };
}

/** Adds a table, repeated along the axes of stride 0, to `sums`. */
function addBroadcast(
  sums: Float64Array,
  table: Float64Array,
  start: number,
  { sizes, strides }: { sizes: readonly number[]; strides: readonly number[] },
): void {
  const digits = new Int32Array(sizes.length);
  const inner = sizes.at(-1) ?? 1;
  const innerStride = strides.at(-1) ?? 0;
  let offset = start;
  for (let base = 0; base < sums.length; base += inner) {
    for (let i = 0; i < inner; i++) {
      sums[base + i] = (sums[base + i] as number) + (table[offset + i * innerStride] as number);
    }
    for (let d = sizes.length - 2; d >= 0; d--) {
      const [digit, stride] = [digits[d] as number, strides[d] as number];
      if (digit + 1 < (sizes[d] as number)) {
        digits[d] = digit + 1;
        offset += stride;
        break;
      }
      digits[d] = 0;
      offset -= digit * stride;
    }
  }
}

/** Tables of this size are cheaper to add up once than to read many times. */
const mergedEntries = 4096;

/** Small factors added together. */
function merged(problem: Problem, factors: readonly Factor[]): Factor[] {
  const result: Factor[] = [];
  let scope: number[] = [];
  let group: Factor[] = [];
  const close = (): void => {
    if (group.length === 0) return;
    const sizes = scope.map((v) => size(problem, v));
    const table = new Float64Array(entries(problem, scope));
    for (const factor of group) {
      addBroadcast(table, factor.table, 0, {
        sizes,
        strides: scope.map((v) => strideOf(problem, factor, v)),
      });
    }
    result.push({ scope, table });
  };
  for (const factor of factors) {
    const union = [...new Set([...scope, ...factor.scope])].sort((x, y) => x - y);
    if (factor.table.length > mergedEntries) result.push(factor);
    else if (entries(problem, union) <= mergedEntries) [scope, group] = [union, [...group, factor]];
    else {
      close();
      [scope, group] = [[...factor.scope], [factor]];
    }
  }
  close();
  return result;
}

function entries(problem: Problem, scope: readonly number[]): number {
  return scope.reduce((product, v) => product * size(problem, v), 1);
}

function strideOf(problem: Problem, { scope }: Factor, variable: number): number {
  const position = scope.indexOf(variable);
  if (position < 0) return 0;
  return scope.slice(position + 1).reduce((product, v) => product * size(problem, v), 1);
}
