/** Runs a module of the tensor phase in the clear, in double precision. */
import { defined, invariant } from '../../support/invariant.js';
import { entryName, type Constant, type Module, type Op, type Value } from '../module.js';
import {
  gelu,
  geluTanh,
  isFunctionName,
  namedFunction,
  relu,
  sigmoid,
  silu,
  type FunctionName,
} from '../../support/special-functions.js';
import { matmul, matmulTransposed, normalizeRow, rootMeanSquareRow, softmaxRow } from './tensor-functions.js';

export interface TensorRunOptions {
  /**
   * Called after every op with its results, row-major; the operands were results of earlier ops, or inputs.
   */
  readonly observe?: (op: Op, results: readonly Float64Array[]) => void;
  /** Changes the result of an op in place, before anything reads it: what if the op were inexact? */
  readonly disturb?: (op: Op, result: Float64Array, operands: readonly Float64Array[]) => void;
}

/** Values by input name to values by output name. */
export function runTensor(
  module: Module,
  inputs: Readonly<Record<string, ArrayLike<number>>>,
  options: TensorRunOptions = {},
): Record<string, Float64Array> {
  invariant(module.phase === 'tensor', `runTensor takes the tensor phase, not ${module.phase}`);
  const main = defined(
    module.functions.find((func) => func.name === entryName),
    'main',
  ).body;
  const values = new Map<number, Float64Array>();
  main.args.forEach((arg, i) => {
    const { name } = defined(module.inputs[i], 'input port');
    const data = Float64Array.from(defined(inputs[name], `input ${name}`));
    invariant(
      data.length === sizeOf(arg),
      `input ${name} has ${data.length} values, expected ${sizeOf(arg)}`,
    );
    values.set(arg.id, data);
  });
  for (const op of main.ops) {
    const operands = op.operands.map((value) => defined(values.get(value.id), 'operand'));
    const result = defined(op.results[0], 'result');
    const out = new Float64Array(sizeOf(result));
    run(module, op, operands, out);
    options.disturb?.(op, out, operands);
    values.set(result.id, out);
    options.observe?.(op, [out]);
  }
  return Object.fromEntries(
    main.results.map((value, i) => [
      defined(module.outputs[i], 'output port').name,
      defined(values.get(value.id), 'result'),
    ]),
  );
}

/** Constants of an attention op: which keys each query sees, and what is added to the scores. */
export interface AttentionMask {
  readonly keep: Float64Array | undefined;
  readonly bias: Float64Array | undefined;
}

export function attentionMask(op: Op, constants: Module['constants']): AttentionMask {
  const data = (attr: string) =>
    op.attrs[attr] === undefined
      ? undefined
      : defined(constants.get(op.attrs[attr] as string), `constant @${String(op.attrs[attr])}`).data;
  return { keep: data('keep'), bias: data('bias') };
}

/** What a soft cap makes of a score. */
export function cappedScore(op: Op): (score: number) => number {
  const { cap } = op.attrs as { cap?: number };
  return cap === undefined ? (score) => score : (score) => cap * Math.tanh(score / cap);
}

/**
 * Scores of one head before soft cap and softmax, [queries, keys] row-major: scale q_h k_h^T + bias, masked
 * or not.
 */
export function attentionScores(
  op: Op,
  q: Float64Array,
  k: Float64Array,
  head: number,
  bias?: Float64Array,
): Float64Array {
  const { heads, scale } = op.attrs as { heads: number; scale: number };
  const width = shapeOf(defined(op.operands[0], 'q'))[1];
  const size = width / heads;
  const [qHead, kHead] = [headOf(q, width, head, size), headOf(k, width, head, size)];
  const [queries, keys] = [q.length / width, k.length / width];
  const scores = new Float64Array(queries * keys);
  matmulTransposed(qHead, kHead, scores, { rows: queries, inner: size, columns: keys });
  const first = bias === undefined || bias.length === scores.length ? 0 : head * scores.length;
  for (let i = 0; i < scores.length; i++) {
    scores[i] = (scores[i] as number) * scale + (bias?.[first + i] ?? 0);
  }
  return scores;
}

