/**
 * One call of an ONNX operator. A kernel is written once: it states the element type and shape of its outputs
 * and, in thunks, how to compute them. Shape inference ignores the thunks, the evaluator calls them.
 */
import { defined } from '../../support/invariant.js';
import {
  containerOf,
  elementCount,
  isFloat,
  maxElements,
  refuse,
  type Data,
  type DType,
  type Known,
  type Node,
  type Tensor,
} from '../model.js';
import { toNumber } from '../protobuf.js';
import type { FrontendCode } from '../codes.js';

export interface Output {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly data: () => Data;
  /**
   * Set by pure data movement from input 0: flat source index of every element (-1 is zero), null for
   * "unchanged". The canonicaliser follows values through it.
   */
  readonly movement?: () => Int32Array | null;
}

export type Kernel = (call: Call) => Output[];

export class Call {
  constructor(
    readonly node: Node,
    readonly opset: number,
    readonly inputs: readonly (Known | undefined)[],
  ) {}

  fail(message: string, code: FrontendCode = 'F113', help?: string): never {
    return refuse({ code, message: `${this.node.opType}: ${message}`, node: this.node.name, help });
  }

  has(index: number): boolean {
    return this.inputs[index] !== undefined;
  }

  input(index: number): Known {
    return this.inputs[index] ?? this.fail(`input ${index} is missing`);
  }

  /** An input whose value must be known, now or when the thunk runs. */
  tensor(index: number): Tensor {
    const known = this.input(index);
    if (known.data !== null) return { dtype: known.dtype, shape: known.shape, data: known.data };
    return this.fail(`input ${index} must not depend on encrypted data`, 'F206');
  }

  /** A float or small-integer input as numbers. */
  numbers(index: number): Exclude<Data, BigInt64Array> {
    return asNumbers(this.tensor(index));
  }

  /** A float input in the evaluator's own precision. */
  doubles(index: number): Float64Array {
    const values = this.numbers(index);
    return values instanceof Float64Array ? values : Float64Array.from(values);
  }

  /** An integer input as a list; huge values saturate at 2^53. */
  ints(index: number): number[] {
    const { data } = this.tensor(index);
    return Array.from(data as ArrayLike<number | bigint>, (v) =>
      typeof v === 'bigint' ? toNumber(v) : Math.trunc(v),
    );
  }

  scalar(index: number): number {
    const { data } = this.tensor(index);
    const value = data[0];
    if (value === undefined || data.length !== 1) return this.fail(`input ${index} must be a scalar`);
    return typeof value === 'bigint' ? toNumber(value) : value;
  }

  int(name: string, fallback: number): number;
  int(name: string): number | undefined;
  int(name: string, fallback?: number): number | undefined {
    const value = this.node.attributes.get(name);
    if (value === undefined) return fallback;
    return typeof value === 'number' ? value : this.fail(`attribute ${name} is not a number`);
  }

  string(name: string, fallback: string): string {
    const value = this.node.attributes.get(name) ?? fallback;
    return typeof value === 'string' ? value : this.fail(`attribute ${name} is not a string`);
  }

  intList(name: string): readonly number[] | undefined {
    const value = this.node.attributes.get(name);
    if (value === undefined) return undefined;
    if (!Array.isArray(value) || value.some((v) => typeof v !== 'number')) {
      return this.fail(`attribute ${name} is not a list of numbers`);
    }
    return value as readonly number[];
  }

  /** Attribute in old opsets, input in new ones: `axes`, `split`, ... */
  intListOrInput(name: string, index: number): readonly number[] | undefined {
    const attribute = this.intList(name);
    return attribute ?? (this.has(index) ? this.ints(index) : undefined);
  }

  axis(value: number, rank: number): number {
    const axis = value < 0 ? value + rank : value;
    if (!Number.isInteger(axis) || axis < 0 || axis >= rank) {
      return this.fail(`axis ${value} of ${rank} dimensions`);
    }
    return axis;
  }

  axes(list: readonly number[], rank: number): number[] {
    const axes = list.map((value) => this.axis(value, rank));
    if (new Set(axes).size < axes.length) return this.fail(`axes [${list.join(', ')}] repeat`);
    return axes;
  }

