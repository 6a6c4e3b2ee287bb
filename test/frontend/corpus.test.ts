import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ClientProgram, readGraph } from '../../src/frontend/index.js';
import { runTensor } from '../../src/ir/interpreter/tensor.js';
import type { Module } from '../../src/ir/module.js';
import { verifyModule } from '../../src/ir/verifier.js';
import { corpusFiles, repository, samplesOf, type Samples } from './corpus.js';
import { kindsOf, maxDifference, refusalOf, runOnnxRuntime, type Feed } from './onnx-builder.js';

const tolerance = 1e-4;
/** Of the spam models, two that are padded (56 and 48 of 64 tokens). */
const sampleIndices = [0, 1, 21, 23];

const trained = [...corpusFiles('trained', '.onnx'), ...corpusFiles('reconstructed', '.onnx')];
const example = join(repository, 'examples/digits-vit/digits_vit.onnx');
if (existsSync(example)) trained.push(example);
else process.stderr.write(`skipped: no example at ${example}\n`);

function feedOf(samples: Samples, sample: number): Feed {
  return Object.fromEntries(
    Object.entries(samples.inputs).map(([name, { shape, data }]) => [
      name,
      { dims: shape, data: data[sample] ?? [] },
    ]),
  );
}

function programOf(module: Module): ClientProgram {
  return new ClientProgram(module.client, module.inputs, module.outputs);
}

describe.skipIf(trained.length === 0)('trained models equal ONNX Runtime', () => {
  it.each(trained.map((path) => [basename(path), path] as const))('%s', async (name, path) => {
    const samples = samplesOf(path);
    if (samples === undefined) throw new Error(`no samples for ${name}`);
    const [first] = Object.values(samples.inputs);
    const graph = readGraph(path, { seqLen: first?.shape[1] });
    const dtypes = Object.fromEntries(
      Object.entries(samples.inputs).map(([input, { dtype }]) => [input, dtype]),
    );
    const module = graph.lower();
    expect(verifyModule(module)).toEqual([]);
    const client = programOf(module);
    for (const sample of sampleIndices) {
      const feed = feedOf(samples, sample);
      const inputs = Object.fromEntries(Object.entries(feed).map(([input, { data }]) => [input, data]));
      const wanted = Object.values(await runOnnxRuntime(path, feed, dtypes))[0] ?? [];
      expect(maxDifference(Object.values(graph.run(inputs))[0]?.data ?? [], wanted)).toBeLessThan(tolerance);
      expect(maxDifference((samples.logits[sample] ?? []).flat(Infinity) as number[], wanted)).toBeLessThan(
        tolerance,
      );
      const [output] = client.decode(runTensor(module, client.encode(inputs)));
      expect(maxDifference(output?.data ?? [], wanted)).toBeLessThan(tolerance);
    }
  });

  it('makes the same module from every export of a model', () => {
    const groups = new Map<string, Set<string>>();
    for (const path of trained) {
      const model = (basename(path).split('.')[0] ?? '').replace(/^(spam_hfbert)_(eager|sdpa)$/, '$1');
      const module = readGraph(path, { seqLen: 11 }).lower();
      groups.set(model, (groups.get(model) ?? new Set()).add(kindsOf(module).sort().join(' ')));
    }
    for (const [model, forms] of groups) expect([...forms], model).toHaveLength(1);
  });
});

const zoo = corpusFiles('zoo', '.onnx');

describe.skipIf(zoo.length === 0)('the zoo', () => {
  it.each(zoo.map((path) => [basename(path), path] as const))(
    '%s compiles or is refused with codes',
    (name, path) => {
      try {
        expect(verifyModule(readGraph(path, { seqLen: 8 }).lower())).toEqual([]);
      } catch (error) {
        const { codes, text } = refusalOf(() => {
          throw error;
        });
        expect(/\.ts17/.test(name) && /^(vit|deit|clip_vision)\./.test(name), text).toBe(false);
        expect(codes.every((code) => /^F[12]\d\d$/.test(code))).toBe(true);
      }
    },
  );
});
