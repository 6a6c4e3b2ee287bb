/**
 * Runs a plan command by command on big integers: each kernel as runtime/hal/kernels.h states it. The ranks
 * run
 * in lockstep, each until a collective that others have not started.
 */
import { expect } from 'vitest';
import type {
  Command,
  Plaintext,
  PlanFunction,
  PlanView,
  PortPart,
  View,
} from '../../src/backend/plan-view.js';
import { blockRows, Exchange, type Receipt } from './exchange.js';
import { centre, inverse, mod, type Complex, type Row, ToyScheme, type ToyKey } from './toy-ckks.js';

export interface Weights {
  readonly [name: string]: { readonly shape: readonly number[]; readonly data: ArrayLike<number> };
}

interface Region {
  readonly rows: Row[];
  readonly base: number;
}
interface Frame {
  readonly func: PlanFunction;
  readonly buffers: readonly Region[];
  /** Plan plaintext of each slot. */
  readonly plaintexts: readonly number[];
  readonly iterations: number[];
  /** Started and not waited for, by collective. */
  readonly inFlight: Map<number, Transfer>;
}
interface Transfer {
  readonly receipt: Receipt;
  readonly send: readonly Row[];
  readonly sendAt: Region | undefined;
  readonly receiveAt: Region | undefined;
}

type Vec = readonly number[];

/** Inputs and outputs as rows [port][element][component][limb], whatever parts the ranks hold. */
export function runPlan(plan: PlanView, inputs: readonly Row[][], weights: Weights = {}): Row[][] {
  return new PlanRunner(plan, weights).run(inputs);
}

/** What the ranks share: keys and encoded plaintexts. */
export class PlanRunner {
  readonly scheme: ToyScheme;
  readonly keys: readonly ToyKey[];
  private readonly encoded = new Map<string, Row>();

  constructor(
    readonly plan: PlanView,
    private readonly weights: Weights = {},
  ) {
    this.scheme = new ToyScheme(plan.parameters);
    this.keys = plan.keys.map((key) => this.scheme.makeKey(key));
  }

  /** Inputs and outputs as rows [element][component][limb] of the whole ports. */
  run(inputs: readonly Row[][]): Row[][] {
    const exchange = new Exchange(this.plan);
    const args = this.plan.programs.map((_, rank) => this.arguments(rank, inputs));
    let running = this.plan.programs.map((_, rank) => {
      const steps = new RankRunner(this, rank, exchange).run(args[rank]!);
      return { steps, waits: steps.next() };
    });
    for (;;) {
      running = running.filter(({ waits }) => waits.done !== true);
      if (running.length === 0) break;
      let moved = false;
      for (const one of running) {
        if (one.waits.done === true || !one.waits.value.ready()) continue;
        one.waits = one.steps.next();
        moved = true;
      }
      const stuck = running.map(({ waits }) => (waits.done === true ? '' : waits.value.what));
      expect(moved, `deadlock: ${stuck.join('; ')}`).toBe(true);
    }
    return this.plan.outputs.map((_, i) => this.gather(i, args));
  }

  /** Places of a part's rows in the whole port; a part without rows holds nothing. */
  private partRows(rank: number, part: PortPart, port: { elements: number; level: number }): number[] {
    const { rows } = this.plan.programs[rank]!.functions.at(-1)!.buffers[part.buffer]!;
    if (rows === 0) return [];
    const all = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
    const elements = part.elements.length > 0 ? part.elements : all(port.elements);
    const limbs = part.limbs.length > 0 ? part.limbs : all(port.level + 1);
    const list = elements.flatMap((e) =>
      [0, 1].flatMap((component) => limbs.map((limb) => (e * 2 + component) * (port.level + 1) + limb)),
    );
    expect(list.length, `rows of buffer ${part.buffer} of rank ${rank}`).toBe(rows);
    return list;
  }

