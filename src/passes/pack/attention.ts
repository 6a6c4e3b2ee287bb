/**
 * Softmax attention without masks or transpositions (DESIGN section 4). Heads are slots, the feature inside a
 * head is
 * the ciphertext axis j: slot = h + H*v + c*t with H heads (padded to a power of two) and v one of U key
 * offsets that
 * share the spare positions of a token. Key offset tau = v + U*(b + B*g): v lies in slots, b on a ciphertext
 * axis, g is
 * a loop.
 *
 *     K'[j](h, v, t) = K[j](h, t + v)           V' alike: U rotations and masks, one level, nothing if U = 1
 *     Kb[j, b] = rot(K'[j], c*U*b)              Qg[j] = rot(Q[j], -c*U*B*g)
 *     E[b]     = exp'(sum_j Qg[j] Kb[j, b])     den += rot(sum_b E[b], c*U*B*g)
 *     O[j]    += rot(sum_b E[b] Vb[j, b], c*U*B*g)
 *     out[j]   = O[j] / sum_v den               O keeps one term per v; the next linear layer adds them
 *
 * With token blocks, queries have the axis p, keys and values the same blocks under the name q, and sums
 * over b run over (q, b): a rotation inside a block is cyclic, so the offsets of all blocks cover every
 * pair. One relinearization serves all q. Whoever shards p gathers K and V where they take the name q.
 *
 * A loop with too many rotation keys carries Qg and the sums (Horner, g falling): with s = c*U*B, G s = N/2,
 *
 *     Q <- rot(Q, s)      den <- rot(den, s) + sum_b E[b]      O[j] <- rot(O[j], s) + sum_b E[b] Vb[j, b]
 *
 * R of these steps go together on an axis r: R queries from one decomposition, K and V read once for all R.
 *
 * With rounds k >= 1 the first softmax is taken at temperature 2^k and then squared and renormalised k times
 * (NUMBERS section 4, THOR), which divides the spread of log den by 2^k. All E are then held at once
 * (one iteration, G = 1), or made again in a pass for each round.
 *
 * A key mask m (encrypted, one slot value for each token) drops padding of a length that only the client
 * knows: V is masked where it has levels to spare, and den becomes a sum over m like one more feature of V,
 *
 *     V <- V m          den += rot(sum_b E[b] mb[b], c*U*B*g)          mb[b] = rot(m', c*U*b), m' as K'
 *
 * so den, one ciphertext, is a level lower and nothing else. Padded tokens then hold what the model gives
 * them: no bias is masked, and outputs that read them agree too. With both masks, the sums are over the keys
 * that both let through.
 *
 * A constant mask is multiplied into E, a constant bias added to the scores: one plaintext for each (g, b)
 * (attention-mask.ts).
 *
 * Without a mask, padded keys have score 0, so each adds the known exp'(0) to den: it is subtracted. A
 * virtual padded key `w` follows the rounds for the same purpose.
 */
import type { Value } from '../../ir/module.js';
import { axisSize, type Axis } from '../../ir/types.js';
import { AegisError } from '../../support/diagnostics.js';
import { defined } from '../../support/invariant.js';
import { evaluateChebyshev, fitChebyshev, type ChebyshevFit } from '../approximation/index.js';
import { depthOfSeries } from '../approximation/paterson-stockmeyer.js';
import { maxSoftmaxRounds, shorterRequests, type Interval } from '../ranges.js';
import { argumentOf, normalisation, widen, widenLog } from './approximate.js';
import { carriedLoop, turnedLoop, type OffsetLoop } from './attention-loop.js';
import {
  maskAtStart,
  spreadKeys,
  spreadQueries,
  sumFeatures,
  sumOffsetsInSlots,
  sumWeighted,
} from './attention-features.js';
import { biasOf, keepOf, offsetVector, type HeadSlots } from './attention-mask.js';
import { featuresInArray, headRows } from './attention-slots.js';
import { chooseAttentionShape, type AttentionShape, type AttentionSpec } from './attention-shape.js';
import { tokenAxes, tokenAxis, type PackContext } from './context.js';
import { blocksOf, ctType, type Packed } from './layout.js';
import { applyMatrix } from './linear.js';

