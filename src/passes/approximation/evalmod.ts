/**
 * EvalMod: t = I + eps, |I| <= 15 an integer, |eps| <= 2^-10, goes to c sin(2 pi t) / (2 pi) ~ c eps. A
 * polynomial approximates the cosine of an eighth of the angle, three double angles follow: Han and Ki,
 * "Better bootstrapping for approximate homomorphic encryption" (CT-RSA 2020); Bossuat et al. 2021, section
 * 4.
 *
 * cos(2 pi (K x - 1/4) / 8), x = t / K, is fitted near the integers only: on all of [-1, 1] degree 30 leaves
 * 2^-32.7 of the cosine, which three double angles and the message ratio turn into 14.6 bits (NUMBERS section
 * 3).
 */
import { defined, invariant } from '../../support/invariant.js';
import { evaluateChebyshev } from './chebyshev.js';

/** Bound of |t|; the sparse secret of weight 32 stays below 15 + 1/2 with failure 2^-138 a bootstrap. */
export const evalModBound = 16;
const largestInteger = evalModBound - 1;
export const evalModDegree = 30;
export const doubleAngles = 3;
/** log2 of q_0 / D(0): what |eps| may be is its inverse. */
const messageRatioBits = 10;

export interface EvalMod {
  /** Chebyshev series in x = t / 16 of a_0 cos(2 pi (t - 1/4) / 8), a_0 = amplitude^(1/8). */
  readonly coefficients: readonly number[];
  /** y <- 2 y^2 - constants[i]: a_i = a_(i-1)^2 keeps y = a_i cos. */
  readonly constants: readonly number[];
}

/**
 * The result is `slope` sin(2 pi t) / (2 pi); any factor wanted behind EvalMod is folded in here for nothing.
 */
export function evalMod(slope: number): EvalMod {
  const amplitude = slope / (2 * Math.PI);
  invariant(amplitude > 0, 'the slope of EvalMod is positive');
  const first = amplitude ** (1 / 2 ** doubleAngles);
  const constants = Array.from({ length: doubleAngles }, (_, i) => first ** (2 ** (i + 1)));
  return { coefficients: cosineSeries().map((c) => c * first), constants };
}

export interface ArcsineStep {
  /** Amplitude times 2 pi of the sine v that goes in: `slope` of its EvalMod. */
  readonly slope: number;
  /** v (v^2 + constant) comes out. */
  readonly constant: number;
}

/**
 * With v = A s, s = sin(2 pi t), and constant 6 A^2, v (v^2 + 6 A^2) = 6 A^3 (s + s^3/6): the arcsine to
 * third order, `slope` eps if 6 A^3 = slope / (2 pi). Two levels, two products.
 */
export function arcsineStep(slope: number): ArcsineStep {
  const amplitude = Math.cbrt(slope / (2 * Math.PI) / 6);
  return { slope: 2 * Math.PI * amplitude, constant: 6 * amplitude ** 2 };
}

/** What the polynomial and the double angles make of t, without noise. */
export function evaluateEvalMod({ coefficients, constants }: EvalMod, t: number): number {
  const cosine = evaluateChebyshev(coefficients, t / evalModBound);
  return constants.reduce((y, constant) => 2 * y * y - constant, cosine);
}

const wantedCosine = (x: number): number =>
  Math.cos((2 * Math.PI * (evalModBound * x - 0.25)) / 2 ** doubleAngles);

let cosineSeriesKnown: readonly number[] | undefined;

/** Weighted least squares over points near the integers; the same for every module. */
function cosineSeries(): readonly number[] {
  cosineSeriesKnown ??= fitCosine();
  return cosineSeriesKnown;
}

/** Points in each cluster |eps| <= 1.05 * 2^-10. */
const clusterPoints = 9;
/**
 * I is a sum of 33 uniform variables, variance 33/12 = 1.66^2: rare integers may be fitted less well. The
 * floor keeps them far below failure; 2.2 flattens the weights so that |I| = 5, which occurs in every
 * ciphertext, keeps its bits.
 */
const [integerDeviation, flattening, weightFloor] = [1.66, 2.2, 1e-3];

function fitCosine(): number[] {
  const rows: number[][] = [];
  const values: number[] = [];
  for (let i = -largestInteger; i <= largestInteger; i++) {
    const weight = Math.max(Math.exp((-i * i) / (2 * integerDeviation ** 2 * flattening)), weightFloor);
    for (let p = 0; p < clusterPoints; p++) {
      const eps = ((2 * p) / (clusterPoints - 1) - 1) * 1.05 * 2 ** -messageRatioBits;
      const x = (i + eps) / evalModBound;
      rows.push(chebyshevRow(x, evalModDegree).map((value) => weight * value));
      values.push(weight * wantedCosine(x));
    }
  }
  return leastSquares(rows, values);
}

function chebyshevRow(x: number, degree: number): number[] {
  const row = [1, x];
  for (let k = 2; k <= degree; k++) row.push(2 * x * (row[k - 1] ?? 0) - (row[k - 2] ?? 0));
  return row;
}

/** min |A c - b| by Householder reflections (Golub and Van Loan, Matrix Computations, section 5.3). */
export function leastSquares(rows: readonly (readonly number[])[], values: readonly number[]): number[] {
  const a = rows.map((row, i) => Float64Array.of(...row, defined(values[i], 'value')));
  const columns = defined(rows[0], 'row').length;
  const at = (i: number, j: number): number => a[i]?.[j] ?? 0;
  for (let k = 0; k < columns; k++) {
    let norm = 0;
    for (let i = k; i < a.length; i++) norm += at(i, k) ** 2;
    const alpha = at(k, k) > 0 ? -Math.sqrt(norm) : Math.sqrt(norm);
    const reflector = a.map((_, i) => (i < k ? 0 : i === k ? at(k, k) - alpha : at(i, k)));
    const square = reflector.reduce((sum, v) => sum + v * v, 0);
    for (let j = k; j <= columns; j++) {
      const dot = reflector.reduce((sum, v, i) => sum + v * at(i, j), 0);
      a.forEach((row, i) => (row[j] = at(i, j) - (2 * dot * (reflector[i] ?? 0)) / square));
    }
  }
  const solution = new Array<number>(columns).fill(0);
  for (let k = columns - 1; k >= 0; k--) {
    let rest = at(k, columns);
    for (let j = k + 1; j < columns; j++) rest -= at(k, j) * (solution[j] ?? 0);
    solution[k] = rest / at(k, k);
  }
  return solution;
}
