import { describe, expect, it } from 'vitest';
import {
  Chain,
  checkAgainstOnnxRuntime,
  floats,
  ints,
  kindsOf,
  weights,
  type TensorSpec,
} from './onnx-builder.js';

const [T, F] = [5, 8];
const x = { x: [1, T, F] };

/** x W (+ b), the bias first as TorchScript writes it, or last. */
function linear(c: Chain, input: string, seed: number, from: number, to: number, biasFirst = false): string {
  const product = c.step('MatMul', [input, weights(seed, from, to)]);
  const bias = weights(seed + 50, to);
  return biasFirst ? c.step('Add', [bias, product]) : c.step('Add', [product, bias]);
}

describe('linear layers', () => {
  it('MatMul and Add in both orders, with factors and constants folded in', async () => {
    const c = new Chain();
    const a = linear(c, 'x', 1, F, 6);
    const b = linear(c, c.step('Mul', [a, c.scalar(0.5)]), 2, 6, 6, true);
    const scaled = c.step('Mul', [b, weights(3, 6)]);
    const module = await checkAgainstOnnxRuntime(c.model(x, c.step('Sub', [scaled, weights(4, 1, 6)])));
    expect(kindsOf(module)).toEqual(['rearrange', 'linear', 'linear']);
  });

  it.each([
    [0, 0],
    [0, 1],
    [1, 1],
  ])('Gemm with transA=%i, transB=%i, alpha and beta', async (transA, transB) => {
    const c = new Chain();
    const w = transB === 1 ? weights(1, 6, F) : weights(1, F, 6);
    const out = c.step('Gemm', ['x', w, weights(2, 6)], {
      transA,
      transB,
      alpha: { float: 0.5 },
      beta: { float: 2 },
    });
    const module = await checkAgainstOnnxRuntime(c.model({ x: transA === 1 ? [F, T] : [T, F] }, out));
    expect(kindsOf(module)).toEqual(['rearrange', 'linear']);
  });

  it('a constant from the left is a linear layer on the transposed value', async () => {
    const c = new Chain();
    const turned = c.step('Transpose', ['x'], { perm: [0, 2, 1] });
    const product = c.step('MatMul', [weights(1, 6, F), turned]);
    const module = await checkAgainstOnnxRuntime(
      c.model(x, c.step('Transpose', [product], { perm: [0, 2, 1] })),
    );
    expect(kindsOf(module)).toEqual(['rearrange', 'linear']);
  });

  it('Conv with kernel = stride, and an overlapping padded one on an input', async () => {
    for (const [attrs, tokens, shifts] of [
      [{ kernel_shape: [2, 2], strides: [2, 2] }, 16, 0],
      [{ kernel_shape: [3, 3], pads: [1, 1, 1, 1], strides: [2, 2] }, 16, 9],
    ] as const) {
      const c = new Chain();
      const conv = c.step('Conv', ['x', weights(1, 6, 3, ...attrs.kernel_shape), weights(2, 6)], attrs);
      const flat = c.step('Reshape', [conv, ints(1, 6, -1)]);
      const out = c.step('Transpose', [flat], { perm: [0, 2, 1] });
      const module = await checkAgainstOnnxRuntime(c.model({ x: [1, 3, 8, 8] }, out));
      const kinds = kindsOf(module);
      expect(kinds[0]).toBe('rearrange');
      expect(kinds.filter((kind) => kind === 'mix_tokens')).toHaveLength(shifts);
      expect(module.outputs[0]?.shape).toEqual([tokens, 6]);
    }
  });

  it('BatchNormalization over channels moves into the linear layers behind it', async () => {
    const c = new Chain();
    const first = c.step('Add', [linear(c, 'x', 1, F, 6), 'y']);
    const turned = c.step('Transpose', [first], { perm: [0, 2, 1] });
    const variance = floats([6], [0.5, 1, 2, 0.1, 0.7, 1.3]);
    const normal = c.step('BatchNormalization', [
      turned,
      weights(3, 6),
      weights(4, 6),
      weights(5, 6),
      variance,
    ]);
    const back = c.step('Transpose', [normal], { perm: [0, 2, 1] });
    const [q, k] = [linear(c, back, 6, 6, 4), linear(c, back, 7, 6, 4)];
    const module = await checkAgainstOnnxRuntime(c.model({ ...x, y: [1, T, 6] }, c.step('Mul', [q, k])));
    expect(kindsOf(module).sort()).toEqual([
      'add',
      'linear',
      'linear',
      'linear',
      'mul',
      'rearrange',
      'rearrange',
    ]);
  });
});

