/** Runs a plan command by command on big integers: each kernel as runtime/hal/kernels.h states it. */
import { expect } from 'vitest';
import type { Command, Plaintext, PlanFunction, PlanView, View } from '../../src/backend/plan-view.js';
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
}

type Vec = readonly number[];

export class PlanRunner {
  readonly scheme: ToyScheme;
  private readonly keys: ToyKey[];
  private readonly encoded = new Map<number, Row[]>();

  constructor(
    readonly plan: PlanView,
    private readonly weights: Weights = {},
  ) {
    this.scheme = new ToyScheme(plan.parameters);
    this.keys = plan.keys.map((key) => this.scheme.makeKey(key));
  }

  /** Inputs and outputs as rows [element][component][limb]. */
  run(inputs: readonly Row[][]): Row[][] {
    const functions = this.plan.programs[0]!.functions;
    const entry = functions.at(-1)!;
    const buffers = entry.buffers
      .filter((buffer) => buffer.argument)
      .map((buffer, i) => {
        const rows = inputs[i] ?? new Array<Row>(buffer.rows);
        expect(rows.length).toBe(buffer.rows);
        return { rows, base: 0 };
      });
    const memory: Region = { rows: new Array<Row>(entry.frameRows), base: 0 };
    this.call(entry, buffers, [], memory);
    return buffers.slice(inputs.length).map((region) => region.rows);
  }

  private call(
    func: PlanFunction,
    args: readonly Region[],
    plainArgs: readonly number[],
    frame: Region,
  ): void {
    const buffers = func.buffers.map((buffer, i) =>
      buffer.argument ? args[i]! : { rows: frame.rows, base: frame.base + buffer.offset },
    );
    const plaintexts = func.plaintexts.map((slot, i) => (slot.argument ? plainArgs[i]! : slot.plaintext));
    this.block(func.commands, { func, buffers, plaintexts, iterations: [] }, frame);
  }

  private block(commands: readonly Command[], f: Frame, memory: Region): void {
    for (const command of commands) {
      if (command.op === 'loop') {
        for (let i = 0; i < command.tripCount; i++) {
          f.iterations.push(i);
          this.block(command.body, f, memory);
          f.iterations.pop();
        }
      } else if (command.op === 'call') {
        const callee = this.plan.programs[0]!.functions[command.callee]!;
        const args = command.bindings.map(({ buffer, offset }) => {
          const region = f.buffers[buffer]!;
          return { rows: region.rows, base: region.base + offset };
        });
        const frame = { rows: memory.rows, base: memory.base + command.frameOffset };
        this.call(
          callee,
          args,
          command.plainBindings.map((slot) => f.plaintexts[slot]!),
          frame,
        );
      } else this.launch(command, f);
    }
  }

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
      case 'key_product': {
        const key = this.keys[this.turn(c.keys, c.keyDim, c.keysPerIteration, f, index)]!;
        for (const component of [0, 1]) {
          const total = new Array<bigint>(ring.n).fill(0n);
          for (let d = 0; d < c.digitCount; d++) {
            const row = key[d]![component]!.get(limb)!;
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
    const rows = this.encode(f.plaintexts[view.buffer]!);
    return rows[
      view.offset + index.reduce((sum, i, d) => sum + i * (view.strides[d] ?? 0), 0) + limb * view.limbStride
    ]!;
  }

  /** Rows [element][limb], each checked to be as repetitive as its row_words say. */
  private encode(id: number): Row[] {
    const known = this.encoded.get(id);
    if (known !== undefined) return known;
    const p = this.plan.plaintexts[id]!;
    const { n } = this.scheme.ring;
    const rows = Array.from({ length: p.elements }, (_, element) =>
      p.limbs.map((limb, j) => {
        const row = this.encodeRow(p, element, limb, j);
        const block = n / p.rowWords;
        row.forEach((value, k) => expect(value).toBe(row[Math.floor(k / block) * block]));
        return row;
      }),
    ).flat();
    this.encoded.set(id, rows);
    return rows;
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
    const slots = Array.from({ length: ring.n / 2 }, (_, s) => ({ re: this.slot(p, element, s), im: 0 }));
    return ring.ntt(
      ring.encode(slots, p.scale).map((x) => mod(x, q)),
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
        const group = tokens === undefined ? period : this.scheme.ring.n / 2 / tokens.length;
        const feature = table(recipe.features)[element * group + (s % group)]!;
        const token = tokens === undefined ? 0 : tokens[Math.floor(s / group)]!;
        return feature < 0 || token < 0
          ? 0
          : recipe.factor * this.weights[recipe.weight]!.data[feature + token]!;
      }
      default:
        throw new Error(`the oracle does not encode ${recipe.kind}`);
    }
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
