/** Data movement: every element of the result is one element of input 0, or zero. */
import { defined } from '../../support/invariant.js';
import { elementCount } from '../model.js';
import {
  affineIndex,
  broadcastShape,
  broadcastStrides,
  stridesOf,
  take,
  type Call,
  type Kernel,
} from './call.js';

const identity: Kernel = (call) => [call.move(call.input(0).shape, null)];

const reshape: Kernel = (call) => {
  const from = call.input(0).shape;
  const wanted = call.ints(1);
  const allowZero = call.int('allowzero', 0) !== 0;
  const sizes = wanted.map((size, d) =>
    size === 0 && !allowZero ? (from[d] ?? call.fail('0 copies no dimension')) : size,
  );
  const known = sizes.filter((size) => size !== -1).reduce((a, b) => a * b, 1);
  const count = elementCount(from);
  const holes = sizes.filter((size) => size === -1).length;
  const shape = sizes.map((size) => (size === -1 ? count / known : size));
  if (holes > 1 || elementCount(shape) !== count) {
    return call.fail(`[${from.join(', ')}] does not fill [${wanted.join(', ')}]`);
  }
  return [call.move(shape, null)];
};

const flatten: Kernel = (call) => {
  const { shape } = call.input(0);
  const axis = call.int('axis', 1);
  const cut = axis === shape.length ? axis : call.axis(axis, shape.length);
  return [call.move([elementCount(shape.slice(0, cut)), elementCount(shape.slice(cut))], null)];
};

const squeeze: Kernel = (call) => {
  const { shape } = call.input(0);
  const listed = call.intListOrInput('axes', 1);
  const axes = listed === undefined ? undefined : call.axes(listed, shape.length);
  const gone = (d: number) => (axes === undefined ? shape[d] === 1 : axes.includes(d));
  if (axes?.some((d) => shape[d] !== 1) === true) {
    return call.fail(`[${shape.join(', ')}] has more than one element there`);
  }
  return [
    call.move(
      shape.filter((_, d) => !gone(d)),
      null,
    ),
  ];
};

const unsqueeze: Kernel = (call) => {
  const { shape } = call.input(0);
  const listed = call.intListOrInput('axes', 1) ?? call.fail('axes are missing');
  const axes = call.axes(listed, shape.length + listed.length);
  let next = 0;
  const size = (d: number) => (axes.includes(d) ? 1 : defined(shape[next++], 'size'));
  return [
    call.move(
      Array.from({ length: shape.length + axes.length }, (_, d) => size(d)),
      null,
    ),
  ];
};

const transpose: Kernel = (call) => {
  const { shape } = call.input(0);
  const perm = call.intList('perm') ?? shape.map((_, d) => shape.length - 1 - d);
  const axes = call.axes(perm, shape.length);
  if (axes.length !== shape.length) {
    return call.fail(`perm [${perm.join(', ')}] of ${shape.length} dimensions`);
  }
  const strides = stridesOf(shape);
  const result = axes.map((d) => defined(shape[d], 'size'));
  // Moving dimensions of size one changes nothing in memory.
  const moved = axes.filter((d) => shape[d] !== 1);
  const still = moved.every((d, i) => i === 0 || d > defined(moved[i - 1], 'axis'));
  return [
    call.move(
      result,
      still
        ? null
        : () =>
            affineIndex(
              result,
              axes.map((d) => strides[d] ?? 1),
            ),
    ),
  ];
};

const expand: Kernel = (call) => {
  const { shape } = call.input(0);
  const result = broadcastShape(call, shape, call.shape(call.ints(1)));
  const same = elementCount(result) === elementCount(shape);
  return [call.move(result, same ? null : () => affineIndex(result, broadcastStrides(shape, result)))];
};

const tile: Kernel = (call) => {
  const { shape } = call.input(0);
  const repeats = call.ints(1);
  if (repeats.length !== shape.length) return call.fail('one repeat a dimension expected');
  const result = call.shape(shape.map((size, d) => size * (repeats[d] ?? 1)));
  const strides = stridesOf(shape);
  const doubled = shape.flatMap((size, d) => [repeats[d] ?? 1, size]);
  return [
    call.move(result, () =>
      affineIndex(
        doubled,
        strides.flatMap((stride) => [0, stride]),
      ),
    ),
  ];
};