describe('activations', () => {
  const sqrt2 = Math.SQRT2;
  const gelus: Record<string, (c: Chain, v: string) => string> = {
    'x * (1 + erf(x / sqrt 2)) * 0.5': (c, v) => {
      const e = c.step('Erf', [c.step('Div', [v, c.scalar(sqrt2)])]);
      return c.step('Mul', [c.step('Mul', [v, c.step('Add', [e, c.scalar(1)])]), c.scalar(0.5)]);
    },
    '0.5 * x * (1 + erf(x * 0.7071))': (c, v) => {
      const e = c.step('Erf', [c.step('Mul', [c.scalar(Math.SQRT1_2), v])]);
      return c.step('Mul', [c.step('Mul', [c.scalar(0.5), v]), c.step('Add', [c.scalar(1), e])]);
    },
    'x * (0.5 * (1 + erf))': (c, v) => {
      const e = c.step('Erf', [c.step('Div', [v, c.scalar(sqrt2)])]);
      return c.step('Mul', [v, c.step('Mul', [c.step('Add', [e, c.scalar(1)]), c.scalar(0.5)])]);
    },
    'tanh form with Pow': (c, v) => {
      const cube = c.step('Mul', [c.step('Pow', [v, c.scalar(3)]), c.scalar(0.044715)]);
      const inner = c.step('Mul', [c.step('Add', [v, cube]), c.scalar(Math.sqrt(2 / Math.PI))]);
      const gate = c.step('Add', [c.step('Tanh', [inner]), c.scalar(1)]);
      return c.step('Mul', [c.step('Mul', [v, c.scalar(0.5)]), gate]);
    },
    'tanh form with x * x * x': (c, v) => {
      const cube = c.step('Mul', [c.step('Mul', [v, v]), v]);
      const inner = c.step('Mul', [
        c.scalar(0.7978845608),
        c.step('Add', [v, c.step('Mul', [c.scalar(0.044715), cube])]),
      ]);
      return c.step('Mul', [
        c.step('Mul', [c.scalar(0.5), v]),
        c.step('Add', [c.scalar(1), c.step('Tanh', [inner])]),
      ]);
    },
  };
  it.each(Object.entries(gelus))('GELU as %s', async (name, form) => {
    const c = new Chain();
    const module = await checkAgainstOnnxRuntime(c.model(x, form(c, linear(c, 'x', 1, F, 6))));
    expect(kindsOf(module)).toEqual(['rearrange', 'linear', 'gelu']);
    expect(module.functions[0]?.body.ops.at(-1)?.attrs.approximate).toBe(
      name.startsWith('tanh') ? 'tanh' : 'none',
    );
  });

  it.each(['none', 'tanh'])('Gelu of opset 20, approximate %s', async (approximate) => {
    const c = new Chain();
    const out = c.step('Gelu', [linear(c, 'x', 1, F, 6)], { approximate });
    expect(kindsOf(await checkAgainstOnnxRuntime(c.model(x, out, 20)))).toEqual([
      'rearrange',
      'linear',
      'gelu',
    ]);
  });

  it('SiLU and the quick GELU of CLIP', async () => {
    const c = new Chain();
    const v = linear(c, 'x', 1, F, 6);
    const silu = c.step('Mul', [v, c.step('Sigmoid', [v])]);
    const quick = c.step('Mul', [silu, c.step('Sigmoid', [c.step('Mul', [silu, c.scalar(1.702)])])]);
    const module = await checkAgainstOnnxRuntime(c.model(x, quick));
    expect(kindsOf(module).filter((kind) => kind === 'silu')).toHaveLength(2);
  });

  it('Relu, Tanh, Sigmoid and whole powers', async () => {
    const c = new Chain();
    let v = linear(c, 'x', 1, F, 6);
    for (const op of ['Relu', 'Tanh', 'Sigmoid']) v = linear(c, c.step(op, [v]), 2, 6, 6);
    const module = await checkAgainstOnnxRuntime(c.model(x, c.step('Pow', [v, c.scalar(3)])));
    expect(kindsOf(module).filter((kind) => kind === 'linear')).toHaveLength(4);
    expect(kindsOf(module).slice(-2)).toEqual(['mul', 'mul']);
  });
});

