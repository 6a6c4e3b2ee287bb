/** Variances over five decades and scores up to +-70: calibrated, packed, planned, and run with noise. */
import { describe, expect, it } from 'vitest';
import { BlockBuilder, Ids } from '../../src/ir/builder.js';
import { runTensor } from '../../src/ir/interpreter/tensor.js';
import type { Module } from '../../src/ir/module.js';
import { calibrateModule } from '../../src/passes/calibrate.js';
import { defaultPack, runPipeline } from '../../src/passes/pipeline.js';
import { predictError, runWithNoise } from '../../src/passes/predict-error.js';
import { defaultLiteral, makeParameters } from '../../src/target/parameters.js';
import { random, randomInput, tinyTransformer, type TinyShape } from './tiny-transformer.js';

const parameters = makeParameters(defaultLiteral('tiny', true));
type Sample = Record<string, Float64Array>;

interface Result {
  readonly measured: number;
  readonly predicted: number;
  readonly range: number;
}

/** The whole pipeline on calibration inputs; errors on others, with noise. */
function measure(module: Module, inputs: readonly Sample[], others: readonly Sample[]): Result {
  const ranges = calibrateModule(module, inputs);
  const context = { parameters, ranges, pack: defaultPack };
  const { module: cipher } = runPipeline(
    module,
    context,
    () => 0,
    () => undefined,
  );
  const references = inputs.map((input) => runTensor(module, input));
  const predicted = Math.max(...Object.values(predictError(cipher, inputs, references).outputs));
  const { outputs } = runWithNoise(cipher, others, 5);
  let [measured, range] = [0, 0];
  others.forEach((input, i) => {
    for (const [name, wanted] of Object.entries(runTensor(module, input))) {
      wanted.forEach((y, k) => {
        measured = Math.max(measured, Math.abs((outputs[i]?.[name]?.[k] ?? NaN) - y));
        range = Math.max(range, Math.abs(y));
      });
    }
  });
  return { measured, predicted, range };
}

const [tokens, width] = [8, 16];

function normModule(): Module {
  const port = { name: 'x', shape: [1, tokens, width], factor: 1 };
  const b = new BlockBuilder(new Ids(), null, [{ kind: 'tensor', dtype: 'f32', shape: port.shape }]);
  const [x] = b.args;
  if (x === undefined) throw new Error('no argument');
  const rows = b.op('tensor.rearrange', [x], { shape: [tokens, width], indices: 'i' }, 'rows');
  const y = b.op('tensor.layer_norm', [rows], { epsilon: 1e-12 }, 'norm');
  return {
    phase: 'tensor',
    name: 'norm',
    sourceHash: '',
    parameters: null,
    functions: [{ name: 'main', body: b.finish([y]) }],
    constants: new Map(),
    tables: new Map([['i', Int32Array.from({ length: tokens * width }, (_, i) => i)]]),
    inputs: [port],
    outputs: [{ name: 'y', shape: [tokens, width], factor: 1 }],
  };
}

/** Deviations from 1 down to 10^-2.5: variances over five decades. */
function decades(seed: number): Sample {
  const next = random(seed);
  const x = Float64Array.from({ length: tokens * width }, (_, i) => {
    return 10 ** ((-2.5 * Math.floor(i / width)) / (tokens - 1)) * 1.7 * next();
  });
  return { x };
}

describe('wide ranges', () => {
  it('normalises variances over five decades', () => {
    const calibration = Array.from({ length: 8 }, (_, i) => decades(10 + i));
    const result = measure(normModule(), calibration, [decades(90), decades(91)]);
    expect(result.measured).toBeLessThan(0.01 * result.range);
    expect(result.measured).toBeLessThan(result.predicted);
  });

  it('takes scores up to +-70', () => {
    const shape: TinyShape = { tokens: 8, width: 16, heads: 2, hidden: 32, sharpness: 40 };
    const module = tinyTransformer(shape, 7);
    const inputs = Array.from({ length: 8 }, (_, i) => ({ x: randomInput(shape, 100 + i) }));
    const { nodes } = calibrateModule(module, inputs);
    const scores = nodes.find(({ kind }) => kind === 'attention')?.interval ?? { min: 0, max: 0 };
    expect(Math.min(-scores.min, scores.max)).toBeGreaterThan(70);
    const result = measure(module, inputs, [{ x: randomInput(shape, 200) }, { x: randomInput(shape, 201) }]);
    expect(result.measured).toBeLessThan(0.01 * result.range);
    expect(result.measured).toBeLessThan(result.predicted);
  });
});