/** Start, count and step of one dimension under ONNX slicing rules (clamped, negative steps run down). */
function sliceRange(call: Call, size: number, start: number, end: number, step: number): [number, number] {
  if (step === 0) return call.fail('step 0');
  const clamp = (value: number, low: number, high: number) => Math.min(Math.max(value, low), high);
  const from = clamp(start < 0 ? start + size : start, 0, step > 0 ? size : size - 1);
  const to = clamp(end < 0 ? end + size : end, step > 0 ? 0 : -1, size);
  return [from, Math.max(0, Math.ceil((to - from) / step))];
}

const slice: Kernel = (call) => {
  const { shape } = call.input(0);
  const starts = call.ints(1);
  const ends = call.ints(2);
  const axes = call.axes(call.has(3) ? call.ints(3) : starts.map((_, d) => d), shape.length);
  const steps = call.has(4) ? call.ints(4) : starts.map(() => 1);
  if (ends.length !== starts.length || axes.length !== starts.length || steps.length !== starts.length) {
    return call.fail('starts, ends, axes and steps differ in length');
  }
  const strides = stridesOf(shape);
  const result = [...shape];
  const jumps = [...strides];
  let offset = 0;
  axes.forEach((d, i) => {
    const step = steps[i] ?? 1;
    const [from, count] = sliceRange(call, shape[d] ?? 0, starts[i] ?? 0, ends[i] ?? 0, step);
    result[d] = count;
    offset += from * (strides[d] ?? 1);
    jumps[d] = (strides[d] ?? 1) * step;
  });
  const same = result.every((size, d) => size === shape[d] && jumps[d] === strides[d]);
  return [call.move(result, same ? null : () => affineIndex(result, jumps, offset))];
};

const split: Kernel = (call) => {
  const { shape } = call.input(0);
  const axis = call.axis(call.int('axis', 0), shape.length);
  const size = defined(shape[axis], 'size');
  const parts = call.node.outputs.length;
  const even = Math.ceil(size / parts);
  const sizes =
    call.intListOrInput('split', 1)
    ?? Array.from({ length: parts }, (_, i) => Math.min(even, size - i * even));
  if (sizes.length !== parts || sizes.some((s) => s < 0) || sizes.reduce((a, b) => a + b, 0) !== size) {
    return call.fail(`[${sizes.join(', ')}] does not split ${size} into ${parts}`);
  }
  const strides = stridesOf(shape);
  let start = 0;
  return sizes.map((count) => {
    const offset = start * (strides[axis] ?? 1);
    start += count;
    const result = shape.map((own, d) => (d === axis ? count : own));
    return call.move(result, () => affineIndex(result, strides, offset));
  });
};

const gather: Kernel = (call) => {
  const { shape } = call.input(0);
  const axis = call.axis(call.int('axis', 0), shape.length);
  const size = defined(shape[axis], 'size');
  const picked = call.input(1);
  const result = call.shape([...shape.slice(0, axis), ...picked.shape, ...shape.slice(axis + 1)]);
  const rowsOf = () => {
    const rows = call.ints(1).map((row) => (row < 0 ? row + size : row));
    return rows.some((row) => row < 0 || row >= size) ? call.fail(`index outside ${size} elements`) : rows;
  };
  if (picked.data !== null) rowsOf();
  const index = () => {
    const rows = rowsOf();
    const outer = elementCount(shape.slice(0, axis));
    const inner = elementCount(shape.slice(axis + 1));
    const out = new Int32Array(outer * rows.length * inner);
    let next = 0;
    for (let o = 0; o < outer; o++) {
      for (const row of rows) for (let i = 0; i < inner; i++) out[next++] = (o * size + row) * inner + i;
    }
    return out;
  };
  return [call.move(result, index)];
};