describe('layer normalisation', () => {
  /** `axesAsInput`: opset 18 and later. */
  function decomposed(c: Chain, v: string, axesAsInput: boolean, duplicated: boolean): string {
    const mean = (of: string) =>
      axesAsInput ? c.step('ReduceMean', [of, ints(-1)]) : c.step('ReduceMean', [of], { axes: [-1] });
    const average = mean(v);
    const centred = c.step('Sub', [v, average]);
    const again = duplicated ? c.step('Sub', [v, average]) : centred;
    const square = c.step('Pow', [c.step('Cast', [centred], { to: 1 }), c.scalar(2)]);
    const deviation = c.step('Sqrt', [c.step('Add', [mean(square), c.scalar(1e-5)])]);
    return c.step('Add', [c.step('Mul', [c.step('Div', [again, deviation]), weights(8, F)]), weights(9, F)]);
  }

  it.each([
    [false, false, 13],
    [false, true, 17],
    [true, false, 18],
    [true, true, 20],
  ] as const)(
    'decomposed: axes as input %s, duplicated Sub %s, opset %i',
    async (axesAsInput, duplicated, opset) => {
      const c = new Chain();
      const sum = c.step('Add', [linear(c, 'x', 1, F, F), 'x']);
      const module = await checkAgainstOnnxRuntime(
        c.model(x, decomposed(c, sum, axesAsInput, duplicated), opset),
      );
      expect(kindsOf(module)).toEqual(['rearrange', 'linear', 'add', 'layer_norm']);
      const { epsilon, gamma, beta } = module.functions[0]?.body.ops.at(-1)?.attrs ?? {};
      expect([epsilon, typeof gamma, typeof beta]).toEqual([expect.closeTo(1e-5, 9), 'string', 'string']);
    },
  );

  it('by reciprocal and product, with epsilon 1e-12', async () => {
    const c = new Chain();
    const centred = c.step('Sub', ['x', c.step('ReduceMean', ['x'], { axes: [2] })]);
    const variance = c.step('ReduceMean', [c.step('Mul', [centred, centred])], { axes: [2] });
    const inverse = c.step('Reciprocal', [c.step('Sqrt', [c.step('Add', [variance, c.scalar(1e-12)])])]);
    const module = await checkAgainstOnnxRuntime(c.model(x, c.step('Mul', [centred, inverse])));
    expect(kindsOf(module)).toEqual(['rearrange', 'layer_norm']);
    expect(module.functions[0]?.body.ops.at(-1)?.attrs.epsilon).toBeCloseTo(1e-12, 15);
  });

  it('LayerNormalization, LayerScale behind it in gamma and beta', async () => {
    const c = new Chain();
    const normal = c.step('LayerNormalization', ['x', weights(1, F), weights(2, F)], {
      axis: -1,
      epsilon: { float: 1e-6 },
    });
    const module = await checkAgainstOnnxRuntime(c.model(x, c.step('Mul', [normal, weights(3, F)])));
    expect(kindsOf(module)).toEqual(['rearrange', 'layer_norm']);
  });
});

/** What differs among exports of one attention. */
interface AttentionForm {
  readonly fused: 'no' | 'five' | 'split';
  readonly scale: 'div' | 'both' | 'query' | 'live';
  readonly key: '0231' | 'reshape';
  readonly safe?: boolean;
  readonly mask?: TensorSpec;
}

