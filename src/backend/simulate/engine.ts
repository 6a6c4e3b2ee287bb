/**
 * Event simulation of all ranks. Each rank has a compute queue and a communication queue, both in order. A
 * collective begins once every rank of its group has started it and has its communication queue free; a wait
 * stops the compute queue until it ends. Loops are run until the clocks of all ranks move by the same amount
 * in every iteration; the rest follows.
 */
import { defined, invariant } from '../../support/invariant.js';
import { layerBlocks, type CollectiveInfo } from '../plan-view.js';
import type { Item } from './items.js';

export interface CollectiveTime {
  readonly info: CollectiveInfo;
  readonly seconds: number;
}

/** What a trace wants to know. */
export interface Observer {
  compute(rank: number, start: number, item: Item & { kind: 'compute' }): void;
  collective(rank: number, begin: number, end: number, index: number): void;
  wait(rank: number, begin: number, end: number, index: number): void;
  /** Iterations of a loop that are not told apart. */
  skipped(rank: number, begin: number, end: number, iterations: number, node: number): void;
}

export interface RankTimes {
  /** When the rank is done. */
  readonly seconds: number;
  readonly computeSeconds: number;
  /** Its communication queue at work, by block. */
  readonly commSeconds: readonly number[];
  /** Its compute queue stopped while a collective ran or queued behind another one, by block. */
  readonly exposedSeconds: readonly number[];
  /** Its compute queue stopped because another rank had not started the collective yet. */
  readonly imbalanceSeconds: number;
}

export function runEvents(
  programs: readonly (readonly Item[])[],
  collectives: readonly CollectiveTime[],
  observer?: Observer,
): RankTimes[] {
  return new Engine(programs, collectives, observer).run();
}

interface Frame {
  readonly items: readonly Item[];
  index: number;
  /** Further executions. */
  left: number;
}

interface Instance {
  readonly collective: number;
  missing: number;
  /** Of the last rank's start. */
  ready: number;
  end: number | undefined;
}

const blockCount = layerBlocks.length;
/** Places in Rank.counts. */
const places = { compute: 0, imbalance: 1, comm: 2, exposed: 2 + blockCount, length: 2 + 2 * blockCount };

interface Rank {
  compute: number;
  comm: number;
  readonly counts: Float64Array;
  readonly stack: Frame[];
  /** Started and not begun, in order. */
  readonly queue: Instance[];
  /** Started and not waited for, in order, by collective. */
  readonly open: Map<number, Instance[]>;
}

/** Deltas of this many iterations must agree before the rest is taken to be alike. */
const steadyIterations = 2;
/** Iterations that an observer sees. */
const observedIterations = 2;
const relativeRounding = 1e-9;

class Engine {
  private readonly ranks: readonly Rank[];
  /** Instances that some rank of the group has not started, in order, by collective. */
  private readonly partial = new Map<number, Instance[]>();
  private muted = 0;

  constructor(
    programs: readonly (readonly Item[])[],
    private readonly collectives: readonly CollectiveTime[],
    private readonly observer: Observer | undefined,
  ) {
    this.ranks = programs.map((items) => ({
      compute: 0,
      comm: 0,
      counts: new Float64Array(places.length),
      stack: [{ items, index: 0, left: 0 }],
      queue: [],
      open: new Map(),
    }));
  }

  run(): RankTimes[] {
    this.runTo(this.ranks.map(() => 0));
    return this.ranks.map(({ compute, comm, counts }) => ({
      seconds: Math.max(compute, comm),
      computeSeconds: counts[places.compute] ?? 0,
      imbalanceSeconds: counts[places.imbalance] ?? 0,
      commSeconds: [...counts.subarray(places.comm, places.comm + blockCount)],
      exposedSeconds: [...counts.subarray(places.exposed, places.exposed + blockCount)],
    }));
  }

  /** Until every rank's stack is as low as its floor. */
  private runTo(floors: readonly number[]): void {
    const floorOf = (index: number): number => defined(floors[index], 'floor');
    for (;;) {
      let moved = false;
      this.ranks.forEach((rank, index) => {
        while (rank.stack.length > floorOf(index) && this.step(rank, index)) moved = true;
      });
      const unfinished = this.ranks.filter((rank, index) => rank.stack.length > floorOf(index));
      if (unfinished.length === 0) return;
      if (moved) continue;
      const looping = unfinished.filter((rank) => nextItem(rank)?.kind === 'loop');
      invariant(looping.length > 0, 'ranks wait for each other: the schedule has a deadlock');
      const trips = new Set(looping.map((rank) => (nextItem(rank) as Item & { kind: 'loop' }).trips));
      if (looping.length === unfinished.length && trips.size === 1) this.loopTogether(looping);
      else for (const rank of looping) enterLoop(rank);
    }
  }

