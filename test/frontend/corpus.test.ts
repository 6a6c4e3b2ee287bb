import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readGraph } from '../../src/frontend/index.js';
import { runTensor } from '../../src/ir/interpreter/tensor.js';
import { verifyModule } from '../../src/ir/verifier.js';
import { corpusFiles, repository, samplesOf, type Samples } from './corpus.js';
import { kindsOf, maxDifference, refusalOf, runOnnxRuntime, type Feed } from './onnx-builder.js';

const tolerance = 1e-4;
const sampleCount = 4;

const trained = [...corpusFiles('trained', '.onnx'), ...corpusFiles('reconstructed', '.onnx')];
const example = join(repository, 'examples/digits-vit/digits_vit.onnx');
if (existsSync(example)) trained.push(example);
else process.stderr.write(`skipped: no example at ${example}\n`);

/** Float input, no mask: these compile today. */
const canonical = /digits_vit|encoder/;

function feedOf(samples: Samples, sample: number): Feed {
  return Object.fromEntries(
    Object.entries(samples.inputs).map(([name, { shape, data }]) => [
      name,
      { dims: shape, data: data[sample] ?? [] },
    ]),
  );
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
    const module = canonical.test(name) ? graph.lower() : undefined;
    if (module !== undefined) expect(verifyModule(module)).toEqual([]);
    for (let sample = 0; sample < sampleCount; sample++) {
      const feed = feedOf(samples, sample);
      const inputs = Object.fromEntries(Object.entries(feed).map(([input, { data }]) => [input, data]));
      const wanted = Object.values(await runOnnxRuntime(path, feed, dtypes))[0] ?? [];
      expect(maxDifference(Object.values(graph.run(inputs))[0]?.data ?? [], wanted)).toBeLessThan(tolerance);
      expect(maxDifference((samples.logits[sample] ?? []).flat(Infinity) as number[], wanted)).toBeLessThan(
        tolerance,
      );
      if (module === undefined) continue;
      expect(maxDifference(Object.values(runTensor(module, inputs))[0] ?? [], wanted)).toBeLessThan(
        tolerance,
      );
    }
  });

  it('makes the same module from every export of a model', () => {
    const groups = new Map<string, Set<string>>();
    for (const path of trained.filter((own) => canonical.test(basename(own)))) {
      const model = basename(path).split('.')[0] ?? '';
      const module = readGraph(path, { seqLen: 11 }).lower();
      groups.set(model, (groups.get(model) ?? new Set()).add(kindsOf(module).sort().join(' ')));
    }
    for (const [model, forms] of groups) expect([...forms], model).toHaveLength(1);
  });
});

const integer = trained.filter((path) => !canonical.test(basename(path)));

describe.skipIf(integer.length === 0)('models with integer inputs', () => {
  it.each(integer.map((path) => [basename(path), path] as const))(
    '%s is refused completely',
    (name, path) => {
      const [first] = Object.values(samplesOf(path)?.inputs ?? {});
      const graph = readGraph(path, { seqLen: first?.shape[1] ?? 16 });
      const { codes, text } = refusalOf(() => graph.lower());
      expect(codes).toContain('F205');
      // One padding mask a layer; the causal mask is constant.
      expect(
        codes.filter((code) => code === 'F203'),
        text,
      ).toHaveLength(name.startsWith('gpt') ? 0 : 2);
      expect(codes.filter((code) => !['F203', 'F205'].includes(code))).toEqual([]);
    },
  );
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