function attention(c: Chain, input: string, form: AttentionForm): string {
  const [H, D] = [2, F / 2];
  const heads = (v: string) =>
    c.step('Transpose', [c.step('Reshape', [v, ints(1, T, H, D)])], { perm: [0, 2, 1, 3] });
  let [q, k, v] = ['', '', ''];
  if (form.fused === 'five') {
    const all = c.step('Reshape', [linear(c, input, 3, F, 3 * F), ints(1, T, 3, H, D)]);
    const moved = c.step('Transpose', [all], { perm: [2, 0, 3, 1, 4] });
    [q, k, v] = [0, 1, 2].map((i) => c.step('Gather', [moved, { dims: [], ints: [i] }], { axis: 0 })) as [
      string,
      string,
      string,
    ];
  } else if (form.fused === 'split') {
    const all = c.step('Split', [linear(c, input, 3, F, 3 * F), ints(F, F, F)], { axis: -1 }, 3);
    [q, k, v] = [all, `${all}_1`, `${all}_2`].map(heads) as [string, string, string];
  } else [q, k, v] = [3, 4, 5].map((seed) => heads(linear(c, input, seed, F, F))) as [string, string, string];
  let turned = '';
  if (form.key === '0231') turned = c.step('Transpose', [k], { perm: [0, 1, 3, 2] });
  else {
    const flat = c.step('Transpose', [c.step('Reshape', [k, ints(-1, T, D)])], { perm: [0, 2, 1] });
    turned = c.step('Reshape', [flat, ints(1, H, D, T)]);
  }
  const fourth = c.scalar(D ** -0.25);
  if (form.scale === 'both') [q, turned] = [c.step('Mul', [q, fourth]), c.step('Mul', [turned, fourth])];
  if (form.scale === 'query') q = c.step('Div', [q, c.scalar(Math.sqrt(D))]);
  let scores = c.step('MatMul', [q, turned]);
  if (form.scale === 'div') scores = c.step('Div', [scores, c.scalar(Math.sqrt(D))]);
  if (form.scale === 'live') {
    const size = c.step('Cast', [c.step('Gather', [c.step('Shape', [q]), ints(-1)])], { to: 1 });
    scores = c.step('Div', [scores, c.step('Sqrt', [size])]);
  }
  if (form.mask !== undefined) scores = c.step('Add', [scores, form.mask]);
  let shares = c.step('Softmax', [scores], { axis: -1 });
  if (form.safe === true) shares = c.step('Where', [c.step('IsNaN', [shares]), c.scalar(0), shares]);
  const mixed = c.step('Transpose', [c.step('MatMul', [shares, v])], { perm: [0, 2, 1, 3] });
  return linear(c, c.step('Reshape', [mixed, ints(1, T, F)]), 6, F, F);
}

describe('attention', () => {
  const forms: AttentionForm[] = [
    { fused: 'no', scale: 'div', key: '0231' },
    { fused: 'no', scale: 'both', key: 'reshape', safe: true },
    { fused: 'five', scale: 'both', key: 'reshape' },
    { fused: 'five', scale: 'query', key: '0231' },
    { fused: 'split', scale: 'live', key: '0231', mask: floats([1, 1, 1, T], Array<number>(T).fill(0)) },
  ];
  it.each(forms)('%o', async (form) => {
    const c = new Chain();
    const module = await checkAgainstOnnxRuntime(c.model(x, attention(c, 'x', form)));
    expect(kindsOf(module)).toEqual(['rearrange', 'linear', 'linear', 'linear', 'attention', 'linear']);
    const attrs = module.functions[0]?.body.ops[4]?.attrs;
    expect(attrs).toEqual({ heads: 2, scale: expect.closeTo(0.5, 6) });
  });

  it('nn.MultiheadAttention: sequence first, heads with the batch', async () => {
    const [H, D] = [2, F / 2];
    const c = new Chain();
    const first = c.step('Transpose', ['x'], { perm: [1, 0, 2] });
    const all = c.step('Reshape', [linear(c, first, 1, F, 3 * F), ints(T, 1, 3, F)]);
    const moved = c.step('Transpose', [c.step('Unsqueeze', [all, ints(0)])], { perm: [3, 1, 2, 0, 4] });
    const parts = c.step('Squeeze', [moved, ints(3)]);
    const [q, k, v] = [0, 1, 2].map((i) => {
      const own = c.step('Gather', [parts, { dims: [], ints: [i] }], { axis: 0 });
      return c.step('Transpose', [c.step('Reshape', [own, ints(T, H, D)])], { perm: [1, 0, 2] });
    }) as [string, string, string];
    const scores = c.step('MatMul', [
      c.step('Mul', [q, c.scalar(0.5)]),
      c.step('Transpose', [k], { perm: [0, 2, 1] }),
    ]);
    const mixed = c.step('MatMul', [c.step('Softmax', [scores], { axis: -1 }), v]);
    const flat = c.step('Reshape', [c.step('Transpose', [mixed], { perm: [1, 0, 2] }), ints(T, F)]);
    const out = c.step('Reshape', [
      c.step('Gemm', [flat, weights(9, F, F), weights(8, F)], { transB: 1 }),
      ints(T, 1, F),
    ]);
    const sum = c.step('Add', ['x', c.step('Transpose', [out], { perm: [1, 0, 2] })]);
    const module = await checkAgainstOnnxRuntime(c.model(x, sum));
    expect(kindsOf(module)).toEqual([
      'rearrange',
      'linear',
      'linear',
      'linear',
      'attention',
      'linear',
      'add',
    ]);
  });

  it.each([3, 4])('the operator of opset 23 on rank %i', async (rank) => {
    const c = new Chain();
    const parts = [3, 4, 5].map((seed) => linear(c, 'x', seed, F, F));
    const heads = (v: string) =>
      c.step('Transpose', [c.step('Reshape', [v, ints(1, T, 2, F / 2)])], { perm: [0, 2, 1, 3] });
    const mixed =
      rank === 3
        ? c.step('Attention', parts, { q_num_heads: 2, kv_num_heads: 2 })
        : c.step('Transpose', [c.step('Attention', parts.map(heads))], { perm: [0, 2, 1, 3] });
    const out = linear(c, rank === 3 ? mixed : c.step('Reshape', [mixed, ints(1, T, F)]), 6, F, F);
    const module = await checkAgainstOnnxRuntime(c.model(x, out, 23));
    expect(kindsOf(module)).toEqual(['rearrange', 'linear', 'linear', 'linear', 'attention', 'linear']);
  });
});

