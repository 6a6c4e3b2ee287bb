/** Do the ranks agree: order of collectives, no deadlock, predicted counts. */
import { defined } from '../../support/invariant.js';
import { receivedBytes } from '../collective-bytes.js';
import type { PlanView } from '../plan-view.js';
import {
  countStarts,
  Cursor,
  describeEvent,
  startsOf,
  traceRanks,
  TraceTable,
  type Trace,
  type TraceEvent,
} from './traces.js';

/** Traces that differ in structure are unfolded: a second of work, far above any plan's needs. */
export const maxEvents = 20_000_000;

type Report = (fault: string) => void;

export function checkAcrossRanks(plan: PlanView, sound: ReadonlySet<number>, report: Report): void {
  const table = new TraceTable();
  const traces = traceRanks(plan, sound, table);
  checkCounts(plan, sound, traces, report);
  if (checkOrder(plan, sound, traces, table, report)) checkProgress(plan, traces, report);
}

function checkCounts(
  plan: PlanView,
  sound: ReadonlySet<number>,
  traces: readonly Trace[],
  report: Report,
): void {
  const memo = new Map<Trace, Map<number, number>>();
  const counts = traces.map((trace) => countStarts(trace, memo));
  for (const id of sound) {
    const info = defined(plan.collectives[id], 'collective');
    for (const rank of info.group) {
      const count = counts[rank]?.get(id) ?? 0;
      if (count === info.executions) continue;
      report(
        `collective ${id}: rank ${rank} executes it ${count} times, not ${info.executions} as predicted`,
      );
    }
    const bytes = receivedBytes(info, info.executions, plan.parameters.logN);
    info.receivedBytes.forEach((predicted, index) => {
      if (predicted === bytes[index]) return;
      const rank = info.group[index] ?? 0;
      report(`collective ${id}: rank ${rank} receives ${bytes[index]} bytes, not ${predicted} as predicted`);
    });
  }
}

// ---------------------------------------------------------------- order

/** Every rank of a group issues the group's collectives in the same order. */
function checkOrder(
  plan: PlanView,
  sound: ReadonlySet<number>,
  traces: readonly Trace[],
  table: TraceTable,
  report: Report,
): boolean {
  const groups = new Map<string, Set<number>>();
  for (const id of sound) {
    const name = defined(plan.collectives[id], 'collective').group.join();
    groups.set(name, (groups.get(name) ?? new Set()).add(id));
  }
  let agreed = true;
  for (const [name, among] of groups) {
    const memo = new Map<Trace, Trace>();
    const [leader, ...others] = name.split(',').map((rank) => {
      const trace = startsOf(defined(traces[Number(rank)], 'trace'), among, table, memo);
      return { rank, trace };
    });
    for (const other of others) {
      const fault = leader === undefined ? undefined : difference(plan, leader, other);
      if (fault === undefined) continue;
      report(`group ${name}: ${fault}`);
      agreed = false;
    }
  }
  return agreed;
}

interface RankTrace {
  readonly rank: string;
  readonly trace: Trace;
}

function difference(plan: PlanView, one: RankTrace, other: RankTrace): string | undefined {
  if (one.trace.id === other.trace.id) return undefined;
  if (one.trace.events + other.trace.events > maxEvents) {
    return `ranks ${one.rank} and ${other.rank} issue collectives in loops that cannot be compared`;
  }
  const [cursor, otherCursor] = [new Cursor(one.trace), new Cursor(other.trace)];
  for (let i = 0; ; i++) {
    const [event, otherEvent] = [cursor.next(), otherCursor.next()];
    if (event === undefined && otherEvent === undefined) return undefined;
    if (event?.collective === otherEvent?.collective) continue;
    return (
      `number ${i} in order is ${describeEvent(plan, event)} on rank ${one.rank}, `
      + `but ${describeEvent(plan, otherEvent)} on rank ${other.rank}`
    );
  }
}

// ---------------------------------------------------------------- progress

interface GroupState {
  readonly name: string;
  readonly ranks: readonly number[];
  /** Rounds that each rank has started. */
  readonly started: Map<number, number>;
  /** Ranks that wait for a round, numbered from 1. */
  readonly waiting: Map<number, number>;
}

interface Walker {
  readonly rank: number;
  readonly cursor: Cursor;
  /** Round of each collective in flight. */
  readonly rounds: Map<number, number>;
  event: TraceEvent | undefined;
}

/** A rank stands at a blocking collective or a wait until its group has started the same. */
function checkProgress(plan: PlanView, traces: readonly Trace[], report: Report): void {
  // Ranks that do the same move together.
  if (traces.every((trace) => trace.id === traces[0]?.id)) return;
  const events = traces.reduce((sum, trace) => sum + trace.events, 0);
  if (events > maxEvents) return report(`${events} collectives are too many to look for a deadlock`);
  const groups = groupStates(plan);
  const walkers = traces.map((trace, rank): Walker => ({
    rank,
    cursor: new Cursor(trace),
    rounds: new Map(),
    event: undefined,
  }));
  const ready = [...walkers];
  for (let walker = ready.pop(); walker !== undefined; walker = ready.pop()) {
    advance(walker, groups, (rank) => ready.push(defined(walkers[rank], 'rank')));
  }
  const stuck = walkers.filter((walker) => walker.event !== undefined);
  if (stuck.length === 0) return;
  const places = stuck.map(({ rank, event }) => {
    const group = groups[event?.collective ?? 0]?.name ?? '';
    return `rank ${rank} waits for ${describeEvent(plan, event)} of group ${group}`;
  });
  report(`deadlock: ${places.join('; ')}`);
}

/** The state of each collective's group, shared among collectives. */
function groupStates(plan: PlanView): GroupState[] {
  const byName = new Map<string, GroupState>();
  return plan.collectives.map(({ group }) => {
    const name = group.join();
    const state = byName.get(name) ?? { name, ranks: group, started: new Map(), waiting: new Map() };
    byName.set(name, state);
    return state;
  });
}

/** Until the rank has to wait or has ended. */
function advance(walker: Walker, groups: readonly GroupState[], wake: (rank: number) => void): void {
  const { rank, rounds } = walker;
  for (;;) {
    walker.event = walker.cursor.next();
    const { event } = walker;
    if (event === undefined) return;
    const group = defined(groups[event.collective], 'group');
    if (event.kind === 'start') {
      const round = (group.started.get(rank) ?? 0) + 1;
      group.started.set(rank, round);
      rounds.set(event.collective, round);
      for (const [other, awaited] of group.waiting) {
        if (!complete(group, awaited)) continue;
        group.waiting.delete(other);
        wake(other);
      }
      if (!event.blocking) continue;
    }
    const awaited = rounds.get(event.collective) ?? 0;
    rounds.delete(event.collective);
    if (complete(group, awaited)) continue;
    group.waiting.set(rank, awaited);
    return;
  }
}

function complete(group: GroupState, round: number): boolean {
  return group.ranks.every((rank) => (group.started.get(rank) ?? 0) >= round);
}
