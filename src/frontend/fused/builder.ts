/** What an expansion of a fused operator is written with: it stands for its node at the node's shapes. */
import {
  refuse,
  type Attribute,
  type Data,
  type DType,
  type Known,
  type Node,
  type Tensor,
} from '../model.js';

export type Operand = string | Tensor;
export type Attributes = Readonly<Record<string, Attribute>>;

/** Nodes of standard operators and constants in place of one node. */
export interface Expansion {
  readonly nodes: readonly Node[];
  readonly constants: ReadonlyMap<string, Tensor>;
}

export class ExpansionBuilder {
  private readonly nodes: Node[] = [];
  private readonly constants = new Map<string, Tensor>();

  constructor(
    readonly node: Node,
    private readonly known: (value: string) => Known | undefined,
  ) {}

  fail(message: string, help?: string): never {
    return refuse({ code: 'F202', message: `${this.node.opType}: ${message}`, node: this.node.name, help });
  }

  has(index: number): boolean {
    return (this.node.inputs[index] ?? '') !== '';
  }

  /** The name of an input that must be there. */
  input(index: number): string {
    const name = this.node.inputs[index] ?? '';
    return name === '' ? this.fail(`input ${index} is missing`) : name;
  }

  shape(index: number): readonly number[] {
    return this.known(this.input(index))?.shape ?? this.fail(`input ${index} has no shape`);
  }

  dtype(index: number): DType {
    return this.known(this.input(index))?.dtype ?? this.fail(`input ${index} has no element type`);
  }

  /** Numbers of an input that must be public. */
  values(index: number): readonly number[] {
    const known = this.known(this.input(index));
    if (known?.data == null) return this.fail(`input ${index} must not depend on encrypted data`);
    return Array.from(known.data as ArrayLike<number | bigint>, Number);
  }

  number(name: string, fallback: number): number {
    const value = this.node.attributes.get(name) ?? fallback;
    return typeof value === 'number' ? value : this.fail(`attribute ${name} is not a number`);
  }

  numbers(name: string): readonly number[] | undefined {
    const value = this.node.attributes.get(name);
    if (value === undefined) return undefined;
    const sound = Array.isArray(value) && value.every((one) => typeof one === 'number');
    return sound ? (value as readonly number[]) : this.fail(`attribute ${name} is not a list of numbers`);
  }

  text(name: string, fallback: string): string {
    const value = this.node.attributes.get(name) ?? fallback;
    return typeof value === 'string' ? value : this.fail(`attribute ${name} is not a string`);
  }

  /** Attributes that would change the meaning unnoticed. */
  allow(...names: readonly string[]): void {
    const unknown = [...this.node.attributes.keys()].find((name) => !names.includes(name));
    if (unknown !== undefined) this.fail(`attribute ${unknown} is not known`);
  }

  /** Caches, biases and other inputs beyond those that are expanded. */
  only(...indices: readonly number[]): void {
    const unknown = this.node.inputs.findIndex((name, i) => name !== '' && !indices.includes(i));
    if (unknown >= 0) this.fail(`input ${unknown} is not supported`, 'export without caches');
  }

  step(opType: string, inputs: readonly (Operand | undefined)[], attributes: Attributes = {}): string {
    return this.steps(opType, inputs, 1, attributes)[0] ?? '';
  }

  steps(
    opType: string,
    inputs: readonly (Operand | undefined)[],
    count: number,
    attributes: Attributes = {},
  ): string[] {
    const place = `${this.node.outputs.find((name) => name !== '') ?? this.node.name}/${this.nodes.length}`;
    const outputs = Array.from({ length: count }, (_, i) => `${place}/${opType}${i}`);
    this.push(opType, inputs, outputs, attributes);
    return outputs;
  }

  /** The node's output `index` is the value; nothing if the node has no such output. */
  result(index: number, value: string): void {
    const name = this.node.outputs[index] ?? '';
    if (name !== '') this.push('Identity', [value], [name], {});
  }

  finish(): Expansion {
    return { nodes: this.nodes, constants: this.constants };
  }

  private push(
    opType: string,
    inputs: readonly (Operand | undefined)[],
    outputs: readonly string[],
    attributes: Attributes,
  ): void {
    const names = inputs.map((operand) =>
      operand === undefined ? '' : typeof operand === 'string' ? operand : this.constant(operand),
    );
    while (names.at(-1) === '') names.pop();
    const { name } = this.node;
    const own = new Map(Object.entries(attributes));
    this.nodes.push({ name, opType, domain: '', inputs: names, outputs, attributes: own });
  }

  private constant(tensor: Tensor): string {
    const first = this.node.outputs.find((output) => output !== '') ?? this.node.name;
    const name = `${first}/constant${this.constants.size}`;
    this.constants.set(name, tensor);
    return name;
  }
}

const tensor = (dtype: DType, shape: readonly number[], data: Data): Tensor => ({ dtype, shape, data });

/** A number of the element type of a float value. */
export function scalar(value: number, dtype: DType = 'float32'): Tensor {
  return tensor(dtype, [], Float64Array.of(value));
}

export function int64s(...values: number[]): Tensor {
  return tensor('int64', [values.length], BigInt64Array.from(values, BigInt));
}

export function int64(value: number): Tensor {
  return tensor('int64', [], BigInt64Array.of(BigInt(value)));
}
