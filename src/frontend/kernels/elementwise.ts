/**
 * Elementwise operators with numpy broadcasting. Integers of 64 bit are computed exactly and wrap like
 * ONNX's.
 */
import { erf, gelu, geluTanh, relu, sigmoid, silu } from '../../support/special-functions.js';
import { containerOf, elementCount, isBig, isFloat, type Data, type DType, type Tensor } from '../model.js';
import { elementType } from '../protobuf.js';
import {
  asNumbers,
  broadcastIndex,
  broadcastShape,
  take,
  type Call,
  type Kernel,
  type Output,
} from './call.js';

type Real = (x: number) => number;

function unary(f: Real, big?: (x: bigint) => bigint): Kernel {
  return (call) => {
    const { dtype, shape } = call.input(0);
    if (isBig(dtype)) {
      const exact = big ?? call.fail(`not defined on ${dtype}`);
      return [
        call.output(dtype, shape, (out) => {
          (call.tensor(0).data as BigInt64Array).forEach((x, i) => (out[i] = BigInt.asIntN(64, exact(x))));
        }),
      ];
    }
    return [
      call.output(dtype, shape, (out) => {
        const x = call.numbers(0);
        const target = out as Float64Array;
        for (let i = 0; i < target.length; i++) target[i] = f(x[i] as number);
      }),
    ];
  };
}

/** Functions of one variable; the pattern matcher evaluates candidates with the same table. */
export const realFunctions: Readonly<Record<string, Real>> = {
  Exp: Math.exp,
  Log: Math.log,
  Sqrt: Math.sqrt,
  Erf: erf,
  Tanh: Math.tanh,
  Sigmoid: sigmoid,
  Relu: relu,
  Reciprocal: (x) => 1 / x,
  Floor: Math.floor,
  Ceil: Math.ceil,
  Cos: Math.cos,
  Sin: Math.sin,
  Softplus: (x) => Math.log1p(Math.exp(-Math.abs(x))) + relu(x),
  Softsign: (x) => x / (1 + Math.abs(x)),
  Round: (x) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x)),
};

const gelus: Kernel = (call) => {
  const form = call.string('approximate', 'none');
  if (form !== 'none' && form !== 'tanh') return call.fail(`approximate "${form}"`);
  return unary(form === 'tanh' ? geluTanh : gelu)(call);
};

interface Binary {
  readonly real: (x: number, y: number) => number;
  readonly big?: (x: bigint, y: bigint) => bigint;
}

function bigMod(x: bigint, y: bigint): bigint {
  const rest = x % y;
  return rest !== 0n && rest < 0n !== y < 0n ? rest + y : rest;
}

const binaries: Readonly<Record<string, Binary>> = {
  Add: { real: (x, y) => x + y, big: (x, y) => x + y },
  Sub: { real: (x, y) => x - y, big: (x, y) => x - y },
  Mul: { real: (x, y) => x * y, big: (x, y) => x * y },
  Div: { real: (x, y) => x / y, big: (x, y) => x / y },
  Pow: { real: Math.pow, big: (x, y) => (y < 0n || y > 64n ? 0n : x ** y) },
  Min: { real: Math.min, big: (x, y) => (x < y ? x : y) },
  Max: { real: Math.max, big: (x, y) => (x > y ? x : y) },
  Mod: { real: (x, y) => x - y * Math.floor(x / y), big: bigMod },
};

const comparisons: Readonly<Record<string, (x: number | bigint, y: number | bigint) => boolean>> = {
  Equal: (x, y) => x === y,
  Less: (x, y) => x < y,
  LessOrEqual: (x, y) => x <= y,
  Greater: (x, y) => x > y,
  GreaterOrEqual: (x, y) => x >= y,
  And: (x, y) => x !== 0 && y !== 0,
  Or: (x, y) => x !== 0 || y !== 0,
  Xor: (x, y) => (x !== 0) !== (y !== 0),
};

