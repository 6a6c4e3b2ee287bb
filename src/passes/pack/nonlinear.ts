/**
 * Elementwise functions and LayerNorm. Arguments of approximations are brought to [-1, 1] inside neighbouring
 * constants.
 */
import type { Value } from '../../ir/module.js';
import type { Axis } from '../../ir/types.js';
import { AegisError } from '../../support/diagnostics.js';
import { defined } from '../../support/invariant.js';
import { namedFunction } from '../../support/special-functions.js';
import {
  fitChebyshev,
  realFunction,
  type ChebyshevFit,
  type NonlinearFunction,
} from '../approximation/index.js';
import type { Interval } from '../ranges.js';
import { normalisation, widen, widenPositive } from './approximate.js';
import type { PackContext } from './context.js';
import { sumCost, sumRotations } from './group-sums.js';
import { blocksOf, elementAxes, elementsOf, type Packed } from './layout.js';
import { addBias, applyMatrix, linearCost } from './linear.js';

/** Error of a smooth function: absolute, or relative to its largest result (approximateActivation). */
const activationError = 3e-5;
/** |x| has a corner: its error falls only as 1/degree, so it gets one level more than smooth functions. */
const reluDegree = 511;
const inverseSqrtRelativeError = 1e-5;
/** Approximation errors of functions that are 0 at 0. */
const zeroEnough = 1e-3;

export interface Activation {
  /** Affine map that the producer of the argument applies: t = scale * x + shift. */
  readonly argument: { readonly scale: number; readonly shift: number };
  readonly coefficients: readonly number[];
}

export function approximateActivation(fn: NonlinearFunction, range: Interval): Activation {
  const named = fn.kind === 'named' ? namedFunction(fn.name) : undefined;
  const interval = named?.positive === true ? signed(range, widenPositive) : widen(range);
  const argument = normalisation(interval);
  const f = realFunction(fn);
  const corner = fn.kind === 'relu' || named?.corner === true;
  const fit = corner
    ? fitChebyshev(f, interval.min, interval.max, { degree: reluDegree })
    : fitSmooth(fn, f, interval);
  return { argument, coefficients: fit.coefficients };
}

/**
 * Activations to the absolute error, or where no degree reaches it to the one that named functions have:
 * relative to the largest result on the interval.
 */
function fitSmooth(fn: NonlinearFunction, f: (x: number) => number, interval: Interval): ChebyshevFit {
  const fit = (maxError: number, name: string): ChebyshevFit =>
    fitChebyshev(f, interval.min, interval.max, { maxError, name });
  const relative = activationError * sizeOf(f, interval);
  if (fn.kind === 'named') return fit(relative, fn.name);
  try {
    return fit(activationError, fn.kind);
  } catch (error) {
    if (!(error instanceof AegisError)) throw error;
    return fit(relative, fn.kind);
  }
}

/** A widened interval that stays on its side of 0; one with 0 inside is only left as it is. */
function signed(range: Interval, widened: (interval: Interval) => Interval): Interval {
  if (range.min > 0) return widened(range);
  if (range.max >= 0) return widen(range);
  const mirror = widened({ min: -range.max, max: -range.min });
  return { min: -mirror.max, max: -mirror.min };
}

/** Largest |f| on the interval, at least 1: errors of larger results count relative to them. */
function sizeOf(f: (x: number) => number, { min, max }: Interval): number {
  const points = Array.from({ length: 65 }, (_, i) => Math.abs(f(min + ((max - min) * i) / 64)));
  return points.reduce((most, value) => (Number.isFinite(value) ? Math.max(most, value) : most), 1);
}

/** The argument at padded tokens and unused positions: that of 0, or the middle where 0 is outside. */
export function restOf({ argument }: Activation): number {
  return Math.abs(argument.shift) <= 1 ? argument.shift : 0;
}

