/**
 * The schedule verifier (DESIGN section 6): runs a plan's commands on row numbers instead of rows. Every row
 * that is read was written before through the same buffer, and by nothing else since (so buffers that are
 * live at the same time do not overlap); views stay inside their buffers; outputs overlap inputs only where
 * the kernel allows it. Loops run their first, second and last iteration: views move linearly, so what fails
 * at all fails there.
 */
import { defined, invariant } from '../support/invariant.js';
import { FunctionMemory, type ArgumentRows } from './function-memory.js';
import { maxRank } from './launch.js';
import type { Command, Opcode, PlanFunction, PlanView, View } from './plan-view.js';

interface OpTraits {
  /** Operands besides the output. */
  readonly reads: readonly ('a' | 'b')[];
  readonly plain?: true;
  /** Operands that the output may be. */
  readonly over?: readonly ('a' | 'b')[];
  /** May sum dimensions and accumulate. */
  readonly sums?: true;
  /** Polynomials at componentStride, of the output and of the operands; `digits`: digitCount. */
  readonly components?: readonly [number, number | 'digits'];
}

/** What kernels.h states about each kernel. */
const traits: Readonly<Record<Exclude<Opcode, 'loop' | 'call'>, OpTraits>> = {
  zero: { reads: [] },
  copy: { reads: ['a'], sums: true },
  add: { reads: ['a', 'b'], over: ['a', 'b'] },
  sub: { reads: ['a', 'b'], over: ['a', 'b'] },
  add_plain: { reads: ['a'], plain: true, over: ['a'] },
  contract: { reads: ['a'], plain: true, sums: true },
  tensor: { reads: ['a', 'b'], sums: true, components: [3, 2] },
  ntt: { reads: ['a'], over: ['a'] },
  intt: { reads: ['a'], over: ['a'] },
  base_convert: { reads: ['a'] },
  sub_scale: { reads: ['a', 'b'], over: ['a', 'b'] },
  key_product: { reads: ['a'], sums: true, components: [2, 'digits'] },
  automorphism: { reads: ['a'], sums: true },
};

/** All faults found, at most a few for each command. */
export function verifySchedule(plan: PlanView): string[] {
  const faults: string[] = [];
  plan.programs.forEach((program, rank) => {
    const known: ArgumentRows[] = [];
    program.functions.forEach((func, index) => {
      const where = `program ${rank}, function ${index} (${func.name})`;
      const checker = new FunctionChecker(plan, func, known, program.functions, (text) =>
        faults.push(`${where}, ${text}`),
      );
      known.push(checker.run());
    });
    const entry = program.functions.at(-1);
    const rows = known.at(-1);
    if (entry !== undefined && rows !== undefined) checkEntry(plan, entry, rows, faults);
  });
  return faults;
}

/** The backend's own door: a fault is our bug. */
export function assertSchedule(plan: PlanView): void {
  const faults = verifySchedule(plan);
  invariant(faults.length === 0, `the schedule is wrong:\n  ${faults.slice(0, 8).join('\n  ')}`);
}

/** Inputs are read, outputs are written in full. */
function checkEntry(plan: PlanView, entry: PlanFunction, rows: ArgumentRows, faults: string[]): void {
  for (const port of plan.outputs) {
    const written = rows.written[port.buffer];
    if (written === undefined || written.includes(0)) {
      faults.push(`output ${port.name} is not written in full`);
    }
  }
  const inputs = new Set(plan.inputs.map((port) => port.buffer));
  entry.buffers.forEach((buffer, i) => {
    const early = buffer.argument && !inputs.has(i) && rows.read[i]?.includes(1) === true;
    if (early) faults.push(`argument ${i} of the entry function is read before it is written`);
  });
}

class FunctionChecker {
  private readonly memory: FunctionMemory;
  private readonly trips: number[] = [];
  private readonly iterations: number[] = [];
  private readonly reported = new Set<string>();

  constructor(
    private readonly plan: PlanView,
    private readonly func: PlanFunction,
    private readonly callees: readonly ArgumentRows[],
    private readonly functions: readonly PlanFunction[],
    private readonly report: (fault: string) => void,
  ) {
    this.memory = new FunctionMemory(func);
  }

