/** Float inputs of a model that are masks of attention: the client reads them, as it reads token ids. */
import type { ShapedGraph } from '../evaluate.js';
import { isFloat, type Node } from '../model.js';
import { productOperators } from './operators.js';

/** What may lie between a sum of scores and mask and the softmax. */
const beforeSoftmax = new Set([
  'Add',
  'Cast',
  'Clip',
  'Div',
  'Dropout',
  'Expand',
  'Flatten',
  'Identity',
  'Max',
  'Mul',
  'Reshape',
  'Squeeze',
  'Sub',
  'Unsqueeze',
  'Where',
]);
/** Where a mask and scores meet. */
const joining = new Set(['Add', 'Sub', 'Where', 'Max', 'Min']);
/** Operand of the operator Attention. */
const attentionMask = 3;

/** Names of the float inputs that meet attention scores before a softmax. */
export function floatMasks(graph: ShapedGraph): ReadonlySet<string> {
  const floats = graph.inputs.filter(({ dtype }) => isFloat(dtype)).map(({ name }) => name);
  const masks = new Set(floats.filter((name) => graph.values.get(name)?.data == null));
  if (graph.inputs.length < 2 || masks.size === 0) return new Set();
  const readers = new Map<string, Node[]>();
  for (const node of graph.nodes) {
    for (const input of new Set(node.inputs)) readers.set(input, [...(readers.get(input) ?? []), node]);
  }
  return new Set([...masks].filter((name) => joins(graph, name).some((join) => leads(join, readers))));
}

interface Join {
  readonly node: Node;
  readonly at: readonly number[];
}

/** Nodes in which what the client makes of the input meets something encrypted. */
function joins(graph: ShapedGraph, name: string): Join[] {
  const own = new Set([name]);
  const encrypted = new Set(
    graph.inputs.filter((input) => isFloat(input.dtype) && input.name !== name).map((input) => input.name),
  );
  const found: Join[] = [];
  for (const node of graph.nodes) {
    const at = node.inputs.flatMap((input, i) => (own.has(input) ? [i] : []));
    const isEncrypted = productOperators.has(node.opType) || node.inputs.some((one) => encrypted.has(one));
    if (isEncrypted && at.length > 0) found.push({ node, at });
    if (isEncrypted) node.outputs.forEach((output) => encrypted.add(output));
    else if (at.length > 0) node.outputs.forEach((output) => own.add(output));
  }
  return found;
}

function leads({ node, at }: Join, readers: ReadonlyMap<string, readonly Node[]>): boolean {
  if (node.opType === 'Attention') return at.includes(attentionMask);
  if (!joining.has(node.opType)) return false;
  const seen = new Set<Node>([node]);
  const open = [node];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    for (const reader of next.outputs.flatMap((output) => readers.get(output) ?? [])) {
      if (reader.opType === 'Softmax') return true;
      if (!beforeSoftmax.has(reader.opType) || seen.has(reader)) continue;
      seen.add(reader);
      open.push(reader);
    }
  }
  return false;
}
