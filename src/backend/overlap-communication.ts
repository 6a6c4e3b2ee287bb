/**
 * overlap-communication: blocking collectives become start and wait, and what does not need their data runs
 * in between. Takes and leaves phase poly, after insert-collectives; bits do not change (docs/passes/overlap-
 * communication.md).
 */
import { defined } from '../support/invariant.js';
import { BlockBuilder, Ids } from '../ir/builder.js';
import {
  entryName,
  walkOps,
  type Attrs,
  type Block,
  type Func,
  type Module,
  type Op,
  type Value,
} from '../ir/module.js';
import type { Mesh } from '../ir/sharding.js';
import type { DeviceProfile } from '../target/profile.js';
import { chunkFunction } from './overlap-communication/chunk.js';
import { Costs } from './overlap-communication/costs.js';
import { buildGraph, type Graph, type Nested } from './overlap-communication/graph.js';
import { programOrder, scheduleBlock, type Schedule } from './overlap-communication/schedule.js';
import { countExecutions, reachable } from './ranks.js';

export interface OverlapOptions {
  readonly mesh: Mesh;
  readonly profile: DeviceProfile;
  /**
   * Rows that the frame of the entry function may have by estimate; 10 % above that of the program order if
   * absent.
   */
  readonly memoryRows?: number;
}

export interface FunctionOverlap {
  readonly name: string;
  /** How often it runs in one inference. */
  readonly executions: number;
  /** Chunks that regions around collectives are done in. */
  readonly chunks: number;
  /** Seconds of one execution, callees apart. */
  readonly kernelSeconds: number;
  readonly exposedBefore: number;
  readonly exposedAfter: number;
  /** Estimated rows of the most loaded rank, callees included. */
  readonly rowsBefore: number;
  readonly rowsAfter: number;
}

export interface OverlapReport {
  /** Seconds of one inference in which kernels wait for a collective. */
  readonly exposedBefore: number;
  readonly exposedAfter: number;
  readonly functions: readonly FunctionOverlap[];
}

export interface Overlapped {
  readonly module: Module;
  readonly report: OverlapReport;
}

/** Headroom over the program order's estimate where no limit is given. */
const defaultHeadroom = 0.1;

/** Chunks that are tried for each function; whatever gives the shortest time is taken. */
const chunkCounts = [2, 4] as const;

/** Below this share of a function's time its exposed communication is not worth more launches. */
const leastExposed = 0.005;

/** A longer function is not tried in more chunks than one: compile time. */
const maxChunkedOps = 20_000;

export function overlapCommunication(module: Module, options: OverlapOptions): Overlapped {
  const functions = reachable(module);
  const costs = new Costs(options.mesh, defined(module.parameters, 'parameters'), options.profile);
  const before = new Map<string, Plan>();
  for (const func of functions) before.set(func.name, planBlock(func.body, costs, { callees: before }));
  const peak = defined(before.get(entryName), 'entry function').rows;
  const after = new Map<string, Plan>();
  const tables = new Map(module.tables);
  const chunkIds = new Ids();
  for (const func of functions) {
    const plain = defined(before.get(func.name), 'plan of a function');
    const slack = options.memoryRows === undefined ? plain.rows * defaultHeadroom : options.memoryRows - peak;
    const site = { callees: after, slackRows: Math.max(0, slack) };
    let best = planBlock(func.body, costs, site);
    const limit = plain.rows + site.slackRows;
    const linkSeconds = (op: Op): number => costs.collective(op).seconds;
    for (const chunks of worthChunks(func, best) ? chunkCounts : []) {
      const chunked = chunkFunction(module, func, { chunks, linkSeconds, ids: chunkIds, tables });
      if (chunked === undefined) break;
      const plan = planBlock(chunked.body, costs, site, limit);
      const better = plan.totalSeconds < best.totalSeconds * (1 - 1e-9) && plan.exposed <= plain.exposed;
      if (better && plan.rows <= limit) best = { ...plan, chunks };
    }
    after.set(func.name, best);
  }
  const ids = new Ids();
  const rebuilt = module.functions.map((func) => {
    const plan = after.get(func.name);
    return plan === undefined ? func : new Rebuilder(module, ids).func(func, plan);
  });
  return { module: { ...module, functions: rebuilt, tables }, report: reportOf(functions, before, after) };
}

