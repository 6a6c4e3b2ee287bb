/**
 * The program of one rank: a poly module without shardings, in which every array is the part that the rank
 * holds and
 * every op does the rank's share. Collectives become `poly.exchange`, which says what travels from and to
 * where.
 */
import { defined, invariant } from '../support/invariant.js';
import { BlockBuilder, Ids } from '../ir/builder.js';
import type { Attrs, AttrValue, Block, Func, Module, Op, Value } from '../ir/module.js';
import { commandArity, digitAxis, isPoly, viewKinds, type Window } from '../ir/ops/poly.js';
import {
  coordinatesOf,
  localType,
  onAxis,
  ownIndices,
  ownLimbs,
  slicedSharding,
  type Mesh,
} from '../ir/sharding.js';
import { axisSize, type Axis, type PolyType, type Sharding, type Type } from '../ir/types.js';
import { planExchange } from './exchange.js';
import { restrictPlain, type Restriction } from './restrict-plain.js';

/** Index of the collective that an op is for the rank. */
export type CollectiveIndex = (op: Op, rank: number) => number;

interface PlainUse {
  readonly value: Value;
  readonly argument: number;
  readonly restriction: Restriction;
}

/** A function's arguments on this rank: arrays that it holds a part of, then parts of plaintext arguments. */
interface Signature {
  readonly plain: readonly PlainUse[];
}

export function localise(module: Module, mesh: Mesh, rank: number, collectives: CollectiveIndex): Module {
  const ids = new Ids();
  const tables = new Map(module.tables);
  const named = new Map<string, string>();
  const addTable = (values: Int32Array): string => {
    const content = values.join();
    const name = named.get(content) ?? `part${named.size}`;
    named.set(content, name);
    tables.set(name, values);
    return name;
  };
  const signatures = new Map<string, Signature>();
  const functions = module.functions.map((func) => {
    const site = { module, mesh, rank, collectives, ids, tables, addTable, signatures };
    const { local, signature } = new FunctionLocaliser(func, site).run();
    signatures.set(func.name, signature);
    return local;
  });
  return { ...module, functions, tables };
}

interface Site {
  readonly module: Module;
  readonly mesh: Mesh;
  readonly rank: number;
  readonly collectives: CollectiveIndex;
  readonly ids: Ids;
  readonly tables: ReadonlyMap<string, Int32Array>;
  readonly addTable: (values: Int32Array) => string;
  readonly signatures: ReadonlyMap<string, Signature>;
}

/** A rank's share of the work of one op. */
interface Domain {
  readonly axes: ReadonlyMap<string, readonly number[]>;
  /** Undefined: all. */
  readonly limbs: ((limbs: readonly number[]) => number[]) | undefined;
  readonly empty: boolean;
}

class FunctionLocaliser {
  private readonly coordinates: readonly number[];
  /** Absent: the rank holds nothing of the value. */
  private readonly values = new Map<number, Value>();
  private readonly plainSources = new Map<number, Op | number>();
  private readonly plainParts = new Map<string, Value>();
  private readonly plainUses: PlainUse[] = [];

  constructor(
    private readonly func: Func,
    private readonly site: Site,
  ) {
    this.coordinates = coordinatesOf(site.mesh, site.rank);
  }

  run(): { local: Func; signature: Signature } {
    const { args } = this.func.body;
    const held = args.filter((arg) => isPoly(arg.type) && this.local(arg.type) !== undefined);
    const builder = this.builder(held.map((arg) => defined(this.local(arg.type as PolyType), 'local type')));
    held.forEach((arg, i) => this.values.set(arg.id, defined(builder.args[i], 'argument')));
    args.forEach((arg, i) => {
      if (arg.type.kind === 'pt') this.plainSources.set(arg.id, i);
    });
    const body = builder.finish(this.block(this.func.body, builder));
    const plainArgs = this.plainUses.map((use) => use.value);
    const local = { name: this.func.name, body: { ...body, args: [...body.args, ...plainArgs] } };
    return { local, signature: { plain: this.plainUses } };
  }

