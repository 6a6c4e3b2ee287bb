/**
 * What packing shares: the builder, the constants and tables made so far, the ring's shape, ranges and
 * options.
 */
import type { BlockBuilder } from '../../ir/builder.js';
import type { Approximation, AttrValue, Constant, Module, Value } from '../../ir/module.js';
import { boundAttr } from '../../ir/ops/cipher.js';
import type { Axis } from '../../ir/types.js';
import { defined, invariant } from '../../support/invariant.js';
import type { Parameters } from '../../target/parameters.js';
import type { NodeRanges } from '../ranges.js';

export interface PackOptions {
  /**
   * Blocks P of consecutive tokens, a power of two: each has ciphertexts of its own, on the axis `p`, and P
   * times as many slots per token.
   */
  readonly tokenBlocks: number;
  /** Features of a head held in the spare positions of a token's group; 0 lets the cost model choose. */
  readonly featuresInSlots: number;
  /** Key offsets held in the spare positions of a token's group; 0 lets the cost model choose. */
  readonly offsetsInSlots: number;
  /** Key offsets that are ciphertexts at once; 0 lets the cost model choose. */
  readonly offsetsInArray: number;
  /** Steps of a carried loop over key offsets that go together; 0 lets the cost model choose. */
  readonly offsetsTogether: number;
  /** Rotations of K that may be alive at once while key offsets are spread over slots. */
  readonly spreadLimitBytes: number;
  /** Rotation keys of the loop over key offsets; where they are larger, the loop carries what it rotates. */
  readonly offsetKeysLimitBytes: number;
  /** What the key of a rotation that nobody else makes counts, in key switches: memory, and to make it. */
  readonly newKey: number;
  /** Rotation steps whose keys are there already, slots. */
  readonly steps?: readonly number[] | undefined;
}

const defaultNewKey = 3;

/** Are keys dearer than usual, so that more rotations may replace them? */
export function savesKeys({ newKey }: Pick<PackOptions, 'newKey'>): boolean {
  return newKey > defaultNewKey;
}

export const defaultPackOptions: PackOptions = {
  tokenBlocks: 1,
  featuresInSlots: 0,
  offsetsInSlots: 0,
  offsetsInArray: 0,
  offsetsTogether: 0,
  spreadLimitBytes: 2 ** 30,
  offsetKeysLimitBytes: 2 ** 30,
  newKey: defaultNewKey,
};

/** Axis of token blocks; the first of every array that has it. */
export const tokenAxis = 'p';

/** The block axis, if there are several blocks. */
export function tokenAxes(blocks: number): readonly Axis[] {
  return blocks === 1 ? [] : [{ name: tokenAxis, size: blocks }];
}

/** A feature table for every block. */
export function repeated(features: Int32Array, blocks: number): Int32Array {
  return Int32Array.from({ length: blocks * features.length }, (_, i) => features[i % features.length] ?? -1);
}

/** Level that the cost model assumes while levels are not yet planned: the middle of the usable ones. */
export function typicalLevel(parameters: Parameters): number {
  return Math.ceil((parameters.computeTop + parameters.bootstrapInputLevel) / 2);
}

interface Shared {
  readonly constants: Map<string, Constant>;
  readonly tables: Map<string, Int32Array>;
  readonly steps: Set<number>;
  readonly tableNames: Map<string, string>;
  readonly approximations: Map<string, Approximation>;
}

export class PackContext {
  constructor(
    readonly source: Module,
    readonly parameters: Parameters,
    /** Slots per token. */
    readonly period: number,
    /** Token positions of a ciphertext, a power of two; period * groups = slots. */
    readonly groups: number,
    readonly ranges: NodeRanges,
    readonly options: PackOptions,
    readonly builder: BlockBuilder,
    private readonly shared: Shared = {
      constants: new Map(),
      tables: new Map(),
      steps: new Set(options.steps),
      tableNames: new Map(),
      approximations: new Map(),
    },
  ) {}

  /** The same context, building into an inner block. */
  within(inner: BlockBuilder): PackContext {
    const { source, parameters, period, groups, ranges, options, shared } = this;
    return new PackContext(source, parameters, period, groups, ranges, options, inner, shared);
  }

  get constants(): ReadonlyMap<string, Constant> {
    return this.shared.constants;
  }

  get tables(): ReadonlyMap<string, Int32Array> {
    return this.shared.tables;
  }

  get approximations(): readonly Approximation[] {
    return [...this.shared.approximations.values()];
  }

  /** For the report. Nodes that are packed in several parts say the same of each. */
  approximates(one: Approximation): void {
    this.shared.approximations.set(`${one.function} ${one.interval.min} ${one.node}`, one);
  }

  /** Rotation steps that some op uses already: their keys are there. */
  get steps(): Set<number> {
    return this.shared.steps;
  }

