/**
 * ONNX bytes to a checked graph: names defined once and before use, no subgraphs, a known opset, nodes
 * sorted.
 */
import { createHash } from 'node:crypto';
import onnxProto from 'onnx-proto';
import type { onnx } from 'onnx-proto';
import { AegisError, Diagnostics } from '../support/diagnostics.js';
import { defined } from '../support/invariant.js';
import { ExternalData, type ExternalLoader } from './external.js';
import { refuse, type InputDecl, type Node, type OnnxModel, type Tensor } from './model.js';
import { decodeAttribute, decodeTensor, elementType, toNumber, type ExternalReader } from './protobuf.js';

/** Semantics of the evaluator were checked for these; 24 changed nothing we use. */
export const opsetRange = { min: 11, max: 24 } as const;
/** Protobuf's own limit; larger models keep their weights in external files. */
export const maxModelBytes = 2 ** 31 - 1;

function decodeModel(bytes: Uint8Array): onnx.ModelProto {
  if (bytes.length > maxModelBytes) {
    refuse({ code: 'F102', message: `the file has ${bytes.length} bytes, more than ${maxModelBytes}` });
  }
  try {
    return onnxProto.onnx.ModelProto.decode(bytes);
  } catch (error) {
    // Wire errors, bad UTF-8 and nesting deeper than the stack all mean the same to the user.
    const reason = error instanceof Error ? error.message : String(error);
    return refuse({
      code: 'F101',
      message: `not an ONNX file, or truncated: ${reason}`,
      help: 'export the model again',
    });
  }
}

function opsetOf(model: onnx.ModelProto): number {
  const entry = (model.opsetImport ?? []).find((o) => (o.domain ?? '') === '' || o.domain === 'ai.onnx');
  const version = entry === undefined ? 0 : toNumber((entry.version ?? 0) as number);
  if (version >= opsetRange.min && version <= opsetRange.max) return version;
  return refuse({
    code: 'F106',
    message: `the model has opset ${version}, expected ${opsetRange.min} to ${opsetRange.max}`,
    help: 'export with opset_version=17 or 20',
  });
}

function decodeNodes(graph: onnx.IGraphProto, read: ExternalReader, problems: Diagnostics): Node[] {
  return (graph.node ?? []).flatMap((proto, index) => {
    const opType = proto.opType ?? '';
    const name = (proto.name ?? '') === '' ? `${opType}_${index}` : (proto.name ?? '');
    const domain = proto.domain === 'ai.onnx' ? '' : (proto.domain ?? '');
    try {
      if (opType === '') refuse({ code: 'F107', message: 'a node has no operator type', node: name });
      const attributes = new Map(
        (proto.attribute ?? []).map((attr) => [attr.name ?? '', decodeAttribute(attr, name, read)]),
      );
      return [{ name, opType, domain, inputs: proto.input ?? [], outputs: proto.output ?? [], attributes }];
    } catch (error) {
      if (!(error instanceof AegisError)) throw error;
      error.diagnostics.forEach((diagnostic) => problems.report(diagnostic));
      return [];
    }
  });
}

function decodeInputs(graph: onnx.IGraphProto, initializers: ReadonlyMap<string, Tensor>): InputDecl[] {
  // Before IR version 4 the initializers were listed among the inputs too.
  const declared = (graph.input ?? []).filter((value) => !initializers.has(value.name ?? ''));
  return declared.map((value) => {
    const name = value.name ?? '';
    const type = value.type?.tensorType;
    if (name === '' || type === null || type === undefined) {
      return refuse({ code: 'F107', message: `input "${name}" has no name or is not a tensor` });
    }
    if (type.shape === null || type.shape === undefined) {
      return refuse({
        code: 'F107',
        message: `input "${name}" has no shape`,
        help: 'export the model with shapes',
      });
    }
    const dims = (type.shape.dim ?? []).map((dim) => {
      if ((dim.dimParam ?? '') !== '') return dim.dimParam ?? '?';
      const size = toNumber((dim.dimValue ?? 0) as number);
      return size > 0 ? size : '?';
    });
    if (dims.length > 16) refuse({ code: 'F107', message: `input "${name}" has ${dims.length} dimensions` });
    return { name, dtype: elementType(type.elemType ?? 0, `input "${name}"`), dims };
  });
}