/**
 * Widest interval of log den that one polynomial inverts well: ratio 400, relative error below 1e-5 at degree
 * 127.
 */
const maxLogSpread = 6;
/** Of exp' and of inverses, without a budget. */
const softmaxRelativeError = 1e-5;

/** Axis of key blocks. */
const keyAxis = 'q';

/** Packs one of q, k, v into the head layout: `rows` at axis j, values scaled by `factor`. */
export type ProjectHeads = (which: 0 | 1 | 2, rows: Int32Array, headSize: number, factor: number) => Value;

/** What the approximations of a softmax depend on. */
export type SoftmaxSpec = Pick<AttentionSpec, 'tokens' | 'ranges' | 'keep' | 'tolerance' | 'capped'> & {
  readonly mask?: unknown;
};

export interface SoftmaxPlan {
  readonly rounds: number;
  /** Argument of exp' at score s: t = argument.scale * s + argument.shift. */
  readonly argument: { scale: number; shift: number };
  readonly exponential: readonly number[];
  /** Of exp', relative to its smallest sum. */
  readonly exponentialError: number;
  /** exp'(0), what a padded key adds to den. */
  readonly atZero: number;
  /** Interval of den before each inversion, rounds + 1 of them. */
  readonly denominators: readonly Interval[];
}

export function packAttention(ctx: PackContext, spec: AttentionSpec, project: ProjectHeads): Packed {
  const headSlots = 2 ** Math.ceil(Math.log2(spec.heads));
  if (headSlots > ctx.period) {
    throw new AegisError({
      code: 'A111',
      node: spec.loc,
      pass: 'pack',
      message: `${spec.heads} heads do not fit the ${ctx.period} slots of a token`,
      help: 'use a larger ring, more token blocks or a shorter sequence',
    });
  }
  const softmax = planSoftmax(spec, spec.tokenBlocks * ctx.groups);
  const shape = chooseAttentionShape(ctx, spec, headSlots, softmax.rounds);
  const layout = { ...shape, headSlots };
  const rows = headRows(ctx.period, spec, layout);
  const valueRows = headRows(ctx.period, { ...spec, headSize: spec.valueSize }, layout);
  const keyCount = featuresInArray(spec.headSize, shape);
  const q = project(0, rows, keyCount, spec.scale * softmax.argument.scale);
  const k = project(1, rows, keyCount, 1);
  const projected = project(2, valueRows, featuresInArray(spec.valueSize, shape), 1);
  const { mask } = spec;
  const v = mask === undefined ? projected : ctx.multiply(projected, mask, [], spec.loc);
  const head: HeadLayout = { ...layout, rows: rows.subarray(0, ctx.period) };
  const inSlots = shape.featuresInSlots > 1;
  const spread = inSlots ? spreadKeys : spreadOffsets;
  const copies = (value: Value) =>
    asKeyBlocks(ctx, offsetCopies(ctx, spread(ctx, value, head, spec.loc), head, spec.loc), spec.loc);
  const queries = inSlots ? spreadQueries(ctx, q, head, spec.loc) : q;
  const keys = copies(k);
  const values = copies(v);
  const keyMask = inSlots && mask !== undefined ? maskAtStart(ctx, spec, mask, head) : mask;
  const operands = { q: queries, keys, values, mask: keyMask === undefined ? undefined : copies(keyMask) };
  const { numerator, inverse } =
    shape.trips > 1
      ? streamed(ctx, spec, softmax, head, operands)
      : stored(ctx, spec, softmax, head, operands);
  // Padded queries stay zero: one of the factors is masked.
  const value = inSlots
    ? ctx.multiply(sumWeighted(ctx, spec, numerator, head), inverse, [], spec.loc)
    : ctx.multiply(numerator, maskTokens(ctx, spec, inverse), [], spec.loc);
  return {
    value,
    features: valueRows,
    featureCount: spec.heads * spec.valueSize,
    tokens: spec.tokens,
    repeats: shape.offsetsInSlots > 1 && !inSlots ? 'terms' : 'copies',
  };
}

interface HeadLayout extends AttentionShape, HeadSlots {
  /** Head at position u, -1 where unused: feature 0 of each head. */
  readonly rows: Int32Array;
}

