/**
 * drop-levels: every value is made at the lowest level that its users take, so that rotations and products
 * before a `ct.adjust` run on fewer limbs, and no loop adjusts the same value in every iteration. It places
 * no bootstrap and raises no level. See docs/passes/drop-levels.md.
 */
import { BlockBuilder, Ids } from '../ir/builder.js';
import type { Attrs, Block, Func, Module, Op, Value } from '../ir/module.js';
import { canonicalScale, printScale } from '../ir/scale.js';
import { defined, invariant } from '../support/invariant.js';
import { LevelNeeds } from './drop-levels/needs.js';
import { levelOf } from './expand-polynomial.js';
import { removeUnused } from './merge-duplicates.js';
import type { LevelPrices } from './plan-levels/price.js';

/** Takes a cipher module with levels and without ct.polynomial. Models of bootstraps keep their levels. */
export function dropLevels(module: Module): Module {
  const ids = new Ids();
  // What nobody uses is needed at no level.
  const functions = removeUnused(module).functions.map((func) => new Dropper(module, ids, func).run());
  return { ...module, functions };
}

/** Only in functions that are then faster: levels given by price may need more adjustments lower down. */
export function dropLevelsWhereCheaper(module: Module, prices: LevelPrices): Module {
  const [kept, dropped] = [removeUnused(module), dropLevels(module)];
  const functions = kept.functions.map((func, i) => {
    const other = defined(dropped.functions[i], 'function');
    return prices.once(other) < prices.once(func) ? other : func;
  });
  return { ...module, functions };
}

/** A value of the new module and the block that defines it. */
interface Placed {
  readonly value: Value;
  readonly builder: BlockBuilder;
}

class Dropper {
  private readonly needs: LevelNeeds;
  private readonly placed = new Map<number, Placed>();
  /** Adjusted copies by new value and level. */
  private readonly copies = new Map<string, Value>();

  constructor(
    private readonly module: Module,
    private readonly ids: Ids,
    private readonly func: Func,
  ) {
    this.needs = new LevelNeeds(func);
  }

  run(): Func {
    const { body } = this.func;
    const types = body.args.map((arg) => arg.type);
    const builder = new BlockBuilder(this.ids, this.module.parameters, types);
    this.define(body.args, builder.args, builder);
    this.block(body, builder);
    return { ...this.func, body: builder.finish(this.asTyped(body.results, '')) };
  }

  private block(block: Block, builder: BlockBuilder): void {
    for (const op of block.ops) {
      if (op.kind === 'ct.adjust') {
        const [from, to] = [defined(op.operands[0], 'operand'), defined(op.results[0], 'result')];
        this.placed.set(to.id, this.placeOf(from));
      } else this.define(op.results, this.results(op, builder), builder);
    }
  }

  private results(op: Op, builder: BlockBuilder): readonly Value[] {
    if (op.kind === 'call') {
      const types = op.results.map((value) => value.type);
      return builder.call(op.attrs.callee as string, this.asTyped(op.operands, op.loc), types, op.loc);
    }
    if (op.kind === 'loop') {
      const region = defined(op.regions[0], 'body of a loop');
      const carried = region.args.map((arg) => this.needs.level(arg));
      const initial = op.operands.map((value, i) => this.at(value, carried[i], op.loc));
      return builder.loop(op.attrs.tripCount as number, initial, op.loc, (inner, args) => {
        this.define(region.args, args, inner);
        this.block(region, inner);
        return region.results.map((value, i) => this.at(value, carried[i], op.loc));
      });
    }
    const level = this.needs.operandLevel(op);
    const operands = op.operands.map((value) => this.at(value, level, op.loc));
    return [builder.op(op.kind, operands, this.attrsAt(op, level), op.loc)];
  }

  private attrsAt(op: Op, level: number | undefined): Attrs {
    if (level === undefined || !this.needs.moved(op)) return op.attrs;
    if (op.kind === 'ct.zero') return { ...op.attrs, level };
    return op.kind === 'ct.contract' ? { ...op.attrs, scale: printScale(canonicalScale(level)) } : op.attrs;
  }

  private define(olds: readonly Value[], news: readonly Value[], builder: BlockBuilder): void {
    olds.forEach((old, i) => this.placed.set(old.id, { value: defined(news[i], 'new value'), builder }));
  }

  private placeOf(value: Value): Placed {
    return defined(this.placed.get(value.id), `new value of %${value.id}`);
  }

  /** At the levels that the old module says. */
  private asTyped(values: readonly Value[], loc: string): readonly Value[] {
    return values.map((value) => this.at(value, value.type.kind === 'ct' ? levelOf(value) : undefined, loc));
  }

  /** The value at that level: itself, or adjusted once for all users, in the block that defines it. */
  private at(old: Value, level: number | undefined, loc: string): Value {
    const { value, builder } = this.placeOf(old);
    if (value.type.kind !== 'ct' || value.type.level === level) return value;
    invariant(level !== undefined, 'a ciphertext is used at a level');
    const key = `${value.id} ${level}`;
    const copy = this.copies.get(key) ?? builder.op('ct.adjust', [value], { level }, loc);
    this.copies.set(key, copy);
    return copy;
  }
}
