/** The collectives that a rank issues, in order: loops and calls stay folded. */
import { defined } from '../../support/invariant.js';
import type { Command, PlanView } from '../plan-view.js';

export interface TraceEvent {
  readonly kind: 'start' | 'wait';
  readonly collective: number;
  readonly blocking: boolean;
  /** Function and command. */
  readonly at: string;
}

export interface Repeat {
  readonly kind: 'repeat';
  readonly count: number;
  readonly body: Trace;
}

export interface Trace {
  readonly items: readonly (TraceEvent | Repeat)[];
  /** Equal for traces of equal structure, whatever rank issues them. */
  readonly id: number;
  /** Events of the unfolded trace. */
  readonly events: number;
}

/** Numbers traces by structure. */
export class TraceTable {
  private readonly ids = new Map<string, number>();

  make(list: readonly (TraceEvent | Repeat)[]): Trace {
    // A body that runs once is part of the sequence.
    const items = list.flatMap((item) => {
      if (item.kind !== 'repeat') return [item];
      if (item.count === 1 && item.body.items.length <= 1) return item.body.items;
      return item.body.events === 0 ? [] : [item];
    });
    const key = items
      .map((item) =>
        item.kind === 'repeat'
          ? `${item.count}*${item.body.id}`
          : `${item.kind === 'wait' ? 'w' : item.blocking ? 'b' : 's'}${item.collective}`,
      )
      .join(' ');
    const id = this.ids.get(key) ?? this.ids.size;
    this.ids.set(key, id);
    const events = items.reduce(
      (sum, item) => sum + (item.kind === 'repeat' ? item.count * item.body.events : 1),
      0,
    );
    return { items, id, events };
  }
}

/** The traces of the entry functions, one for each rank. */
export function traceRanks(plan: PlanView, sound: ReadonlySet<number>, table: TraceTable): Trace[] {
  return plan.programs.map((program) => {
    const traces: Trace[] = [];
    for (const func of program.functions) {
      const visit = (commands: readonly Command[], prefix: string): Trace => {
        const items: (TraceEvent | Repeat)[] = [];
        commands.forEach((command, i) => {
          const at = `${prefix}${i}`;
          const { collective, blocking } = command;
          if (command.op === 'loop') {
            const body = visit(command.body, `${at}.`);
            if (body.events > 0) items.push({ kind: 'repeat', count: command.tripCount, body });
          } else if (command.op === 'call') {
            const body = traces[command.callee];
            if (body !== undefined && body.events > 0) items.push({ kind: 'repeat', count: 1, body });
          } else if ((command.op === 'collective' || command.op === 'wait') && sound.has(collective)) {
            const kind = command.op === 'wait' ? 'wait' : 'start';
            items.push({ kind, collective, blocking: command.op === 'collective' && blocking, at });
          }
        });
        return table.make(items);
      };
      traces.push(visit(func.commands, `${func.name} `));
    }
    return traces.at(-1) ?? table.make([]);
  });
}

/** Starts of each collective in one inference. */
export function countStarts(trace: Trace, memo = new Map<Trace, Map<number, number>>()): Map<number, number> {
  const known = memo.get(trace);
  if (known !== undefined) return known;
  const counts = new Map<number, number>();
  const add = (collective: number, count: number): void => {
    counts.set(collective, (counts.get(collective) ?? 0) + count);
  };
  for (const item of trace.items) {
    if (item.kind === 'start') add(item.collective, 1);
    if (item.kind !== 'repeat') continue;
    for (const [collective, count] of countStarts(item.body, memo)) add(collective, item.count * count);
  }
  memo.set(trace, counts);
  return counts;
}

/** The starts among some collectives, which are issued in the same order by all of their group. */
export function startsOf(
  trace: Trace,
  among: ReadonlySet<number>,
  table: TraceTable,
  memo = new Map<Trace, Trace>(),
): Trace {
  const known = memo.get(trace);
  if (known !== undefined) return known;
  const items = trace.items.flatMap((item): (TraceEvent | Repeat)[] => {
    if (item.kind === 'repeat') return [{ ...item, body: startsOf(item.body, among, table, memo) }];
    // Whether a rank waits at once is its own affair.
    return item.kind === 'start' && among.has(item.collective) ? [{ ...item, blocking: true }] : [];
  });
  const made = table.make(items);
  memo.set(trace, made);
  return made;
}

/** Walks an unfolded trace. */
export class Cursor {
  private readonly stack: { readonly trace: Trace; next: number; left: number }[];

  constructor(trace: Trace) {
    this.stack = [{ trace, next: 0, left: 1 }];
  }

  next(): TraceEvent | undefined {
    for (;;) {
      const top = this.stack.at(-1);
      if (top === undefined) return undefined;
      const item = top.trace.items[top.next];
      if (item === undefined) {
        top.next = 0;
        if (--top.left <= 0) this.stack.pop();
      } else {
        top.next++;
        if (item.kind !== 'repeat') return item;
        if (item.count > 0) this.stack.push({ trace: item.body, next: 0, left: item.count });
      }
    }
  }
}

export function describeEvent(plan: PlanView, event: TraceEvent | undefined): string {
  if (event === undefined) return 'nothing more';
  const info = defined(plan.collectives[event.collective], 'collective');
  return `collective ${event.collective} (${event.at}, node "${plan.locations[info.node] ?? ''}")`;
}
