/** Operators that make values from attributes, shapes or public numbers. */
import { elementCount, type Attribute, type Data, type DType, type Tensor } from '../model.js';
import type { Call, Kernel, Output } from './call.js';

function constantTensor(call: Call, name: string, value: Attribute): Tensor {
  const big = (values: readonly number[]) => BigInt64Array.from(values, BigInt);
  const list = () => call.intList(name) ?? [];
  switch (name) {
    case 'value':
      return typeof value === 'object' && 'dtype' in value ? value : call.fail('value is not a tensor');
    case 'value_float':
      return { dtype: 'float32', shape: [], data: Float64Array.of(call.int(name, 0)) };
    case 'value_int':
      return { dtype: 'int64', shape: [], data: big([call.int(name, 0)]) };
    case 'value_floats':
      return { dtype: 'float32', shape: [list().length], data: Float64Array.from(list()) };
    case 'value_ints':
      return { dtype: 'int64', shape: [list().length], data: big(list()) };
    default:
      return call.fail(`attribute ${name} is not known`);
  }
}

function given(tensor: Tensor): Output {
  return { dtype: tensor.dtype, shape: tensor.shape, data: () => tensor.data };
}

const constant: Kernel = (call) => {
  const [entry] = call.node.attributes;
  if (entry === undefined) return call.fail('no value');
  return [given(constantTensor(call, entry[0], entry[1]))];
};

const constantOfShape: Kernel = (call) => {
  const value = call.node.attributes.get('value');
  const tensor = value === undefined ? undefined : constantTensor(call, 'value', value);
  const dtype: DType = tensor?.dtype ?? 'float32';
  return [
    call.output(dtype, call.ints(0), (out) => {
      const first = tensor?.data[0] ?? 0;
      if (out instanceof BigInt64Array) out.fill(BigInt(first));
      else out.fill(Number(first));
    }),
  ];
};

const shape: Kernel = (call) => {
  const known = call.input(0).shape;
  const clamp = (value: number) =>
    Math.min(Math.max(value < 0 ? value + known.length : value, 0), known.length);
  const part = known.slice(clamp(call.int('start', 0)), clamp(call.int('end', known.length)));
  return [given({ dtype: 'int64', shape: [part.length], data: BigInt64Array.from(part, BigInt) })];
};

const size: Kernel = (call) => [
  given({ dtype: 'int64', shape: [], data: BigInt64Array.of(BigInt(elementCount(call.input(0).shape))) }),
];

const range: Kernel = (call) => {
  const { dtype } = call.input(0);
  if (call.input(1).dtype !== dtype || call.input(2).dtype !== dtype) {
    return call.fail('element types differ');
  }
  const [start, limit, delta] = [call.scalar(0), call.scalar(1), call.scalar(2)];
  const count = Math.max(0, Math.ceil((limit - start) / delta));
  if (!Number.isFinite(count)) return call.fail('step 0');
  return [
    call.output(dtype, [count], (out) => {
      for (let i = 0; i < count; i++) {
        if (out instanceof BigInt64Array) out[i] = BigInt(start) + BigInt(i) * BigInt(delta);
        else out[i] = start + i * delta;
      }
    }),
  ];
};

/** Its result's shape depends on its input's values, so the input must be public. */
const nonZero: Kernel = (call) => {
  const { shape: from } = call.input(0);
  const { data } = call.tensor(0);
  const hits = Array.from(data as ArrayLike<number | bigint>, (v, i) => (v == 0 ? -1 : i)).filter(
    (i) => i >= 0,
  );
  return [
    call.output('int64', [from.length, hits.length], (out) => {
      let stride = 1;
      for (let d = from.length - 1; d >= 0; d--) {
        const own = from[d] ?? 1;
        hits.forEach((hit, i) => (out[d * hits.length + i] = BigInt(Math.floor(hit / stride) % own)));
        stride *= own;
      }
    }),
  ];
};

const eyeLike: Kernel = (call) => {
  const { shape: from, dtype } = call.input(0);
  if (from.length !== 2 || call.int('dtype') !== undefined) return call.fail('only a plain matrix is known');
  const columns = from[1] ?? 0;
  return [
    call.output(dtype, from, (out) => {
      const k = call.int('k', 0);
      for (let i = 0; i < (from[0] ?? 0); i++) {
        if (i + k < 0 || i + k >= columns) continue;
        const at = i * columns + i + k;
        if (out instanceof BigInt64Array) out[at] = 1n;
        else out[at] = 1;
      }
    }),
  ];
};

const oneHot: Kernel = (call) => {
  const { shape: from } = call.input(0);
  const depth = call.scalar(1);
  const { dtype } = call.input(2);
  const axis = call.axis(call.int('axis', -1), from.length + 1);
  const result = call.shape([...from.slice(0, axis), depth, ...from.slice(axis)]);
  const inner = elementCount(from.slice(axis));
  return [
    call.output(dtype, result, (out) => {
      const values = call.tensor(2).data;
      const [off, on] = [values[0] ?? 0, values[1] ?? 0];
      (out as Float64Array).fill(off as number);
      call.ints(0).forEach((hot, i) => {
        const own = hot < 0 ? hot + depth : hot;
        if (own < 0 || own >= depth) return;
        (out as Data)[(Math.floor(i / inner) * depth + own) * inner + (i % inner)] = on as never;
      });
    }),
  ];
};

export const generateKernels: Readonly<Record<string, Kernel>> = {
  Constant: constant,
  ConstantOfShape: constantOfShape,
  Shape: shape,
  Size: size,
  Range: range,
  NonZero: nonZero,
  EyeLike: eyeLike,
  OneHot: oneHot,
};