  private arguments(rank: number, inputs: readonly Row[][]): Region[] {
    const program = this.plan.programs[rank]!;
    const regions = program.functions
      .at(-1)!
      .buffers.filter((buffer) => buffer.argument)
      .map(({ rows }): Region => ({ rows: new Array<Row>(rows), base: 0 }));
    program.inputs.forEach((part, i) => {
      const port = this.plan.inputs[i]!;
      expect(inputs[i]!.length).toBe(port.elements * 2 * (port.level + 1));
      this.partRows(rank, part, port).forEach((row, k) => {
        regions[part.buffer]!.rows[k] = inputs[i]![row]!;
      });
    });
    return regions;
  }

  /** Every row of an output is on some rank; where several hold it, they hold the same. */
  private gather(output: number, args: readonly (readonly Region[])[]): Row[] {
    const port = this.plan.outputs[output]!;
    const rows = new Array<Row>(port.elements * 2 * (port.level + 1));
    this.plan.programs.forEach((program, rank) => {
      const part = program.outputs[output]!;
      this.partRows(rank, part, port).forEach((row, k) => {
        const value = args[rank]![part.buffer]!.rows[k];
        expect(value, `row ${row} of output ${output} on rank ${rank} was written`).toBeDefined();
        if (rows[row] !== undefined) {
          expect(value, `row ${row} of output ${output} is the same on rank ${rank}`).toEqual(rows[row]);
        }
        rows[row] = value!;
      });
    });
    for (let row = 0; row < rows.length; row++) {
      expect(rows[row], `row ${row} of output ${output} is on some rank`).toBeDefined();
    }
    return rows;
  }

  /**
   * A row of a plaintext as a launch on `limb` reads it: of [element][limb], or of [element], whose coefficients
   * are expanded for the limb. Checked to be as repetitive as its row_words say.
   */
  plainRow(id: number, index: number, limb: number): Row {
    const key = `${id} ${index} ${limb}`;
    const known = this.encoded.get(key);
    if (known !== undefined) return known;
    const p = this.plan.plaintexts[id]!;
    const rows = p.coefficients ? 1 : p.limbs.length;
    const element = Math.floor(index / rows);
    expect(element, `row ${index} of plaintext ${id}`).toBeLessThan(p.elements);
    if (p.coefficients) expect(p.limbs).toEqual([]);
    else expect(p.limbs[index % rows], `limb of row ${index} of plaintext ${id}`).toBe(limb);
    const row = p.coefficients
      ? this.expandRow(p, element, limb)
      : this.encodeRow(p, element, limb, index % rows);
    const block = this.scheme.ring.n / p.rowWords;
    row.forEach((value, k) => expect(value).toBe(row[Math.floor(k / block) * block]));
    this.encoded.set(key, row);
    return row;
  }

  /** The held coefficients are those of X^(k N / rowWords), and fit signed words. */
  private expandRow(p: Plaintext, element: number, limb: number): Row {
    const { ring } = this.scheme;
    const gap = ring.n / p.rowWords;
    const coefficients = ring.encode(this.slots(p, element), p.scale);
    coefficients.forEach((x, i) => {
      if (i % gap !== 0) expect(x).toBe(0n);
      expect(BigInt.asIntN(64, x)).toBe(x);
    });
    return ring.ntt(
      coefficients.map((x) => mod(x, ring.primes[limb]!)),
      limb,
    );
  }

  private slots(p: Plaintext, element: number): Complex[] {
    return Array.from({ length: this.scheme.ring.n / 2 }, (_, s) => ({
      re: this.slot(p, element, s),
      im: 0,
    }));
  }

  private encodeRow(p: Plaintext, element: number, limb: number, j: number): Row {
    const { ring } = this.scheme;
    const { recipe } = p;
    const q = ring.primes[limb]!;
    if (recipe.kind === 'residue') return new Array<bigint>(ring.n).fill(BigInt(recipe.residues[j]!));
    if (recipe.kind === 'monomial')
      return ring.ntt(
        Array.from({ length: ring.n }, (_, i) => (i === recipe.power ? 1n : 0n)),
        limb,
      );
    return ring.ntt(
      ring.encode(this.slots(p, element), p.scale).map((x) => mod(x, q)),
      limb,
    );
  }

