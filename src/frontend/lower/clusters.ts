/**
 * Finds GELU, SiLU and layer normalisation in decomposed form by what they compute, not by how they are
 * written: a cluster of elementwise operators with scalar constants (and means over the last axis) that
 * depends on one value is evaluated on sample rows and compared with the known functions. Every order of
 * factors, every way to cube or to divide, Casts and duplicated nodes are covered alike.
 */
import { defined } from '../../support/invariant.js';
import { normalizeRow, rootMeanSquareRow } from '../../ir/interpreter/tensor-functions.js';
import { gelu, geluTanh, sigmoid, silu } from '../../support/special-functions.js';
import { callOf, type ShapedGraph } from '../evaluate.js';
import { asNumbers } from '../kernels/call.js';
import { realFunctions } from '../kernels/elementwise.js';
import { reducedAxes } from '../kernels/reduce.js';
import { isFloat, type Known, type Node } from '../model.js';

export type Match =
  | { readonly kind: 'gelu'; readonly approximate: 'none' | 'tanh' }
  /** silu(factor x) / factor: 1.702 is CLIP's quick GELU. */
  | { readonly kind: 'silu'; readonly factor: number }
  | { readonly kind: 'layer_norm'; readonly epsilon: number }
  | { readonly kind: 'rms_norm'; readonly epsilon: number };

export interface Cluster {
  readonly node: Node;
  /** The ONNX value the cluster is a function of. */
  readonly source: string;
  readonly match: Match;
}

/** Sample rows: a value per element, or one scalar for constants. */
type Sampled = Float64Array | number;

const rowCount = 6;
const sampleWidth = 16;
/** A cluster of GELU or LayerNorm has at most some 15 nodes. */
const maxClusterNodes = 40;
/** Exported constants are float32, and some are written with six digits only. */
const tolerance = 4e-6;

/** Deterministic rows of different spread: row r holds sines scaled by 3^(2 - r). */
function sampleRows(width: number): Float64Array {
  const scales = [9, 3, 1, 0.3, 0.03, 1e-5];
  return Float64Array.from({ length: rowCount * width }, (_, i) => {
    const scale = defined(scales[Math.floor(i / width)], 'scale');
    return scale * (Math.sin(i * 2.3 + 1) + 0.25 * Math.cos(i * 0.7));
  });
}

const pairs: Readonly<Record<string, (x: number, y: number) => number>> = {
  Add: (x, y) => x + y,
  Sub: (x, y) => x - y,
  Mul: (x, y) => x * y,
  Div: (x, y) => x / y,
  Pow: Math.pow,
  Min: Math.min,
  Max: Math.max,
};
const singles: Readonly<Record<string, (x: number) => number>> = {
  ...realFunctions,
  Neg: (x) => -x,
  Abs: Math.abs,
  Identity: (x) => x,
  Cast: (x) => x,
  Dropout: (x) => x,
};
const means = new Set(['ReduceMean', 'ReduceSum']);
/** A cluster worth evaluating contains one of these. */
const curved = new Set(['Erf', 'Tanh', 'Sigmoid', 'Exp', 'Sqrt', 'Pow', 'Reciprocal']);

export function findClusters(graph: ShapedGraph): Map<string, Cluster> {
  const finder = new Finder(graph);
  const found = new Map<string, Cluster>();
  for (const node of graph.nodes) {
    const cluster = finder.match(node);
    if (cluster !== undefined) found.set(defined(node.outputs[0], 'output'), cluster);
  }
  return found;
}

class Finder {
  private readonly makers = new Map<string, Node>();
  constructor(private readonly graph: ShapedGraph) {
    for (const node of graph.nodes) for (const output of node.outputs) this.makers.set(output, node);
  }

  match(node: Node): Cluster | undefined {
    if (!(node.opType in pairs)) return undefined;
    const members = this.members(node);
    if (!members.some((member) => curved.has(member.opType))) return undefined;
    // Nearest sources first: x before what x was computed from.
    const sources = [...new Set(members.flatMap((member) => member.inputs))].filter(
      (name) => this.graph.values.get(name)?.data === null,
    );
    let fallback: Cluster | undefined;
    for (const source of sources) {
      const match = this.identify(node, source, members);
      if (match === undefined) continue;
      // Seen from the centred value, a layer normalisation is an RMS normalisation: look further.
      if (match.kind !== 'rms_norm') return { node, source, match };
      fallback ??= { node, source, match };
    }
    return fallback;
  }

