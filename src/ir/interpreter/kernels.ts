/**
 * Inner loops of the clear interpreter on slot vectors. Products are taken in groups, so that the running sum
 * is read and written once for several multiplications; this is what makes a layer of a real model a matter
 * of a second.
 */
import { axesCount, axisSize, broadcastAxes, withoutAxes, type Axis } from '../types.js';
import { defined, invariant } from '../../support/invariant.js';

/**
 * Which pairs of elements each element of the result sums: pairs o*terms .. o*terms+terms-1 belong to element
 * o.
 */
export interface Pairing {
  readonly axes: readonly Axis[];
  readonly terms: number;
  readonly left: Int32Array;
  readonly right: Int32Array;
}

/** Pairs the elements of two arrays that broadcast by axis name; the axes `over` are summed. */
export function pairElements(
  left: readonly Axis[],
  right: readonly Axis[],
  over: readonly string[],
): Pairing {
  const full = broadcastAxes(left, right);
  invariant(typeof full !== 'string', String(full));
  const axes = withoutAxes(full, over);
  const ordered = [...axes, ...full.filter((axis) => over.includes(axis.name))];
  return {
    axes,
    terms: axesCount(ordered) / axesCount(axes),
    left: elementIndices(ordered, left),
    right: elementIndices(ordered, right),
  };
}

/** For every index of `full`, row-major, the element of an array with the axes `own` that it meets. */
export function elementIndices(full: readonly Axis[], own: readonly Axis[]): Int32Array {
  const strides = new Map<string, number>();
  let stride = 1;
  for (const axis of own.toReversed()) {
    strides.set(axis.name, stride);
    stride *= axis.size;
  }
  let result = Int32Array.of(0);
  for (const axis of full) {
    const step = strides.get(axis.name) ?? 0;
    const next = new Int32Array(result.length * axis.size);
    result.forEach((base, i) => {
      for (let k = 0; k < axis.size; k++) next[i * axis.size + k] = base + k * step;
    });
    result = next;
  }
  return result;
}

/** Rotation to the left: out[s] = a[(s + step) mod slots]. */
export function rotateLeft(a: Float64Array, step: number): Float64Array {
  const slots = a.length;
  const shift = ((step % slots) + slots) % slots;
  if (shift === 0) return a;
  const out = new Float64Array(slots);
  out.set(a.subarray(shift), 0);
  out.set(a.subarray(0, shift), slots - shift);
  return out;
}

/** out += sign * sum over pairs of a[left] * b[right], element by element. */
export function accumulateProducts(
  out: readonly Float64Array[],
  pairing: Pairing,
  a: readonly Float64Array[],
  b: readonly Float64Array[],
  sign: 1 | -1,
): void {
  const { terms, left, right } = pairing;
  out.forEach((sum, o) => {
    const end = (o + 1) * terms;
    let k = o * terms;
    for (; k + 2 <= end; k += 2) {
      const x0 = a[left[k] as number] as Float64Array;
      const y0 = b[right[k] as number] as Float64Array;
      const x1 = a[left[k + 1] as number] as Float64Array;
      const y1 = b[right[k + 1] as number] as Float64Array;
      for (let s = 0; s < sum.length; s++) {
        const pair = (x0[s] as number) * (y0[s] as number) + (x1[s] as number) * (y1[s] as number);
        sum[s] = (sum[s] as number) + sign * pair;
      }
    }
    if (k === end) return;
    const x = a[left[k] as number] as Float64Array;
    const y = b[right[k] as number] as Float64Array;
    for (let s = 0; s < sum.length; s++) {
      sum[s] = (sum[s] as number) + sign * (x[s] as number) * (y[s] as number);
    }
  });
}

/** Slots of one position class handled at a time: the tiles of all inputs stay in the second-level cache. */
const tileTokens = 256;
/** With fewer tokens the bookkeeping per position costs more than it saves. */
const fewTokens = 4;

/** One part, real or imaginary, of a plaintext array. */
export interface PeriodicVectors {
  readonly period: number;
  element(index: number): Float64Array;
}

