import { describe, expect, it } from 'vitest';
import { compile } from '../../src/compile.js';
import { withinGoal } from '../../src/compile/error-goal.js';
import { readSamples, takeSamples } from '../../src/data/index.js';
import { runTensor } from '../../src/ir/interpreter/tensor.js';
import { compositeSign, evaluateChebyshev, fitChebyshev } from '../../src/passes/approximation/index.js';
import { calibrateModule, nodeRanges } from '../../src/passes/calibrate.js';
import { allocate, sensitivities } from '../../src/passes/error-budget.js';
import { fitInverseSqrt } from '../../src/passes/pack/inverse-sqrt.js';
import { approximateActivation } from '../../src/passes/pack/nonlinear.js';
import { AegisError } from '../../src/support/diagnostics.js';
import { example, samplesPath } from '../corpus/models.js';
import { randomInput, tinyTransformer, type TinyShape } from './tiny-transformer.js';

const shape: TinyShape = { tokens: 8, width: 16, heads: 2, hidden: 32, sharpness: 1 };
const tensor = tinyTransformer(shape, 7);
const inputs = Array.from({ length: 8 }, (_, i) => ({ x: randomInput(shape, 100 + i) }));
const ranges = calibrateModule(tensor, inputs);
const nodes = nodeRanges(ranges);

describe('composite sign', () => {
  it('makes a relu of far fewer products than one series of that error', () => {
    const sign = compositeSign([15, 15, 15]);
    const relu = (x: number) =>
      (x * (1 + sign.stages.reduce((y, stage) => evaluateChebyshev(stage, y), x))) / 2;
    let worst = 0;
    for (let x = -1; x <= 1; x += 1 / 8192) worst = Math.max(worst, Math.abs(relu(x) - Math.max(0, x)));
    expect(worst).toBeLessThanOrEqual(sign.reluError * 1.001);
    expect(worst).toBeLessThan(2.1e-4);
    expect(sign.depth).toBe(12);
    const series = fitChebyshev((x) => Math.max(0, x), -1, 1, { degree: 511 });
    expect(series.maxError).toBeGreaterThan(worst);
  });

  it('keeps its arguments within [-1, 1]', () => {
    const { stages } = compositeSign([31, 15, 15]);
    for (let x = -1; x <= 1; x += 1 / 1024) {
      let y = x;
      for (const stage of stages.slice(0, -1)) {
        y = evaluateChebyshev(stage, y);
        expect(Math.abs(y)).toBeLessThanOrEqual(1 + 1e-9);
      }
    }
  });
});

describe('tolerances', () => {
  it.each([0.5, 1e-2, 1e-3])('hold for relu and gelu at %d', (tolerance) => {
    for (const kind of ['relu', 'gelu'] as const) {
      const { maxError } = approximateActivation({ kind }, { min: -6, max: 9 }, tolerance);
      expect(maxError).toBeLessThanOrEqual(tolerance);
    }
  });

  it('hold for inverse square roots over seven decades', () => {
    const shift = -(1 + 2e-7);
    const { coefficients, steps } = fitInverseSqrt(shift, 1e-4, 'node');
    expect(steps.length).toBeGreaterThan(0);
    for (let exponent = -7; exponent <= 0; exponent += 0.01) {
      const w = 2 * 10 ** exponent;
      let p = evaluateChebyshev(coefficients, w + shift);
      for (const { linear, cubic } of steps) p = linear * p - cubic * p ** 3 * w;
      expect(Math.abs(p * Math.sqrt(w) - 1)).toBeLessThan(1.01e-4);
    }
  });
});

describe('error budget', () => {
  const limits = { logits: 1 };

  it('finds what an error of a node does to the outputs', () => {
    const found = sensitivities(tensor, inputs, nodes, limits);
    expect(found.map(({ node }) => node)).toEqual(['attention', 'norm1', 'gelu', 'norm2', 'tanh']);
    // The head adds up 16 errors of tanh: no more than the sum of a row's weights.
    const head = tensor.constants.get('head.w')?.data ?? new Float64Array(0);
    const rows = [0, 1, 2].map((r) =>
      head.subarray(16 * r, 16 * (r + 1)).reduce((sum, w) => sum + Math.abs(w), 0),
    );
    const tanh = found.at(-1)?.sensitivity ?? 0;
    expect(tanh).toBeGreaterThan(0.05);
    expect(tanh).toBeLessThanOrEqual(Math.max(...rows));
    expect(sensitivities(tensor, inputs, nodes, { logits: 0.5 })[0]?.sensitivity).toBeCloseTo(
      2 * (found[0]?.sensitivity ?? NaN),
      9,
    );
  });

  it('spends the share, and less of it at more levels', () => {
    const found = sensitivities(tensor, inputs, nodes, limits);
    const spent = (share: number) => {
      const tolerances = allocate(tensor, found, nodes, share);
      return found.reduce((sum, { op, sensitivity }) => sum + sensitivity * (tolerances.get(op) ?? NaN), 0);
    };
    expect(spent(0.1)).toBeLessThanOrEqual(0.1);
    expect(spent(0.1)).toBeGreaterThan(0.1 / 64);
    expect(spent(0.001)).toBeLessThanOrEqual(0.001);
  });

  it('disturbs nothing for other readers of the module', () => {
    const before = runTensor(tensor, inputs[0] ?? {});
    sensitivities(tensor, inputs, nodes, limits);
    expect(runTensor(tensor, inputs[0] ?? {})).toEqual(before);
  });

  it('keeps a goal of the example, at fewer products than a tighter one', async () => {
    const samples = takeSamples(await readSamples(samplesPath(example)), { from: 0, to: 16 });
    const at = (value: number, isFraction: boolean) =>
      compile(example, { ring: 'small', insecure: true, samples, maxError: { value, isFraction } });
    const loose = await at(0.2, false);
    const tight = await at(2e-4, true);
    expect(loose.cipher.outputs[0]?.predictedError).toBeLessThanOrEqual(0.2);
    // Outputs range over less than 20.
    expect(tight.cipher.outputs[0]?.predictedError).toBeLessThanOrEqual(4e-3);
    expect(loose.summary.ctMultiplications).toBeLessThan(tight.summary.ctMultiplications);
    await expect(at(1e-7, false)).rejects.toThrow(/A106.*noise alone/s);
  });

  it('refuses ranges without inputs', () => {
    const attempt = () => {
      throw new Error('not reached');
    };
    const goal = { value: 0.1, isFraction: false };
    expect(() => withinGoal(goal, tensor, { ...ranges, probes: [] }, attempt)).toThrow(AegisError);
    expect(() => withinGoal(goal, tensor, { ...ranges, probes: [] }, attempt)).toThrow(/A107/);
  });
});
