/**
 * Trained models run encrypted at the `small` ring: the class of ONNX Runtime, the error within its prediction.
 * On several ranks they give the same ciphertexts, and hold and move the bytes that their plan predicts.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readPlan, type LoweredPlan } from '../../src/backend/index.js';
import { lowerPlaced, place } from '../../src/compile/place.js';
import { compile, sampleInputs } from '../../src/compile.js';
import { readSamples, takeSamples } from '../../src/data/index.js';
import { decrypt, encrypt, keygen, run, type RunReport } from '../../src/executor/index.js';
import type { Module } from '../../src/ir/module.js';
import { strategies } from '../../src/passes/co-place/index.js';
import { defined } from '../../src/support/invariant.js';
import {
  calibrated,
  classes,
  example,
  floatModels,
  largestDifference,
  oneOfEach,
  oneOfEachSort,
  oneOfEachToken,
  samplesPath,
  sortModels,
  textExample,
  tokenModels,
} from './models.js';

/** Samples that calibrate. Of the sorting model there are 26 in all. */
const calibrating = (path: string): number => (full && sortModels.includes(path) ? 6 : calibrated);

/** Held-out samples; those of token models hold padded ones (21 and 23). */
function shownSamples(path: string): readonly number[] {
  const from = calibrating(path);
  if (full) return Array.from({ length: sortModels.includes(path) ? 20 : 8 }, (_, i) => from + i);
  return oneOfEachToken.includes(path) ? [from, 23] : [from, from + 1];
}

const timeoutMs = 1_200_000;

/**
 * `npm run test:full` takes every export; for one of each model all strategies, on 2 and 4 ranks, with and without
 * overlap.
 */
const full = process.env.AEGIS_TEST_FULL !== undefined;
const placements = (full ? strategies : (['coplaced'] as const)).flatMap((strategy) =>
  (full ? [2, 4] : [4]).flatMap((devices) =>
    (full ? [true, false] : [true]).map((overlap) => ({ strategy, devices, overlap })),
  ),
);

const exports = full
  ? [...floatModels, ...tokenModels, ...sortModels]
  : [...oneOfEach, ...oneOfEachToken.slice(0, 1), ...oneOfEachSort];
const models = [example, textExample, ...exports].map((path) => [basename(path), path] as const);

/** Ranks know nothing of tokens and masks: two models are enough for every run of the tests. */
const placed = full
  ? [example, textExample, ...oneOfEach, ...oneOfEachToken, ...oneOfEachSort]
  : [example, ...oneOfEach.slice(-1)];

describe.each(models)('trained models, encrypted: %s', (_, path) => {
  const folder = mkdtempSync(join(tmpdir(), 'aegis-corpus-'));
  const at = (name: string): string => join(folder, name);
  const write = ({ plan, weights }: Pick<LoweredPlan, 'plan' | 'weights'>): void => {
    writeFileSync(at('plan.aegis'), plan);
    writeFileSync(at('plan.aegis.weights'), weights);
  };
  const files = { plan: at('plan.aegis'), in: at('request.ct'), out: at('response.ct') };
  const runPlan = (): Promise<RunReport> => run({ ...files, keys: at('eval.keys') });

  let cipher: Module;
  /** Of the request that is left for the other placements. */
  let outputSha256 = '';
  const results: { readonly got: Float64Array; readonly expected: ArrayLike<number> }[] = [];

  beforeAll(async () => {
    const samples = await readSamples(samplesPath(path));
    const compiled = await compile(path, {
      ring: 'small',
      insecure: true,
      samples: takeSamples(samples, { from: 0, to: calibrating(path) }),
    });
    cipher = compiled.cipher;
    const { name } = defined(cipher.outputs[0], 'output');
    write(compiled);
    await keygen({ plan: files.plan, directory: folder });
    const inputs = sampleInputs(compiled.tensor, samples);
    for (const i of shownSamples(path)) {
      await encrypt({
        plan: files.plan,
        key: at('public.key'),
        inputs: defined(inputs[i], 'input'),
        out: files.in,
      });
      ({ outputSha256 } = await runPlan());
      const { outputs } = await decrypt({ plan: files.plan, key: at('secret.key'), in: files.out });
      results.push({
        got: defined(outputs[name], 'logits'),
        expected: defined(samples.logits?.[i], 'expected logits'),
      });
    }
  }, timeoutMs);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('the class of ONNX Runtime', () => {
    const predicted = defined(cipher.outputs[0]?.predictedError, 'predicted error');
    expect(predicted).toBeLessThanOrEqual(0.25);
    expect(results).toHaveLength(shownSamples(path).length);
    const width = defined(cipher.outputs[0]?.shape.at(-1), 'classes');
    for (const { got, expected } of results) {
      expect(classes(got, width)).toEqual(classes(expected, width));
      expect(largestDifference(got, expected)).toBeLessThanOrEqual(predicted);
    }
  });

  it.each(placed.includes(path) ? placements : [])(
    '$strategy on $devices ranks, overlap $overlap',
    async (options) => {
      const lowered = lowerPlaced(place(cipher, options), options);
      write(lowered);
      const report = await runPlan();
      expect(report.outputSha256).toBe(outputSha256);
      expectPredicted(report, lowered.plan);
    },
    timeoutMs,
  );
});

/** Memory of every rank, and what it received in every collective, as the plan says. */
function expectPredicted(report: RunReport, plan: Uint8Array): void {
  const { programs, collectives } = readPlan(plan);
  expect(report.ranks.map(({ rank }) => rank)).toEqual(programs.map((_, rank) => rank));
  for (const { rank, peakBytes, staticBytes, collectives: counted } of report.ranks) {
    const { ports, frame, keys, plaintexts } = defined(programs[rank], 'program').memory;
    expect(staticBytes).toBe(keys + plaintexts);
    expect(peakBytes).toBe(ports + frame + keys + plaintexts);
    const predicted = collectives.flatMap(({ group, executions, receivedBytes: bytes }, id) =>
      group.includes(rank) ? [{ id, executions, bytes: bytes[group.indexOf(rank)] }] : [],
    );
    expect(predicted.length).toBeGreaterThan(0);
    expect(
      counted.map(({ id, executions, receivedBytes }) => ({ id, executions, bytes: receivedBytes })),
    ).toEqual(predicted);
  }
}
