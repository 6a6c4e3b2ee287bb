/** Every model of the corpus compiles as exported, and its final `cipher` module agrees with the model in the clear. */
import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { compile, sampleInputs } from '../../src/compile.js';
import { readSamples, takeSamples } from '../../src/data/index.js';
import { runCipher } from '../../src/ir/interpreter/cipher.js';
import { defined } from '../../src/support/invariant.js';
import { corpusFiles, repository } from '../frontend/corpus.js';

const float = /digits_vit_|spam_hfbert_encoder_only|berttiny_emotion_encoder/;
const models = [
  join(repository, 'examples/digits-vit/digits_vit.onnx'),
  ...['trained', 'reconstructed'].flatMap((folder) => corpusFiles(folder, '.onnx')).filter((path) => float.test(path)),
];
const calibrated = 16;
/** `npm run test:full` looks at all held-out samples of every export. */
const heldOut = process.env.AEGIS_TEST_FULL === undefined ? 8 : Infinity;

function samplesPath(model: string): string {
  const own = model.replace(/\.onnx$/, '.samples.json');
  return existsSync(own) ? own : join(model, '..', `${basename(model).split('.')[0] ?? ''}.samples.json`);
}

const argmax = (values: ArrayLike<number>) => Array.from(values).indexOf(Math.max(...Array.from(values)));

describe('compiled models in the clear', () => {
  it.each(models.map((path) => [basename(path), path] as const))('%s', async (_, path) => {
    const samples = await readSamples(samplesPath(path));
    const { cipher, tensor } = await compile(path, {
      ring: 'small', insecure: true, samples: takeSamples(samples, { from: 0, to: calibrated }),
    });
    const port = defined(cipher.outputs[0], 'output');
    const inputs = sampleInputs(tensor, samples).slice(calibrated, calibrated + heldOut);
    let agreeing = 0;
    inputs.forEach((input, i) => {
      const got = defined(runCipher(cipher, input)[port.name], 'logits');
      const expected = defined(samples.logits?.[calibrated + i], 'expected logits');
      const error = Math.max(...Array.from(got, (value, j) => Math.abs(value - (expected[j] ?? NaN))));
      expect(error, `sample ${calibrated + i}`).toBeLessThan(0.05);
      if (argmax(got) === argmax(expected)) agreeing++;
    });
    expect(agreeing / inputs.length).toBeGreaterThanOrEqual(0.98);
  });
});
