/**
 * One poly function as plan commands with static buffers. Program order is kept; memory is reused where it is
 * safe.
 */
import { defined, invariant } from '../support/invariant.js';
import type { Block, Func, Op, Value } from '../ir/module.js';
import { commandArity, componentAxis, digitAxis, viewKinds, type Window } from '../ir/ops/poly.js';
import { axesCount, type PolyType, type PtType } from '../ir/types.js';
import { ExchangeEmitter } from './emit-exchange.js';
import { fusibleTransforms } from './fuse-transforms.js';
import { launchCommands, type Launch, type PlainLayout } from './launch.js';
import {
  denseLayout,
  indexLayout,
  isDense,
  isWhole,
  reshapedLayout,
  rowsOf,
  strideOf,
  windowLayout,
  type Layout,
  type Storage,
} from './layout.js';
import { Lifetimes } from './lifetimes.js';
import { finish, type EmittedFunction, type PlainUse } from './finish-function.js';
import type { Placed } from './place-buffers.js';
import type { Encoding } from './plain-form.js';
import type { PlaintextUser } from './plaintexts.js';
import { emptyCommand, type Command, type Opcode } from './plan-view.js';

/** What the functions of a program share. */
export interface EmitContext {
  readonly plaintexts: PlaintextUser;
  /** Index of a key in the plan. */
  readonly keyIndex: (kind: string, galois: number, keyClass: string) => number;
  readonly nodeIndex: (loc: string) => number;
  readonly callee: (name: string) => EmittedFunction & { readonly index: number };
}

/** `depth`: loops around the op. */
type PlainSource = { readonly op: Op; readonly depth: number } | { readonly argument: number };

/** Commands that may write over an operand (kernels.h), and which. */
const inPlace: Readonly<Record<string, readonly number[]>> = {
  'poly.add': [0, 1],
  'poly.sub': [0, 1],
  'poly.add_plain': [0],
  'poly.ntt': [0],
  'poly.intt': [0],
  'poly.sub_scale': [1, 0],
};

export function emitFunction(func: Func, context: EmitContext): EmittedFunction {
  return new FunctionEmitter(func, context).run();
}

class FunctionEmitter {
  private readonly lifetimes: Lifetimes;
  private readonly storages: Storage[] = [];
  private readonly layouts = new Map<number, Layout>();
  private readonly plainSources = new Map<number, PlainSource>();
  private readonly plainUses: PlainUse[] = [];
  private readonly plainIndices = new Map<string, number>();
  private readonly fusible: ReadonlySet<Op>;
  /** Results of transforms that are left to the commands which read them. */
  private readonly pending = new Map<Value, Op>();
  private readonly callFrames: (Placed & { readonly command: Command })[] = [];
  /** Per enclosing loop, the storages from outside that it touches. */
  private readonly loops: Set<Storage>[] = [];
  private position = 0;
  private commands: Command[] = [];
  private readonly exchanges = new ExchangeEmitter({
    layout: (value) => this.layout(value),
    bind: (value, layout) => this.bind(value, layout),
    storage: (rows) => this.storage(rows),
    fresh: (type) => this.fresh(type),
    copy: (out, a, node) => this.copy(out, a, node),
    push: (command, used) => this.push(command, used),
  });

  constructor(
    private readonly func: Func,
    private readonly context: EmitContext,
  ) {
    this.lifetimes = new Lifetimes(func);
    this.fusible = fusibleTransforms(func);
  }

  run(): EmittedFunction {
    const { args, results } = this.func.body;
    args.forEach((arg, argument) => {
      if (arg.type.kind === 'pt') this.plainSources.set(arg.id, { argument });
      else this.bind(arg, denseLayout(this.storage(rowsOf(polyType(arg)), 'input'), polyType(arg)));
    });
    this.block(this.func.body);
    const returned = results.map((value) => this.result(value));
    return finish(this.func.name, {
      commands: this.commands,
      storages: this.storages,
      returned,
      callFrames: this.callFrames,
      plainUses: this.plainUses,
    });
  }

  // -------------------------------------------------------------- storage

  private storage(rows: number, kind: Storage['kind'] = 'local'): Storage {
    const storage: Storage = {
      id: this.storages.length,
      rows,
      kind,
      depth: this.loops.length,
      first: Infinity,
      last: -1,
    };
    this.storages.push(storage);
    return storage;
  }

  private fresh(type: PolyType): Layout {
    return denseLayout(this.storage(rowsOf(type)), type);
  }

  private bind(value: Value, layout: Layout): void {
    this.layouts.set(value.id, layout);
  }

  private layout(value: Value): Layout {
    return defined(this.layouts.get(value.id), 'layout');
  }

