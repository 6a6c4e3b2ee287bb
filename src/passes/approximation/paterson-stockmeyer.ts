/**
 * Plans the evaluation of a Chebyshev series at optimal depth ceil(log2(degree + 1)) with few ciphertext
 * products: Paterson and Stockmeyer 1973 in the Chebyshev basis, with the first parts of each division split
 * further, as in Bossuat et al., "Efficient bootstrapping for approximate homomorphic encryption with
 * non-sparse keys" (2021), 3.2.
 *
 * Depths count levels used: T_k has depth ceil(log2 k), a product one more than its operands, a product with
 * a plaintext as well. p = sum_i q_i T_(g_i) + r, each g_i a power of two, is relinearized and rescaled once.
 */
import { defined, invariant } from '../../support/invariant.js';
import { degreeOf, divideByChebyshev, type ChebyshevBasis } from './chebyshev.js';

/** T_k = 2 T_a T_b - T_(a-b), a + b = k, a >= b >= 1. */
export interface PowerStep {
  readonly k: number;
  readonly a: number;
  readonly b: number;
}

/**
 * constant + sum of coefficient T_power: plaintext products only. All powers are brought to the depth of the
 * last.
 */
export interface Leaf {
  readonly powers: readonly number[];
  readonly coefficients: readonly number[];
}

/**
 * sum of quotient T_power + leaves + constant, at the depth given; without products it is just its leaves.
 */
export interface SeriesNode {
  readonly depth: number;
  readonly products: readonly { readonly quotient: SeriesNode; readonly power: number }[];
  readonly leaves: readonly Leaf[];
  readonly constant: number;
}

export interface SeriesPlan {
  readonly depth: number;
  /** In an order in which each step's operands come first. */
  readonly steps: readonly PowerStep[];
  readonly root: SeriesNode;
  readonly counts: SeriesCounts;
}

export interface SeriesCounts {
  readonly products: number;
  readonly relinearizations: number;
  readonly plainProducts: number;
}

/**
 * Coefficients this much smaller than the largest are rounding errors of a fit: 255 of them stay below 2^-42.
 */
export const negligible = 2 ** -50;

/** Relative costs; key switching dominates by far (NUMBERS section 1). */
const [relinearizationCost, productCost, plainCost] = [10, 2, 0.3];

export const depthOfPower = (k: number): number => Math.ceil(Math.log2(k));

/** Levels of a series with this many coefficients: the degree that ct.polynomial declares, trimmed or not. */
export const depthOfSeries = (coefficientCount: number): number => Math.ceil(Math.log2(coefficientCount));

/** The cheapest plan over all numbers of baby steps that are powers of two. */
export function planSeries(series: readonly number[], basis: ChebyshevBasis = 'real'): SeriesPlan {
  const depth = depthOfSeries(series.length);
  const largest = series.reduce((max, c) => Math.max(max, Math.abs(c)), 0);
  const trimmed = series.map((c) => (Math.abs(c) <= negligible * largest ? 0 : c));
  let best: SeriesPlan | undefined;
  for (let babies = 2; babies <= Math.max(2, 2 ** depth); babies *= 2) {
    const root = divided(trimmed, depth, babies, basis);
    const steps = powerSteps(usedPowers(root));
    const counts = countsOf(root, steps.length);
    const plan = { depth, steps, root, counts };
    if (best === undefined || cost(counts) < cost(best.counts)) best = plan;
  }
  return defined(best, 'plan of a series');
}

const cost = (c: SeriesCounts): number =>
  relinearizationCost * c.relinearizations + productCost * c.products + plainCost * c.plainProducts;

function leafOf(p: readonly number[]): Leaf {
  const powers = p.flatMap((c, k) => (k > 0 && c !== 0 ? [k] : []));
  return { powers, coefficients: powers.map((k) => p[k] ?? 0) };
}

/** Depth of a leaf: that of its highest power, and one for the product with plaintexts. */
const leafDepth = (degree: number): number => (degree === 0 ? 0 : depthOfPower(degree) + 1);

/** Needs degree < 2^depth; every division keeps that true of the quotient at depth - 1. */
function divided(
  series: readonly number[],
  depth: number,
  babies: number,
  basis: ChebyshevBasis,
): SeriesNode {
  invariant(degreeOf(series) < 2 ** depth, `degree ${degreeOf(series)} does not fit depth ${depth}`);
  const products: { quotient: SeriesNode; power: number }[] = [];
  const leaves: Leaf[] = [];
  let rest = series;
  for (let degree = degreeOf(rest); degree >= babies || leafDepth(degree) > depth; degree = degreeOf(rest)) {
    const power = 2 ** Math.floor(Math.log2(degree));
    const { quotient, remainder } = divideByChebyshev(rest.slice(0, degree + 1), power, basis);
    const constant = defined(quotient[0], 'quotient');
    if (degreeOf(quotient) === 0) leaves.push({ powers: [power], coefficients: [constant] });
    else products.push({ quotient: divided(quotient, depth - 1, babies, basis), power });
    rest = remainder;
  }
  const leaf = leafOf(rest);
  if (leaf.powers.length > 0) leaves.push(leaf);
  return { depth, products, leaves, constant: rest[0] ?? 0 };
}

function walk(node: SeriesNode, visit: (node: SeriesNode) => void): void {
  visit(node);
  for (const { quotient } of node.products) walk(quotient, visit);
}

function usedPowers(root: SeriesNode): number[] {
  const used = new Set<number>();
  walk(root, (node) => {
    node.products.forEach(({ power }) => used.add(power));
    node.leaves.forEach((leaf) => leaf.powers.forEach((power) => used.add(power)));
  });
  return [...used].sort((x, y) => x - y);
}

function countsOf(root: SeriesNode, powers: number): SeriesCounts {
  let [products, relinearizations, plainProducts] = [powers, powers, 0];
  walk(root, (node) => {
    products += node.products.length;
    if (node.products.length > 0) relinearizations++;
    for (const leaf of node.leaves) plainProducts += leaf.powers.length;
  });
  return { products, relinearizations, plainProducts };
}

/**
 * Steps to the wanted powers at the depths they must have, through as few other powers as a greedy choice
 * finds.
 */
function powerSteps(wanted: readonly number[]): PowerStep[] {
  const steps: PowerStep[] = [];
  const ready = new Set([0, 1]);
  const known = (k: number): boolean => ready.has(k) || wanted.includes(k);
  const make = (k: number): void => {
    if (ready.has(k)) return;
    const half = 2 ** (depthOfPower(k) - 1);
    let [a, fewest] = [half, Infinity];
    // Equal factors first: a square is cheaper and subtracts the constant T_0.
    for (let candidate = Math.ceil(k / 2); candidate <= half; candidate++) {
      const parts = [candidate, k - candidate, 2 * candidate - k];
      const missing = parts.filter((part) => !known(part)).length;
      if (missing < fewest) [a, fewest] = [candidate, missing];
    }
    const b = k - a;
    [b, a - b, a].forEach(make);
    ready.add(k);
    steps.push({ k, a, b });
  };
  wanted.forEach(make);
  return steps;
}
