/**
 * calibrate: runs the `tensor` phase on samples and records what the approximations need to know (ranges.ts).
 */
import type { Module, Op } from '../ir/module.js';
import { entryName } from '../ir/module.js';
import { attentionMask, attentionScores, cappedScore, runTensor } from '../ir/interpreter/tensor.js';
import { defined } from '../support/invariant.js';
import {
  maxSoftmaxRounds,
  type Interval,
  type NodeRange,
  type NodeRanges,
  type Ranges,
  type ValueRanges,
} from './ranges.js';

/** Samples kept in the ranges file: packed values and errors are measured on them later. */
export const maxProbes = 16;

type Sample = Readonly<Record<string, Float64Array>>;

export function calibrateModule(
  module: Module,
  samples: readonly Sample[],
  onSample: (done: number) => void = () => undefined,
): Ranges {
  const main = defined(
    module.functions.find((f) => f.name === entryName),
    'main',
  );
  const recorder = new Recorder(main.body.ops, module.constants);
  samples.forEach((sample, i) => {
    const values = new Map<number, Float64Array>();
    main.body.args.forEach((arg, index) => {
      const data = defined(sample[defined(module.inputs[index], 'input').name], 'sample input');
      values.set(arg.id, data);
      recorder.input(index, data);
    });
    runTensor(module, sample, {
      observe: (op, results) => {
        op.results.forEach((result, r) => values.set(result.id, defined(results[r], 'result')));
        recorder.result(op, defined(results[0], 'result'));
        recorder.op(op, (operand) =>
          defined(values.get(defined(op.operands[operand], 'operand').id), 'operand value'),
        );
      },
    });
    onSample(i + 1);
  });
  return {
    format: 'aegis-ranges',
    version: 1,
    model: module.name,
    sourceHash: module.sourceHash,
    shapes: Object.fromEntries(module.inputs.map((port) => [port.name, port.shape])),
    nodes: recorder.nodes(module),
    values: recorder.values(),
    probes: samples
      .slice(0, maxProbes)
      .map((sample) =>
        Object.fromEntries(Object.entries(sample).map(([name, data]) => [name, Array.from(data)])),
      ),
  };
}

/** The form that packing looks up. */
export function nodeRanges(ranges: Ranges): NodeRanges {
  return new Map(ranges.nodes.map((node): [number, NodeRange] => [node.op, node]));
}

export function valueRanges(ranges: Ranges): ValueRanges {
  return new Map((ranges.values ?? []).map((value): [number, Interval] => [value.op, value]));
}

/** Ops whose range is that of a variance, or of a mean square. */
const normalisations = new Set(['tensor.layer_norm', 'tensor.rms_norm']);

/**
 * In units of epsilon: below it the normalised token is 0 up to 10^-3 with any inverse of the range, such as
 * that of a class token which the model starts at 0.
 */
const negligibleVariance = 1e-6;

class Extent {
  min = Infinity;
  max = -Infinity;
  add(x: number): void {
    if (x < this.min) this.min = x;
    if (x > this.max) this.max = x;
  }
  get interval(): Interval {
    return { min: this.min, max: this.max };
  }
}

class AttentionExtents {
  readonly scores = new Extent();
  readonly logSumExp = Array.from({ length: maxSoftmaxRounds + 1 }, () => new Extent());
  /** Keys that the mask keeps. */
  readonly keys = new Extent();
  readonly logSquareSum = Array.from({ length: maxSoftmaxRounds }, () => new Extent());

  /**
   * One row of scores before their cap, all keys of one query and head. The exponential is taken of masked
   * scores too, the sums are of those that `keep` and the key mask let through.
   */
  row(
    all: Float64Array,
    keep: Float64Array | undefined,
    mask: Float64Array | undefined,
    capped: (score: number) => number,
  ): void {
    for (const score of all) this.scores.add(score);
    const isPadding = (key: number): boolean => mask !== undefined && (mask[key] as number) <= 0.5;
    const scores = all.filter((_, key) => keep?.[key] !== 0 && !isPadding(key)).map(capped);
    this.keys.add(all.reduce((count, _, key) => count + (isPadding(key) ? 0 : 1), 0));
    const logSums = this.logSumExp.map((extent, k) => {
      const value = logSumExp(scores, 2 ** k);
      extent.add(value);
      return value;
    });
    // p = softmax(s / 2^(k+1)): log sum p^2 = lse(s / 2^k) - 2 lse(s / 2^(k+1)).
    this.logSquareSum.forEach((extent, k) => extent.add((logSums[k] ?? 0) - 2 * (logSums[k + 1] ?? 0)));
  }
}

