/**
 * unify-ranges: isomorphic layers get the worst ranges of all of them, so that they are packed alike and can
 * be compiled once (outline-layers.ts).
 */
import { entryName, type Attrs, type Module, type Op } from '../ir/module.js';
import { defined } from '../support/invariant.js';
import type { AttentionRanges, Interval, NodeRange, NodeRanges, ValueRanges } from './ranges.js';
import { findRepeat } from './repeats.js';

export interface CompileRanges {
  readonly nodes: NodeRanges;
  readonly values: ValueRanges;
}

/** Fewer ops are no layer. */
const minTensorOps = 4;

/** Takes the `tensor` phase. Without `minCount` isomorphic layers the ranges stay as they are. */
export function unifyRanges(module: Module, ranges: CompileRanges, minCount: number): CompileRanges {
  const main = defined(
    module.functions.find((f) => f.name === entryName),
    'main',
  );
  const repeat = findRepeat(main.body, {
    minCount,
    minOps: minTensorOps,
    keyOf: (op) => `${op.kind} ${JSON.stringify(withoutNames(op.attrs, module))}`,
    sameRecipe: () => false,
    accepts: () => true,
  });
  if (repeat === undefined) return ranges;
  const indices = new Map<Op, number>(main.body.ops.map((op, index) => [op, index]));
  const nodes = new Map(ranges.nodes);
  const values = new Map(ranges.values);
  const [first] = repeat.stretches;
  first?.forEach((_, j) => {
    const cluster = repeat.stretches.map((stretch) => indices.get(defined(stretch[j], 'op')) ?? -1);
    share(nodes, cluster, unionOfNodes);
    share(values, cluster, union);
  });
  return { nodes, values };
}

/** Constants differ between layers; their shapes do not. */
function withoutNames(attrs: Attrs, module: Module): Attrs {
  return Object.fromEntries(
    Object.entries(attrs).map(([name, value]) => {
      const constant = typeof value === 'string' ? module.constants.get(value) : undefined;
      return [name, constant === undefined ? value : constant.shape];
    }),
  );
}

function share<T extends object>(
  map: Map<number, T>,
  cluster: readonly number[],
  join: (a: T, b: T) => T,
): void {
  const known = cluster.map((index) => map.get(index)).filter((one) => one !== undefined);
  if (known.length !== cluster.length) return;
  const joined = known.reduce((a, b) => join(a, b));
  for (const index of cluster) map.set(index, joined);
}

function union(a: Interval, b: Interval): Interval {
  return { min: Math.min(a.min, b.min), max: Math.max(a.max, b.max) };
}

function unionOfNodes(a: NodeRange, b: NodeRange): NodeRange {
  const attention =
    a.attention === undefined || b.attention === undefined
      ? undefined
      : unionOfAttention(a.attention, b.attention);
  const tolerance = Math.min(a.tolerance ?? Infinity, b.tolerance ?? Infinity);
  return {
    kind: a.kind,
    interval: union(a.interval, b.interval),
    attention,
    ...(tolerance === Infinity ? {} : { tolerance }),
  };
}

function unionOfAttention(a: AttentionRanges, b: AttentionRanges): AttentionRanges {
  const pairwise = (x: readonly Interval[], y: readonly Interval[]): Interval[] =>
    x.map((interval, i) => union(interval, defined(y[i], 'interval')));
  const keys = a.keys === undefined || b.keys === undefined ? {} : { keys: union(a.keys, b.keys) };
  return {
    ...keys,
    scores: union(a.scores, b.scores),
    logSumExp: pairwise(a.logSumExp, b.logSumExp),
    logSquareSum: pairwise(a.logSquareSum, b.logSquareSum),
  };
}
