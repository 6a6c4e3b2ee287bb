/** Small modules that the IR tests share. */
import { BlockBuilder, Ids } from '../../src/ir/builder.js';
import type { Constant, Func, Module, Port, Value } from '../../src/ir/module.js';
import { parseModule } from '../../src/ir/parser.js';
import { canonicalScale } from '../../src/ir/scale.js';
import { qBasis, type Axis, type CtType } from '../../src/ir/types.js';
import { defaultLiteral, makeParameters, type Parameters } from '../../src/target/parameters.js';

export const tiny: Parameters = makeParameters(defaultLiteral('tiny', true));
/** 16 slots, so that tables stay readable. */
export const micro: Parameters = makeParameters(defaultLiteral('tiny', true, { logN: 5 }));

/** Deterministic values in [-1, 1). */
export function randomValues(seed: number, length: number): Float64Array {
  const random = randomSource(seed);
  return Float64Array.from({ length }, () => 2 * random() - 1);
}

/** mulberry32: uniform in [0, 1). */
export function randomSource(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z = (z + Math.imul(z ^ (z >>> 7), z | 61)) ^ z;
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function ct(axes: readonly Axis[], level: number | null = null): CtType {
  return {
    kind: 'ct',
    axes,
    degree: 1,
    basis: qBasis,
    level,
    scale: level === null ? null : canonicalScale(level),
  };
}

export const axis = (name: string, size: number): Axis => ({ name, size });

export interface ModuleParts {
  readonly functions: readonly Func[];
  readonly inputs?: readonly Port[];
  readonly outputs?: readonly Port[];
  readonly constants?: Readonly<Record<string, Constant>>;
  readonly tables?: Readonly<Record<string, Int32Array>>;
  readonly parameters?: Parameters | null;
}

export function cipherModule(parts: ModuleParts): Module {
  return {
    phase: 'cipher',
    name: 'test',
    sourceHash: 'none',
    parameters: parts.parameters === undefined ? tiny : parts.parameters,
    functions: parts.functions,
    constants: new Map(Object.entries(parts.constants ?? {})),
    tables: new Map(Object.entries(parts.tables ?? {})),
    inputs: parts.inputs ?? [],
    outputs: parts.outputs ?? [],
  };
}

/** A module whose `main` is one block. */
export function mainModule(
  argTypes: readonly CtType[],
  body: (b: BlockBuilder, args: readonly Value[]) => readonly Value[],
  parts: Omit<ModuleParts, 'functions'> = {},
): Module {
  const b = new BlockBuilder(new Ids(), parts.parameters === undefined ? tiny : parts.parameters, argTypes);
  const main: Func = { name: 'main', body: b.finish(body(b, b.args)) };
  return cipherModule({ ...parts, functions: [main] });
}

/**
 * Token-slow, feature-fast: feature f of token t is slot (f mod period) + period*t of element floor(f /
 * period).
 */
export function tokenPort(name: string, tokens: number, features: number, slots: number): Port {
  const period = slots / tokens;
  const elements = Math.ceil(features / period);
  return {
    name,
    shape: [tokens, features],
    factor: 1,
    slots: {
      period,
      features: Int32Array.from({ length: elements * period }, (_, f) => (f < features ? f : -1)),
      tokens: Int32Array.from({ length: tokens }, (_, t) => t * features),
    },
  };
}

/** x (tokens x inputs) times the transposed weight (outputs x inputs) by baby and giant steps. */
export function linearModule(options: {
  tokens: number;
  inputs: number;
  outputs: number;
  weight: Float64Array;
  babySteps: number;
  parameters?: Parameters;
}): Module {
  const parameters = options.parameters ?? tiny;
  const period = parameters.slots / options.tokens;
  const input = tokenPort('x', options.tokens, options.inputs, parameters.slots);
  const output = tokenPort('y', options.tokens, options.outputs, parameters.slots);
  const inCount = Math.ceil(options.inputs / period);
  const outCount = Math.ceil(options.outputs / period);
  const baby = Array.from({ length: options.babySteps }, (_, b) => b);
  const giant: number[] = [];
  for (let r = -period + 1; r < period; r++) {
    const step = Math.floor(r / options.babySteps) * options.babySteps;
    if (!giant.includes(step)) giant.push(step);
  }
  return mainModule(
    [ct([axis('i', inCount)])],
    (b, [x]) => {
      const loc = 'linear';
      const rotated = b.op('ct.rotate', [x as Value], { axis: 'b', steps: baby }, loc);
      const axes = [axis('o', outCount), axis('g', giant.length), axis('i', inCount), axis('b', baby.length)];
      const weight = b.op(
        'pt.diagonals',
        [],
        {
          axes: axes.map((a) => ({ ...a })),
          period,
          weight: 'w',
          rows: 'rows',
          columns: 'columns',
          baby,
          giant,
          factor: 1,
        },
        loc,
      );
      const sums = b.op('ct.contract', [rotated, weight], { over: ['i', 'b'] }, loc);
      const y = b.op('ct.rotate_each', [sums], { axis: 'g', steps: giant, sum: true }, loc);
      return [b.op('ct.rescale', [y], {}, loc)];
    },
    {
      parameters,
      inputs: [input],
      outputs: [output],
      constants: { w: { shape: [options.outputs, options.inputs], data: options.weight } },
      tables: {
        rows: output.slots?.features ?? new Int32Array(),
        columns: input.slots?.features ?? new Int32Array(),
      },
    },
  );
}

/** A loop that multiplies a carried value by index i of an array, with a recipe and an outer value inside. */
export function loopModule(): Module {
  const port = (name: string, elements: number): Port => ({
    name,
    shape: [elements, micro.slots],
    factor: 1,
    slots: {
      period: micro.slots,
      tokens: Int32Array.of(0),
      features: Int32Array.from({ length: elements * micro.slots }, (_, at) => at),
    },
  });
  return mainModule(
    [ct([], 9), ct([axis('j', 3)], 9)],
    (b, [start, factors]) => {
      const loc = 'encoder.0/MatMul';
      const sums = b.loop(3, [start as Value], loc, (inner, [sum]) => {
        const factor = inner.op('ct.index', [factors as Value], { axis: 'j', index: 0, loopStride: 1 }, loc);
        const half = inner.op('pt.constant', [], { axes: [], values: [0.5] }, loc);
        const shifted = inner.op('ct.add_plain', [factor, half], {}, loc);
        const turned = inner.op(
          'ct.rotate_each',
          [inner.op('ct.reshape', [shifted], { axes: [{ name: 'one', size: 1 }] }, loc)],
          { axis: 'one', steps: [2], sum: true, loopStride: 3 },
          loc,
        );
        return [inner.op('ct.add', [sum as Value, turned], {}, loc)];
      });
      return sums;
    },
    { parameters: micro, inputs: [port('start', 1), port('factors', 3)], outputs: [port('y', 1)] },
  );
}

/** Parsed from text, as a fixture would be. */
export function tensorModule(): Module {
  const zeros = (words: number): string => Buffer.alloc(4 * words).toString('base64');
  return parseModule(`module "t" phase tensor source "s"
    input "x" : 5 {factor=1}
    output "y" : 2x2 {factor=1}
    const @w : 2x3 = base64 f32 "${zeros(6)}"
    const @b : 2 = base64 f32 "${zeros(2)}"
    table @i = [0, 1, 2, 3, 4, -1]
    func @main(%0: tensor<5 f32>) -> (tensor<2x2 f32>) {
      %1 = tensor.rearrange %0 {indices=i, shape=[2, 3]} : tensor<2x3 f32>
      %2 = tensor.linear %1 {bias=b, outFeatures=2, weight=w} : tensor<2x2 f32>
      return %2
    }`);
}

export const polyModule = (): Module =>
  parseModule(`module "p" phase poly source "s"
  func @main(%0: poly<j=2, component=2; limbs [0..3], ntt>) -> (poly<component=2; limbs [0..3], ntt>) {
    %1 = pt.constant {axes=[j=2], values=[1, 2]} : pt<j=2; period 1> // recipes live on in the poly phase
    %2 = poly.contract %0, %1 {over=[j], scale=1024} : poly<component=2; limbs [0..3], ntt>
    return %2
  }`);
