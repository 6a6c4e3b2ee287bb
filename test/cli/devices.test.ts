/** One cipher module, lowered by the command line for several devices, runs to the same ciphertexts. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readSamples } from '../../src/data/index.js';
import { formatNpz } from '../../src/data/npz.js';
import { aegis, codesOf } from './fake-context.js';

const folder = mkdtempSync(join(tmpdir(), 'aegis-devices-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const model = 'examples/digits-vit/digits_vit.onnx';
const samples = 'examples/digits-vit/digits_vit.samples.json';
const taken = ['--samples', samples, '--take', '0:16'];
const file = (name: string): string => join(folder, name);
const ok = async (...argv: string[]): Promise<string> => {
  const { status, out, err } = await aegis(...argv);
  expect(err.split('\n').filter((line) => line.startsWith('error'))).toEqual([]);
  expect(status).toBe(0);
  return out;
};
const run = async (plan: string, ...options: string[]): Promise<Record<string, unknown>> => {
  const files = ['--keys', file('keys/eval.keys'), '--in', file('request.ct'), '-o', file(`${plan}.ct`)];
  return JSON.parse(await ok('run', file(plan), ...files, '--json', ...options)) as Record<string, unknown>;
};

describe('several devices', () => {
  beforeAll(async () => {
    const small = ['--ring', 'small', '--insecure', '--devices', '2', '--token-blocks', '2'];
    await ok('compile', model, ...taken, ...small, '-o', file('two.aegis'));
    await ok('lower', file('two.aegis.cipher'), '-o', file('one.aegis'));
    await ok('keygen', file('one.aegis'), '-o', file('keys'), '--seed', '3');
    const key = ['--key', file('keys/public.key')];
    await ok('encrypt', file('one.aegis'), ...key, '--in', await input(), '-o', file('request.ct'));
  }, 300_000);

  it('gives the same ciphertexts from compile and lower, on one device and more', async () => {
    const out = await ok(
      'lower',
      file('two.aegis.cipher'),
      '-o',
      file('three.aegis'),
      ...['--devices', '3', '--strategy', 'limb', '--no-overlap', '--json'],
    );
    expect(JSON.parse(out)).toMatchObject({ insecure: true, logN: 12, passes: [] });
    const one = await run('one.aegis');
    for (const plan of ['two.aegis', 'three.aegis']) {
      const report = await run(plan, '--channel', 'local');
      expect(report['outputSha256']).toBe(one['outputSha256']);
    }
  }, 300_000);

  it('refuses a device that would hold too much, and writes nothing', async () => {
    const limit = ['--memory-limit', '64MiB', '--json'];
    const outcome = await aegis('lower', file('two.aegis.cipher'), '-o', file('no.aegis'), ...limit);
    expect(outcome.status).toBe(1);
    expect(codesOf(outcome)).toEqual(['B110']);
    expect(readdirSync(folder).filter((name) => name.startsWith('no.'))).toEqual([]);
  });

  it('cuts tokens into fewer blocks where the fastest plan does not fit', async () => {
    // One chain for all: each number of blocks has a fastest one of its own.
    const chain = ['--ring', 'small', '--insecure', '--levels', '13'];
    const small = [...chain, '--devices', '2', '--strategy', 'app', '--json'];
    const peakOf = async (...options: string[]): Promise<number> => {
      const out = await ok('compile', model, ...taken, ...small, ...options, '-o', file('fit.aegis'));
      return (JSON.parse(out) as { peakBytes: number }).peakBytes;
    };
    const peaks = [await peakOf('--token-blocks', '1'), await peakOf('--token-blocks', '2')];
    const limit = Math.max(...peaks) - 1;
    expect(await peakOf('--memory-limit', String(limit))).toBe(Math.min(...peaks));
  }, 300_000);

  it('refuses unknown profiles and wrong device counts', async () => {
    const lower = (...options: string[]) =>
      aegis('lower', file('two.aegis.cipher'), '-o', file('no.aegis'), '--json', ...options);
    expect((await lower('--devices', '2', '--profile', 'no-such-device')).status).toBe(1);
    expect((await lower('--devices', '0')).status).toBe(2);
  });
});

/** The input of sample 16 as .npz. */
async function input(): Promise<string> {
  const { inputs } = await readSamples(samples);
  const tensors = [...inputs].map(
    ([name, { dtype, shape, data }]) => [name, { dtype, shape, data: data[16]! }] as const,
  );
  writeFileSync(file('x.npz'), formatNpz(new Map(tensors)));
  return file('x.npz');
}
