/**
 * Copies a function with the regions around its collectives in chunks along an axis. Operands from elsewhere
 * are read through slices; results that are needed in one piece are written window by window.
 */
import { defined } from '../../support/invariant.js';
import { BlockBuilder, type Ids } from '../../ir/builder.js';
import type { Attrs, AttrValue, Block, Func, Module, Op, Value } from '../../ir/module.js';
import type { Window } from '../../ir/ops/poly.js';
import { axisSize, type Axis, type PolyType } from '../../ir/types.js';
import { restrictPlain } from '../restrict-plain.js';
import { findRegions, hasAxis, intoOf, type Region } from './regions.js';

export interface ChunkOptions {
  readonly chunks: number;
  readonly linkSeconds: (op: Op) => number;
  readonly ids: Ids;
  /** Grows by index tables of chunks of plaintexts. */
  readonly tables: Map<string, Int32Array>;
}

/** The function in chunks; undefined if it has no region. */
export function chunkFunction(module: Module, func: Func, options: ChunkOptions): Func | undefined {
  const chunker = new Chunker(module, options);
  const chunked = chunker.func(func);
  return chunker.regions > 0 ? chunked : undefined;
}

interface Chunk {
  readonly index: number;
  readonly start: number;
  readonly size: number;
}

class Chunker {
  regions = 0;
  private readonly full = new Map<number, Value>();
  private readonly parts = new Map<number, readonly Value[]>();
  private readonly plainOps = new Map<number, Op>();
  private readonly named = new Map<string, string>();

  constructor(
    private readonly module: Module,
    private readonly options: ChunkOptions,
  ) {
    for (const [name, values] of options.tables) {
      if (name.startsWith('chunk')) this.named.set(values.join(), name);
    }
  }

  func(func: Func): Func {
    const types = func.body.args.map((arg) => arg.type);
    const builder = new BlockBuilder(this.options.ids, this.module.parameters, types);
    func.body.args.forEach((arg, i) => this.full.set(arg.id, defined(builder.args[i], 'argument')));
    return { ...func, body: builder.finish(this.block(func.body, builder)) };
  }

  private whole = (value: Value): Value => defined(this.full.get(value.id), `whole value of %${value.id}`);

  private block(block: Block, builder: BlockBuilder): Value[] {
    for (const op of block.ops) {
      const result = op.results[0];
      if (result?.type.kind === 'pt') this.plainOps.set(result.id, op);
    }
    const { linkSeconds } = this.options;
    const plainSource = (value: Value): Op | undefined => this.plainOps.get(value.id);
    const regions = findRegions(block, { plainSource, linkSeconds });
    this.regions += new Set(regions.values()).size;
    const slices = new Map<string, Value>();
    for (const op of block.ops) {
      const region = regions.get(op);
      if (region?.ops.has(op) === true) this.chunked(op, region, builder, slices);
      else this.copy(op, builder);
    }
    return block.results.map(this.whole);
  }

  private copy(op: Op, builder: BlockBuilder): void {
    const operands = op.operands.map(this.whole);
    const results = this.copied(op, operands, builder);
    op.results.forEach((result, i) => this.full.set(result.id, defined(results[i], 'result')));
  }

  private copied(op: Op, operands: readonly Value[], builder: BlockBuilder): readonly Value[] {
    if (op.kind === 'call') {
      const types = op.results.map((value) => value.type);
      return builder.call(op.attrs.callee as string, operands, types, op.loc);
    }
    if (op.kind !== 'loop') return [builder.op(op.kind, operands, op.attrs, op.loc)];
    const body = defined(op.regions[0], 'loop body');
    return builder.loop(op.attrs.tripCount as number, operands, op.loc, (inner, carried) => {
      body.args.forEach((arg, i) => this.full.set(arg.id, defined(carried[i], 'carried')));
      return this.block(body, inner);
    });
  }

  // -------------------------------------------------------------- chunks