  /** The node and the cluster operators before it, breadth first. */
  private members(node: Node): Node[] {
    const list = [node];
    for (let next = 0; next < list.length && list.length < maxClusterNodes; next++) {
      for (const input of defined(list[next], 'member').inputs) {
        const maker = this.makers.get(input);
        if (maker !== undefined && this.isMember(maker) && !list.includes(maker)) list.push(maker);
      }
    }
    return list;
  }

  private isMember(node: Node): boolean {
    return node.domain === '' && (node.opType in pairs || node.opType in singles || means.has(node.opType));
  }

  private identify(node: Node, source: string, members: readonly Node[]): Match | undefined {
    const known = this.graph.values.get(source);
    const result = this.graph.values.get(node.outputs[0] ?? '');
    if (known === undefined || result === undefined || !isFloat(known.dtype)) return undefined;
    if (known.shape.join() !== result.shape.join()) return undefined;
    const full = known.shape.at(-1) ?? 1;
    if (full < 1 || full > 2 ** 16) return undefined;
    // Means do not know their length, sums are divided by it later.
    const width = members.some((member) => member.opType === 'ReduceSum')
      ? full
      : Math.min(full, sampleWidth);
    const rows = sampleRows(width);
    const values = new Map<string, Sampled>([[source, rows]]);
    const out = this.sample(node, values, new Set(members), { source: known, width });
    if (!(out instanceof Float64Array) || out.some((value) => Number.isNaN(value))) return undefined;
    return members.some(
      (member) => means.has(member.opType) && member.outputs.some((name) => values.has(name)),
    )
      ? matchRows(rows, out, width)
      : matchFunction(rows, out);
  }

  /** Evaluates one node on the rows; undefined when it needs anything but the source. */
  private sample(
    node: Node,
    values: Map<string, Sampled>,
    members: ReadonlySet<Node>,
    context: { source: Known; width: number },
  ): Sampled | undefined {
    const operand = (name: string): Sampled | undefined => {
      const done = values.get(name);
      if (done !== undefined) return done;
      const known = this.graph.values.get(name);
      if (known?.data != null) return scalarOf(known);
      const maker = this.makers.get(name);
      return maker !== undefined && members.has(maker)
        ? this.sample(maker, values, members, context)
        : undefined;
    };
    const x = operand(node.inputs[0] ?? '');
    if (x === undefined) return undefined;
    const result = this.apply(node, x, operand, context);
    if (result !== undefined) values.set(node.outputs[0] ?? '', result);
    return result;
  }

  private apply(
    node: Node,
    x: Sampled,
    operand: (name: string) => Sampled | undefined,
    context: { source: Known; width: number },
  ): Sampled | undefined {
    if (means.has(node.opType)) return this.rowMean(node, x, context);
    const single = singles[node.opType];
    if (single !== undefined) {
      const target = this.graph.values.get(node.outputs[0] ?? '');
      if (target === undefined || !isFloat(target.dtype)) return undefined;
      return typeof x === 'number' ? single(x) : x.map(single);
    }
    const pair = pairs[node.opType];
    const y = operand(node.inputs[1] ?? '');
    if (pair === undefined || y === undefined || node.inputs.length !== 2) return undefined;
    if (typeof x === 'number') return typeof y === 'number' ? pair(x, y) : y.map((value) => pair(x, value));
    return x.map((value, i) => pair(value, typeof y === 'number' ? y : (y[i] as number)));
  }

  /** Mean or sum of the last axis with the dimension kept, repeated over the row. */
  private rowMean(
    node: Node,
    x: Sampled,
    { source, width }: { source: Known; width: number },
  ): Sampled | undefined {
    const call = callOf(node, this.graph.model.opset, this.graph.values);
    const shape = call.inputs[0]?.shape ?? [];
    const axesKnown = node.attributes.has('axes') || call.inputs[1]?.data != null;
    if (typeof x === 'number' || !axesKnown || shape.join() !== source.shape.join()) return undefined;
    const axes = reducedAxes(call);
    if (axes?.length !== 1 || axes[0] !== shape.length - 1 || call.int('keepdims', 1) === 0) return undefined;
    const out = new Float64Array(x.length);
    for (let row = 0; row < x.length; row += width) {
      const sum = x.subarray(row, row + width).reduce((a, b) => a + b, 0);
      out.fill(node.opType === 'ReduceMean' ? sum / width : sum, row, row + width);
    }
    return out;
  }
}

