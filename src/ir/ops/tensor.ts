/**
 * The tensor phase: a Transformer in canonical form. Every value is a real matrix [tokens, features]; a
 * vector is [1, features]. Only tensor.rearrange takes the inputs of the function, in their ONNX shapes.
 * Matrices that are not computed are constants of the module, named in attributes.
 */
import { namedFunctionNames } from '../../support/special-functions.js';
import type { Attrs } from '../module.js';
import type { AttrDef, OpDef } from '../opdef.js';
import type { TensorType, Type } from '../types.js';

type Shape = readonly [tokens: number, features: number];

function matrix(type: Type | undefined): Shape | undefined {
  if (type?.kind !== 'tensor' || type.dtype !== 'f32' || type.shape.length !== 2) return undefined;
  const [tokens, features] = type.shape;
  return tokens === undefined || features === undefined ? undefined : [tokens, features];
}

function tensor(shape: readonly number[]): TensorType {
  return { kind: 'tensor', dtype: 'f32', shape };
}

/** An op on matrices: `shape` gives the result's sizes or what is wrong. */
function op(
  name: string,
  operands: readonly string[],
  summary: string,
  attrs: Readonly<Record<string, AttrDef>>,
  shape: (first: Shape, all: readonly Shape[], attrs: Attrs) => readonly number[] | string,
): OpDef {
  return {
    name,
    phase: 'tensor',
    operands,
    summary,
    attrs,
    infer: (types, values) => {
      const optional = operands.filter((name) => name.endsWith('?')).length;
      const all: Shape[] = [];
      for (const type of types) {
        const own = matrix(type);
        if (own === undefined) return 'operands must be real matrices [tokens, features]';
        all.push(own);
      }
      const first = all[0];
      const missing = operands.length - all.length;
      if (first === undefined || missing < 0 || missing > optional) {
        return `expected ${operands.length} operands`;
      }
      const result = shape(first, all, values);
      return typeof result === 'string' ? result : [tensor(result)];
    },
  };
}

const constant = (doc: string): AttrDef => ({ kind: 'string', doc: `constant ${doc}` });
const optionalConstant = (doc: string): AttrDef => ({
  kind: 'string',
  optional: true,
  doc: `constant ${doc}`,
});

const elementwise = (name: string, summary: string, attrs: Readonly<Record<string, AttrDef>> = {}): OpDef =>
  op(name, ['x'], summary, attrs, (x) => x);

const pairwise = (name: string, summary: string): OpDef =>
  op(name, ['x', 'y'], summary, {}, (x, [, y]) =>
    y !== undefined && y[0] === x[0] && y[1] === x[1]
      ? x
      : `shapes [${x.join(', ')}] and [${String(y)}] differ`,
  );

const positive = (value: unknown): boolean =>
  typeof value === 'number' && Number.isInteger(value) && value >= 1;

