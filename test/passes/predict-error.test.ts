import { describe, expect, it } from 'vitest';
import { runCipher } from '../../src/ir/interpreter/cipher.js';
import type { Module, Value } from '../../src/ir/module.js';
import { expandBootstrap } from '../../src/passes/expand-bootstrap.js';
import { expandPolynomial } from '../../src/passes/expand-polynomial.js';
import { bootstrapNoise } from '../../src/passes/predict-error/bootstrap-noise.js';
import { opNoise } from '../../src/passes/predict-error/noise-model.js';
import {
  approximationMargin,
  predictError,
  runWithNoise,
  sigmas,
  withPredictedErrors,
} from '../../src/passes/predict-error.js';
import {
  arcsineLevels,
  defaultLiteral,
  digitGroupsAt,
  evalModLevels,
  keyClassFor,
  makeParameters,
} from '../../src/target/parameters.js';
import { ct, mainModule, randomValues, tiny, tokenPort } from '../ir/build.js';

const tokens = 8;
const period = tiny.slots / tokens;
const scale = 2 ** 40;
const n = 2 ** tiny.logN;

function module(
  level: number,
  body: (op: (kind: string, operands: readonly Value[], attrs?: object) => Value, x: Value) => Value,
): Module {
  const port = (name: string) => tokenPort(name, tokens, period, tiny.slots);
  return mainModule(
    [ct([], level)],
    (b, [x]) =>
      x === undefined
        ? []
        : [body((kind, operands, attrs = {}) => b.op(kind, operands, { ...attrs }, `node/${kind}`), x)],
    { inputs: [port('x')], outputs: [port('y')] },
  );
}

const x = randomValues(3, tiny.slots);
const exact = (m: Module) => [runCipher(m, { x })];