  /** Value of one slot, as src/ir/ops/plain.ts states the recipes. */
  private slot(p: Plaintext, element: number, s: number): number {
    const { recipe, period } = p;
    const table = (i: number): Int32Array => this.plan.tables[i]!.values;
    switch (recipe.kind) {
      case 'constant':
        return recipe.values[element]!;
      case 'vector': {
        const tokens = recipe.tokens < 0 ? undefined : table(recipe.tokens);
        const features = table(recipe.features);
        const group = tokens === undefined ? period : features.length / p.elements;
        const feature = features[element * group + (s % group)]!;
        const groups = this.scheme.ring.n / 2 / group;
        const block = Math.floor((element * (tokens?.length ?? groups)) / groups / p.elements);
        const token = tokens === undefined ? 0 : tokens[block * groups + Math.floor(s / group)]!;
        return feature < 0 || token < 0
          ? 0
          : recipe.factor * this.weights[recipe.weight]!.data[feature + token]!;
      }
      default:
        throw new Error(`the oracle does not encode ${recipe.kind}`);
    }
  }
}

class RankRunner {
  private readonly plan: PlanView;
  private readonly scheme: ToyScheme;
  private readonly functions: readonly PlanFunction[];
  /** Limbs of the keys that the rank holds. */
  private readonly keyLimbs: ReadonlyMap<number, Vec>;

  constructor(
    private readonly shared: PlanRunner,
    private readonly rank: number,
    private readonly exchange: Exchange,
  ) {
    this.plan = shared.plan;
    this.scheme = shared.scheme;
    const program = this.plan.programs[rank]!;
    this.functions = program.functions;
    this.keyLimbs = new Map(program.keys.map(({ key, limbs }) => [key, limbs]));
  }

  *run(args: readonly Region[]): Generator<Receipt, void> {
    const entry = this.functions.at(-1)!;
    yield* this.call(entry, args, [], { rows: new Array<Row>(entry.frameRows), base: 0 });
  }

  private *call(
    func: PlanFunction,
    args: readonly Region[],
    plainArgs: readonly number[],
    frame: Region,
  ): Generator<Receipt, void> {
    const buffers = func.buffers.map((buffer, i) =>
      buffer.argument ? args[i]! : { rows: frame.rows, base: frame.base + buffer.offset },
    );
    const plaintexts = func.plaintexts.map((slot, i) => (slot.argument ? plainArgs[i]! : slot.plaintext));
    const f: Frame = { func, buffers, plaintexts, iterations: [], inFlight: new Map() };
    yield* this.block(func.commands, f, frame);
    expect([...f.inFlight.keys()], `in flight at the end of ${func.name}`).toEqual([]);
  }

  private *block(commands: readonly Command[], f: Frame, memory: Region): Generator<Receipt, void> {
    for (const command of commands) {
      if (command.op === 'loop') {
        for (let i = 0; i < command.tripCount; i++) {
          f.iterations.push(i);
          yield* this.block(command.body, f, memory);
          f.iterations.pop();
        }
      } else if (command.op === 'call') {
        const callee = this.functions[command.callee]!;
        const args = command.bindings.map(({ buffer, offset }) => {
          const region = f.buffers[buffer]!;
          return { rows: region.rows, base: region.base + offset };
        });
        const frame = { rows: memory.rows, base: memory.base + command.frameOffset };
        const plainArgs = command.plainBindings.map((slot) => f.plaintexts[slot]!);
        yield* this.call(callee, args, plainArgs, frame);
      } else if (command.op === 'collective') {
        this.start(command, f);
        if (command.blocking) yield* this.wait(command, f);
      } else if (command.op === 'wait') yield* this.wait(command, f);
      else this.launch(command, f);
    }
  }

  // -------------------------------------------------------------- collectives

  private blockAt(view: View | null, f: Frame): Region | undefined {
    if (view === null) return undefined;
    const { region, row } = this.at(view, f, [], 0, 0);
    return { rows: region.rows, base: row };
  }

