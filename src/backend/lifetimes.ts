/**
 * Where each array is read for the last time. Views of a value are one *group* with it; the result of a
 * command that writes `into` an array starts a new group in the same memory. A group that comes from outside
 * a loop stays alive until the loop ends, because the next iteration reads it again.
 */
import { defined } from '../support/invariant.js';
import type { Block, Func, Op, Value } from '../ir/module.js';
import { viewKinds } from '../ir/ops/poly.js';

interface Group {
  /** Number of enclosing loops at the definition. */
  readonly depth: number;
  lastUse: number;
}

export class Lifetimes {
  private readonly groups = new Map<number, Group>();
  private readonly indices = new Map<Op, number>();
  private readonly loops: Set<Group>[] = [];
  private next = 0;

  constructor(func: Func) {
    this.block(func.body);
  }

  /** True if nothing reads the value, or a view of it, after the op. */
  usedUp(value: Value, op: Op): boolean {
    return this.group(value).lastUse === defined(this.indices.get(op), 'op index');
  }

  private group(value: Value): Group {
    return defined(this.groups.get(value.id), 'group');
  }

  private define(value: Value): void {
    this.groups.set(value.id, { depth: this.loops.length, lastUse: -1 });
  }

  private use(value: Value, index: number): void {
    const group = this.group(value);
    group.lastUse = index;
    this.loops[group.depth]?.add(group);
  }

  private block(block: Block): void {
    block.args.forEach((arg) => this.define(arg));
    for (const op of block.ops) {
      const index = this.next++;
      this.indices.set(op, index);
      for (const operand of op.operands) this.use(operand, index);
      for (const region of op.regions) this.loop(region);
      for (const result of op.results) {
        if (viewKinds.has(op.kind)) {
          this.groups.set(result.id, this.group(defined(op.operands[0], 'operand')));
        } else this.define(result);
      }
    }
    const end = this.next++;
    for (const result of block.results) this.use(result, end);
  }

  private loop(body: Block): void {
    const outer = new Set<Group>();
    this.loops.push(outer);
    this.block(body);
    this.loops.pop();
    const end = this.next++;
    for (const group of outer) group.lastUse = end;
  }
}
