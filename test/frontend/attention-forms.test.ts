/** Masks, biases, batches, shared key heads and rotary embeddings: canonical attention equals ONNX Runtime. */
import { describe, expect, it } from 'vitest';
import type { Module } from '../../src/ir/module.js';
import { defined } from '../../src/support/invariant.js';
import {
  Chain,
  checkAgainstOnnxRuntime,
  floats,
  ints,
  kindsOf,
  weights,
  type TensorSpec,
} from './onnx-builder.js';

const [tokens, heads, size] = [4, 2, 4];
const width = heads * size;

interface Form {
  readonly batch?: number;
  readonly keyHeads?: number;
  readonly onScores?: (c: Chain, scores: string) => string;
  readonly onQueries?: (c: Chain, x: string) => string;
}

/** Projections, heads by Reshape and Transpose, softmax attention, heads joined again. */
function attention({ batch = 1, keyHeads = heads, onScores, onQueries }: Form) {
  const c = new Chain();
  const project = (seed: number, count: number): string => {
    const flat = c.step('MatMul', ['x', weights(seed, width, count * size)]);
    const split = c.step('Reshape', [flat, ints(batch, tokens, count, size)]);
    return c.step('Transpose', [split], { perm: [0, 2, 1, 3] });
  };
  const repeated = (x: string): string => {
    if (keyHeads === heads) return x;
    const wide = c.step('Expand', [
      c.step('Unsqueeze', [x, ints(2)]),
      ints(batch, keyHeads, heads / keyHeads, tokens, size),
    ]);
    return c.step('Reshape', [wide, ints(batch, heads, tokens, size)]);
  };
  const turn = onQueries ?? ((_: Chain, x: string) => x);
  const q = turn(c, project(1, heads));
  const k = c.step('Transpose', [repeated(turn(c, project(2, keyHeads)))], { perm: [0, 1, 3, 2] });
  const v = repeated(project(3, keyHeads));
  const scores = c.step('Mul', [c.step('MatMul', [q, k]), c.scalar(0.5)]);
  const weighted = c.step('Softmax', [onScores?.(c, scores) ?? scores], { axis: -1 });
  const joined = c.step('Transpose', [c.step('MatMul', [weighted, v])], { perm: [0, 2, 1, 3] });
  const flat = c.step('Reshape', [joined, ints(batch, tokens, width)]);
  return c.model({ x: [batch, tokens, width] }, flat);
}

function constantsOf(module: Module): Record<string, readonly number[] | undefined> {
  const op = defined(
    module.functions[0]?.body.ops.find(({ kind }) => kind === 'tensor.attention'),
    'attention',
  );
  const data = (attr: string) => module.constants.get(op.attrs[attr] as string)?.data;
  return Object.fromEntries(
    ['keep', 'bias'].map((attr) => {
      const values = data(attr);
      return [attr, values === undefined ? undefined : Array.from(values)];
    }),
  );
}

const pairs = (f: (query: number, key: number) => number): number[] =>
  Array.from({ length: tokens * tokens }, (_, i) => f(Math.floor(i / tokens), i % tokens));
const causal = pairs((q, k) => (k <= q ? 1 : 0));
const bools = (dims: number[], values: readonly number[]): TensorSpec => ({
  dims,
  bools: values.map((one) => one === 1),
});

describe('constant masks', () => {
  it.each([
    ['added, -inf', (c: Chain, s: string) => c.step('Add', [s, floats([tokens, tokens], lower(-Infinity))])],
    ['added, -1e4', (c: Chain, s: string) => c.step('Add', [floats([1, 1, tokens, tokens], lower(-1e4)), s])],
    [
      'chosen',
      (c: Chain, s: string) => c.step('Where', [bools([tokens, tokens], causal), s, c.scalar(-1e9)]),
    ],
    [
      'filled',
      (c: Chain, s: string) => {
        const closed = bools(
          [1, tokens, tokens],
          causal.map((one) => 1 - one),
        );
        return c.step('Where', [closed, c.scalar(-Infinity), s]);
      },
    ],
    [
      'made by Trilu',
      (c: Chain, s: string) => {
        const full = c.step('Expand', [c.scalar(-1e9), ints(tokens, tokens)]);
        const strict = c.step('Trilu', [full, ints(1)].slice(0, 1) as string[], { upper: 1 });
        return c.step('Add', [s, c.step('Sub', [strict, floats([tokens, tokens], diagonal(-1e9))])]);
      },
    ],
  ] as const)('causal, %s', async (_, onScores) => {
    const module = await checkAgainstOnnxRuntime(attention({ onScores }));
    expect(constantsOf(module)).toEqual({ keep: causal, bias: undefined });
  });

  it('a sliding window', async () => {
    const near = pairs((q, k) => (Math.abs(q - k) <= 1 ? 1 : 0));
    const onScores = (c: Chain, s: string) =>
      c.step('Where', [bools([tokens, tokens], near), s, c.scalar(-1e30)]);
    expect(constantsOf(await checkAgainstOnnxRuntime(attention({ onScores }))).keep).toEqual(near);
  });

  it('what is the same for all keys of a query goes', async () => {
    const onScores = (c: Chain, s: string) => c.step('Add', [s, floats([tokens, 1], [1, 2, 3, 4])]);
    const module = await checkAgainstOnnxRuntime(attention({ onScores }));
    expect(constantsOf(module)).toEqual({ keep: undefined, bias: undefined });
  });

  it('a position bias of every head, beside a causal mask', async () => {
    const onScores = (c: Chain, s: string) =>
      c.step('Add', [
        c.step('Add', [s, weights(9, 1, heads, tokens, tokens)]),
        floats([tokens, tokens], lower(-3.4e38)),
      ]);
    const { keep, bias } = constantsOf(await checkAgainstOnnxRuntime(attention({ onScores })));
    expect(keep).toEqual(causal);
    expect(bias).toHaveLength(heads * tokens * tokens);
  });
});

