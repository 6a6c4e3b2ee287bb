/**
 * What a collective moves: for one mesh axis, the blocks that every rank sends and receives, as windows of
 * its own
 * arrays (plan.fbs, CollectiveKind). Ranks agree on rows without talking: all of it follows from the
 * shardings.
 */
import { defined, invariant } from '../support/invariant.js';
import type { Window } from '../ir/ops/poly.js';
import {
  coordinatesOf,
  everyRank,
  groupOf,
  localType,
  onAxis,
  ownIndices,
  ownLimbs,
  type Mesh,
} from '../ir/sharding.js';
import { axesCount, type PolyType, type Sharding } from '../ir/types.js';
import type { CollectiveKind } from './plan-view.js';

export interface Exchange {
  readonly kind: CollectiveKind;
  readonly group: readonly number[];
  readonly rows: readonly number[];
  readonly limbs: readonly (readonly number[])[];
  readonly root: number;
  /** Windows of the rank's source, block by block in sending order; empty where it sends nothing. */
  readonly sends: readonly (readonly Window[])[];
  /** Windows of the rank's result, block by block in receiving order. */
  readonly receives: readonly (readonly Window[])[];
  /** What the rank keeps without sending it: windows of source and result. */
  readonly keeps: readonly (readonly [Window, Window])[];
  readonly source: PolyType | undefined;
  readonly result: PolyType | undefined;
}

/** What a coordinate holds of an array: index lists of its axes, and limbs. */
interface Holding {
  readonly indices: readonly (readonly number[])[];
  readonly limbs: readonly number[];
}

/**
 * A part of an array as windows of the arrays of sender and receiver, in the order in which its rows travel.
 */
type Pieces = readonly (readonly [Window, Window])[];

/**
 * The collective along mesh axis `m` that turns `type` (its sharding there is `from`) into sharding `to`;
 * undefined
 * for a group to which the other mesh axes leave nothing of the array.
 */
export function planExchange(
  type: PolyType,
  mesh: Mesh,
  m: number,
  to: Sharding,
  rank: number,
): Exchange | undefined {
  const from = onAxis(type.sharding, m);
  const group = groupOf(mesh, rank, m);
  const coordinates = coordinatesOf(mesh, rank);
  const own = defined(coordinates[m], 'coordinate');
  // What the other mesh axes leave of the array; they are the same for the whole group.
  const others = type.sharding.map((one, i): Sharding => (i === m ? { kind: 'replicated' } : one));
  const base = localType({ ...type, sharding: others }, coordinates);
  if (base === undefined) return undefined;
  const along = (sharding: Sharding, c: number): PolyType | undefined =>
    localType({ ...base, sharding: [local(sharding, type, base)] }, [c]);
  const ends = { source: along(from, own), result: along(to, own) };
  const site: Site = {
    group,
    own,
    axes: base.axes.map((axis) => axis.name),
    before: group.map((_, c) => holding(base, local(from, type, base), c)),
    after: group.map((_, c) => holding(base, local(to, type, base), c)),
  };
  const exchange = from.kind === 'partial' ? reduction(site, to) : movement(site, from, to);
  return { ...exchange, group, ...ends };
}

interface Site {
  readonly group: readonly number[];
  readonly own: number;
  readonly axes: readonly string[];
  readonly before: readonly Holding[];
  readonly after: readonly Holding[];
}

type Moves = Omit<Exchange, 'group' | 'source' | 'result'>;

/** Owners of the indices that other mesh axes leave. */
function local(sharding: Sharding, type: PolyType, base: PolyType): Sharding {
  if (sharding.kind === 'split') {
    const size = type.axes.find((axis) => axis.name === sharding.axis)?.size;
    const left = base.axes.find((axis) => axis.name === sharding.axis)?.size;
    invariant(size === left, `axis ${sharding.axis} is sharded along one mesh axis`);
  }
  return sharding;
}

const nothing: Holding = { indices: [], limbs: [] };

function holding(type: PolyType, sharding: Sharding, c: number): Holding {
  if (sharding.kind === 'at' && sharding.rank !== c) return nothing;
  return {
    indices: type.axes.map((axis) => ownIndices(sharding, axis, c)),
    limbs: ownLimbs(sharding, type.limbs, c),
  };
}

function common(a: Holding, b: Holding): Holding {
  if (a === nothing || b === nothing) return nothing;
  return {
    indices: a.indices.map((list, i) => intersection(list, defined(b.indices[i], 'axis'))),
    limbs: intersection(a.limbs, b.limbs),
  };
}

function intersection(a: readonly number[], b: readonly number[]): readonly number[] {
  const set = new Set(b);
  return a.filter((x) => set.has(x));
}

function rowsOf(part: Holding): number {
  return part === nothing ? 0 : part.indices.reduce((n, list) => n * list.length, part.limbs.length);
}

/** Consecutive entries that lie evenly spaced in both arrays; along axes with spacing 1. */
function runs(
  part: readonly number[],
  a: readonly number[],
  b: readonly number[],
  anyStride: boolean,
): number[][] {
  const result: number[][] = [];
  const place = (list: readonly number[], x: number | undefined): number =>
    x === undefined ? NaN : list.indexOf(x);
  for (const x of part) {
    const run = result.at(-1);
    const last = run?.at(-1);
    const fits = [a, b].every((list) => {
      const step = place(list, x) - place(list, last);
      const first =
        run === undefined || run.length < 2 ? undefined : place(list, run[1]) - place(list, run[0]);
      return anyStride ? first === undefined || step === first : step === 1;
    });
    if (run !== undefined && fits) run.push(x);
    else result.push([x]);
  }
  return result;
}

