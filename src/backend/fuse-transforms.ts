/**
 * Transforms that need no pass of their own: (a - NTT(b)) * scalar, as in ModDown and rescale, is one command
 * (kernels.h, nttSubScale). Rows of memory traffic for each row: three instead of five on a CPU whose
 * second-level cache holds a row, five instead of seven on a GPU (two passes of the transform).
 */
import type { Block, Func, Op } from '../ir/module.js';
import { viewKinds } from '../ir/ops/poly.js';

/**
 * poly.ntt ops whose result only the poly.sub_scale that follows reads, as what it subtracts. Between them
 * are views that launch nothing. Neither writes into a window.
 */
export function fusibleTransforms(func: Func): ReadonlySet<Op> {
  const uses = new Map<number, number>();
  countUses(func.body, uses);
  const found = new Set<Op>();
  visit(func.body, uses, found);
  return found;
}

function countUses(block: Block, uses: Map<number, number>): void {
  const count = ({ id }: { readonly id: number }): unknown => uses.set(id, (uses.get(id) ?? 0) + 1);
  for (const op of block.ops) {
    op.operands.forEach(count);
    op.regions.forEach((region) => countUses(region, uses));
  }
  block.results.forEach(count);
}

function visit(block: Block, uses: ReadonlyMap<number, number>, found: Set<Op>): void {
  block.ops.forEach((op, i) => {
    op.regions.forEach((region) => visit(region, uses, found));
    if (op.kind !== 'poly.ntt' || op.operands.length !== 1) return;
    const next = block.ops.slice(i + 1).find((other) => !isFreeView(other));
    const result = op.results[0];
    if (next?.kind !== 'poly.sub_scale' || next.operands.length !== 2) return;
    if (result !== undefined && next.operands[1] === result && uses.get(result.id) === 1) found.add(op);
  });
}

/** A reshape may copy. */
function isFreeView(op: Op): boolean {
  return viewKinds.has(op.kind) && op.kind !== 'poly.reshape';
}
