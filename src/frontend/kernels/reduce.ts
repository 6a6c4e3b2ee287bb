/** Reductions, softmax and normalisations. */
import { defined } from '../../support/invariant.js';
import { normalizeRow, softmaxRow } from '../../ir/interpreter/tensor-functions.js';
import { elementCount, isBig, isFloat } from '../model.js';
import { affineIndex, stridesOf, type Call, type Kernel, type Output } from './call.js';

interface Reduction {
  readonly start: number;
  readonly step: (sum: number, x: number) => number;
  readonly end?: (sum: number, count: number) => number;
}

const reductions: Readonly<Record<string, Reduction>> = {
  ReduceSum: { start: 0, step: (sum, x) => sum + x },
  ReduceMean: { start: 0, step: (sum, x) => sum + x, end: (sum, count) => sum / count },
  ReduceMax: { start: -Infinity, step: Math.max },
  ReduceMin: { start: Infinity, step: Math.min },
  ReduceProd: { start: 1, step: (product, x) => product * x },
  ReduceSumSquare: { start: 0, step: (sum, x) => sum + x * x },
  ReduceL1: { start: 0, step: (sum, x) => sum + Math.abs(x) },
  ReduceL2: { start: 0, step: (sum, x) => sum + x * x, end: Math.sqrt },
};

/** The reduced axes; undefined for "no operation". */
export function reducedAxes(call: Call): number[] | undefined {
  const { shape } = call.input(0);
  const listed = call.intListOrInput('axes', 1);
  if (listed !== undefined && listed.length > 0) return call.axes(listed, shape.length);
  return call.int('noop_with_empty_axes', 0) !== 0 ? undefined : shape.map((_, d) => d);
}

function reduce(reduction: Reduction): Kernel {
  return (call) => {
    const { dtype, shape } = call.input(0);
    const axes = reducedAxes(call);
    if (axes === undefined) return [call.move(shape, null)];
    const keep = call.int('keepdims', 1) !== 0;
    const kept = shape.map((size, d) => (axes.includes(d) ? 1 : size));
    const result = keep ? kept : shape.filter((_, d) => !axes.includes(d));
    return [
      call.output(dtype, result, (out) => {
        const strides = stridesOf(kept).map((stride, d) => (axes.includes(d) ? 0 : stride));
        const target = affineIndex(shape, strides);
        const x = call.numbers(0);
        const sums = new Float64Array(out.length).fill(reduction.start);
        for (let i = 0; i < x.length; i++) {
          const t = target[i] as number;
          sums[t] = reduction.step(sums[t] as number, x[i] as number);
        }
        const count = x.length / Math.max(out.length, 1);
        sums.forEach((sum, i) => {
          const value = reduction.end?.(sum, count) ?? sum;
          if (isBig(dtype) && !Number.isFinite(value)) call.fail('reduces nothing');
          out[i] = isBig(dtype) ? BigInt(Math.trunc(value)) : value;
        });
      }),
    ];
  };
}

/** Position of the largest (sign 1) or smallest (sign -1) element of an axis; the first of equals. */
function argument(sign: 1 | -1): Kernel {
  return (call) => {
    const { shape } = call.input(0);
    const axis = call.axis(call.int('axis', 0), shape.length);
    if (call.int('select_last_index', 0) !== 0) return call.fail('select_last_index is not known');
    const size = defined(shape[axis], 'size');
    const inner = elementCount(shape.slice(axis + 1));
    const keep = call.int('keepdims', 1) !== 0;
    const result = shape.flatMap((own, d) => (d !== axis ? [own] : keep ? [1] : []));
    return [
      call.output('int64', result, (out) => {
        const x = call.numbers(0);
        for (let i = 0; i < out.length; i++) {
          const base = Math.floor(i / inner) * size * inner + (i % inner);
          let best = 0;
          for (let k = 1; k < size; k++) {
            if (sign * (x[base + k * inner] as number) > sign * (x[base + best * inner] as number)) best = k;
          }
          out[i] = BigInt(best);
        }
      }),
    ];
  };
}

const cumSum: Kernel = (call) => {
  const { dtype, shape } = call.input(0);
  if (call.int('exclusive', 0) !== 0 || call.int('reverse', 0) !== 0) {
    return call.fail('only the plain form is known');
  }
  const axis = call.axis(call.scalar(1), shape.length);
  const inner = elementCount(shape.slice(axis + 1));
  const size = defined(shape[axis], 'size');
  return [
    call.output(dtype, shape, (out) => {
      const x = call.tensor(0).data;
      for (let i = 0; i < out.length; i++) {
        const first = Math.floor(i / inner) % size === 0;
        if (out instanceof BigInt64Array)
          out[i] = (x[i] as bigint) + (first ? 0n : (out[i - inner] as bigint));
        else out[i] = (x[i] as number) + (first ? 0 : (out[i - inner] as number));
      }
    }),
  ];
};

/** Below opset 13 the rows of softmax are all dimensions from `axis` on. */
const softmax: Kernel = (call) => {
  const { shape } = call.input(0);
  const axis = call.axis(call.int('axis', call.opset < 13 ? 1 : -1), shape.length);
  const inner = call.opset < 13 ? 1 : elementCount(shape.slice(axis + 1));
  const size = call.opset < 13 ? elementCount(shape.slice(axis)) : defined(shape[axis], 'size');
  const log = call.node.opType === 'LogSoftmax';
  return [
    call.floats(shape, (out) => {
      const x = call.numbers(0);
      const row = new Float64Array(size);
      for (let r = 0; r < out.length / Math.max(size, 1); r++) {
        const base = Math.floor(r / inner) * size * inner + (r % inner);
        for (let k = 0; k < size; k++) row[k] = x[base + k * inner] as number;
        softmaxRow(row, 0, size);
        for (let k = 0; k < size; k++) {
          out[base + k * inner] = log ? Math.log(row[k] as number) : (row[k] as number);
        }
      }
    }),
  ];
};

