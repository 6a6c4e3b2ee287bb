import { describe, expect, it } from 'vitest';
import { runCipher } from '../../src/ir/interpreter/cipher.js';
import { rotateLeft } from '../../src/ir/interpreter/kernels.js';
import type { Module, Op, Port, Value } from '../../src/ir/module.js';
import { verifyModule } from '../../src/ir/verifier.js';
import { defaultLiteral, makeParameters } from '../../src/target/parameters.js';
import { axis, ct, linearModule, loopModule, mainModule, micro, randomValues, tiny } from './build.js';

function product(
  x: Float64Array,
  w: Float64Array,
  tokens: number,
  inputs: number,
  outputs: number,
): Float64Array {
  return Float64Array.from({ length: tokens * outputs }, (_, at) => {
    const [t, o] = [Math.floor(at / outputs), at % outputs];
    let sum = 0;
    for (let i = 0; i < inputs; i++) sum += (w[o * inputs + i] as number) * (x[t * inputs + i] as number);
    return sum;
  });
}

function greatestDifference(a: Float64Array | undefined, b: Float64Array): number {
  expect(a?.length).toBe(b.length);
  return b.reduce((max, value, i) => Math.max(max, Math.abs(value - (a?.[i] as number))), 0);
}

describe('a linear layer', () => {
  for (const [tokens, inputs, outputs, babySteps] of [
    [16, 40, 72, 8],
    [256, 3, 2, 2],
    [4, 100, 130, 16],
    [1, 600, 9, 32],
  ] as const) {
    it(`${inputs} to ${outputs} features of ${tokens} tokens by ${babySteps} baby steps equals the matrix product`, () => {
      const weight = randomValues(1, inputs * outputs);
      const x = randomValues(2, tokens * inputs);
      const module = linearModule({ tokens, inputs, outputs, weight, babySteps });
      expect(verifyModule(module)).toEqual([]);
      const { y } = runCipher(module, { x });
      expect(greatestDifference(y, product(x, weight, tokens, inputs, outputs))).toBeLessThan(1e-11);
    });
  }

  it('is fast: 192 outputs by 255 diagonals of 2048 slots', () => {
    const parameters = makeParameters(defaultLiteral('small', true));
    const [tokens, inputs, outputs] = [16, 128, 192 * 128];
    const weight = randomValues(1, inputs * outputs);
    const module = linearModule({ tokens, inputs, outputs, weight, babySteps: 256, parameters });
    const x = randomValues(2, tokens * inputs);
    const start = performance.now();
    const { y } = runCipher(module, { x });
    const ms = performance.now() - start;
    expect(greatestDifference(y, product(x, weight, tokens, inputs, outputs))).toBeLessThan(1e-11);
    // About 300 ms on one core, packing and weights included; the bound is for a busy machine.
    expect(ms).toBeLessThan(5000);
  });
});

/**
 * The loop of DESIGN section 4 with heads in slots: slot = h + heads*t, one array element per feature of a
 * head.
 */
function attentionModule(
  heads: number,
  tokens: number,
  features: number,
  offsets: number,
  exp: readonly number[],
): Module {
  const port = (name: string): Port => ({
    name,
    shape: [features, tokens, heads],
    factor: 1,
    slots: {
      period: heads,
      tokens: Int32Array.from({ length: tokens }, (_, t) => t * heads),
      features: Int32Array.from(
        { length: features * heads },
        (_, at) => Math.floor(at / heads) * tokens * heads + (at % heads),
      ),
    },
  });
  const den: Port = {
    name: 'den',
    shape: [tokens, heads],
    factor: 1,
    slots: {
      period: heads,
      tokens: Int32Array.from({ length: tokens }, (_, t) => t * heads),
      features: Int32Array.from({ length: heads }, (_, h) => h),
    },
  };
  const j = ct([axis('j', features)]);
  const one = [{ name: 'one', size: 1 }];
  return mainModule(
    [j, j, j],
    (b, [q, k, v]) => {
      const steps = Array.from({ length: offsets }, (_, i) => heads * i);
      const keys = b.op('ct.rotate', [k as Value], { axis: 'b', steps }, 'keys');
      const values = b.op('ct.rotate', [v as Value], { axis: 'b', steps }, 'values');
      const start = [
        b.op('ct.zero', [], { axes: [] }, ''),
        b.op('ct.zero', [], { axes: [{ ...axis('j', features) }] }, ''),
      ];
      return b.loop(tokens / offsets, start, 'attention', (inner, [sum, numerators]) => {
        const turned = (
          value: Value,
          axes: readonly { name: string; size: number }[],
          stride: number,
        ): Value =>
          inner.op(
            'ct.rotate_each',
            [inner.op('ct.reshape', [value], { axes: [...one, ...axes.map((a) => ({ ...a }))] }, '')],
            { axis: 'one', steps: [0], sum: true, loopStride: stride },
            '',
          );
        const product = (x: Value, y: Value, over: readonly string[]): Value =>
          inner.op(
            'ct.rescale',
            [inner.op('ct.relinearize', [inner.op('ct.mul', [x, y], { over }, '')], {}, '')],
            {},
            '',
          );
        const scores = product(turned(q as Value, j.axes, -heads * offsets), keys, ['j']);
        const weights = inner.op('ct.polynomial', [scores], { coefficients: exp }, '');
        const total = inner.op('ct.sum', [weights], { axis: 'b' }, '');
        const mixed = product(weights, values, ['b']);
        return [
          inner.op('ct.add', [sum as Value, turned(total, [], heads * offsets)], {}, ''),
          inner.op('ct.add', [numerators as Value, turned(mixed, j.axes, heads * offsets)], {}, ''),
        ];
      });
    },
    { inputs: [port('q'), port('k'), port('v')], outputs: [den, port('o')] },
  );
}

