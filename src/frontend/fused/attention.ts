/** Fused attentions and embeddings of ONNX Runtime (its docs/ContribOperators.md) by standard operators. */
import { ExpansionBuilder, int64, int64s, scalar } from './builder.js';

const attentionNames = ['mask_filter_value', 'num_heads', 'scale', 'unidirectional'];
/** ONNX Runtime's default of mask_filter_value. */
const defaultFill = -10000;

/**
 * 1 for tokens and 0 for padding as [batch, 1, 1, keys], added to the scores as 0 and mask_filter_value. The
 * mask is [batch, keys], or [batch]: the number of tokens.
 */
function additiveMask(b: ExpansionBuilder, index: number, keys: number): string {
  const shape = b.shape(index);
  const fill = scalar(b.number('mask_filter_value', defaultFill));
  let mask = b.input(index);
  if (shape.length === 1) {
    const range = b.step('Range', [int64(0), int64(keys), int64(1)]);
    const lengths = b.step('Cast', [b.step('Unsqueeze', [mask, int64s(1)])], { to: 7 });
    mask = b.step('Less', [range, lengths]);
  } else if (shape.length !== 2 || shape[1] !== keys) {
    return b.fail(`a mask of shape [${shape.join(', ')}]`, 'give one of [batch, tokens]');
  }
  const closed = b.step('Sub', [scalar(1), b.step('Cast', [mask], { to: 1 })]);
  return b.step('Unsqueeze', [b.step('Mul', [closed, fill]), int64s(1, 2)]);
}

/** Standard Attention on [batch, tokens, features], with what is added to the scores. */
function standardAttention(
  b: ExpansionBuilder,
  [q, k, v]: readonly [string, string, string],
  heads: number,
  added: readonly string[],
): string {
  const mask = added.length < 2 ? added[0] : b.step('Add', [...added]);
  const scale = b.number('scale', 0);
  return b.step('Attention', [q, k, v, mask], {
    q_num_heads: heads,
    kv_num_heads: heads,
    is_causal: b.number('unidirectional', 0),
    ...(scale === 0 ? {} : { scale }),
  });
}

/** input, weights [in, 3 hidden], bias, mask, past, added to the scores. */
export function attention(b: ExpansionBuilder): void {
  b.allow(...attentionNames, 'qkv_hidden_sizes');
  b.only(0, 1, 2, 3, 5);
  const [width = 0] = b.shape(1).slice(-1);
  const sizes = b.numbers('qkv_hidden_sizes') ?? [width / 3, width / 3, width / 3];
  const product = b.step('MatMul', [b.input(0), b.input(1)]);
  const all = b.has(2) ? b.step('Add', [product, b.input(2)]) : product;
  const [q = '', k = '', v = ''] = b.steps('Split', [all, int64s(...sizes)], 3, { axis: -1 });
  const added = b.has(3) ? [additiveMask(b, 3, b.shape(0)[1] ?? 0)] : [];
  if (b.has(5)) added.push(b.input(5));
  b.result(0, standardAttention(b, [q, k, v], b.number('num_heads', 0), added));
}

/** query, key, value, bias of all three, padding mask, added to the scores, caches. */
export function multiHeadAttention(b: ExpansionBuilder): void {
  b.allow(...attentionNames);
  b.only(0, 1, 2, 3, 4, 5);
  const inputs = [0, 1, 2];
  if (inputs.some((i) => !b.has(i) || b.shape(i).length !== 3)) {
    return b.fail('packed queries, keys and values', 'export them as three inputs');
  }
  const sizes = inputs.map((i) => b.shape(i)[2] ?? 0);
  const biases = b.has(3) ? b.steps('Split', [b.input(3), int64s(...sizes)], 3, { axis: 0 }) : [];
  const [q = '', k = '', v = ''] = inputs.map((i) => {
    const bias = biases[i];
    return bias === undefined ? b.input(i) : b.step('Add', [b.input(i), bias]);
  });
  const added = b.has(4) ? [additiveMask(b, 4, b.shape(1)[1] ?? 0)] : [];
  if (b.has(5)) added.push(b.input(5));
  b.result(0, standardAttention(b, [q, k, v], b.number('num_heads', 0), added));
}