/** Applies an activation to a value whose producer could not take the affine map: one level more. */
export function packActivation(ctx: PackContext, x: Packed, activation: Activation, loc: string): Packed {
  const { scale, shift } = activation.argument;
  const scaled = ctx.timesPlain(x.value, ctx.realConstant(scale, loc), [], loc);
  const rest = restOf(activation);
  const addend =
    rest === shift ? ctx.realConstant(shift, loc) : twoValued(ctx, x, { inside: shift, outside: rest }, loc);
  const t = ctx.builder.op('ct.add_plain', [scaled, addend], {}, loc);
  return { ...x, value: polynomial(ctx, t, activation.coefficients, loc) };
}

/** One number where x has a feature of a token, another one elsewhere. */
function twoValued(
  ctx: PackContext,
  x: Packed,
  { inside, outside }: { inside: number; outside: number },
  loc: string,
): Value {
  const data = Float64Array.of(inside, outside, outside, outside);
  const constant = ctx.addConstant(`${loc}:inside`, [2, 2], data);
  const features = x.features.map((feature) => (feature < 0 ? 1 : 0));
  const tokens = ctx.tokenTable(blocksOf(x.value), 0, x.tokens, () => 0, 2);
  return ctx.vector(constant, elementAxes(x.value), features, tokens, 1, loc);
}

/** Padded tokens as zeros, where a function of 0 is `rest`: one level, unless it is nothing. */
export function zeroPadding(ctx: PackContext, x: Packed, rest: number, loc: string): Packed {
  const padded = x.tokens < blocksOf(x.value) * ctx.groups;
  if (!padded || Math.abs(rest) < zeroEnough) return x;
  const mask = twoValued(ctx, x, { inside: 1, outside: 0 }, loc);
  return { ...x, value: ctx.timesPlain(x.value, mask, [], loc) };
}

export function polynomial(ctx: PackContext, t: Value, coefficients: readonly number[], loc: string): Value {
  return ctx.builder.op('ct.polynomial', [t], { coefficients }, loc);
}

interface NormSpec {
  /** Layer normalisation subtracts the mean, RMS normalisation does not. */
  readonly centred: boolean;
  readonly gamma: string | undefined;
  readonly beta: string | undefined;
  readonly epsilon: number;
  /** Of the variance, or of the mean square. */
  readonly range: Interval;
}

/**
 * y = (x - mean) / sqrt(var + epsilon) * gamma + beta; without the mean in RMS normalisation. The mean is a
 * linear map; the variance and its inverse square root live in one ciphertext. Padded tokens have variance 0
 * but the argument of a valid one (DESIGN section 4).
 */
export function packNorm(ctx: PackContext, x: Packed, spec: NormSpec, loc: string): Packed {
  const { gamma, beta, epsilon, range } = spec;
  const axes = elementAxes(x.value);
  const full = x.featureCount % ctx.period === 0;
  const used = foldBlocks(x.features, ctx.period);
  const mean = () => sumOfFeatures(ctx, x, 1 / x.featureCount, full ? [] : axes, loc);
  const centred = spec.centred ? ctx.builder.op('ct.sub', [x.value, mean()], {}, loc) : x.value;
  const interval = widenPositive({ min: range.min + epsilon, max: range.max + epsilon });
  const { scale, shift } = normalisation(interval);
  const over = axes.map((axis) => axis.name);
  const squares: Packed = {
    ...x,
    value: ctx.bounded(ctx.multiply(centred, centred, over, loc), x.featureCount * range.max),
    features: used,
    repeats: 'terms',
  };
  const sum = sumOfFeatures(ctx, squares, scale / x.featureCount, [], loc);
  // Unused positions and padded tokens get the middle of the interval.
  const values = { inside: scale * epsilon, outside: -shift };
  const addend = twoValued(ctx, { ...x, value: sum, features: used }, values, loc);
  const w = ctx.builder.op('ct.add_plain', [sum, addend], {}, loc);
  const inverseDeviation = inverseSqrt(ctx, w, { scale, shift }, loc);
  const scaled = gamma === undefined ? centred : timesVector(ctx, { ...x, value: centred }, gamma, loc).value;
  const normal = ctx.multiply(scaled, inverseDeviation, [], loc);
  const bias = beta === undefined ? undefined : ctx.constantOf(beta).data;
  return { ...x, value: addBias(ctx, normal, x.features, axes, bias, { scale: 1, shift: 0 }, x.tokens, loc) };
}

