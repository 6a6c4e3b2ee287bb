/**
 * Copies a module through the builder, replacing ops on the way. All passes of the cipher phase are built on
 * it: a pass is a function from one op with its new operands to the values that stand for the op's results.
 */
import { defined, invariant } from '../support/invariant.js';
import { BlockBuilder, Ids } from './builder.js';
import { opDef } from './ops/table.js';
import type { Block, Func, Module, Op, Value } from './module.js';
import type { Type } from './types.js';

export interface RewriteSite {
  /** Builder of the block that the op stands in. */
  readonly builder: BlockBuilder;
  /** The op's operands in the new module. */
  readonly operands: readonly Value[];
  /** The block that the op stands in, before the rewrite. */
  readonly block: Block;
  readonly func: Func;
  /** The new value of any earlier value of the old module. */
  readonly mapped: (value: Value) => Value;
  /** Copies an op as it is. */
  readonly copy: (op: Op) => readonly Value[];
}

/** The values that replace the op's results, or undefined to copy the op. */
export type Replace = (op: Op, site: RewriteSite) => readonly Value[] | undefined;

export interface RewriteOptions {
  /** New type of a function argument; without it arguments keep their types. */
  readonly argType?: (type: Type, func: Func) => Type;
  /** Functions to copy without asking `replace`. */
  readonly keep?: (func: Func) => boolean;
}

/** A new module in which `replace` was asked about every op, in program order, outer before inner. */
export function rewriteModule(module: Module, replace: Replace, options: RewriteOptions = {}): Module {
  const rewriter = new Rewriter(module, replace, options);
  return { ...module, functions: module.functions.map((func) => rewriter.func(func)) };
}

/** Finds the ops that use each value, results of blocks counted apart; the other half of most patterns. */
export interface Uses {
  readonly users: (value: Value) => readonly Op[];
  /** True if a block yields the value. */
  readonly yielded: (value: Value) => boolean;
}

export function usesOf(func: Func): Uses {
  const users = new Map<number, Op[]>();
  const yielded = new Set<number>();
  const visit = (block: Block): void => {
    for (const op of block.ops) {
      for (const operand of op.operands) users.set(operand.id, [...(users.get(operand.id) ?? []), op]);
      op.regions.forEach(visit);
    }
    block.results.forEach((value) => yielded.add(value.id));
  };
  visit(func.body);
  return { users: (value) => users.get(value.id) ?? [], yielded: (value) => yielded.has(value.id) };
}

class Rewriter {
  private readonly ids = new Ids();
  private readonly resultTypes: Map<string, readonly Type[]>;
  constructor(
    private readonly module: Module,
    private readonly replace: Replace,
    private readonly options: RewriteOptions,
  ) {
    // Callees that come later still have their old types; a pass that changes types puts callees first.
    const types = module.functions.map(({ name, body }) => [name, body.results.map((r) => r.type)] as const);
    this.resultTypes = new Map(types);
  }

  func(func: Func): Func {
    const argType = this.options.argType ?? ((type: Type) => type);
    const types = func.body.args.map((arg) => argType(arg.type, func));
    const builder = new BlockBuilder(this.ids, this.module.parameters, types);
    const values = new Map<number, Value>();
    func.body.args.forEach((arg, i) => values.set(arg.id, defined(builder.args[i], 'argument')));
    const body = builder.finish(this.block(func.body, builder, values, func));
    this.resultTypes.set(
      func.name,
      body.results.map((value) => value.type),
    );
    return { ...func, body };
  }

  /** Copies the ops of a block and returns the new values of its results. */
  private block(
    block: Block,
    builder: BlockBuilder,
    values: Map<number, Value>,
    func: Func,
  ): readonly Value[] {
    const mapped = (value: Value) => defined(values.get(value.id), `new value of %${value.id}`);
    const copy = (op: Op) => this.copy(op, builder, values, func);
    for (const op of block.ops) {
      const site = { builder, operands: op.operands.map(mapped), block, func, mapped, copy };
      const results = (this.options.keep?.(func) === true ? undefined : this.replace(op, site)) ?? copy(op);
      invariant(results.length === op.results.length, `${op.kind} was replaced by ${results.length} values`);
      op.results.forEach((result, i) => values.set(result.id, defined(results[i], 'replacement')));
    }
    return block.results.map(mapped);
  }

  private copy(op: Op, builder: BlockBuilder, values: Map<number, Value>, func: Func): readonly Value[] {
    const operands = op.operands.map((value) => defined(values.get(value.id), `new value of %${value.id}`));
    if (op.kind === 'loop') {
      const region = defined(op.regions[0], 'body of a loop');
      return builder.loop(op.attrs.tripCount as number, operands, op.loc, (inner, carried) => {
        region.args.forEach((arg, i) => values.set(arg.id, defined(carried[i], 'carried value')));
        return this.block(region, inner, values, func);
      });
    }
    if (op.kind === 'call') {
      const callee = op.attrs.callee as string;
      const types = this.resultTypes.get(callee) ?? op.results.map((value) => value.type);
      return builder.call(callee, operands, types, op.loc);
    }
    invariant(op.regions.length === 0 && opDef(op.kind).phase !== 'any', `${op.kind} cannot be copied`);
    return [builder.op(op.kind, operands, op.attrs, op.loc)];
  }
}
