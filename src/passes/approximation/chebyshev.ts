/**
 * Chebyshev series on an interval: evaluation (Clenshaw), interpolation, division by T_g. Trefethen,
 * Approximation Theory and Approximation Practice, chapters 3 and 19. The variable x in [a, b] is mapped to t
 * = (2x - a - b)/(b - a).
 */

export type RealFunction = (x: number) => number;

/** sum_k coefficients[k] T_k(t), by Clenshaw's recurrence. */
export function evaluateChebyshev(coefficients: readonly number[], t: number): number {
  let [next, afterNext] = [0, 0];
  for (let k = coefficients.length - 1; k > 0; k--) {
    [next, afterNext] = [2 * t * next - afterNext + (coefficients[k] ?? 0), next];
  }
  return t * next - afterNext + (coefficients[0] ?? 0);
}

/** The same at x in [a, b]. */
export function evaluateOn(coefficients: readonly number[], a: number, b: number, x: number): number {
  return evaluateChebyshev(coefficients, (2 * x - a - b) / (b - a));
}

/** x in [a, b] of t in [-1, 1]. */
export function fromUnit(a: number, b: number, t: number): number {
  return (a + b) / 2 + ((b - a) / 2) * t;
}

/**
 * Coefficients of the polynomial through f at the degree + 1 Chebyshev points of the first kind on [-1, 1].
 */
export function interpolate(f: RealFunction, degree: number): number[] {
  const n = degree + 1;
  const values = Array.from({ length: n }, (_, i) => f(Math.cos((Math.PI * (i + 0.5)) / n)));
  return values.map((_, k) => {
    let sum = 0;
    for (let i = 0; i < n; i++) {
      // The angle is reduced exactly: cos(pi k (2i + 1) / 2n) has period 4n in k (2i + 1).
      sum += (values[i] ?? 0) * Math.cos((Math.PI * ((k * (2 * i + 1)) % (4 * n))) / (2 * n));
    }
    return ((k === 0 ? 1 : 2) * sum) / n;
  });
}

/** `imaginary`: the basis is P_k(w) = i^k T_k(w / i), real polynomials of an imaginary argument w. */
export type ChebyshevBasis = 'real' | 'imaginary';

/** T_a T_b = (T_(a+b) + sign T_(a-b)) / 2, a >= b; for P_k the sign is i^2b. */
export const productSign = (basis: ChebyshevBasis, b: number): 1 | -1 =>
  basis === 'imaginary' && b % 2 === 1 ? -1 : 1;

/** p = q T_g + r with deg r < g; needs deg p < 2g. */
export function divideByChebyshev(
  p: readonly number[],
  g: number,
  basis: ChebyshevBasis = 'real',
): { quotient: number[]; remainder: number[] } {
  const quotient = p.slice(g).map((c, j) => (j === 0 ? c : 2 * c));
  const remainder = p.slice(0, g);
  for (let j = 1; j < quotient.length; j++) {
    remainder[g - j] = (remainder[g - j] ?? 0) - (productSign(basis, j) * (quotient[j] ?? 0)) / 2;
  }
  return { quotient, remainder };
}

/** Index of the last coefficient above `tolerance`, 0 for a constant. */
export function degreeOf(coefficients: readonly number[], tolerance = 0): number {
  for (let k = coefficients.length - 1; k > 0; k--) {
    if (Math.abs(coefficients[k] ?? 0) > tolerance) return k;
  }
  return 0;
}