/** Relative errors that a polynomial may leave to cubic steps, tried in turn. */
const inverseSqrtErrors = [
  inverseSqrtRelativeError,
  2.5e-3,
  0.04,
  0.15,
  0.3,
  0.5,
  0.7,
  0.85,
  0.93,
  0.97,
  0.985,
];
const mostCubicSteps = 8;

/** p <- linear p - cubic p^3 w */
interface CubicStep {
  readonly linear: number;
  readonly cubic: number;
}

/**
 * sqrt(scale / w) with w = t - shift in (0, 2], t in [-1, 1]. Where w spreads too widely for one
 * polynomial p, it is followed by cubic steps, two levels each. They read w and not t: a bootstrap's sine
 * takes little from what is near 0, and much from what is near -1.
 */
function inverseSqrt(
  ctx: PackContext,
  w: Value,
  { scale, shift }: { scale: number; shift: number },
  loc: string,
): Value {
  const t = ctx.builder.op('ct.add_plain', [w, ctx.realConstant(shift, loc)], {}, loc);
  const { steps, coefficients } = fitInverseSqrt(shift, loc);
  const root = Math.sqrt(scale);
  const first = steps.length === 0 ? root : 1;
  let p = polynomial(
    ctx,
    t,
    coefficients.map((c) => c * first),
    loc,
  );
  steps.forEach(({ linear, cubic }, i) => {
    const factor = i === steps.length - 1 ? root : 1;
    const scaled = ctx.timesPlain(w, ctx.realConstant(-cubic * factor, loc), [], loc);
    const cubed = ctx.multiply(ctx.multiply(p, p, [], loc), ctx.multiply(p, scaled, [], loc), [], loc);
    const once = ctx.timesPlain(p, ctx.realConstant(linear * factor, loc), [], loc);
    p = ctx.builder.op('ct.add', [once, cubed], {}, loc);
  });
  return p;
}

/** 1 / sqrt(x) on a positive range: one level more than in a normalisation. */
export function packInverseSqrt(ctx: PackContext, x: Packed, range: Interval, loc: string): Packed {
  const { scale, shift } = normalisation(widenPositive(range));
  const scaled = ctx.timesPlain(x.value, ctx.realConstant(scale, loc), [], loc);
  const addend = twoValued(ctx, x, { inside: 0, outside: -shift }, loc);
  const w = ctx.builder.op('ct.add_plain', [scaled, addend], {}, loc);
  const root = { ...x, value: inverseSqrt(ctx, w, { scale, shift }, loc) };
  return zeroPadding(ctx, root, 1, loc);
}