/** out += sign * sum over pairs of a[left] * p(right), where plaintexts repeat with `period`. */
export function accumulatePeriodic(
  out: readonly Float64Array[],
  pairing: Pairing,
  a: readonly Float64Array[],
  p: PeriodicVectors,
  sign: 1 | -1,
): void {
  const slots = out[0]?.length ?? 0;
  if (slots / p.period < fewTokens) accumulateDense(out, pairing, a, p, sign);
  else accumulateByPosition(out, pairing, a, p, sign);
}

function accumulateDense(
  out: readonly Float64Array[],
  { terms, left, right }: Pairing,
  a: readonly Float64Array[],
  p: PeriodicVectors,
  sign: 1 | -1,
): void {
  const { period } = p;
  out.forEach((sum, o) => {
    for (let k = 0; k < terms; k++) {
      const x = a[left[o * terms + k] as number] as Float64Array;
      const w = p.element(right[o * terms + k] as number);
      for (let base = 0; base < sum.length; base += period) {
        for (let u = 0; u < period; u++) {
          sum[base + u] = (sum[base + u] as number) + sign * (w[u] as number) * (x[base + u] as number);
        }
      }
    }
  });
}

/** The non-zero weights of every position, those of one position and output next to each other. */
interface PositionWeights {
  readonly weights: Float64Array;
  readonly inputs: Int32Array;
  /** First weight of (position u, output o) at u * outputs + o; the next entry ends it. */
  readonly starts: Int32Array;
}

function weightsByPosition(
  outputs: number,
  { terms, left, right }: Pairing,
  p: PeriodicVectors,
): PositionWeights {
  const { period } = p;
  const starts = new Int32Array(period * outputs + 1);
  // Count, then place: both passes read the plaintexts in order, for they are the largest data here.
  for (let k = 0; k < outputs * terms; k++) {
    const o = Math.floor(k / terms);
    const vector = p.element(right[k] as number);
    for (let u = 0; u < period; u++) {
      if (vector[u] !== 0) starts[u * outputs + o + 1] = (starts[u * outputs + o + 1] as number) + 1;
    }
  }
  for (let i = 1; i < starts.length; i++) starts[i] = (starts[i] as number) + (starts[i - 1] as number);
  const next = starts.slice();
  const weights = new Float64Array(starts.at(-1) ?? 0);
  const inputs = new Int32Array(weights.length);
  for (let k = 0; k < outputs * terms; k++) {
    const o = Math.floor(k / terms);
    const vector = p.element(right[k] as number);
    for (let u = 0; u < period; u++) {
      const weight = vector[u] as number;
      if (weight === 0) continue;
      const at = next[u * outputs + o] as number;
      next[u * outputs + o] = at + 1;
      weights[at] = weight;
      inputs[at] = left[k] as number;
    }
  }
  return { weights, inputs, starts };
}

/**
 * All slots of one position u of the period share their weights, so for each u the contraction is a small
 * matrix times (inputs x tokens): gather the inputs' slots u, u + period, ..., multiply by the non-zero
 * weights, scatter.
 */
function accumulateByPosition(
  out: readonly Float64Array[],
  pairing: Pairing,
  a: readonly Float64Array[],
  p: PeriodicVectors,
  sign: 1 | -1,
): void {
  const { period } = p;
  const tokens = (out[0]?.length ?? 0) / period;
  const tile = Math.min(tokens, tileTokens);
  const tiles = new Float64Array(a.length * tile);
  const sum = new Float64Array(tile);
  const { weights, inputs, starts } = weightsByPosition(out.length, pairing, p);
  for (let u = 0; u < period; u++) {
    if (starts[u * out.length] === starts[(u + 1) * out.length]) continue;
    for (let t0 = 0; t0 < tokens; t0 += tile) {
      gather(tiles, a, u + period * t0, period, tile);
      for (let o = 0; o < out.length; o++) {
        const start = starts[u * out.length + o] as number;
        const end = starts[u * out.length + o + 1] as number;
        if (start === end) continue;
        multiplyTile(sum, tiles, weights, inputs, start, end);
        const target = out[o] as Float64Array;
        for (let t = 0, s = u + period * t0; t < tile; t++, s += period) {
          target[s] = (target[s] as number) + sign * (sum[t] as number);
        }
      }
    }
  }
}