/** Keys that the constant mask leaves to a query: padding cannot take more than these from its sum. */
function fewestKeys({ keep, tokens }: SoftmaxSpec): number {
  if (keep === undefined) return tokens;
  const seen = Array.from({ length: tokens }, (_, query) =>
    keep.subarray(query * tokens, (query + 1) * tokens).reduce((a, b) => a + b, 0),
  );
  return seen.reduce((a, b) => Math.min(a, b), tokens);
}

/** Rounds, exp' and the denominators' intervals, from calibrated statistics. */
export function planSoftmax(spec: SoftmaxSpec, groups: number): SoftmaxPlan {
  const padded = spec.tokens < groups;
  const include = (interval: Interval, x: number): Interval =>
    padded ? { min: Math.min(interval.min, x), max: Math.max(interval.max, x) } : interval;
  // A padded query has all scores 0.
  const kept = spec.ranges.keys ?? { min: spec.tokens, max: spec.tokens };
  const shorter = spec.mask === undefined ? 0 : Math.log(Math.min(shorterRequests, fewestKeys(spec)));
  const logSums = spec.ranges.logSumExp.map(({ min, max }) =>
    widenLog(include(include({ min: min - shorter, max }, Math.log(kept.min)), Math.log(kept.max))),
  );
  const fits = logSums.findIndex((log) => log.max - log.min <= maxLogSpread);
  const rounds = fits < 0 ? maxSoftmaxRounds : fits;
  const logSum = defined(logSums[rounds], 'log-sum-exp range');

  const scores = widen(include(spec.ranges.scores, 0));
  const argument = normalisation(scores);
  const exp = (t: number) =>
    Math.exp(spec.capped((t - argument.shift) / argument.scale) / 2 ** rounds - logSum.max);
  const smallest = Math.exp(logSum.min - logSum.max);
  const { coefficients: exponential, maxError } = fitChebyshev(exp, -1, 1, {
    maxError: (spec.tolerance ?? softmaxRelativeError) * smallest,
  });
  const squares = Array.from({ length: rounds }, (_, r) => {
    const range = defined(spec.ranges.logSquareSum[rounds - 1 - r], 'square-sum range');
    const wide = { min: range.min, max: range.max + shorter };
    const log = widenLog(include(include(wide, -Math.log(kept.min)), -Math.log(kept.max)));
    // A sum of squares of probabilities of n keys lies in [1/n, 1].
    return {
      min: Math.exp(Math.max(log.min, -Math.log(spec.tokens) - 0.05)),
      max: Math.exp(Math.min(log.max, 0.05)),
    };
  });
  return {
    rounds,
    argument,
    exponential,
    exponentialError: maxError / smallest,
    atZero: evaluateChebyshev(exponential, argument.shift),
    denominators: [{ min: smallest, max: 1 }, ...squares],
  };
}

/**
 * K'[j](h, v, t) = K[j](h, t + v). The masks have period c, so v = v0 + V w may be cut into baby steps v0,
 * hoisted, and giant steps w, summed before ModDown: V + U / V ciphertexts at once instead of U.
 */
function spreadOffsets(ctx: PackContext, value: Value, head: HeadLayout, loc: string): Value {
  const { offsetsInSlots: offsets, babyOffsets: babies } = head;
  if (offsets === 1) return value;
  const steps = (count: number, stride: number) =>
    ctx.reduceAll(Array.from({ length: count }, (_, i) => ctx.period * stride * i));
  const rotated = ctx.builder.op('ct.rotate', [value], { axis: 'v', steps: steps(babies, 1) }, loc);
  const features = new Int32Array(offsets * ctx.period).fill(-1);
  for (let v = 0; v < offsets; v++) {
    for (let h = 0; h < head.headSlots; h++) features[v * ctx.period + v * head.headSlots + h] = 0;
  }
  const one = ctx.addConstant('one', [1], new Float64Array([1]));
  const giants = offsets / babies;
  const giantAxes = giants === 1 ? [] : [{ name: 'w', size: giants }];
  const axes = [...giantAxes, { name: 'v', size: babies }];
  const masks = ctx.vector(one, axes, features, undefined, 1, loc);
  if (giants === 1) return ctx.timesPlain(rotated, masks, ['v'], loc);
  const parts = ctx.builder.op('ct.contract', [rotated, masks], { over: ['v'] }, loc);
  const attrs = { axis: 'w', steps: steps(giants, babies), sum: true };
  return ctx.rescale(ctx.builder.op('ct.rotate_each', [parts], attrs, loc), loc);
}