function worthChunks(func: Func, plan: Plan): boolean {
  return plan.exposed > leastExposed * plan.totalSeconds && countOps(func.body) <= maxChunkedOps;
}

function countOps(block: Block): number {
  let count = 0;
  walkOps(block, () => count++);
  return count;
}

/** Chosen orders of a block and of the bodies of its loops. */
interface Plan {
  readonly graph: Graph;
  readonly schedule: Schedule;
  readonly loops: ReadonlyMap<Op, Plan>;
  /** Loops included, callees apart. */
  readonly seconds: number;
  readonly exposed: number;
  /** With callees. */
  readonly totalSeconds: number;
  readonly rows: number;
  readonly usesLink: boolean;
  readonly chunks: number;
}

interface PlanSite {
  readonly callees: ReadonlyMap<string, Plan>;
  /** Rows beyond the program order's peak; undefined: program order. */
  readonly slackRows?: number;
}

function planBlock(block: Block, costs: Costs, site: PlanSite, limitRows = 0): Plan {
  const loops = new Map<Op, Plan>();
  const nested = (op: Op): Nested => {
    if (op.kind === 'call') {
      const callee = defined(site.callees.get(op.attrs.callee as string), 'plan of a callee');
      return { seconds: callee.totalSeconds, rows: callee.rows, usesLink: callee.usesLink };
    }
    const body = planBlock(defined(op.regions[0], 'loop body'), costs, site);
    loops.set(op, body);
    const seconds = body.totalSeconds * (op.attrs.tripCount as number);
    return { seconds, rows: body.rows, usesLink: body.usesLink };
  };
  const graph = buildGraph(block, costs, nested);
  const plain = programOrder(graph);
  const { slackRows } = site;
  const schedule =
    slackRows === undefined ? plain : scheduleBlock(graph, Math.max(limitRows, plain.peakRows + slackRows));
  const inner = [...loops].map(([op, plan]) => ({ plan, trips: op.attrs.tripCount as number }));
  const sum = (of: (plan: Plan) => number): number =>
    inner.reduce((total, { plan, trips }) => total + trips * of(plan), 0);
  const own = graph.items.reduce((total, { op, seconds }) => total + (isNested(op) ? 0 : seconds), 0);
  return {
    graph,
    schedule,
    loops,
    seconds: own + sum((plan) => plan.seconds),
    exposed: schedule.timing.exposed + sum((plan) => plan.exposed),
    totalSeconds: schedule.timing.seconds,
    rows: schedule.peakRows,
    chunks: 1,
    usesLink: graph.items.some((item) => item.usesLink || item.role === 'start'),
  };
}

const isNested = (op: Op): boolean => op.kind === 'loop' || op.kind === 'call';

function reportOf(
  functions: readonly Func[],
  before: ReadonlyMap<string, Plan>,
  after: ReadonlyMap<string, Plan>,
): OverlapReport {
  const executions = countFunctions(functions);
  const entries = functions.map(({ name }): FunctionOverlap => {
    const [old, now] = [defined(before.get(name), 'plan'), defined(after.get(name), 'plan')];
    return {
      name,
      executions: executions.get(name) ?? 0,
      chunks: now.chunks,
      kernelSeconds: now.seconds,
      exposedBefore: old.exposed,
      exposedAfter: now.exposed,
      rowsBefore: old.rows,
      rowsAfter: now.rows,
    };
  });
  const total = (of: (one: FunctionOverlap) => number): number =>
    entries.reduce((sum, one) => sum + one.executions * of(one), 0);
  return {
    exposedBefore: total((one) => one.exposedBefore),
    exposedAfter: total((one) => one.exposedAfter),
    functions: entries,
  };
}

