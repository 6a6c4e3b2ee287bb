/**
 * Composite minimax polynomials of the sign: Lee, Lee, No and Kim, "Minimax approximation of sign function by
 * composite polynomial for homomorphic comparison" (IEEE TDSC 2022). Every stage is the odd minimax
 * polynomial of 1 on what the stage before leaves of [delta, 1]. relu(x) = (x + x sign(x)) / 2.
 *
 * x q(x^2) is near 1 where q(u) is near 1/sqrt(u) in relative error, u = x^2: that is how a stage is fitted.
 */
import { defined } from '../../support/invariant.js';
import { evaluateChebyshev, evaluateOn, interpolate } from './chebyshev.js';
import { fitChebyshev } from './fit.js';

export interface CompositeSign {
  /** Chebyshev series of the stages, each on [-1, 1] with values in [-1, 1]; the last one near +-1. */
  readonly stages: readonly (readonly number[])[];
  /** Largest |x| |1 - s(|x|)| / 2 over [-1, 1]: the error of relu that it makes. */
  readonly reluError: number;
  /** Levels of all stages. */
  readonly depth: number;
}

/** Odd degrees 2^k - 1 of the stages, by rising depth; the first stage has the largest interval. */
export const compositeDegrees: readonly (readonly number[])[] = [
  [15, 15, 7],
  [15, 15, 15],
  [31, 15, 15],
  [31, 31, 15],
  [31, 31, 31],
  [63, 31, 31],
];

/** Halvings of delta that are tried: too small a delta leaves error at 1, too large a one near 0. */
const deltaSteps = { perOctave: 4, octaves: 16 };

/** The composite of these degrees with the delta that leaves relu the smallest error. */
export function compositeSign(degrees: readonly number[]): CompositeSign {
  const product = degrees.reduce((a, b) => a * b, 1);
  let best: CompositeSign | undefined;
  // A single polynomial of degree d resolves 1/d, a composite of that degree a little less.
  for (let step = 0; step < deltaSteps.perOctave * deltaSteps.octaves; step++) {
    const delta = (16 / product) * 2 ** (-step / deltaSteps.perOctave);
    if (delta >= 0.5) continue;
    const found = withDelta(degrees, delta);
    if (best !== undefined && found.reluError > 2 * best.reluError) break;
    if (found.reluError < (best?.reluError ?? Infinity)) best = found;
  }
  return defined(best, 'composite sign');
}

function withDelta(degrees: readonly number[], delta: number): CompositeSign {
  let [low, high] = [delta, 1];
  const stages = degrees.map((degree, i) => {
    const half = (degree - 1) / 2;
    const options = { degree: half, relative: true };
    const fit = fitChebyshev((u) => 1 / Math.sqrt(u), low ** 2, high ** 2, options);
    const last = i === degrees.length - 1;
    // The argument of every stage is its value over the largest one.
    const [from, to] = [high, last ? 1 : 1 + fit.maxError];
    const { a, b, coefficients } = fit;
    const stage = interpolate(
      (t) => (from * t * evaluateOn(coefficients, a, b, (from * t) ** 2)) / to,
      degree,
    );
    [low, high] = [1 - fit.maxError, 1 + fit.maxError];
    return stage.map((c, k) => (k % 2 === 0 ? 0 : c));
  });
  const depth = degrees.reduce((sum, degree) => sum + Math.log2(degree + 1), 0);
  return { stages, reluError: reluErrorOf(stages, delta), depth };
}

function reluErrorOf(stages: readonly (readonly number[])[], delta: number): number {
  const points = 4096;
  let worst = 0;
  for (let i = 0; i <= points; i++) {
    // Evenly in the logarithm: the worst point is near delta.
    const x = (delta / 16) ** (1 - i / points);
    const sign = stages.reduce((y, stage) => evaluateChebyshev(stage, y), x);
    worst = Math.max(worst, (x * Math.abs(1 - sign)) / 2);
  }
  return worst;
}
