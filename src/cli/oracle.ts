/** What a model computes in the clear: ONNX Runtime, or our own interpreter of the tensor phase. */
import type { Samples } from '../data/index.js';
import type { ClientInput, DimensionOptions } from '../frontend/index.js';
import { AegisError } from '../support/diagnostics.js';

export type Inputs = ReadonlyMap<
  string,
  { readonly dtype: string; readonly shape: readonly number[]; readonly data: Float64Array }
>;
/** Flat values of the model's first output. */
export type Oracle = (inputs: Inputs) => Promise<Float64Array>;

/** Errors: C120 ONNX Runtime is not installed, F1xx the model. */
export async function openOracle(
  kind: 'ort' | 'tensor',
  modelPath: string,
  shapes: Pick<DimensionOptions, 'seqLen' | 'dims' | 'masks'>,
): Promise<Oracle> {
  if (kind === 'tensor') {
    const { ClientProgram, importModel } = await import('../frontend/index.js');
    const { runTensor } = await import('../ir/interpreter/tensor.js');
    const { module } = importModel(modelPath, shapes);
    const client = new ClientProgram(module.client, module.inputs, module.outputs);
    return async (inputs) => {
      const values = Object.fromEntries([...inputs].map(([name, { data }]) => [name, data]));
      return client.decode(runTensor(module, client.encode(values)))[0]?.data ?? new Float64Array(0);
    };
  }
  const ort = await import('onnxruntime-node').catch(() => {
    throw new AegisError({
      code: 'C120',
      message: 'ONNX Runtime is not installed',
      help: 'npm install onnxruntime-node, or use --oracle tensor',
    });
  });
  const typed = (dtype: string, data: Float64Array, shape: readonly number[]) => {
    switch (dtype) {
      case 'int64':
        return new ort.Tensor('int64', BigInt64Array.from(data, BigInt), shape);
      case 'int32':
        return new ort.Tensor('int32', Int32Array.from(data), shape);
      case 'bool':
        return new ort.Tensor('bool', Uint8Array.from(data), shape);
      default:
        return new ort.Tensor('float32', Float32Array.from(data), shape);
    }
  };
  const session = await ort.InferenceSession.create(modelPath, { logSeverityLevel: 3 });
  return async (inputs) => {
    const feeds = Object.fromEntries(
      [...inputs].map(([name, { dtype, shape, data }]) => [name, typed(dtype, data, shape)]),
    );
    const outputs = await session.run(feeds);
    const name = session.outputNames[0] ?? '';
    return Float64Array.from(outputs[name]?.data as ArrayLike<number | bigint>, Number);
  };
}

export interface RandomInput extends ClientInput {
  /** Of |value|. */
  readonly bound: number;
}

/**
 * As the inputs that `compile` takes ranges from when it is given none: reals uniform in [-1, 1) and within
 * what calibration found, rows of a table uniform, other integers 1. xorshift32: the same everywhere.
 */
export function randomSamples(inputs: readonly RandomInput[], count: number, seed: number): Samples {
  let state = seed | 0 || 1;
  const uniform = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state / 2 ** 31;
  };
  return {
    source: `${count} random inputs`,
    count,
    logits: null,
    labels: null,
    inputs: new Map(
      inputs.map(({ name, shape, bound, dtype, limit, open }) => {
        const size = shape.reduce((a, b) => a * b, 1);
        const isReal = /^(float|bfloat)/.test(dtype);
        const value = (): number => {
          if (isReal) return Math.min(1, bound) * uniform();
          return limit === undefined ? 1 : Math.min(limit - 1, Math.floor(((uniform() + 1) / 2) * limit));
        };
        const one = () => open ?? Float64Array.from({ length: size }, value);
        const data = Array.from({ length: count }, one);
        const sampled = isReal ? 'float32' : dtype === 'bool' || dtype === 'int32' ? dtype : 'int64';
        return [name, { dtype: sampled, shape, data }];
      }),
    ),
  };
}