  private builder(types: readonly Type[]): BlockBuilder {
    return new BlockBuilder(this.site.ids, this.site.module.parameters, types);
  }

  private local(type: PolyType): PolyType | undefined {
    return localType(type, this.coordinates);
  }

  private block(block: Block, b: BlockBuilder): Value[] {
    for (const op of block.ops) this.op(op, b);
    return this.held(block.results);
  }

  /** Local values of those that the rank holds. */
  private held(values: readonly Value[]): Value[] {
    return values.flatMap((value) => this.values.get(value.id) ?? []);
  }

  private op(op: Op, b: BlockBuilder): void {
    const result = op.results[0];
    if (op.kind === 'loop') this.loop(op, b);
    else if (op.kind === 'call') this.call(op, b);
    else if (result?.type.kind === 'pt') this.plainSources.set(result.id, op);
    else if (op.kind.startsWith('poly.collective')) this.collective(op, b);
    else if (op.kind === 'poly.undefined') this.undefinedArray(op, b);
    else if (viewKinds.has(op.kind)) this.view(op, b);
    else this.command(op, b);
  }

  private set(value: Value | undefined, localValue: Value | undefined): void {
    if (value !== undefined && localValue !== undefined) this.values.set(value.id, localValue);
  }

  private loop(op: Op, b: BlockBuilder): void {
    const body = defined(op.regions[0], 'loop body');
    const initial = this.held(op.operands);
    const results = b.loop(op.attrs.tripCount as number, initial, op.loc, (inner, carried) => {
      const args = body.args.filter((_, i) => this.values.has(defined(op.operands[i], 'initial').id));
      args.forEach((arg, i) => this.values.set(arg.id, defined(carried[i], 'carried')));
      // Parts of plaintexts are made where they are used.
      this.plainParts.clear();
      const yielded = this.block(body, inner);
      this.plainParts.clear();
      return yielded;
    });
    const held = op.results.filter((_, i) => this.values.has(defined(op.operands[i], 'initial').id));
    held.forEach((result, i) => this.set(result, results[i]));
  }

  private call(op: Op, b: BlockBuilder): void {
    const callee = op.attrs.callee as string;
    const { plain } = defined(this.site.signatures.get(callee), `signature of ${callee}`);
    const parts = plain.map((use) =>
      this.plainPart(defined(op.operands[use.argument], 'plaintext argument'), use.restriction, b, op.loc),
    );
    const held = op.results.filter((result) => this.local(result.type as PolyType) !== undefined);
    const types = held.map((result) => defined(this.local(result.type as PolyType), 'local type'));
    const results = b.call(callee, [...this.held(op.operands), ...parts], types, op.loc);
    held.forEach((result, i) => this.set(result, results[i]));
  }

  private undefinedArray(op: Op, b: BlockBuilder): void {
    const result = defined(op.results[0], 'result');
    const type = this.local(result.type as PolyType);
    if (type !== undefined) this.set(result, b.op('poly.undefined', [], shapeAttrs(type), op.loc));
  }

  // -------------------------------------------------------------- views

  private view(op: Op, b: BlockBuilder): void {
    const [operand, result] = [defined(op.operands[0], 'operand'), defined(op.results[0], 'result')];
    const a = this.values.get(operand.id);
    const type = this.local(result.type as PolyType);
    if (a === undefined || type === undefined) return;
    const from = operand.type as PolyType;
    const { attrs } = op;
    switch (op.kind) {
      case 'poly.reshape':
        return this.set(result, b.op(op.kind, [a], { axes: axesAttr(type.axes) }, op.loc));
      case 'poly.limbs':
        return this.set(result, b.op(op.kind, [a], { limbs: type.limbs }, op.loc));
      case 'poly.index': {
        const index = this.position(from, attrs.axis as string, attrs.index as number);
        return this.set(result, b.op(op.kind, [a], { ...attrs, index }, op.loc));
      }
      case 'poly.slice': {
        const axis = attrs.axis as string;
        const start = this.position(from, axis, attrs.start as number);
        const size = defined(axisSize(type.axes, axis), `axis ${axis}`);
        return this.set(result, b.op(op.kind, [a], { axis, start, size }, op.loc));
      }
      default:
        return this.set(result, this.narrow(a, from, result.type as PolyType, b, op.loc));
    }
  }

