/** Models of the zoo that have parts no trained model has, encrypted at the small ring. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { aegis } from '../cli/fake-context.js';
import { corpusFiles } from '../frontend/corpus.js';

const folder = mkdtempSync(join(tmpdir(), 'aegis-zoo-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Rotary positions, RMSNorm, SwiGLU and grouped queries; padding masks. All have two items in a batch. */
const quick = ['llama.sdpa.dyn23.onnx', 'bert.sdpa.dyn18.onnx'];
/** A patch embedding; strided convolutions with a group normalisation, 90 s. */
const slow = ['vit.sdpa.dyn23.onnx', 'wav2vec2.sdpa.dyn23.onnx'];
const wanted = process.env.AEGIS_TEST_FULL === undefined ? quick : [...quick, ...slow];
const models = corpusFiles('zoo', '.onnx').filter((path) => wanted.includes(basename(path)));

describe.skipIf(models.length === 0)('the zoo, encrypted', () => {
  it.each(models.map((path) => [basename(path), path] as const))(
    '%s is within its predicted error of ONNX Runtime',
    async (name, path) => {
      const plan = join(folder, `${name}.aegis`);
      const tokens = ['--seq-len', '8'];
      const compiled = await aegis('compile', path, ...tokens, '--ring', 'small', '--insecure', '-o', plan);
      expect(compiled.status, compiled.err).toBe(0);
      const { status, out } = await aegis(
        ...[
          'verify',
          plan,
          '--encrypted',
          '--random',
          '1',
          '--seed',
          '3',
          '--model',
          path,
          ...tokens,
          '--json',
        ],
      );
      expect(status).toBe(0);
      const { maxAbsError, predictedError } = JSON.parse(out) as Record<string, number>;
      expect(maxAbsError).toBeLessThanOrEqual(predictedError ?? 0);
      expect(maxAbsError).toBeGreaterThanOrEqual((predictedError ?? Infinity) / 8);
    },
  );
});
