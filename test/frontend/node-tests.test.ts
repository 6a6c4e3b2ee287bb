import { existsSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import onnxProto from 'onnx-proto';
import { expect, it } from 'vitest';
import { readGraph } from '../../src/frontend/index.js';
import { decodeTensor } from '../../src/frontend/protobuf.js';
import { AegisError } from '../../src/support/diagnostics.js';
import { corpusFiles } from './corpus.js';
import { maxDifference } from './onnx-builder.js';

const folders = corpusFiles('onnx-node-tests', '').filter((path) => existsSync(join(path, 'model.onnx')));

const { onnx } = onnxProto;
type TensorProto = InstanceType<typeof onnx.TensorProto>;

function protos(folder: string, kind: 'input' | 'output'): TensorProto[] {
  const result: TensorProto[] = [];
  for (let i = 0; ; i++) {
    const path = join(folder, 'test_data_set_0', `${kind}_${i}.pb`);
    if (!existsSync(path)) return result;
    result.push(onnx.TensorProto.decode(readFileSync(path)));
  }
}

/**
 * Inputs become initializers, so that shapes given as inputs are public: the evaluator then folds the whole
 * graph.
 */
function compare(folder: string): string {
  const model = onnx.ModelProto.decode(readFileSync(join(folder, 'model.onnx')));
  const names = (model.graph?.input ?? []).map((input) => input.name ?? '');
  const inputs = protos(folder, 'input');
  inputs.forEach((input, i) => model.graph?.initializer?.push({ ...input, name: names[i] ?? '' }));
  // The tests are of the newest opset; what they test is older.
  for (const opset of model.opsetImport) opset.version = Math.min(Number(opset.version), 24);
  try {
    const graph = readGraph({ bytes: onnx.ModelProto.encode(model).finish() });
    const got = graph.run({});
    const coarse = inputs.some(({ dataType }) => dataType === 10 || dataType === 16);
    const differences = protos(folder, 'output').map((proto, i) => {
      const wanted = decodeTensor(proto, folder, () => {
        throw new Error('external data');
      });
      const own = got[graph.outputs[i] ?? ''];
      expect(own?.shape, folder).toEqual(wanted.shape);
      if (own?.data.length !== wanted.data.length) return Infinity;
      return maxDifference(own.data, wanted.data);
    });
    return differences.every((difference) => difference < (coarse ? 5e-2 : 2e-4)) ? 'equal' : 'different';
  } catch (error) {
    if (error instanceof AegisError) return error.diagnostics.map((d) => `${d.code} ${d.message}`).join('; ');
    throw error;
  }
}

it.skipIf(folders.length === 0)(
  'the operator tests of the ONNX project: equal, or refused with a code',
  () => {
    const outcomes = new Map<string, string[]>();
    for (const folder of folders) {
      const outcome = compare(folder);
      outcomes.set(outcome, [...(outcomes.get(outcome) ?? []), basename(folder)]);
    }
    expect(outcomes.get('different') ?? []).toEqual([]);
    if (process.env.AEGIS_VERBOSE === '1')
      for (const [key, list] of outcomes) process.stderr.write(`${key} ${list.length} ${list.join(' ')}\n`);
    expect((outcomes.get('equal') ?? []).length).toBeGreaterThanOrEqual(200);
  },
);