it('mask-free attention over key offsets equals the softmax numerators and denominators', () => {
  const [heads, tokens, features, offsets] = [4, 128, 5, 8];
  // exp(x) on [-1, 1] in the Chebyshev basis: modified Bessel functions I_k(1).
  const exp = [
    1.2660658777520084, 1.1303182079849703, 0.27149533953407656, 0.04433684984866379, 0.00547424044209,
    5.4292631191394e-4,
  ];
  const chebyshev = (x: number): number => exp.reduce((sum, c, k) => sum + c * Math.cos(k * Math.acos(x)), 0);
  const module = attentionModule(heads, tokens, features, offsets, exp);
  expect(verifyModule(module)).toEqual([]);
  const input = (seed: number): Float64Array =>
    randomValues(seed, features * tokens * heads).map((x) => x * 0.4);
  const [q, k, v] = [input(1), input(2), input(3)];
  const at = (x: Float64Array, j: number, t: number, h: number): number =>
    x[(j * tokens + t) * heads + h] as number;
  const den = new Float64Array(tokens * heads);
  const o = new Float64Array(features * tokens * heads);
  for (let h = 0; h < heads; h++) {
    for (let t = 0; t < tokens; t++) {
      for (let s = 0; s < tokens; s++) {
        let score = 0;
        for (let j = 0; j < features; j++) score += at(q, j, t, h) * at(k, j, s, h);
        const weight = chebyshev(score);
        den[t * heads + h] = (den[t * heads + h] as number) + weight;
        for (let j = 0; j < features; j++) {
          const index = (j * tokens + t) * heads + h;
          o[index] = (o[index] as number) + weight * at(v, j, s, h);
        }
      }
    }
  }
  const result = runCipher(module, { q, k, v });
  expect(greatestDifference(result.den, den)).toBeLessThan(1e-11);
  expect(greatestDifference(result.o, o)).toBeLessThan(1e-11);
});

it('a loop selects by iteration', () => {
  const [start, factors] = [randomValues(1, 16), randomValues(2, 48)];
  const expected = start.slice();
  for (let i = 0; i < 3; i++) {
    const turned = rotateLeft(factors.slice(16 * i, 16 * (i + 1)), 2 + 3 * i);
    expected.forEach((value, s) => (expected[s] = value + (turned[s] as number) + 0.5));
  }
  expect(greatestDifference(runCipher(loopModule(), { start, factors }).y, expected)).toBeLessThan(1e-15);
});

describe('noise and observation', () => {
  it('adds seeded Gaussians of the deviation that the model gives', () => {
    const weight = new Float64Array(64);
    const module = linearModule({ tokens: 64, inputs: 8, outputs: 8, weight, babySteps: 4 });
    const noise = (seed: number) => ({ seed, stdDev: (op: Op) => (op.kind === 'ct.rescale' ? 0.25 : 0) });
    const run = (seed: number) =>
      runCipher(module, { x: new Float64Array(512) }, { noise: noise(seed) }).y as Float64Array;
    const values = run(1);
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const variance = values.reduce((sum, value) => sum + value * value, 0) / values.length;
    expect(Math.abs(mean)).toBeLessThan(0.05);
    expect(Math.sqrt(variance)).toBeGreaterThan(0.22);
    expect(Math.sqrt(variance)).toBeLessThan(0.28);
    expect(run(1)).toEqual(values);
    expect(run(2)).not.toEqual(values);
  });

  it('shows every result with its iteration', () => {
    const seen: string[] = [];
    runCipher(
      loopModule(),
      { start: new Float64Array(16), factors: new Float64Array(48) },
      { observe: (op, values, where) => seen.push(`${op.kind} ${where.iteration} ${values[0]?.re.length}`) },
    );
    expect(seen).toHaveLength(15);
    expect(seen[5]).toBe('ct.index 1 1');
  });
});

it('a run leaves its inputs alone and works without parameters', () => {
  const x = randomValues(2, 32);
  const module = linearModule({
    tokens: 4,
    inputs: 8,
    outputs: 8,
    weight: randomValues(1, 64),
    babySteps: 2,
    parameters: micro,
  });
  const before = x.slice();
  const { y } = runCipher(module, { x });
  expect(x).toEqual(before);
  expect(runCipher({ ...module, parameters: null }, { x }).y).toEqual(y);
  expect(tiny.slots).toBe(512);
});
