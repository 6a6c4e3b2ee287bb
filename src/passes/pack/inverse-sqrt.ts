/** Inverse square roots on intervals of any width: one polynomial, or a coarse one and cubic steps. */
import { AegisError } from '../../support/diagnostics.js';
import { fitChebyshev } from '../approximation/index.js';

/** Relative error without a budget. */
export const inverseSqrtRelativeError = 1e-5;

/** Relative errors that a polynomial may leave to steps, tried in turn. */
const coarseErrors = [2.5e-3, 0.04, 0.15, 0.3, 0.5, 0.7, 0.85, 0.93, 0.97, 0.985, 0.992];
const mostSteps = 9;
/** Products of a step, one after another. */
export const levelsOfStep = 2;

/** p <- linear p - cubic p^3 w */
export interface InverseSqrtStep {
  readonly linear: number;
  readonly cubic: number;
}

export interface InverseSqrtFit {
  /** Chebyshev series of t in [-1, 1]. */
  readonly coefficients: readonly number[];
  readonly steps: readonly InverseSqrtStep[];
  /** Relative, after the steps. */
  readonly maxError: number;
}

/** Of 1 / sqrt(t - shift) on [-1, 1], shift < -1. Error: A101 where the interval is too wide. */
export function fitInverseSqrt(shift: number, tolerance: number | undefined, loc: string): InverseSqrtFit {
  const target = tolerance ?? inverseSqrtRelativeError;
  for (const maxError of [target, ...coarseErrors.filter((error) => error > target)]) {
    try {
      const options = { maxError, relative: true, name: 'inverse square root' };
      const fit = fitChebyshev((t) => 1 / Math.sqrt(t - shift), -1, 1, options);
      const steps = maxError === target ? [] : stepsFrom(fit.maxError, target);
      if (steps === undefined) continue;
      const { coefficients } = fit;
      return { steps, coefficients, maxError: steps.length === 0 ? fit.maxError : target };
    } catch (error) {
      if (!(error instanceof AegisError)) throw error;
    }
  }
  throw new AegisError({
    code: 'A101',
    node: loc,
    pass: 'pack',
    message: `the variance spreads by a factor of ${Math.round((1 - shift) / (-1 - shift))}`,
    help: 'calibrate with representative samples, or without tokens that are nearly constant',
  });
}

/**
 * Steps that bring z = p sqrt(w) from [1 - error, 1 + error] to 1; undefined if they are too many. On [l, u]
 * the minimax cubic takes 1 - e at both ends and 1 + e at z = sqrt((l^2 + l u + u^2) / 3): an end near 0
 * grows by 3 sqrt(3) / 2 a step, where a Newton step (1.5, 0.5) makes 1.5.
 */
function stepsFrom(error: number, target: number): InverseSqrtStep[] | undefined {
  const steps: InverseSqrtStep[] = [];
  for (let e = error; e > target;) {
    if (steps.length === mostSteps) return undefined;
    const [l, u] = [1 - e, 1 + e];
    const top = Math.sqrt((l * l + l * u + u * u) / 3);
    const cubic = 2 / (l * u * (l + u) + 2 * top ** 3);
    steps.push({ linear: 3 * cubic * top * top, cubic });
    e = 2 * cubic * top ** 3 - 1;
  }
  return steps;
}