/**
 * ids, segments, tables of words, positions and segments, gamma, beta, mask, positions. The second output is
 * the mask itself and not the number of its tokens: both mean the same to the attention that reads it.
 */
export function embedLayerNorm(b: ExpansionBuilder): void {
  b.allow('epsilon', 'mask_index_type');
  const [, tokens = 0] = b.shape(0);
  const words = b.step('Gather', [b.input(2), b.input(0)]);
  const positions = b.has(8) ? b.input(8) : b.step('Range', [int64(0), int64(tokens), int64(1)]);
  let sum = b.step('Add', [words, b.step('Gather', [b.input(3), positions])]);
  if (b.has(1) && b.has(4)) sum = b.step('Add', [sum, b.step('Gather', [b.input(4), b.input(1)])]);
  const epsilon = b.number('epsilon', 1e-12);
  b.result(0, b.step('LayerNormalization', [sum, b.input(5), b.input(6)], { axis: -1, epsilon }));
  const one = { dtype: 'int32', shape: [], data: Int32Array.of(1) } as const;
  b.result(1, b.has(7) ? b.input(7) : b.step('Expand', [one, int64s(...b.shape(0))]));
  b.result(2, sum);
}

/**
 * X cos + turned(X) sin on the first features of every head, standard RotaryEmbedding of opset 23: turned is
 * (-x2, x1) of the two halves, or of neighbours when interleaved.
 */
export function rotaryEmbedding(b: ExpansionBuilder): void {
  b.allow('interleaved', 'num_heads', 'rotary_embedding_dim');
  const shape = b.shape(0);
  const flat = shape.length === 3;
  const heads = flat ? b.number('num_heads', 0) : (shape[1] ?? 0);
  const tokens = shape.at(-2) ?? 0;
  const tokenCount = flat ? (shape[1] ?? 0) : tokens;
  const size = flat ? (shape[2] ?? 0) / heads : (shape[3] ?? 0);
  if (heads < 1 || !Number.isInteger(size)) return b.fail('the number of heads does not divide the features');
  const given = b.number('rotary_embedding_dim', 0);
  const turned = given === 0 ? size : given;
  const x = flat
    ? b.step('Transpose', [b.step('Reshape', [b.input(0), int64s(shape[0] ?? 1, tokenCount, heads, size)])], {
        perm: [0, 2, 1, 3],
      })
    : b.input(0);
  const part = (of: string, from: number, to: number, step = 1): string =>
    b.step('Slice', [of, int64s(from), int64s(to), int64s(3), int64s(step)]);
  const own = turned === size ? x : part(x, 0, turned);
  const interleaved = b.number('interleaved', 0) !== 0;
  const pair = (first: string, second: string, dims: readonly number[]): string => {
    if (!interleaved) return b.step('Concat', [first, second], { axis: -1 });
    const wide = [first, second].map((one) => b.step('Unsqueeze', [one, int64s(-1)]));
    return b.step('Reshape', [b.step('Concat', wide, { axis: -1 }), int64s(...dims)]);
  };
  const angles = (index: number): string => {
    const cache = b.has(3) ? b.step('Gather', [b.input(index), b.input(3)]) : b.input(index);
    const each = b.step('Unsqueeze', [cache, int64s(1)]);
    return pair(each, each, [-1, 1, tokenCount, turned]);
  };
  const half = turned / 2;
  const [x1, x2] = interleaved
    ? [part(own, 0, turned, 2), part(own, 1, turned, 2)]
    : [part(own, 0, half), part(own, half, turned)];
  const dims = [shape[0] ?? 1, heads, tokenCount, turned];
  const other = pair(b.step('Neg', [x2]), x1, dims);
  const sum = b.step('Add', [b.step('Mul', [own, angles(1)]), b.step('Mul', [other, angles(2)])]);
  const whole = turned === size ? sum : b.step('Concat', [sum, part(x, turned, size)], { axis: -1 });
  if (!flat) return b.result(0, whole);
  const back = b.step('Transpose', [whole], { perm: [0, 2, 1, 3] });
  b.result(0, b.step('Reshape', [back, int64s(...shape)]));
}
