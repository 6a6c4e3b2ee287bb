/**
 * Every model of the corpus compiles as exported, and its final `cipher` module agrees with the model in the
 * clear.
 */
import { basename } from 'node:path';
import { describe, expect, it } from 'vitest';
import { compile, sampleInputs } from '../../src/compile.js';
import { readSamples, takeSamples } from '../../src/data/index.js';
import { runCipher } from '../../src/ir/interpreter/cipher.js';
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

/** `npm run test:full` looks at all held-out samples. */
const heldOut = process.env.AEGIS_TEST_FULL === undefined ? 8 : Infinity;
/** All exports of the token models in `npm run test:full`; their held-out samples hold padded ones. */
const tokens = process.env.AEGIS_TEST_FULL === undefined ? oneOfEachToken : tokenModels;
const sorts = process.env.AEGIS_TEST_FULL === undefined ? oneOfEachSort : sortModels;
const models = [example, textExample, ...floatModels, ...tokens, ...sorts];
/** Token blocks by model: all models in `npm run test:full`. */
const inBlocks = (process.env.AEGIS_TEST_FULL === undefined ? [example] : [example, ...oneOfEach]).flatMap(
  (path) => [2, 4].map((tokenBlocks) => [basename(path), tokenBlocks, path] as const),
);

async function check(path: string, tokenBlocks: number): Promise<void> {
  const samples = await readSamples(samplesPath(path));
  const { cipher, tensor } = await compile(path, {
    ring: 'small',
    insecure: true,
    samples: takeSamples(samples, { from: 0, to: calibrated }),
    pack: { tokenBlocks },
  });
  const port = defined(cipher.outputs[0], 'output');
  const predicted = defined(port.predictedError, 'predicted error');
  let [worst, agreeing] = [0, 0];
  const inputs = sampleInputs(tensor, samples).slice(calibrated, calibrated + heldOut);
  inputs.forEach((input, i) => {
    const got = defined(runCipher(cipher, input)[port.name], 'logits');
    const expected = defined(samples.logits?.[calibrated + i], 'expected logits');
    worst = Math.max(worst, largestDifference(got, expected));
    const width = port.shape.at(-1) ?? 1;
    if (classes(got, width).join() === classes(expected, width).join()) agreeing++;
  });
  expect(worst).toBeLessThan(0.05);
  expect(worst).toBeLessThanOrEqual(predicted);
  expect(worst).toBeGreaterThanOrEqual(predicted / 8);
  expect(agreeing / inputs.length).toBeGreaterThanOrEqual(0.98);
}

describe('compiled models in the clear', () => {
  it.each(models.map((path) => [basename(path), path] as const))('%s', async (_, path) => check(path, 1));

  it.each(inBlocks)('%s in %i token blocks', async (_, tokenBlocks, path) => check(path, tokenBlocks));
});