/** Input data repeated to the broadcast shape, in its own container. */
function spread(tensor: Tensor, shape: readonly number[]): Data {
  const index = broadcastIndex(tensor.shape, shape);
  return index === null ? tensor.data : take(tensor.data, index);
}

/** Numbers of both operands without copying scalars out; `step` 0 repeats the first. */
function operand(
  tensor: Tensor,
  shape: readonly number[],
): { readonly x: ArrayLike<number>; readonly step: 0 | 1 } {
  if (tensor.data.length === 1) return { x: asNumbers(tensor), step: 0 };
  return { x: asNumbers({ ...tensor, data: spread(tensor, shape) }), step: 1 };
}

function applyBinary(
  call: Call,
  op: Binary,
  left: Tensor,
  right: Tensor,
  shape: readonly number[],
  out: Data,
): void {
  if (out instanceof BigInt64Array) {
    const [x, y] = [spread(left, shape) as BigInt64Array, spread(right, shape) as BigInt64Array];
    const exact = op.big ?? call.fail('not defined on integers');
    const divides = call.node.opType === 'Div' || call.node.opType === 'Mod';
    for (let i = 0; i < out.length; i++) {
      if (divides && y[i] === 0n) call.fail('division by zero');
      out[i] = BigInt.asIntN(64, exact(x[i] as bigint, y[i] as bigint));
    }
    return;
  }
  const a = operand(left, shape);
  const b = operand(right, shape);
  const { real } = op;
  const whole = out instanceof Int32Array && call.node.opType === 'Div';
  for (let i = 0; i < out.length; i++) {
    const value = real(a.x[i * a.step] as number, b.x[i * b.step] as number);
    out[i] = whole ? Math.trunc(value) : value;
  }
}

function binary(op: Binary): Kernel {
  return (call) => {
    const [left, right] = [call.input(0), call.input(1)];
    const mixed = call.node.opType === 'Pow';
    if (isBig(left.dtype) !== isBig(right.dtype) && !mixed) {
      call.fail(`operands are ${left.dtype} and ${right.dtype}`);
    }
    const shape = broadcastShape(call, left.shape, right.shape);
    return [
      call.output(left.dtype, shape, (out) => {
        let [a, b] = [call.tensor(0), call.tensor(1)];
        if (isBig(a.dtype) !== isBig(b.dtype)) {
          // Pow may mix; the exponent takes the base's container.
          b = { ...b, data: isBig(a.dtype) ? BigInt64Array.from(call.ints(1), BigInt) : asNumbers(b) };
        }
        if (call.int('fmod', 0) !== 0) {
          applyBinary(call, { real: (x, y) => x % y, big: (x, y) => x % y }, a, b, shape, out);
        } else applyBinary(call, op, a, b, shape, out);
      }),
    ];
  };
}

function compare(f: (x: number | bigint, y: number | bigint) => boolean): Kernel {
  return (call) => {
    const shape = broadcastShape(call, call.input(0).shape, call.input(1).shape);
    return [
      call.output('bool', shape, (out) => {
        const [x, y] = [spread(call.tensor(0), shape), spread(call.tensor(1), shape)];
        const target = out as Uint8Array;
        if (x instanceof BigInt64Array !== y instanceof BigInt64Array) call.fail('element types differ');
        for (let i = 0; i < target.length; i++) target[i] = f(x[i] as number, y[i] as number) ? 1 : 0;
      }),
    ];
  };
}

function test(f: (x: number) => boolean): Kernel {
  return (call) => [
    call.output('bool', call.input(0).shape, (out) => {
      const x = call.numbers(0);
      for (let i = 0; i < x.length; i++) (out as Uint8Array)[i] = f(x[i] as number) ? 1 : 0;
    }),
  ];
}

