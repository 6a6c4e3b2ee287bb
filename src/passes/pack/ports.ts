/**
 * How the client packs an input: data movement on the model's inputs costs nothing, because the client does
 * it.
 */
import type { Block, Module, SlotMap, Value } from '../../ir/module.js';
import { AegisError } from '../../support/diagnostics.js';
import { defined, invariant } from '../../support/invariant.js';
import { repeated } from './context.js';
import { plainFeatures } from './layout.js';

export interface PackedInput {
  /** The tensor value that the ciphertexts stand for: the argument, or its rearrangement. */
  readonly value: Value;
  readonly slots: SlotMap;
  readonly tokens: number;
  readonly featureCount: number;
  /** Multiplies tokens: the value stands in every slot of its token. */
  readonly isFactor: boolean;
}

/** Tokens of a tensor value: the product of all dimensions but the last. */
export function tokensOf(value: Value): number {
  invariant(value.type.kind === 'tensor', 'expected a tensor');
  return value.type.shape.slice(0, -1).reduce((a, b) => a * b, 1);
}

export function inputSlots(
  module: Module,
  block: Block,
  arg: Value,
  index: number,
  { period, groups, tokenBlocks }: { period: number; groups: number; tokenBlocks: number },
): PackedInput {
  const users = block.ops.filter((op) => op.operands.includes(arg));
  const moves = users.filter((op) => op.kind === 'tensor.rearrange');
  const port = defined(module.inputs[index], 'input port');
  if (moves.length > 1 || (moves.length === 1 && users.length > 1)) {
    throw new AegisError({
      code: 'A115',
      node: port.name,
      pass: 'pack',
      message: `the input is read in ${users.length} different arrangements`,
      help: 'give the model one input per arrangement',
    });
  }
  const move = moves[0];
  const value = move?.results[0] ?? arg;
  invariant(value.type.kind === 'tensor', 'inputs are tensors');
  const featureCount = value.type.shape.at(-1) ?? 1;
  const tokens = tokensOf(value);
  const indices =
    move === undefined
      ? Int32Array.from({ length: tokens * featureCount }, (_, i) => i)
      : defined(module.tables.get(move.attrs.indices as string), 'indices of a rearrangement');
  const split = separate(indices, tokens, featureCount);
  if (split === undefined) {
    throw new AegisError({
      code: 'A116',
      node: move?.loc ?? port.name,
      pass: 'pack',
      message: 'the arrangement of the input is not a sum of a token offset and a feature offset',
      help: 'arrange the input before the model',
    });
  }
  const plain = plainFeatures(featureCount, period).map((f) =>
    f < 0 ? -1 : defined(split.features[f], 'offset'),
  );
  const isFactor = featureCount === 1 && readAsFactor(block, value);
  const features = isFactor ? new Int32Array(period).fill(defined(plain[0], 'offset')) : plain;
  const blocks = tokens > groups ? tokenBlocks : 1;
  const slotTokens = Int32Array.from({ length: blocks * groups }, (_, t) =>
    t < tokens ? defined(split.tokens[t], 'offset') : -1,
  );
  return { value, slots: slotMap(period, blocks, features, slotTokens), tokens, featureCount, isFactor };
}

/** Factors of tokens stand in every slot of their token, so that they meet any layout. */
function readAsFactor(block: Block, value: Value): boolean {
  const users = block.ops.filter((op) => op.operands.includes(value));
  return users.every((op) => {
    const at = op.kind === 'tensor.attention' ? 3 : op.kind === 'tensor.scale_tokens' ? 1 : -1;
    return op.operands.every((operand, i) => operand !== value || i === at);
  });
}

export function slotMap(period: number, blocks: number, features: Int32Array, tokens: Int32Array): SlotMap {
  if (blocks === 1) return { period, features, tokens };
  return { period, blocks, features: repeated(features, blocks), tokens };
}

/** Writes index(t, f) as tokens[t] + features[f], zero (-1) where a whole token or a whole feature is. */
function separate(
  indices: Int32Array,
  tokens: number,
  width: number,
): { tokens: Int32Array; features: Int32Array } | undefined {
  const at = (t: number, f: number) => indices[t * width + f] ?? -1;
  const range = (n: number) => Array.from({ length: n }, (_, i) => i);
  const liveTokens = range(tokens).filter((t) => range(width).some((f) => at(t, f) >= 0));
  const liveFeatures = range(width).filter((f) => range(tokens).some((t) => at(t, f) >= 0));
  const result = { tokens: new Int32Array(tokens).fill(-1), features: new Int32Array(width).fill(-1) };
  const f0 = liveFeatures[0];
  if (f0 === undefined) return result;
  const base = Math.min(...liveTokens.map((t) => at(t, f0)));
  const first = defined(
    liveTokens.find((t) => at(t, f0) === base),
    'token with the least index',
  );
  for (const t of liveTokens) result.tokens[t] = at(t, f0) - base;
  for (const f of liveFeatures) result.features[f] = at(first, f);
  const separable = range(tokens).every((t) =>
    range(width).every((f) => {
      const [a, b] = [result.tokens[t] ?? -1, result.features[f] ?? -1];
      return at(t, f) === (a < 0 || b < 0 ? -1 : a + b);
    }),
  );
  return separable ? result : undefined;
}
