/**
 * The part of a graph that the client computes in the clear: nodes of the model whose operands are client
 * inputs and constants, and nodes that the walk adds for a value in the form an encrypted operator takes.
 */
import { defined } from '../../support/invariant.js';
import { callOf, type ShapedGraph } from '../evaluate.js';
import { kernelOf } from '../kernels/table.js';
import { elementCount, type Attribute, type Known, type Node, type Tensor } from '../model.js';
import { neededNodes, type ClientSource } from '../write-onnx.js';
import { composeIndex } from './symbols.js';

export class ClientGraph {
  private readonly values: Map<string, Known>;
  private readonly makers = new Map<string, Node>();
  private readonly made = new Map<string, string>();
  private readonly nodes: Node[];
  private readonly aliases = new Map<string, string>();
  private next = 0;

  constructor(private readonly graph: ShapedGraph) {
    this.values = new Map(graph.values);
    this.nodes = [...graph.nodes];
    for (const node of graph.nodes) for (const output of node.outputs) this.makers.set(output, node);
  }

  known(name: string): Known {
    return defined(this.values.get(name), `value ${name}`);
  }

  /** What a client model is written from. */
  get source(): ClientSource {
    const { graph, values, nodes } = this;
    return { name: graph.model.name, opset: graph.model.opset, values, nodes };
  }

  constant(tensor: Tensor): string {
    const name = this.fresh();
    this.values.set(name, tensor);
    return name;
  }

  ints(...values: readonly number[]): string {
    return this.constant({
      dtype: 'int64',
      shape: [values.length],
      data: BigInt64Array.from(values, (value) => BigInt(value)),
    });
  }

  /** The value of a new node; equal nodes are made once. */
  apply(
    opType: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, Attribute>> = {},
  ): string {
    const key = JSON.stringify([opType, inputs.map((name) => this.keyOf(name)), attributes]);
    const same = this.made.get(key);
    if (same !== undefined) return same;
    const name = this.fresh();
    const node: Node = {
      name,
      opType,
      domain: '',
      inputs,
      outputs: [name],
      attributes: new Map(Object.entries(attributes)),
    };
    const [output] = defined(
      kernelOf(node),
      `kernel of ${opType}`,
    )(callOf(node, this.graph.model.opset, this.values));
    const { dtype, shape } = defined(output, `output of ${opType}`);
    this.values.set(name, { dtype, shape, data: null });
    this.makers.set(name, node);
    this.nodes.push(node);
    this.made.set(key, name);
    return name;
  }

  /** A float value that is given from outside, under a new name. */
  declare(shape: readonly number[]): string {
    const name = this.fresh();
    this.values.set(name, { dtype: 'float32', shape, data: null });
    return name;
  }

  /** Another name, read instead of what the model makes under it. */
  alias(name: string, value: string): void {
    this.aliases.set(name, value);
  }

  valueOf(name: string): string {
    return this.aliases.get(name) ?? name;
  }

  /** The value in another shape. */
  reshape(name: string, shape: readonly number[]): string {
    if (this.known(name).shape.join() === shape.join()) return name;
    return this.apply('Reshape', [name, this.ints(...shape)]);
  }

  /** The value for given inputs of the model. */
  evaluate(name: string, given: ReadonlyMap<string, Tensor>): Tensor {
    const values = new Map(this.values);
    given.forEach((tensor, input) => values.set(input, tensor));
    for (const node of this.nodesOf(name)) {
      const outputs = defined(
        kernelOf(node),
        `kernel of ${node.opType}`,
      )(callOf(node, this.graph.model.opset, values));
      node.outputs.forEach((output, i) => {
        const made = outputs[i];
        if (output !== '' && made !== undefined) values.set(output, { ...made, data: made.data() });
      });
    }
    const { dtype, shape, data } = defined(values.get(name), `value ${name}`);
    return { dtype, shape, data: defined(data, `data of ${name}`) };
  }

  /** Constants that enter the value. */
  constantsOf(name: string): Tensor[] {
    return this.nodesOf(name).flatMap((node) =>
      node.inputs.flatMap((input) => {
        const known = this.values.get(input);
        return known?.data == null ? [] : [{ ...known, data: known.data }];
      }),
    );
  }

  /** A sum with a constant, as the constant and the rest. */
  plusConstant(name: string): { readonly rest: string; readonly tensor: Tensor } | undefined {
    const node = this.makers.get(name);
    if (node?.opType !== 'Add') return undefined;
    const at = node.inputs.findIndex((input) => this.known(input).data !== null);
    const [constant, rest] = [node.inputs[at], node.inputs[1 - at]];
    if (constant === undefined || rest === undefined) return undefined;
    const { data, ...known } = this.known(constant);
    return data === null ? undefined : { rest, tensor: { ...known, data } };
  }

  /** Inputs of the model that the value depends on. */
  inputsOf(name: string): string[] {
    const read = new Set([name, ...this.nodesOf(name).flatMap((node) => node.inputs)]);
    return this.graph.inputs.map((input) => input.name).filter((input) => read.has(input));
  }

  private nodesOf(name: string): Node[] {
    return neededNodes(this.source, [], [{ name, value: name }]);
  }

  /** Where two floats of single precision differ by less than `tolerance`. */
  near(a: string, b: string, tolerance: number): string {
    const limit = this.constant({ dtype: 'float32', shape: [1], data: Float32Array.of(tolerance) });
    return this.apply('Less', [this.apply('Abs', [this.apply('Sub', [a, b])]), limit]);
  }

  /** As a float of single precision. */
  float(name: string): string {
    return this.known(name).dtype === 'float32' ? name : this.apply('Cast', [name], { to: 1 });
  }

  /**
   * The value that this one is a rearrangement of, every element once, so that one encryption serves both;
   * `index`: flat index of every element in the root, null for the same order.
   */
  rootOf(name: string): { readonly root: string; readonly index: Int32Array | null } {
    let [root, index]: [string, Int32Array | null] = [name, null];
    for (;;) {
      const moved = this.movement(root);
      if (moved === undefined) return { root, index };
      index = composeIndex(index, moved.index);
      root = moved.source;
    }
  }

  private movement(name: string): { source: string; index: Int32Array | null } | undefined {
    const node = this.makers.get(name);
    const source = node?.inputs[0];
    if (node === undefined || source === undefined || node.outputs.length > 1) return undefined;
    const [first, ...rest] = node.inputs.map((input) => this.values.get(input));
    if (first === undefined || first.data !== null) return undefined;
    if (rest.some((known) => known !== undefined && known.data === null)) return undefined;
    const [output] = kernelOf(node)?.(callOf(node, this.graph.model.opset, this.values)) ?? [];
    const count = elementCount(first.shape);
    if (output?.movement === undefined || elementCount(output.shape) !== count) return undefined;
    const index = output.movement();
    if (index === null) return { source, index };
    const seen = new Uint8Array(count);
    for (const i of index) {
      if (i < 0 || seen[i] === 1) return undefined;
      seen[i] = 1;
    }
    return { source, index };
  }

  /** Constants of equal content are one operand. */
  private keyOf(name: string): string {
    const known = this.values.get(name);
    if (known?.data == null || elementCount(known.shape) > 64) return name;
    return `${known.dtype}[${known.shape.join()}]=${Array.from(known.data, String).join()}`;
  }

  private fresh(): string {
    for (;;) {
      const name = `client${this.next++}`;
      if (!this.values.has(name)) return name;
    }
  }
}