function pieces(site: Site, part: Holding, a: Holding, b: Holding): Pieces {
  if (rowsOf(part) === 0) return [];
  let list: (readonly [Window, Window])[] = [];
  for (const limbs of runs(part.limbs, a.limbs, b.limbs, true)) list.push([{ limbs }, { limbs }]);
  site.axes.forEach((name, i) => {
    const own = defined(part.indices[i], 'axis');
    const [inA, inB] = [defined(a.indices[i], 'axis'), defined(b.indices[i], 'axis')];
    if (own.length === inA.length && own.length === inB.length) return;
    list = runs(own, inA, inB, false).flatMap((run) =>
      list.map(([x, y]) => [cut(x, name, inA, run), cut(y, name, inB, run)] as const),
    );
  });
  return list;
}

function cut(window: Window, axis: string, container: readonly number[], run: readonly number[]): Window {
  const start = container.indexOf(defined(run[0], 'index'));
  return { ...window, axes: { ...window.axes, [axis]: [start, run.length] } };
}

const firsts = (list: Pieces): Window[] => list.map(([a]) => a);
const seconds = (list: Pieces): Window[] => list.map(([, b]) => b);

/** Partial sums: all-reduce, or reduce-scatter to whoever holds a part afterwards. */
function reduction(site: Site, to: Sharding): Moves {
  const { own, before, after } = site;
  const mine = defined(before[own], 'holding');
  const segment = (d: number): Pieces => {
    const part = defined(after[d], 'holding');
    const list = pieces(site, part, mine, part);
    const cuts = new Set(list.map(([window]) => window.limbs?.join()));
    invariant(cuts.size <= 1, 'limbs of a reduced segment are evenly spaced');
    return list;
  };
  const limbsOf = (d: number): readonly number[] => {
    const held = defined(after[d], 'holding');
    return rowsOf(held) === 0 ? [] : held.limbs;
  };
  if (to.kind === 'replicated') {
    const list = segment(own);
    const [sends, receives] = [[firsts(list)], [seconds(list)]];
    return {
      kind: 'all_reduce',
      rows: [rowsOf(mine)],
      limbs: [limbsOf(own)],
      root: 0,
      sends,
      receives,
      keeps: [],
    };
  }
  const everywhere = to.kind === 'limbs' && mine.limbs.some((limb) => to.owners[limb] === everyRank);
  invariant(!everywhere, 'limbs on every rank are reduced apart');
  const ranks = site.group.map((_, d) => d);
  return {
    kind: 'reduce_scatter',
    rows: ranks.map((d) => rowsOf(defined(after[d], 'holding'))),
    limbs: ranks.map(limbsOf),
    root: 0,
    sends: ranks.map((d) => firsts(segment(d))),
    receives: [seconds(segment(own))],
    keeps: [],
  };
}

/** Rows that change place: all-gather, broadcast, all-to-all. */
function movement(site: Site, from: Sharding, to: Sharding): Moves {
  const { own, before, after, group } = site;
  const ranks = group.map((_, c) => c);
  /** What only `s` holds before. */
  const unique = (s: number): Holding => {
    const held = defined(before[s], 'holding');
    if (from.kind !== 'limbs' || held === nothing) return held;
    return { ...held, limbs: held.limbs.filter((limb) => from.owners[limb] !== everyRank) };
  };
  const moved = (s: number, d: number): Holding =>
    s === d ? nothing : common(unique(s), defined(after[d], 'holding'));
  const travel = (s: number, d: number, part: Holding): Pieces =>
    pieces(site, part, defined(before[s], 'holding'), defined(after[d], 'holding'));
  const kept = common(defined(before[own], 'holding'), defined(after[own], 'holding'));
  const keepAll = travel(own, own, kept);
  if (to.kind !== 'replicated') {
    return {
      kind: 'all_to_all',
      rows: ranks.flatMap((s) => ranks.map((d) => rowsOf(moved(s, d)))),
      limbs: [],
      root: 0,
      sends: ranks.map((d) => firsts(travel(own, d, moved(own, d)))),
      receives: ranks.map((s) => seconds(travel(s, own, moved(s, own)))),
      keeps: keepAll,
    };
  }
  const sources = ranks.filter((s) => rowsOf(unique(s)) > 0);
  const [root, second] = sources;
  if (root !== undefined && second === undefined) {
    const block = travel(root, own, unique(root));
    return {
      kind: 'broadcast',
      rows: [rowsOf(unique(root))],
      limbs: [],
      root,
      sends: own === root ? [firsts(block)] : [],
      receives: own === root ? [] : [seconds(block)],
      keeps: keepAll,
    };
  }
  const everywhere = common({ ...kept, limbs: kept.limbs.filter((limb) => isEverywhere(from, limb)) }, kept);
  return {
    kind: 'all_gather',
    rows: ranks.map((s) => rowsOf(unique(s))),
    limbs: [],
    root: 0,
    sends: [firsts(travel(own, own, unique(own)))],
    receives: ranks.map((s) => seconds(travel(s, own, unique(s)))),
    keeps: travel(own, own, everywhere),
  };
}

function isEverywhere(sharding: Sharding, limb: number): boolean {
  return sharding.kind === 'limbs' && sharding.owners[limb] === everyRank;
}

export function windowRows(type: PolyType, window: Window): number {
  const limbs = (window.limbs ?? type.limbs).length;
  return (
    axesCount(type.axes.map((axis) => ({ ...axis, size: window.axes?.[axis.name]?.[1] ?? axis.size })))
    * limbs
  );
}