  /** The current command uses the storage; a storage from outside a loop stays in use until the loop ends. */
  private touch(storage: Storage): void {
    storage.first = Math.min(storage.first, this.position);
    storage.last = Math.max(storage.last, this.position);
    this.loops[storage.depth]?.add(storage);
  }

  private push(command: Command, used: readonly Storage[]): void {
    used.forEach((storage) => this.touch(storage));
    this.commands.push(command);
    this.position++;
  }

  private launch(launch: Launch): void {
    const used = [launch.out, launch.a, launch.b].flatMap((layout) =>
      layout === undefined ? [] : [layout.storage],
    );
    for (const command of launchCommands(launch)) this.push(command, used);
  }

  private copy(out: Layout, a: Layout, node: number): void {
    this.launch({ op: 'copy', node, out, a, over: [], accumulate: false, componentAxes: {} });
  }

  /** The value's own memory if the function may give it away, else a copy. */
  private result(value: Value): Storage {
    const layout = this.layout(value);
    const { storage } = layout;
    if (storage.kind === 'local' && storage.depth === 0 && isWhole(layout)) {
      storage.kind = 'result';
      return storage;
    }
    const target = this.fresh(polyType(value));
    this.copy(target, layout, this.context.nodeIndex(''));
    target.storage.kind = 'result';
    return target.storage;
  }

  // -------------------------------------------------------------- ops

  private block(block: Block): void {
    for (const op of block.ops) this.op(op);
  }

  private op(op: Op): void {
    const result = op.results[0];
    if (op.kind === 'loop') this.loop(op);
    else if (op.kind === 'call') this.call(op);
    else if (result?.type.kind === 'pt') {
      this.plainSources.set(result.id, { op, depth: this.loops.length });
    } else if (op.kind === 'poly.undefined')
      this.bind(defined(result, 'result'), this.fresh(polyType(defined(result, 'result'))));
    else if (viewKinds.has(op.kind)) this.view(op);
    else if (op.kind === 'poly.exchange') this.exchanges.emit(op, this.context.nodeIndex(op.loc));
    else this.command(op);
  }

  private view(op: Op): void {
    const a = this.layout(defined(op.operands[0], 'operand'));
    const result = defined(op.results[0], 'result');
    const { attrs } = op;
    switch (op.kind) {
      case 'poly.index':
        return this.bind(
          result,
          indexLayout(
            a,
            attrs.axis as string,
            attrs.index as number,
            (attrs.loopStride ?? 0) as number,
            this.loops.length,
          ),
        );
      case 'poly.slice':
        return this.bind(
          result,
          windowLayout(a, {
            axes: { [attrs.axis as string]: [attrs.start as number, attrs.size as number] },
          }),
        );
      case 'poly.limbs':
        return this.bind(result, windowLayout(a, { limbs: attrs.limbs as readonly number[] }));
      case 'poly.reshape':
        return this.bind(result, this.reshape(a, polyType(result), this.context.nodeIndex(op.loc)));
      default:
        invariant(false, `${op.kind} is not a view`);
    }
  }

  private reshape(a: Layout, type: PolyType, node: number): Layout {
    const reshaped = reshapedLayout(a, type.axes);
    if (reshaped !== undefined) return reshaped;
    const dense = this.fresh({ ...type, axes: a.axes });
    this.copy(dense, a, node);
    return denseLayout(dense.storage, type);
  }

  private command(op: Op): void {
    const arity = defined(commandArity(op.kind), `command ${op.kind}`);
    const into = op.operands[arity];
    const result = defined(op.results[0], 'result');
    const target = into === undefined ? this.target(op, arity, result) : this.intoLayout(op, into);
    this.bind(result, target);
    if (this.fusible.has(op) && target.storage === this.layout(defined(op.operands[0], 'operand')).storage) {
      this.pending.set(result, op);
      return;
    }
    const fused = this.fuses(op, target);
    const out = windowLayout(target, (op.attrs.window ?? {}) as Window);
    const { attrs } = op;
    const [first, second] = op.operands.slice(0, arity);
    const layoutOf = (value: Value | undefined): Layout | undefined =>
      value?.type.kind === 'poly' ? this.layout(value) : undefined;
    const a = layoutOf(first);
    const over = (attrs.over ?? []) as readonly string[];
    const sizes = [first, second].flatMap((value) =>
      value === undefined ? [] : (value.type as PolyType | PtType).axes,
    );
    const base: Launch = {
      op: fused ? 'ntt_sub_scale' : (op.kind.slice('poly.'.length) as Opcode),
      node: this.context.nodeIndex(op.loc),
      out,
      a,
      b: layoutOf(second),
      plain: this.plain(op, second, a),
      over: over.map((name) =>
        defined(
          sizes.find((axis) => axis.name === name),
          `axis ${name}`,
        ),
      ),
      accumulate: attrs.accumulate === true,
      componentAxes: componentAxesOf(op.kind),
    };
    this.launch({ ...base, ...this.details(op, first) });
  }

