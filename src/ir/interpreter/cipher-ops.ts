/** What each ciphertext op does to slot vectors. */
import { defined, invariant } from '../../support/invariant.js';
import { evalModModel, type Parameters } from '../../target/parameters.js';
import type { Op } from '../module.js';
import { axesCount, withoutAxes, type Axis } from '../types.js';
import {
  accumulatePeriodic,
  accumulateProducts,
  axisExtent,
  chebyshevComplex,
  chebyshevReal,
  elementIndices,
  pairElements,
  rotateLeft,
} from './kernels.js';
import type { PlainArray } from './plain.js';
import type { CipherValue, OpContext, RuntimeValue } from './values.js';

type Handler = (op: Op, operands: readonly RuntimeValue[], context: OpContext) => CipherValue;
type Vectors = readonly Float64Array[];

/** Ops that move residues between moduli, secrets and sizes but leave the value in the slots as it is. */
const unchanged: Handler = (_, operands) => ct(operands, 0);

export const cipherHandlers: Readonly<Record<string, Handler>> = {
  'ct.add': (_, operands) => elementwise(ct(operands, 0), ct(operands, 1), 1),
  'ct.sub': (_, operands) => elementwise(ct(operands, 0), ct(operands, 1), -1),
  'ct.add_plain': (_, operands, { slots }) => {
    return elementwise(ct(operands, 0), expanded(pt(operands, 1), slots), 1);
  },
  'ct.contract': (op, operands) => contract(ct(operands, 0), pt(operands, 1), op.attrs.over as string[]),
  'ct.mul': (op, operands) => multiply(ct(operands, 0), ct(operands, 1), op.attrs.over as string[]),
  'ct.relinearize': unchanged,
  'ct.rescale': unchanged,
  'ct.adjust': unchanged,
  'ct.mod_down': unchanged,
  'ct.switch_secret': unchanged,
  // The multiples of q_0 that ModRaise adds lie in the coefficients; EvalMod takes them away again.
  'ct.mod_raise': unchanged,
  'ct.rotate': (op, operands) => {
    const a = ct(operands, 0);
    const steps = op.attrs.steps as readonly number[];
    const axes = [...a.axes, { name: op.attrs.axis as string, size: steps.length }];
    const rotations = (vector: Float64Array): Float64Array[] => steps.map((step) => rotateLeft(vector, step));
    return mapParts(a, axes, (part) => part.flatMap(rotations));
  },
  'ct.rotate_each': rotateEach,
  'ct.conjugate': (_, operands) => {
    const a = ct(operands, 0);
    return a.im === null ? a : { ...a, im: a.im.map(negated) };
  },
  'ct.mul_i': (_, operands) => {
    const a = ct(operands, 0);
    const im = a.re;
    return { ...a, re: a.im === null ? a.re.map((v) => new Float64Array(v.length)) : a.im.map(negated), im };
  },
  'ct.sum': (op, operands) => sumAxis(ct(operands, 0), op.attrs.axis as string),
  'ct.index': (op, operands, { iteration }) => {
    const index = (op.attrs.index as number) + iteration * ((op.attrs.loopStride as number | undefined) ?? 0);
    const a = ct(operands, 0);
    return selected(a, withoutAxes(a.axes, [op.attrs.axis as string]), op.attrs.axis as string, index, 1);
  },
  'ct.slice': (op, operands) => {
    const a = ct(operands, 0);
    const size = op.attrs.size as number;
    const axes = a.axes.map((axis) => (axis.name === op.attrs.axis ? { ...axis, size } : axis));
    return selected(a, axes, op.attrs.axis as string, op.attrs.start as number, size);
  },
  'ct.concat': concat,
  'ct.reshape': (op, operands) => ({ ...ct(operands, 0), axes: op.attrs.axes as unknown as readonly Axis[] }),
  'ct.polynomial': (op, operands) => polynomial(ct(operands, 0), op.attrs.coefficients as readonly number[]),
  'ct.bootstrap': (op, operands, { parameters }) =>
    bootstrapped(ct(operands, 0), op.attrs.rangeLog2 as number, parameters),
  'ct.reinterpret': (op, operands) => {
    const factor = op.attrs.factor as number;
    const a = ct(operands, 0);
    return mapParts(a, a.axes, (part) => part.map((vector) => vector.map((value) => value * factor)));
  },
  'ct.zero': (op, _, { slots }) => {
    const axes = op.attrs.axes as unknown as readonly Axis[];
    const zero = new Float64Array(slots);
    return { kind: 'ct', axes, re: new Array<Float64Array>(axesCount(axes)).fill(zero), im: null };
  },
};

