/**
 * Canonicalisation: walks the private nodes of a shaped graph and makes the tensor phase (ir/ops/tensor.ts).
 * What cannot be expressed is collected, node by node, and reported in one error.
 */
import { AegisError, Diagnostics, type Diagnostic } from '../../support/diagnostics.js';
import { defined } from '../../support/invariant.js';
import type { FrontendCode } from '../codes.js';
import { callOf, liveNodes, type GraphInput, type ShapedGraph } from '../evaluate.js';
import type { Call, Output } from '../kernels/call.js';
import { kernelOf } from '../kernels/table.js';
import { elementCount, isFloat, type Node } from '../model.js';
import { findClusters, type Cluster } from './clusters.js';
import { Drafts, type Draft } from './drafts.js';
import { activationHandlers } from './handlers-activation.js';
import * as elementwise from './handlers-elementwise.js';
import * as joins from './handlers-reduce.js';
import * as products from './handlers-linear.js';
import * as scores from './handlers-attention.js';
import { maxViewElements, Site, type Surroundings } from './site.js';
import { composeIndex, matrixShape, type Symbol } from './symbols.js';

type Handler = (site: Site, shape: readonly number[]) => Symbol;

/** Operators on encrypted values; pure data movement needs no entry. */
export const handlers: ReadonlyMap<string, Handler> = new Map<string, Handler>([
  ['MatMul', products.matMul],
  ['Gemm', products.gemm],
  ['Conv', products.conv],
  ['Attention', scores.attention],
  ['Softmax', scores.softmax],
  ['Add', elementwise.add],
  ['Sub', elementwise.sub],
  ['Mul', elementwise.mul],
  ['Div', elementwise.div],
  ['Neg', elementwise.neg],
  ['Pow', elementwise.pow],
  ['Where', elementwise.where],
  ['IsNaN', elementwise.isNan],
  ['IsInf', elementwise.isNan],
  ['BatchNormalization', elementwise.batchNorm],
  ['LayerNormalization', elementwise.layerNorm],
  ['ReduceMean', joins.reduce],
  ['ReduceSum', joins.reduce],
  ['GlobalAveragePool', joins.globalAveragePool],
  ['Concat', joins.concat],
  ['RMSNormalization', elementwise.rmsNorm],
  ...activationHandlers,
]);

/** Data movement that the walk follows through views. */
export const movementOperators: readonly string[] = [
  'Cast',
  'CastLike',
  'Dropout',
  'Expand',
  'Flatten',
  'Gather',
  'GatherElements',
  'GatherND',
  'Identity',
  'Pad',
  'Reshape',
  'Slice',
  'Split',
  'Squeeze',
  'Tile',
  'Transpose',
  'Trilu',
  'Unsqueeze',
];

/** Products run encrypted even when all their operands could be computed on the client. */
const boundary = new Set(['MatMul', 'Gemm', 'Conv', 'Attention', 'Softmax']);
/** Their results have a sound shape whatever came in, so checking resumes behind them. */
const restarting = new Set(['MatMul', 'Gemm', 'Conv', 'LayerNormalization', 'RMSNormalization']);

const integerHelp = 'export the part behind the embedding, with the embedding vectors as a float input';

export interface LoweredPort {
  readonly name: string;
  readonly draft: Draft;
}

export interface Lowered {
  readonly inputs: readonly { readonly input: GraphInput; readonly draft: Draft }[];
  readonly outputs: readonly LoweredPort[];
}

class Lowering implements Surroundings {
  readonly drafts = new Drafts();
  private readonly symbols = new Map<string, Symbol>();
  private readonly clusters: ReadonlyMap<string, Cluster>;
  private readonly nodes: readonly Node[];
  private readonly useCounts = new Map<string, number>();
  private readonly reportedInputs = new Set<string>();

  constructor(
    private readonly graph: ShapedGraph,
    private readonly problems: Diagnostics,
  ) {
    this.clusters = findClusters(graph);
    // A recognised cluster reads its source only; what it was written with is dead unless something else
    // needs it.
    const short = graph.nodes.map((node) => {
      const cluster = this.clusters.get(node.outputs[0] ?? '');
      return cluster === undefined ? node : { ...node, inputs: [cluster.source] };
    });
    this.nodes = liveNodes(short, graph.model.outputs);
    const count = (name: string) => this.useCounts.set(name, (this.useCounts.get(name) ?? 0) + 1);
    this.nodes.forEach((node) => node.inputs.forEach(count));
    graph.model.outputs.forEach(count);
  }

