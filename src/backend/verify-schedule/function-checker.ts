/** Runs the commands of one function on row numbers. */
import { defined } from '../../support/invariant.js';
import { blockRows } from '../collective-bytes.js';
import type { Command, PlanFunction, PlanView, View } from '../plan-view.js';
import { FunctionMemory, type ArgumentRows } from './function-memory.js';
import { keyProblem, type KeyLimbs } from './keys.js';
import {
  plainFits,
  sameNumbers,
  shapeProblem,
  traits,
  turnProblem,
  type Kernel,
  type OpTraits,
} from './launch-shape.js';
import { RowSets, type RowSet } from './row-set.js';

/** What callers need to know of a function. */
export interface CheckedFunction {
  readonly rows: ArgumentRows;
  /** Collectives that it or its callees start. */
  readonly collectives: ReadonlySet<number>;
}

export interface RankContext {
  readonly plan: PlanView;
  readonly rank: number;
  readonly functions: readonly PlanFunction[];
  readonly keyLimbs: KeyLimbs;
  /** Collectives whose records are sound. */
  readonly sound: ReadonlySet<number>;
}

export class FunctionChecker {
  private readonly memory: FunctionMemory;
  private readonly sets = new RowSets();
  private readonly trips: number[] = [];
  private readonly iterations: number[] = [];
  private readonly reported = new Set<string>();
  private readonly collectives = new Set<number>();
  private readonly inFlight = new Set<number>();

  constructor(
    private readonly context: RankContext,
    private readonly func: PlanFunction,
    private readonly callees: readonly CheckedFunction[],
    private readonly report: (fault: string) => void,
  ) {
    this.memory = new FunctionMemory(func);
  }

  run(): CheckedFunction {
    this.block(this.func.commands, '');
    return { rows: this.memory.argumentRows(), collectives: this.collectives };
  }

  /** Each fault of a command once, however many rows or iterations show it. */
  private fault(at: string, text: string): void {
    if (this.reported.has(`${at} ${text}`)) return;
    this.reported.add(`${at} ${text}`);
    this.report(`command ${at}: ${text}`);
  }

  private block(commands: readonly Command[], prefix: string): void {
    /** Where each collective was started that this block has to wait for. */
    const started = new Map<number, string>();
    commands.forEach((command, i) => {
      const at = `${prefix}${i}`;
      if (command.op === 'loop') this.loop(command, at);
      else if (command.op === 'call') this.call(command, at);
      else if (command.op === 'collective') this.collective(command, `${at} (collective)`, started);
      else if (command.op === 'wait') this.wait(command, `${at} (wait)`, started);
      else this.launch(command, command.op, `${at} (${command.op})`);
    });
    for (const [collective, at] of started) {
      this.fault(at, `collective ${collective} is never waited for in its block`);
      this.finish(collective);
    }
  }

  /** The first, second and last iteration: views move linearly, so what fails at all fails there. */
  private loop(command: Command, at: string): void {
    const last = command.tripCount - 1;
    if (!(last >= 0)) return this.fault(at, 'a loop without iterations');
    this.trips.push(command.tripCount);
    for (const iteration of [...new Set([0, Math.min(1, last), last])]) {
      this.iterations.push(iteration);
      this.block(command.body, `${at}.`);
      this.iterations.pop();
    }
    this.trips.pop();
  }

  // -------------------------------------------------------------- launches

  private launch(command: Command, op: Kernel, at: string): void {
    const trait: OpTraits = traits[op];
    const problem = this.staticProblem(command, trait);
    if (problem !== undefined) return this.fault(at, problem);
    const [outComponents, inComponents] = trait.components ?? [1, 1];
    const components = inComponents === 'digits' ? command.digitCount : inComponents;
    const limbs = op === 'base_convert' ? command.sourceLimbs.length : command.limbs.length;
    const step = this.memory.nextStep();
    for (const name of trait.reads) {
      const set = this.rows(command, name, components, limbs, at);
      if (set === undefined) return;
      const fault = this.memory.read(bufferOf(command[name]), set, step);
      if (fault !== undefined) this.fault(at, `operand ${name} ${fault}`);
    }
    const set = this.rows(command, 'out', outComponents, command.limbs.length, at);
    if (set === undefined) return;
    const buffer = bufferOf(command.out);
    const sameAs = (trait.over ?? []).some((name) => this.sameRows(command.out, command[name]));
    const unread = command.accumulate ? this.memory.read(buffer, set, 0) : undefined;
    if (unread !== undefined) this.fault(at, `operand out ${unread}`);
    const fault = this.memory.write(buffer, set, step, sameAs);
    if (fault !== undefined) this.fault(at, `operand out ${fault}`);
  }

