/** Part of a shaped graph as an ONNX file of its own: the client's share of a model. */
import onnxProto from 'onnx-proto';
import type { onnx } from 'onnx-proto';
import type { ClientParts } from '../ir/module.js';
import { defined, invariant } from '../support/invariant.js';
import { isFloat, type Attribute, type DType, type Known, type Node, type Tensor } from './model.js';

/** Values, and the nodes that make those without data, in order. */
export interface ClientSource {
  readonly name: string;
  readonly opset: number;
  readonly values: ReadonlyMap<string, Known>;
  readonly nodes: readonly Node[];
}

/** A named result, and the value that it is. */
export interface ClientOutput {
  readonly name: string;
  readonly value: string;
}

const openPrefix = 'open mask: ';

/** Output of a prologue that is a constant: values of a mask input that drop no token. */
export function openName(input: string): string {
  return `${openPrefix}${input}`;
}

export function isOpenMask(output: string): boolean {
  return output.startsWith(openPrefix);
}

/** Of the ONNX versions that know opsets 11 to 24. */
const irVersion = 8;
/** Integral values of these are floats all the same. */
const floatAttributes = new Set(['alpha', 'beta', 'bias', 'epsilon', 'gamma', 'lambd', 'scale', 'softcap']);

const codes: Readonly<Record<DType, number>> = {
  // The evaluator computes in double precision whatever the type: narrower floats are kept as float32.
  float16: 1,
  bfloat16: 1,
  float32: 1,
  uint8: 2,
  int8: 3,
  uint16: 4,
  int16: 5,
  int32: 6,
  int64: 7,
  bool: 9,
  float64: 11,
  uint32: 12,
};

/**
 * The nodes that `outputs` need, with the constants they read, as ONNX. What `inputs` names is given from
 * outside, whatever makes it; those that nothing reads are left out.
 */
export function writeOnnx(
  source: ClientSource,
  inputs: readonly string[],
  outputs: readonly ClientOutput[],
): Uint8Array {
  const nodes = neededNodes(source, inputs, outputs);
  const given = new Set(inputs);
  const read = new Set([...nodes.flatMap((node) => node.inputs), ...outputs.map(({ value }) => value)]);
  const constants = [...read].filter((name) => !given.has(name) && source.values.get(name)?.data != null);
  const renamed = outputs.filter(({ name, value }) => name !== value);
  const bytes = onnxProto.onnx.ModelProto.encode({
    irVersion,
    opsetImport: [{ domain: '', version: source.opset }],
    graph: {
      name: source.name,
      input: inputs
        .filter((name) => read.has(name))
        .map((name) => valueInfo(name, defined(source.values.get(name), name))),
      output: outputs.map(({ name, value }) => valueInfo(name, defined(source.values.get(value), value))),
      initializer: constants.map((name) => {
        const { dtype, shape, data } = defined(source.values.get(name), name);
        return tensorProto(name, { dtype, shape, data: defined(data, `data of ${name}`) });
      }),
      node: [
        ...nodes.map(nodeProto),
        ...renamed.map(({ name, value }) => ({ name, opType: 'Identity', input: [value], output: [name] })),
      ],
    },
  }).finish();
  return Uint8Array.from(bytes);
}

/** Nodes that `outputs` depend on, in order, up to what is given. */
export function neededNodes(
  { nodes, values }: ClientSource,
  inputs: readonly string[],
  outputs: readonly ClientOutput[],
): Node[] {
  const given = new Set(inputs);
  const needed = new Set(outputs.map(({ value }) => value));
  const result: Node[] = [];
  for (const node of [...nodes].reverse()) {
    const makes = (name: string) => needed.has(name) && !given.has(name) && values.get(name)?.data == null;
    if (!node.outputs.some(makes)) continue;
    node.inputs.forEach((name) => needed.add(name));
    result.push(node);
  }
  return result.reverse();
}

function valueInfo(name: string, { dtype, shape }: Known): onnx.IValueInfoProto {
  const dim = shape.map((size) => ({ dimValue: size }));
  return { name, type: { tensorType: { elemType: codes[dtype], shape: { dim } } } };
}

function nodeProto({ name, opType, domain, inputs, outputs, attributes }: Node): onnx.INodeProto {
  return {
    name,
    opType,
    domain,
    input: [...inputs],
    output: [...outputs],
    attribute: [...attributes].map(([key, value]) => attributeProto(key, value)),
  };
}

