import { describe, expect, it } from 'vitest';
import {
  divideByChebyshev,
  evaluateChebyshev,
  evaluateOn,
  fitChebyshev,
  interpolate,
  realFunction,
} from '../../src/passes/approximation/index.js';
import { erf, erfc } from '../../src/support/special-functions.js';

/** x, erf, erfc, GELU (erf), GELU (tanh), sigmoid, SiLU: mpmath at 40 digits, rounded to double. */
const reference = [
  [
    -6, -1.0, 2.0, -5.9195258702261885e-9, -8.439646700762303e-11, 0.0024726231566347743,
    -0.014835738939808645,
  ],
  [
    -3.3, -0.9999969422902035, 1.9999969422902035, -0.0015952996698664658, -0.0013112281183358047,
    0.03557118927263618, -0.11738492459969939,
  ],
  [
    -2.5, -0.999593047982555, 1.999593047982555, -0.015524163314440337, -0.015084266089998582,
    0.07585818002124355, -0.18964545005310887,
  ],
  [
    -0.1, -0.1124629160182849, 1.1124629160182848, -0.0460172162722971, -0.04601724895456484,
    0.47502081252106, -0.047502081252106004,
  ],
  [
    0.7, 0.6778011938374184, 0.32219880616258156, 0.5306254434438489, 0.5305701347051167, 0.668187772168166,
    0.46773144051771626,
  ],
  [
    1.9, 0.9927904292352575, 0.0072095707647425325, 1.8454385363495964, 1.8454512344553324,
    0.8698915256370021, 1.652793898710304,
  ],
  [
    2.6, 0.9997639655834707, 0.00023603441652934908, 2.587880911138331, 2.5883460823147573,
    0.9308615796566532, 2.4202401071072983,
  ],
  [
    4.5, 0.9999999998033839, 1.9661604415428876e-10, 4.4999847104709385, 4.499994863262588,
    0.9890130573694068, 4.45055875816233,
  ],
] as const;

const close = (value: number, wanted: number, relative: number) =>
  expect(Math.abs(value - wanted)).toBeLessThanOrEqual(relative * Math.abs(wanted));

describe('functions', () => {
  it('agree with high-precision values', () => {
    for (const [x, e, ec, g, gt, s, silu] of reference) {
      close(erf(x), e, 1e-15);
      close(erfc(x), ec, 1e-14);
      close(realFunction({ kind: 'gelu' })(x), g, 1e-14);
      // tanh-GELU loses digits by the rounding of its own argument for very negative x.
      close(realFunction({ kind: 'gelu-tanh' })(x), gt, 1e-13);
      close(realFunction({ kind: 'sigmoid' })(x), s, 1e-15);
      close(realFunction({ kind: 'silu' })(x), silu, 1e-15);
    }
    expect(realFunction({ kind: 'exp', scale: 0.25 })(2)).toBe(Math.exp(0.5));
    expect(realFunction({ kind: 'relu' })(-2)).toBe(0);
    expect(realFunction({ kind: 'inverse-sqrt' })(16)).toBe(0.25);
  });
});

describe('Chebyshev series', () => {
  it('interpolates and evaluates', () => {
    const coefficients = interpolate((t) => 4 * t ** 3 - 3 * t + 0.5, 5);
    [0.5, 0, 0, 1, 0, 0].forEach((c, k) => expect(coefficients[k]).toBeCloseTo(c, 14));
    expect(evaluateChebyshev([1, 2, 3], 0.3)).toBeCloseTo(1 + 0.6 + 3 * (2 * 0.09 - 1), 14);
  });

  it('divides by T_g', () => {
    const p = Array.from({ length: 14 }, (_, k) => Math.sin(k + 1));
    const { quotient, remainder } = divideByChebyshev(p, 8);
    for (const t of [-1, -0.3, 0.2, 0.9]) {
      const t8 = Math.cos(8 * Math.acos(t));
      const value = evaluateChebyshev(quotient, t) * t8 + evaluateChebyshev(remainder, t);
      expect(value).toBeCloseTo(evaluateChebyshev(p, t), 13);
    }
  });
});

describe('fitChebyshev', () => {
  it('reaches the published GELU errors (NUMBERS section 4)', () => {
    const gelu = realFunction({ kind: 'gelu' });
    for (const [range, degree, error] of [
      [8, 31, 7e-5],
      [16, 63, 4e-5],
      [32, 127, 3e-5],
      [64, 255, 3e-5],
    ] as const) {
      expect(fitChebyshev(gelu, -range, range, { degree }).maxError).toBeLessThan(error);
    }
  });

  it('takes the least depth, then the least degree', () => {
    const exp = realFunction({ kind: 'exp', scale: 1 });
    const fit = fitChebyshev(exp, -4, 4, { maxError: 1e-4, relative: true });
    expect(fit.maxError).toBeLessThanOrEqual(1e-4);
    expect(Math.ceil(Math.log2(fit.degree + 1))).toBe(4);
    const lower = fitChebyshev(exp, -4, 4, { degree: fit.degree - 1, relative: true });
    expect(lower.maxError).toBeGreaterThan(1e-4);
    for (const x of [-4, -1.7, 0, 2.2, 4]) {
      close(evaluateOn(fit.coefficients, -4, 4, x), Math.exp(x), 1e-4);
    }
  });

  it('finds the minimax polynomial', () => {
    // |t| is 2 relu(t) - t; Bernstein 1914: degree 2n error tends to 0.2801694990.../(2n).
    const fit = fitChebyshev(realFunction({ kind: 'relu' }), -1, 1, { degree: 32 });
    expect(fit.maxError * 2 * 32).toBeCloseTo(0.28017, 2);
    // Best relative linear fit of 1/x on [1, 2]: x p(x) - 1 is levelled at 1, 1.5, 2, its error 1/17.
    const inverse = fitChebyshev(realFunction({ kind: 'inverse' }), 1, 2, { degree: 1, relative: true });
    expect(inverse.maxError).toBeCloseTo(1 / 17, 4);
  });

  it('refuses what no degree reaches', () => {
    const relu = realFunction({ kind: 'relu' });
    expect(() => fitChebyshev(relu, -1, 1, { maxError: 1e-6, maxDegree: 63, name: 'relu' })).toThrow(/A101/);
  });
});
