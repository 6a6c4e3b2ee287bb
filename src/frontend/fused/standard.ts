/** Operators of ONNX itself that are products with constant matrices, or normalisations of rows. */
import { elementCount, type Tensor } from '../model.js';
import { int64s, type ExpansionBuilder } from './builder.js';

/** Row-major [rows, columns] of the element type of input 0. */
function matrix(b: ExpansionBuilder, rows: number, columns: number, data: Float64Array): Tensor {
  return { dtype: b.dtype(0), shape: [rows, columns], data };
}

function exchanged(rank: number, a: number, c: number): number[] {
  const perm = Array.from({ length: rank }, (_, d) => d);
  [perm[a], perm[c]] = [c, a];
  return perm;
}

/** x times weight^T along one axis, weight [out, in]. */
export function alongAxis(
  b: ExpansionBuilder,
  x: string,
  rank: number,
  axis: number,
  weight: Float64Array,
  outputs: number,
): string {
  const inputs = weight.length / outputs;
  const turned = new Float64Array(weight.length);
  for (let o = 0; o < outputs; o++) {
    for (let i = 0; i < inputs; i++) turned[i * outputs + o] = weight[o * inputs + i] as number;
  }
  const perm = exchanged(rank, axis, rank - 1);
  const last = axis === rank - 1;
  const moved = last ? x : b.step('Transpose', [x], { perm });
  const product = b.step('MatMul', [moved, matrix(b, inputs, outputs, turned)]);
  return last ? product : b.step('Transpose', [product], { perm });
}

/** Rows of a group are normalised; then a factor and an addend for each channel. */
function normalized(b: ExpansionBuilder, groups: number): void {
  const shape = b.shape(0);
  const [items = 1, channels = 1] = shape;
  if (shape.length < 2 || channels % groups !== 0) return b.fail(`${channels} channels in ${groups} groups`);
  const width = elementCount(shape) / Math.max(items * groups, 1);
  const rows = b.step('Reshape', [b.input(0), int64s(items, groups, width)]);
  const ones: Tensor = { dtype: b.dtype(0), shape: [width], data: new Float64Array(width).fill(1) };
  const epsilon = b.number('epsilon', 1e-5);
  const own = b.step('LayerNormalization', [rows, ones], { axis: -1, epsilon });
  const whole = b.step('Reshape', [own, int64s(...shape)]);
  const parameter = (index: number): string => {
    const count = elementCount(b.shape(index));
    if (count !== channels && count !== groups) return b.fail(`input ${index} has ${count} values`);
    const column = b.step('Reshape', [b.input(index), int64s(count, 1)]);
    const each = b.step('Expand', [column, int64s(count, channels / count)]);
    return b.step('Reshape', [each, int64s(channels, ...shape.slice(2).map(() => 1))]);
  };
  b.result(0, b.step('Add', [b.step('Mul', [whole, parameter(1)]), parameter(2)]));
}

export function instanceNorm(b: ExpansionBuilder): void {
  b.allow('epsilon');
  normalized(b, b.shape(0)[1] ?? 1);
}

/** Parameters are those of groups in opset 18, of channels from 21 on. */
export function groupNorm(b: ExpansionBuilder): void {
  b.allow('epsilon', 'num_groups', 'stash_type');
  normalized(b, b.number('num_groups', 0) || b.fail('num_groups is missing'));
}

/**
 * X[k] = sum_j x[j] exp(-+2 pi i j k / length) as one matrix for real and imaginary parts beside each other;
 * the axis is an attribute in opset 17, an input from 20 on.
 */
export function dft(b: ExpansionBuilder): void {
  b.allow('axis', 'inverse', 'onesided');
  const shape = b.shape(0);
  const [rank, parts] = [shape.length, shape.at(-1) ?? 0];
  const given = b.has(2) ? (b.values(2)[0] ?? 1) : b.number('axis', 1);
  const axis = given < 0 ? given + rank : given;
  const size = shape[axis];
  const length = b.has(1) ? (b.values(1)[0] ?? 0) : (size ?? 0);
  const [inverse, onesided] = [b.number('inverse', 0) !== 0, b.number('onesided', 0) !== 0];
  if (size === undefined || axis >= rank - 1 || (parts !== 1 && parts !== 2) || !(length > 0)) {
    return b.fail(`axis ${given} of [${shape.join(', ')}]`);
  }
  if (inverse && onesided) return b.fail('the inverse of one side');
  const outputs = onesided ? Math.floor(length / 2) + 1 : length;
  const width = 2 * outputs;
  const data = new Float64Array(size * parts * width);
  for (let j = 0; j < Math.min(size, length); j++) {
    for (let k = 0; k < outputs; k++) {
      const angle = ((inverse ? 2 : -2) * Math.PI * ((j * k) % length)) / length;
      const scale = inverse ? 1 / length : 1;
      const [re, im] = [scale * Math.cos(angle), scale * Math.sin(angle)];
      [0, 1].forEach((part) => {
        const row = (j * parts + part) * width;
        if (part === parts) return;
        data[row + k] = part === 0 ? re : -im;
        data[row + outputs + k] = part === 0 ? im : re;
      });
    }
  }
  const perm = exchanged(rank, axis, rank - 2);
  const moved = b.step('Transpose', [b.input(0)], { perm });
  const turned = perm.map((d) => shape[d] ?? 1);
  const flat = b.step('Reshape', [moved, int64s(...turned.slice(0, -2), size * parts)]);
  const product = b.step('MatMul', [flat, matrix(b, size * parts, width, data)]);
  const split = b.step('Reshape', [product, int64s(...turned.slice(0, -2), 2, outputs)]);
  const inner = b.step('Transpose', [split], { perm: exchanged(rank, rank - 2, rank - 1) });
  b.result(0, b.step('Transpose', [inner], { perm }));
}

