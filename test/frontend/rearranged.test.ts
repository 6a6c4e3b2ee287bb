/** Operators that are written as products with constants, and products of views that are no matrices. */
import { describe, expect, it } from 'vitest';
import {
  Chain,
  checkAgainstOnnxRuntime,
  encode,
  floats,
  ints,
  kindsOf,
  maxDifference,
  runOnnxRuntime,
  weights,
  type NodeSpec,
  type TensorSpec,
} from './onnx-builder.js';
import { ClientProgram, readGraph } from '../../src/frontend/index.js';
import { runTensor } from '../../src/ir/interpreter/tensor.js';

const [T, F] = [6, 8];
const x = { x: [1, T, F] };
type Attrs = NonNullable<NodeSpec['attrs']>;

/** [1, F, T]: channels of a linear layer's result, as a convolution has them. */
function channels(c: Chain): string {
  return c.step('Transpose', [c.step('MatMul', ['x', weights(1, F, F)])], { perm: [0, 2, 1] });
}

function image(c: Chain, side: number): string {
  return c.step('Reshape', [channels(c), ints(1, F, side, -1)]);
}

describe('normalisations of rearranged values', () => {
  it('InstanceNormalization over the tokens of every channel', async () => {
    const c = new Chain();
    const out = c.step('InstanceNormalization', [channels(c), weights(2, F), weights(3, F)]);
    const module = await checkAgainstOnnxRuntime(c.model(x, c.step('Transpose', [out], { perm: [0, 2, 1] })));
    expect(kindsOf(module).filter((kind) => kind === 'function')).toHaveLength(1);
  });

  it.each([
    [18, 2],
    [21, F],
  ])('GroupNormalization of opset %i', async (opset, count) => {
    const c = new Chain();
    const inputs = [channels(c), weights(2, count), weights(3, count)];
    const out = c.step('GroupNormalization', inputs, { num_groups: 2, epsilon: { float: 1e-4 } });
    await checkAgainstOnnxRuntime(c.model(x, c.step('Transpose', [out], { perm: [0, 2, 1] }), opset));
  });

  it('normalisation of each head', async () => {
    const c = new Chain();
    const heads = c.step('Reshape', [c.step('MatMul', ['x', weights(1, F, F)]), ints(1, T, 2, 4)]);
    const square = c.step('ReduceMean', [c.step('Pow', [heads, c.scalar(2)])], { axes: [-1] });
    const root = c.step('Sqrt', [c.step('Add', [square, c.scalar(1e-5)])]);
    const normal = c.step('Mul', [c.step('Div', [heads, root]), weights(2, 4)]);
    const layer = c.step('LayerNormalization', [normal, weights(3, 4), weights(4, 4)]);
    await checkAgainstOnnxRuntime(c.model(x, c.step('Reshape', [layer, ints(1, T, F)])));
  });
});