/** Min and Max take any number of operands. */
/** The sum of all inputs over their number. */
const mean: Kernel = (call) => {
  const [sum] = variadic(binaries.Add as Binary)(call);
  if (sum === undefined) return call.fail('no inputs');
  const data = () => {
    const values = sum.data();
    if (values instanceof BigInt64Array) return call.fail('integers have no mean');
    for (let i = 0; i < values.length; i++) values[i] = (values[i] as number) / call.inputs.length;
    return values;
  };
  return [{ ...sum, data }];
};

function variadic(op: Binary): Kernel {
  return (call) => {
    const shape = broadcastShape(call, ...call.inputs.map((_, i) => call.input(i).shape));
    const { dtype } = call.input(0);
    if (call.inputs.some((_, i) => isBig(call.input(i).dtype) !== isBig(dtype))) {
      call.fail('element types differ');
    }
    return [
      call.output(dtype, shape, (out) => {
        (out as Float64Array).set(spread(call.tensor(0), shape) as Float64Array);
        for (let i = 1; i < call.inputs.length; i++) {
          applyBinary(call, op, { dtype, shape, data: out }, call.tensor(i), shape, out);
        }
      }),
    ];
  };
}

const where: Kernel = (call) => {
  const shape = broadcastShape(call, call.input(0).shape, call.input(1).shape, call.input(2).shape);
  const { dtype } = call.input(1);
  if (isBig(dtype) !== isBig(call.input(2).dtype)) call.fail('element types differ');
  if (call.input(0).dtype !== 'bool') call.fail('the condition is not boolean');
  return [
    call.output(dtype, shape, (out) => {
      const condition = spread(call.tensor(0), shape);
      const [yes, no] = [spread(call.tensor(1), shape), spread(call.tensor(2), shape)] as [
        Float64Array,
        Float64Array,
      ];
      const target = out as Float64Array;
      for (let i = 0; i < target.length; i++) target[i] = (condition[i] ? yes[i] : no[i]) as number;
    }),
  ];
};

/**
 * ONNX Cast: floats truncate towards zero, anything but zero is true. Float16 keeps its range but not its
 * rounding.
 */
export function convert(tensor: Tensor, to: DType): Data {
  const { data } = tensor;
  const out = containerOf(to, data.length);
  if (out instanceof BigInt64Array) {
    if (data instanceof BigInt64Array) return data;
    for (let i = 0; i < out.length; i++) out[i] = BigInt(Math.trunc(finite(data[i] as number)));
    return out;
  }
  const numbers = asNumbers(tensor);
  if (isFloat(tensor.dtype) && isFloat(to) && to !== 'float16') return numbers;
  for (let i = 0; i < out.length; i++) {
    const x = numbers[i] as number;
    if (to === 'bool') out[i] = x === 0 ? 0 : 1;
    else if (to === 'float16') out[i] = Math.abs(x) > 65519 ? Math.sign(x) * Infinity : x;
    else out[i] = isFloat(to) ? x : Math.trunc(finite(x));
  }
  return out;
}

/** What C++ makes of an out-of-range float is undefined; we take the nearest int64 or zero. */
function finite(x: number): number {
  if (Number.isNaN(x)) return 0;
  return Math.min(Math.max(x, -(2 ** 63)), 2 ** 63 - 1024);
}

function castTo(call: Call, dtype: DType): Output {
  const { shape } = call.input(0);
  const source = call.input(0).dtype;
  const data = () => convert(call.tensor(0), dtype);
  // Casts among floats change nothing in the clear: the canonicaliser looks through them.
  if (isFloat(source) && isFloat(dtype)) return { dtype, shape, data, movement: () => null };
  return { dtype, shape, data };
}

const cast: Kernel = (call) => [castTo(call, elementType(call.int('to', 0), 'the result of Cast'))];
const castLike: Kernel = (call) => [castTo(call, call.input(1).dtype)];

/** Bounds are inputs: integers came with opset 12. */
function clipIntegers(call: Call, out: BigInt64Array): void {
  const bound = (index: number): bigint | undefined =>
    call.has(index) ? (call.tensor(index).data as BigInt64Array)[0] : undefined;
  const [low, high] = [bound(1), bound(2)];
  (call.tensor(0).data as BigInt64Array).forEach((value, i) => {
    const raised = low !== undefined && value < low ? low : value;
    out[i] = high !== undefined && raised > high ? high : raised;
  });
}

