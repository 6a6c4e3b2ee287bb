/**
 * The client's share of a model, run in the clear: from the model's inputs to the values it encrypts, and
 * from what it decrypts to the model's outputs. The parts come from files and are untrusted.
 */
import { isWitness, type ClientParts, type Port } from '../ir/module.js';
import { AegisError, Diagnostics } from '../support/diagnostics.js';
import { defined } from '../support/invariant.js';
import { bindInputs } from './bind.js';
import {
  runGraph,
  shapeGraph,
  toTensor,
  type GraphInput,
  type InputData,
  type ShapedGraph,
} from './evaluate.js';
import { kernelOf } from './kernels/table.js';
import { elementCount, isFloat, refuse, type DType, type Known, type Tensor } from './model.js';
import { readOnnx } from './onnx.js';
import { isOpenMask, openName } from './write-onnx.js';

/** Values of one run, 8 bytes each: far above any embedding, and a bound for hostile plans. */
const maxValues = 2 ** 27;

type NamedPort = Pick<Port, 'name' | 'shape'>;
export type ClientValues = Readonly<Record<string, Float64Array>>;

/** An input of the model, as the data owner gives it. */
export interface ClientInput {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: DType;
  /** Integers below this, where they choose rows of a table. */
  readonly limit: number | undefined;
  /** Values that drop no token, of an input that is a mask itself. */
  readonly open: Float64Array | undefined;
}

export interface ClientOutput {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: Float64Array;
}

export interface ClientDescription {
  readonly part: string;
  readonly inputs: readonly GraphInput[];
  readonly outputs: readonly string[];
  /** Nodes by operator. */
  readonly operators: Readonly<Record<string, number>>;
  /** Values of its tables. */
  readonly constants: number;
}

export class ClientProgram {
  /** Everything that `encode` reads. */
  readonly inputs: readonly ClientInput[];
  private readonly prologue: ShapedGraph | undefined;
  private readonly epilogue: ShapedGraph | undefined;
  private readonly outputPorts: readonly NamedPort[];

  /** Without parts, the ports are the model's inputs and outputs. Error: F301. */
  constructor(
    parts: ClientParts | undefined,
    private readonly inputPorts: readonly NamedPort[],
    ports: readonly NamedPort[],
  ) {
    this.outputPorts = ports.filter(({ name }) => !isWitness(name));
    const { outputPorts } = this;
    this.prologue = readPart(parts?.prologue, 'prologue');
    this.epilogue = readPart(parts?.epilogue, 'epilogue');
    checkPrologue(this.prologue, inputPorts);
    checkEpilogue(this.epilogue, outputPorts);
    const made = new Set(this.prologue?.model.outputs);
    const direct = inputPorts.filter(({ name }) => !made.has(name));
    this.inputs = [
      ...(this.prologue === undefined
        ? []
        : this.prologue.inputs.map((one) => withLimit(this.prologue, one))),
      ...direct.map(({ name, shape }) => ({
        name,
        shape,
        dtype: 'float32' as const,
        limit: undefined,
        open: undefined,
      })),
    ];
  }

  /** True if outputs are not what is decrypted. */
  get hasEpilogue(): boolean {
    return this.epilogue !== undefined;
  }

  /** The model's outputs, in order, with their shapes. */
  get outputs(): readonly NamedPort[] {
    const { epilogue } = this;
    if (epilogue === undefined) return this.outputPorts;
    return epilogue.model.outputs.map((name) => ({ name, shape: knownOf(epilogue, name).shape }));
  }

  /** The parts there are, for people. */
  describe(): ClientDescription[] {
    const parts = { prologue: this.prologue, epilogue: this.epilogue };
    return Object.entries(parts).flatMap(([part, graph]) => {
      if (graph === undefined) return [];
      const operators: Record<string, number> = {};
      for (const { opType } of graph.nodes) operators[opType] = (operators[opType] ?? 0) + 1;
      const constants = [...graph.model.initializers.values()];
      return [
        {
          part,
          inputs: graph.inputs.map(({ name, dtype, shape }) => ({ name, dtype, shape })),
          outputs: graph.model.outputs.filter((name) => !isOpenMask(name)),
          operators,
          constants: constants.reduce((sum, { shape }) => sum + elementCount(shape), 0),
        },
      ];
    });
  }

  /** Values of the input ports. Errors: F115 a value is missing or malformed, F302 it is refused. */
  encode(values: Readonly<Record<string, InputData | undefined>>): Record<string, Float64Array> {
    const made = this.prologue === undefined ? new Map<string, Tensor>() : run(this.prologue, values);
    const ports = new Set(this.inputPorts.map(({ name }) => name));
    for (const [name, { data }] of made) {
      if (ports.has(name) || isOpenMask(name)) continue;
      if (data.every((value: number | bigint) => Number(value) === 1)) continue;
      refuse({
        code: 'F302',
        message: `the input does not keep to: ${name}`,
        help: 'compile for such inputs',
      });
    }
    return Object.fromEntries(
      this.inputPorts.map((port) => {
        const own = made.get(port.name);
        if (own !== undefined) return [port.name, Float64Array.from(own.data as ArrayLike<number>)];
        const { data } = toTensor({ ...port, dtype: 'float32' }, values[port.name]);
        return [port.name, Float64Array.from(data as ArrayLike<number>)];
      }),
    );
  }