  symbol(value: string): Symbol | undefined {
    return this.symbols.get(value);
  }

  uses(value: string): number {
    return this.useCounts.get(value) ?? 0;
  }

  input(name: string): GraphInput | undefined {
    return this.graph.inputs.find((input) => input.name === name);
  }

  report(node: Node, code: FrontendCode, message: string, help?: string): void {
    this.problems.report({ code, message, node: node.name, help });
  }

  needsClient(inputs: ReadonlySet<string>): void {
    for (const name of inputs) {
      if (this.reportedInputs.has(name)) continue;
      this.reportedInputs.add(name);
      const dtype = this.input(name)?.dtype ?? 'integer';
      const message = `input "${name}" is ${dtype}: what depends on it would have to run on the client`;
      this.problems.report({ code: 'F205', message, node: name, help: integerHelp });
    }
  }

  run(): Lowered {
    const inputs = this.graph.inputs
      .filter((input) => this.uses(input.name) > 0)
      .map((input) => {
        const draft = this.drafts.input(input.name, elementCount(input.shape));
        const symbol: Symbol = isFloat(input.dtype)
          ? { kind: 'view', draft, index: null, scale: 1, shape: input.shape }
          : { kind: 'client', shape: input.shape, inputs: new Set([input.name]) };
        this.symbols.set(input.name, symbol);
        return { input, draft };
      });
    for (const node of this.nodes) this.visit(node);
    const outputs = this.graph.model.outputs.flatMap((name) => this.output(name));
    return { inputs, outputs };
  }

  private visit(node: Node): void {
    const kernel = kernelOf(node);
    const call = callOf(node, this.graph.model.opset, this.graph.values);
    // Trailing outputs that no operator of ours makes are read by nobody: the folder has checked that.
    const slots = node.outputs.flatMap((name, i) => (i === 0 || this.graph.values.has(name) ? [i] : []));
    const made = slots.map((i) => defined(node.outputs[i], 'output'));
    const shapes = made.map((name) => this.graph.values.get(name)?.shape);
    const operands = node.inputs.flatMap((name) => (name === '' ? [] : [this.operand(name)]));
    const isPrivate = operands.filter((symbol) => symbol !== undefined);
    const put = (symbols: readonly Symbol[]) =>
      symbols.forEach((symbol, i) => this.symbols.set(defined(made[i], 'output'), symbol));
    const opaque = () => put(made.map((_, i): Symbol => ({ kind: 'opaque', shape: shapes[i] ?? [] })));
    if (kernel === undefined || shapes.includes(undefined)) return opaque();
    const sizes = shapes as (readonly number[])[];
    if (isPrivate.every((symbol) => symbol.kind === 'client') && !boundary.has(node.opType)) {
      const inputs = new Set(
        isPrivate.flatMap((symbol) => (symbol.kind === 'client' ? [...symbol.inputs] : [])),
      );
      return put(sizes.map((shape): Symbol => ({ kind: 'client', shape, inputs })));
    }
    const tainted = isPrivate.some((symbol) => symbol.kind === 'opaque');
    const isCluster = this.clusters.has(node.outputs[0] ?? '');
    if (tainted && !restarting.has(node.opType) && !isCluster) {
      // Movement needs no handler; anything else without one is wrong whatever comes in.
      if (!handlers.has(node.opType) && !movementOperators.includes(node.opType)) {
        this.reportUnsupported(node);
      }
      return opaque();
    }
    try {
      put(this.lower(node, call, sizes, slots));
    } catch (error) {
      if (!(error instanceof AegisError)) throw error;
      if (!tainted) error.diagnostics.forEach((diagnostic) => this.problems.report(diagnostic));
      opaque();
    }
  }

