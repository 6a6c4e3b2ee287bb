// A BERT encoder as an ONNX file, in the operators that PyTorch exports at opset 17: from embeddings to the
// last hidden state, weights as BERT starts training (Gaussian of deviation 0.02, LayerNorm 1 and 0).
import onnxProto from 'onnx-proto';

const { onnx } = onnxProto;
const weightDeviation = 0.02;
const layerNormEpsilon = 1e-12;

/** Standard normal deviates, two from each pair of mulberry32 words (Box and Muller). */
export function gaussian(seed) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z = (z + Math.imul(z ^ (z >>> 7), z | 61)) ^ z;
    return (((z ^ (z >>> 14)) >>> 0) + 0.5) / 2 ** 32;
  };
  let spare;
  return () => {
    if (spare !== undefined) {
      const value = spare;
      spare = undefined;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log(uniform()));
    const angle = 2 * Math.PI * uniform();
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
}

/** Embeddings [length, width] as they leave BERT's embedding LayerNorm: standard normal. */
export function embeddings(length, width, seed) {
  const next = gaussian(seed);
  return Float64Array.from({ length: length * width }, () => Math.fround(next()));
}

const floatTensor = (name, dims, data) =>
  onnx.TensorProto.create({ name, dims, dataType: 1, rawData: new Uint8Array(data.buffer) });
const intTensor = (name, values) =>
  onnx.TensorProto.create({
    name,
    dims: [values.length],
    dataType: 7,
    rawData: new Uint8Array(BigInt64Array.from(values, BigInt).buffer),
  });

const attribute = {
  i: (name, i) => onnx.AttributeProto.create({ name, type: 2, i }),
  f: (name, f) => onnx.AttributeProto.create({ name, type: 1, f }),
  ints: (name, ints) => onnx.AttributeProto.create({ name, type: 7, ints }),
};

class Graph {
  nodes = [];
  initializers = [];

  constructor(seed) {
    this.next = gaussian(seed);
  }

  node(opType, name, input, attributes = [], output = `${name}_output_0`) {
    this.nodes.push(onnx.NodeProto.create({ name, opType, input, output: [output], attribute: attributes }));
    return output;
  }

  weights(name, dims) {
    const count = dims.reduce((a, b) => a * b, 1);
    const data = new Float32Array(count);
    for (let i = 0; i < count; i++) data[i] = weightDeviation * this.next();
    this.initializers.push(floatTensor(name, dims, data));
    return name;
  }

  filled(name, dims, value) {
    const data = new Float32Array(dims.reduce((a, b) => a * b, 1)).fill(value);
    this.initializers.push(floatTensor(name, dims, data));
    return name;
  }

  shape(name, values) {
    this.initializers.push(intTensor(name, values));
    return name;
  }

  /** Linear: the weight transposed for MatMul, the bias first in Add. */
  linear(path, x, from, to) {
    const name = `/${path.replace(/\.(?!\d)/g, '/')}`;
    const product = this.node('MatMul', `${name}/MatMul`, [x, this.weights(`${path}.weight`, [from, to])]);
    return this.node('Add', `${name}/Add`, [this.weights(`${path}.bias`, [to]), product]);
  }

  layerNorm(path, x, width, output) {
    const scale = this.filled(`${path}.weight`, [width], 1);
    const bias = this.filled(`${path}.bias`, [width], 0);
    const name = `/${path.replace(/\.(?!\d)/g, '/')}/LayerNormalization`;
    const attributes = [attribute.i('axis', -1), attribute.f('epsilon', layerNormEpsilon)];
    return this.node('LayerNormalization', name, [x, scale, bias], attributes, output);
  }
}

/** The erf form: x / sqrt 2, Erf, + 1, * x, * 1/2. */
function gelu(graph, name, x) {
  const half = graph.node('Div', `${name}/Div`, [x, 'gelu.sqrt2']);
  const erf = graph.node('Erf', `${name}/Erf`, [half]);
  const shifted = graph.node('Add', `${name}/Add`, [erf, 'gelu.one']);
  return graph.node('Mul', `${name}/Mul_1`, [graph.node('Mul', `${name}/Mul`, [x, shifted]), 'gelu.half']);
}

function attention(graph, path, x, { width, heads }) {
  const name = `/${path.replace(/\.(?!\d)/g, '/')}/self`;
  const split = (which, perm) => {
    const projected = graph.linear(`${path}.self.${which}`, x, width, width);
    const shaped = graph.node('Reshape', `${name}/Reshape_${which}`, [projected, 'heads.shape']);
    return graph.node('Transpose', `${name}/Transpose_${which}`, [shaped], [attribute.ints('perm', perm)]);
  };
  const q = split('query', [0, 2, 1, 3]);
  const k = split('key', [0, 2, 3, 1]);
  const v = split('value', [0, 2, 1, 3]);
  const scores = graph.node('Div', `${name}/Div`, [graph.node('MatMul', `${name}/MatMul`, [q, k]), 'scale']);
  const weights = graph.node('Softmax', `${name}/Softmax`, [scores], [attribute.i('axis', -1)]);
  const context = graph.node('MatMul', `${name}/MatMul_1`, [weights, v]);
  const rows = graph.node(
    'Transpose',
    `${name}/Transpose`,
    [context],
    [attribute.ints('perm', [0, 2, 1, 3])],
  );
  const joined = graph.node('Reshape', `${name}/Reshape`, [rows, 'hidden.shape']);
  const output = graph.linear(`${path}.output.dense`, joined, width, width);
  const sum = graph.node('Add', `/${path.replace(/\.(?!\d)/g, '/')}/output/Add`, [output, x]);
  return graph.layerNorm(`${path}.output.LayerNorm`, sum, width);
}

/** Bytes of the model; input `embeddings` [1, seq, width], output `last_hidden_state`. */
export function bertModel({ layers, width, heads, ffn, seed }) {
  const graph = new Graph(seed);
  graph.shape('heads.shape', [0, -1, heads, width / heads]);
  graph.shape('hidden.shape', [0, -1, width]);
  graph.filled('scale', [], Math.sqrt(width / heads));
  graph.filled('gelu.sqrt2', [], Math.SQRT2);
  graph.filled('gelu.one', [], 1);
  graph.filled('gelu.half', [], 0.5);
  let x = 'embeddings';
  for (let layer = 0; layer < layers; layer++) {
    const path = `encoder.layer.${layer}`;
    const middle = attention(graph, `${path}.attention`, x, { width, heads });
    const inner = graph.linear(`${path}.intermediate.dense`, middle, width, ffn);
    const active = gelu(graph, `/encoder/layer.${layer}/intermediate/act`, inner);
    const outer = graph.linear(`${path}.output.dense`, active, ffn, width);
    const sum = graph.node('Add', `/encoder/layer.${layer}/output/Add`, [outer, middle]);
    const last = layer === layers - 1 ? 'last_hidden_state' : undefined;
    x = graph.layerNorm(`${path}.output.LayerNorm`, sum, width, last);
  }
  const dims = [{ dimValue: 1 }, { dimParam: 'seq' }, { dimValue: width }];
  const port = (name) => ({ name, type: { tensorType: { elemType: 1, shape: { dim: dims } } } });
  const model = onnx.ModelProto.create({
    irVersion: 8,
    producerName: 'aegis make-bert-base',
    opsetImport: [{ domain: '', version: 17 }],
    graph: {
      name: `bert-${layers}x${width}`,
      input: [port('embeddings')],
      output: [port('last_hidden_state')],
      initializer: graph.initializers,
      node: graph.nodes,
    },
  });
  return onnx.ModelProto.encode(model).finish();
}