  /** Held indices of the axis below `index`: where that index, or the next held one, lies. */
  private position(type: PolyType, axis: string, index: number): number {
    return this.heldIndices(type, axis).filter((own) => own < index).length;
  }

  private heldIndices(type: PolyType, axis: string): number[] {
    const size = defined(axisSize(type.axes, axis), `axis ${axis}`);
    return this.coordinates.reduce<number[]>(
      (list, c, m) => {
        const own = new Set(ownIndices(onAxis(type.sharding, m), { name: axis, size }, c));
        return list.filter((i) => own.has(i));
      },
      Array.from({ length: size }, (_, i) => i),
    );
  }

  /** A part of what the rank holds of an array, as a view. */
  private narrow(a: Value, from: PolyType, to: PolyType, b: BlockBuilder, loc: string): Value {
    let value = a;
    for (const { name } of from.axes) {
      const [have, want] = [this.heldIndices(from, name), this.heldIndices(to, name)];
      value = sliceTo(value, name, have, want, b, loc);
    }
    const limbs = defined(this.local(to), 'local type').limbs;
    return limbsTo(value, limbs, b, loc);
  }

  // -------------------------------------------------------------- commands

  private command(op: Op, b: BlockBuilder): void {
    const arity = defined(commandArity(op.kind), `command ${op.kind}`);
    const operands = op.operands.slice(0, arity);
    const into = op.operands[arity];
    const result = defined(op.results[0], 'result');
    const domain = this.domain(op, operands, into);
    const target = into === undefined ? undefined : this.values.get(into.id);
    const window = this.window(op, into, domain);
    const idle = domain.empty || (into !== undefined && (target === undefined || window === 'empty'));
    if (idle) return this.idle(op, result, into, b);
    const locals = operands.map((operand) => this.operand(op, operand, domain, b));
    const attrs = this.attrs(op, domain, result.type as PolyType);
    if (into === undefined) return this.set(result, b.op(op.kind, locals, attrs, op.loc));
    const windowed =
      op.attrs.window === undefined ? attrs : { ...attrs, window: window as unknown as AttrValue };
    this.set(result, b.op(op.kind, [...locals, defined(target, 'target')], windowed, op.loc));
  }

  /** A rank without work: it keeps the array as it is; its addend of a partial sum is zero. */
  private idle(op: Op, result: Value, into: Value | undefined, b: BlockBuilder): void {
    const type = this.local(result.type as PolyType);
    const partial = (result.type as PolyType).sharding.some((one) => one.kind === 'partial');
    if (into === undefined) {
      if (partial && type !== undefined) this.set(result, b.op('poly.zero', [], shapeAttrs(type), op.loc));
      return;
    }
    const target = this.values.get(into.id);
    const everything: Domain = { axes: new Map(), limbs: undefined, empty: false };
    const window = this.window(op, into, everything);
    const untouched = !partial || op.attrs.accumulate === true || target === undefined || window === 'empty';
    if (untouched) return this.set(result, target);
    const own = (window.limbs ?? (target.type as PolyType).limbs) as readonly number[];
    const zero = { axes: [], limbs: own, form: (target.type as PolyType).form };
    const attrs = { ...zero, window: window as unknown as AttrValue };
    this.set(result, b.op('poly.zero', [target], attrs, op.loc));
  }

