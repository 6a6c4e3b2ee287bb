/**
 * List scheduling of a block on a compute and a communication queue. An item ahead of its turn must leave the
 * peak of the program order within the limit; see docs/passes/overlap-communication.md.
 */
import { defined } from '../../support/invariant.js';
import type { Graph, Item } from './graph.js';
import { Heap } from './heap.js';
import { memoryProfile, MemoryModel, RangeMax, type MemoryProfile } from './memory.js';
import { timeOrder, type Timing } from './timing.js';

export interface Schedule {
  /** Items in the order in which they are issued. */
  readonly order: readonly number[];
  readonly timing: Timing;
  readonly peakRows: number;
}

/**
 * How far ahead of the first open item others may run, and whether the longest path or program order leads.
 */
const attempts = [
  { window: Infinity, critical: true },
  { window: 1024, critical: true },
  { window: 128, critical: true },
  { window: Infinity, critical: false },
  { window: 128, critical: false },
] as const;

/** Items that are tried for one place in the order before the scheduler waits. */
const maxTries = 16;

export function programOrder(graph: Graph): Schedule {
  const order = graph.items.map((_, i) => i);
  return { order, timing: timeOrder(graph, order), peakRows: memoryProfile(graph, order).peak };
}

/** The order with the least exposed communication of those within the limit; program order is one of them. */
export function scheduleBlock(graph: Graph, limitRows: number): Schedule {
  let best = programOrder(graph);
  if (best.timing.exposed === 0) return best;
  const profile = memoryProfile(graph, best.order);
  const paths = longestPaths(graph);
  for (const { window, critical } of attempts) {
    if (window !== Infinity && window >= graph.items.length) continue;
    const ranks = critical ? paths : Float64Array.from(paths, (_, i) => -i);
    const order = new ListScheduler(graph, profile, ranks, { window, limitRows }).run();
    const peakRows = memoryProfile(graph, order).peak;
    const timing = timeOrder(graph, order);
    const better = timing.exposed < best.timing.exposed * (1 - 1e-9);
    if (better && peakRows <= Math.max(limitRows, profile.peak)) best = { order, timing, peakRows };
  }
  return best;
}

/** Seconds from the start of each item to the end of the block, dependences alone. */
function longestPaths(graph: Graph): Float64Array {
  const paths = new Float64Array(graph.items.length);
  for (let i = graph.items.length - 1; i >= 0; i--) {
    const item = defined(graph.items[i], 'item');
    let rest = 0;
    for (const next of item.after) rest = Math.max(rest, paths[next] ?? 0);
    paths[i] = rest + item.seconds + item.linkSeconds;
  }
  return paths;
}

interface Bounds {
  readonly window: number;
  readonly limitRows: number;
}

class ListScheduler {
  private readonly order: number[] = [];
  private readonly memory: MemoryModel;
  private readonly ahead: RangeMax;
  private readonly missing: Int32Array;
  private readonly done: Uint8Array;
  /** Waits whose data are there, and what costs nothing: issued with the first item that needs them. */
  private readonly deferred = new Set<number>();
  private readonly ready: Heap;
  /** Ready, but beyond the window. */
  private readonly far: Heap;
  private readonly flights: { readonly wait: number; readonly end: number }[] = [];
  private readonly ended: Uint8Array;
  private nextFlight = 0;
  private now = 0;
  private link = 0;
  /** First item in program order that is neither issued nor deferred. */
  private first = 0;
  /** Last item in program order that is issued. */
  private farthest = 0;

  constructor(
    private readonly graph: Graph,
    private readonly profile: MemoryProfile,
    ranks: Float64Array,
    private readonly bounds: Bounds,
  ) {
    this.memory = new MemoryModel(graph);
    this.ahead = new RangeMax(profile.peaks);
    this.missing = Int32Array.from(graph.items, ({ before }) => before.length);
    this.done = new Uint8Array(graph.items.length);
    this.ended = new Uint8Array(graph.items.length);
    this.ready = new Heap((a, b) => (ranks[b] ?? 0) - (ranks[a] ?? 0) || a - b);
    this.far = new Heap((a, b) => a - b);
  }