const pad: Kernel = (call) => {
  const { shape } = call.input(0);
  const rank = shape.length;
  const listed = call.intListOrInput('pads', 1) ?? call.fail('pads are missing');
  const axes = call.has(3) ? call.axes(call.ints(3), rank) : shape.map((_, d) => d);
  if (call.string('mode', 'constant') !== 'constant') return call.fail('only mode constant is known');
  const given = call.has(2) && call.input(2).data !== null && elementCount(call.input(2).shape) > 0;
  const value = given ? call.tensor(2).data[0] : (call.int('value') ?? 0);
  if (listed.length !== 2 * axes.length) return call.fail('two pads a dimension expected');
  const begin = shape.map((_, d) => (axes.includes(d) ? (listed[axes.indexOf(d)] ?? 0) : 0));
  const end = shape.map((_, d) => (axes.includes(d) ? (listed[axes.length + axes.indexOf(d)] ?? 0) : 0));
  const result = call.shape(shape.map((size, d) => size + (begin[d] ?? 0) + (end[d] ?? 0)));
  const index = () => {
    const out = new Int32Array(elementCount(result)).fill(-1);
    const [from, to] = [stridesOf(shape), stridesOf(result)];
    const source = affineIndex(shape, from);
    const offset = begin.reduce((sum, size, d) => sum + size * (to[d] ?? 1), 0);
    const target = affineIndex(shape, to, offset);
    if (begin.some((size) => size < 0) || end.some((size) => size < 0)) return call.fail('negative pads');
    for (let i = 0; i < source.length; i++) out[target[i] as number] = source[i] as number;
    return out;
  };
  const moved = call.move(result, index);
  if (value === undefined || Number(value) === 0) return [moved];
  return [
    call.output(moved.dtype, result, (out) => {
      out.set(moved.data() as never);
      index().forEach((from, i) => {
        if (from < 0) out[i] = value;
      });
    }),
  ];
};

/** Keeps one triangle of the last two dimensions. */
const trilu: Kernel = (call) => {
  const { shape } = call.input(0);
  const [rows, columns] = [shape.at(-2) ?? call.fail('needs two dimensions'), shape.at(-1) ?? 1];
  const k = call.has(1) ? call.scalar(1) : 0;
  const upper = call.int('upper', 1) !== 0;
  return [
    call.move(shape, () =>
      Int32Array.from({ length: elementCount(shape) }, (_, i) => {
        const distance = (i % columns) - (Math.floor(i / columns) % rows);
        return (upper ? distance >= k : distance <= k) ? i : -1;
      }),
    ),
  ];
};

/** Several sources, so not a movement of input 0; the canonicaliser treats it on its own. */
const concat: Kernel = (call) => {
  const shapes = call.inputs.map((_, i) => call.input(i).shape);
  const first = shapes[0] ?? call.fail('no inputs');
  const axis = call.axis(call.int('axis') ?? call.fail('axis is missing'), first.length);
  const agree = shapes.every(
    (s) => s.length === first.length && s.every((size, d) => d === axis || size === first[d]),
  );
  if (!agree) return call.fail('shapes differ outside the axis');
  const total = shapes.reduce((sum, s) => sum + (s[axis] ?? 0), 0);
  const result = first.map((size, d) => (d === axis ? total : size));
  const outer = elementCount(first.slice(0, axis));
  return [
    call.output(call.input(0).dtype, result, (out) => {
      const row = out.length / Math.max(outer, 1);
      let offset = 0;
      shapes.forEach((shape, i) => {
        const { data } = call.tensor(i);
        if (data instanceof BigInt64Array !== out instanceof BigInt64Array) call.fail('element types differ');
        const width = elementCount(shape.slice(axis));
        for (let o = 0; o < outer; o++) {
          const part = data.subarray(o * width, (o + 1) * width) as Float64Array;
          (out as Float64Array).set(part, o * row + offset);
        }
        offset += width;
      });
    }),
  ];
};

