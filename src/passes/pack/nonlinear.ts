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
  compositeDegrees,
  compositeSign,
  evaluateChebyshev,
  fitChebyshev,
  realFunction,
  type ChebyshevFit,
  type CompositeSign,
  type NonlinearFunction,
} from '../approximation/index.js';
import type { Interval } from '../ranges.js';
import { depthOfSeries } from '../approximation/paterson-stockmeyer.js';
import { argumentOf, normalisation, widen, widenPositive } from './approximate.js';
import type { PackContext } from './context.js';
import { sumCost, sumRotations } from './group-sums.js';
import { fitInverseSqrt, levelsOfStep } from './inverse-sqrt.js';
import { blocksOf, elementAxes, elementsOf, type Packed } from './layout.js';
import { addBias, applyMatrix, linearCost } from './linear.js';

/** Error of a smooth function: absolute, or relative to its largest result (approximateActivation). */
const activationError = 3e-5;
/** Approximation errors of functions that are 0 at 0. */
const zeroEnough = 1e-3;
/**
 * |x| has a corner: the error of a series falls only as Bernstein's 0.28 / degree, here for half an interval
 * with the corner inside.
 */
const bernstein = 0.06;
/** Relative to the largest argument, where a composite sign can keep it. */
const cornerError = 2.1e-4;
/** The most that one series gets: one level more than smooth functions. */
const cornerDegree = 511;

export interface Activation {
  readonly name: string;
  /** Affine map that the producer of the argument applies: t = scale * x + shift. */
  readonly argument: { readonly scale: number; readonly shift: number };
  /** Series that are applied one after another. */
  readonly stages: readonly (readonly number[])[];
  /** The result is t times the last series. */
  readonly timesArgument: boolean;
  /** Largest error on the interval, absolute. */
  readonly maxError: number;
}

/** `tolerance`: absolute error that the budget leaves the node; without one, that of `activationError`. */
export function approximateActivation(
  fn: NonlinearFunction,
  range: Interval,
  tolerance?: number,
): Activation {
  const named = fn.kind === 'named' ? namedFunction(fn.name) : undefined;
  const interval = named?.positive === true ? signed(range, widenPositive) : widen(range);
  const f = realFunction(fn);
  const corner = fn.kind === 'relu' || named?.corner === true;
  if (corner) return fitCorner(fn, f, interval, tolerance);
  const fit = fitSmooth(fn, f, interval, tolerance);
  return single(nameOf(fn), interval, fit);
}

function nameOf(fn: NonlinearFunction): string {
  return fn.kind === 'named' ? fn.name : fn.kind;
}

function single(name: string, interval: Interval, { coefficients, maxError }: ChebyshevFit): Activation {
  return { name, argument: normalisation(interval), stages: [coefficients], timesArgument: false, maxError };
}

/** f(x) = linear x + absolute |x|, where it has that form. */
function cornerForm(fn: NonlinearFunction): { linear: number; absolute: number } | undefined {
  if (fn.kind === 'relu') return { linear: 0.5, absolute: 0.5 };
  if (fn.kind !== 'named') return undefined;
  if (fn.name === 'abs') return { linear: 0, absolute: 1 };
  if (fn.name !== 'leaky_relu') return undefined;
  return { linear: (1 + fn.alpha) / 2, absolute: (1 - fn.alpha) / 2 };
}

/** Degrees of one series for a function with a corner, where the budget allows less than the last. */
const cornerDegrees = [15, 31, 63, 127, 255, cornerDegree];

/**
 * One series of the least depth that keeps the tolerance; else x times a composite sign (composite.ts), which
 * takes more levels for the same error but far fewer products for a small one; the finest if all miss it.
 */
function fitCorner(
  fn: NonlinearFunction,
  f: (x: number) => number,
  interval: Interval,
  given: number | undefined,
): Activation {
  const form = cornerForm(fn);
  const bound = Math.max(-interval.min, interval.max);
  const tolerance = given ?? (form === undefined ? 0 : cornerError * bound);
  const fit = (degree: number): Activation => {
    return single(nameOf(fn), interval, fitChebyshev(f, interval.min, interval.max, { degree }));
  };
  if (form === undefined && given === undefined) return fit(cornerDegree);
  const kink = Math.abs(form?.absolute ?? 0) * (interval.max - interval.min);
  for (const degree of cornerDegrees) {
    if ((bernstein * kink) / degree > tolerance) continue;
    const found = fit(degree);
    if (found.maxError <= tolerance) return found;
  }
  if (form === undefined) return fit(cornerDegree);
  const { linear, absolute } = form;
  const signs = compositeSigns();
  const errorOf = ({ reluError }: CompositeSign): number => 2 * Math.abs(absolute) * bound * reluError;
  const sign = signs.find((one) => errorOf(one) <= tolerance) ?? defined(signs.at(-1), 'composite sign');
  const last = defined(sign.stages.at(-1), 'stage').map((c) => absolute * bound * c);
  last[0] = (last[0] ?? 0) + linear * bound;
  return {
    name: nameOf(fn),
    argument: { scale: 1 / bound, shift: 0 },
    stages: [...sign.stages.slice(0, -1), last],
    timesArgument: true,
    maxError: errorOf(sign),
  };
}