  /** What no iteration changes is looked at in the first one, except what makes the rows senseless. */
  private staticProblem(command: Command, trait: OpTraits): string | undefined {
    const { plan, keyLimbs } = this.context;
    const shape = shapeProblem(command, trait, plan.parameters.primes.length);
    if (shape !== undefined || this.iterations.some((i) => i > 0)) return shape;
    if (command.op === 'key_product') {
      return turnProblem(command, this.trips.at(-1) ?? 1) ?? keyProblem(command, plan, keyLimbs);
    }
    if (command.op === 'automorphism') return turnProblem(command, this.trips.at(-1) ?? 1);
    return trait.plain === true ? this.plainProblem(command) : undefined;
  }

  private plainProblem(command: Command): string | undefined {
    const { plain } = command;
    const slot = plain === null ? undefined : this.func.plaintexts[plain.buffer];
    if (plain === null || slot === undefined) return 'operand plain has no plaintext';
    if (slot.argument) return undefined;
    const plaintext = this.context.plan.plaintexts[slot.plaintext];
    if (plaintext !== undefined && plainFits(command, plain, plaintext, this.trips)) return undefined;
    return `operand plain leaves plaintext ${slot.plaintext} or has other limbs`;
  }

  private start(view: View): number {
    let row = view.offset;
    this.iterations.forEach((iteration, k) => {
      row += iteration * (view.loopStrides[k] ?? 0);
    });
    return row;
  }

  /** The rows of an operand in the current iteration. */
  private rows(
    command: Command,
    name: 'out' | 'a' | 'b',
    components: number,
    limbs: number,
    at: string,
  ): RowSet | undefined {
    const view = command[name];
    const buffer = view === null ? undefined : this.func.buffers[view.buffer];
    if (view === null || buffer === undefined) {
      this.fault(at, `operand ${name} has no buffer`);
      return undefined;
    }
    const { sets } = this;
    const kept = name === 'out' ? command.dims.length - command.reduceRank : command.dims.length;
    sets.begin();
    sets.dimension(limbs, view.limbStride);
    sets.dimension(components, view.componentStride);
    for (let d = kept - 1; d >= 0; d--) sets.dimension(command.dims[d] ?? 1, view.strides[d] ?? 0);
    const set = sets.finish(this.start(view), buffer.rows);
    if (set === undefined) {
      this.fault(at, `operand ${name} leaves buffer ${view.buffer} of ${buffer.rows} rows`);
    }
    return set;
  }

  private sameRows(x: View | null, y: View | null): boolean {
    return (
      x !== null
      && y !== null
      && x.limbStride === y.limbStride
      && sameNumbers(x.strides, y.strides)
      && sameNumbers(x.loopStrides, y.loopStrides)
      && this.memory.sameRow(x.buffer, x.offset, y.buffer, y.offset)
    );
  }

  // -------------------------------------------------------------- calls

