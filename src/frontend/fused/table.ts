/**
 * Operators that stand for a small graph of others: those of ONNX Runtime's optimiser, and some of ONNX
 * itself.
 */
import { defined } from '../../support/invariant.js';
import type { Known, Node } from '../model.js';
import { attention, embedLayerNorm, multiHeadAttention, rotaryEmbedding } from './attention.js';
import { ExpansionBuilder, scalar, type Expansion } from './builder.js';
import { einsum } from './einsum.js';
import { resize } from './resize.js';
import { averagePool, depthToSpace, dft, groupNorm, instanceNorm, spaceToDepth } from './standard.js';

type Expand = (b: ExpansionBuilder) => void;

const renamed =
  (opType: string, ...names: readonly string[]): Expand =>
  (b) => {
    b.allow(...names);
    const inputs = b.node.inputs.map((name) => (name === '' ? undefined : name));
    b.result(0, b.step(opType, inputs, Object.fromEntries(b.node.attributes)));
  };

/** x plus a bias, if there is one, into a GELU. */
const gelu =
  (approximate: 'none' | 'tanh'): Expand =>
  (b) => {
    b.allow();
    const sum = b.has(1) ? b.step('Add', [b.input(0), b.input(1)]) : b.input(0);
    b.result(0, b.step('Gelu', [sum], { approximate }));
  };

const skipNorm =
  (opType: 'LayerNormalization' | 'RMSNormalization'): Expand =>
  (b) => {
    b.allow('epsilon');
    const isLayer = opType === 'LayerNormalization';
    const bias = isLayer ? 4 : 3;
    // The bias belongs to the linear layer before.
    const own = b.has(bias) ? b.step('Add', [b.input(0), b.input(bias)]) : b.input(0);
    const sum = b.step('Add', [own, b.input(1)]);
    const inputs = [sum, b.input(2), isLayer && b.has(3) ? b.input(3) : undefined];
    b.result(0, b.step(opType, inputs, { axis: -1, epsilon: b.number('epsilon', 1e-12) }));
    b.result(3, sum);
  };

const rmsNorm: Expand = (b) => {
  b.allow('axis', 'epsilon', 'stash_type');
  const attributes = { axis: b.number('axis', -1), epsilon: b.number('epsilon', 1e-5) };
  b.result(0, b.step('RMSNormalization', [b.input(0), b.input(1)], attributes));
};

const fusedMatMul: Expand = (b) => {
  b.allow('alpha', 'transA', 'transB', 'transBatchA', 'transBatchB');
  if (b.number('transBatchA', 0) !== 0 || b.number('transBatchB', 0) !== 0) {
    return b.fail('transposed batch dimensions');
  }
  const side = (index: number, flag: string): string => {
    const rank = b.shape(index).length;
    if (b.number(flag, 0) === 0 || rank < 2) return b.input(index);
    const perm = Array.from({ length: rank }, (_, d) => d);
    [perm[rank - 2], perm[rank - 1]] = [rank - 1, rank - 2];
    return b.step('Transpose', [b.input(index)], { perm });
  };
  const product = b.step('MatMul', [side(0, 'transA'), side(1, 'transB')]);
  const alpha = b.number('alpha', 1);
  b.result(0, alpha === 1 ? product : b.step('Mul', [product, scalar(alpha, b.dtype(0))]));
};

const biasSoftmax: Expand = (b) => {
  b.allow('axis', 'is_inner_broadcast', 'softmax_axis', 'broadcast_axis');
  const rank = b.shape(0).length;
  const axis = b.number('axis', b.number('softmax_axis', 1));
  if (axis !== -1 && axis !== rank - 1) return b.fail('a softmax over several axes');
  b.result(0, b.step('Softmax', [b.step('Add', [b.input(0), b.input(1)])], { axis: -1 }));
};

const biasAdd: Expand = (b) => {
  b.allow();
  b.result(0, b.step('Add', [b.step('Add', [b.input(0), b.input(1)]), b.input(2)]));
};

const gemmFastGelu: Expand = (b) => {
  b.allow();
  const product = b.step('MatMul', [b.input(0), b.input(1)]);
  const sum = b.has(2) ? b.step('Add', [product, b.input(2)]) : product;
  b.result(0, b.step('Gelu', [sum], { approximate: 'tanh' }));
};