const lower = (closed: number): number[] => pairs((q, k) => (k <= q ? 0 : closed));
const diagonal = (value: number): number[] => pairs((q, k) => (q === k ? value : 0));

describe('heads and batches', () => {
  it('grouped queries: repeated key heads', async () => {
    const module = await checkAgainstOnnxRuntime(attention({ keyHeads: 1 }));
    expect(kindsOf(module)).toEqual(['rearrange', 'linear', 'linear', 'linear', 'attention']);
  });

  it('items of a batch are tokens that do not see each other', async () => {
    const module = await checkAgainstOnnxRuntime(attention({ batch: 3 }));
    const { keep } = constantsOf(module);
    const all = 3 * tokens;
    const item = (i: number) => Math.floor(i / tokens);
    expect(keep).toEqual(
      Array.from({ length: all * all }, (_, i) => (item(Math.floor(i / all)) === item(i % all) ? 1 : 0)),
    );
  });

  it('a causal mask in a batch', async () => {
    const onScores = (c: Chain, s: string) => c.step('Add', [s, floats([tokens, tokens], lower(-Infinity))]);
    await checkAgainstOnnxRuntime(attention({ batch: 2, onScores }));
  });

  it('the first token, and the mean over tokens, of every item', async () => {
    const c = new Chain();
    const y = c.step('Tanh', [c.step('MatMul', ['x', weights(1, width, width)])]);
    const first = c.step('Gather', [y, { dims: [], ints: [0] }], { axis: 1 });
    const mean = c.step('ReduceMean', [y], { axes: [1], keepdims: 0 });
    const sum = c.step('MatMul', [c.step('Add', [first, mean]), weights(2, width, 3)]);
    const module = await checkAgainstOnnxRuntime(c.model({ x: [2, tokens, width] }, sum));
    expect(kindsOf(module).filter((kind) => kind === 'mix_tokens')).toHaveLength(2);
  });
});

/** x cos + rotate_half(x) sin, on [batch, heads, tokens, size]; `turned` features of each head. */
function rotary(c: Chain, x: string, turned: number): string {
  const slice = (from: number, to: number, of = x) => c.step('Slice', [of, ints(from), ints(to), ints(3)]);
  const own = turned === size ? x : slice(0, turned);
  const half = c.step(
    'Concat',
    [c.step('Neg', [slice(turned / 2, turned, own)]), slice(0, turned / 2, own)],
    { axis: -1 },
  );
  const angles = (f: (x: number) => number) =>
    floats(
      [1, 1, tokens, turned],
      Array.from({ length: tokens * turned }, (_, i) =>
        f(Math.floor(i / turned) * 10 ** -((i % turned) % (turned / 2))),
      ),
    );
  const out = c.step('Add', [
    c.step('Mul', [own, angles(Math.cos)]),
    c.step('Mul', [half, angles(Math.sin)]),
  ]);
  return turned === size ? out : c.step('Concat', [out, slice(turned, size)], { axis: -1 });
}

describe('rotary embeddings', () => {
  it.each([size, size / 2])('of %i features of a head', async (turned) => {
    const module = await checkAgainstOnnxRuntime(attention({ onQueries: (c, x) => rotary(c, x, turned) }));
    const kinds = kindsOf(module);
    expect(kinds.filter((kind) => kind === 'mul_constant')).toHaveLength(4);
    expect(kinds.filter((kind) => kind === 'attention')).toHaveLength(1);
  });
});