  /** The receive block has no value until the wait. */
  private start(c: Command, f: Frame): void {
    const info = this.plan.collectives[c.collective]!;
    const { send, receive } = blockRows(info, info.group.indexOf(this.rank));
    const [sendAt, receiveAt] = [this.blockAt(c.a, f), this.blockAt(c.out, f)];
    const rows = Array.from({ length: send }, (_, i) => {
      const value = sendAt?.rows[sendAt.base + i];
      expect(value, `rank ${this.rank} sends row ${i} of collective ${c.collective}`).toBeDefined();
      return value!;
    });
    for (let i = 0; i < receive; i++) delete receiveAt!.rows[receiveAt!.base + i];
    expect(f.inFlight.has(c.collective), `collective ${c.collective} is in flight already`).toBe(false);
    const receipt = this.exchange.start(this.rank, c.collective, rows);
    f.inFlight.set(c.collective, { receipt, send: rows, sendAt, receiveAt });
  }

  private *wait(c: Command, f: Frame): Generator<Receipt, void> {
    const transfer = f.inFlight.get(c.collective);
    expect(transfer, `collective ${c.collective} is in flight`).toBeDefined();
    f.inFlight.delete(c.collective);
    const { receipt, send, sendAt, receiveAt } = transfer!;
    yield receipt;
    send.forEach((row, i) =>
      expect(sendAt!.rows[sendAt!.base + i] === row, `rank ${this.rank} leaves row ${i} in flight`).toBe(
        true,
      ),
    );
    receipt.rows().forEach((row, i) => {
      const at = receiveAt!.base + i;
      expect(receiveAt!.rows[at], `row ${i} of a receive block in flight`).toBeUndefined();
      receiveAt!.rows[at] = row;
    });
  }

  // -------------------------------------------------------------- kernels

  private at(
    view: View,
    f: Frame,
    index: Vec,
    component: number,
    limb: number,
  ): { region: Region; row: number } {
    const region = f.buffers[view.buffer]!;
    const row =
      view.offset
      + index.reduce((sum, i, d) => sum + i * (view.strides[d] ?? 0), 0)
      + component * view.componentStride
      + limb * view.limbStride
      + view.loopStrides.reduce((sum, stride, k) => sum + stride * f.iterations[k]!, 0);
    return { region, row: region.base + row };
  }

  private get(view: View | null, f: Frame, index: Vec, limb: number, component = 0): Row {
    const { region, row } = this.at(view!, f, index, component, limb);
    const value = region.rows[row];
    expect(value, `row ${row} was written`).toBeDefined();
    return value!;
  }

  private set(
    command: Command,
    f: Frame,
    index: Vec,
    limb: number,
    value: Row,
    sum: boolean,
    component = 0,
  ): void {
    const { region, row } = this.at(command.out!, f, index, component, limb);
    const q = this.plan.parameters.primes[command.limbs[limb]!]!;
    const old = region.rows[row];
    region.rows[row] = sum ? value.map((x, i) => mod(x + old![i]!, q)) : value.map((x) => mod(x, q));
  }

  private launch(command: Command, f: Frame): void {
    const kept = command.dims.length - command.reduceRank;
    for (const index of indices(command.dims)) {
      const first = index.slice(kept).every((i) => i === 0);
      const sum = command.accumulate || !first;
      if (command.op === 'base_convert') this.baseConvert(command, f, index);
      else command.limbs.forEach((_, limb) => this.kernel(command, f, index, limb, sum));
    }
  }

