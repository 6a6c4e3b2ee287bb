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
import { elementCount, isFloat, type Node, type Tensor } from '../model.js';
import { ClientGraph } from './client-graph.js';
import { findClusters, type Cluster } from './clusters.js';
import { Drafts, type Draft } from './drafts.js';
import { activationHandlers } from './handlers-activation.js';
import * as elementwise from './handlers-elementwise.js';
import * as norms from './handlers-norm.js';
import * as joins from './handlers-reduce.js';
import { chosenTokens } from './handlers-select.js';
import * as products from './handlers-linear.js';
import * as scores from './handlers-attention.js';
import { floatMasks } from './mask-inputs.js';
import type { MaskSamples } from './mask-probes.js';
import { Masks } from './masks.js';
import { productOperators } from './operators.js';
import { lowerOutputs, type LoweredPort } from './outputs.js';
import { maxViewElements, Site, type Surroundings } from './site.js';
import { composeIndex, type Client, type Symbol, type View } from './symbols.js';

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
  ['BatchNormalization', norms.batchNorm],
  ['LayerNormalization', norms.layerNorm],
  ['ReduceMean', joins.reduce],
  ['ReduceSum', joins.reduce],
  ['GlobalAveragePool', joins.globalAveragePool],
  ['Concat', joins.concat],
  ['RMSNormalization', norms.rmsNorm],
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

/** What keeps a node from running encrypted, though the client could run it after decryption. */
const deferrable: ReadonlySet<string> = new Set<FrontendCode>(['F201', 'F202']);
/** Their results have a sound shape whatever came in, so checking resumes behind them. */
const restarting = new Set(['MatMul', 'Gemm', 'Conv', 'LayerNormalization', 'RMSNormalization']);

/** An encrypted input: a float input of the model, or a value that the client computes. */
export interface LoweredInput {
  /** ONNX name of the value. */
  readonly name: string;
  readonly shape: readonly number[];
  readonly draft: Draft;
  readonly isClient: boolean;
}

export interface Lowered {
  readonly inputs: readonly LoweredInput[];
  readonly outputs: readonly LoweredPort[];
  readonly client: ClientGraph;
  /** Some outputs of the model are computed from `outputs` after decryption. */
  readonly hasEpilogue: boolean;
  /** Inputs that the client reads in the clear: integers, booleans and masks. */
  readonly given: readonly string[];
  /** Those that padding masks are made from. */
  readonly maskSources: ReadonlySet<string>;
  /** Of inputs that are masks themselves: values that drop nothing. */
  readonly openMasks: ReadonlyMap<string, Tensor>;
  /** Client values that have to be 1 everywhere, by what they stand for. */
  readonly conditions: ReadonlyMap<string, string>;
}

class Lowering implements Surroundings {
  readonly drafts = new Drafts();
  private readonly symbols = new Map<string, Symbol>();
  private readonly clusters: ReadonlyMap<string, Cluster>;
  private readonly nodes: readonly Node[];
  private readonly useCounts = new Map<string, number>();
  private readonly clientInputs = new Map<string, LoweredInput>();
  readonly client: ClientGraph;
  readonly masks: Masks;
  /** Inputs that the client reads in the clear. */
  private readonly given: readonly GraphInput[];