describe('tokens', () => {
  it('class token, position embedding, token choice', async () => {
    const c = new Chain();
    const shape = c.step('Concat', [c.step('Gather', [c.step('Shape', ['x']), ints(0)]), ints(-1, -1)], {
      axis: 0,
    });
    const ones = c.step('ConstantOfShape', [ints(3)], { value: ints(1) });
    const sizes = c.step('Where', [c.step('Equal', [shape, c.step('Mul', [ones, ints(-1)])]), ones, shape]);
    const token = c.step('Expand', [weights(2, 1, 1, 6), sizes]);
    const joined = c.step('Concat', [token, linear(c, 'x', 1, F, 6)], { axis: 1 });
    const placed = c.step('Add', [joined, weights(3, 1, T + 1, 6)]);
    const chosen = c.step('Gather', [placed, { dims: [], ints: [0] }], { axis: 1 });
    const module = await checkAgainstOnnxRuntime(c.model(x, c.step('Tanh', [chosen])));
    expect(kindsOf(module)).toEqual([
      'rearrange',
      'linear',
      'concat_tokens',
      'add_constant',
      'select_tokens',
      'tanh',
    ]);
  });

  it('mean over the tokens, as ReduceMean and as a sum', async () => {
    for (const op of ['ReduceMean', 'ReduceSum']) {
      const c = new Chain();
      const v = linear(c, 'x', 1, F, 6);
      const mean =
        op === 'ReduceMean'
          ? c.step('ReduceMean', [v], { axes: [1], keepdims: 0 })
          : c.step('Div', [c.step('ReduceSum', [v, ints(1)], { keepdims: 0 }), c.scalar(T)]);
      const module = await checkAgainstOnnxRuntime(c.model(x, linear(c, mean, 2, 6, 3)));
      expect(kindsOf(module)).toEqual(['rearrange', 'linear', 'mean_tokens', 'linear']);
    }
  });

  it('merges equal nodes and drops dead ones', async () => {
    const c = new Chain();
    const w = weights(1, F, 6);
    const [a, b] = [c.step('MatMul', ['x', w]), c.step('MatMul', [c.step('Identity', ['x']), w])];
    c.step('Softmax', ['x']);
    const module = await checkAgainstOnnxRuntime(c.model(x, c.step('Mul', [a, b])));
    expect(kindsOf(module)).toEqual(['rearrange', 'linear', 'mul']);
  });
});