function scalarOf(known: Known): number | undefined {
  if (known.data === null) return undefined;
  const numbers = asNumbers({ ...known, data: known.data });
  const [first] = numbers;
  return first !== undefined && numbers.every((value: number) => value === first) ? first : undefined;
}

function agrees(a: Float64Array, b: (i: number) => number): boolean {
  return a.every((value, i) => Math.abs(value - b(i)) <= tolerance * (1 + Math.abs(value)));
}

function matchFunction(x: Float64Array, y: Float64Array): Match | undefined {
  const at = (f: (value: number) => number) => (i: number) => f(x[i] as number);
  if (agrees(y, at(gelu))) return { kind: 'gelu', approximate: 'none' };
  if (agrees(y, at(geluTanh))) return { kind: 'gelu', approximate: 'tanh' };
  if (agrees(y, at(silu))) return { kind: 'silu', factor: 1 };
  // x sigmoid(c x): c from the sample nearest to 1.
  const near = x.reduce(
    (best, value, i) => (Math.abs(value - 1) < Math.abs((x[best] as number) - 1) ? i : best),
    0,
  );
  const gate = (y[near] as number) / (x[near] as number);
  const factor = Math.log(gate / (1 - gate)) / (x[near] as number);
  // Constants in files have few digits: c is rounded so that it does not carry the rounding of this estimate.
  const rounded = Number(factor.toPrecision(7));
  if (
    rounded > 0
    && Number.isFinite(rounded)
    && agrees(
      y,
      at((value) => value * sigmoid(rounded * value)),
    )
  )
    return { kind: 'silu', factor: rounded };
  return undefined;
}

/** Layer normalisation, with the epsilon that the row of least spread shows. */
function matchRows(x: Float64Array, y: Float64Array, width: number): Match | undefined {
  if (width < 2) return undefined;
  const small = x.subarray((rowCount - 1) * width);
  const mean = small.reduce((a, b) => a + b, 0) / width;
  const variance = small.reduce((sum, value) => sum + (value - mean) ** 2, 0) / width;
  const [j] = [...small.keys()].sort(
    (a, b) => Math.abs((small[b] as number) - mean) - Math.abs((small[a] as number) - mean),
  );
  const far = defined(j, 'element');
  const ratio = ((small[far] as number) - mean) / (y[(rowCount - 1) * width + far] as number);
  const estimate = ratio * ratio - variance;
  const epsilon = estimate < 1e-6 * variance ? 0 : Number(estimate.toPrecision(5));
  const expected = new Float64Array(x.length);
  for (let row = 0; row < x.length; row += width) normalizeRow(x, expected, row, width, epsilon);
  if (ratio > 0 && agrees(y, (i) => expected[i] as number)) return { kind: 'layer_norm', epsilon };
  return matchRmsNorm(x, y, width);
}

/** x / sqrt(mean of x^2 + epsilon), with the epsilon that the row of least size shows. */
function matchRmsNorm(x: Float64Array, y: Float64Array, width: number): Match | undefined {
  const first = (rowCount - 1) * width;
  const small = x.subarray(first);
  const square = small.reduce((sum, value) => sum + value * value, 0) / width;
  const far = small.reduce((best, value, i) => (Math.abs(value) > Math.abs(small[best] ?? 0) ? i : best), 0);
  const ratio = (small[far] as number) / (y[first + far] as number);
  const estimate = ratio * ratio - square;
  const epsilon = estimate < 1e-6 * square ? 0 : Number(estimate.toPrecision(5));
  const expected = new Float64Array(x.length);
  for (let row = 0; row < x.length; row += width) rootMeanSquareRow(x, expected, row, width, epsilon);
  return ratio > 0 && agrees(y, (i) => expected[i] as number) ? { kind: 'rms_norm', epsilon } : undefined;
}