  /**
   * The rank's share: as operands are sharded, else as the op asks, else as the array that it writes into.
   */
  private domain(op: Op, operands: readonly Value[], into: Value | undefined): Domain {
    const polys = operands.map((value) => value.type).filter(isPoly);
    const asked = (op.attrs.sharding ?? []) as unknown as readonly Sharding[];
    const window = (op.attrs.window ?? {}) as Window;
    const axes = new Map<string, readonly number[]>();
    const filters: ((limbs: readonly number[]) => number[])[] = [];
    let empty = false;
    this.coordinates.forEach((c, m) => {
      const candidates = [
        ...polys.map((type) => onAxis(type.sharding, m)),
        onAxis(asked, m),
        into === undefined ? onAxis([], m) : windowed(onAxis((into.type as PolyType).sharding, m), window),
      ];
      const lead = candidates.find(({ kind }) => kind === 'split' || kind === 'limbs' || kind === 'at');
      if (lead?.kind === 'at') empty ||= lead.rank !== c;
      if (lead?.kind === 'limbs') filters.push((limbs) => ownLimbs(lead, limbs, c));
      if (lead?.kind === 'split') {
        const own = ownIndices(lead, { name: lead.axis, size: lead.owners.length }, c);
        axes.set(lead.axis, own);
        empty ||= own.length === 0;
      }
    });
    const limbs =
      filters.length === 0
        ? undefined
        : (list: readonly number[]) => filters.reduce((l, f) => f(l), [...list]);
    const made = (op.attrs.window as Window | undefined)?.limbs ?? (op.results[0]?.type as PolyType).limbs;
    return { axes, limbs, empty: empty || (limbs !== undefined && limbs(made).length === 0) };
  }

  /** The rank's part of the window that an op writes. */
  private window(op: Op, into: Value | undefined, domain: Domain): Window | 'empty' {
    if (into === undefined) return {};
    const type = into.type as PolyType;
    const held = this.local(type);
    if (held === undefined) return 'empty';
    const window = (op.attrs.window ?? {}) as Window;
    const axes: Record<string, readonly [number, number]> = {};
    for (const { name, size } of type.axes) {
      const [start, count] = window.axes?.[name] ?? [0, size];
      const indices = this.heldIndices(type, name);
      const share = domain.axes.get(name);
      const wanted = indices.filter(
        (i) => i >= start && i < start + count && (share?.includes(i - start) ?? true),
      );
      const first = wanted[0];
      if (first === undefined) return 'empty';
      const at = indices.indexOf(first);
      invariant(
        wanted.every((i, k) => indices[at + k] === i),
        `a window of axis ${name} is contiguous on every rank`,
      );
      if (wanted.length < indices.length) axes[name] = [at, wanted.length];
    }
    const localLimbs = held.limbs;
    const chosen = (window.limbs ?? type.limbs).filter((limb) => localLimbs.includes(limb));
    const limbs = domain.limbs?.(chosen) ?? chosen;
    if (limbs.length === 0) return 'empty';
    return { axes, ...(limbs.length < localLimbs.length ? { limbs } : {}) };
  }

  /** The part of an operand that the share reads. */
  private operand(op: Op, value: Value, domain: Domain, b: BlockBuilder): Value {
    if (value.type.kind === 'pt') {
      const limbs = domain.limbs?.((op.operands[0]?.type as PolyType).limbs);
      return this.plainPart(value, { axes: domain.axes, limbs }, b, op.loc);
    }
    const type = value.type as PolyType;
    let part = defined(this.values.get(value.id), `operand of ${op.kind}`);
    for (const { name } of type.axes) {
      const share = domain.axes.get(name);
      if (share !== undefined) part = sliceTo(part, name, this.heldIndices(type, name), share, b, op.loc);
    }
    if (domain.limbs === undefined || op.kind === 'poly.base_convert') return part;
    return limbsTo(part, domain.limbs((part.type as PolyType).limbs), b, op.loc);
  }

