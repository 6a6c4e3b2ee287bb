/**
 * Rescales that share their transforms with the ModDown before them: x / P, then / q_l, with nothing between
 * that reads x / P, is one division by P q_l with the bits of the two (keyswitch.ts, divideTwice).
 */
import type { Block, Func, Op } from '../../ir/module.js';
import { usesOf, type Uses } from '../../ir/rewrite.js';

/** What a ct.rescale divides: `factor` times what `source` would have divided by P itself. */
export interface MergedDivision {
  readonly source: Op;
  readonly factor: 1 | 2;
}

export interface MergedDivisions {
  /** By ct.rescale. */
  readonly rescales: ReadonlyMap<Op, MergedDivision>;
  /** Ops that leave their ModDown, or doubling, to a rescale. */
  readonly sources: ReadonlySet<Op>;
  readonly doublings: ReadonlySet<Op>;
}

/** `slots`: rotations by multiples of it are none. */
export function mergedDivisions(func: Func, slots: number): MergedDivisions {
  const uses = usesOf(func);
  const found = { rescales: new Map<Op, MergedDivision>(), sources: new Set<Op>(), doublings: new Set<Op>() };
  visit(func.body, { uses, slots, found });
  return found;
}

interface Search {
  readonly uses: Uses;
  readonly slots: number;
  readonly found: {
    readonly rescales: Map<Op, MergedDivision>;
    readonly sources: Set<Op>;
    readonly doublings: Set<Op>;
  };
}

/** Source and rescale stand in one block, so that both run equally often. */
function visit(block: Block, search: Search): void {
  const { uses, slots, found } = search;
  const makers = new Map<number, Op>();
  for (const op of block.ops) {
    op.regions.forEach((region) => visit(region, search));
    if (op.kind === 'ct.rescale') {
      const sum = makerOf(op, makers, uses, 1);
      const doubling = sum?.kind === 'ct.add' && sum.operands[0] === sum.operands[1] ? sum : undefined;
      const source = doubling === undefined ? sum : makerOf(doubling, makers, uses, 2);
      if (source !== undefined && dividesLast(source, slots)) {
        found.rescales.set(op, { source, factor: doubling === undefined ? 1 : 2 });
        found.sources.add(source);
        if (doubling !== undefined) found.doublings.add(doubling);
      }
    }
    op.results.forEach((result) => makers.set(result.id, op));
  }
}

/** The op that made operand 0, if nothing but these `count` operands of `op` reads it. */
function makerOf(op: Op, makers: ReadonlyMap<number, Op>, uses: Uses, count: number): Op | undefined {
  const [operand] = op.operands;
  if (operand === undefined || uses.yielded(operand) || uses.users(operand).length !== count)
    return undefined;
  return makers.get(operand.id);
}

/** Whether the last thing that an op does is one ModDown. */
function dividesLast(op: Op, slots: number): boolean {
  if (op.attrs.digitGroups !== undefined) return false;
  if (op.kind === 'ct.mod_down' || op.kind === 'ct.relinearize') return true;
  if (op.kind !== 'ct.rotate_each' || op.attrs.sum !== true) return false;
  const steps = op.attrs.steps as readonly number[];
  return steps.some((step) => step % slots !== 0) || (op.attrs.loopStride ?? 0) !== 0;
}
