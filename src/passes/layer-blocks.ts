/**
 * Which part of a layer each node belongs to, for reports: attention or the feed-forward network. A linear
 * layer
 * belongs to the attention or activation that reads it; everything else to what it follows.
 */
import type { LayerBlock, Module, Op, Value } from '../ir/module.js';
import { entryName } from '../ir/module.js';
import { defined } from '../support/invariant.js';

const anchors: Readonly<Record<string, LayerBlock>> = {
  'tensor.attention': 'attention',
  'tensor.gelu': 'ffn',
  'tensor.relu': 'ffn',
  'tensor.silu': 'ffn',
  'tensor.function': 'ffn',
  'tensor.sigmoid': 'ffn',
  'tensor.tanh': 'ffn',
};
/** Ops between a linear layer and what reads it. */
const transparent = new Set([
  'tensor.linear',
  'tensor.rearrange',
  'tensor.mul_constant',
  'tensor.add_constant',
  'tensor.scale_tokens',
]);

/** Of a tensor module, by ONNX node; nodes outside of layers are not listed. */
export function layerBlocks(module: Module): ReadonlyMap<string, LayerBlock> {
  const { ops } = defined(
    module.functions.find((func) => func.name === entryName),
    'main',
  ).body;
  const users = new Map<number, Op[]>();
  for (const op of ops) for (const { id } of op.operands) users.set(id, [...(users.get(id) ?? []), op]);
  const readBy = (value: Value): LayerBlock | undefined => {
    for (const user of users.get(value.id) ?? []) {
      const found = anchors[user.kind] ?? (transparent.has(user.kind) ? readBy(resultOf(user)) : undefined);
      if (found !== undefined) return found;
    }
    return undefined;
  };
  const blocks = new Map<string, LayerBlock>();
  /** Position and block of the last anchor that a value depends on. */
  const behind = new Map<number, { position: number; block: LayerBlock }>();
  ops.forEach((op, position) => {
    const own = anchors[op.kind];
    const before = op.operands
      .flatMap((value) => behind.get(value.id) ?? [])
      .reduce<{ position: number; block: LayerBlock } | undefined>(
        (last, one) => (last === undefined || one.position > last.position ? one : last),
        undefined,
      );
    const anchor = own === undefined ? before : { position, block: own };
    if (anchor !== undefined) for (const { id } of op.results) behind.set(id, anchor);
    const reader = transparent.has(op.kind) ? readBy(resultOf(op)) : undefined;
    const block = own ?? reader ?? before?.block;
    if (block !== undefined && !blocks.has(op.loc)) blocks.set(op.loc, block);
  });
  return blocks;
}

function resultOf(op: Op): Value {
  return defined(op.results[0], `result of ${op.kind}`);
}
