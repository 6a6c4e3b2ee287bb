/**
 * A one-layer post-norm Transformer with random weights as a `tensor` module, and what it computes, written
 * plainly.
 */
import { BlockBuilder, Ids } from '../../src/ir/builder.js';
import type { Constant, Module } from '../../src/ir/module.js';

export interface TinyShape {
  readonly tokens: number;
  readonly width: number;
  readonly heads: number;
  readonly hidden: number;
  /** Multiplies the scores: wide scores need rounds of renormalisation. */
  readonly sharpness: number;
  /** Queries see no later keys. */
  readonly causal?: boolean;
  /** A bias of the scores for every head, query and key. */
  readonly biased?: boolean;
  /** A key mask [1, tokens] as second input; `mean`: also a masked mean of the tokens instead of the first. */
  readonly masked?: 'keys' | 'mean';
}

export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

export function tinyTransformer(shape: TinyShape, seed: number): Module {
  const { tokens, width, heads, hidden, sharpness, masked } = shape;
  const next = random(seed);
  const constants = new Map<string, Constant>();
  const constant = (name: string, dims: number[], scale: number, centre = 0) => {
    const data = Float64Array.from(
      { length: dims.reduce((a, b) => a * b, 1) },
      () => centre + scale * next(),
    );
    constants.set(name, { shape: dims, data });
    return name;
  };
  const causalMask = (size: number) => {
    const data = Float64Array.from({ length: size * size }, (_, i) =>
      i % size <= Math.floor(i / size) ? 1 : 0,
    );
    constants.set('causal', { shape: [size, size], data });
    return 'causal';
  };
  const indices = Int32Array.from({ length: tokens * width }, (_, i) => i);
  const type = { kind: 'tensor', dtype: 'f32', shape: [1, tokens, width] } as const;
  const maskType = { kind: 'tensor', dtype: 'f32', shape: [1, tokens] } as const;
  const scalarType = { kind: 'tensor', dtype: 'f32', shape: [1, 1] } as const;
  const b = new BlockBuilder(new Ids(), null, masked === undefined ? [type] : [type, maskType, scalarType]);
  const linear = (x: Parameters<typeof b.op>[1][number], name: string, out: number, inputs: number) =>
    b.op(
      'tensor.linear',
      [x],
      {
        weight: constant(`${name}.w`, [out, inputs], 1.7 / Math.sqrt(inputs)),
        bias: constant(`${name}.b`, [out], 0.2),
        outFeatures: out,
      },
      name,
    );
  const norm = (x: Parameters<typeof b.op>[1][number], name: string) =>
    b.op(
      'tensor.layer_norm',
      [x],
      {
        gamma: constant(`${name}.g`, [width], 0.2, 1),
        beta: constant(`${name}.b`, [width], 0.2),
        epsilon: 1e-5,
      },
      name,
    );
  const x = b.op('tensor.rearrange', [b.args[0]!], { indices: 'order', shape: [tokens, width] }, 'input');
  const [q, k, v] = ['q', 'k', 'v'].map((name) => linear(x, name, width, width));
  const column = (input: number, size: number) => {
    const attrs = { indices: size === 1 ? 'first' : 'column', shape: [size, 1] };
    return b.op('tensor.rearrange', [b.args[input]!], attrs, `mask${input}`);
  };
  const mask = masked === undefined ? undefined : column(1, tokens);
  const attended = b.op(
    'tensor.attention',
    mask === undefined ? [q!, k!, v!] : [q!, k!, v!, mask],
    {
      heads,
      scale: sharpness / Math.sqrt(width / heads),
      ...(shape.causal === true ? { keep: causalMask(tokens) } : {}),
      ...(shape.biased === true ? { bias: constant('bias', [heads, tokens, tokens], 1) } : {}),
    },
    'attention',
  );
  const middle = norm(b.op('tensor.add', [x, linear(attended, 'o', width, width)], {}, 'residual'), 'norm1');
  const inner = b.op('tensor.gelu', [linear(middle, 'ffn1', hidden, width)], { approximate: 'none' }, 'gelu');
  const y = norm(
    b.op('tensor.add', [middle, linear(inner, 'ffn2', width, hidden)], {}, 'residual2'),
    'norm2',
  );
  const pool = () => {
    const kept = b.op('tensor.scale_tokens', [y, mask!], {}, 'kept');
    const mean = b.op('tensor.mean_tokens', [kept], {}, 'mean');
    return b.op('tensor.scale_tokens', [mean, column(2, 1)], {}, 'share');
  };
  const pooled =
    masked === 'mean' ? pool() : b.op('tensor.select_tokens', [y], { first: 0, count: 1 }, 'select');
  const logits = linear(
    b.op('tensor.tanh', [linear(pooled, 'pool', width, width)], {}, 'tanh'),
    'head',
    3,
    width,
  );
  return {
    phase: 'tensor',
    name: 'tiny',
    sourceHash: '0'.repeat(64),
    parameters: null,
    functions: [{ name: 'main', body: b.finish([logits]) }],
    constants,
    tables: new Map([
      ['order', indices],
      ...(masked !== undefined
        ? ([
            ['column', indices.slice(0, tokens)],
            ['first', Int32Array.of(0)],
          ] as const)
        : []),
    ]),
    inputs: [
      { name: 'x', shape: [1, tokens, width], factor: 1 },
      ...(masked !== undefined ? [{ name: 'mask', shape: [1, tokens], factor: 1 }] : []),
      ...(masked !== undefined ? [{ name: 'share', shape: [1, 1], factor: 1 }] : []),
    ],
    outputs: [{ name: 'logits', shape: [1, 3], factor: 1 }],
  };
}

export function randomInput(shape: TinyShape, seed: number): Float64Array {
  const next = random(seed);
  return Float64Array.from({ length: shape.tokens * shape.width }, () => 1.5 * next());
}