  run(): number[] {
    const roots = this.graph.items.flatMap(({ before }, i) => (before.length === 0 ? [i] : []));
    roots.forEach((i) => this.enable(i));
    while (this.first < this.graph.items.length) {
      this.arrive();
      const next = this.choose();
      if (next !== undefined) this.issue(next);
      else if (this.first < this.graph.items.length) this.waitForFlight();
    }
    [...this.deferred].sort((a, b) => a - b).forEach((index) => this.append(index));
    return this.order;
  }

  private item(index: number): Item {
    return defined(this.graph.items[index], 'item');
  }

  /** All that the item depends on is issued or deferred. */
  private enable(index: number): void {
    const item = this.item(index);
    if (item.role === 'wait') {
      if (this.ended[index] === 1) this.defer(index);
    } else if (item.free) this.defer(index);
    else if (index > this.first + this.bounds.window) this.far.push(index);
    else this.ready.push(index);
  }

  private defer(index: number): void {
    this.deferred.add(index);
    this.pass();
    this.release(index);
  }

  private release(index: number): void {
    for (const next of this.item(index).after) {
      const left = (this.missing[next] ?? 0) - 1;
      this.missing[next] = left;
      if (left === 0) this.enable(next);
    }
  }

  /** Waits of collectives that have ended by now. */
  private arrive(): void {
    for (;;) {
      const flight = this.flights[this.nextFlight];
      if (flight === undefined || flight.end > this.now) return;
      this.nextFlight++;
      this.ended[flight.wait] = 1;
      if (this.missing[flight.wait] === 0) this.defer(flight.wait);
    }
  }

  private waitForFlight(): void {
    const flight = defined(this.flights[this.nextFlight], 'collective in flight');
    this.now = Math.max(this.now, flight.end);
  }

  /** The best ready item that memory allows. */
  private choose(): number | undefined {
    while (this.far.size > 0 && this.far.top <= this.first + this.bounds.window)
      this.ready.push(this.far.pop());
    const refused: number[] = [];
    let found: number | undefined;
    while (this.ready.size > 0 && found === undefined && refused.length < maxTries) {
      const index = this.ready.pop();
      if (this.done[index] === 1) continue;
      if (index === this.first || this.fits(index)) found = index;
      else refused.push(index);
    }
    refused.forEach((index) => this.ready.push(index));
    if (found !== undefined || this.first === this.graph.items.length) return found;
    return this.missing[this.first] === 0 && this.item(this.first).role !== 'wait' ? this.first : undefined;
  }

  /**
   * The rows that the item adds, kept until its turn would have come, on top of the peaks of the program
   * order.
   */
  private fits(index: number): boolean {
    const { memory, profile, bounds } = this;
    let need = memory.need(this.item(index));
    for (const other of this.deferredFor(index)) need += memory.need(this.item(other));
    const extra = memory.live + need - (profile.before[this.first] ?? 0);
    return extra + this.ahead.of(this.first, Math.max(index, this.farthest)) <= bounds.limitRows;
  }

  /** Deferred items that the item needs, in an order that they may run in. */
  private deferredFor(index: number, found: number[] = []): number[] {
    for (const other of this.item(index).before) {
      if (!this.deferred.has(other) || found.includes(other)) continue;
      this.deferredFor(other, found);
      found.push(other);
    }
    return found;
  }

  private issue(index: number): void {
    const item = this.item(index);
    for (const other of this.deferredFor(index)) {
      this.deferred.delete(other);
      this.append(other);
    }
    this.append(index);
    this.pass();
    if (item.role === 'start') {
      this.link = Math.max(this.link, this.now) + item.linkSeconds;
      this.flights.push({ wait: index + 1, end: this.link });
    }
    this.release(index);
  }

  private append(index: number): void {
    this.order.push(index);
    this.memory.run(this.item(index));
    if (this.item(index).usesLink) this.now = Math.max(this.now, this.link);
    this.now += this.item(index).seconds;
    this.done[index] = 1;
    this.farthest = Math.max(this.farthest, index);
  }

  private pass(): void {
    const settled = (index: number): boolean => this.done[index] === 1 || this.deferred.has(index);
    while (this.first < this.graph.items.length && settled(this.first)) this.first++;
  }
}
