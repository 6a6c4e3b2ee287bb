/**
 * Minimax polynomials by Remez exchange in barycentric form: Pachon and Trefethen, "Barycentric-Remez
 * algorithms for best polynomial approximation in the chebfun system", BIT 49 (2009). O(degree^2) an
 * iteration.
 */
import { defined } from '../../support/invariant.js';
import { interpolate, type RealFunction } from './chebyshev.js';

const maxIterations = 30;
/** The levelled error agrees with the largest error this well when the exchange ends. */
const agreement = 1e-3;
const pointsPerDegree = 24;

/**
 * Chebyshev coefficients on [-1, 1] that minimise max |p - f| weight; undefined if the exchange does not
 * settle.
 */
export function remez(f: RealFunction, weight: RealFunction, degree: number): number[] | undefined {
  const count = degree + 2;
  let nodes = Array.from({ length: count }, (_, i) => -Math.cos((Math.PI * i) / (count - 1)));
  const grid = errorGrid(degree);
  const values = grid.map(f);
  const weights = grid.map(weight);
  for (let iteration = 0; iteration < maxIterations; iteration++) {
    const trial = levelledInterpolant(f, weight, nodes);
    const errors = grid.map((t, i) => (trial.evaluate(t) - (values[i] ?? 0)) * (weights[i] ?? 1));
    const worst = errors.reduce((max, e) => Math.max(max, Math.abs(e)), 0);
    if (!Number.isFinite(worst)) return undefined;
    if (worst <= Math.abs(trial.error) * (1 + agreement)) return interpolate(trial.evaluate, degree);
    const next = alternation(grid, errors, count);
    if (next === undefined) return undefined;
    nodes = next;
  }
  return undefined;
}

/** Dense near the ends, where extrema crowd; contains both ends. */
function errorGrid(degree: number): number[] {
  const points = Math.max(400, pointsPerDegree * (degree + 1));
  return Array.from({ length: points + 1 }, (_, i) => -Math.cos((Math.PI * i) / points));
}

/** The polynomial p of the degree with (p - f)(x_i) weight(x_i) = +-error, signs alternating. */
function levelledInterpolant(
  f: RealFunction,
  weight: RealFunction,
  nodes: readonly number[],
): { error: number; evaluate: RealFunction } {
  // The factor 2 (the inverse capacity of [-1, 1]) keeps the products of differences near 1.
  const full = barycentricWeights(nodes);
  let [above, below] = [0, 0];
  nodes.forEach((x, i) => {
    const w = full[i] ?? 0;
    above += w * f(x);
    below += ((i % 2 === 0 ? 1 : -1) * w) / weight(x);
  });
  const error = -above / below;
  const levels = nodes.map((x, i) => f(x) + ((i % 2 === 0 ? 1 : -1) * error) / weight(x));
  // One node more than the degree needs; with the levelled error one polynomial passes through all of them.
  const kept = nodes.slice(0, -1);
  const w = barycentricWeights(kept);
  const evaluate = (t: number): number => {
    let [numerator, denominator] = [0, 0];
    for (let i = 0; i < kept.length; i++) {
      const distance = t - (kept[i] ?? 0);
      if (distance === 0) return defined(levels[i], 'level');
      const share = (w[i] ?? 0) / distance;
      numerator += share * (levels[i] ?? 0);
      denominator += share;
    }
    return numerator / denominator;
  };
  return { error, evaluate };
}

function barycentricWeights(nodes: readonly number[]): number[] {
  return nodes.map((x, i) => {
    let product = 1;
    nodes.forEach((y, j) => {
      if (j !== i) product *= 2 * (x - y);
    });
    return 1 / product;
  });
}

/** `count` extrema of alternating sign, the largest one among them. */
function alternation(
  grid: readonly number[],
  errors: readonly number[],
  count: number,
): number[] | undefined {
  // The largest error of each run of one sign.
  const extrema: number[] = [];
  errors.forEach((error, i) => {
    const last = extrema.at(-1);
    if (last === undefined || error * (errors[last] ?? 0) < 0) extrema.push(i);
    else if (Math.abs(error) > Math.abs(errors[last] ?? 0)) extrema[extrema.length - 1] = i;
  });
  if (extrema.length < count) return undefined;
  // Drop from the ends, the smaller first: the inner ones alternate and the largest stays.
  let [first, last] = [0, extrema.length - 1];
  const size = (k: number) => Math.abs(errors[extrema[k] ?? 0] ?? 0);
  while (last - first + 1 > count) {
    if (size(first) < size(last)) first++;
    else last--;
  }
  return extrema.slice(first, last + 1).map((i) => defined(grid[i], 'grid point'));
}