/** Chebyshev coefficients of 1 / sqrt(t - shift), and the cubic steps that they leave to do. */
function fitInverseSqrt(
  shift: number,
  loc: string,
): { steps: readonly CubicStep[]; coefficients: readonly number[] } {
  for (const maxError of inverseSqrtErrors) {
    try {
      const options = { maxError, relative: true, name: 'inverse square root' };
      const fit = fitChebyshev((t) => 1 / Math.sqrt(t - shift), -1, 1, options);
      const steps = cubicSteps(fit.maxError);
      if (steps !== undefined) return { steps, coefficients: fit.coefficients };
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
 * Steps z <- linear z - cubic z^3 that bring z = p sqrt(w) from [1 - error, 1 + error] to 1. On [l, u] the
 * minimax cubic takes 1 - e at both ends and 1 + e at z = sqrt((l^2 + l u + u^2) / 3): an end near 0 grows
 * by 3 sqrt(3) / 2 a step, where a Newton step (1.5, 0.5) makes 1.5.
 */
function cubicSteps(error: number): readonly CubicStep[] | undefined {
  const steps: CubicStep[] = [];
  for (let e = error; e > inverseSqrtRelativeError;) {
    if (steps.length === mostCubicSteps) return undefined;
    const [l, u] = [1 - e, 1 + e];
    const top = Math.sqrt((l * l + l * u + u * u) / 3);
    const cubic = 2 / (l * u * (l + u) + 2 * top ** 3);
    steps.push({ linear: 3 * cubic * top * top, cubic });
    e = 2 * cubic * top ** 3 - 1;
  }
  return steps;
}

/**
 * factor * sum of all features, at every position that has one: one level. Other positions become zero.
 * Features that fill a power of two of positions of one ciphertext are summed by rotations, kept at position
 * 0 and copied by rotations, where that is cheaper than a matrix of ones.
 */
function sumOfFeatures(
  ctx: PackContext,
  x: Packed,
  factor: number,
  outAxes: readonly Axis[],
  loc: string,
): Value {
  const weight = ctx.addConstant(
    `ones ${x.featureCount}`,
    [1, x.featureCount],
    new Float64Array(x.featureCount).fill(1),
  );
  const count = outAxes.length === 0 ? ctx.period : x.features.length;
  const rows = x.features.subarray(0, count).map((f) => (f < 0 ? -1 : 0));
  const filled = x.features.filter((f) => f >= 0).length;
  const compact =
    x.features.length === ctx.period
    && Number.isInteger(Math.log2(filled))
    && x.features.every((f, u) => f >= 0 === u < filled);
  const blocks = blocksOf(x.value);
  const inputs = blocks * elementsOf(x.value);
  const outputs = (blocks * count) / ctx.period;
  const matrix = linearCost(ctx, { from: x.features, to: rows, inputs, outputs });
  const sums = sumCost(ctx, 1, filled, inputs) + sumCost(ctx, -1, filled, inputs);
  if (!compact || matrix <= sums) {
    return applyMatrix(ctx, x, { weight, factor, rows, outAxes }, loc);
  }
  const one = ctx.addConstant('one', [1], new Float64Array([1]));
  const first = Int32Array.from({ length: ctx.period }, (_, u) => (u === 0 ? 0 : -1));
  const sum = sumRotations(ctx, x.value, 1, filled, loc);
  const kept = ctx.timesPlain(sum, ctx.vector(one, [], first, undefined, factor, loc), [], loc);
  return sumRotations(ctx, kept, -1, filled, loc);
}

/** Positions that hold a feature in any block; blocks have been summed. */
function foldBlocks(features: Int32Array, period: number): Int32Array {
  const folded = new Int32Array(period).fill(-1);
  features.forEach((feature, i) => {
    if (feature >= 0) folded[i % period] = 0;
  });
  return folded;
}

/** x times a constant [T, features] or [1, features]: one level. Padded tokens are zero already. */
export function timesVector(ctx: PackContext, x: Packed, constant: string, loc: string): Packed {
  const { shape } = ctx.constantOf(constant);
  const width = defined(shape.at(-1), 'width');
  const rows =
    defined(
      shape.reduce((a, b) => a * b, 1),
      'size',
    ) / width;
  const tokens = rows === 1 ? undefined : ctx.tokenTable(blocksOf(x.value), 0, x.tokens, (t) => t * width);
  const features = width === 1 ? x.features.map((f) => Math.min(f, 0)) : x.features;
  const plain = ctx.vector(ctx.keep(constant), elementAxes(x.value), features, tokens, 1, loc);
  return { ...x, value: ctx.timesPlain(x.value, plain, [], loc) };
}

/** x plus a constant [T, features] or [1, features] on the value's tokens: no level. */
export function plusVector(ctx: PackContext, x: Packed, constant: string, loc: string): Packed {
  const { shape } = ctx.constantOf(constant);
  const width = defined(shape.at(-1), 'width');
  const rows = shape.reduce((a, b) => a * b, 1) / width;
  const tokens = ctx.tokenTable(blocksOf(x.value), 0, x.tokens, (t) => (rows === 1 ? 0 : t * width));
  const features = width === 1 ? x.features.map((f) => Math.min(f, 0)) : x.features;
  const plain = ctx.vector(ctx.keep(constant), elementAxes(x.value), features, tokens, 1, loc);
  return { ...x, value: ctx.builder.op('ct.add_plain', [x.value, plain], {}, loc) };
}
