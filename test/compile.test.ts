import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { calibrate, compile } from '../src/compile.js';
import { readSamples } from '../src/data/index.js';
import { AegisError } from '../src/support/diagnostics.js';
import { repository } from './frontend/corpus.js';

const model = join(repository, 'examples/digits-vit/digits_vit.onnx');

describe('ranges', async () => {
  const samples = await readSamples(model.replace('.onnx', '.samples.json'), { from: 0, to: 1 });
  const ranges = await calibrate(model, samples);

  it.each([
    ['another model', { ...ranges, sourceHash: '0'.repeat(64) }],
    ['another shape', { ...ranges, shapes: { image: [1, 1, 8, 16] } }],
    ['no shape', { ...ranges, shapes: {} }],
  ])('of %s are refused', async (_, given) => {
    const refusal = await compile(model, { ring: 'small', insecure: true, ranges: given }).catch(
      (error: unknown) => error,
    );
    expect(refusal).toBeInstanceOf(AegisError);
    expect((refusal as AegisError).diagnostics[0]?.code).toBe('A103');
  });
});