function logSumExp(scores: Float64Array, temperature: number): number {
  const top = scores.reduce((a, b) => Math.max(a, b), -Infinity) / temperature;
  return top + Math.log(scores.reduce((sum, score) => sum + Math.exp(score / temperature - top), 0));
}

class Recorder {
  private readonly extents = new Map<number, Extent>();
  private readonly attentions = new Map<number, AttentionExtents>();
  private readonly results = new Map<number, Extent>();
  private readonly indices: ReadonlyMap<Op, number>;

  constructor(
    private readonly ops: readonly Op[],
    private readonly constants: Module['constants'],
  ) {
    this.indices = new Map(ops.map((op, index) => [op, index]));
  }

  input(index: number, data: Float64Array): void {
    const extent = this.extentOf(-1 - index);
    for (const x of data) extent.add(x);
  }

  op(op: Op, operand: (i: number) => Float64Array): void {
    const index = defined(this.indices.get(op), 'op index');
    switch (op.kind) {
      case 'tensor.gelu':
      case 'tensor.relu':
      case 'tensor.tanh':
      case 'tensor.sigmoid':
      case 'tensor.silu':
      case 'tensor.function': {
        const extent = this.extentOf(index);
        for (const x of operand(0)) extent.add(x);
        return;
      }
      case 'tensor.layer_norm':
      case 'tensor.rms_norm':
        return this.variance(this.extentOf(index), op, operand(0));
      case 'tensor.attention':
        return this.attention(index, op, [0, 1, 3].slice(0, op.operands.length - 1).map(operand));
      default:
        return;
    }
  }

  result(op: Op, values: Float64Array): void {
    const index = defined(this.indices.get(op), 'op index');
    const extent = this.results.get(index) ?? new Extent();
    this.results.set(index, extent);
    for (const x of values) extent.add(x);
  }

  values(): Ranges['values'] {
    return [...this.results].map(([op, { interval }]) => ({ op, ...interval }));
  }

  nodes(module: Module): Ranges['nodes'] {
    const inputs = module.inputs.map((port, i) => ({
      op: -1 - i,
      node: port.name,
      kind: 'input' as const,
      interval: this.extentOf(-1 - i).interval,
    }));
    const nodes = [...this.extents]
      .filter(([op]) => op >= 0)
      .map(([op, extent]) => {
        const source = defined(this.ops[op], 'op');
        const attention = this.attentions.get(op);
        const kind =
          attention !== undefined ? 'attention' : normalisations.has(source.kind) ? 'variance' : 'input';
        return {
          op,
          node: source.loc,
          kind: kind as NodeRange['kind'],
          interval: extent.interval,
          ...(attention === undefined
            ? {}
            : {
                attention: {
                  scores: attention.scores.interval,
                  ...(source.operands.length > 3 ? { keys: attention.keys.interval } : {}),
                  logSumExp: attention.logSumExp.map((e) => e.interval),
                  logSquareSum: attention.logSquareSum.map((e) => e.interval),
                },
              }),
        };
      });
    return [...inputs, ...nodes].sort((a, b) => a.op - b.op);
  }

  private extentOf(index: number): Extent {
    const known = this.extents.get(index) ?? new Extent();
    this.extents.set(index, known);
    return known;
  }

  private variance(extent: Extent, op: Op, x: Float64Array): void {
    const width = widthOf(op);
    for (let row = 0; row < x.length; row += width) {
      const values = x.subarray(row, row + width);
      const centred = op.kind === 'tensor.layer_norm';
      const mean = centred ? values.reduce((a, b) => a + b, 0) / width : 0;
      const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / width;
      if (variance > negligibleVariance * (op.attrs.epsilon as number)) extent.add(variance);
    }
    // All tokens are constant.
    if (extent.max < extent.min) extent.add(0);
  }

  private attention(index: number, op: Op, operands: readonly Float64Array[]): void {
    const [q, k] = [defined(operands[0], 'q'), defined(operands[1], 'k')];
    const stats = this.attentions.get(index) ?? new AttentionExtents();
    this.attentions.set(index, stats);
    const keys = k.length / widthOf(op);
    const { keep, bias } = attentionMask(op, this.constants);
    for (let head = 0; head < (op.attrs.heads as number); head++) {
      const scores = attentionScores(op, q, k, head, bias);
      for (let row = 0; row < scores.length; row += keys) {
        const own = [scores, keep].map((all) => all?.subarray(row, row + keys));
        stats.row(defined(own[0], 'scores'), own[1], operands[2], cappedScore(op));
      }
    }
    this.extentOf(index).add(stats.scores.min);
    this.extentOf(index).add(stats.scores.max);
  }
}

function widthOf(op: Op): number {
  const type = op.operands[0]?.type;
  return type?.kind === 'tensor' ? (type.shape.at(-1) ?? 1) : 1;
}
