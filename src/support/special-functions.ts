/** Special functions of neural networks in double precision, accurate to a few units in the last place. */

/** 1 / (1 + exp(-x)), without overflow. */
export function sigmoid(x: number): number {
  if (x >= 0) return 1 / (1 + Math.exp(-x));
  const e = Math.exp(x);
  return e / (1 + e);
}

/** x Phi(x) = x erfc(-x / sqrt 2) / 2: no cancellation for negative x. */
export function gelu(x: number): number {
  return (x * erfc(-x * Math.SQRT1_2)) / 2;
}

/** Hendrycks and Gimpel 2016, eq. 2: x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2 = x sigmoid(2 ...). */
export function geluTanh(x: number): number {
  return x * sigmoid(2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3));
}

/**
 * Below this |x| the power series is used, above it the continued fraction: 1 - erf(1) loses less than one
 * digit.
 */
const seriesLimit = 1;

export function erf(x: number): number {
  return Math.abs(x) < seriesLimit ? erfSeries(x) : Math.sign(x) * (1 - erfcFraction(Math.abs(x)));
}

export function erfc(x: number): number {
  if (x >= seriesLimit) return erfcFraction(x);
  return x <= -seriesLimit ? 2 - erfcFraction(-x) : 1 - erfSeries(x);
}

/**
 * erf x = 2/sqrt(pi) exp(-x^2) sum_n 2^n x^(2n+1) / (2n+1)!!: all terms of one sign (Abramowitz and Stegun
 * 7.1.6).
 */
function erfSeries(x: number): number {
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > Math.abs(sum) * 1e-17 && n < 200; n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

/** erfc x = exp(-x^2)/sqrt(pi) / (x + (1/2)/(x + 1/(x + (3/2)/(x + ...)))) (Abramowitz and Stegun 7.1.14). */
function erfcFraction(x: number): number {
  // The error after k terms is about exp(-2 x sqrt(2k)).
  let tail = x;
  for (let k = Math.ceil(30 + 250 / (x * x)); k > 0; k--) tail = x + k / 2 / tail;
  return Math.exp(-x * x) / Math.sqrt(Math.PI) / tail;
}

export function silu(x: number): number {
  return x * sigmoid(x);
}

export function relu(x: number): number {
  return Math.max(0, x);
}

type RealFunction = (x: number) => number;

/** ln(1 + e^x), without overflow. */
function softplus(x: number): number {
  return Math.log1p(Math.exp(-Math.abs(x))) + relu(x);
}

const clamped = (low: number, high: number) => (x: number) => Math.min(Math.max(x, low), high);

interface NamedFunction {
  readonly make: (alpha: number, beta: number) => RealFunction;
  /** Has a corner, where a polynomial converges slowly. */
  readonly corner?: true;
  /** Defined on positive arguments only, or singular at 0. */
  readonly positive?: true;
}

/** Functions of the ONNX operators of the same names; alpha and beta are their attributes, or bounds. */
const namedFunctions = {
  abs: { make: () => Math.abs, corner: true },
  celu: { make: (alpha) => (x) => relu(x) + Math.min(0, alpha * Math.expm1(x / alpha)), corner: true },
  clip: { make: clamped, corner: true },
  cos: { make: () => Math.cos },
  elu: { make: (alpha) => (x) => (x > 0 ? x : alpha * Math.expm1(x)), corner: true },
  erf: { make: () => erf },
  exp: { make: () => Math.exp },
  hard_sigmoid: { make: (alpha, beta) => (x) => clamped(0, 1)(alpha * x + beta), corner: true },
  hard_swish: { make: () => (x) => x * clamped(0, 1)(x / 6 + 0.5), corner: true },
  leaky_relu: { make: (alpha) => (x) => (x < 0 ? alpha * x : x), corner: true },
  log: { make: () => Math.log, positive: true },
  mish: { make: () => (x) => x * Math.tanh(softplus(x)) },
  power: { make: (alpha) => (x) => x ** alpha, positive: true },
  reciprocal: { make: () => (x) => 1 / x, positive: true },
  selu: { make: (alpha, beta) => (x) => beta * (x > 0 ? x : alpha * Math.expm1(x)), corner: true },
  sin: { make: () => Math.sin },
  softplus: { make: () => softplus },
  softsign: { make: () => (x) => x / (1 + Math.abs(x)), corner: true },
  sqrt: { make: () => Math.sqrt, positive: true },
} as const satisfies Readonly<Record<string, NamedFunction>>;

export type FunctionName = keyof typeof namedFunctions;

export const namedFunctionNames: readonly FunctionName[] = Object.keys(namedFunctions) as FunctionName[];

export function isFunctionName(name: string): name is FunctionName {
  return Object.hasOwn(namedFunctions, name);
}

export function namedFunction(name: FunctionName): NamedFunction {
  return namedFunctions[name];
}