/** rot(K', c*U*b) on a new axis b. */
function offsetCopies(ctx: PackContext, value: Value, head: HeadLayout, loc: string): Value {
  const stride = ctx.period * head.offsetsInSlots;
  const steps = Array.from({ length: head.offsetsInArray }, (_, b) => stride * b);
  return ctx.builder.op('ct.rotate', [value], { axis: 'b', steps: ctx.reduceAll(steps) }, loc);
}

/** The block axis under the name of key blocks. */
function asKeyBlocks(ctx: PackContext, value: Value, loc: string): Value {
  const { axes } = ctType(value);
  if (blocksOf(value) === 1) return value;
  const renamed = axes.map((axis) => (axis.name === tokenAxis ? { ...axis, name: keyAxis } : axis));
  return ctx.reshape(value, renamed, loc);
}

/** Axes of key offsets that a value has: blocks, then copies. */
function offsetAxes(value: Value): string[] {
  return [keyAxis, 'b'].filter((name) => axisSize(ctType(value).axes, name) !== undefined);
}

/** Of kept keys only: with rounds the weights are masked already, without them here. */
function sumOffsets(
  ctx: PackContext,
  softmax: SoftmaxPlan,
  weights: Value,
  { mask }: Operands,
  loc: string,
): Value {
  if (mask !== undefined && softmax.rounds === 0) {
    return ctx.multiply(weights, mask, offsetAxes(weights), loc);
  }
  return offsetAxes(weights)
    .reverse()
    .reduce((value, axis) => ctx.builder.op('ct.sum', [value], { axis }, loc), weights);
}

/**
 * exp' of the scores; a bias comes with the shift of its argument, a constant mask is a product with a
 * plaintext. Squaring would let weights of padded keys grow without bound, so with rounds they are made zero
 * at once.
 */
function scoresToWeights(
  ctx: PackContext,
  spec: AttentionSpec,
  softmax: SoftmaxPlan,
  head: HeadLayout,
  q: Value,
  { keys, mask }: Operands,
): Value {
  const { loc, bias, keep } = spec;
  const { scale, shift } = softmax.argument;
  const products = ctx.multiply(q, keys, ['j'], loc);
  const scores = head.featuresInSlots > 1 ? sumFeatures(ctx, spec, products, head) : products;
  const axes = ctType(scores).axes;
  const plain =
    bias === undefined
      ? ctx.realConstant(shift, loc)
      : offsetVector(ctx, spec, head, axes, biasOf(spec, bias, scale, shift));
  const shifted = ctx.builder.op('ct.add_plain', [scores, plain], {}, loc);
  ctx.approximates({
    node: loc,
    function: 'exp',
    interval: argumentOf(softmax.argument),
    degrees: [softmax.exponential.length - 1],
    steps: softmax.rounds,
    levels: depthOfSeries(softmax.exponential.length),
    error: softmax.exponentialError,
    relative: true,
  });
  let weights = ctx.builder.op('ct.polynomial', [shifted], { coefficients: softmax.exponential }, loc);
  if (keep !== undefined) {
    weights = ctx.timesPlain(weights, offsetVector(ctx, spec, head, axes, keepOf(spec, keep)), [], loc);
  }
  return mask === undefined || softmax.rounds === 0 ? weights : ctx.multiply(weights, mask, [], loc);
}

/** Queries, and copies of keys, values and key mask at all offsets of an iteration. */
interface Operands {
  readonly q: Value;
  readonly keys: Value;
  readonly values: Value;
  readonly mask: Value | undefined;
}

interface Ratio {
  readonly numerator: Value;
  readonly inverse: Value;
}

/**
 * Loops over key offsets; weights of one iteration are alive at a time. Every round takes a pass of its
 * own, which makes the weights again and follows the rounds before it.
 */