/** Rows of the dimensions from `axis` on; gamma and beta must fill a row. */
const layerNorm: Kernel = (call) => {
  const { shape } = call.input(0);
  const axis = call.axis(call.int('axis', -1), shape.length);
  const size = elementCount(shape.slice(axis));
  const epsilon = call.int('epsilon', 1e-5);
  for (const i of [1, 2]) {
    if (call.has(i) && elementCount(call.input(i).shape) !== size) {
      call.fail(`input ${i} does not fill ${size} features`);
    }
  }
  return [
    call.floats(shape, (out) => {
      const x = call.numbers(0);
      for (let row = 0; row < out.length; row += size) normalizeRow(x, out, row, size, epsilon);
      scaleAndShift(out, size, call.numbers(1), call.has(2) ? call.numbers(2) : undefined);
    }),
    ...layerNormStatistics(call, axis, size, epsilon),
  ];
};

/** Outputs 1 and 2: the mean, and the inverse deviation, of every row. */
function layerNormStatistics(call: Call, axis: number, size: number, epsilon: number): Output[] {
  const { shape } = call.input(0);
  const rows = shape.map((own, d) => (d < axis ? own : 1));
  const each = (f: (mean: number, variance: number) => number) =>
    call.floats(rows, (out) => {
      const x = call.doubles(0);
      for (let row = 0; row < out.length; row++) {
        const own = x.subarray(row * size, (row + 1) * size);
        const mean = own.reduce((sum, value) => sum + value, 0) / size;
        const variance = own.reduce((sum, value) => sum + (value - mean) ** 2, 0) / size;
        out[row] = f(mean, variance);
      }
    });
  return [each((mean) => mean), each((_, variance) => 1 / Math.sqrt(variance + epsilon))];
}

function scaleAndShift(
  out: Float64Array,
  size: number,
  gamma: ArrayLike<number>,
  beta?: ArrayLike<number>,
): void {
  for (let i = 0; i < out.length; i++) {
    out[i] =
      (out[i] as number) * (gamma[i % size] as number)
      + (beta === undefined ? 0 : (beta[i % size] as number));
  }
}

const rmsNorm: Kernel = (call) => {
  const { shape } = call.input(0);
  const axis = call.axis(call.int('axis', -1), shape.length);
  const size = elementCount(shape.slice(axis));
  const epsilon = call.int('epsilon', 1e-5);
  if (elementCount(call.input(1).shape) !== size) {
    return call.fail(`the scale does not fill ${size} features`);
  }
  return [
    call.floats(shape, (out) => {
      const x = call.numbers(0);
      for (let row = 0; row < out.length; row += size) {
        let sum = 0;
        for (let i = 0; i < size; i++) sum += (x[row + i] as number) ** 2;
        const factor = 1 / Math.sqrt(sum / size + epsilon);
        for (let i = 0; i < size; i++) out[row + i] = (x[row + i] as number) * factor;
      }
      scaleAndShift(out, size, call.numbers(1));
    }),
  ];
};

/** Inference form only; channels are dimension 1. */
const batchNorm: Kernel = (call) => {
  const { shape } = call.input(0);
  const channels = shape[1] ?? call.fail('needs two dimensions');
  if (call.int('training_mode', 0) !== 0) {
    return call.fail('training mode', 'F202', 'export the model in eval mode');
  }
  if ([1, 2, 3, 4].some((i) => elementCount(call.input(i).shape) !== channels)) {
    call.fail('parameters do not fit the channels');
  }
  const inner = elementCount(shape.slice(2));
  const epsilon = call.int('epsilon', 1e-5);
  return [
    call.floats(shape, (out) => {
      const x = call.numbers(0);
      const [gamma, beta, mean, variance] = [1, 2, 3, 4].map((i) => call.numbers(i)) as [
        Float64Array,
        Float64Array,
        Float64Array,
        Float64Array,
      ];
      for (let i = 0; i < out.length; i++) {
        const c = Math.floor(i / inner) % channels;
        const factor = (gamma[c] as number) / Math.sqrt((variance[c] as number) + epsilon);
        out[i] = ((x[i] as number) - (mean[c] as number)) * factor + (beta[c] as number);
      }
    }),
  ];
};

const averagePool: Kernel = (call) => {
  const { dtype, shape } = call.input(0);
  if (shape.length < 3 || !isFloat(dtype)) return call.fail('needs three dimensions');
  const inner = elementCount(shape.slice(2));
  return [
    call.floats(
      shape.map((size, d) => (d < 2 ? size : 1)),
      (out) => {
        const x = call.numbers(0);
        for (let i = 0; i < x.length; i++) {
          out[Math.floor(i / inner)] = (out[Math.floor(i / inner)] ?? 0) + (x[i] as number) / inner;
        }
      },
    ),
  ];
};

export const reduceKernels: Readonly<Record<string, Kernel>> = {
  ...Object.fromEntries(Object.entries(reductions).map(([name, reduction]) => [name, reduce(reduction)])),
  ArgMax: argument(1),
  ArgMin: argument(-1),
  CumSum: cumSum,
  Softmax: softmax,
  LogSoftmax: softmax,
  LayerNormalization: layerNorm,
  RMSNormalization: rmsNorm,
  BatchNormalization: batchNorm,
  GlobalAveragePool: averagePool,
};