function ct(operands: readonly RuntimeValue[], index: number): CipherValue {
  const value = defined(operands[index], `operand ${index}`);
  invariant(value.kind === 'ct', `operand ${index} is not a ciphertext array`);
  return value;
}

function pt(operands: readonly RuntimeValue[], index: number): PlainArray {
  const value = defined(operands[index], `operand ${index}`);
  invariant(value.kind === 'pt', `operand ${index} is not a plaintext array`);
  return value;
}

function mapParts(
  a: CipherValue,
  axes: readonly Axis[],
  map: (part: Vectors) => Float64Array[],
): CipherValue {
  return { kind: 'ct', axes, re: map(a.re), im: a.im === null ? null : map(a.im) };
}

const negated = (vector: Float64Array): Float64Array => vector.map((value) => -value);

function sumOf(x: Float64Array, y: Float64Array, sign: 1 | -1): Float64Array {
  const out = new Float64Array(x.length);
  for (let s = 0; s < out.length; s++) out[s] = (x[s] as number) + sign * (y[s] as number);
  return out;
}

/** a + sign * b, broadcast by axis name. */
function elementwise(a: CipherValue, b: CipherValue, sign: 1 | -1): CipherValue {
  const { axes, left, right } = pairElements(a.axes, b.axes, []);
  const pick = (part: Vectors, index: number): Float64Array => part[index] as Float64Array;
  const combine = (x: Vectors, y: Vectors): Float64Array[] =>
    Array.from(left, (l, o) => sumOf(pick(x, l), pick(y, right[o] as number), sign));
  const re = combine(a.re, b.re);
  const { im } = a;
  if (b.im === null) return { kind: 'ct', axes, re, im: im && Array.from(left, (l) => pick(im, l)) };
  const zero = new Float64Array(re[0]?.length ?? 0);
  return { kind: 'ct', axes, re, im: combine(im ?? a.re.map(() => zero), b.im) };
}

/** A plaintext array as a full value, for sums. */
function expanded(p: PlainArray, slots: number): CipherValue {
  const fill = (vector: Float64Array): Float64Array => {
    if (vector.length === slots) return vector;
    const out = new Float64Array(slots);
    for (let base = 0; base < slots; base += vector.length) out.set(vector, base);
    return out;
  };
  const elements = Array.from({ length: axesCount(p.axes) }, (_, e) => e);
  const im = p.complex ? elements.map((e) => fill(p.im(e) ?? new Float64Array(1))) : null;
  return { kind: 'ct', axes: p.axes, re: elements.map((e) => fill(p.re(e))), im };
}

function contract(a: CipherValue, p: PlainArray, over: readonly string[]): CipherValue {
  const pairing = pairElements(a.axes, p.axes, over);
  const slots = a.re[0]?.length ?? 0;
  const zeros = (): Float64Array[] =>
    Array.from({ length: axesCount(pairing.axes) }, () => new Float64Array(slots));
  const real = { period: p.period, element: (e: number) => p.re(e) };
  const imaginary = { period: p.period, element: (e: number) => p.im(e) ?? new Float64Array(p.period) };
  const re = zeros();
  accumulatePeriodic(re, pairing, a.re, real, 1);
  if (a.im === null && !p.complex) return { kind: 'ct', axes: pairing.axes, re, im: null };
  const im = zeros();
  if (a.im !== null) accumulatePeriodic(im, pairing, a.im, real, 1);
  if (p.complex) {
    accumulatePeriodic(im, pairing, a.re, imaginary, 1);
    if (a.im !== null) accumulatePeriodic(re, pairing, a.im, imaginary, -1);
  }
  return { kind: 'ct', axes: pairing.axes, re, im };
}

function multiply(a: CipherValue, b: CipherValue, over: readonly string[]): CipherValue {
  const pairing = pairElements(a.axes, b.axes, over);
  const slots = a.re[0]?.length ?? 0;
  const zeros = (): Float64Array[] =>
    Array.from({ length: axesCount(pairing.axes) }, () => new Float64Array(slots));
  const re = zeros();
  accumulateProducts(re, pairing, a.re, b.re, 1);
  if (a.im === null && b.im === null) return { kind: 'ct', axes: pairing.axes, re, im: null };
  const im = zeros();
  if (a.im !== null && b.im !== null) accumulateProducts(re, pairing, a.im, b.im, -1);
  if (a.im !== null) accumulateProducts(im, pairing, a.im, b.re, 1);
  if (b.im !== null) accumulateProducts(im, pairing, a.re, b.im, 1);
  return { kind: 'ct', axes: pairing.axes, re, im };
}