/** A Gemm or Conv with an activation behind it. */
const activated =
  (opType: 'Gemm' | 'Conv'): Expand =>
  (b) => {
    const own = [
      'activation',
      'activation_alpha',
      'activation_beta',
      'activation_gamma',
      'activation_params',
    ];
    const attributes = [...b.node.attributes].filter(([name]) => !own.includes(name));
    const parameters = own.slice(1).some((name) => b.node.attributes.has(name));
    const activation = b.text('activation', '');
    if (parameters || !['', 'Relu', 'Tanh', 'Sigmoid', 'HardSwish'].includes(activation)) {
      return b.fail(`activation ${activation} with parameters`);
    }
    const inputs = b.node.inputs.map((name) => (name === '' ? undefined : name));
    const sum = b.step(opType, inputs, Object.fromEntries(attributes));
    b.result(0, activation === '' ? sum : b.step(activation, [sum]));
  };

const quickGelu: Expand = (b) => {
  b.allow('alpha');
  b.result(0, b.step('Swish', [b.input(0)], { alpha: b.number('alpha', 1.702) }));
};

/** By domain and operator; the domain of ONNX itself is ''. */
const expansions: Readonly<Record<string, Readonly<Record<string, Expand>>>> = {
  'com.microsoft': {
    Attention: attention,
    BiasAdd: biasAdd,
    BiasGelu: gelu('none'),
    BiasSoftmax: biasSoftmax,
    EmbedLayerNormalization: embedLayerNorm,
    FastGelu: gelu('tanh'),
    FusedConv: activated('Conv'),
    FusedGemm: activated('Gemm'),
    FusedMatMul: fusedMatMul,
    Gelu: gelu('none'),
    GemmFastGelu: gemmFastGelu,
    LayerNormalization: renamed('LayerNormalization', 'axis', 'epsilon', 'stash_type'),
    MultiHeadAttention: multiHeadAttention,
    QuickGelu: quickGelu,
    RMSNormalization: rmsNorm,
    SimplifiedLayerNormalization: rmsNorm,
    SkipLayerNormalization: skipNorm('LayerNormalization'),
    SkipSimplifiedLayerNormalization: skipNorm('RMSNormalization'),
    TransposeMatMul: fusedMatMul,
  },
  '': {
    AveragePool: averagePool,
    DFT: dft,
    DepthToSpace: depthToSpace,
    Einsum: einsum,
    GroupNormalization: groupNorm,
    InstanceNormalization: instanceNorm,
    Resize: resize,
    RotaryEmbedding: rotaryEmbedding,
    SimplifiedLayerNormalization: rmsNorm,
    SpaceToDepth: spaceToDepth,
  },
};

/** Operators of which it is known why they cannot be taken, by domain and name. */
const refusals: Readonly<Record<string, string>> = {
  DynamicQuantizeLinear: 'quantises at run time: export with weights quantised only (DequantizeLinear)',
  DynamicQuantizeMatMul: 'quantises at run time: export with weights quantised only (DequantizeLinear)',
  MatMulInteger: 'computes on integers: export with weights quantised only (DequantizeLinear)',
  MatMulNBits: 'packs its weights in its own way: export with DequantizeLinear',
  QAttention: 'computes on integers: export with weights quantised only (DequantizeLinear)',
  QLinearConv: 'computes on integers: export with weights quantised only (DequantizeLinear)',
  QLinearMatMul: 'computes on integers: export with weights quantised only (DequantizeLinear)',
  QuantizeLinear: 'rounds activations: export with weights quantised only (DequantizeLinear)',
  GroupQueryAttention: 'reads a cache of keys and values: export one pass over the whole sequence',
  DecoderMaskedMultiHeadAttention: 'reads a cache of keys and values: export one pass over the sequence',
};

/** What to do about an operator that has no expansion and no kernel. */
export function helpFor({ domain, opType }: Node): string {
  const known = Object.hasOwn(refusals, opType) ? refusals[opType] : undefined;
  if (known !== undefined) return `${opType} ${known}`;
  return domain === ''
    ? 'see docs/onnx-support.md'
    : 'export without fused operators (no graph optimisation)';
}

function expansionOf({ domain, opType }: Node): Expand | undefined {
  const own = Object.hasOwn(expansions, domain) ? expansions[domain] : undefined;
  return own !== undefined && Object.hasOwn(own, opType) ? own[opType] : undefined;
}

export function isFused(node: Node): boolean {
  return expansionOf(node) !== undefined;
}

/** The standard operators in place of a fused node at its inputs' shapes. */
export function expandFused(node: Node, known: (value: string) => Known | undefined): Expansion {
  const builder = new ExpansionBuilder(node, known);
  defined(expansionOf(node), 'expansion')(builder);
  return builder.finish();
}

/** Names of all operators that are expanded, for docs/onnx-support.md. */
export function expandedOperators(): readonly string[] {
  return Object.entries(expansions).flatMap(([domain, own]) =>
    Object.keys(own).map((name) => (domain === '' ? name : `${domain}.${name}`)),
  );
}