function streamed(
  ctx: PackContext,
  spec: AttentionSpec,
  softmax: SoftmaxPlan,
  head: HeadLayout,
  operands: Operands,
): Ratio {
  const { q, values } = operands;
  const { loc, tokenBlocks } = spec;
  const valueCount = featuresInArray(spec.valueSize, head);
  const stride = ctx.period * head.offsetsInSlots * head.offsetsInArray;
  const run = head.carried ? carriedLoop : turnedLoop;
  const zero = (axes: readonly Axis[]) =>
    ctx.builder.op('ct.zero', [], { axes: axes.map((axis) => ({ ...axis })) }, loc);
  const inverses: Value[] = [];
  let padding = knownPadding(ctx, spec, softmax);
  for (let round = 0; ; round++) {
    const last = round === softmax.rounds;
    const term: OffsetLoop['term'] = (body, [query, ...known], turned) => {
      let weights = scoresToWeights(body, spec, softmax, head, defined(query, 'queries'), operands);
      for (const inverse of known) weights = nextWeights(body, weights, inverse, loc);
      const den = turned(sumOffsets(body, softmax, weights, operands, loc));
      return last ? [den, turned(body.multiply(weights, values, offsetAxes(weights), loc))] : [den];
    };
    const zeros = [zero(tokenAxes(tokenBlocks))];
    if (last) zeros.push(zero([...tokenAxes(tokenBlocks), { name: 'j', size: valueCount }]));
    const loop = {
      trips: head.trips,
      together: head.together,
      stride,
      queries: [q, ...inverses],
      zeros,
      term,
    };
    const [den, numerator] = run(ctx, loop, loc);
    const interval = defined(softmax.denominators[round], 'interval');
    const inverse = invert(ctx, spec, softmax, head, { den: defined(den, 'den'), interval, padding });
    if (last) return { numerator: defined(numerator, 'numerator'), inverse };
    inverses.push(inverse);
    padding = nextPadding(ctx, spec, softmax, padding, inverse);
  }
}

/** All weights at once, squared and renormalised `rounds` times. */
function stored(
  ctx: PackContext,
  spec: AttentionSpec,
  softmax: SoftmaxPlan,
  head: HeadLayout,
  operands: Operands,
): Ratio {
  const { loc } = spec;
  const { q, values } = operands;
  let weights = scoresToWeights(ctx, spec, softmax, head, q, operands);
  let padding = knownPadding(ctx, spec, softmax);
  for (let round = 0; ; round++) {
    const interval = defined(softmax.denominators[round], 'interval');
    const den = sumOffsets(ctx, softmax, weights, operands, loc);
    const inverse = invert(ctx, spec, softmax, head, { den, interval, padding });
    if (round === softmax.rounds) {
      return { numerator: ctx.multiply(weights, values, offsetAxes(weights), loc), inverse };
    }
    weights = nextWeights(ctx, weights, inverse, loc);
    padding = nextPadding(ctx, spec, softmax, padding, inverse);
  }
}

/** (weights / den)^2 */
function nextWeights(ctx: PackContext, weights: Value, inverse: Value, loc: string): Value {
  const normal = ctx.multiply(weights, inverse, [], loc);
  return ctx.multiply(normal, normal, [], loc);
}

/** Padded keys that add to den: any mask closes them. */
function openPadding(ctx: PackContext, spec: AttentionSpec): number {
  return spec.keep === undefined && spec.mask === undefined ? paddedKeys(ctx, spec) : 0;
}

function paddedKeys(ctx: PackContext, spec: AttentionSpec): number {
  return spec.tokenBlocks * ctx.groups - spec.tokens;
}

interface Padding {
  /** What padded keys add to den, if it is known. */
  readonly constant: number;
  readonly key?: { readonly value: Value; readonly count: number };
}

/** Before the first round. */
function knownPadding(ctx: PackContext, spec: AttentionSpec, softmax: SoftmaxPlan): Padding {
  return { constant: openPadding(ctx, spec) * softmax.atZero };
}

