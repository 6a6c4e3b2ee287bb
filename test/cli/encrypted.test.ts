import { spawn } from 'node:child_process';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { formatNpz, parseNpz, readSamples, sampleAt } from '../../src/data/index.js';
import { aegis, codesOf, type Outcome } from './fake-context.js';

const folder = mkdtempSync(join(tmpdir(), 'aegis-encrypted-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const model = 'examples/digits-vit/digits_vit.onnx';
const samplesFile = 'examples/digits-vit/digits_vit.samples.json';
const file = (name: string) => join(folder, name);
const plan = file('digits.aegis');
const shown = 16;

async function ok(...argv: string[]): Promise<Outcome> {
  const outcome = await aegis(...argv);
  expect(outcome, argv.join(' ')).toMatchObject({ status: 0 });
  return outcome;
}

const runArguments = (response: string, at = folder) => [
  ...['run', join(at, 'digits.aegis'), '--keys', join(at, 'eval.keys')],
  ...['--in', join(at, 'request.ct'), '-o', file(response)],
];

const compiled = [
  'compile',
  model,
  '--samples',
  samplesFile,
  '--take',
  '0:16',
  '--ring',
  'small',
  '--insecure',
];

beforeAll(async () => {
  await ok(...compiled, '-o', plan);
  const samples = await readSamples(samplesFile);
  writeFileSync(file('x.npz'), formatNpz(sampleAt(samples, shown)));
  const keys = await ok('keygen', plan, '-o', folder, '--seed', '1');
  expect(keys.out).toContain('INSECURE');
  const request = await ok(
    'encrypt',
    plan,
    '--key',
    file('public.key'),
    '--in',
    file('x.npz'),
    '-o',
    file('request.ct'),
  );
  expect(request.out).toContain('INSECURE');
});

describe('an encrypted run', () => {
  it('gives the logits of ONNX Runtime within the predicted error', async () => {
    const { ranks, ...report } = JSON.parse((await ok(...runArguments('response.ct'), '--json')).out) as {
      outputSha256: string;
      seconds: number;
      insecure: boolean;
      ranks: { peakBytes: number }[];
    };
    expect(report).toEqual({
      outputSha256: expect.stringMatching(/^[0-9a-f]{64}$/),
      seconds: expect.any(Number),
      insecure: true,
      processPeakBytes: expect.any(Number),
    });
    expect(ranks).toEqual([
      expect.objectContaining({
        rank: 0,
        peakBytes: expect.any(Number),
        staticBytes: expect.any(Number),
        collectives: [],
      }),
    ]);
    const decrypted = await ok(
      'decrypt',
      plan,
      '--key',
      file('secret.key'),
      '--in',
      file('response.ct'),
      '-o',
      file('y.npz'),
    );
    expect(decrypted.out).toContain('INSECURE');
    const logits = parseNpz(readFileSync(file('y.npz')), 'y.npz').get('logits');
    expect(logits?.shape).toEqual([1, 10]);
    const expected = (await readSamples(samplesFile)).logits?.[shown];
    const error = Math.max(
      ...Array.from(logits?.data ?? [], (value, i) => Math.abs(value - (expected?.[i] ?? NaN))),
    );
    const { outputs } = JSON.parse((await ok('inspect', plan, '--json')).out) as {
      outputs: { predictedError: number }[];
    };
    expect(error).toBeLessThanOrEqual(outputs[0]?.predictedError ?? 0);
  });

  it('has the same bits with another number of threads', async () => {
    const hashes = await Promise.all(
      ['1', '2'].map(
        async (threads) =>
          (
            JSON.parse((await ok(...runArguments(`t${threads}.ct`), '--threads', threads, '--json')).out) as {
              outputSha256: string;
            }
          ).outputSha256,
      ),
    );
    expect(hashes[0]).toBe(hashes[1]);
  });

  it('is verified with fresh keys', async () => {
    const { out } = await ok(
      'verify',
      plan,
      '--samples',
      samplesFile,
      '--take',
      '16:17',
      '--encrypted',
      '--json',
    );
    const result = JSON.parse(out) as { maxAbsError: number; predictedError: number };
    expect(result).toMatchObject({ samples: 1, argmaxAgreement: 1, accuracy: 1, insecure: true });
    expect(result.maxAbsError).toBeLessThanOrEqual(result.predictedError);
  });

  it('is verified node by node, by decrypting what nodes make', async () => {
    const samples = ['--samples', samplesFile, '--take', '16:17', '--per-node', '--json'];
    const runs = await Promise.all([
      ok('verify', plan, ...samples),
      ok('verify', plan, ...samples, '--encrypted'),
    ]);
    for (const { out } of runs) {
      const { nodes } = JSON.parse(out) as { nodes: { node: string; predicted: number; measured: number }[] };
      expect(nodes.length).toBeGreaterThan(10);
      for (const { node, predicted, measured } of nodes) {
        expect(measured, node).toBeLessThanOrEqual(predicted);
        expect(measured, node).toBeGreaterThan(predicted / 64);
      }
    }
  });

  it('is verified in the clear, against samples and against ONNX Runtime', async () => {
    const { out } = await ok('verify', plan, '--samples', samplesFile, '--take', '16:20', '--json');
    expect(JSON.parse(out)).toMatchObject({ samples: 4, argmaxAgreement: 1, accuracy: 1 });
    const random = ['verify', plan, '--random', '2', '--seed', '3', '--model', model, '--no-noise', '--json'];
    const [ort, tensor] = await Promise.all(
      ['ort', 'tensor'].map(
        async (oracle) =>
          JSON.parse((await ok(...random, '--oracle', oracle)).out) as { maxAbsError: number },
      ),
    );
    expect(ort?.maxAbsError).toBeCloseTo(tensor?.maxAbsError ?? NaN, 4);
  });
});

describe('files', () => {
  it('of secrets are for the owner only', () => {
    expect(statSync(file('secret.key')).mode & 0o777).toBe(0o600);
  });

  it('are inspected: every key, memory, schedule', async () => {
    const { out } = await ok('inspect', plan, '--keys');
    expect(out).toContain('relinearize');
    expect(out).toContain('INSECURE');
    const memory = (await ok('inspect', plan, '--memory')).out;
    expect(memory).toMatch(/keys.*weights.*activations.*scratch.*in all.*free/s);
    expect((await ok('inspect', plan, '--phase', 'schedule')).out).toContain('key_product');
    expect((await ok('inspect', plan)).out).toMatch(/security +INSECURE/);
  });

  it('are not shared where flooding would cover the result', async () => {
    await ok(...runArguments('shared.ct'));
    const share = ['decrypt', plan, '--key', file('secret.key'), '--in', file('shared.ct'), '--share'];
    expect(codesOf(await aegis(...share, '-o', file('no.npz'), '--json'))).toEqual(['R323']);
    expect(await aegis(...share.slice(0, -1), '--queries', '5', '-o', file('no.npz'))).toMatchObject({
      status: 2,
    });
    rmSync(file('shared.ct'));
  });

  it('that do not belong are refused by code, and nothing is written', async () => {
    const before = readdirSync(folder).sort();
    const refused = async (...argv: string[]) =>
      codesOf(await aegis(...argv, '-o', file('no.out'), '--json'));
    const encrypt = ['encrypt', plan, '--key', file('public.key'), '--in'];
    const run = ['run', plan, '--in', file('request.ct'), '--keys'];
    expect(await refused(...run, file('secret.key'))).toEqual(['R310']);
    expect(await refused(...run, file('eval.keys'), '--backend', 'cuda')).toEqual(['R404']);
    expect(await refused(...encrypt, file('wrong.npz'))).toEqual(['C103']);
    writeFileSync(
      file('wrong.npz'),
      formatNpz(new Map([['picture', { dtype: 'float32', shape: [1], data: Float64Array.of(1) }]])),
    );
    expect(await refused(...encrypt, file('wrong.npz'))).toEqual(['D110']);
    writeFileSync(
      file('wrong.npz'),
      formatNpz(new Map([['image', { dtype: 'float32', shape: [1, 1, 4, 4], data: new Float64Array(16) }]])),
    );
    expect(await refused(...encrypt, file('wrong.npz'))).toEqual(['D111']);
    rmSync(file('wrong.npz'));
    expect(readdirSync(folder).sort()).toEqual(before);
  });

  it('that are damaged get a code: a plan cut anywhere', async () => {
    const bytes = readFileSync(plan);
    for (const length of [8, 100, 10_000, bytes.length - 1]) {
      writeFileSync(file('cut.aegis'), bytes.subarray(0, length));
      expect(codesOf(await aegis('inspect', file('cut.aegis'), '--json'))[0]).toMatch(/^R2/);
    }
    copyFileSync(plan, file('cut.aegis'));
    expect(codesOf(await aegis('verify', file('cut.aegis'), '--samples', samplesFile, '--json'))).toEqual([
      'C121',
    ]);
    rmSync(file('cut.aegis'));
  });
});

describe('Ctrl-C', () => {
  // In blocks the model takes seconds longer than the first line of progress.
  const long = file('long');
  beforeAll(async () => {
    mkdirSync(long);
    const blocks = join(long, 'digits.aegis');
    await ok(...compiled, '--levels', '13', '--token-blocks', '4', '-o', blocks);
    await ok('keygen', blocks, '-o', long, '--seed', '1');
    const ports = ['--in', file('x.npz'), '-o', join(long, 'request.ct')];
    await ok('encrypt', blocks, '--key', join(long, 'public.key'), ...ports);
  });

  it('ends a run with 130 and leaves no file', async () => {
    const before = readdirSync(folder).sort();
    const argv = ['dist/cli/main.js', ...runArguments('interrupted.ct', long), '--threads', '1'];
    const child = spawn(process.execPath, argv, { stdio: 'pipe' });
    let err = '';
    const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
    // The first line of progress shows that the run has begun.
    await new Promise<void>((resolve) =>
      child.stderr.on('data', (data: Buffer) => {
        err += data.toString();
        resolve();
      }),
    );
    child.kill('SIGINT');
    expect(await ended).toBe(130);
    expect(err).toContain('interrupted');
    expect(readdirSync(folder).sort()).toEqual(before);
  });
});