  private call(command: Command, at: string): void {
    const callee = this.context.functions[command.callee];
    const checked = this.callees[command.callee];
    if (callee === undefined || checked === undefined) {
      return this.fault(at, `calls function ${command.callee}, not an earlier one`);
    }
    if (command.bindings.length !== checked.rows.read.length) {
      return this.fault(at, `binds ${command.bindings.length} arguments`);
    }
    const leaves = command.bindings.findIndex(({ buffer, offset }, i) => {
      const { rows } = defined(callee.buffers[i], 'argument');
      return !(offset >= 0 && offset + rows <= (this.func.buffers[buffer]?.rows ?? -1));
    });
    if (leaves >= 0) return this.fault(at, `argument ${leaves} leaves its buffer`);
    const plains = callee.plaintexts.filter((slot) => slot.argument).length;
    const bound = command.plainBindings.filter((slot) => slot < this.func.plaintexts.length).length;
    if (command.plainBindings.length !== plains || bound !== plains) {
      return this.fault(at, `binds ${bound} plaintexts, not ${plains}`);
    }
    const end = command.frameOffset + callee.frameRows;
    if (!(command.frameOffset >= 0 && end <= this.func.frameRows)) {
      return this.fault(at, 'the callee frame leaves the frame');
    }
    for (const text of this.memory.call(command, callee, checked.rows)) this.fault(at, text);
    for (const collective of checked.collectives) {
      this.collectives.add(collective);
      if (this.inFlight.has(collective))
        this.fault(at, `starts collective ${collective}, which is in flight`);
    }
  }

  // -------------------------------------------------------------- collectives

  private collective(command: Command, at: string, started: Map<number, string>): void {
    const { plan, rank, sound } = this.context;
    const id = command.collective;
    const info = plan.collectives[id];
    if (info === undefined) return this.fault(at, `collective ${id} of ${plan.collectives.length}`);
    if (!sound.has(id)) return;
    const index = info.group.indexOf(rank);
    if (index < 0)
      return this.fault(at, `rank ${rank} is not in group ${info.group.join()} of collective ${id}`);
    if (this.inFlight.has(id)) return this.fault(at, `starts collective ${id}, which is in flight`);
    this.collectives.add(id);
    const { send, receive } = blockRows(info, index);
    const step = this.memory.nextStep();
    const sendSet = this.transfer(command.a, send, 'send', at);
    if (sendSet !== undefined) {
      const fault = this.memory.read(bufferOf(command.a), sendSet, step);
      if (fault !== undefined) this.fault(at, `the send block ${fault}`);
    }
    const sent = sendSet === undefined ? undefined : ([sendSet.first, sendSet.end] as const);
    const receiveSet = this.transfer(command.out, receive, 'receive', at);
    if (receiveSet !== undefined) {
      const fault = this.memory.write(bufferOf(command.out), receiveSet, step, false);
      if (fault !== undefined) this.fault(at, `the receive block ${fault}`);
    }
    if (command.blocking) return;
    if (sent !== undefined) this.memory.take(id, bufferOf(command.a), ...sent, 'send');
    if (receiveSet !== undefined) {
      this.memory.take(id, bufferOf(command.out), receiveSet.first, receiveSet.end, 'receive');
    }
    started.set(id, at);
    this.inFlight.add(id);
  }

  private wait(command: Command, at: string, started: Map<number, string>): void {
    const id = command.collective;
    if (!this.context.sound.has(id) && this.context.plan.collectives[id] !== undefined) return;
    if (!started.delete(id)) {
      return this.fault(at, `waits for collective ${id}, which this block has not started`);
    }
    this.finish(id);
  }

  private finish(collective: number): void {
    this.inFlight.delete(collective);
    this.memory.release(collective);
  }

  /** The rows of a send or receive block; none where the rank has no such block. */
  private transfer(
    view: View | null,
    count: number | undefined,
    name: 'send' | 'receive',
    at: string,
  ): RowSet | undefined {
    if (count === undefined && view !== null) this.fault(at, `has a ${name} block`);
    if (count === undefined || count === 0) return undefined;
    const buffer = view === null ? undefined : this.func.buffers[view.buffer];
    if (view === null || buffer === undefined) {
      this.fault(at, `has no ${name} block`);
      return undefined;
    }
    const set = this.sets.range(this.start(view), count, buffer.rows);
    if (set === undefined) {
      this.fault(
        at,
        `the ${name} block of ${count} rows leaves buffer ${view.buffer} of ${buffer.rows} rows`,
      );
    }
    return set;
  }
}

function bufferOf(view: View | null): number {
  return defined(view, 'operand').buffer;
}
