/**
 * Resize (opsets 10 to 23) as a product with one constant matrix for each axis. Coordinates, kernels and
 * antialiasing follow the ONNX operator's definition (its reference implementation, op_resize.py).
 */
import { defined } from '../../support/invariant.js';
import type { ExpansionBuilder } from './builder.js';
import { alongAxis } from './standard.js';

interface Axis {
  readonly from: number;
  readonly to: number;
  readonly scale: number;
}

interface Interpolation {
  readonly mode: string;
  readonly coordinates: string;
  readonly rounding: string;
  readonly cubicA: number;
  readonly antialias: boolean;
  /** Taps outside of the input count nothing, instead of the value at the end. */
  readonly excluding: boolean;
}

export function resize(b: ExpansionBuilder): void {
  b.allow(
    'antialias',
    'axes',
    'coordinate_transformation_mode',
    'cubic_coeff_a',
    'exclude_outside',
    'extrapolation_value',
    'keep_aspect_ratio_policy',
    'mode',
    'nearest_mode',
  );
  // Opset 10 has no region of interest between the value and the scales.
  const old = b.node.inputs.length === 2;
  const form: Interpolation = {
    mode: b.text('mode', 'nearest'),
    coordinates: b.text('coordinate_transformation_mode', old ? 'asymmetric' : 'half_pixel'),
    rounding: b.text('nearest_mode', old ? 'floor' : 'round_prefer_floor'),
    cubicA: b.number('cubic_coeff_a', -0.75),
    antialias: b.number('antialias', 0) !== 0,
    excluding: b.number('exclude_outside', 0) !== 0,
  };
  if (b.text('keep_aspect_ratio_policy', 'stretch') !== 'stretch') return b.fail('keeping the aspect ratio');
  const shape = b.shape(0);
  const axes = (b.numbers('axes') ?? shape.map((_, d) => d)).map((d) => (d < 0 ? d + shape.length : d));
  const sizes = b.has(3) ? b.values(3) : [];
  const scales = b.has(old ? 1 : 2) ? b.values(old ? 1 : 2) : [];
  if ((sizes.length === 0 ? scales : sizes).length !== axes.length)
    return b.fail('sizes do not fit the axes');
  let x = b.input(0);
  axes.forEach((d, i) => {
    const from = shape[d] ?? b.fail(`axis ${d}`);
    const to = sizes[i] ?? Math.floor(from * defined(scales[i], 'scale'));
    const axis = { from, to, scale: sizes.length > 0 ? to / from : defined(scales[i], 'scale') };
    if (!(to > 0) || !Number.isFinite(to) || to * from > 2 ** 24) return b.fail(`axis ${d} of size ${to}`);
    if (to === from && axis.scale === 1) return undefined;
    x = alongAxis(b, x, shape.length, d, interpolation(b, axis, form), to);
    return undefined;
  });
  b.result(0, x);
}

/** [to, from] */
function interpolation(b: ExpansionBuilder, axis: Axis, form: Interpolation): Float64Array {
  const { from, to } = axis;
  const weight = new Float64Array(to * from);
  for (let i = 0; i < to; i++) {
    const x = sourceOf(b, axis, form.coordinates, i);
    const row = weight.subarray(i * from, (i + 1) * from);
    for (const [tap, factor] of tapsAt(b, x, axis, form)) {
      const at = Math.min(Math.max(tap, 0), from - 1);
      row[at] = (row[at] as number) + factor;
    }
  }
  return weight;
}

/** Where element i of the result lies in the input. */
function sourceOf(b: ExpansionBuilder, { from, to, scale }: Axis, coordinates: string, i: number): number {
  const half = (i + 0.5) / scale - 0.5;
  switch (coordinates) {
    case 'half_pixel':
      return half;
    case 'pytorch_half_pixel':
      return to > 1 ? half : 0;
    case 'half_pixel_symmetric':
      return (from / 2) * (1 - to / (scale * from)) + half;
    case 'align_corners':
      return to === 1 ? 0 : (i * (from - 1)) / (to - 1);
    case 'asymmetric':
      return i / scale;
    default:
      return b.fail(`coordinate_transformation_mode ${coordinates}`);
  }
}

function nearest(b: ExpansionBuilder, x: number, rounding: string): number {
  switch (rounding) {
    case 'round_prefer_floor':
      return Math.ceil(x - 0.5);
    case 'round_prefer_ceil':
      return Math.floor(x + 0.5);
    case 'floor':
      return Math.floor(x);
    case 'ceil':
      return Math.ceil(x);
    default:
      return b.fail(`nearest_mode ${rounding}`);
  }
}

/** Elements of the input and their factors. */
function tapsAt(b: ExpansionBuilder, x: number, axis: Axis, form: Interpolation): [number, number][] {
  if (form.mode === 'nearest') return [[nearest(b, x, form.rounding), 1]];
  if (form.mode !== 'linear' && form.mode !== 'cubic') return b.fail(`mode ${form.mode}`);
  const linear = form.mode === 'linear';
  const kernel = linear ? (t: number) => Math.max(0, 1 - Math.abs(t)) : cubic(form.cubicA);
  const squeeze = form.antialias ? Math.min(axis.scale, 1) : 1;
  const reach = Math.ceil((linear ? 1 : 2) / squeeze);
  const first = Math.floor(x) - reach + 1;
  const taps = Array.from({ length: 2 * reach }, (_, k): [number, number] => [
    first + k,
    kernel(squeeze * (first + k - x)),
  ]);
  const used = form.excluding ? taps.filter(([tap]) => tap >= 0 && tap < axis.from) : taps;
  const total = form.excluding || form.antialias ? used.reduce((sum, [, factor]) => sum + factor, 0) : 1;
  return used.map(([tap, factor]) => [tap, factor / total]);
}

/** Keys' cubic convolution kernel with parameter a. */
function cubic(a: number): (t: number) => number {
  return (signed) => {
    const t = Math.abs(signed);
    if (t <= 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
    return t < 2 ? ((a * t - 5 * a) * t + 8 * a) * t - 4 * a : 0;
  };
}