  /** One item of a rank, if it can go on; loops are left to `runTo`. */
  private step(rank: Rank, index: number): boolean {
    const frame = defined(rank.stack.at(-1), 'frame');
    const item = frame.items[frame.index];
    if (item === undefined) {
      if (frame.left > 0) Object.assign(frame, { index: 0, left: frame.left - 1 });
      else rank.stack.pop();
      return true;
    }
    if (item.kind === 'loop') return false;
    if (item.kind === 'wait' && !this.wait(rank, index, item.collective)) return false;
    if (item.kind === 'start') this.start(rank, item.collective);
    if (item.kind === 'compute') {
      if (this.muted === 0) this.observer?.compute(index, rank.compute, item);
      rank.compute += item.seconds;
      add(rank, places.compute, item.seconds);
    }
    frame.index++;
    return true;
  }

  private start(rank: Rank, collective: number): void {
    const { group } = this.timeOf(collective).info;
    const waiting = listOf(this.partial, collective);
    // Instances are matched by their order on each rank.
    let instance = waiting.find((one) => !listOf(rank.open, collective).includes(one));
    if (instance === undefined) {
      instance = { collective, missing: group.length, ready: 0, end: undefined };
      waiting.push(instance);
    }
    instance.missing--;
    instance.ready = Math.max(instance.ready, rank.compute);
    listOf(rank.open, collective).push(instance);
    rank.queue.push(instance);
    if (instance.missing === 0) waiting.splice(waiting.indexOf(instance), 1);
    this.begin(instance);
  }

  /** Begins the instance, and those behind it, where it is first in the queues of its whole group. */
  private begin(instance: Instance): void {
    const { info, seconds } = this.timeOf(instance.collective);
    const members = info.group.map((index) => defined(this.ranks[index], 'rank of the group'));
    if (instance.missing > 0 || members.some((rank) => rank.queue[0] !== instance)) return;
    const begin = Math.max(instance.ready, ...members.map((rank) => rank.comm));
    instance.end = begin + seconds;
    const block = layerBlocks.indexOf(info.block);
    for (const [i, rank] of members.entries()) {
      rank.queue.shift();
      rank.comm = instance.end;
      add(rank, places.comm + block, seconds);
      if (this.muted === 0) {
        this.observer?.collective(info.group[i] ?? 0, begin, instance.end, instance.collective);
      }
    }
    for (const { queue } of members) if (queue[0] !== undefined) this.begin(queue[0]);
  }

  private wait(rank: Rank, index: number, collective: number): boolean {
    const open = listOf(rank.open, collective);
    const instance = defined(open[0], `start of collective ${collective} before its wait`);
    if (instance.end === undefined) return false;
    open.shift();
    const waited = Math.max(0, instance.end - rank.compute);
    const imbalance = Math.min(waited, Math.max(0, instance.ready - rank.compute));
    add(rank, places.imbalance, imbalance);
    const block = layerBlocks.indexOf(this.timeOf(collective).info.block);
    add(rank, places.exposed + block, waited - imbalance);
    if (this.muted === 0 && waited > 0) {
      this.observer?.wait(index, rank.compute, instance.end, collective);
    }
    rank.compute += waited;
    return true;
  }

  /** Iteration by iteration on all ranks that are left; their loops have the same number of iterations. */
  private loopTogether(looping: readonly Rank[]): void {
    const floors = this.ranks.map((rank) => rank.stack.length);
    const loops = looping.map((rank) => nextItem(rank) as Item & { kind: 'loop' });
    const trips = loops[0]?.trips ?? 0;
    const history = new History();
    const mutedFrom: number[] = [];
    for (let done = 0; done < trips;) {
      if (done === observedIterations) {
        this.muted++;
        mutedFrom.push(...looping.map((rank) => rank.compute));
      }
      looping.forEach((rank, i) => rank.stack.push({ items: loops[i]?.body ?? [], index: 0, left: 0 }));
      this.runTo(floors);
      done++;
      const delta = history.steadyDelta(this.clocks(), this.counts());
      if (delta === undefined) continue;
      this.advance(delta, trips - done);
      break;
    }
    if (mutedFrom.length > 0) this.muted--;
    looping.forEach((rank, i) => {
      const from = mutedFrom[i];
      if (from !== undefined && this.muted === 0) {
        const [index, node] = [this.ranks.indexOf(rank), loops[i]?.node ?? 0];
        this.observer?.skipped(index, from, rank.compute, trips - observedIterations, node);
      }
      defined(rank.stack.at(-1), 'frame').index++;
    });
  }