let compositeSignsKnown: readonly CompositeSign[] | undefined;

/** The same for every node. */
function compositeSigns(): readonly CompositeSign[] {
  compositeSignsKnown ??= compositeDegrees.map(compositeSign);
  return compositeSignsKnown;
}

/**
 * Activations to the absolute error, or where no degree reaches it to the one that named functions have:
 * relative to the largest result on the interval.
 */
function fitSmooth(
  fn: NonlinearFunction,
  f: (x: number) => number,
  interval: Interval,
  tolerance: number | undefined,
): ChebyshevFit {
  const fit = (maxError: number, name: string): ChebyshevFit =>
    fitChebyshev(f, interval.min, interval.max, { maxError, name });
  const relative = (tolerance ?? activationError) * sizeOf(f, interval);
  if (fn.kind === 'named' && tolerance === undefined) return fit(relative, fn.name);
  try {
    return fit(tolerance ?? activationError, fn.kind);
  } catch (error) {
    if (!(error instanceof AegisError)) throw error;
    return fit(Math.max(relative, activationError), fn.kind);
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
  return { ...x, value: activate(ctx, t, activation, loc) };
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

/** The activation of an argument that has been mapped already. */
export function activate(ctx: PackContext, t: Value, activation: Activation, loc: string): Value {
  const { stages, timesArgument } = activation;
  ctx.approximates({
    node: loc,
    function: activation.name,
    interval: argumentOf(activation.argument),
    degrees: stages.map((stage) => stage.length - 1),
    steps: 0,
    levels: stages.reduce((sum, { length }) => sum + depthOfSeries(length), timesArgument ? 1 : 0),
    error: activation.maxError,
    relative: false,
  });
  const result = stages.reduce((value, stage) => polynomial(ctx, value, stage, loc), t);
  return timesArgument ? ctx.multiply(t, result, [], loc) : result;
}

/** What it is at one argument in [-1, 1]. */
export function activationAt({ stages, timesArgument }: Activation, t: number): number {
  const result = stages.reduce((value, stage) => evaluateChebyshev(stage, value), t);
  return timesArgument ? t * result : result;
}

function polynomial(ctx: PackContext, t: Value, coefficients: readonly number[], loc: string): Value {
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
  /** Relative error of the inverse square root that the budget leaves the node. */
  readonly tolerance?: number | undefined;
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
  const inverseDeviation = inverseSqrt(ctx, w, { scale, shift, tolerance: spec.tolerance }, loc);
  const scaled = gamma === undefined ? centred : timesVector(ctx, { ...x, value: centred }, gamma, loc).value;
  const normal = ctx.multiply(scaled, inverseDeviation, [], loc);
  const bias = beta === undefined ? undefined : ctx.constantOf(beta).data;
  return { ...x, value: addBias(ctx, normal, x.features, axes, bias, { scale: 1, shift: 0 }, x.tokens, loc) };
}

/**
 * sqrt(scale / w) with w = t - shift in (0, 2], t in [-1, 1]. Where w spreads too widely for one
 * polynomial p, it is followed by cubic steps, two levels each. They read w and not t: a bootstrap's sine
 * takes little from what is near 0, and much from what is near -1.
 */
function inverseSqrt(
  ctx: PackContext,
  w: Value,
  { scale, shift, tolerance }: { scale: number; shift: number; tolerance?: number | undefined },
  loc: string,
): Value {
  const t = ctx.builder.op('ct.add_plain', [w, ctx.realConstant(shift, loc)], {}, loc);
  const { steps, coefficients, maxError } = fitInverseSqrt(shift, tolerance, loc);
  ctx.approximates({
    node: loc,
    function: 'inverse square root',
    interval: argumentOf({ scale, shift }),
    degrees: [coefficients.length - 1],
    steps: steps.length,
    levels: depthOfSeries(coefficients.length) + levelsOfStep * steps.length,
    error: maxError,
    relative: true,
  });
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

/** 1 / sqrt(x) on a positive range: one level more than in a normalisation. `tolerance` is absolute. */
export function packInverseSqrt(
  ctx: PackContext,
  x: Packed,
  { range, tolerance }: { range: Interval; tolerance: number | undefined },
  loc: string,
): Packed {
  const { scale, shift } = normalisation(widenPositive(range));
  const scaled = ctx.timesPlain(x.value, ctx.realConstant(scale, loc), [], loc);
  const addend = twoValued(ctx, x, { inside: 0, outside: -shift }, loc);
  const w = ctx.builder.op('ct.add_plain', [scaled, addend], {}, loc);
  const relative = tolerance === undefined ? undefined : tolerance * Math.sqrt(range.min);
  const root = { ...x, value: inverseSqrt(ctx, w, { scale, shift, tolerance: relative }, loc) };
  return zeroPadding(ctx, root, 1, loc);
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