  constructor(
    private readonly graph: ShapedGraph,
    private readonly problems: Diagnostics,
    samples: MaskSamples,
  ) {
    this.client = new ClientGraph(graph);
    const masks = floatMasks(graph);
    const isGiven = ({ name, dtype }: GraphInput) =>
      !isFloat(dtype) || masks.has(name) || graph.fixed.has(name);
    this.given = graph.inputs.filter(isGiven);
    this.masks = new Masks(this.client, this.given, samples);
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

  report(node: Node, code: FrontendCode, message: string, help?: string): void {
    this.problems.report({ code, message, node: node.name, help });
  }

  encrypted({ name, shape }: Client): View {
    const { root, index } = this.client.rootOf(name);
    const value = this.client.float(root);
    const known = this.client.known(value);
    const draft = this.drafts.input(value, elementCount(known.shape));
    this.clientInputs.set(value, { name: value, shape: known.shape, draft, isClient: true });
    return { kind: 'view', draft, index, scale: 1, shape };
  }

  run(): Lowered {
    const inputs = this.graph.inputs.flatMap((input): LoweredInput[] => {
      const { name, shape } = input;
      if (this.uses(name) === 0) return [];
      if (this.given.includes(input)) {
        this.symbols.set(name, { kind: 'client', shape, name });
        return [];
      }
      const draft = this.drafts.input(name, elementCount(shape));
      this.symbols.set(name, { kind: 'view', draft, index: null, scale: 1, shape });
      return [{ name, shape, draft, isClient: false }];
    });
    for (const node of this.nodes) this.visit(node);
    const { outputs, hasEpilogue } = lowerOutputs(this.graph, this, this.problems);
    const { client, masks } = this;
    const all = [...inputs, ...this.clientInputs.values()];
    return {
      inputs: all,
      outputs,
      client,
      hasEpilogue,
      given: this.given.map(({ name }) => name),
      maskSources: masks.sources,
      openMasks: masks.open,
      conditions: masks.conditions,
    };
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
    if (isPrivate.every((symbol) => symbol.kind === 'client') && !this.isProduct(node)) {
      return put(
        sizes.map((shape, i): Symbol => ({ kind: 'client', shape, name: defined(made[i], 'output') })),
      );
    }
    const deferred = isPrivate.flatMap((symbol) => (symbol.kind === 'deferred' ? symbol.problems : []));
    const defer = (problems: readonly Diagnostic[]) =>
      put(sizes.map((shape): Symbol => ({ kind: 'deferred', shape, problems: [...new Set(problems)] })));
    const isUnsupported = !handlers.has(node.opType) && !movementOperators.includes(node.opType);
    const lost = isPrivate.some((symbol) => symbol.kind === 'opaque');
    if (deferred.length > 0 && !lost && !this.isBody(node)) {
      return defer(isUnsupported ? [...deferred, unsupported(node)] : deferred);
    }
    this.reportOnce(deferred);
    const tainted = lost || deferred.length > 0;
    if (tainted && !restarting.has(node.opType) && !this.isCluster(node)) {
      // Movement needs no handler; anything else without one is wrong whatever comes in.
      if (isUnsupported) this.problems.report(unsupported(node));
      return opaque();
    }
    try {
      put(this.lower(node, call, sizes, slots));
    } catch (error) {
      if (!(error instanceof AegisError)) throw error;
      const isLate = !this.isBody(node) && error.diagnostics.every(({ code }) => deferrable.has(code));
      if (!tainted && isLate) return defer(error.diagnostics);
      if (!tainted) error.diagnostics.forEach((diagnostic) => this.problems.report(diagnostic));
      opaque();
    }
  }

  private isCluster(node: Node): boolean {
    return this.clusters.has(node.outputs[0] ?? '');
  }

  /** Linear maps and normalisations of the body run encrypted, or the model is refused. */
  private isBody(node: Node): boolean {
    return productOperators.has(node.opType) || restarting.has(node.opType) || this.isCluster(node);
  }

  /** An outer product, as that of positions and frequencies, is no linear map of features. */
  private isProduct(node: Node): boolean {
    const inner = this.graph.values.get(node.inputs[0] ?? '')?.shape.at(-1);
    return productOperators.has(node.opType) && !(node.opType === 'MatMul' && inner === 1);
  }

  private reportOnce(problems: readonly Diagnostic[]): void {
    for (const one of new Set(problems)) if (!this.problems.list.includes(one)) this.problems.report(one);
  }

  /** The symbol of a value, opaque where nothing is known of it, undefined where it is public. */
  private operand(name: string): Symbol | undefined {
    const symbol = this.symbols.get(name);
    if (symbol !== undefined || this.graph.values.get(name)?.data != null) return symbol;
    return { kind: 'opaque', shape: this.graph.values.get(name)?.shape ?? [] };
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
    if (!movementOperators.includes(node.opType)) throw new AegisError(unsupported(node));
    const isChoice = [1, 2].some((i) => site.symbol(i)?.kind === 'client') && site.symbol(0) !== undefined;
    if (isChoice) return [chosenTokens(site, shape)];
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
}

function unsupported(node: Node): Diagnostic {
  return {
    code: 'F201' satisfies FrontendCode,
    message: `operator ${node.opType} is not supported on encrypted values`,
    node: node.name,
    help: 'see docs/onnx-support.md',
  };
}

/**
 * Throws one AegisError with everything that is wrong; `earlier` are the findings of shape propagation,
 * `samples` show what masks are like.
 */
export function lowerGraph(
  graph: ShapedGraph,
  earlier: readonly Diagnostic[],
  samples: MaskSamples = {},
): Lowered {
  const problems = new Diagnostics();
  earlier.forEach((diagnostic) => problems.report(diagnostic));
  const lowered = new Lowering(graph, problems, samples).run();
  problems.throwIfAny();
  return lowered;
}
