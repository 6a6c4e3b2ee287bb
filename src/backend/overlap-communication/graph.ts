/**
 * A block as items with dependences. A collective is two items, its start and its wait. Besides values, order
 * is kept between the readers of an array and the op that writes into its memory.
 */
import { defined } from '../../support/invariant.js';
import type { Block, Op, Value } from '../../ir/module.js';
import { commandArity, viewKinds } from '../../ir/ops/poly.js';
import type { Costs } from './costs.js';

export interface Item {
  readonly op: Op;
  readonly role: 'op' | 'start' | 'wait';
  /** On the compute queue. */
  readonly seconds: number;
  /** On the communication queue; starts only. */
  readonly linkSeconds: number;
  readonly before: number[];
  readonly after: number[];
  /** Arrays that it reads, each once: views count as the array that they show. */
  readonly reads: number[];
  /** Array that it makes, or -1. */
  makes: number;
  /** Array whose memory the result takes over if nothing else reads it. */
  readonly takesOver: number[];
  /** Rows held from a start to its wait: positive at the start, negative at the wait. */
  readonly staging: number;
  /** Rows used only while it runs. */
  readonly temporary: number;
  /** Control flow with collectives inside: those before it must be over. */
  readonly usesLink: boolean;
  /** Views and plaintexts cost nothing, wherever they stand. */
  readonly free: boolean;
}

export interface Graph {
  readonly block: Block;
  /** In program order. */
  readonly items: readonly Item[];
  readonly arrays: readonly ArrayInfo[];
}

export interface ArrayInfo {
  readonly rows: number;
  readonly readers: number;
  /** Not made in this block, or used after it. */
  readonly stays: boolean;
  readonly outside: boolean;
  /** Memory that is used only when the first piece is written. */
  readonly unwritten: boolean;
}

/** What loops and calls take, from their bodies and callees. */
export interface Nested {
  readonly seconds: number;
  readonly rows: number;
  readonly usesLink: boolean;
}

/** Commands that may write over an operand (emit-function.ts). */
const inPlace: Readonly<Record<string, readonly number[]>> = {
  'poly.add': [0, 1],
  'poly.sub': [0, 1],
  'poly.add_plain': [0],
  'poly.ntt': [0],
  'poly.intt': [0],
  'poly.sub_scale': [1, 0],
};

export function isCollective(op: Op): boolean {
  return op.kind === 'poly.collective';
}

export function buildGraph(block: Block, costs: Costs, nested: (op: Op) => Nested): Graph {
  return new GraphBuilder(block, costs, nested).run();
}

class GraphBuilder {
  private readonly items: Item[] = [];
  private readonly arrays: {
    rows: number;
    readers: number;
    stays: boolean;
    outside: boolean;
    unwritten: boolean;
  }[] = [];
  /** Item that makes a value; array that a value shows. */
  private readonly makers = new Map<number, number>();
  private readonly arrayOf = new Map<number, number>();
  private readonly readersOf: number[][] = [];

  constructor(
    private readonly block: Block,
    private readonly costs: Costs,
    private readonly nested: (op: Op) => Nested,
  ) {}

  run(): Graph {
    for (const op of this.block.ops) this.op(op);
    for (const result of this.block.results) defined(this.arrays[this.array(result)], 'array').stays = true;
    this.arrays.forEach((array, i) => {
      array.readers = defined(this.readersOf[i], 'readers').length;
    });
    return { block: this.block, items: this.items, arrays: this.arrays };
  }

  private newArray(rows: number, outside: boolean, unwritten: boolean): number {
    this.arrays.push({ rows, readers: 0, stays: outside, outside, unwritten });
    this.readersOf.push([]);
    return this.arrays.length - 1;
  }

  private array(value: Value): number {
    const known = this.arrayOf.get(value.id);
    if (known !== undefined) return known;
    const made = this.newArray(0, true, false);
    this.arrayOf.set(value.id, made);
    return made;
  }

