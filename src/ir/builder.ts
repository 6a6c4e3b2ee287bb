/** The only maker of ops. Result types come from the op table; a refusal is our bug (InvariantError). */
import { defined, invariant } from '../support/invariant.js';
import type { Parameters } from '../target/parameters.js';
import type { Attrs, Block, Op, Value } from './module.js';
import { declaredByCaller } from './opdef.js';
import { opDef } from './ops/table.js';
import type { Type } from './types.js';

/** Hands out value ids from `next` on; one per module under construction. */
export class Ids {
  constructor(private next = 0) {}

  fresh(type: Type): Value {
    return { id: this.next++, type };
  }
}

export class BlockBuilder {
  readonly args: Value[];
  private readonly ops: Op[] = [];
  constructor(
    readonly ids: Ids,
    readonly parameters: Parameters | null,
    argTypes: readonly Type[] = [],
  ) {
    this.args = argTypes.map((type) => ids.fresh(type));
  }

  /** Appends an op with one result and returns it. */
  op(kind: string, operands: readonly Value[], attrs: Attrs, loc: string): Value {
    const types = opDef(kind).infer(
      operands.map((value) => value.type),
      attrs,
      { parameters: this.parameters },
    );
    invariant(typeof types !== 'string', `${kind}: ${String(types)} (at "${loc}")`);
    const results = types.map((type) => this.ids.fresh(type));
    this.ops.push({ kind, operands, attrs, results, regions: [], loc });
    return defined(results[0], `result of ${kind}`);
  }

  /** Adds attributes to the op that made the value, if it is one of this block with this result only. */
  annotate(value: Value, attrs: Attrs): void {
    const at = this.ops.findLastIndex((op) => op.results[0] === value && op.results.length === 1);
    const op = this.ops[at];
    if (op !== undefined) this.ops[at] = { ...op, attrs: { ...op.attrs, ...attrs } };
  }

  /**
   * A loop: `body` gets a builder whose block arguments are the carried values and returns what it yields.
   */
  loop(
    tripCount: number,
    initial: readonly Value[],
    loc: string,
    body: (inner: BlockBuilder, carried: readonly Value[]) => readonly Value[],
  ): readonly Value[] {
    const inner = new BlockBuilder(
      this.ids,
      this.parameters,
      initial.map((value) => value.type),
    );
    const block = inner.finish(body(inner, inner.args));
    const results = initial.map((value) => this.ids.fresh(value.type));
    this.ops.push({ kind: 'loop', operands: initial, attrs: { tripCount }, results, regions: [block], loc });
    return results;
  }

  call(
    callee: string,
    operands: readonly Value[],
    resultTypes: readonly Type[],
    loc: string,
  ): readonly Value[] {
    invariant(
      opDef('call').infer([], {}, { parameters: null }) === declaredByCaller,
      'call declares its results',
    );
    const results = resultTypes.map((type) => this.ids.fresh(type));
    this.ops.push({ kind: 'call', operands, attrs: { callee }, results, regions: [], loc });
    return results;
  }

  finish(results: readonly Value[]): Block {
    return { args: this.args, ops: this.ops, results };
  }
}