  /**
   * True if the command takes the pending transform of its second operand along: it writes over that operand.
   * Otherwise the transform is made now, in place.
   */
  private fuses(op: Op, target: Layout): boolean {
    const value = op.operands[1];
    const transform = value === undefined ? undefined : this.pending.get(value);
    if (value === undefined || transform === undefined) return false;
    this.pending.delete(value);
    const layout = this.layout(value);
    if (target.storage === layout.storage) return true;
    const node = this.context.nodeIndex(transform.loc);
    this.launch({ op: 'ntt', node, out: layout, a: layout, over: [], accumulate: false, componentAxes: {} });
    return false;
  }

  /** Fields of single commands. */
  private details(op: Op, first: Value | undefined): Partial<Launch> {
    const { attrs } = op;
    const turnAxis = attrs.axis as string | undefined;
    const galois = (attrs.galois ?? []) as readonly number[];
    switch (op.kind) {
      case 'poly.base_convert':
        return { sourceLimbs: polyType(defined(first, 'operand')).limbs };
      case 'poly.sub_scale':
        return { scalars: attrs.scalars as readonly number[] };
      case 'poly.automorphism':
        return { turnAxis, galois };
      case 'poly.key_product': {
        const digits = polyType(defined(first, 'operand')).axes.find((axis) => axis.name === digitAxis);
        return {
          turnAxis,
          digitCount: defined(digits, 'digit axis').size,
          firstDigit: (attrs.firstDigit ?? 0) as number,
          keys: galois.map((g) => this.context.keyIndex(attrs.key as string, g, attrs.class as string)),
        };
      }
      default:
        return {};
    }
  }

  /** Memory of a command that makes a new array: an operand that is used up, or fresh. */
  private target(op: Op, arity: number, result: Value): Layout {
    const type = polyType(result);
    const operands = op.operands.slice(0, arity);
    for (const i of inPlace[op.kind] ?? []) {
      const value = operands[i];
      if (value?.type.kind !== 'poly' || !this.lifetimes.usedUp(value, op)) continue;
      const layout = this.layout(value);
      const aliased = operands.some(
        (other) =>
          other !== value
          && other.type.kind === 'poly'
          && this.layout(other).storage === layout.storage
          && !sameLayout(this.layout(other), layout),
      );
      if (layout.storage.kind !== 'local' || aliased || !isWhole(layout) || !sameShape(value.type, type)) {
        continue;
      }
      return denseLayout(layout.storage, type);
    }
    return this.fresh(type);
  }

  private intoLayout(op: Op, into: Value): Layout {
    const layout = this.layout(into);
    invariant(layout.storage.kind === 'local', `${op.kind} does not write into an argument`);
    invariant(
      this.lifetimes.usedUp(into, op),
      `nothing reads the array that ${op.kind} writes into afterwards`,
    );
    return layout;
  }

  // -------------------------------------------------------------- plaintexts

  private plain(op: Op, p: Value | undefined, a: Layout | undefined): PlainLayout | undefined {
    if (p?.type.kind !== 'pt') return undefined;
    const { limbs } = defined(a, 'operand 0');
    const { name } = this.func;
    const encoding = this.context.plaintexts.encoding(name, p, limbs, op.attrs.scale as number);
    const rows = encoding.coefficients ? 1 : limbs.length;
    const limbStride = encoding.coefficients ? 0 : 1;
    const loopStrides = this.plainLoopStrides(p, rows * axesCount(p.type.axes));
    return { slot: this.plainSlot(p, encoding), axes: p.type.axes, rows, limbStride, loopStrides };
  }

  /** A recipe with iterations holds the rows of all of them, one iteration after the other. */
  private plainLoopStrides(p: Value, rows: number): readonly number[] {
    const source = defined(this.plainSources.get(p.id), 'plaintext');
    if (!('op' in source) || source.op.attrs.iterations === undefined) return [];
    invariant(source.depth > 0, 'iterations need an enclosing loop');
    return Array.from({ length: source.depth }, (_, k) => (k === source.depth - 1 ? rows : 0));
  }

  private plainSlot(p: Value, encoding: Encoding): number {
    const source = defined(this.plainSources.get(p.id), 'plaintext');
    const use: PlainUse =
      'op' in source
        ? { plaintext: this.context.plaintexts.add(source.op, encoding) }
        : { argument: source.argument, encoding };
    const key = JSON.stringify(use);
    const known = this.plainIndices.get(key);
    if (known !== undefined) return known;
    this.plainIndices.set(key, this.plainUses.length);
    this.plainUses.push(use);
    return this.plainUses.length - 1;
  }

  // -------------------------------------------------------------- control flow

