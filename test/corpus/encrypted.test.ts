/**
 * Trained models run encrypted at the `small` ring: the class of ONNX Runtime, the error within its
 * prediction.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { compile, sampleInputs } from '../../src/compile.js';
import { readSamples, takeSamples } from '../../src/data/index.js';
import { decrypt, encrypt, keygen, run } from '../../src/executor/index.js';
import { defined } from '../../src/support/invariant.js';
import { argmax, calibrated, example, largestDifference, oneOfEach, samplesPath } from './models.js';

const count = 3;
const timeoutMs = 1_200_000;

describe('trained models, encrypted', () => {
  it.each([example, ...oneOfEach].map((path) => [basename(path), path] as const))(
    '%s',
    async (_, path) => {
      const folder = mkdtempSync(join(tmpdir(), 'aegis-corpus-'));
      const at = (name: string) => join(folder, name);
      try {
        const samples = await readSamples(samplesPath(path));
        const { plan, weights, cipher, tensor } = await compile(path, {
          ring: 'small',
          insecure: true,
          samples: takeSamples(samples, { from: 0, to: calibrated }),
        });
        const { name, predictedError } = defined(cipher.outputs[0], 'output');
        const predicted = defined(predictedError, 'predicted error');
        expect(predicted).toBeLessThanOrEqual(0.25);
        writeFileSync(at('plan.aegis'), plan);
        writeFileSync(at('plan.aegis.weights'), weights);
        await keygen({ plan: at('plan.aegis'), directory: folder });
        const inputs = sampleInputs(tensor, samples);
        for (let i = calibrated; i < calibrated + count; i++) {
          const files = { plan: at('plan.aegis'), in: at('request.ct'), out: at('response.ct') };
          await encrypt({
            plan: files.plan,
            key: at('public.key'),
            inputs: defined(inputs[i], 'input'),
            out: files.in,
          });
          await run({ ...files, keys: at('eval.keys') });
          const { outputs } = await decrypt({ plan: files.plan, key: at('secret.key'), in: files.out });
          const got = defined(outputs[name], 'logits');
          const expected = defined(samples.logits?.[i], 'expected logits');
          expect(argmax(got)).toBe(argmax(expected));
          expect(largestDifference(got, expected)).toBeLessThanOrEqual(predicted);
        }
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    },
    timeoutMs,
  );
});