function attributeProto(name: string, value: Attribute): onnx.IAttributeProto {
  const isInt = (x: number): boolean => Number.isSafeInteger(x);
  if (typeof value === 'number') {
    return isInt(value) && !floatAttributes.has(name)
      ? { name, type: 2, i: value }
      : { name, type: 1, f: value };
  }
  if (typeof value === 'string') return { name, type: 3, s: new TextEncoder().encode(value) };
  if (isTensor(value)) return { name, type: 4, t: tensorProto('', value) };
  const list: readonly (number | string)[] = value;
  if (list.every((one) => typeof one === 'number')) {
    return list.every(isInt) ? { name, type: 7, ints: [...list] } : { name, type: 6, floats: [...list] };
  }
  return { name, type: 8, strings: list.map((one) => new TextEncoder().encode(String(one))) };
}

function isTensor(value: Attribute): value is Tensor {
  return typeof value === 'object' && 'dtype' in value;
}

function tensorProto(name: string, { dtype, shape, data }: Tensor): onnx.ITensorProto {
  return { name, dims: [...shape], dataType: codes[dtype], rawData: rawData(dtype, data) };
}

/** Little-endian, as the format wants. */
function rawData(dtype: DType, data: Tensor['data']): Uint8Array {
  const bytesEach = { 1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 11: 8, 12: 4 }[codes[dtype]];
  const bytes = new Uint8Array(defined(bytesEach, 'element size') * data.length);
  const view = new DataView(bytes.buffer);
  data.forEach((value: number | bigint, i: number) => {
    if (typeof value === 'bigint') {
      if (dtype === 'uint32') view.setUint32(4 * i, Number(value), true);
      else view.setBigInt64(8 * i, value, true);
    } else if (dtype === 'float64') view.setFloat64(8 * i, value, true);
    else if (isFloat(dtype)) view.setFloat32(4 * i, value, true);
    else writeInt(view, dtype, i, value);
  });
  return bytes;
}

function writeInt(view: DataView, dtype: DType, i: number, value: number): void {
  switch (dtype) {
    case 'int8':
    case 'uint8':
    case 'bool':
      return view.setUint8(i, value & 0xff);
    case 'int16':
    case 'uint16':
      return view.setUint16(2 * i, value & 0xffff, true);
    default:
      invariant(dtype === 'int32', `${dtype} is no small integer`);
      return view.setInt32(4 * i, value, true);
  }
}

/**
 * The parts with one more output of the prologue, which says whether the mask in `port` keeps at least so
 * many tokens; its name tells the data owner what is asked.
 */
export function requireKept(
  parts: ClientParts | undefined,
  port: string,
  least: number,
  name: string,
): ClientParts | undefined {
  if (parts?.prologue == null) return parts;
  const { onnx } = onnxProto;
  const model = onnx.ModelProto.decode(parts.prologue);
  const graph = defined(model.graph, 'graph of a prologue');
  const [sum, limit, short] = ['sum', 'limit', 'short'].map((own) => `${own} of ${name}`) as [
    string,
    string,
    string,
  ];
  const limitTensor = { dtype: 'float32', shape: [1], data: Float32Array.of(least) } as const;
  const shape = { dim: [{ dimValue: 1 }] };
  const node = (opType: string, input: string[], output: string): onnx.INodeProto => {
    const attribute = opType === 'ReduceSum' ? [attributeProto('keepdims', 0)] : [];
    return { name: output, opType, input, output: [output], attribute };
  };
  graph.initializer = [
    ...(graph.initializer ?? []),
    onnx.TensorProto.create(tensorProto(limit, limitTensor)),
  ];
  graph.node = [
    ...(graph.node ?? []),
    ...[node('ReduceSum', [port], sum), node('Less', [sum, limit], short), node('Not', [short], name)].map(
      (own) => onnx.NodeProto.create(own),
    ),
  ];
  const output = { name, type: { tensorType: { elemType: codes.bool, shape } } };
  graph.output = [...(graph.output ?? []), onnx.ValueInfoProto.create(output)];
  return { ...parts, prologue: Uint8Array.from(onnx.ModelProto.encode(model).finish()) };
}