/** The virtual padded key goes through the round that the weights go through. */
function nextPadding(
  ctx: PackContext,
  spec: AttentionSpec,
  softmax: SoftmaxPlan,
  padding: Padding,
  inverse: Value,
): Padding {
  const { loc } = spec;
  const count = openPadding(ctx, spec);
  if (count === 0) return padding;
  const scaled =
    padding.key === undefined
      ? ctx.timesPlain(inverse, ctx.realConstant(softmax.atZero, loc), [], loc)
      : ctx.multiply(padding.key.value, inverse, [], loc);
  return { constant: 0, key: { value: ctx.multiply(scaled, scaled, [], loc), count } };
}

interface Denominator {
  readonly den: Value;
  readonly interval: Interval;
  readonly padding: Padding;
}

/**
 * 1 / (sum over v of den - padding) at every position of a token, or at v = 0 where that is enough; other
 * positions hold the mid-interval value.
 */
function invert(
  ctx: PackContext,
  spec: AttentionSpec,
  softmax: SoftmaxPlan,
  head: HeadLayout,
  { den, interval, padding }: Denominator,
): Value {
  const { loc } = spec;
  const { scale, shift } = normalisation(interval);
  const everywhere = softmax.rounds > 0;
  const { value, used } =
    head.featuresInSlots > 1
      ? sumOffsetsInSlots(ctx, spec, den, head, { factor: scale, everywhere })
      : sumTerms(ctx, spec, head, den, scale);
  let argument = value;
  if (padding.key !== undefined) {
    const factor = ctx.realConstant(scale * padding.key.count, loc);
    const key = ctx.timesPlain(padding.key.value, factor, [], loc);
    argument = ctx.builder.op('ct.sub', [argument, key], {}, loc);
  }
  const constant = ctx.addConstant('den shift', [1], new Float64Array([shift - scale * padding.constant]));
  argument = ctx.builder.op(
    'ct.add_plain',
    [argument, ctx.vector(constant, [], used, undefined, 1, loc)],
    {},
    loc,
  );
  const { coefficients, maxError } = fitInverse(interval, spec.tolerance);
  ctx.approximates({
    node: loc,
    function: 'inverse',
    interval,
    degrees: [coefficients.length - 1],
    steps: 0,
    levels: depthOfSeries(coefficients.length),
    error: maxError,
    relative: true,
  });
  return ctx.builder.op('ct.polynomial', [argument], { coefficients }, loc);
}

/** 1 / x on the interval, as a series of t in [-1, 1]. */
export function fitInverse(interval: Interval, tolerance: number | undefined): ChebyshevFit {
  const { scale, shift } = normalisation(interval);
  const maxError = tolerance ?? softmaxRelativeError;
  const options = { maxError, relative: true, name: 'inverse' };
  return fitChebyshev((t) => scale / (t - shift), -1, 1, options);
}

/** scale * sum over v of den at every (h, v), by a matrix of ones and zeros. */
function sumTerms(
  ctx: PackContext,
  spec: AttentionSpec,
  head: HeadLayout,
  den: Value,
  scale: number,
): { value: Value; used: Int32Array } {
  const identity = ctx.addConstant('heads', [spec.heads, spec.heads], identityMatrix(spec.heads));
  const heads = head.rows.map((feature) => (feature < 0 ? -1 : feature / spec.headSize));
  const { heads: featureCount, tokens, loc } = spec;
  const terms: Packed = { value: den, features: heads, featureCount, tokens, repeats: 'terms' };
  const value = applyMatrix(ctx, terms, { weight: identity, rows: heads, outAxes: [], factor: scale }, loc);
  return { value, used: heads.map((h) => (h < 0 ? -1 : 0)) };
}

/** Zero for padded queries, so that the hidden state stays zero there. */
function maskTokens(ctx: PackContext, spec: AttentionSpec, value: Value): Value {
  if (paddedKeys(ctx, spec) === 0) return value;
  const one = ctx.addConstant('one', [1], new Float64Array([1]));
  const features = new Int32Array(ctx.period);
  const mask = ctx.vector(
    one,
    [],
    features,
    ctx.tokenTable(spec.tokenBlocks, 0, spec.tokens, () => 0),
    1,
    spec.loc,
  );
  return ctx.timesPlain(value, mask, [], spec.loc);
}

function identityMatrix(size: number): Float64Array {
  const data = new Float64Array(size * size);
  for (let i = 0; i < size; i++) data[i * size + i] = 1;
  return data;
}