  /** The symbol of a value, opaque where nothing is known of it, undefined where it is public. */
  private operand(name: string): Symbol | undefined {
    const symbol = this.symbols.get(name);
    if (symbol !== undefined || this.graph.values.get(name)?.data != null) return symbol;
    return { kind: 'opaque', shape: this.graph.values.get(name)?.shape ?? [] };
  }

  private reportUnsupported(node: Node): void {
    this.report(
      node,
      'F201',
      `operator ${node.opType} is not supported on encrypted values`,
      'see docs/onnx-support.md',
    );
  }

  private lower(
    node: Node,
    call: Call,
    shapes: readonly (readonly number[])[],
    slots: readonly number[],
  ): Symbol[] {
    const site = new Site(call, this);
    const shape = defined(shapes[0], 'shape');
    const cluster = this.clusters.get(node.outputs[0] ?? '');
    if (cluster !== undefined) {
      const source = this.operand(cluster.source) ?? site.fail('the source is public');
      return [elementwise.cluster(site, cluster, source, shape)];
    }
    const handler = handlers.get(node.opType);
    if (handler !== undefined) return [handler(site, shape)];
    if (!movementOperators.includes(node.opType)) {
      this.reportUnsupported(node);
      return shapes.map((own): Symbol => ({ kind: 'opaque', shape: own }));
    }
    const outputs = defined(kernelOf(node), 'kernel')(call);
    return slots.map((slot) => this.move(site, defined(outputs[slot], 'output')));
  }

  /** Follows the first operand through data movement. */
  private move(site: Site, output: Output): Symbol {
    const symbol = site.symbol(0);
    if (output.movement === undefined) return site.fail('converts encrypted values to another element type');
    if (symbol === undefined) return site.fail('the position in a table depends on encrypted data', 'F206');
    const count = elementCount(output.shape);
    if (count > maxViewElements) return site.fail(`${count} elements, more than ${maxViewElements}`, 'F102');
    if (symbol.kind === 'never') return { ...symbol, shape: output.shape };
    const moved = output.movement();
    if (symbol.kind === 'scores') return scores.reshapedScores(site, symbol, output.shape, moved);
    const view = site.asView(symbol);
    return { ...view, shape: output.shape, index: composeIndex(moved, view.index) };
  }

  private output(name: string): LoweredPort[] {
    const symbol = this.symbols.get(name);
    const known = this.graph.values.get(name);
    const refuseOutput = (message: string): LoweredPort[] => {
      this.problems.report({
        code: 'F202',
        message: `output "${name}" ${message}`,
        help: 'remove it from the model',
      });
      return [];
    };
    if (symbol?.kind === 'opaque' || known === undefined) return [];
    if (symbol === undefined) return refuseOutput('does not depend on the inputs');
    if (symbol.kind === 'client') {
      this.needsClient(symbol.inputs);
      return [];
    }
    if (symbol.kind === 'never' || !isFloat(known.dtype)) {
      return refuseOutput(`is ${known.dtype}, expected floating point`);
    }
    const maker = this.nodes.find((node) => node.outputs.includes(name));
    const node: Node = maker ?? {
      name,
      opType: 'output',
      domain: '',
      inputs: [],
      outputs: [],
      attributes: new Map(),
    };
    try {
      const site = new Site(callOf(node, this.graph.model.opset, this.graph.values), this);
      const { rows, columns } = matrixShape(symbol.shape);
      return [{ name, draft: site.matrix(site.asView(symbol), rows, columns) }];
    } catch (error) {
      if (!(error instanceof AegisError)) throw error;
      error.diagnostics.forEach((diagnostic) => this.problems.report(diagnostic));
      return [];
    }
  }
}

/** Throws one AegisError with everything that is wrong; `earlier` are the findings of shape propagation. */
export function lowerGraph(graph: ShapedGraph, earlier: readonly Diagnostic[]): Lowered {
  const problems = new Diagnostics();
  earlier.forEach((diagnostic) => problems.report(diagnostic));
  const lowered = new Lowering(graph, problems).run();
  if (!problems.failed && lowered.outputs.length < graph.model.outputs.length) {
    problems.report({ code: 'F202', message: 'an output depends on a node that cannot be followed' });
  }
  problems.throwIfAny();
  return lowered;
}
