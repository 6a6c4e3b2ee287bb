/** What a model computes in the clear: ONNX Runtime, or our own interpreter of the tensor phase. */
import type { Samples } from '../data/index.js';
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
  shapes: { seqLen?: number | undefined; dims?: Readonly<Record<string, number>> | undefined },
): Promise<Oracle> {
  if (kind === 'tensor') {
    const { importModel } = await import('../frontend/index.js');
    const { runTensor } = await import('../ir/interpreter/tensor.js');
    const { module } = importModel(modelPath, shapes);
    return async (inputs) => {
      const values = Object.fromEntries([...inputs].map(([name, { data }]) => [name, data]));
      return first(runTensor(module, values));
    };
  }
  const ort = await import('onnxruntime-node').catch(() => {
    throw new AegisError({
      code: 'C120',
      message: 'ONNX Runtime is not installed',
      help: 'npm install onnxruntime-node, or use --oracle tensor',
    });
  });
  const session = await ort.InferenceSession.create(modelPath, { logSeverityLevel: 3 });
  return async (inputs) => {
    const feeds = Object.fromEntries(
      [...inputs].map(([name, { dtype, shape, data }]) => [
        name,
        dtype === 'int64'
          ? new ort.Tensor('int64', BigInt64Array.from(data, BigInt), shape)
          : new ort.Tensor('float32', Float32Array.from(data), shape),
      ]),
    );
    const outputs = await session.run(feeds);
    const name = session.outputNames[0] ?? '';
    return Float64Array.from(outputs[name]?.data as Float32Array);
  };
}

function first(outputs: Readonly<Record<string, Float64Array>>): Float64Array {
  return Object.values(outputs)[0] ?? new Float64Array(0);
}

/**
 * Uniform in [-1, 1), as the inputs that `compile` takes ranges from when it is given none, and within what
 * calibration found. xorshift32: the same everywhere.
 */
export function randomSamples(
  ports: readonly { name: string; shape: readonly number[]; bound: number }[],
  count: number,
  seed: number,
): Samples {
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
      ports.map(({ name, shape, bound }) => {
        const size = shape.reduce((a, b) => a * b, 1);
        const one = () => Float64Array.from({ length: size }, () => Math.min(1, bound) * uniform());
        const data = Array.from({ length: count }, one);
        return [name, { dtype: 'float32' as const, shape, data }];
      }),
    ),
  };
}