function shapeOf(value: Value): readonly [rows: number, columns: number] {
  invariant(value.type.kind === 'tensor', 'expected a tensor');
  const [rows, columns] = value.type.shape;
  return [defined(rows, 'rows'), defined(columns, 'columns')];
}

function sizeOf(value: Value): number {
  invariant(value.type.kind === 'tensor', 'expected a tensor');
  return value.type.shape.reduce((product, size) => product * size, 1);
}

/** Features head*size .. head*size+size-1 of every row. */
function headOf(x: Float64Array, width: number, head: number, size: number): Float64Array {
  const out = new Float64Array((x.length / width) * size);
  for (let row = 0; row * width < x.length; row++) {
    out.set(x.subarray(row * width + head * size, row * width + (head + 1) * size), row * size);
  }
  return out;
}

function attention(
  op: Op,
  { keep, bias }: AttentionMask,
  [q, k, v, mask]: readonly Float64Array[],
  out: Float64Array,
): void {
  const heads = op.attrs.heads as number;
  const width = shapeOf(defined(op.operands[2], 'v'))[1];
  const size = width / heads;
  const [queries, keys] = [out.length / width, defined(v, 'v').length / width];
  for (let head = 0; head < heads; head++) {
    const scores = attentionScores(op, defined(q, 'q'), defined(k, 'k'), head, bias).map(cappedScore(op));
    keep?.forEach((kept, i) => {
      if (kept === 0) scores[i] = -Infinity;
    });
    if (mask !== undefined) maskScores(scores, mask);
    for (let row = 0; row < queries; row++) softmaxRow(scores, row * keys, keys);
    const part = new Float64Array(queries * size);
    const values = headOf(defined(v, 'v'), width, head, size);
    matmul(scores, values, part, { rows: queries, inner: keys, columns: size });
    for (let row = 0; row < queries; row++) {
      out.set(part.subarray(row * size, (row + 1) * size), row * width + head * size);
    }
  }
}

/** Scores of dropped keys count nothing. */
function maskScores(scores: Float64Array, mask: Float64Array): void {
  for (let i = 0; i < scores.length; i++) if ((mask[i % mask.length] as number) < 0.5) scores[i] = -Infinity;
}

function fill(out: Float64Array, f: (i: number) => number): void {
  for (let i = 0; i < out.length; i++) out[i] = f(i);
}

const elementwise: Readonly<Record<string, (x: number) => number>> = {
  'tensor.relu': relu,
  'tensor.tanh': Math.tanh,
  'tensor.sigmoid': sigmoid,
  'tensor.silu': silu,
};

function functionOf(op: Op): ((x: number) => number) | undefined {
  const { approximate, name, alpha, beta } = op.attrs;
  if (op.kind === 'tensor.gelu') return approximate === 'tanh' ? geluTanh : gelu;
  if (op.kind !== 'tensor.function') return elementwise[op.kind];
  invariant(isFunctionName(name as string), `no function ${String(name)}`);
  return namedFunction(name as FunctionName).make((alpha as number) ?? 0, (beta as number) ?? 0);
}

const pairwise: Readonly<Record<string, (x: number, y: number) => number>> = {
  'tensor.add': (x, y) => x + y,
  'tensor.sub': (x, y) => x - y,
  'tensor.mul': (x, y) => x * y,
};