  private chunked(op: Op, region: Region, b: BlockBuilder, slices: Map<string, Value>): void {
    const result = defined(op.results[0], 'result');
    const into = intoOf(op);
    const own = into === undefined ? op.operands : op.operands.slice(0, -1);
    const operandsOf = (chunk: Chunk): Value[] =>
      own.map((value) => this.part(value, region, chunk, b, slices, op.loc));
    const chunks = chunksOf(region, this.options.chunks);
    if (!region.whole.has(result.id)) {
      const parts = chunks.map((chunk) => {
        const target = into === undefined ? [] : [defined(this.parts.get(into.id)?.[chunk.index], 'chunk')];
        return b.op(op.kind, [...operandsOf(chunk), ...target], chunkAttrs(op, region, chunk), op.loc);
      });
      this.parts.set(result.id, parts);
      return;
    }
    if (op.kind === 'poly.undefined') return this.copy(op, b);
    let target = into === undefined ? undefinedLike(result, b, op.loc) : this.whole(into);
    for (const chunk of chunks) {
      const attrs = chunkAttrs(op, region, chunk);
      const window = { ...(attrs.window as Window | undefined) };
      const axes = { ...window.axes, [region.axis]: [chunk.start, chunk.size] };
      const windowed = { ...attrs, window: { ...window, axes } as unknown as AttrValue };
      target = b.op(op.kind, [...operandsOf(chunk), target], windowed, op.loc);
    }
    this.full.set(result.id, target);
  }

  /** What a chunk reads of an operand. */
  private part(
    value: Value,
    region: Region,
    chunk: Chunk,
    b: BlockBuilder,
    slices: Map<string, Value>,
    loc: string,
  ): Value {
    const own = this.parts.get(value.id)?.[chunk.index];
    if (own !== undefined) return own;
    const { type } = value;
    const plain = type.kind === 'pt' && axisSize(type.axes, region.axis) !== undefined;
    if (!plain && !hasAxis(type, region.axis)) return this.whole(value);
    const key = `${value.id} ${region.axis} ${chunk.start} ${chunk.size}`;
    const known = slices.get(key);
    if (known !== undefined) return known;
    const { axis } = region;
    const { start, size } = chunk;
    const made = plain
      ? this.plainPart(value, axis, chunk, b, loc)
      : b.op('poly.slice', [this.whole(value)], { axis, start, size }, loc);
    slices.set(key, made);
    return made;
  }

  private plainPart(value: Value, axis: string, chunk: Chunk, b: BlockBuilder, loc: string): Value {
    const source = defined(this.plainOps.get(value.id), 'plaintext');
    const axes = new Map([[axis, Array.from({ length: chunk.size }, (_, i) => chunk.start + i)]]);
    const { tables } = this.options;
    const addTable = (values: Int32Array): string => {
      const content = values.join();
      const name = this.named.get(content) ?? `chunk${this.named.size}`;
      this.named.set(content, name);
      tables.set(name, values);
      return name;
    };
    const { slots } = defined(b.parameters, 'parameters');
    const attrs = restrictPlain(source, { axes, limbs: undefined }, tables, addTable, slots);
    return b.op(source.kind, [], attrs, loc);
  }
}

function chunksOf(region: Region, wanted: number): Chunk[] {
  const count = Math.min(wanted, region.size);
  const at = (i: number): number => Math.floor((i * region.size) / count);
  return Array.from({ length: count }, (_, i) => ({ index: i, start: at(i), size: at(i + 1) - at(i) }));
}

function undefinedLike(value: Value, b: BlockBuilder, loc: string): Value {
  const { axes, limbs, form, sharding } = value.type as PolyType;
  const shape = { axes: axes.map(({ name, size }) => ({ name, size })), limbs, form };
  return b.op('poly.undefined', [], { ...shape, sharding: sharding as unknown as AttrValue }, loc);
}

/** Attributes of the op on a chunk. */
function chunkAttrs(op: Op, { axis, size: full }: Region, { start, size }: Chunk): Attrs {
  const changed: Record<string, AttrValue> = {};
  if (op.attrs.axes !== undefined) {
    const axes = op.attrs.axes as unknown as readonly Axis[];
    changed.axes = axes.map((one) => (one.name === axis ? { ...one, size } : { ...one }));
  }
  if (op.attrs.axis === axis && op.attrs.galois !== undefined) {
    const entries = op.attrs.galois as readonly number[];
    const iterations = Array.from({ length: entries.length / full }, (_, i) => i * full);
    changed.galois = iterations.flatMap((first) => entries.slice(first + start, first + start + size));
  }
  return { ...op.attrs, ...changed };
}
