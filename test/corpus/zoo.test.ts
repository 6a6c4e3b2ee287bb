/**
 * The zoo of architectures and ONNX Runtime's graph fragments, behind their embeddings: what compiles equals
 * ONNX Runtime, everything else is refused with codes.
 */
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import * as ort from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { folderLoader } from '../../src/frontend/external.js';
import { readGraph, type RawGraph } from '../../src/frontend/index.js';
import { isFloat } from '../../src/frontend/model.js';
import { runCipher } from '../../src/ir/interpreter/cipher.js';
import { runTensor } from '../../src/ir/interpreter/tensor.js';
import type { Module } from '../../src/ir/module.js';
import { verifyModule } from '../../src/ir/verifier.js';
import { calibrateModule } from '../../src/passes/calibrate.js';
import { defaultPack, runPipeline } from '../../src/passes/pipeline.js';
import { AegisError } from '../../src/support/diagnostics.js';
import { defined } from '../../src/support/invariant.js';
import { defaultLiteral, makeParameters } from '../../src/target/parameters.js';
import { seededRandom } from '../data/random.js';
import { corpusFiles } from '../frontend/corpus.js';
import { cutEmbeddings } from '../frontend/cut-embeddings.js';

/** Tokens of models that leave them open. */
const seqLen = 8;
const calibrated = 8;
const held = 2;

const zoo = corpusFiles('zoo', '.onnx');
/** Of 83 files; what is missing are fast Fourier transforms, wav2vec and patches of time series. */
const leastCompiled = 0.85;
/** One of a kind; all with `npm run test:full`. */
const inTheClear =
  process.env.AEGIS_TEST_FULL === undefined
    ? zoo.filter((path) => /\/(modernbert|qwen2|t5_encoder|squeezebert)\.sdpa\.dyn23/.test(path))
    : zoo;

type Sample = Readonly<Record<string, Float64Array>>;

function open(path: string): { bytes: Uint8Array; graph: RawGraph } {
  const bytes = cutEmbeddings(readFileSync(path), path, seqLen);
  return { bytes, graph: readGraph({ bytes, externalData: folderLoader(path) }, { seqLen }) };
}

/** The canonical module, or the codes of its refusal. */
function lowered(path: string): Module | readonly string[] {
  try {
    return open(path).graph.lower();
  } catch (error) {
    if (error instanceof AegisError) return error.diagnostics.map(({ code }) => code);
    throw error;
  }
}

function samplesFor(module: Module): Sample[] {
  const next = seededRandom(17);
  const value = (): number => 3.4 * (next(100001) / 100000 - 0.5);
  const size = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
  return Array.from({ length: calibrated + held }, () =>
    Object.fromEntries(
      module.inputs.map(({ name, shape }) => [name, Float64Array.from({ length: size(shape) }, value)]),
    ),
  );
}

async function runOnnxRuntime(bytes: Uint8Array, graph: RawGraph, sample: Sample) {
  const session = await ort.InferenceSession.create(bytes, { logSeverityLevel: 4 });
  const feed = Object.fromEntries(
    graph.inputs
      .filter(({ name }) => session.inputNames.includes(name))
      .map(({ name, dtype, shape }) => {
        const count = shape.reduce((a, b) => a * b, 1);
        return [
          name,
          isFloat(dtype)
            ? new ort.Tensor('float32', Float32Array.from(defined(sample[name], 'input')), shape)
            : new ort.Tensor('int64', new BigInt64Array(count), shape),
        ];
      }),
  );
  return session.run(feed);
}

/** Largest difference over the outputs, in units of each output's range. */
function relativeError(
  got: Readonly<Record<string, Float64Array>>,
  wanted: Readonly<Record<string, ort.Tensor>>,
): number {
  return Object.entries(got).reduce((worst, [name, values]) => {
    const expected = Float64Array.from(defined(wanted[name], `output ${name}`).data as Float32Array);
    expect(values.length).toBe(expected.length);
    const range = Math.max(...expected) - Math.min(...expected);
    const differences = values.map((value, i) => Math.abs(value - defined(expected[i], 'value')));
    return Math.max(worst, Math.max(...differences) / range);
  }, 0);
}

describe.skipIf(zoo.length === 0)('the zoo behind its embeddings', () => {
  it('compiles for the most part, and is refused with codes otherwise', () => {
    const results = zoo.map(lowered);
    const refused = results.filter((result) => Array.isArray(result)).flat();
    expect(refused.every((code) => /^F\d\d\d$/.test(String(code)))).toBe(true);
    const compiled = results.filter((result) => !Array.isArray(result)).length;
    expect(compiled / zoo.length).toBeGreaterThanOrEqual(leastCompiled);
  });

  it.each(zoo.map((path) => [basename(path), path] as const))('%s equals ONNX Runtime', async (_, path) => {
    const module = lowered(path);
    if (!('phase' in module)) return;
    expect(verifyModule(module)).toEqual([]);
    const { bytes, graph } = open(path);
    const sample = defined(samplesFor(module)[0], 'sample');
    const wanted = await runOnnxRuntime(bytes, graph, sample);
    expect(relativeError(runTensor(module, sample), wanted)).toBeLessThan(1e-5);
  });

  it.each(inTheClear.map((path) => [basename(path), path] as const))(
    '%s in the clear interpreter of its cipher module',
    async (_, path) => {
      const module = lowered(path);
      if (!('phase' in module)) return;
      const samples = samplesFor(module);
      const context = {
        parameters: makeParameters(defaultLiteral('small', true)),
        ranges: calibrateModule(module, samples.slice(0, calibrated)),
        pack: defaultPack,
      };
      const { module: cipher } = runPipeline(
        module,
        context,
        () => 0,
        () => undefined,
      );
      const { bytes, graph } = open(path);
      for (const sample of samples.slice(calibrated)) {
        const wanted = await runOnnxRuntime(bytes, graph, sample);
        expect(relativeError(runCipher(cipher, sample), wanted)).toBeLessThan(0.01);
      }
    },
  );
});

function onnxFiles(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) return onnxFiles(path);
    return name.endsWith('.onnx') ? [path] : [];
  });
}

const [fragment] = corpusFiles('onnxruntime', '.onnx');
const fragments = fragment === undefined ? [] : onnxFiles(dirname(fragment));

describe.skipIf(fragments.length === 0)("graph fragments of ONNX Runtime's tests", () => {
  it.each(fragments.map((path) => [path.slice(dirname(path).lastIndexOf('/') + 1), path] as const))(
    '%s compiles or is refused with codes',
    (_, path) => {
      try {
        expect(verifyModule(readGraph(path, { seqLen }).lower())).toEqual([]);
      } catch (error) {
        if (!(error instanceof AegisError)) throw error;
        for (const { code, message } of error.diagnostics) {
          expect(code).toMatch(/^F\d\d\d$/);
          expect(message.length).toBeGreaterThan(10);
        }
      }
    },
  );
});