  private attrs(op: Op, domain: Domain, result: PolyType): Attrs {
    const { sharding: _, ...attrs } = op.attrs as Record<string, AttrValue>;
    const changed: Record<string, AttrValue> = {};
    const cut = domain.limbs;
    const limbs = attrs.limbs as readonly number[] | undefined;
    if (limbs !== undefined && cut !== undefined) changed.limbs = cut(limbs);
    if (attrs.axes !== undefined) {
      const axes = attrs.axes as unknown as readonly Axis[];
      changed.axes = axesAttr(
        axes.map((axis) => ({ ...axis, size: domain.axes.get(axis.name)?.length ?? axis.size })),
      );
    }
    if (attrs.scalars !== undefined && cut !== undefined) {
      const own = new Set(cut(result.limbs));
      changed.scalars = (attrs.scalars as readonly number[]).filter((_s, j) =>
        own.has(result.limbs[j] as number),
      );
    }
    const turn = domain.axes.get(attrs.axis as string);
    if (attrs.galois !== undefined && turn !== undefined) {
      changed.galois = ownEntries(attrs.galois as readonly number[], turn, turnSize(op));
    }
    if (op.kind === 'poly.key_product') changed.level = this.chainLevel(result);
    const digits = domain.axes.get(digitAxis);
    if (op.kind === 'poly.key_product' && digits !== undefined) {
      invariant(
        digits.every((digit, i) => digit === digits[0]! + i),
        'digits of a rank are contiguous',
      );
      changed.firstDigit = defined(digits[0], 'digit');
    }
    return { ...attrs, ...changed };
  }

  private chainLevel(type: PolyType): number {
    const top = defined(this.site.module.parameters, 'parameters').maxLevel;
    return Math.max(...type.limbs.filter((limb) => limb <= top));
  }

  // -------------------------------------------------------------- plaintexts

  private plainPart(value: Value, restriction: Restriction, b: BlockBuilder, loc: string): Value {
    const type = value.type;
    invariant(type.kind === 'pt', 'plaintext operand');
    const relevant = new Map(
      [...restriction.axes].filter(([name]) => axisSize(type.axes, name) !== undefined),
    );
    const key = `${value.id} ${JSON.stringify([...relevant])} ${String(restriction.limbs?.join())}`;
    const known = this.plainParts.get(key);
    if (known !== undefined) return known;
    const part = this.makePlainPart(value, { axes: relevant, limbs: restriction.limbs }, b, loc);
    this.plainParts.set(key, part);
    return part;
  }

  private makePlainPart(value: Value, restriction: Restriction, b: BlockBuilder, loc: string): Value {
    const source = defined(this.plainSources.get(value.id), 'plaintext');
    if (typeof source !== 'number') {
      const { tables, addTable, module } = this.site;
      const { slots } = defined(module.parameters, 'parameters');
      return b.op(source.kind, [], restrictPlain(source, restriction, tables, addTable, slots), loc);
    }
    // Limbs of a plaintext follow from its use; only its indices must be passed on.
    const key = JSON.stringify([...restriction.axes]);
    const known = this.plainUses.find(
      (use) => use.argument === source && JSON.stringify([...use.restriction.axes]) === key,
    );
    if (known !== undefined) return known.value;
    invariant(value.type.kind === 'pt', 'plaintext argument');
    const axes = value.type.axes.map((axis) => ({
      ...axis,
      size: restriction.axes.get(axis.name)?.length ?? axis.size,
    }));
    const part = this.site.ids.fresh({ ...value.type, axes });
    this.plainUses.push({
      value: part,
      argument: source,
      restriction: { axes: restriction.axes, limbs: undefined },
    });
    return part;
  }

  // -------------------------------------------------------------- collectives