function decodeInitializers(
  graph: onnx.IGraphProto,
  read: ExternalReader,
  problems: Diagnostics,
): Map<string, Tensor> {
  const result = new Map<string, Tensor>();
  for (const proto of graph.initializer ?? []) {
    const name = proto.name ?? '';
    try {
      if (name === '') refuse({ code: 'F107', message: 'an initializer has no name' });
      if (result.has(name)) refuse({ code: 'F109', message: `initializer "${name}" is defined twice` });
      result.set(name, decodeTensor(proto, `tensor "${name}"`, read));
    } catch (error) {
      if (!(error instanceof AegisError)) throw error;
      error.diagnostics.forEach((diagnostic) => problems.report(diagnostic));
    }
  }
  return result;
}

/** Which node makes each value; reports double definitions and reads of undefined values. */
function makersOf(nodes: readonly Node[], given: ReadonlySet<string>): Map<string, number> {
  const problems = new Diagnostics();
  const maker = new Map<string, number>();
  nodes.forEach((node, index) => {
    for (const output of node.outputs) {
      if (output === '') continue;
      if (maker.has(output) || given.has(output)) {
        problems.report({ code: 'F109', message: `value "${output}" is defined twice`, node: node.name });
      } else maker.set(output, index);
    }
  });
  for (const node of nodes) {
    for (const input of new Set(node.inputs)) {
      if (input === '' || maker.has(input) || given.has(input)) continue;
      problems.report({ code: 'F108', message: `nothing defines input "${input}"`, node: node.name });
    }
  }
  problems.throwIfAny();
  return maker;
}

/** Depth first in file order, so that a sorted file keeps its order; iterative, since chains may be long. */
function sortNodes(nodes: readonly Node[], given: ReadonlySet<string>): Node[] {
  const maker = makersOf(nodes, given);
  const sorted: Node[] = [];
  const state = nodes.map((): 'new' | 'open' | 'done' => 'new');
  for (let root = 0; root < nodes.length; root++) {
    const stack = [{ index: root, next: 0 }];
    while (state[root] !== 'done') {
      const top = defined(stack.at(-1), 'open node');
      const node = defined(nodes[top.index], 'node');
      state[top.index] = 'open';
      const input = node.inputs[top.next++];
      if (input === undefined) {
        state[top.index] = 'done';
        sorted.push(node);
        stack.pop();
        continue;
      }
      const source = maker.get(input);
      if (source === undefined || state[source] === 'done') continue;
      if (state[source] === 'open') {
        refuse({ code: 'F110', message: `the graph has a cycle through "${input}"`, node: node.name });
      }
      stack.push({ index: source, next: 0 });
    }
  }
  return sorted;
}

/** Parses and checks the whole file; all that can be wrong with tensors and nodes is reported at once. */
export function readOnnx(bytes: Uint8Array, loader: ExternalLoader): OnnxModel {
  const model = decodeModel(bytes);
  const graph = model.graph;
  if (graph === null || graph === undefined || (graph.node ?? []).length === 0) {
    return refuse({ code: 'F101', message: 'the file has no graph', help: 'expected an ONNX model' });
  }
  const opset = opsetOf(model);
  const external = new ExternalData(loader);
  const problems = new Diagnostics();
  if ((graph.sparseInitializer ?? []).length > 0) {
    problems.report({ code: 'F111', message: 'sparse initializers', help: 'store the weights dense' });
  }
  const initializers = decodeInitializers(graph, external.read, problems);
  const nodes = decodeNodes(graph, external.read, problems);
  const functions = new Set((model.functions ?? []).map((f) => `${f.domain ?? ''}/${f.name ?? ''}`));
  for (const node of nodes) {
    if (!functions.has(`${node.domain}/${node.opType}`)) continue;
    const message = `${node.opType} is a function of the model`;
    problems.report({ code: 'F111', message, node: node.name, help: 'inline functions (onnx.inliner)' });
  }
  problems.throwIfAny();
  const inputs = decodeInputs(graph, initializers);
  const outputs = (graph.output ?? []).map((value) => value.name ?? '');
  const names = inputs.map((input) => input.name);
  if (new Set(names).size < names.length) refuse({ code: 'F109', message: 'two inputs have the same name' });
  const given = new Set([...initializers.keys(), ...names]);
  const sorted = sortNodes(nodes, given);
  for (const node of sorted) for (const output of node.outputs) given.add(output);
  const missing = outputs.find((output) => output === '' || !given.has(output));
  if (outputs.length === 0 || missing !== undefined) {
    refuse({ code: 'F107', message: `nothing defines output "${missing ?? ''}"` });
  }
  const hash = createHash('sha256').update(bytes);
  external.hashInto(hash);
  const name = (graph.name ?? '') === '' ? 'model' : (graph.name ?? '');
  return { name, opset, inputs, outputs, initializers, nodes: sorted, sourceHash: hash.digest('hex') };
}