function gather(
  gathered: Float64Array,
  a: readonly Float64Array[],
  first: number,
  stride: number,
  tile: number,
): void {
  for (let i = 0; i < a.length; i++) {
    const x = a[i] as Float64Array;
    for (let t = 0, s = first; t < tile; t++, s += stride) gathered[i * tile + t] = x[s] as number;
  }
}

/** sum = the combination of tiles with weights start..end-1. */
function multiplyTile(
  sum: Float64Array,
  tiles: Float64Array,
  weights: Float64Array,
  inputs: Int32Array,
  start: number,
  end: number,
): void {
  sum.fill(0);
  let k = start;
  for (; k + 4 <= end; k += 4) {
    const w0 = weights[k] as number;
    const w1 = weights[k + 1] as number;
    const w2 = weights[k + 2] as number;
    const w3 = weights[k + 3] as number;
    const i0 = (inputs[k] as number) * sum.length;
    const i1 = (inputs[k + 1] as number) * sum.length;
    const i2 = (inputs[k + 2] as number) * sum.length;
    const i3 = (inputs[k + 3] as number) * sum.length;
    for (let t = 0; t < sum.length; t++) {
      sum[t] =
        (sum[t] as number)
        + w0 * (tiles[i0 + t] as number)
        + w1 * (tiles[i1 + t] as number)
        + w2 * (tiles[i2 + t] as number)
        + w3 * (tiles[i3 + t] as number);
    }
  }
  for (; k < end; k++) {
    const w = weights[k] as number;
    const i = (inputs[k] as number) * sum.length;
    for (let t = 0; t < sum.length; t++) sum[t] = (sum[t] as number) + w * (tiles[i + t] as number);
  }
}

/** sum_k c_k T_k(x) by Clenshaw's recurrence, for every slot. */
export function chebyshevReal(coefficients: readonly number[], x: Float64Array): Float64Array {
  const c = Float64Array.from(coefficients);
  const out = new Float64Array(x.length);
  for (let s = 0; s < x.length; s++) {
    const value = x[s] as number;
    let b1 = 0;
    let b2 = 0;
    for (let k = c.length - 1; k >= 1; k--) {
      const b0 = (c[k] as number) + 2 * value * b1 - b2;
      b2 = b1;
      b1 = b0;
    }
    out[s] = (c[0] ?? 0) + value * b1 - b2;
  }
  return out;
}

/** The same at complex arguments. */
export function chebyshevComplex(
  coefficients: readonly number[],
  re: Float64Array,
  im: Float64Array,
): { re: Float64Array; im: Float64Array } {
  const out = { re: new Float64Array(re.length), im: new Float64Array(re.length) };
  for (let s = 0; s < re.length; s++) {
    const x = re[s] as number;
    const y = im[s] as number;
    let r1 = 0;
    let i1 = 0;
    let r2 = 0;
    let i2 = 0;
    for (let k = coefficients.length - 1; k >= 1; k--) {
      const r0 = (coefficients[k] as number) + 2 * (x * r1 - y * i1) - r2;
      const i0 = 2 * (x * i1 + y * r1) - i2;
      r2 = r1;
      i2 = i1;
      r1 = r0;
      i1 = i0;
    }
    out.re[s] = (coefficients[0] ?? 0) + x * r1 - y * i1 - r2;
    out.im[s] = x * i1 + y * r1 - i2;
  }
  return out;
}

/** Elements outer x size x inner along one axis. */
export function axisExtent(
  axes: readonly Axis[],
  name: string,
): { outer: number; size: number; inner: number } {
  const at = axes.findIndex((axis) => axis.name === name);
  const size = defined(axisSize(axes, name), `axis ${name}`);
  return { outer: axesCount(axes.slice(0, at)), size, inner: axesCount(axes.slice(at + 1)) };
}