const gatherElements: Kernel = (call) => {
  const { shape } = call.input(0);
  const picked = call.input(1).shape;
  const axis = call.axis(call.int('axis', 0), shape.length);
  if (picked.length !== shape.length) return call.fail('indices have another rank');
  if (picked.some((size, d) => d !== axis && size > (shape[d] ?? 0))) {
    return call.fail('indices are larger than the data');
  }
  return [
    call.move(picked, () => {
      const size = shape[axis] ?? 1;
      const stride = stridesOf(shape)[axis] ?? 1;
      const base = affineIndex(
        picked,
        stridesOf(shape).map((s, d) => (d === axis ? 0 : s)),
      );
      return Int32Array.from(call.ints(1), (row, i) => {
        const own = row < 0 ? row + size : row;
        return own < 0 || own >= size
          ? call.fail(`index outside ${size} elements`)
          : (base[i] as number) + own * stride;
      });
    }),
  ];
};

const gatherNd: Kernel = (call) => {
  const { shape } = call.input(0);
  const picked = call.input(1).shape;
  const batch = call.int('batch_dims', 0);
  const depth = picked.at(-1) ?? call.fail('indices are a scalar');
  if (batch < 0 || batch >= picked.length || batch + depth > shape.length) {
    return call.fail('indices are too deep');
  }
  const result = [...picked.slice(0, -1), ...shape.slice(batch + depth)];
  return [
    call.move(result, () => {
      const strides = stridesOf(shape);
      const inner = elementCount(shape.slice(batch + depth));
      const batches = elementCount(picked.slice(0, batch));
      const indices = call.ints(1);
      const tuples = depth === 0 ? 0 : indices.length / depth;
      const out = new Int32Array(tuples * inner);
      for (let t = 0; t < tuples; t++) {
        let base = Math.floor(t / (tuples / batches)) * elementCount(shape.slice(batch));
        for (let j = 0; j < depth; j++) {
          const size = shape[batch + j] ?? 0;
          const own = indices[t * depth + j] as number;
          if (own < -size || own >= size) return call.fail(`index outside ${size} elements`);
          base += (own < 0 ? own + size : own) * (strides[batch + j] ?? 1);
        }
        for (let i = 0; i < inner; i++) out[t * inner + i] = base + i;
      }
      return out;
    }),
  ];
};

const scatterNd: Kernel = (call) => {
  const { shape, dtype } = call.input(0);
  const depth = call.input(1).shape.at(-1) ?? call.fail('indices are a scalar');
  if (call.string('reduction', 'none') !== 'none' || depth > shape.length) return call.fail('unknown form');
  if (call.input(2).dtype !== dtype) return call.fail('updates have another element type');
  const inner = elementCount(shape.slice(depth));
  return [
    call.output(dtype, shape, (out) => {
      const target = out as Float64Array;
      const updates = call.tensor(2).data as Float64Array;
      target.set(take(call.tensor(0).data, affineIndex(shape, stridesOf(shape))) as Float64Array);
      const indices = call.ints(1);
      const strides = stridesOf(shape);
      for (let t = 0; t * depth < indices.length && depth > 0; t++) {
        let base = 0;
        for (let j = 0; j < depth; j++) {
          const size = shape[j] ?? 0;
          const own = indices[t * depth + j] as number;
          if (own < -size || own >= size) return call.fail(`index outside ${size} elements`);
          base += (own < 0 ? own + size : own) * (strides[j] ?? 1);
        }
        target.set(updates.subarray(t * inner, (t + 1) * inner), base);
      }
      return undefined;
    }),
  ];
};

export const movementKernels: Readonly<Record<string, Kernel>> = {
  Identity: identity,
  Dropout: (call) => identity(call).slice(0, 1),
  Reshape: reshape,
  Flatten: flatten,
  Squeeze: squeeze,
  Unsqueeze: unsqueeze,
  Transpose: transpose,
  Expand: expand,
  Tile: tile,
  Slice: slice,
  Split: split,
  Gather: gather,
  Pad: pad,
  Trilu: trilu,
  GatherElements: gatherElements,
  GatherND: gatherNd,
  Concat: concat,
  ScatterND: scatterNd,
};