describe('products along other dimensions than features', () => {
  it('a layer over the tokens is one mix of them', async () => {
    const c = new Chain();
    const mixed = c.step('Relu', [c.step('MatMul', [channels(c), weights(2, T, 4)])]);
    const module = await checkAgainstOnnxRuntime(
      c.model(x, c.step('Transpose', [mixed], { perm: [0, 2, 1] })),
    );
    expect(kindsOf(module)).toEqual(['rearrange', 'linear', 'mix_tokens', 'relu']);
  });

  it('one weight for every head is block diagonal', async () => {
    const c = new Chain();
    const heads = c.step('Reshape', [
      c.step('Relu', [c.step('MatMul', ['x', weights(1, F, F)])]),
      ints(1, T, 2, 4),
    ]);
    const own = c.step('MatMul', [heads, weights(2, 4, 3)]);
    const module = await checkAgainstOnnxRuntime(c.model(x, c.step('Reshape', [own, ints(1, T, 6)])));
    expect(kindsOf(module)).toEqual(['rearrange', 'linear', 'relu', 'linear']);
  });

  it('patches of every channel, which becomes a token', async () => {
    const c = new Chain();
    const own = c.step('MatMul', ['x', weights(1, F, 2)]);
    const shifted = c.step('Sub', [own, c.step('ReduceMean', [own], { axes: [1] })]);
    const series = c.step('Transpose', [shifted], { perm: [0, 2, 1] });
    const patches = c.step('Reshape', [series, ints(1, 2, 3, 2)]);
    await checkAgainstOnnxRuntime(c.model(x, c.step('MatMul', [patches, weights(2, 2, 8)])));
  });

  it.each([
    ['one axis', 20, [1, T, F, 1], 2, 0],
    ['complex input', 20, [1, T, 4, 2], 1, 0],
    ['one side', 20, [1, T, F, 1], 1, 1],
  ] as const)('DFT: %s', async (_, opset, shape, axis, onesided) => {
    const c = new Chain();
    const own = c.step('Reshape', [c.step('MatMul', ['x', weights(1, F, F)]), ints(...shape)]);
    const inputs = [own, '', { dims: [], ints: [axis] }];
    const out = c.step('DFT', inputs, { onesided });
    const real = c.step('Gather', [out, { dims: [], ints: [0] }], { axis: 3 });
    await checkAgainstOnnxRuntime(c.model(x, real, opset));
  });

  it.each([
    ['linear', { mode: 'linear' }],
    ['cubic', { mode: 'cubic', coordinate_transformation_mode: 'align_corners' }],
    ['cubic without the outside', { mode: 'cubic', exclude_outside: 1, cubic_coeff_a: { float: -0.5 } }],
    ['nearest', { mode: 'nearest', coordinate_transformation_mode: 'asymmetric', nearest_mode: 'floor' }],
    ['linear, smaller', { mode: 'linear', antialias: 1 }],
    ['cubic, smaller', { mode: 'cubic', antialias: 1 }],
  ] as const)('Resize: %s', async (name, attrs: Attrs) => {
    const c = new Chain();
    const sizes = name.includes('smaller') ? ints(1, F, 2, 1) : ints(1, F, 5, 4);
    const out = c.step('Resize', [image(c, 3), '', '', sizes], attrs);
    await checkAgainstOnnxRuntime(c.model(x, c.step('Reshape', [out, ints(1, F, -1)]), 18), 1e-4);
  });

  it.each([
    ['padding left out', { pads: [1, 0, 1, 0], count_include_pad: 0 }],
    ['padding counted', { pads: [1, 0, 1, 1], count_include_pad: 1, strides: [2, 1] }],
    ['a last part window', { strides: [2, 1], ceil_mode: 1 }],
  ] as const)('AveragePool: %s', async (_, attrs: Attrs) => {
    const c = new Chain();
    const out = c.step('AveragePool', [image(c, 3)], { kernel_shape: [2, 2], ...attrs });
    await checkAgainstOnnxRuntime(c.model(x, c.step('Reshape', [out, ints(1, F, -1)])));
  });

  it.each([
    ['btf,fg->btg', ['x', weights(1, F, 4)]],
    ['btf,fhd->bhtd', ['x', weights(1, F, 2, 4)]],
    ['...f,gf', ['x', weights(1, 4, F)]],
    ['btf->bf', ['x']],
  ] as const)('Einsum %s', async (equation, inputs: readonly (string | TensorSpec)[]) => {
    const c = new Chain();
    await checkAgainstOnnxRuntime(c.model(x, c.step('Einsum', inputs, { equation })));
  });

  it('SpaceToDepth and DepthToSpace', async () => {
    const c = new Chain();
    const own = c.step('MatMul', ['x', weights(1, 8, 8)]);
    const map = c.step('Reshape', [c.step('Transpose', [own], { perm: [0, 2, 1] }), ints(1, 8, 2, 2)]);
    const deep = c.step('SpaceToDepth', [map], { blocksize: 2 });
    const back = c.step('DepthToSpace', [deep], { blocksize: 2, mode: 'CRD' });
    await checkAgainstOnnxRuntime(c.model({ x: [1, 4, 8] }, back));
  });
});