function run(module: Module, op: Op, operands: readonly Float64Array[], out: Float64Array): void {
  const x = defined(operands[0], `operand of ${op.kind}`);
  const constant = (attr: string): Constant => {
    const name = op.attrs[attr] as string;
    return defined(module.constants.get(name), `constant @${name}`);
  };
  const optional = (attr: string) => (op.attrs[attr] === undefined ? undefined : constant(attr).data);
  const f = functionOf(op);
  if (f !== undefined) return fill(out, (i) => f(x[i] as number));
  const g = pairwise[op.kind];
  if (g !== undefined) return fill(out, (i) => g(x[i] as number, defined(operands[1], 'y')[i] as number));
  switch (op.kind) {
    case 'tensor.rearrange': {
      const indices = defined(module.tables.get(op.attrs.indices as string), 'indices');
      return fill(out, (i) => ((indices[i] as number) < 0 ? 0 : (x[indices[i] as number] as number)));
    }
    case 'tensor.linear':
      return linear(op, x, constant('weight'), optional('bias'), out);
    case 'tensor.scale_tokens': {
      const width = x.length / defined(operands[1], 'factors').length;
      return fill(out, (i) => (x[i] as number) * (operands[1]?.[Math.floor(i / width)] as number));
    }
    case 'tensor.add_constant':
    case 'tensor.mul_constant': {
      const { data } = constant('constant');
      const apply = op.kind === 'tensor.add_constant' ? pairwise['tensor.add'] : pairwise['tensor.mul'];
      return fill(out, (i) => defined(apply, 'function')(x[i] as number, data[i % data.length] as number));
    }
    case 'tensor.layer_norm': {
      const width = shapeOf(defined(op.operands[0], 'x'))[1];
      for (let row = 0; row < x.length; row += width) {
        normalizeRow(x, out, row, width, op.attrs.epsilon as number);
      }
      const [gamma, beta] = [optional('gamma'), optional('beta')];
      return fill(out, (i) => (out[i] as number) * (gamma?.[i % width] ?? 1) + (beta?.[i % width] ?? 0));
    }
    case 'tensor.rms_norm': {
      const width = shapeOf(defined(op.operands[0], 'x'))[1];
      for (let row = 0; row < x.length; row += width) {
        rootMeanSquareRow(x, out, row, width, op.attrs.epsilon as number);
      }
      const gamma = optional('gamma');
      return fill(out, (i) => (out[i] as number) * (gamma?.[i % width] ?? 1));
    }
    case 'tensor.mix_tokens': {
      const [tokens, columns] = shapeOf(defined(op.operands[0], 'x'));
      const rows = op.attrs.count as number;
      return matmul(constant('weight').data, x, out, { rows, inner: tokens, columns });
    }
    case 'tensor.attention':
      return attention(op, attentionMask(op, module.constants), operands, out);
    case 'tensor.concat_tokens': {
      const { data } = constant('constant');
      out.set(x, op.attrs.before === true ? data.length : 0);
      return out.set(data, op.attrs.before === true ? 0 : x.length);
    }
    case 'tensor.select_tokens': {
      const start = (op.attrs.first as number) * shapeOf(defined(op.operands[0], 'x'))[1];
      return out.set(x.subarray(start, start + out.length));
    }
    case 'tensor.mean_tokens':
      return meanTokens(x, out);
    default:
      invariant(false, `the tensor interpreter does not know ${op.kind}`);
  }
}

function meanTokens(x: Float64Array, out: Float64Array): void {
  const rows = x.length / out.length;
  for (let i = 0; i < x.length; i++) {
    out[i % out.length] = (out[i % out.length] as number) + (x[i] as number) / rows;
  }
}

function linear(
  op: Op,
  x: Float64Array,
  weight: Constant,
  bias: Float64Array | undefined,
  out: Float64Array,
): void {
  const [rows, inner] = shapeOf(defined(op.operands[0], 'x'));
  const columns = op.attrs.outFeatures as number;
  invariant(weight.data.length === inner * columns, `weight of ${op.kind} at "${op.loc}" has another size`);
  matmulTransposed(x, weight.data, out, { rows, inner, columns });
  if (bias !== undefined) fill(out, (i) => (out[i] as number) + (bias[i % columns] as number));
}