export const tensorOps: readonly OpDef[] = [
  {
    name: 'tensor.rearrange',
    phase: 'tensor',
    operands: ['input'],
    summary:
      'element i of the result is element indices[i] of an input of the function, row-major; -1 is zero',
    attrs: {
      indices: { kind: 'string', doc: 'name of an index table of the module' },
      shape: { kind: 'ints', doc: '[tokens, features]' },
    },
    infer: (types, attrs) => {
      const shape = attrs.shape as readonly number[];
      if (types.length !== 1 || types[0]?.kind !== 'tensor') return 'operand must be a tensor';
      return shape.length === 2 && shape.every(positive)
        ? [tensor(shape)]
        : 'shape must be [tokens, features]';
    },
  },
  op(
    'tensor.linear',
    ['x'],
    'x weight^T + bias, token by token',
    {
      weight: constant('[outFeatures, features]'),
      bias: optionalConstant('[outFeatures]'),
      outFeatures: { kind: 'int', doc: 'features of the result' },
    },
    (x, _, attrs) =>
      positive(attrs.outFeatures) ? [x[0], attrs.outFeatures as number] : 'outFeatures must be positive',
  ),
  pairwise('tensor.add', 'x + y'),
  pairwise('tensor.sub', 'x - y'),
  pairwise('tensor.mul', 'x * y, element by element'),
  op(
    'tensor.scale_tokens',
    ['x', 'factors'],
    'x with every token times its factor, [tokens, 1]',
    {},
    (x, [, f]) => (f !== undefined && f[0] === x[0] && f[1] === 1 ? x : 'expected one factor for each token'),
  ),
  elementwise('tensor.add_constant', 'x + constant', {
    constant: constant('[tokens, features] or [1, features]'),
  }),
  elementwise('tensor.mul_constant', 'x * constant', {
    constant: constant('[tokens, features] or [1, features]'),
  }),
  elementwise(
    'tensor.layer_norm',
    '(x - mean) / sqrt(variance + epsilon) * gamma + beta over the features of a token',
    {
      gamma: optionalConstant('[features]'),
      beta: optionalConstant('[features]'),
      epsilon: { kind: 'real', doc: 'added to the population variance' },
    },
  ),
  elementwise('tensor.rms_norm', 'x / sqrt(mean of x^2 + epsilon) * gamma over the features of a token', {
    gamma: optionalConstant('[features]'),
    epsilon: { kind: 'real', doc: 'added to the mean square' },
  }),
  elementwise('tensor.gelu', 'x Phi(x)', {
    approximate: { kind: 'string', doc: '`none`: by erf; `tanh`: the tanh form' },
  }),
  elementwise('tensor.relu', 'max(x, 0)'),
  elementwise('tensor.tanh', 'tanh(x)'),
  elementwise('tensor.sigmoid', '1 / (1 + exp(-x))'),
  elementwise('tensor.silu', 'x / (1 + exp(-x))'),
  elementwise('tensor.function', 'a function of every element, from support/special-functions.ts', {
    name: { kind: 'string', doc: namedFunctionNames.map((name) => `\`${name}\``).join(', ') },
    alpha: { kind: 'real', optional: true, doc: 'first parameter' },
    beta: { kind: 'real', optional: true, doc: 'second parameter' },
  }),
  op(
    'tensor.attention',
    ['q', 'k', 'v', 'mask?'],
    'per head h: softmax(scale q_h k_h^T + bias) v_h over the keys whose mask is 1 (0: padding) and that '
      + 'keep lets through; head h has the features h*d .. h*d+d-1; mask is [keys, 1]',
    {
      heads: { kind: 'int', doc: 'number of heads' },
      scale: { kind: 'real', doc: 'factor of the scores' },
      cap: {
        kind: 'real',
        optional: true,
        doc: 'scores become cap tanh(score / cap) before the softmax; not beside a bias',
      },
      keep: optionalConstant('[queries, keys]: 1 where a query sees a key, else 0; every query sees one'),
      bias: optionalConstant('[queries, keys] or [heads, queries, keys]: added to the scores'),
    },
    (q, [, k, v, mask], attrs) => {
      const heads = attrs.heads as number;
      if (k === undefined || v === undefined || k[1] !== q[1] || k[0] !== v[0]) {
        return 'q, k and v do not fit';
      }
      if (mask !== undefined && (mask[0] !== k[0] || mask[1] !== 1)) return 'the mask is not [keys, 1]';
      return q[1] % heads === 0 && v[1] % heads === 0
        ? [q[0], v[1]]
        : `features do not split into ${heads} heads`;
    },
  ),
  op(
    'tensor.concat_tokens',
    ['x'],
    'constant tokens put before or after those of x',
    {
      constant: constant('[count, features]'),
      before: { kind: 'bool', doc: 'constant first' },
      count: { kind: 'int', doc: 'number of constant tokens' },
    },
    (x, _, attrs) =>
      positive(attrs.count) ? [x[0] + (attrs.count as number), x[1]] : 'count must be positive',
  ),
  op(
    'tensor.select_tokens',
    ['x'],
    'tokens first .. first+count-1',
    { first: { kind: 'int', doc: 'first token' }, count: { kind: 'int', doc: 'number of tokens' } },
    (x, _, attrs) => {
      const [first, count] = [attrs.first as number, attrs.count as number];
      return first >= 0 && positive(count) && first + count <= x[0]
        ? [count, x[1]]
        : `tokens ${first}+${count} of ${x[0]}`;
    },
  ),
  op(
    'tensor.mix_tokens',
    ['x'],
    'weight x: linear in the tokens, the same for every feature',
    { weight: constant('[count, tokens]'), count: { kind: 'int', doc: 'tokens of the result' } },
    (x, _, attrs) => (positive(attrs.count) ? [attrs.count as number, x[1]] : 'count must be positive'),
  ),
  op('tensor.mean_tokens', ['x'], 'mean over the tokens: [1, features]', {}, (x) => [1, x[1]]),
];