describe('attention of other shapes', () => {
  const heads = (c: Chain, value: string, seed: number, count: number): string => {
    const own = c.step('Reshape', [
      c.step('MatMul', [value, weights(seed, F, 4 * count)]),
      ints(1, -1, count, 4),
    ]);
    return c.step('Transpose', [own], { perm: [0, 2, 1, 3] });
  };
  const attention = (c: Chain, q: string, k: string, v: string): string => {
    const scores = c.step('MatMul', [q, c.step('Transpose', [k], { perm: [0, 1, 3, 2] })]);
    const floor = c.step('Max', [scores, c.scalar(-3e38)]);
    const own = c.step('MatMul', [c.step('Softmax', [floor], { axis: -1 }), v]);
    return c.step('Reshape', [c.step('Transpose', [own], { perm: [0, 2, 1, 3] }), ints(1, -1, F)]);
  };

  it.each([
    ['fewer queries', 0, 2],
    ['fewer keys', 1, 4],
  ])('%s', async (_, isKeys, count) => {
    const c = new Chain();
    const whole = c.step('MatMul', ['x', weights(9, F, F)]);
    const part = c.step('Slice', [whole, ints(0), ints(count), ints(1)]);
    const [queries, keys] = isKeys === 1 ? [whole, part] : [part, whole];
    const out = attention(c, heads(c, queries, 1, 2), heads(c, keys, 2, 2), heads(c, keys, 3, 2));
    await checkAgainstOnnxRuntime(c.model(x, out));
  });

  it('a soft cap before the mask', async () => {
    const c = new Chain();
    const [q, k, v] = [heads(c, 'x', 1, 2), heads(c, 'x', 2, 2), heads(c, 'x', 3, 2)];
    const scores = c.step('MatMul', [q, c.step('Transpose', [k], { perm: [0, 1, 3, 2] })]);
    const inner = c.step('Tanh', [c.step('Div', [scores, c.scalar(1.5)])]);
    const capped = c.step('Mul', [inner, c.scalar(1.5)]);
    const causal = Array.from({ length: T * T }, (_, i) => (i % T > Math.floor(i / T) ? -1e9 : 0));
    const masked = c.step('Add', [capped, floats([T, T], causal)]);
    const out = c.step('MatMul', [c.step('Softmax', [masked], { axis: -1 }), v]);
    const flat = c.step('Reshape', [c.step('Transpose', [out], { perm: [0, 2, 1, 3] }), ints(1, T, F)]);
    const module = await checkAgainstOnnxRuntime(c.model(x, flat));
    expect(module.functions[0]?.body.ops.at(-1)?.attrs.cap).toBeCloseTo(1.5);
  });

  it('constant queries, as in pooling by attention', async () => {
    const c = new Chain();
    const out = attention(c, c.constant(weights(1, 1, 2, 3, 4)), heads(c, 'x', 2, 2), heads(c, 'x', 3, 2));
    await checkAgainstOnnxRuntime(c.model(x, out));
  });

  it('heads that share one key head by broadcasting', async () => {
    const c = new Chain();
    const out = attention(c, heads(c, 'x', 1, 2), heads(c, 'x', 2, 1), heads(c, 'x', 3, 1));
    await checkAgainstOnnxRuntime(c.model(x, out));
  });
});

describe('what integer inputs choose', () => {
  it.each(['Gather', 'GatherND'])('a token by %s, and a client value as an output', async (op) => {
    const c = new Chain();
    const vectors = c.step('Gather', [weights(1, 20, F), 'i_ids']);
    const hidden = c.step('MatMul', [vectors, weights(2, F, F)]);
    const last = c.step('ArgMax', ['i_ids'], { axis: 1, keepdims: 0 });
    const whole = op === 'Gather' ? c.step('Squeeze', [hidden, ints(0)]) : hidden;
    const index = op === 'Gather' ? last : c.step('Unsqueeze', [last, ints(1)]);
    const attrs: Attrs = op === 'Gather' ? { axis: 0 } : { batch_dims: 1 };
    const chosen = c.step(op, [whole, index], attrs);
    const bytes = encode(c.model({ i_ids: [1, T] }, [chosen, vectors]));
    const module = readGraph({ bytes }).lower();
    const client = new ClientProgram(module.client, module.inputs, module.outputs);
    for (const ids of [
      [3, 9, 4, 1, 0, 2],
      [19, 9, 4, 1, 0, 2],
    ]) {
      const got = client.decode(runTensor(module, client.encode({ i_ids: ids })));
      const wanted = await runOnnxRuntime(bytes, { i_ids: { dims: [1, T], data: ids } });
      for (const { name, data } of got) expect(maxDifference(data, wanted[name] ?? [])).toBeLessThan(1e-5);
    }
  });

  it('bounds of integers are public', async () => {
    const c = new Chain();
    const range = c.step('Range', [
      { dims: [], ints: [-3] },
      { dims: [], ints: [3] },
      { dims: [], ints: [1] },
    ]);
    const bounded = c.step('Clip', [range, { dims: [], ints: [0] }, { dims: [], ints: [2] }]);
    const rows = c.step('Gather', [weights(1, 3, F), bounded]);
    await checkAgainstOnnxRuntime(
      c.model(x, c.step('Add', [c.step('MatMul', ['x', weights(2, F, F)]), rows])),
    );
    await checkAgainstOnnxRuntime(
      c.model(x, c.step('Min', [c.step('Max', ['x', c.scalar(-1)]), floats([1], [1])])),
    );
  });
});