  /** The model's outputs out of the output ports' values. */
  decode(values: ClientValues): readonly ClientOutput[] {
    if (this.epilogue === undefined) {
      return this.outputPorts.map(({ name, shape }) => {
        return { name, shape, data: defined(values[name], `output ${name}`) };
      });
    }
    return [...run(this.epilogue, values)].map(([name, { shape, data }]) => {
      return { name, shape, data: Float64Array.from(data as ArrayLike<number | bigint>, Number) };
    });
  }
}

/** Values outside of a table, or shapes that depend on them, show when the part runs. */
function run(
  graph: ShapedGraph,
  values: Readonly<Record<string, InputData | undefined>>,
): Map<string, Tensor> {
  const given = new Map(graph.inputs.map((input) => [input.name, toTensor(input, values[input.name])]));
  try {
    return runGraph(graph, given);
  } catch (error) {
    if (!(error instanceof AegisError)) throw error;
    const [first] = error.diagnostics;
    return refuse({
      code: 'F302',
      message: first?.message ?? '',
      node: first?.node,
      help: 'check the inputs',
    });
  }
}

function readPart(bytes: Uint8Array | null | undefined, what: string): ShapedGraph | undefined {
  if (bytes === null || bytes === undefined) return undefined;
  try {
    const model = readOnnx(bytes, () => undefined);
    const problems = new Diagnostics();
    const graph = shapeGraph(model, bindInputs(model, {}), problems);
    problems.throwIfAny();
    checkSize(graph);
    return graph;
  } catch (error) {
    if (!(error instanceof AegisError)) throw error;
    return damaged(`${what}: ${error.diagnostics[0]?.message ?? ''}`);
  }
}

/** Every value has a shape, and all of them fit memory. */
function checkSize(graph: ShapedGraph): void {
  let count = 0;
  for (const node of graph.nodes) {
    if (kernelOf(node) === undefined) damaged(`operator ${node.opType} is not known`);
    for (const name of node.outputs) if (name !== '') count += elementCount(knownOf(graph, name).shape);
  }
  for (const name of graph.model.outputs) count += elementCount(knownOf(graph, name).shape);
  if (count > maxValues) damaged(`it computes ${count} values, more than ${maxValues}`);
}

function knownOf(graph: ShapedGraph, name: string): Known {
  return graph.values.get(name) ?? damaged(`value "${name}" has no shape`);
}

function checkPrologue(graph: ShapedGraph | undefined, ports: readonly NamedPort[]): void {
  if (graph === undefined) return;
  const made = new Set(graph.model.outputs);
  for (const port of ports) if (made.has(port.name)) checkPort(graph, port, 'prologue');
}

function checkEpilogue(graph: ShapedGraph | undefined, ports: readonly NamedPort[]): void {
  for (const { name } of graph?.inputs ?? []) {
    const port = ports.find((own) => own.name === name) ?? damaged(`epilogue: there is no output "${name}"`);
    if (graph !== undefined) checkPort(graph, port, 'epilogue');
  }
}

/** A real tensor of the port's size. */
function checkPort(graph: ShapedGraph, { name, shape }: NamedPort, what: string): void {
  const known = knownOf(graph, name);
  if (isFloat(known.dtype) && elementCount(known.shape) === elementCount(shape)) return;
  damaged(`${what}: "${name}" is ${known.dtype} [${known.shape.join(', ')}], not [${shape.join(', ')}]`);
}

function damaged(message: string): never {
  return refuse({
    code: 'F301',
    message: `the plan's client part: ${message}`,
    help: 'compile the model again',
  });
}

/** Movements that keep integers as they are. */
const keeping = new Set([
  'Cast',
  'Expand',
  'Flatten',
  'Identity',
  'Reshape',
  'Squeeze',
  'Transpose',
  'Unsqueeze',
]);

/** The smallest table that an integer input chooses rows of. */
export function withLimit(graph: ShapedGraph | undefined, { name, shape, dtype }: GraphInput): ClientInput {
  const same = new Set([name]);
  let limit: number | undefined;
  for (const node of graph?.nodes ?? []) {
    const [first = '', second = ''] = node.inputs;
    if (keeping.has(node.opType) && same.has(first)) node.outputs.forEach((output) => same.add(output));
    if (node.opType !== 'Gather' || !same.has(second)) continue;
    const table = graph?.values.get(first)?.shape ?? [];
    const axis = Number(node.attributes.get('axis') ?? 0);
    const size = table.at(axis);
    if (size !== undefined) limit = Math.min(limit ?? Infinity, size);
  }
  const open = graph?.values.get(openName(name))?.data ?? undefined;
  return { name, shape, dtype, limit, open: open && Float64Array.from(open as ArrayLike<number>, Number) };
}
