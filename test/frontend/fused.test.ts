/** Operators of ONNX Runtime's optimiser, and weights in other types, equal what ONNX Runtime computes. */
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

const [tokens, width, heads] = [4, 8, 2];
const x = { x: [1, tokens, width] };
const microsoft = 'com.microsoft';

function projected(c: Chain, seed: number, outputs = width): string {
  return c.step('MatMul', ['x', weights(seed, width, outputs)]);
}

function fused(
  c: Chain,
  op: string,
  inputs: readonly (string | TensorSpec)[],
  attrs: NonNullable<Parameters<Chain['step']>[2]> = {},
): string {
  return c.step(op, inputs, attrs, 1, microsoft);
}

describe('activations', () => {
  it.each([
    ['FastGelu', 'gelu', []],
    ['FastGelu', 'gelu', [weights(5, width)]],
    ['BiasGelu', 'gelu', [weights(5, width)]],
    ['Gelu', 'gelu', []],
    ['QuickGelu', 'silu', []],
  ] as const)('%s as %s', async (op, kind, more) => {
    const c = new Chain();
    const module = await checkAgainstOnnxRuntime(c.model(x, fused(c, op, [projected(c, 1), ...more])));
    expect(kindsOf(module).filter((own) => own !== 'mul_constant')).toEqual(['rearrange', 'linear', kind]);
  });

  it('FusedMatMul, FusedGemm, BiasAdd', async () => {
    const c = new Chain();
    const product = fused(c, 'FusedMatMul', ['x', weights(1, width, width)], {
      transB: 1,
      alpha: { float: 0.5 },
    });
    const sum = c.step('Add', [product, c.step('Add', ['x', weights(2, width)])]);
    const flat = c.step('Reshape', [sum, ints(tokens, width)]);
    const gemm = fused(c, 'FusedGemm', [flat, weights(3, width, 6), weights(4, 6)], { activation: 'Relu' });
    const module = await checkAgainstOnnxRuntime(c.model(x, gemm));
    expect(kindsOf(module)).toContain('relu');
  });
});

describe('normalisations', () => {
  it('SkipLayerNormalization, with a bias', async () => {
    const c = new Chain();
    const inputs = [projected(c, 1), 'x', weights(2, width), weights(3, width), weights(4, width)];
    const module = await checkAgainstOnnxRuntime(
      c.model(x, fused(c, 'SkipLayerNormalization', inputs, { epsilon: { float: 1e-5 } })),
    );
    expect(kindsOf(module)).toEqual(['rearrange', 'linear', 'add', 'layer_norm']);
  });

  it('SkipSimplifiedLayerNormalization, and the sum that it gives beside', async () => {
    const c = new Chain();
    const inputs = [projected(c, 1), 'x', weights(2, width)];
    const normal = c.step(
      'SkipSimplifiedLayerNormalization',
      inputs,
      { epsilon: { float: 1e-6 } },
      4,
      microsoft,
    );
    const module = await checkAgainstOnnxRuntime(c.model(x, c.step('Add', [normal, `${normal}_3`])));
    expect(kindsOf(module)).toEqual(['rearrange', 'linear', 'add', 'rms_norm', 'add']);
  });

  it('SimplifiedLayerNormalization', async () => {
    const c = new Chain();
    const attrs = { axis: -1, epsilon: { float: 1e-6 } };
    const out = c.step('SimplifiedLayerNormalization', [projected(c, 1), weights(2, width)], attrs);
    expect(kindsOf(await checkAgainstOnnxRuntime(c.model(x, out)))).toEqual([
      'rearrange',
      'linear',
      'rms_norm',
    ]);
  });
});

describe('attention', () => {
  it.each([0, 1])('Attention of one product, unidirectional %i', async (unidirectional) => {
    const c = new Chain();
    const out = fused(c, 'Attention', ['x', weights(1, width, 3 * width), weights(2, 3 * width)], {
      num_heads: heads,
      unidirectional,
    });
    const module = await checkAgainstOnnxRuntime(c.model(x, out));
    expect(kindsOf(module)).toEqual(['rearrange', 'linear', 'linear', 'linear', 'attention']);
  });

  it('Attention with a constant mask, and its token count', async () => {
    const c = new Chain();
    const inputs = ['x', weights(1, width, 3 * width), weights(2, 3 * width)];
    const int32 = (...values: number[]) => c.step('Cast', [ints(...values)], { to: 6 });
    const mask = c.step('Unsqueeze', [int32(1, 1, 1, 0), ints(0)]);
    const first = fused(c, 'Attention', [...inputs, mask], { num_heads: heads });
    const second = fused(c, 'Attention', [...inputs, int32(3)], { num_heads: heads });
    await checkAgainstOnnxRuntime(c.model(x, [first, second]));
  });

  it('MultiHeadAttention with biases and a position bias', async () => {
    const c = new Chain();
    const inputs = [1, 2, 3].map((seed) => projected(c, seed));
    const bias = weights(4, 1, heads, tokens, tokens);
    const out = fused(c, 'MultiHeadAttention', [...inputs, weights(5, 3 * width), '', bias], {
      num_heads: heads,
    });
    const module = await checkAgainstOnnxRuntime(c.model(x, out));
    expect(kindsOf(module).at(-1)).toBe('attention');
  });
});

describe('quantised weights', () => {
  const int8 = (c: Chain, rows: number, columns: number): string =>
    c.step(
      'Cast',
      [ints(...Array.from({ length: rows * columns }, (_, i) => ((i * 37) % 251) - 125))].map((flat) =>
        c.step('Reshape', [flat, ints(rows, columns)]),
      ),
      { to: 3 },
    );

  it.each([
    ['tensor', floats([], [0.01]), {}],
    ['axis', floats([width], [0.01, 0.02, 0.01, 0.03, 0.01, 0.02, 0.01, 0.05]), { axis: 1 }],
    [
      'block',
      floats(
        [2, width],
        Array.from({ length: 2 * width }, (_, i) => 0.01 + 0.002 * i),
      ),
      { axis: 0, block_size: 2 },
    ],
  ] as const)('by %s', async (_, scale, attrs) => {
    const c = new Chain();
    const weight = c.step('DequantizeLinear', [int8(c, tokens, width), scale], attrs);
    const module = await checkAgainstOnnxRuntime(c.model(x, c.step('Add', [projected(c, 1), weight]), 21));
    expect(kindsOf(module)).toEqual(['rearrange', 'linear', 'add_constant']);
  });

  it('float16', async () => {
    const c = new Chain();
    const half = c.step('Cast', [weights(1, width, width)], { to: 10 });
    const product = c.step('MatMul', ['x', c.step('Cast', [half], { to: 1 })]);
    await checkAgainstOnnxRuntime(c.model(x, product), 2e-2);
  });
});