/** Average of windows, a matrix for each axis. */
export function averagePool(b: ExpansionBuilder): void {
  b.allow('kernel_shape', 'strides', 'pads', 'auto_pad', 'ceil_mode', 'count_include_pad', 'dilations');
  const shape = b.shape(0);
  const dims = shape.length - 2;
  const kernel = b.numbers('kernel_shape') ?? b.fail('kernel_shape is missing');
  const list = (name: string, count: number, fallback: number) =>
    b.numbers(name) ?? Array.from({ length: count }, () => fallback);
  const strides = list('strides', dims, 1);
  const pads = list('pads', 2 * dims, 0);
  const dilated = list('dilations', dims, 1).some((one) => one !== 1);
  const auto = b.text('auto_pad', 'NOTSET');
  if (dims < 1 || kernel.length !== dims || strides.length !== dims || pads.length !== 2 * dims || dilated) {
    return b.fail('a window that does not fit the input');
  }
  if (auto !== 'NOTSET' && auto !== 'VALID') return b.fail(`auto_pad ${auto}`);
  const windows = {
    included: b.number('count_include_pad', 0) !== 0,
    ceiled: b.number('ceil_mode', 0) !== 0,
  };
  let x = b.input(0);
  for (let d = 0; d < dims; d++) {
    const [size = 0, window = 0, stride = 0] = [shape[d + 2], kernel[d], strides[d]];
    const ends = [pads[d] ?? 0, pads[d + dims] ?? 0] as const;
    const { weight, outputs } = averages({ size, window, stride, ends, ...windows });
    if (!(outputs > 0)) return b.fail('a window that does not fit the input');
    if (window === 1 && stride === 1 && ends[0] + ends[1] === 0) continue;
    x = alongAxis(b, x, dims + 2, d + 2, weight, outputs);
  }
  b.result(0, x);
}

interface Windows {
  readonly size: number;
  readonly window: number;
  readonly stride: number;
  readonly ends: readonly [number, number];
  /** Padding counts in the average. */
  readonly included: boolean;
  /** A last window may reach beyond the end. */
  readonly ceiled: boolean;
}

function averages({ size, window, stride, ends, included, ceiled }: Windows): {
  weight: Float64Array;
  outputs: number;
} {
  const [before, after] = ends;
  const span = (size + before + after - window) / stride;
  let outputs = (ceiled ? Math.ceil(span) : Math.floor(span)) + 1;
  if (!(window > 0 && stride > 0) || !(outputs > 0)) return { weight: new Float64Array(), outputs: 0 };
  // A window must start inside the input or the padding before it.
  if (ceiled && (outputs - 1) * stride >= size + before) outputs--;
  const weight = new Float64Array(outputs * size);
  for (let o = 0; o < outputs; o++) {
    const first = o * stride - before;
    const taps = Array.from({ length: window }, (_, i) => first + i);
    const counted = taps.filter((i) => (included ? i < size + after : i >= 0 && i < size)).length;
    for (const i of taps) if (i >= 0 && i < size) weight[o * size + i] = 1 / counted;
  }
  return { weight, outputs };
}

/** Blocks of pixels become channels. */
export function spaceToDepth(b: ExpansionBuilder): void {
  b.allow('blocksize');
  const [items = 1, channels = 1, height = 1, width = 1] = b.shape(0);
  const size = b.number('blocksize', 0);
  if (b.shape(0).length !== 4 || size < 1 || height % size !== 0 || width % size !== 0) {
    return b.fail(`blocks of ${size}`);
  }
  const cut = b.step('Reshape', [
    b.input(0),
    int64s(items, channels, height / size, size, width / size, size),
  ]);
  const moved = b.step('Transpose', [cut], { perm: [0, 3, 5, 1, 2, 4] });
  const whole = int64s(items, channels * size * size, height / size, width / size);
  b.result(0, b.step('Reshape', [moved, whole]));
}

/** Channels become blocks of pixels: `DCR` has the block outermost among the channels, `CRD` innermost. */
export function depthToSpace(b: ExpansionBuilder): void {
  b.allow('blocksize', 'mode');
  const [items = 1, channels = 1, height = 1, width = 1] = b.shape(0);
  const size = b.number('blocksize', 0);
  const depth = channels / (size * size);
  if (b.shape(0).length !== 4 || size < 1 || !Number.isInteger(depth)) return b.fail(`blocks of ${size}`);
  const outermost = b.text('mode', 'DCR') === 'DCR';
  const own = outermost ? [size, size, depth] : [depth, size, size];
  const cut = b.step('Reshape', [b.input(0), int64s(items, ...own, height, width)]);
  const perm = outermost ? [0, 3, 4, 1, 5, 2] : [0, 1, 4, 2, 5, 3];
  const moved = b.step('Transpose', [cut], { perm });
  b.result(0, b.step('Reshape', [moved, int64s(items, depth, height * size, width * size)]));
}