  get newKey(): number {
    return this.options.newKey;
  }

  get savesKeys(): boolean {
    return savesKeys(this.options);
  }

  get slots(): number {
    return this.parameters.slots;
  }

  /** Values whose tokens fit one ciphertext have no block axis, all others P blocks. */
  blocksFor(tokens: number): number {
    return tokens > this.groups ? this.options.tokenBlocks : 1;
  }

  constantOf(name: unknown): Constant {
    invariant(typeof name === 'string', 'constant reference must be a name');
    return defined(this.source.constants.get(name), `constant ${name}`);
  }

  /** Keeps a constant of the model under its own name. */
  keep(name: string): string {
    this.shared.constants.set(name, this.constantOf(name));
    return name;
  }

  /** Adds a constant; equal constants under one hint get one name. */
  addConstant(hint: string, shape: readonly number[], data: Float64Array): string {
    let name = hint;
    for (let n = 2; ; n++) {
      const known = this.shared.constants.get(name);
      const same = known?.data.length === data.length && known.data.every((x, i) => x === data[i]);
      if (same) return name;
      if (known === undefined && !this.source.constants.has(name)) break;
      name = `${hint}.${n}`;
    }
    this.shared.constants.set(name, { shape, data });
    return name;
  }

  /** Adds an index table; equal tables get one name. */
  addTable(values: Int32Array): string {
    const key = values.join();
    const known = this.shared.tableNames.get(key);
    if (known !== undefined) return known;
    const name = `t${this.shared.tableNames.size}`;
    this.shared.tableNames.set(key, name);
    this.shared.tables.set(name, values);
    return name;
  }

  /** Token table of all blocks: `inside` for tokens first .. first+count-1, `outside` elsewhere. */
  tokenTable(
    blocks: number,
    first: number,
    count: number,
    inside: (t: number) => number,
    outside = -1,
  ): Int32Array {
    return Int32Array.from({ length: blocks * this.groups }, (_, t) =>
      t >= first && t < first + count ? inside(t - first) : outside,
    );
  }

  /** A plaintext vector recipe; it has the block axis if `tokens` is a table of several blocks. */
  vector(
    constant: string,
    axes: readonly Axis[],
    features: Int32Array,
    tokens: Int32Array | undefined,
    factor: number,
    loc: string,
  ): Value {
    const periodic = tokens === undefined || tokens.every((entry) => entry === 0);
    const blocks = periodic ? 1 : tokens.length / this.groups;
    const attrs: Record<string, AttrValue> = {
      axes: [...tokenAxes(blocks), ...axes] as unknown as AttrValue,
      period: this.period,
      constant,
      features: this.addTable(repeated(features, blocks)),
      factor,
    };
    if (!periodic) attrs.tokens = this.addTable(tokens);
    return this.builder.op('pt.vector', [], attrs, loc);
  }

  realConstant(value: number, loc: string): Value {
    return this.builder.op('pt.constant', [], { axes: [], values: [value] }, loc);
  }

  /** Rotation of a whole array by one step; the array itself if the step is 0 modulo the slots. */
  rotate(value: Value, step: number, loc: string): Value {
    const reduced = this.reduce(step);
    if (reduced === 0) return value;
    const rotated = this.builder.op('ct.rotate', [value], { axis: 'r', steps: [reduced] }, loc);
    this.steps.add(reduced);
    return this.builder.op('ct.index', [rotated], { axis: 'r', index: 0 }, loc);
  }

  reduce(step: number): number {
    return ((step % this.slots) + this.slots) % this.slots;
  }

  reduceAll(steps: readonly number[]): number[] {
    const reduced = steps.map((step) => this.reduce(step));
    for (const step of reduced) if (step !== 0) this.steps.add(step);
    return reduced;
  }

  /** Notes a bound of |slot| on the op that made the value. */
  bounded(value: Value, bound: number): Value {
    this.builder.annotate(value, { [boundAttr]: bound });
    return value;
  }

  rescale(value: Value, loc: string): Value {
    return this.builder.op('ct.rescale', [value], {}, loc);
  }

  /** a * b summed over axes, relinearized and rescaled: one level. */
  multiply(a: Value, b: Value, over: readonly string[], loc: string): Value {
    const product = this.builder.op('ct.mul', [a, b], { over }, loc);
    return this.rescale(this.builder.op('ct.relinearize', [product], {}, loc), loc);
  }

  /** a times a plaintext, rescaled: one level. */
  timesPlain(a: Value, plain: Value, over: readonly string[], loc: string): Value {
    return this.rescale(this.builder.op('ct.contract', [a, plain], { over }, loc), loc);
  }

  reshape(value: Value, axes: readonly Axis[], loc: string): Value {
    return this.builder.op('ct.reshape', [value], { axes: axes as unknown as AttrValue }, loc);
  }
}