  private kernel(c: Command, f: Frame, index: Vec, j: number, sum: boolean): void {
    const limb = c.limbs[j]!;
    const q = this.plan.parameters.primes[limb]!;
    const { ring } = this.scheme;
    const a = (component = 0): Row => this.get(c.a, f, index, j, component);
    const b = (component = 0): Row => this.get(c.b, f, index, j, component);
    const set = (value: Row, component = 0): void => this.set(c, f, index, j, value, sum, component);
    const zip = (x: Row, y: Row, join: (u: bigint, v: bigint) => bigint): Row =>
      x.map((u, i) => join(u, y[i]!));
    switch (c.op) {
      case 'zero':
        return set(new Array<bigint>(ring.n).fill(0n));
      case 'copy':
        return set(a());
      case 'add':
        return set(zip(a(), b(), (x, y) => x + y));
      case 'sub':
        return set(zip(a(), b(), (x, y) => x - y));
      case 'add_plain':
        return set(zip(a(), this.plain(c, f, index, j), (x, y) => x + y));
      case 'contract':
        return set(zip(a(), this.plain(c, f, index, j), (x, y) => x * y));
      case 'tensor': {
        const [a0, a1, b0, b1] = [a(0), a(1), b(0), b(1)];
        set(
          zip(a0, b0, (x, y) => x * y),
          0,
        );
        set(
          zip(
            zip(a0, b1, (x, y) => x * y),
            zip(a1, b0, (x, y) => x * y),
            (x, y) => x + y,
          ),
          1,
        );
        return set(
          zip(a1, b1, (x, y) => x * y),
          2,
        );
      }
      case 'ntt':
        return set(ring.ntt(a(), limb));
      case 'intt':
        return set(ring.intt(a(), limb));
      case 'sub_scale':
        return set(zip(a(), b(), (x, y) => mod(x - y, q) * BigInt(c.scalars[j]!)));
      case 'ntt_sub_scale': {
        const b_ = ring.ntt(b(), limb);
        return set(a().map((x, i) => mod(x - b_[i]!, q) * BigInt(c.scalars[j]!)));
      }
      case 'key_product': {
        const key = this.key(this.turn(c.keys, c.keyDim, c.keysPerIteration, f, index), limb);
        for (const component of [0, 1]) {
          const total = new Array<bigint>(ring.n).fill(0n);
          for (let d = 0; d < c.digitCount; d++) {
            const row = key[c.firstDigit + d]![component]!.get(limb)!;
            a(d).forEach((x, i) => {
              total[i]! += x * row[i]!;
            });
          }
          set(total, component);
        }
        return;
      }
      case 'automorphism': {
        const permutation = ring.permutation(
          this.turn(c.galois, c.galoisDim, c.galoisPerIteration, f, index),
        );
        const row = a();
        return set(permutation.map((k) => row[k]!));
      }
      default:
        throw new Error(`${c.op} is no kernel`);
    }
  }

  private key(key: number, limb: number): ToyKey {
    const limbs = this.keyLimbs.get(key);
    expect(limbs, `rank ${this.rank} holds key ${key}`).toBeDefined();
    const held = limbs!.length === 0 || limbs!.includes(limb);
    expect(held, `rank ${this.rank} holds limb ${limb} of key ${key}`).toBe(true);
    return this.shared.keys[key]!;
  }

  private turn(entries: Vec, dim: number, perIteration: number, f: Frame, index: Vec): number {
    const entry = entries[(dim < 0 ? 0 : index[dim]!) + (f.iterations.at(-1) ?? 0) * perIteration];
    expect(entry).toBeDefined();
    return entry!;
  }

  private baseConvert(c: Command, f: Frame, index: Vec): void {
    const { primes } = this.plan.parameters;
    const product = c.sourceLimbs.reduce((p, limb) => p * primes[limb]!, 1n);
    const source = c.sourceLimbs.map((_, i) => this.get(c.a, f, index, i));
    const value = Array.from({ length: this.scheme.ring.n }, (_, k) =>
      c.sourceLimbs.reduce((sum, limb, i) => {
        const [q, hat] = [primes[limb]!, product / primes[limb]!];
        return sum + centre(source[i]![k]! * inverse(hat, q), q) * hat;
      }, 0n),
    );
    c.limbs.forEach((_, j) => this.set(c, f, index, j, value, false));
  }

  private plain(c: Command, f: Frame, index: Vec, limb: number): Row {
    const view = c.plain!;
    const row =
      view.offset + index.reduce((sum, i, d) => sum + i * (view.strides[d] ?? 0), 0) + limb * view.limbStride;
    return this.shared.plainRow(f.plaintexts[view.buffer]!, row, c.limbs[limb]!);
  }
}

function* indices(dims: Vec): Generator<number[]> {
  const total = dims.reduce((a, b) => a * b, 1);
  for (let flat = 0; flat < total; flat++) {
    const index = new Array<number>(dims.length);
    let rest = flat;
    for (let d = dims.length - 1; d >= 0; d--) {
      index[d] = rest % dims[d]!;
      rest = Math.floor(rest / dims[d]!);
    }
    yield index;
  }
}

export type Slots = readonly Complex[];
