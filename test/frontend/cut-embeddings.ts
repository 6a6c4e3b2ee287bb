/**
 * Token models without their embeddings: every Gather from a constant table at positions that depend on an
 * integer input becomes a float input, masks are all ones and token types all zero. What is left is what
 * runs encrypted.
 */
import onnxProto from 'onnx-proto';
import { bindInputs } from '../../src/frontend/bind.js';
import { shapeGraph } from '../../src/frontend/evaluate.js';
import { folderLoader } from '../../src/frontend/external.js';
import { isFloat } from '../../src/frontend/model.js';
import { readOnnx } from '../../src/frontend/onnx.js';
import { Diagnostics } from '../../src/support/diagnostics.js';

const { onnx } = onnxProto;

/** Dynamic dimensions become `seqLen` tokens of a batch of one. */
export function cutEmbeddings(bytes: Uint8Array, path: string, seqLen: number): Uint8Array {
  const proto = onnx.ModelProto.decode(bytes);
  const graph = proto.graph;
  if (graph?.input == null || graph.node == null || graph.initializer == null) return bytes;
  const model = readOnnx(bytes, folderLoader(path));
  const inputs = bindInputs(model, { seqLen });
  const integers = inputs.filter(({ dtype }) => !isFloat(dtype));
  for (const { name, shape } of integers) {
    if (/ids$|idx$/.test(name) && !/type/.test(name)) continue;
    const data = new Array<number>(shape.reduce((a, b) => a * b, 1)).fill(/mask/.test(name) ? 1 : 0);
    graph.initializer.push(onnx.TensorProto.create({ name, dataType: 7, dims: [...shape], int64Data: data }));
    graph.input = graph.input.filter((input) => input.name !== name);
  }
  const constant = readOnnx(onnx.ModelProto.encode(proto).finish(), folderLoader(path));
  const shaped = shapeGraph(constant, bindInputs(constant, { seqLen }), new Diagnostics());
  const removed = new Set<string>();
  for (const node of shaped.nodes) {
    const [table, positions] = node.inputs.map((name) => shaped.values.get(name));
    const isEmbedding =
      node.opType === 'Gather' && table?.data != null && isFloat(table.dtype) && positions?.data === null;
    const out = node.outputs[0] ?? '';
    const shape = shaped.values.get(out)?.shape;
    if (!isEmbedding || shape === undefined) continue;
    removed.add(out);
    const dim = shape.map((size) => ({ dimValue: size }));
    graph.input.push(
      onnx.ValueInfoProto.create({ name: out, type: { tensorType: { elemType: 1, shape: { dim } } } }),
    );
  }
  graph.node = graph.node.filter((node) => !removed.has(node.output?.[0] ?? ''));
  return onnx.ModelProto.encode(proto).finish();
}
