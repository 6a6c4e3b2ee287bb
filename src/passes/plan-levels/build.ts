/** The module that a choice of levels stands for: adjustments and bootstraps where its users need them. */
import { BlockBuilder, Ids } from '../../ir/builder.js';
import { entryName, type Block, type Func, type Module, type Op, type Value } from '../../ir/module.js';
import { ctTypeOf, levelOf } from '../expand-polynomial.js';
import { defined } from '../../support/invariant.js';
import type { Parameters } from '../../target/parameters.js';
import { bootstrapRange, finalAttrs, leveled, type ValueBounds } from './attributes.js';
import type { LevelChoice } from './problem.js';

/** Error L102: a bootstrap of a value whose range is not known. */
export function buildPlanned(module: Module, choice: LevelChoice, bounds: ValueBounds): Module {
  const ids = new Ids();
  const parameters = defined(module.parameters, 'parameters');
  const functions: Func[] = [];
  for (const func of module.functions) {
    functions.push(new PlannedFunction({ ids, parameters, choice, bounds, functions }, func).run());
  }
  return { ...module, functions };
}

interface Context {
  readonly ids: Ids;
  readonly parameters: Parameters;
  readonly choice: LevelChoice;
  readonly bounds: ValueBounds;
  /** Callees, planned. */
  readonly functions: readonly Func[];
}

/** A value of the new module, the block that defines it and the node it was made for. */
interface Placed {
  readonly value: Value;
  readonly builder: BlockBuilder;
  readonly loc: string;
}

class PlannedFunction {
  private readonly placed = new Map<number, Placed>();
  /** By old value and level. */
  private readonly copies = new Map<string, Value>();
  private readonly bootstraps = new Map<number, Value>();

  constructor(
    private readonly context: Context,
    private readonly func: Func,
  ) {}

  run(): Func {
    const { ids, parameters, choice } = this.context;
    const { name, body } = this.func;
    const boundary = name === entryName ? parameters.computeTop : choice.boundary(name);
    const types = body.args.map((arg) => leveled(arg.type, boundary));
    const builder = new BlockBuilder(ids, parameters, types);
    this.define(body.args, builder.args, builder, body.ops[0]?.loc ?? '');
    this.block(body, builder);
    const results = body.results.map((value) =>
      name === entryName ? this.asMade(value) : this.at(value, boundary),
    );
    return { ...this.func, body: builder.finish(results) };
  }

  private block(block: Block, builder: BlockBuilder): void {
    for (const op of block.ops) this.define(op.results, this.results(op, builder), builder, op.loc);
  }

  private results(op: Op, builder: BlockBuilder): readonly Value[] {
    if (op.kind === 'loop') return this.loop(op, builder);
    if (op.kind === 'call') return this.call(op, builder);
    // Made where its users are known (zero).
    if (op.kind === 'ct.zero') return op.results;
    const leads = op.operands.some(({ type }) => type.kind === 'ct');
    const level = leads ? this.context.choice.operandLevel(op) : 0;
    const operands = op.operands.map((value) => this.at(value, level));
    return [builder.op(op.kind, operands, finalAttrs(op, level), op.loc)];
  }

  private call(op: Op, builder: BlockBuilder): readonly Value[] {
    const callee = op.attrs.callee as string;
    const func = this.context.functions.find(({ name }) => name === callee);
    const types = defined(func, `function @${callee}`).body.results.map(({ type }) => type);
    const boundary = this.context.choice.boundary(callee);
    const operands = op.operands.map((value) => this.at(value, boundary));
    return builder.call(callee, operands, types, op.loc);
  }

  private loop(op: Op, builder: BlockBuilder): readonly Value[] {
    const region = defined(op.regions[0], 'body of a loop');
    const levels = region.args.map((arg) => this.context.choice.carriedLevel(arg));
    const of = (i: number): number => defined(levels[i], 'carried level');
    const initial = op.operands.map((value, i) => this.at(value, of(i)));
    return builder.loop(op.attrs.tripCount as number, initial, op.loc, (inner, carried) => {
      this.define(region.args, carried, inner, op.loc);
      this.block(region, inner);
      return region.results.map((value, i) => this.at(value, of(i)));
    });
  }

  private define(olds: readonly Value[], news: readonly Value[], builder: BlockBuilder, loc: string): void {
    olds.forEach((old, i) => this.placed.set(old.id, { value: defined(news[i], 'new value'), builder, loc }));
  }

  private placeOf(value: Value): Placed {
    return defined(this.placed.get(value.id), `new value of %${value.id}`);
  }

  /** A result of the entry: zeros that nothing was added to have no level yet. */
  private asMade(old: Value): Value {
    const { value } = this.placeOf(old);
    const open = value.type.kind === 'ct' && value.type.level === null;
    return open ? this.at(old, this.context.parameters.computeTop) : value;
  }

  /** The value at a level: as it was made, adjusted, or bootstrapped, once for all users. */
  private at(old: Value, level: number): Value {
    const { value, builder, loc } = this.placeOf(old);
    if (value.type.kind !== 'ct' || value.type.level === level) return value;
    if (value.type.level === null) return this.copy(old, level, () => this.zero(old, level));
    if (level < value.type.level)
      return this.copy(old, level, () => builder.op('ct.adjust', [value], { level }, loc));
    const refreshed = this.bootstrapped(old);
    if (levelOf(refreshed) === level) return refreshed;
    return this.copy(old, level, () => builder.op('ct.adjust', [refreshed], { level }, loc));
  }

  private copy(old: Value, level: number, make: () => Value): Value {
    const key = `${old.id} ${level}`;
    const copy = this.copies.get(key) ?? make();
    this.copies.set(key, copy);
    return copy;
  }

  private zero(old: Value, level: number): Value {
    const { value, builder, loc } = this.placeOf(old);
    const axes = ctTypeOf(value).axes.map((axis) => ({ ...axis }));
    return builder.op('ct.zero', [], { axes, level }, loc);
  }

  private bootstrapped(old: Value): Value {
    const { builder, loc } = this.placeOf(old);
    const known = this.bootstraps.get(old.id);
    if (known !== undefined) return known;
    const input = this.at(old, this.context.parameters.bootstrapInputLevel);
    const rangeLog2 = bootstrapRange(old, loc, this.context.bounds);
    const value = builder.op('ct.bootstrap', [input], { rangeLog2 }, loc);
    this.bootstraps.set(old.id, value);
    return value;
  }
}