function rotateEach(op: Op, operands: readonly RuntimeValue[], { iteration }: OpContext): CipherValue {
  const a = ct(operands, 0);
  const steps = op.attrs.steps as readonly number[];
  const stride = iteration * ((op.attrs.loopStride as number | undefined) ?? 0);
  const { inner } = axisExtent(a.axes, op.attrs.axis as string);
  const rotated = mapParts(a, a.axes, (part) =>
    part.map((vector, e) => {
      return rotateLeft(vector, defined(steps[Math.floor(e / inner) % steps.length], 'step') + stride);
    }),
  );
  return op.attrs.sum === true ? sumAxis(rotated, op.attrs.axis as string) : rotated;
}

function sumAxis(a: CipherValue, name: string): CipherValue {
  const axes = withoutAxes(a.axes, [name]);
  const { size } = axisExtent(a.axes, name);
  const order = elementIndices([...axes, { name, size }], a.axes);
  return mapParts(a, axes, (part) =>
    Array.from({ length: axesCount(axes) }, (_, o) => {
      const sum = (part[order[o * size] as number] as Float64Array).slice();
      for (let k = 1; k < size; k++) {
        const term = part[order[o * size + k] as number] as Float64Array;
        for (let s = 0; s < sum.length; s++) sum[s] = (sum[s] as number) + (term[s] as number);
      }
      return sum;
    }),
  );
}

/** Indices start .. start+count-1 of an axis, as an array with the axes given. */
function selected(
  a: CipherValue,
  axes: readonly Axis[],
  name: string,
  start: number,
  count: number,
): CipherValue {
  const { size, inner } = axisExtent(a.axes, name);
  invariant(start >= 0 && start + count <= size, `indices ${start}..${start + count - 1} leave axis ${name}`);
  return mapParts(a, axes, (part) =>
    part.filter((_, e) => {
      const index = Math.floor(e / inner) % size;
      return index >= start && index < start + count;
    }),
  );
}

function concat(op: Op, operands: readonly RuntimeValue[]): CipherValue {
  const name = op.attrs.axis as string;
  const parts = operands.map((_, i) => ct(operands, i));
  const first = defined(parts[0], 'first part');
  const extents = parts.map((part) => axisExtent(part.axes, name));
  const size = extents.reduce((sum, extent) => sum + extent.size, 0);
  const { outer, inner } = axisExtent(first.axes, name);
  const zero = new Float64Array(first.re[0]?.length ?? 0);
  const join = (arrays: readonly Vectors[]): Float64Array[] =>
    Array.from({ length: outer }, (_, o) =>
      arrays.flatMap((array, i) => {
        const block = (extents[i]?.size ?? 0) * inner;
        return array.slice(o * block, (o + 1) * block);
      }),
    ).flat();
  return {
    kind: 'ct',
    axes: first.axes.map((axis) => (axis.name === name ? { ...axis, size } : axis)),
    re: join(parts.map((part) => part.re)),
    im: parts.every((part) => part.im === null)
      ? null
      : join(parts.map((part) => part.im ?? part.re.map(() => zero))),
  };
}

function polynomial(a: CipherValue, coefficients: readonly number[]): CipherValue {
  if (a.im === null) return { ...a, re: a.re.map((vector) => chebyshevReal(coefficients, vector)) };
  const im = a.im;
  const values = a.re.map((vector, e) => chebyshevComplex(coefficients, vector, im[e] as Float64Array));
  return { ...a, re: values.map((value) => value.re), im: values.map((value) => value.im) };
}

/**
 * EvalMod takes coefficients, here the real and imaginary parts of slots, to a sine instead of the remainder
 * modulo q_0 (DESIGN section 3).
 */
function bootstrapped(a: CipherValue, rangeLog2: number, parameters: Parameters | null): CipherValue {
  if (parameters === null) return a;
  const model = evalModModel(parameters, rangeLog2);
  return mapParts(a, a.axes, (part) => part.map((vector) => vector.map(model)));
}