  run(): ArgumentRows {
    this.func.buffers.forEach((buffer, i) => {
      const inside =
        buffer.argument || (buffer.offset >= 0 && buffer.offset + buffer.rows <= this.func.frameRows);
      if (!inside) this.report(`buffer ${i} lies outside of the frame of ${this.func.frameRows} rows`);
    });
    this.block(this.func.commands, '');
    return this.memory.argumentRows();
  }

  /** Each fault of a command once, however many rows or iterations show it. */
  private fault(at: string, text: string): void {
    if (this.reported.has(`${at} ${text}`)) return;
    this.reported.add(`${at} ${text}`);
    this.report(`command ${at}: ${text}`);
  }

  private block(commands: readonly Command[], prefix: string): void {
    commands.forEach((command, i) => {
      const at = `${prefix}${i}`;
      if (command.op === 'loop') this.loop(command, at);
      else if (command.op === 'call') this.call(command, at);
      else this.launch(command, traits[command.op], `${at} (${command.op})`);
    });
  }

  private loop(command: Command, at: string): void {
    const last = command.tripCount - 1;
    if (last < 0) return this.fault(at, 'a loop without iterations');
    this.trips.push(command.tripCount);
    for (const iteration of [...new Set([0, Math.min(1, last), last])]) {
      this.iterations.push(iteration);
      this.block(command.body, `${at}.`);
      this.iterations.pop();
    }
    this.trips.pop();
  }

  private launch(command: Command, trait: OpTraits, at: string): void {
    const shape = this.shapeProblem(command, trait);
    if (shape !== undefined) return this.fault(at, shape);
    const [outComponents, inComponents] = trait.components ?? [1, 1];
    const components = inComponents === 'digits' ? command.digitCount : inComponents;
    const limbs = command.op === 'base_convert' ? command.sourceLimbs.length : command.limbs.length;
    const step = this.memory.nextStep();
    for (const name of trait.reads) {
      const rows = this.rows(command, command[name], name, components, limbs, at);
      if (rows === undefined) return;
      const fault = this.memory.read(rows.buffer, rows.list, step);
      if (fault !== undefined) this.fault(at, `operand ${name} ${fault}`);
    }
    if (trait.plain === true) this.plain(command, at);
    const out = this.rows(command, command.out, 'out', outComponents, command.limbs.length, at);
    if (out === undefined) return;
    const sameAs = (trait.over ?? []).some((name) => this.sameRows(command.out, command[name]));
    if (command.accumulate) {
      const fault = this.memory.read(out.buffer, out.list, undefined);
      if (fault !== undefined) this.fault(at, `operand out ${fault}`);
    }
    const fault = this.memory.write(out.buffer, out.list, step, sameAs);
    if (fault !== undefined) this.fault(at, `operand out ${fault}`);
  }

  private shapeProblem(command: Command, trait: OpTraits): string | undefined {
    const { dims, reduceRank, limbs, out } = command;
    if (dims.length > maxRank) return `${dims.length} batch dimensions`;
    if (dims.some((size) => size < 1) || reduceRank > dims.length) {
      return `dimensions [${dims.join()}], ${reduceRank} summed`;
    }
    if (trait.sums !== true && (reduceRank > 0 || command.accumulate)) {
      return 'this command neither sums nor accumulates';
    }
    const primes = this.plan.parameters.primes.length;
    if (limbs.length === 0 || limbs.some((limb) => limb >= primes)) {
      return `limbs [${limbs.join()}] of ${primes} primes`;
    }
    if (out !== null && out.strides.slice(dims.length - reduceRank).some((stride) => stride !== 0)) {
      return 'the output moves along a summed dimension';
    }
    if (command.op === 'sub_scale' && command.scalars.length !== limbs.length) {
      return 'not one scalar for each limb';
    }
    if (command.op === 'key_product') {
      return this.turnProblem(command, command.keys, command.keyDim, command.keysPerIteration);
    }
    if (command.op === 'automorphism') {
      return this.turnProblem(command, command.galois, command.galoisDim, command.galoisPerIteration);
    }
    return undefined;
  }

  private turnProblem(
    command: Command,
    entries: readonly number[],
    dim: number,
    perIteration: number,
  ): string | undefined {
    if (dim >= command.dims.length) return `keys or rotations along dimension ${dim}`;
    const needed =
      (dim < 0 ? 1 : defined(command.dims[dim], 'dimension')) + ((this.trips.at(-1) ?? 1) - 1) * perIteration;
    if (entries.length < needed) return `${entries.length} keys or rotations, not ${needed}`;
    const wrong = command.op === 'key_product' && entries.some((key) => key >= this.plan.keys.length);
    return wrong ? `a key that is none of ${this.plan.keys.length}` : undefined;
  }