describe('values beside values', () => {
  it('features of two values, and tokens of two values', async () => {
    const c = new Chain();
    const [a, b] = [1, 2].map((seed) =>
      c.step('Tanh', [c.step('MatMul', ['x', weights(seed, width, width)])]),
    ) as [string, string];
    const wide = c.step('MatMul', [c.step('Concat', [a, b], { axis: -1 }), weights(3, 2 * width, width)]);
    await checkAgainstOnnxRuntime(
      c.model({ x: [2, tokens, width] }, c.step('Concat', [wide, b], { axis: 1 })),
    );
  });

  it('broadcasts encrypted values, divides by them, takes roots of them', async () => {
    const c = new Chain();
    const mean = c.step('ReduceMean', ['x'], { axes: [1] });
    const centred = c.step('Sub', ['x', mean]);
    const variance = c.step('ReduceMean', [c.step('Mul', [centred, centred])], { axes: [1] });
    const deviation = c.step('Sqrt', [c.step('Add', [variance, c.scalar(1)])]);
    await checkAgainstOnnxRuntime(c.model({ x: [1, tokens, width] }, c.step('Div', [centred, deviation])));
  });

  it('a convolution over tokens, with padding and groups', async () => {
    const c = new Chain();
    const y = c.step('Tanh', [c.step('MatMul', ['x', weights(1, width, width)])]);
    const channels = c.step('Transpose', [y], { perm: [0, 2, 1] });
    const out = c.step('Conv', [channels, weights(2, width, width / 2, 3), weights(3, width)], {
      pads: [1, 1],
      group: 2,
    });
    const back = c.step('Transpose', [out], { perm: [0, 2, 1] });
    await checkAgainstOnnxRuntime(c.model({ x: [2, tokens, width] }, back));
  });
});

describe('root mean square normalisation', () => {
  it.each([
    ['Div by Sqrt', (c: Chain, m: string) => c.step('Div', ['x', c.step('Sqrt', [m])])],
    [
      'Mul by Reciprocal',
      (c: Chain, m: string) => c.step('Mul', ['x', c.step('Reciprocal', [c.step('Sqrt', [m])])]),
    ],
    ['Mul by Pow -0.5', (c: Chain, m: string) => c.step('Mul', [c.step('Pow', [m, c.scalar(-0.5)]), 'x'])],
  ] as const)('decomposed: %s', async (_, normal) => {
    const c = new Chain();
    const square = c.step('ReduceMean', [c.step('Pow', ['x', c.scalar(2)])], { axes: [-1] });
    const y = normal(c, c.step('Add', [square, c.scalar(1e-6)]));
    const module = await checkAgainstOnnxRuntime(
      c.model({ x: [1, tokens, width] }, c.step('Mul', [weights(1, width), y])),
    );
    expect(kindsOf(module)).toEqual(['rearrange', 'rms_norm']);
    expect(module.functions[0]?.body.ops.at(-1)?.attrs.epsilon).toBeCloseTo(1e-6, 9);
  });

  it('gated: SiLU of one projection times another', async () => {
    const c = new Chain();
    const gate = c.step('MatMul', ['x', weights(1, width, 2 * width)]);
    const up = c.step('MatMul', ['x', weights(2, width, 2 * width)]);
    const silu = c.step('Mul', [gate, c.step('Sigmoid', [gate])]);
    const down = c.step('MatMul', [c.step('Mul', [silu, up]), weights(3, 2 * width, width)]);
    const module = await checkAgainstOnnxRuntime(c.model({ x: [1, tokens, width] }, down));
    expect(kindsOf(module)).toEqual(['rearrange', 'linear', 'silu', 'linear', 'mul', 'linear']);
  });
});

describe('functions of one variable', () => {
  it.each([
    ['Abs', {}],
    ['Celu', { alpha: { float: 0.7 } }],
    ['Elu', { alpha: { float: 0.7 } }],
    ['Exp', {}],
    ['HardSigmoid', { alpha: { float: 0.3 } }],
    ['HardSwish', {}],
    ['LeakyRelu', { alpha: { float: 0.2 } }],
    ['Mish', {}],
    ['Selu', {}],
    ['Softplus', {}],
    ['Softsign', {}],
    ['Cos', {}],
    ['Erf', {}],
  ] as const)('%s', async (op, attrs) => {
    const c = new Chain();
    const y = c.step('MatMul', ['x', weights(1, width, width)]);
    const module = await checkAgainstOnnxRuntime(
      c.model({ x: [1, tokens, width] }, c.step(op, [y], attrs), 18),
    );
    expect(kindsOf(module)).toEqual(['rearrange', 'linear', 'function']);
  });

  it('Clip by inputs, Sum and Mean of several values', async () => {
    const c = new Chain();
    const [a, b, d] = [1, 2, 3].map((seed) => c.step('MatMul', ['x', weights(seed, width, width)])) as [
      string,
      string,
      string,
    ];
    const clipped = c.step('Clip', [c.step('Sum', [a, b, d]), c.scalar(-0.5), c.scalar(0.75)]);
    await checkAgainstOnnxRuntime(c.model({ x: [1, tokens, width] }, c.step('Mean', [clipped, a, b])));
  });
});
