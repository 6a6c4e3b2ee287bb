/** Maps of tokens, RMS normalisation over wide ranges and named functions: packed modules in the clear. */
import { describe, expect, it } from 'vitest';
import { BlockBuilder, Ids } from '../../src/ir/builder.js';
import { runCipher } from '../../src/ir/interpreter/cipher.js';
import { runTensor } from '../../src/ir/interpreter/tensor.js';
import type { Constant, Module, Value } from '../../src/ir/module.js';
import { verifyModule } from '../../src/ir/verifier.js';
import { calibrateModule, nodeRanges } from '../../src/passes/calibrate.js';
import { packModule } from '../../src/passes/pack/index.js';
import { defaultLiteral, makeParameters } from '../../src/target/parameters.js';
import { random } from './tiny-transformer.js';

const parameters = makeParameters(defaultLiteral('tiny', true));
const width = 6;

interface Body {
  readonly tokens: number;
  readonly constants: Readonly<Record<string, Constant>>;
  readonly build: (b: BlockBuilder, x: Value) => Value;
}

function moduleOf({ tokens, constants, build }: Body): Module {
  const type = { kind: 'tensor', dtype: 'f32', shape: [1, tokens, width] } as const;
  const b = new BlockBuilder(new Ids(), null, [type]);
  const x = b.op('tensor.rearrange', [b.args[0]!], { indices: 'order', shape: [tokens, width] }, 'input');
  const y = build(b, x);
  const shape = y.type.kind === 'tensor' ? y.type.shape : [];
  return {
    phase: 'tensor',
    name: 'mix',
    sourceHash: '0'.repeat(64),
    parameters: null,
    functions: [{ name: 'main', body: b.finish([y]) }],
    constants: new Map(Object.entries(constants)),
    tables: new Map([['order', Int32Array.from({ length: tokens * width }, (_, i) => i)]]),
    inputs: [{ name: 'x', shape: [1, tokens, width], factor: 1 }],
    outputs: [{ name: 'y', shape, factor: 1 }],
  };
}

/** Largest difference between the packed module and the tensor interpreter, on inputs that calibration saw. */
function difference(body: Body, tokenBlocks: number, scaleOf: (token: number) => number = () => 1): number {
  const module = moduleOf(body);
  expect(verifyModule(module)).toEqual([]);
  const next = random(5);
  const inputs = Array.from({ length: 3 }, () => ({
    x: Float64Array.from({ length: body.tokens * width }, (_, i) => scaleOf(Math.floor(i / width)) * next()),
  }));
  const packed = packModule(module, parameters, nodeRanges(calibrateModule(module, inputs)), { tokenBlocks });
  expect(verifyModule(packed)).toEqual([]);
  return inputs.reduce((worst, input) => {
    const expected = runTensor(module, input).y!;
    const got = runCipher(packed, input).y!;
    return expected.reduce((most, value, i) => Math.max(most, Math.abs(value - got[i]!)), worst);
  }, 0);
}

function matrix(rows: number, columns: number, entry: (r: number, c: number) => number): Constant {
  const data = Float64Array.from({ length: rows * columns }, (_, i) =>
    entry(Math.floor(i / columns), i % columns),
  );
  return { shape: [rows, columns], data };
}

const mixed = (tokens: number, weight: Constant): Body => ({
  tokens,
  constants: { weight },
  build: (b, x) => {
    const count = weight.shape[0]!;
    return b.op('tensor.mix_tokens', [x], { weight: 'weight', count }, 'mix');
  },
});

describe('mix_tokens', () => {
  const cases: readonly [string, number, Constant][] = [
    ['all tokens to all', 14, matrix(14, 14, (r, c) => Math.sin(3 * r + c))],
    ['reversed', 16, matrix(16, 16, (r, c) => (r + c === 15 ? 1 : 0))],
    ['every fourth', 16, matrix(4, 16, (r, c) => (c === 4 * r ? 1 : 0))],
    ['one token to all', 1, matrix(16, 1, () => 1)],
    ['a neighbour, zeros at the end', 13, matrix(13, 13, (r, c) => (c === r + 1 ? 2 : 0))],
    ['nothing', 8, matrix(8, 8, () => 0)],
  ];
  it.each(cases.flatMap((one) => [1, 2, 4].map((blocks) => [...one, blocks] as const)))(
    '%s (%i tokens)',
    (_, tokens, weight, blocks) => {
      expect(difference(mixed(tokens, weight), blocks)).toBeLessThan(1e-9);
    },
  );
});

describe('rms_norm', () => {
  it.each([
    ['one size', () => 1],
    ['sizes that differ, with cubic steps', (token: number) => 10 ** (-token / 8)],
    ['variances over five decades', (token: number) => 10 ** (-token / 2.4)],
  ] as const)('%s', (_, scaleOf) => {
    const body: Body = {
      tokens: 7,
      constants: { gamma: matrix(1, width, (_r, c) => 1 + c / 8) },
      build: (b, x) => b.op('tensor.rms_norm', [x], { gamma: 'gamma', epsilon: 1e-6 }, 'norm'),
    };
    expect(difference(body, 1, scaleOf)).toBeLessThan(1e-3);
  });
});

describe('padded tokens', () => {
  it.each([
    ['sigmoid', 'tensor.sigmoid', {}],
    ['1 / sqrt', 'tensor.function', { name: 'power', alpha: -0.5 }],
    ['1 / x', 'tensor.function', { name: 'reciprocal' }],
  ] as const)('are zero behind %s, whose argument they leave out', (_, kind, attrs) => {
    for (const linear of [true, false]) {
      const body: Body = {
        tokens: 5,
        constants: {
          square: matrix(width, width, (r, c) => (r === c ? 1 : 0)),
          shift: { shape: [width], data: new Float64Array(width).fill(3) },
          row: { shape: [1, width], data: new Float64Array(width).fill(3) },
        },
        build: (b, x) => {
          const own = linear
            ? b.op('tensor.linear', [x], { weight: 'square', bias: 'shift', outFeatures: width }, 'linear')
            : b.op('tensor.add_constant', [x], { constant: 'row' }, 'shift');
          return b.op('tensor.mean_tokens', [b.op(kind, [own], attrs, 'function')], {}, 'mean');
        },
      };
      expect(difference(body, 1)).toBeLessThan(1e-3);
    }
  });
});

describe('named functions', () => {
  it.each([
    ['exp', {}, 1e-3],
    ['mish', {}, 1e-3],
    ['softplus', {}, 1e-3],
    ['hard_swish', {}, 1e-2],
    ['elu', { alpha: 0.7 }, 1e-2],
    ['leaky_relu', { alpha: 0.1 }, 1e-2],
    ['clip', { alpha: -0.3, beta: 0.5 }, 1e-2],
  ] as const)('%s', (name, attrs, tolerance) => {
    const body: Body = {
      tokens: 4,
      constants: {},
      build: (b, x) => b.op('tensor.function', [x], { name, ...attrs }, 'function'),
    };
    expect(difference(body, 1)).toBeLessThan(tolerance);
  });
});