  /** All that later times depend on. A communication queue that is idle is free from now on. */
  private clocks(): number[] {
    return this.ranks.flatMap((rank) => [
      rank.compute,
      Math.max(rank.comm, rank.compute),
      ...[...rank.open.values()].flat().map(({ end, ready }) => end ?? ready),
    ]);
  }

  private counts(): number[] {
    return this.ranks.flatMap((rank) => [...rank.counts]);
  }

  private advance({ clocks, counts }: Delta, iterations: number): void {
    let next = 0;
    const shift = (): number => iterations * defined(clocks[next++], 'clock');
    const moved = new Map<Instance, number>();
    for (const rank of this.ranks) {
      rank.comm = Math.max(rank.comm, rank.compute);
      rank.compute += shift();
      rank.comm += shift();
      for (const instance of [...rank.open.values()].flat()) moved.set(instance, shift());
    }
    for (const [instance, by] of moved) {
      instance.ready += by;
      if (instance.end !== undefined) instance.end += by;
    }
    this.ranks.forEach(({ counts: own }, r) => {
      own.forEach((value, i) => (own[i] = value + iterations * (counts[r * places.length + i] ?? 0)));
    });
  }

  private timeOf(collective: number): CollectiveTime {
    return defined(this.collectives[collective], `collective ${collective}`);
  }
}

function nextItem(rank: Rank): Item | undefined {
  const frame = rank.stack.at(-1);
  return frame?.items[frame.index];
}

/** Iterations of its own, where ranks do not loop alike. */
function enterLoop(rank: Rank): void {
  const item = nextItem(rank) as Item & { kind: 'loop' };
  defined(rank.stack.at(-1), 'frame').index++;
  if (item.trips > 0) rank.stack.push({ items: item.body, index: 0, left: item.trips - 1 });
}

function add(rank: Rank, place: number, seconds: number): void {
  rank.counts[place] = (rank.counts[place] ?? 0) + seconds;
}

function listOf<K>(map: Map<K, Instance[]>, key: K): Instance[] {
  const known = map.get(key);
  if (known !== undefined) return known;
  const made: Instance[] = [];
  map.set(key, made);
  return made;
}

interface Delta {
  readonly clocks: readonly number[];
  readonly counts: readonly number[];
}

/**
 * Watches clocks at the ends of iterations. An iteration maps clocks by maxima and sums of constants, so once
 * all move by one amount they do so for ever; clocks that move by different amounts are steady only where no
 * slower one is ahead of a faster one.
 */
class History {
  private clocks: readonly number[] | undefined;
  private counts: readonly number[] = [];
  private last: readonly number[] | undefined;
  private agreeing = 0;

  steadyDelta(clocks: readonly number[], counts: readonly number[]): Delta | undefined {
    const before = this.clocks;
    const countsBefore = this.counts;
    [this.clocks, this.counts] = [clocks, counts];
    if (before === undefined || before.length !== clocks.length) {
      [this.last, this.agreeing] = [undefined, 0];
      return undefined;
    }
    const delta = clocks.map((clock, i) => clock - (before[i] ?? 0));
    const { last } = this;
    const close = (a: number, b: number): boolean =>
      Math.abs(a - b) <= relativeRounding * Math.max(Math.abs(a), Math.abs(b)) + Math.max(...clocks) * 1e-14;
    const same = last !== undefined && delta.every((value, i) => close(value, last[i] ?? NaN));
    this.agreeing = same ? this.agreeing + 1 : 0;
    this.last = delta;
    if (this.agreeing < steadyIterations || !ordered(clocks, delta, close)) return undefined;
    return { clocks: delta, counts: counts.map((value, i) => value - (countsBefore[i] ?? 0)) };
  }
}

function ordered(
  clocks: readonly number[],
  delta: readonly number[],
  close: (a: number, b: number) => boolean,
): boolean {
  return clocks.every((slow, i) =>
    clocks.every((fast, j) => {
      const [slower, faster] = [delta[i] ?? 0, delta[j] ?? 0];
      return slower >= faster || close(slower, faster) || fast >= slow;
    }),
  );
}