function countFunctions(functions: readonly Func[]): Map<string, number> {
  const counts = new Map<string, number>([[defined(functions.at(-1), 'entry function').name, 1]]);
  for (const [op, times] of countExecutions(functions)) {
    if (op.kind !== 'call') continue;
    const callee = op.attrs.callee as string;
    counts.set(callee, (counts.get(callee) ?? 0) + times);
  }
  return counts;
}

// ---------------------------------------------------------------- the module in its new order

class Rebuilder {
  private readonly values = new Map<number, Value>();
  private readonly flights = new Map<Op, Value>();

  constructor(
    private readonly module: Module,
    private readonly ids: Ids,
  ) {}

  func(func: Func, plan: Plan): Func {
    const types = func.body.args.map((arg) => arg.type);
    const builder = new BlockBuilder(this.ids, this.module.parameters, types);
    const { args } = plan.graph.block;
    args.forEach((arg, i) => this.values.set(arg.id, defined(builder.args[i], 'argument')));
    return { ...func, body: builder.finish(this.block(plan, builder)) };
  }

  private mapped = (value: Value): Value => defined(this.values.get(value.id), `new value of %${value.id}`);

  private block(plan: Plan, builder: BlockBuilder): Value[] {
    const { graph, schedule } = plan;
    const blocking = new Set<Op>();
    schedule.order.forEach((index, position) => {
      const { op, role } = defined(graph.items[index], 'item');
      if (role === 'start') {
        if (endsAtOnce(plan, position)) blocking.add(op);
        else this.start(op, builder);
        return;
      }
      const operands = op.operands.map(this.mapped);
      if (role === 'wait' && !blocking.has(op)) this.wait(op, operands, builder);
      else this.bind(op, this.copy(op, operands, plan, builder));
    });
    return graph.block.results.map(this.mapped);
  }

  private bind(op: Op, results: readonly Value[]): void {
    op.results.forEach((result, i) => this.values.set(result.id, defined(results[i], 'result')));
  }

  private copy(op: Op, operands: readonly Value[], plan: Plan, builder: BlockBuilder): readonly Value[] {
    if (op.kind === 'call') {
      const types = op.results.map((value) => value.type);
      return builder.call(op.attrs.callee as string, operands, types, op.loc);
    }
    if (op.kind !== 'loop') return [builder.op(op.kind, operands, op.attrs, op.loc)];
    const body = defined(plan.loops.get(op), 'plan of a loop');
    return builder.loop(op.attrs.tripCount as number, operands, op.loc, (inner, carried) => {
      body.graph.block.args.forEach((arg, i) => this.values.set(arg.id, defined(carried[i], 'carried')));
      return this.block(body, inner);
    });
  }

  private start(op: Op, builder: BlockBuilder): void {
    const { meshAxis, to } = op.attrs as { meshAxis: number; to: Attrs };
    const source = this.mapped(defined(op.operands[0], 'source'));
    this.flights.set(op, builder.op('poly.collective_start', [source], { meshAxis, to }, op.loc));
  }

  private wait(op: Op, operands: readonly Value[], builder: BlockBuilder): void {
    const { window } = op.attrs;
    const flight = defined(this.flights.get(op), 'flight');
    const attrs = window === undefined ? {} : { window };
    this.bind(op, [builder.op('poly.collective_wait', [flight, ...operands], attrs, op.loc)]);
  }
}

/** Nothing with a cost runs between the start at this position and its wait: it stays blocking. */
function endsAtOnce({ graph, schedule }: Plan, position: number): boolean {
  const { op } = defined(graph.items[defined(schedule.order[position], 'start')], 'item');
  for (let next = position + 1; ; next++) {
    const item = defined(graph.items[defined(schedule.order[next], 'wait')], 'item');
    if (item.role === 'wait' && item.op === op) return true;
    if (!item.free) return false;
  }
}
