/**
 * EvalMod: t = I + eps, |I| <= 15 an integer, |eps| <= 1 / ratio, goes to c sin(2 pi t) / (2 pi) ~ c eps. A
 * polynomial approximates exp(2 pi i t / 8), three squarings follow and the imaginary part is taken; fitted
 * near the integers as in Han and Ki, "Better bootstrapping for approximate homomorphic encryption" (CT-RSA
 * 2020); Bossuat et al. 2021, section 4.
 *
 * They double the angle of a cosine. An error d of cos(a) is an error d / sin(a) of the angle, 5 d for every
 * fourth integer, and one of T_2 = 2 x^2 - 1 is divided by x where the polynomial is even. An error of
 * exp(i a) is one of the angle as it is, and near x = 0 only the odd part, x times a function of T_2, counts.
 *
 * The fit is near the integers only: on all of [-1, 1] degree 30 leaves 2^-32.7 of the cosine, which three
 * double angles and the message ratio turn into 14.6 bits (NUMBERS section 3).
 */
import { defined, invariant } from '../../support/invariant.js';
import { evaluateChebyshev } from './chebyshev.js';

/** Bound of |t|; the sparse secret of weight 32 stays below 15 + 1/2 with failure 2^-138 a bootstrap. */
export const evalModBound = 16;
const largestInteger = evalModBound - 1;
export const evalModDegree = 30;
export const doubleAngles = 3;

/**
 * Real series in P_k(w) = i^k T_k(w / i), w = i t / 16, of a exp(2 pi i t / 8); squared three times its
 * imaginary part, doubled, is the sine.
 */
export type EvalMod = readonly number[];

/**
 * Twice the imaginary part is `slope` sin(2 pi t) / (2 pi); any factor wanted behind EvalMod is folded in
 * here for nothing. Fitted where |t - I| <= 1.05 / ratio.
 */
export function evalMod(slope: number, ratio: number): EvalMod {
  const amplitude = slope / (4 * Math.PI);
  invariant(amplitude > 0, 'the slope of EvalMod is positive');
  const first = amplitude ** (1 / 2 ** doubleAngles);
  return exponentialSeries(Math.round(Math.log2(ratio))).map((c) => c * first);
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

/** What the polynomial, the squarings and the imaginary part make of t, without noise. */
export function evaluateEvalMod(coefficients: EvalMod, t: number): number {
  const part = (odd: number): number => {
    const own = coefficients.map((c, k) => (k % 2 === odd ? turned(c, k) : 0));
    return evaluateChebyshev(own, t / evalModBound);
  };
  let [re, im] = [part(0), part(1)];
  for (let i = 0; i < doubleAngles; i++) [re, im] = [re * re - im * im, 2 * re * im];
  return 2 * im;
}

/** From T_k to P_k: the real part has T_k = i^k P_k, k even, the imaginary i T_k = i^(k-1) P_k, k odd. */
const turned = (c: number, k: number): number => (k % 4 >= 2 ? -c : c);

const knownSeries = new Map<number, readonly number[]>();

/** Weighted least squares over points near the integers; the same for every module of one message ratio. */
function exponentialSeries(ratioBits: number): readonly number[] {
  const known = knownSeries.get(ratioBits) ?? fitExponential(ratioBits);
  knownSeries.set(ratioBits, known);
  return known;
}

/** Points in each cluster |eps| <= 1.05 / ratio. */
const clusterPoints = 9;
/**
 * I is a sum of 33 uniform variables, variance 33/12 = 1.66^2: rare integers may be fitted less well. The
 * floor keeps them far below failure; 2.2 flattens the weights so that |I| = 5, which occurs in every
 * ciphertext, keeps its bits.
 */
const [integerDeviation, flattening, weightFloor] = [1.66, 2.2, 1e-3];

/**
 * The error across exp(i a) turns the angle; the one along it only multiplies the sine, which is 2 pi / ratio
 * at most.
 */
function fitExponential(ratioBits: number): number[] {
  const rows: number[][] = [];
  const values: number[] = [];
  const along = (2 * Math.PI) / 2 ** ratioBits;
  for (let i = -largestInteger; i <= largestInteger; i++) {
    const weight = Math.max(Math.exp((-i * i) / (2 * integerDeviation ** 2 * flattening)), weightFloor);
    for (let p = 0; p < clusterPoints; p++) {
      const eps = ((2 * p) / (clusterPoints - 1) - 1) * 1.05 * 2 ** -ratioBits;
      const powers = chebyshevRow((i + eps) / evalModBound, evalModDegree);
      const angle = (2 * Math.PI * (i + eps)) / 2 ** doubleAngles;
      const [cosine, sine] = [Math.cos(angle), Math.sin(angle)];
      rows.push(powers.map((value, k) => weight * value * (k % 2 === 0 ? -sine : cosine)));
      values.push(0);
      rows.push(powers.map((value, k) => weight * along * value * (k % 2 === 0 ? cosine : sine)));
      values.push(weight * along);
    }
  }
  return leastSquares(rows, values).map(turned);
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