  private collective(op: Op, b: BlockBuilder): void {
    const stage = { '': 'blocking', _start: 'start', _wait: 'wait' }[op.kind.slice('poly.collective'.length)];
    const started = stage === 'wait' ? this.starts.get(defined(op.operands[0], 'flight').id) : op;
    const start = defined(started, 'start of a collective');
    const source = defined(stage === 'wait' ? op.operands[1] : op.operands[0], 'source');
    const into = stage === 'blocking' ? op.operands[1] : stage === 'wait' ? op.operands[2] : undefined;
    const result = defined(op.results[0], 'result');
    const type = source.type as PolyType;
    const exchange = planExchange(
      type,
      this.site.mesh,
      start.attrs.meshAxis as number,
      start.attrs.to as unknown as Sharding,
      this.site.rank,
    );
    if (stage === 'start') this.starts.set(result.id, op);
    const target = into === undefined ? undefined : this.values.get(into.id);
    if (exchange === undefined) return this.set(result, target);
    const own = exchange.result ?? { ...type, axes: [], limbs: type.limbs.slice(0, 1), sharding: [] };
    const window =
      into === undefined
        ? 'empty'
        : this.window(op, into, { axes: new Map(), limbs: undefined, empty: false });
    const flight = stage === 'wait' ? this.values.get(defined(op.operands[0], 'flight').id) : undefined;
    const local = this.values.get(source.id);
    const operands = [flight, local, target].filter((value) => value !== undefined);
    const { kind, sends, receives, keeps } = exchange;
    const made = b.op(
      'poly.exchange',
      operands,
      {
        collective: this.site.collectives(start, this.site.rank),
        stage: defined(stage, 'stage'),
        kind,
        hasSource: local !== undefined,
        hasTarget: target !== undefined,
        moves: { sends, receives, keeps } as unknown as AttrValue,
        ...(window === 'empty' ? {} : { window: window as unknown as AttrValue }),
        ...shapeAttrs(own),
      },
      op.loc,
    );
    if (into !== undefined) this.set(result, target === undefined ? undefined : made);
    else if (stage === 'start' || exchange.result !== undefined) this.set(result, made);
  }

  private readonly starts = new Map<number, Op>();
}

function axesAttr(axes: readonly Axis[]): AttrValue {
  return axes.map(({ name, size }) => ({ name, size }));
}

function shapeAttrs({ axes, limbs, form }: PolyType): Attrs {
  return { axes: axesAttr(axes), limbs, form };
}

/** Owners of the window's indices. */
function windowed(sharding: Sharding, window: Window): Sharding {
  if (sharding.kind !== 'split') return sharding;
  const range = window.axes?.[sharding.axis];
  return range === undefined ? sharding : slicedSharding(sharding, sharding.axis, ...range);
}

/** Size of the axis along which keys or Galois elements change. */
function turnSize(op: Op): number {
  const type = op.operands[0]?.type as PolyType;
  return axisSize(type.axes, op.attrs.axis as string) ?? (op.attrs.galois as readonly number[]).length;
}

/** Entries of own indices, iteration by iteration. */
function ownEntries(entries: readonly number[], own: readonly number[], size: number): number[] {
  const iterations = Array.from({ length: entries.length / size }, (_, i) => i);
  return iterations.flatMap((iteration) => own.map((i) => defined(entries[iteration * size + i], 'entry')));
}

function sliceTo(
  value: Value,
  axis: string,
  have: readonly number[],
  want: readonly number[],
  b: BlockBuilder,
  loc: string,
): Value {
  if (have.length === want.length) return value;
  const start = have.indexOf(defined(want[0], 'index'));
  invariant(
    want.every((i, k) => have[start + k] === i),
    `a rank's part of axis ${axis} is contiguous`,
  );
  return b.op('poly.slice', [value], { axis, start, size: want.length }, loc);
}

function limbsTo(value: Value, limbs: readonly number[], b: BlockBuilder, loc: string): Value {
  const type = value.type as PolyType;
  return type.limbs.length === limbs.length ? value : b.op('poly.limbs', [value], { limbs }, loc);
}
