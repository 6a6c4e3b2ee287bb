/**
 * A simulation as a Chrome trace (load it into Perfetto): one process per rank, its compute and communication
 * queues as threads. Loops show two iterations, repeated calls the first one, the rest as one event each.
 */
import { type Command, type PlanView } from '../plan-view.js';
import type { Observer } from './engine.js';
import type { Item, ProgramCosts } from './items.js';
import { workOf, type RowWords } from './work.js';

interface TraceEvent {
  readonly name: string;
  readonly ph: 'X' | 'M';
  readonly pid: number;
  readonly tid: number;
  readonly ts?: number;
  readonly dur?: number;
  readonly cat?: string;
  readonly args: Readonly<Record<string, string | number>>;
}

export interface Trace {
  readonly traceEvents: readonly TraceEvent[];
  readonly displayTimeUnit: 'ms';
}

/** About 40 MB of JSON. */
const maxEvents = 200_000;
const shownIterations = 2;
const compute = 0;
const communication = 1;
const microseconds = 1e6;

export class Tracer implements Observer {
  private readonly events: TraceEvent[] = [];
  private readonly called = new Set<string>();
  private dropped = 0;

  constructor(
    private readonly plan: PlanView,
    private readonly costs: readonly ProgramCosts[],
  ) {
    plan.programs.forEach((_, pid) => {
      this.meta('process_name', pid, 0, `rank ${pid}`);
      this.meta('thread_name', pid, compute, 'compute');
      this.meta('thread_name', pid, communication, 'communication');
    });
  }

  trace(): Trace {
    if (this.dropped > 0) this.meta('process_labels', 0, 0, `${this.dropped} kernels are not shown`);
    return { traceEvents: this.events, displayTimeUnit: 'ms' };
  }

  compute(rank: number, start: number, item: Item & { kind: 'compute' }): void {
    this.commands(rank, start, item.stretch.commands, item.stretch.rowWords);
  }

  collective(rank: number, begin: number, end: number, index: number): void {
    const info = this.plan.collectives[index];
    if (info === undefined) return;
    const rows = info.rows.reduce((sum, one) => sum + one, 0);
    const member = info.group.indexOf(rank);
    const bytes = (info.receivedBytes[member] ?? 0) / Math.max(1, info.executions);
    const args = { node: this.node(info.node), block: info.block, rows, bytes, ranks: info.group.join() };
    this.push({ name: info.kind, cat: info.block, rank, tid: communication, begin, end, args });
  }

  wait(rank: number, begin: number, end: number, index: number): void {
    const info = this.plan.collectives[index];
    const args = { node: this.node(info?.node ?? 0), block: info?.block ?? 'rest', collective: index };
    this.push({ name: 'wait', cat: 'wait', rank, tid: compute, begin, end, args });
  }

  skipped(rank: number, begin: number, end: number, iterations: number, node: number): void {
    const name = `${iterations} more iterations`;
    this.push({ name, cat: 'loop', rank, tid: compute, begin, end, args: { node: this.node(node) } });
  }

  /** Returns when they end. */
  private commands(rank: number, start: number, commands: readonly Command[], rowWords: RowWords): number {
    return commands.reduce((at, command) => this.command(rank, at, command, rowWords), start);
  }

  private command(rank: number, begin: number, command: Command, rowWords: RowWords): number {
    const costs = this.costs[rank];
    const end = begin + (costs?.seconds(command, rowWords) ?? 0);
    const node = this.node(command.node);
    const event = { rank, tid: compute, begin, end };
    switch (command.op) {
      case 'collective':
      case 'wait':
        return end;
      case 'loop': {
        this.push({ ...event, name: `loop of ${command.tripCount}`, cat: 'loop', args: { node } });
        const shown = Math.min(shownIterations, command.tripCount);
        let at = begin;
        for (let i = 0; i < shown; i++) at = this.commands(rank, at, command.body, rowWords);
        if (shown < command.tripCount) this.skipped(rank, at, end, command.tripCount - shown, command.node);
        return end;
      }
      case 'call': {
        const callee = costs?.callee(command, rowWords);
        if (callee === undefined) return end;
        this.push({ ...event, name: callee.func.name, cat: 'call', args: { node } });
        const key = `${rank} ${command.callee}`;
        if (!this.called.has(key)) this.commands(rank, begin, callee.func.commands, callee.rowWords);
        this.called.add(key);
        return end;
      }
      default: {
        const work = workOf(command, command.op, this.plan.parameters.logN, rowWords);
        const rows = command.dims.reduce((a, b) => a * b, 1) * command.limbs.length;
        const args = { node, rows, bytes: work.bufferBytes + work.staticBytes };
        this.push({ ...event, name: command.op, cat: 'kernel', args });
        return end;
      }
    }
  }

  private node(index: number): string {
    return this.plan.locations[index] ?? '';
  }

  private push(event: {
    readonly name: string;
    readonly cat: string;
    readonly rank: number;
    readonly tid: number;
    readonly begin: number;
    readonly end: number;
    readonly args: TraceEvent['args'];
  }): void {
    if (this.events.length >= maxEvents) {
      this.dropped++;
      return;
    }
    const { name, cat, rank, tid, begin, end, args } = event;
    const [ts, dur] = [begin * microseconds, (end - begin) * microseconds];
    this.events.push({ name, ph: 'X', pid: rank, tid, ts, dur, cat, args });
  }

  private meta(name: string, pid: number, tid: number, text: string): void {
    const args = name === 'process_labels' ? { labels: text } : { name: text };
    this.events.push({ name, ph: 'M', pid, tid, args });
  }
}
