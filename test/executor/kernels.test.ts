/** One plan, one request, every kernel table of this machine: the same output ciphertext. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { lowerToPlan } from '../../src/backend/index.js';
import { doctor, encrypt, keygen } from '../../src/executor/index.js';
import { calibrateModule } from '../../src/passes/calibrate.js';
import { defaultPack, runPipeline } from '../../src/passes/pipeline.js';
import { defaultLiteral, makeParameters } from '../../src/target/parameters.js';
import { repository } from '../frontend/corpus.js';
import { randomInput, tinyTransformer } from '../passes/tiny-transformer.js';

const folder = mkdtempSync(join(tmpdir(), 'aegis-kernels-'));
const at = (name: string) => join(folder, name);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const shape = { tokens: 7, width: 16, heads: 2, hidden: 32, sharpness: 1 };
const { kernels } = await doctor();

function outputHash(table: string): string {
  const out = execFileSync(
    join(repository, 'build/bin/aegis-exec'),
    [
      at('plan.aegis'),
      '--keys',
      at('eval.keys'),
      '--in',
      at('request.ct'),
      '-o',
      at('response.ct'),
      '--json',
    ],
    { env: { ...process.env, AEGIS_KERNELS: table }, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] },
  );
  return (JSON.parse(out) as { outputSha256: string }).outputSha256;
}

describe('kernel tables', () => {
  let expected = '';
  beforeAll(async () => {
    const module = tinyTransformer(shape, 7);
    const inputs = Array.from({ length: 8 }, (_, i) => ({ x: randomInput(shape, 100 + i) }));
    const context = {
      parameters: makeParameters(defaultLiteral('tiny', true)),
      ranges: calibrateModule(module, inputs),
      pack: { ...defaultPack, offsetsInSlots: 1, offsetsInArray: 2 },
    };
    const { module: cipher } = runPipeline(
      module,
      context,
      () => 0,
      () => undefined,
    );
    const { plan, weights } = lowerToPlan(cipher, { compilerVersion: 'test' });
    writeFileSync(at('plan.aegis'), plan);
    writeFileSync(at('plan.aegis.weights'), weights);
    await keygen({ plan: at('plan.aegis'), directory: folder, seed: 1 });
    await encrypt({
      plan: at('plan.aegis'),
      key: at('public.key'),
      inputs: { x: randomInput(shape, 1) },
      out: at('request.ct'),
    });
    expected = outputHash('reference');
  });

  it.each(kernels.filter((table) => table !== 'reference'))('%s gives the bits of the reference', (table) => {
    expect(outputHash(table)).toBe(expected);
  });

  it('covers more than the reference', () => {
    expect(kernels).toEqual(expect.arrayContaining(['reference', 'portable']));
  });
});
