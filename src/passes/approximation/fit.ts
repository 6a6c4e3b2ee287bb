/**
 * Fits a Chebyshev series to a function on an interval, to a wanted error at the least depth, then at the
 * least degree of that depth. Interpolation is refined to the minimax polynomial by Remez exchange (remez.ts)
 * where that helps.
 */
import { AegisError } from '../../support/diagnostics.js';
import { invariant } from '../../support/invariant.js';
import { evaluateChebyshev, fromUnit, interpolate, type RealFunction } from './chebyshev.js';
import { remez } from './remez.js';

export interface ChebyshevFit {
  /** By degree, for t = (2x - a - b)/(b - a); as many as degree + 1. */
  readonly coefficients: readonly number[];
  readonly degree: number;
  /** Largest error found on a grid of 16 points a degree; relative to |f| if the fit was. */
  readonly maxError: number;
  readonly a: number;
  readonly b: number;
}

export interface FitOptions {
  /** Exactly one of the two: the wanted error, or the degree. */
  readonly maxError?: number;
  readonly degree?: number;
  /** Errors count relative to |f(x)|, which must not vanish on [a, b]. */
  readonly relative?: boolean;
  /** Highest degree of the search. */
  readonly maxDegree?: number;
  /** Function name, for the message of a failure. */
  readonly name?: string;
}

/** Depth 8; more is cheaper by composition. */
export const defaultMaxDegree = 255;
/**
 * Remez is tried where interpolation misses a wanted absolute error by no more than this factor (the Lebesgue
 * constant of 256 points is below 5). Relative errors gain by the spread of |f| as well: there it is always
 * tried.
 */
const remezGain = 16;

/** Errors: A101 if no degree up to `maxDegree` reaches `maxError`. */
export function fitChebyshev(f: RealFunction, a: number, b: number, options: FitOptions): ChebyshevFit {
  invariant(b > a, `the interval [${a}, ${b}] is empty`);
  const given = [options.maxError, options.degree].filter((value) => value !== undefined);
  invariant(given.length === 1, 'one of maxError and degree is given');
  const onUnit = (t: number) => f(fromUnit(a, b, t));
  const weight = options.relative === true ? (t: number) => 1 / Math.abs(onUnit(t)) : () => 1;
  const fit = (degree: number, target: number): ChebyshevFit => {
    const near = (error: number) => options.relative === true || target === 0 || error <= remezGain * target;
    const tryRemez = (error: number) => error > target && near(error);
    return { ...fitDegree(onUnit, weight, degree, tryRemez), a, b };
  };
  if (options.degree !== undefined) return fit(options.degree, 0);

  const target = options.maxError ?? 0;
  const limit = options.maxDegree ?? defaultMaxDegree;
  // The level count is what matters: degrees 2^k - 1 first, then down inside the depth for fewer products.
  let best: ChebyshevFit | undefined;
  let low = 0;
  for (let degree = 1; degree <= limit && best === undefined; degree = 2 * degree + 1) {
    const found = fit(degree, target);
    if (found.maxError <= target) best = found;
    else low = degree;
  }
  if (best === undefined) {
    throw new AegisError({
      code: 'A101',
      message:
        `no polynomial of degree up to ${limit} approximates ${options.name ?? 'the function'} on `
        + `[${a}, ${b}] within ${target}`,
      help: 'allow a larger error, or narrow the calibrated range',
    });
  }
  let least = best;
  while (least.degree - low > 1) {
    const found = fit(Math.floor((low + least.degree) / 2), target);
    if (found.maxError <= target) least = found;
    else low = found.degree;
  }
  return least;
}

/**
 * The better of the interpolant and the minimax polynomial; the latter only if the former's error asks for
 * it.
 */
function fitDegree(
  f: RealFunction,
  weight: RealFunction,
  degree: number,
  tryRemez: (plainError: number) => boolean,
): Omit<ChebyshevFit, 'a' | 'b'> {
  const plain = interpolate(f, degree);
  const plainError = weightedError(f, weight, plain);
  if (!tryRemez(plainError)) return { coefficients: plain, degree, maxError: plainError };
  const refined = remez(f, weight, degree);
  const refinedError = refined === undefined ? Infinity : weightedError(f, weight, refined);
  return refined !== undefined && refinedError < plainError
    ? { coefficients: refined, degree, maxError: refinedError }
    : { coefficients: plain, degree, maxError: plainError };
}

function weightedError(f: RealFunction, weight: RealFunction, coefficients: readonly number[]): number {
  const points = Math.max(512, 16 * coefficients.length);
  let worst = 0;
  for (let i = 0; i <= points; i++) {
    const t = Math.cos((Math.PI * i) / points);
    worst = Math.max(worst, Math.abs(evaluateChebyshev(coefficients, t) - f(t)) * weight(t));
  }
  return worst;
}
