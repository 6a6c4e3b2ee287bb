/** Shape propagation, constant folding and clear evaluation of an ONNX graph: one walk, three uses. */
import { AegisError, Diagnostics } from '../support/diagnostics.js';
import { defined } from '../support/invariant.js';
import { expandFused, helpFor, isFused } from './fused/table.js';
import { Call, type Output } from './kernels/call.js';
import { kernelOf, workPerElement } from './kernels/table.js';
import {
  containerOf,
  elementCount,
  isFloat,
  refuse,
  type Data,
  type DType,
  type Known,
  type Node,
  type OnnxModel,
  type Tensor,
} from './model.js';

export interface GraphInput {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** A graph at fixed shapes: what is public is evaluated, what is private has a shape. */
export interface ShapedGraph {
  readonly model: OnnxModel;
  readonly inputs: readonly GraphInput[];
  /** Shapes of all values, data of the public ones; values behind unknown operators are missing. */
  readonly values: ReadonlyMap<string, Known>;
  /** Nodes that an output needs and that depend on an input, in order. */
  readonly nodes: readonly Node[];
  /** Values that inputs are taken to have. */
  readonly fixed: ReadonlyMap<string, Tensor>;
}

/**
 * Folding is for masks, positions and weights: these bounds are far above any of them, and stop hostile
 * files.
 */
const maxFoldedElements = 2 ** 26;
const maxFoldedWork = 2 ** 33;

/** Nodes from which an output can be reached, in order. */
export function liveNodes(nodes: readonly Node[], outputs: readonly string[]): Node[] {
  const needed = new Set(outputs);
  const live: Node[] = [];
  for (const node of [...nodes].reverse()) {
    if (!node.outputs.some((output) => needed.has(output))) continue;
    node.inputs.forEach((input) => needed.add(input));
    live.push(node);
  }
  return live.reverse();
}

export function callOf(node: Node, opset: number, values: ReadonlyMap<string, Known>): Call {
  return new Call(
    node,
    opset,
    node.inputs.map((input) => (input === '' ? undefined : values.get(input))),
  );
}

function assign(node: Node, outputs: readonly Output[], put: (name: string, output: Output) => void): void {
  node.outputs.forEach((name, i) => {
    const output = outputs[i];
    if (name !== '' && output !== undefined) put(name, output);
  });
}

class Folder {
  readonly values = new Map<string, Known>();
  readonly nodes: Node[] = [];
  private elements = 0;
  private work = 0;
  private readonly used: ReadonlySet<string>;
  readonly live: readonly Node[];
  constructor(
    readonly model: OnnxModel,
    private readonly problems: Diagnostics,
  ) {
    this.live = liveNodes(model.nodes, model.outputs);
    this.used = new Set([...model.outputs, ...this.live.flatMap((node) => node.inputs)]);
  }

  visit(node: Node): void {
    const kernel = kernelOf(node);
    if (kernel === undefined && this.expanded(node)) return;
    if (kernel === undefined) {
      const domain = node.domain === '' ? '' : `${node.domain}.`;
      this.problems.report({
        code: 'F201',
        message: `operator ${domain}${node.opType} is not known`,
        node: node.name,
        help: helpFor(node),
      });
      this.nodes.push(node);
      return;
    }
    if (node.inputs.some((input) => input !== '' && !this.values.has(input))) {
      this.nodes.push(node);
      return;
    }
    const call = callOf(node, this.model.opset, this.values);
    // Only shapes enter these two, so they are public whatever they look at.
    const shapeOnly = node.opType === 'Shape' || node.opType === 'Size';
    const isPublic = shapeOnly || call.inputs.every((input) => input === undefined || input.data !== null);
    try {
      const outputs = kernel(call);
      const extra = node.outputs.findIndex(
        (name, i) => i >= outputs.length && name !== '' && this.used.has(name),
      );
      if (extra >= 0) call.fail(`output ${extra} is not known`, 'F201');
      if (isPublic) this.charge(node, call, outputs);
      else this.nodes.push(node);
      assign(node, outputs, (name, { dtype, shape, data }) => {
        this.values.set(name, { dtype, shape, data: isPublic ? data() : null });
      });
    } catch (error) {
      if (!(error instanceof AegisError)) throw error;
      error.diagnostics.forEach((diagnostic) => this.problems.report(diagnostic));
      this.nodes.push(node);
    }
  }