  /** Refuses shapes that no run could hold. */
  shape(shape: readonly number[]): readonly number[] {
    const bad = shape.some((size) => !Number.isInteger(size) || size < 0);
    if (bad) return this.fail(`result has shape [${shape.join(', ')}]`);
    if (elementCount(shape) > maxElements) {
      return this.fail(`result has ${elementCount(shape)} elements, more than ${maxElements}`, 'F102');
    }
    return shape;
  }

  /** An output computed element by element into a fresh container. */
  output(dtype: DType, shape: readonly number[], fill: (out: Data) => void): Output {
    const checked = this.shape(shape);
    return {
      dtype,
      shape: checked,
      data: () => {
        const out = containerOf(dtype, elementCount(checked));
        fill(out);
        return out;
      },
    };
  }

  floats(shape: readonly number[], fill: (out: Float64Array) => void, like = 0): Output {
    const { dtype } = this.input(like);
    if (!isFloat(dtype)) return this.fail(`needs floating point, got ${dtype}`);
    return this.output(dtype, shape, (out) => fill(out as Float64Array));
  }

  /** Data movement from input 0. */
  move(shape: readonly number[], index: (() => Int32Array) | null): Output {
    const source = this.input(0);
    const checked = this.shape(shape);
    return {
      dtype: source.dtype,
      shape: checked,
      data: () => (index === null ? this.tensor(0).data : take(this.tensor(0).data, index())),
      movement: () => (index === null ? null : index()),
    };
  }
}

export function asNumbers(tensor: Tensor): Exclude<Data, BigInt64Array> {
  return tensor.data instanceof BigInt64Array ? Float64Array.from(tensor.data, Number) : tensor.data;
}

/** Elements by flat index; -1 gives zero. */
export function take(data: Data, index: Int32Array): Data {
  if (data instanceof BigInt64Array) {
    return BigInt64Array.from(index, (i) => (i < 0 ? 0n : (data[i] as bigint)));
  }
  const out = new (data.constructor as new (count: number) => Exclude<Data, BigInt64Array>)(index.length);
  for (let i = 0; i < index.length; i++) {
    const from = index[i] as number;
    out[i] = from < 0 ? 0 : (data[from] as number);
  }
  return out;
}

export function stridesOf(shape: readonly number[]): number[] {
  const strides = shape.map(() => 1);
  for (let d = shape.length - 2; d >= 0; d--) {
    strides[d] = defined(strides[d + 1], 'stride') * defined(shape[d + 1], 'size');
  }
  return strides;
}

/** Flat indices of a strided view, row-major over `shape`. */
export function affineIndex(shape: readonly number[], strides: readonly number[], offset = 0): Int32Array {
  const count = elementCount(shape);
  const out = new Int32Array(count);
  if (count === 0) return out;
  out[0] = offset;
  let filled = 1;
  // Doubling from the innermost dimension outwards: block i of a dimension is block 0 moved by i strides.
  for (let d = shape.length - 1; d >= 0; d--) {
    const [size, stride] = [defined(shape[d], 'size'), defined(strides[d], 'stride')];
    for (let i = 1; i < size; i++) {
      const base = i * filled;
      for (let j = 0; j < filled; j++) out[base + j] = (out[j] as number) + i * stride;
    }
    filled *= size;
  }
  return out;
}

/** Numpy broadcasting. */
export function broadcastShape(call: Call, ...shapes: (readonly number[])[]): number[] {
  const rank = Math.max(...shapes.map((shape) => shape.length));
  return Array.from({ length: rank }, (_, d) => {
    let size = 1;
    for (const shape of shapes) {
      const own = shape[d - rank + shape.length] ?? 1;
      if (own !== 1 && size !== 1 && own !== size) {
        return call.fail(`shapes ${shapes.map((s) => `[${s.join(', ')}]`).join(' and ')} do not broadcast`);
      }
      if (own !== 1) size = own;
    }
    return size;
  });
}

/** Strides of `shape` seen as the broadcast shape `to`; 0 where it repeats. */
export function broadcastStrides(shape: readonly number[], to: readonly number[]): number[] {
  const strides = stridesOf(shape);
  return to.map((_, d) => {
    const own = d - to.length + shape.length;
    return own < 0 || shape[own] === 1 ? 0 : (strides[own] ?? 0);
  });
}

/** Source index of every element of the broadcast, or null when nothing repeats. */
export function broadcastIndex(shape: readonly number[], to: readonly number[]): Int32Array | null {
  return elementCount(shape) === elementCount(to) ? null : affineIndex(to, broadcastStrides(shape, to));
}