  private push(
    fields: Omit<Item, 'before' | 'after' | 'reads' | 'makes' | 'takesOver'>,
    operands: readonly Value[],
  ): number {
    const index = this.items.length;
    const before = new Set<number>();
    const reads = new Set<number>();
    for (const operand of operands) {
      const maker = this.makers.get(operand.id);
      if (maker !== undefined) before.add(maker);
      reads.add(this.array(operand));
    }
    for (const array of reads) defined(this.readersOf[array], 'readers').push(index);
    this.items.push({ ...fields, before: [], after: [], reads: [...reads], makes: -1, takesOver: [] });
    before.forEach((i) => this.order(i, index));
    return index;
  }

  private order(first: number, second: number): void {
    const [a, b] = [defined(this.items[first], 'item'), defined(this.items[second], 'item')];
    if (first === second) return;
    a.after.push(second);
    b.before.push(first);
  }

  private op(op: Op): void {
    if (isCollective(op)) return this.collective(op);
    const inner = op.kind === 'loop' || op.kind === 'call' ? this.nested(op) : undefined;
    const view = viewKinds.has(op.kind);
    // A reshape may copy.
    const free =
      op.results[0]?.type.kind === 'pt'
      || op.kind === 'poly.undefined'
      || (view && op.kind !== 'poly.reshape');
    const seconds = inner?.seconds ?? this.costs.seconds(op);
    const operands = [...op.operands, ...op.regions.flatMap(outerValues)];
    const rest = {
      linkSeconds: 0,
      staging: 0,
      temporary: inner?.rows ?? 0,
      usesLink: inner?.usesLink ?? false,
      free,
    };
    const index = this.push({ op, role: 'op', seconds, ...rest }, operands);
    const item = defined(this.items[index], 'item');
    const arity = commandArity(op.kind);
    const into = arity === undefined ? undefined : op.operands[arity];
    if (view) {
      const result = defined(op.results[0], 'result');
      this.makers.set(result.id, index);
      this.arrayOf.set(result.id, this.array(defined(op.operands[0], 'operand')));
      return;
    }
    if (into === undefined) {
      for (const i of inPlace[op.kind] ?? []) {
        const value = op.operands[i];
        if (value !== undefined && value.type.kind === 'poly') item.takesOver.push(this.array(value));
      }
    } else this.writes(index, into);
    // Control flow makes no more than a few results: one array stands for them.
    const rows = op.results.reduce((sum, result) => sum + this.costs.rows(result), 0);
    this.makes(index, op.results, rows, op.kind === 'poly.undefined');
  }

  private makes(index: number, results: readonly Value[], rows: number, unwritten: boolean): void {
    if (results.length === 0) return;
    const array = this.newArray(rows, false, unwritten);
    defined(this.items[index], 'item').makes = array;
    for (const result of results) {
      this.makers.set(result.id, index);
      this.arrayOf.set(result.id, array);
    }
  }

  /** All readers of the array come before the op that writes into it. */
  private writes(index: number, into: Value): void {
    const array = this.array(into);
    defined(this.items[index], 'item').takesOver.push(array);
    for (const reader of defined(this.readersOf[array], 'readers')) this.order(reader, index);
  }

  private collective(op: Op): void {
    const source = defined(op.operands[0], 'source');
    const into = op.operands[1];
    const cost = this.costs.collective(op);
    const shared = { op, temporary: 0, usesLink: false, free: false };
    const start = this.push(
      {
        ...shared,
        role: 'start',
        seconds: cost.packSeconds,
        linkSeconds: cost.seconds,
        staging: cost.stagingRows,
      },
      [source],
    );
    const wait = this.push(
      { ...shared, role: 'wait', seconds: cost.unpackSeconds, linkSeconds: 0, staging: -cost.stagingRows },
      op.operands,
    );
    this.order(start, wait);
    if (into !== undefined) this.writes(wait, into);
    this.makes(wait, op.results, this.costs.rows(defined(op.results[0], 'result')), false);
  }
}

/** Values of enclosing blocks that a block uses. */
function outerValues(block: Block): Value[] {
  const own = new Set<number>(block.args.map((arg) => arg.id));
  const outer = new Map<number, Value>();
  const use = (value: Value): void => {
    if (!own.has(value.id)) outer.set(value.id, value);
  };
  for (const op of block.ops) {
    op.operands.forEach(use);
    for (const region of op.regions) outerValues(region).forEach(use);
    op.results.forEach((result) => own.add(result.id));
  }
  block.results.forEach(use);
  return [...outer.values()];
}