  /** Visits the standard operators that a fused one stands for. */
  private expanded(node: Node): boolean {
    if (!isFused(node)) return false;
    if (node.inputs.some((input) => input !== '' && !this.values.has(input))) {
      this.nodes.push(node);
      return true;
    }
    try {
      const expansion = expandFused(node, (value) => this.values.get(value));
      expansion.constants.forEach((tensor, name) => this.values.set(name, tensor));
      expansion.nodes.forEach((own) => this.visit(own));
      return true;
    } catch (error) {
      if (!(error instanceof AegisError)) throw error;
      error.diagnostics.forEach((diagnostic) => this.problems.report(diagnostic));
      this.nodes.push(node);
      return true;
    }
  }

  private charge(node: Node, call: Call, outputs: readonly Output[]): void {
    const count = outputs.reduce((sum, output) => sum + elementCount(output.shape), 0);
    const inputs = call.inputs.reduce(
      (sum, input) => sum + (input === undefined ? 0 : elementCount(input.shape)),
      0,
    );
    this.elements += node.opType === 'Constant' ? 0 : count;
    this.work +=
      inputs
      + count
        * workPerElement(
          node,
          call.inputs.map((input) => input?.shape),
        );
    if (this.elements > maxFoldedElements || this.work > maxFoldedWork) {
      refuse({
        code: 'F114',
        message: 'evaluating the public part of the graph takes too much',
        node: node.name,
      });
    }
  }
}

/** Gives every value a shape and evaluates what does not depend on the inputs. */
export function shapeGraph(
  model: OnnxModel,
  inputs: readonly GraphInput[],
  problems: Diagnostics,
  fixed: ReadonlyMap<string, Tensor> = new Map(),
): ShapedGraph {
  const folder = new Folder(model, problems);
  model.initializers.forEach((tensor, name) => folder.values.set(name, tensor));
  inputs.forEach(({ name, dtype, shape }) => {
    folder.values.set(name, fixed.get(name) ?? { dtype, shape, data: null });
  });
  for (const node of folder.live) folder.visit(node);
  return { model, inputs, values: folder.values, nodes: folder.nodes, fixed };
}

export type InputData = ArrayLike<number> | ArrayLike<bigint>;

/** Row-major values as an input of the graph. Error: F115, also for fractions where integers are wanted. */
export function toTensor(input: GraphInput, values: InputData | undefined): Tensor {
  const count = elementCount(input.shape);
  const wrong = (what: string) => refuse({ code: 'F115', message: `input "${input.name}" ${what}` });
  if (values?.length !== count) return wrong(`needs ${count} values but has ${values?.length ?? 'none'}`);
  const data: Data = containerOf(input.dtype, count);
  for (let i = 0; i < count; i++) {
    const value = values[i] as number | bigint;
    if (typeof value === 'number' && !isFloat(input.dtype) && !Number.isSafeInteger(value)) {
      return wrong(`is ${input.dtype} but has ${value} at index ${i}`);
    }
    if (data instanceof BigInt64Array) data[i] = BigInt(value);
    else data[i] = Number(value);
  }
  return { dtype: input.dtype, shape: input.shape, data };
}

/** Runs the private nodes on given inputs. */
export function runGraph(graph: ShapedGraph, given: ReadonlyMap<string, Tensor>): Map<string, Tensor> {
  const values = new Map(graph.values);
  given.forEach((tensor, name) => values.set(name, tensor));
  for (const node of graph.nodes) {
    const kernel = defined(kernelOf(node), `kernel of ${node.opType}`);
    const outputs = kernel(callOf(node, graph.model.opset, values));
    assign(node, outputs, (name, { dtype, shape, data }) => values.set(name, { dtype, shape, data: data() }));
  }
  return new Map(
    graph.model.outputs.map((name) => {
      const value = defined(values.get(name), `output ${name}`);
      return [name, { ...value, data: defined(value.data, `data of ${name}`) }];
    }),
  );
}