describe('predict-error', () => {
  it('is 6 sigma of a fresh encryption where nothing happens', () => {
    const m = module(9, (op, value) => op('ct.reshape', [value], { axes: [] }));
    const { parts } = predictError(m, [{ x }], exact(m), { runs: 64 });
    const sigma = (3.2 * Math.sqrt((4 * n) / 3 + 1) * Math.sqrt(n / 2)) / scale;
    // The worst of 512 elements over 64 runs lies within 1.4 of the true deviation.
    expect((parts.y?.noise ?? 0) / (6 * sigma)).toBeGreaterThan(1);
    expect((parts.y?.noise ?? 0) / (6 * sigma)).toBeLessThan(1.4);
    expect(parts.y?.approximation).toBe(0);
  });

  it('adds the approximation error with a margin', () => {
    const m = module(9, (op, value) => op('ct.reshape', [value], { axes: [] }));
    const reference = { y: x.map((v, i) => v + (i === 17 ? 0.25 : 0)) };
    const prediction = predictError(m, [{ x }], [reference]);
    expect(prediction.parts.y?.approximation).toBeCloseTo(0.25 * approximationMargin, 12);
    expect(prediction.outputs.y).toBe(
      (prediction.parts.y?.noise ?? 0) + (prediction.parts.y?.approximation ?? 0),
    );
    expect(withPredictedErrors(m, prediction).outputs[0]?.predictedError).toBe(prediction.outputs.y);
  });

  it('is deterministic and names the nodes', () => {
    const m = expandPolynomial(
      module(9, (op, value) => {
        const half = op('pt.constant', [], { axes: [], values: [0.5] });
        const product = op('ct.rescale', [op('ct.contract', [value, half], { over: [], scale: 'D9' })]);
        return op('ct.polynomial', [product], { coefficients: [0.1, 0.5, 0, 0.25] });
      }),
    );
    const prediction = predictError(m, [{ x }], exact(m), { seed: 7 });
    expect(predictError(m, [{ x }], exact(m), { seed: 7 })).toEqual(prediction);
    expect(predictError(m, [{ x }], exact(m), { seed: 8 }).outputs.y).not.toBe(prediction.outputs.y);
    expect(prediction.nodes.map((row) => row.node)).toEqual([
      'node/ct.contract',
      'node/ct.rescale',
      'node/ct.polynomial',
    ]);
    const last = prediction.nodes[2];
    expect(last).toMatchObject({ level: 6 });
    expect(last?.noise).toBeGreaterThan(2 ** -38);
    expect(last?.noise).toBeLessThan(2 ** -26);
    expect(last?.scaleBits).toBeCloseTo(40, 0);
  });

  it('bounds the noise of another run at every node', () => {
    const m = expandPolynomial(
      module(9, (op, value) => op('ct.polynomial', [value], { coefficients: [0.1, 0.5, 0, 0.25] })),
    );
    const { nodes } = predictError(m, [{ x }], exact(m), { seed: 7 });
    const measured = runWithNoise(m, [{ x }, { x }], 11);
    expect(measured.outputs).toHaveLength(2);
    expect(measured.nodes).toHaveLength(nodes.length);
    measured.nodes.forEach(({ largest }, i) => {
      const ratio = largest / (sigmas * (nodes[i]?.noise ?? 0));
      expect(ratio).toBeLessThan(1);
      expect(ratio).toBeGreaterThan(1 / 8);
    });
  });

  it('knows rotations, relinearization and ModDown', () => {
    const m = module(9, (op, value) => {
      const turned = op('ct.rotate', [value], { axis: 'r', steps: [0, 1, 5], lazy: 'compute' });
      const ones = op('pt.constant', [], { axes: [{ name: 'r', size: 3 }], values: [1, 1, 1] });
      const sum = op('ct.mod_down', [op('ct.contract', [turned, ones], { over: ['r'], scale: 'D9' })]);
      const low = op('ct.rescale', [sum]);
      const square = op('ct.rescale', [op('ct.relinearize', [op('ct.mul', [low, low], { over: [] })])]);
      const parts = op('ct.reshape', [square], { axes: [{ name: 'g', size: 1 }] });
      const each = op('ct.rotate_each', [parts], { axis: 'g', steps: [3], sum: true });
      return op('ct.adjust', [op('ct.conjugate', [each])], { level: 3 });
    });
    const noise = predictError(m, [{ x }], exact(m)).parts.y?.noise ?? 0;
    expect(noise).toBeGreaterThan(2 ** -30);
    expect(noise).toBeLessThan(2 ** -21);
  });

  it('counts a ModDown for each group of digits', () => {
    const turned = (attrs: object) =>
      module(4, (op, value) => {
        const parts = op('ct.reshape', [value], { axes: [{ name: 'g', size: 1 }] });
        return op('ct.rotate_each', [parts], { axis: 'g', steps: [3], sum: true, ...attrs });
      });
    const op = turned({ digitGroups: 2 }).functions[0]?.body.ops[1];
    const plain = turned({}).functions[0]?.body.ops[1];
    const sources = {
      parameters: tiny,
      magnitude: () => 1,
      bootstrap: () => 0,
      modelledRange: () => undefined,
    };
    if (op === undefined || plain === undefined) throw new Error('no rotation');
    // Two digits at level 4; ModDown outweighs the products.
    const groups = new Set(digitGroupsAt(keyClassFor(tiny, 4), 4, 2)).size;
    expect((opNoise(op, 0, sources) / opNoise(plain, 0, sources)) ** 2).toBeCloseTo(groups, 1);
  });

  it('gives a bootstrap the noise of its EvalMod', () => {
    const m = expandBootstrap(
      module(tiny.bootstrapInputLevel, (op, value) => op('ct.bootstrap', [value], { rangeLog2: 1 })),
    );
    const sigma = bootstrapNoise(tiny, 1, 1);
    const noise = predictError(m, [{ x }], exact(m), { runs: 16 }).parts.y?.noise ?? 0;
    expect(noise / (6 * sigma)).toBeGreaterThan(1);
    expect(noise / (6 * sigma)).toBeLessThan(2.5);
  });

  it('gives 21 bits at N = 2^16, two more with the arcsine', () => {
    const secure = makeParameters(defaultLiteral('secure', false));
    const deviation = bootstrapNoise(secure, 0, 1);
    expect(Math.log2(deviation)).toBeLessThan(-20.5);
    expect(Math.log2(deviation)).toBeGreaterThan(-21.5);
    const literal = defaultLiteral('secure', false, { evalModLevels: evalModLevels + arcsineLevels });
    const steeper = bootstrapNoise(makeParameters(literal), 0, 1);
    expect(Math.log2(steeper / deviation)).toBeCloseTo(-2, 0);
    // Errors are relative to the range.
    expect(Math.log2(bootstrapNoise(tiny, 4, 1) / bootstrapNoise(tiny, 0, 1))).toBeCloseTo(4, 0);
  });
});