  /**
   * Carried values have memory of their own: initial values are copied there before the loop and yields at
   * the end of the body, unless they are there already.
   */
  private loop(op: Op): void {
    const body = defined(op.regions[0], 'loop body');
    const node = this.context.nodeIndex(op.loc);
    const carried = op.operands.map((initial) => this.carriedLayout(op, initial, node));
    const outside = this.commands;
    const start = this.position++;
    carried.forEach((layout) => this.touchAt(layout.storage, start));
    this.commands = [];
    const touched = new Set<Storage>();
    this.loops.push(touched);
    body.args.forEach((arg, i) => this.bind(arg, defined(carried[i], 'carried')));
    this.block(body);
    this.yields(body, carried, node);
    this.loops.pop();
    const end = this.position++;
    for (const storage of [...touched, ...carried.map((layout) => layout.storage)]) {
      this.touchAt(storage, start);
      this.touchAt(storage, end);
    }
    outside.push({
      ...emptyCommand('loop', node),
      tripCount: op.attrs.tripCount as number,
      body: this.commands,
    });
    this.commands = outside;
    op.results.forEach((result, i) => this.bind(result, defined(carried[i], 'carried')));
  }

  private touchAt(storage: Storage, position: number): void {
    storage.first = Math.min(storage.first, position);
    storage.last = Math.max(storage.last, position);
    this.loops[storage.depth]?.add(storage);
  }

  private carriedLayout(op: Op, initial: Value, node: number): Layout {
    const layout = this.layout(initial);
    const once = op.operands.filter((other) => this.layout(other).storage === layout.storage).length === 1;
    const own =
      layout.storage.kind === 'local' && isWhole(layout) && once && this.lifetimes.usedUp(initial, op);
    if (own) return layout;
    const target = this.fresh(polyType(initial));
    this.copy(target, layout, node);
    return target;
  }

  private yields(body: Block, carried: readonly Layout[], node: number): void {
    const storages = new Set(carried.map((layout) => layout.storage));
    const moves = body.results.flatMap((value, i) => {
      const target = defined(carried[i], 'carried');
      const source = this.layout(value);
      if (source.storage === target.storage && isWhole(source)) return [];
      // A copy of another carried value must be taken before that one is overwritten.
      if (!storages.has(source.storage)) return [{ source, target }];
      const saved = this.fresh(polyType(value));
      this.copy(saved, source, node);
      return [{ source: saved, target }];
    });
    for (const { source, target } of moves) this.copy(target, source, node);
  }

  private call(op: Op): void {
    const callee = this.context.callee(op.attrs.callee as string);
    const node = this.context.nodeIndex(op.loc);
    const inputs = op.operands
      .filter((value) => value.type.kind === 'poly')
      .map((value) => this.contiguous(value, node));
    const results = op.results.map((value) => this.fresh(polyType(value)));
    const plainBindings = callee.plainArguments.map(({ argument, encoding }) =>
      this.plainSlot(defined(op.operands[argument], 'plaintext argument'), encoding),
    );
    const layouts = [...inputs, ...results];
    const command: Command = {
      ...emptyCommand('call', node),
      callee: callee.index,
      plainBindings,
      bindings: layouts.map((layout) => ({ buffer: layout.storage.id, offset: layout.offset })),
    };
    this.callFrames.push({ rows: callee.func.frameRows, first: this.position, last: this.position, command });
    this.push(
      command,
      layouts.map((layout) => layout.storage),
    );
    op.results.forEach((result, i) => this.bind(result, defined(results[i], 'result')));
  }

  /** A call binds whole rows at a fixed place: other views are copied first. */
  private contiguous(value: Value, node: number): Layout {
    const layout = this.layout(value);
    if (isDense(layout)) return layout;
    const target = this.fresh(polyType(value));
    this.copy(target, layout, node);
    return target;
  }
}

function polyType(value: Value): PolyType {
  invariant(value.type.kind === 'poly', 'value is a polynomial array');
  return value.type;
}

function componentAxesOf(kind: string): Launch['componentAxes'] {
  if (kind === 'poly.tensor') return { out: componentAxis, a: componentAxis, b: componentAxis };
  if (kind === 'poly.key_product') return { out: componentAxis, a: digitAxis };
  return {};
}

function sameShape(a: PolyType, b: PolyType): boolean {
  return (
    a.limbs.join() === b.limbs.join()
    && axesCount(a.axes) === axesCount(b.axes)
    && a.axes.every((axis, i) => axis.name === b.axes[i]?.name)
  );
}

function sameLayout(a: Layout, b: Layout): boolean {
  return (
    a.offset === b.offset
    && a.limbStride === b.limbStride
    && a.axes.every((axis) => strideOf(a, axis.name) === strideOf(b, axis.name))
  );
}
