/**
 * merge-duplicates: ops of one block with equal kind, operands and attributes become one (rotations of a
 * hidden state
 * that Q, K and V all read; equal masks), and ops whose results nobody uses go. From any phase to the same.
 */
import type { Block, Module, Op, Value } from '../ir/module.js';
import { rewriteModule } from '../ir/rewrite.js';

export function mergeDuplicates(module: Module): Module {
  const seen = new Map<Block, Map<string, readonly Value[]>>();
  const merged = rewriteModule(module, (op, site) => {
    if (op.regions.length > 0 || op.kind === 'call') return undefined;
    const known = seen.get(site.block) ?? new Map<string, readonly Value[]>();
    seen.set(site.block, known);
    const key = `${op.kind} ${site.operands.map((value) => value.id).join()} ${JSON.stringify(op.attrs)}`;
    const results = known.get(key) ?? site.copy(op);
    known.set(key, results);
    return results;
  });
  return removeUnused(merged);
}

/** Drops ops without used results; loops and calls stay if any of theirs is used. */
export function removeUnused(module: Module): Module {
  return {
    ...module,
    functions: module.functions.map((func) => ({ ...func, body: prune(func.body, new Set()) })),
  };
}

function prune(block: Block, used: Set<number>): Block {
  for (const value of block.results) used.add(value.id);
  const ops: Op[] = [];
  for (const op of [...block.ops].reverse()) {
    if (!op.results.some((value) => used.has(value.id))) continue;
    const regions = op.regions.map((region) => prune(region, used));
    for (const operand of op.operands) used.add(operand.id);
    ops.push({ ...op, regions });
  }
  return { ...block, ops: ops.reverse() };
}