  /** The rows of an operand in the current iteration, as row numbers of its buffer. */
  private rows(
    command: Command,
    view: View | null,
    name: string,
    components: number,
    limbs: number,
    at: string,
  ): { buffer: number; list: Int32Array } | undefined {
    const buffer = view === null ? undefined : this.func.buffers[view.buffer];
    if (view === null || buffer === undefined) {
      this.fault(at, `operand ${name} has no buffer`);
      return undefined;
    }
    const start = view.loopStrides.reduce(
      (sum, stride, k) => sum + stride * (this.iterations[k] ?? 0),
      view.offset,
    );
    const kept = name === 'out' ? command.dims.length - command.reduceRank : command.dims.length;
    const dims: [number, number][] = command.dims
      .slice(0, kept)
      .map((size, d) => [size, view.strides[d] ?? 0]);
    const list = rowList(start, [...dims, [components, view.componentStride], [limbs, view.limbStride]]);
    if (list.every((row) => row >= 0 && row < buffer.rows)) return { buffer: view.buffer, list };
    this.fault(at, `operand ${name} leaves buffer ${view.buffer} of ${buffer.rows} rows`);
    return undefined;
  }

  private plain(command: Command, at: string): void {
    const { plain } = command;
    const slot = plain === null ? undefined : this.func.plaintexts[plain.buffer];
    if (plain === null || slot === undefined) return this.fault(at, 'operand plain has no plaintext');
    if (slot.argument) return;
    const plaintext = defined(this.plan.plaintexts[slot.plaintext], 'plaintext');
    const dims: [number, number][] = command.dims.map((size, d) => [size, plain.strides[d] ?? 0]);
    const count = plaintext.limbs.length;
    const list = rowList(plain.offset, [...dims, [command.limbs.length, plain.limbStride]]);
    const sound = list.every(
      (row, i) =>
        row >= 0
        && row < plaintext.elements * count
        && plaintext.limbs[row % count] === command.limbs[i % command.limbs.length],
    );
    if (!sound) this.fault(at, `operand plain leaves plaintext ${slot.plaintext} or has other limbs`);
  }

  private sameRows(x: View | null, y: View | null): boolean {
    if (x === null || y === null || x.limbStride !== y.limbStride || x.strides.join() !== y.strides.join()) {
      return false;
    }
    return (
      x.loopStrides.join() === y.loopStrides.join()
      && this.memory.address(x.buffer, x.offset) === this.memory.address(y.buffer, y.offset)
    );
  }

  private call(command: Command, at: string): void {
    const callee = this.functions[command.callee];
    const rows = this.callees[command.callee];
    if (callee === undefined || rows === undefined) {
      return this.fault(at, `calls function ${command.callee}, not an earlier one`);
    }
    if (command.bindings.length !== rows.read.length) {
      return this.fault(at, `binds ${command.bindings.length} arguments`);
    }
    const leaves = command.bindings.findIndex((binding, i) => {
      const buffer = this.func.buffers[binding.buffer];
      return (
        buffer === undefined || binding.offset + defined(callee.buffers[i], 'argument').rows > buffer.rows
      );
    });
    if (leaves >= 0) return this.fault(at, `argument ${leaves} leaves its buffer`);
    if (command.frameOffset + callee.frameRows > this.func.frameRows) {
      return this.fault(at, 'the callee frame leaves the frame');
    }
    for (const text of this.memory.call(command, callee, rows)) this.fault(at, text);
  }
}

/** start + sum i_d stride_d, the last dimension fastest. */
function rowList(start: number, dims: readonly (readonly [count: number, stride: number])[]): Int32Array {
  const total = dims.reduce((product, [count]) => product * count, 1);
  const list = new Int32Array(total);
  list[0] = start;
  let filled = 1;
  // Dimensions from the fastest to the slowest: what is filled so far repeats at each index.
  for (const [count, stride] of [...dims].reverse()) {
    for (let i = 1; i < count; i++) {
      for (let k = 0; k < filled; k++) list[i * filled + k] = defined(list[k], 'row') + i * stride;
    }
    filled *= count;
  }
  return list;
}