const clip: Kernel = (call) => {
  const { dtype, shape } = call.input(0);
  return [
    call.output(dtype, shape, (out) => {
      if (out instanceof BigInt64Array) return clipIntegers(call, out);
      const low = call.has(1) ? call.scalar(1) : call.int('min', -Infinity);
      const high = call.has(2) ? call.scalar(2) : call.int('max', Infinity);
      const x = call.numbers(0);
      for (let i = 0; i < x.length; i++) {
        (out as Float64Array)[i] = Math.min(Math.max(x[i] as number, low), high);
      }
    }),
  ];
};

const dequantize: Kernel = (call) => {
  const { shape } = call.input(0);
  const scaleShape = call.input(1).shape;
  const axis = elementCount(scaleShape) === 1 ? 0 : call.axis(call.int('axis', 1), shape.length);
  const blocked = scaleShape.length === shape.length && elementCount(scaleShape) > 1;
  const block = call.int('block_size', 0);
  const wanted = shape.map((size, d) => (d === axis && block > 0 ? Math.ceil(size / block) : size));
  const fits = blocked
    ? block > 0 && scaleShape.join() === wanted.join()
    : scaleShape.length <= 1 && [1, shape[axis] ?? 1].includes(elementCount(scaleShape));
  if (!fits) return call.fail(`a scale [${scaleShape.join(', ')}] for [${shape.join(', ')}]`);
  if (!isFloat(call.input(1).dtype)) return call.fail(`the scale is ${call.input(1).dtype}`);
  const inner = elementCount(shape.slice(axis + 1));
  const size = shape[axis] ?? 1;
  const blocks = blocked ? (scaleShape[axis] ?? 1) : size;
  return [
    call.output(call.input(1).dtype, shape, (out) => {
      const [x, scale] = [call.numbers(0), call.numbers(1)];
      const zero = call.has(2) ? call.numbers(2) : new Float64Array(scale.length);
      for (let i = 0; i < x.length; i++) {
        const along = Math.floor(i / inner) % size;
        const outer = blocked ? Math.floor(i / inner / size) * blocks * inner + (i % inner) : 0;
        const place = blocked ? Math.floor(along / block) * inner : along;
        const c = scale.length === 1 ? 0 : outer + place;
        (out as Float64Array)[i] = ((x[i] as number) - (zero[c] ?? 0)) * (scale[c] as number);
      }
    }),
  ];
};

export const elementwiseKernels: Readonly<Record<string, Kernel>> = {
  ...Object.fromEntries(Object.entries(realFunctions).map(([name, f]) => [name, unary(f)])),
  ...Object.fromEntries(Object.entries(binaries).map(([name, op]) => [name, binary(op)])),
  ...Object.fromEntries(Object.entries(comparisons).map(([name, f]) => [name, compare(f)])),
  Neg: unary(
    (x) => -x,
    (x) => -x,
  ),
  Abs: unary(Math.abs, (x) => (x < 0n ? -x : x)),
  Sign: unary(Math.sign, (x) => (x > 0n ? 1n : x < 0n ? -1n : 0n)),
  Swish: (call) => {
    const alpha = call.int('alpha', 1);
    return unary((x) => silu(alpha * x) / alpha)(call);
  },
  Sum: variadic(binaries.Add as Binary),
  Mean: mean,
  Min: variadic(binaries.Min as Binary),
  Max: variadic(binaries.Max as Binary),
  Gelu: gelus,
  Clip: clip,
  Where: where,
  Cast: cast,
  CastLike: castLike,
  Not: test((x) => x === 0),
  IsNaN: test(Number.isNaN),
  IsInf: test((x) => Math.abs(x) === Infinity),
  DequantizeLinear: dequantize,
};
