/**
 * A Transformer with token blocks, and one with masks and biases, runs encrypted at the `tiny` ring: the error
 * within its prediction, masked the same ciphertexts on two ranks.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { lowerToPlan } from '../../src/backend/index.js';
import { lowerPlaced, place } from '../../src/compile/place.js';
import { decrypt, encrypt, keygen, run } from '../../src/executor/index.js';
import { runTensor } from '../../src/ir/interpreter/tensor.js';
import { calibrateModule } from '../../src/passes/calibrate.js';
import type { PackOptions } from '../../src/passes/pack/context.js';
import { defaultPack, runPipeline } from '../../src/passes/pipeline.js';
import { predictError, withPredictedErrors } from '../../src/passes/predict-error.js';
import { defaultLiteral, makeParameters } from '../../src/target/parameters.js';
import { randomInput, tinyTransformer, type TinyShape } from '../passes/tiny-transformer.js';

const parameters = makeParameters(defaultLiteral('tiny', true));
const base: TinyShape = { tokens: 15, width: 8, heads: 2, hidden: 16, sharpness: 1 };
const timeoutMs = 300_000;

const masked: TinyShape = { ...base, tokens: 7, causal: true, biased: true };

const cases: readonly [string, Partial<PackOptions>, TinyShape?][] = [
  ['two blocks, shape by cost', { tokenBlocks: 2 }],
  ['two blocks, looped', { tokenBlocks: 2, offsetsInSlots: 2, offsetsInArray: 1 }],
  [
    'two blocks, the loop carries its queries',
    { tokenBlocks: 2, offsetsInSlots: 1, offsetsInArray: 2, offsetsTogether: 2, offsetKeysLimitBytes: 0 },
  ],
  ['causal and biased, all key offsets at once', {}, masked],
  ['causal and biased, looped', { offsetsInSlots: 2, offsetsInArray: 2 }, masked],
  [
    'causal and biased, the loop carries its queries',
    { offsetsInSlots: 1, offsetsInArray: 1, offsetsTogether: 2, offsetKeysLimitBytes: 0 },
    masked,
  ],
  [
    'causal and biased, two blocks, looped',
    { tokenBlocks: 2, offsetsInSlots: 2, offsetsInArray: 1 },
    { ...masked, tokens: 15 },
  ],
];

describe('token blocks and masks, encrypted', () => {
  it.each(cases)(
    '%s',
    async (_, pack, shape = base) => {
      const module = tinyTransformer(shape, 7);
      const inputs = Array.from({ length: 5 }, (_, i) => ({ x: randomInput(shape, 100 + i) }));
      const probes = inputs.slice(0, 4);
      const context = {
        parameters,
        ranges: calibrateModule(module, probes),
        pack: { ...defaultPack, ...pack },
      };
      const { module: cipher } = runPipeline(
        module,
        context,
        () => 0,
        () => undefined,
      );
      const references = probes.map((probe) => runTensor(module, probe));
      const predicted = withPredictedErrors(cipher, predictError(cipher, probes, references));
      const { plan, weights } = lowerToPlan(predicted, { compilerVersion: 'test' });
      const folder = mkdtempSync(join(tmpdir(), 'aegis-blocks-'));
      const at = (name: string) => join(folder, name);
      try {
        writeFileSync(at('plan.aegis'), plan);
        writeFileSync(at('plan.aegis.weights'), weights);
        const files = { plan: at('plan.aegis'), in: at('request.ct'), out: at('response.ct') };
        await keygen({ plan: files.plan, directory: folder });
        await encrypt({ plan: files.plan, key: at('public.key'), inputs: inputs[4]!, out: files.in });
        const { outputSha256 } = await run({ ...files, keys: at('eval.keys') });
        const { outputs } = await decrypt({ plan: files.plan, key: at('secret.key'), in: files.out });
        const expected = runTensor(module, inputs[4]!).logits!;
        const bound = predicted.outputs[0]!.predictedError!;
        outputs.logits!.forEach((value, i) => expect(Math.abs(value - expected[i]!)).toBeLessThan(bound));
        expect(bound).toBeLessThan(0.05);
        if (shape === base) return;
        const options = { devices: 2, strategy: 'app' } as const;
        const placed = lowerPlaced(place(predicted, options), options);
        writeFileSync(at('plan.aegis'), placed.plan);
        writeFileSync(at('plan.aegis.weights'), placed.weights);
        expect((await run({ ...files, keys: at('eval.keys') })).outputSha256).toBe(outputSha256);
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    },
    timeoutMs,
  );
});
