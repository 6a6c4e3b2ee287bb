/** No room on the disk, no memory, no threads, files that go away: coded errors, and nothing half-written. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { formatNpz } from '../../src/data/index.js';
import { run } from '../../src/executor/index.js';
import { binaries, codeOf, input, makeFixture, type Fixture } from './fixture.js';

const main = 'dist/cli/main.js';
const timeoutMs = 120_000;
let f: Fixture;
beforeAll(async () => {
  f = await makeFixture();
  await run({ plan: f.plan, keys: f.evalKeys, in: f.request, out: f.path('response.ct') });
  const x = { dtype: 'float64', shape: [2, 40], data: input } as const;
  writeFileSync(f.path('x.npz'), formatNpz(new Map([['x', x]])));
});
afterAll(() => f.remove());

/** Under a limit of bash's ulimit: exit code, error codes, and what was left behind in the fixture's folder. */
function limited(limit: string, program: string, ...words: string[]) {
  const before = readdirSync(f.directory).sort();
  const line = `ulimit ${limit} || exit 99; exec "$@"`;
  const { status, signal, stdout, stderr } = spawnSync(
    'bash',
    ['-c', line, 'bash', program, ...words, '--json'],
    { encoding: 'utf8' },
  );
  expect(signal, stderr).toBeNull();
  expect(readdirSync(f.directory).sort()).toEqual(before);
  const { errors } = JSON.parse(stdout) as { errors?: { code: string }[] };
  return { status, codes: (errors ?? []).map(({ code }) => code) };
}
const aegis = (limit: string, ...words: string[]) => limited(limit, process.execPath, main, ...words);
const exec = (limit: string, ...words: string[]) =>
  limited(limit, join(binaries, 'aegis-exec'), f.plan, '--keys', f.evalKeys, '--in', f.request, ...words);

describe('a full disk', () => {
  // 1 KiB blocks: what is small enough is not written either, for nothing is whole without the rest.
  it('is an error of every command that writes', { timeout: timeoutMs }, () => {
    expect(existsSync(main), 'npm run setup builds it').toBe(true);
    const none = f.path('none');
    const files = ['--in', f.request, '--keys', f.evalKeys, '-o', none];
    const refused = { status: 1, codes: ['R102'] };
    expect(exec('-f 4', '-o', none)).toEqual(refused);
    expect(aegis('-f 4', 'run', f.plan, ...files)).toEqual(refused);
    const request = ['--key', f.publicKey, '--in', f.path('x.npz'), '-o', none];
    expect(aegis('-f 4', 'encrypt', f.plan, ...request)).toEqual(refused);
    const keys = f.path('keys');
    const before = readdirSync(keys);
    expect(aegis('-f 12', 'keygen', f.plan, '-o', keys)).toEqual(refused);
    expect(readdirSync(keys)).toEqual(before);
    const response = ['--key', f.secretKey, '--in', f.path('response.ct'), '-o', none];
    expect(aegis('-f 0', 'decrypt', f.plan, ...response)).toEqual({ status: 1, codes: ['C102'] });
    const model = 'examples/digits-vit/digits_vit';
    const compile = ['compile', `${model}.onnx`, '--samples', `${model}.samples.json`, '--take', '0:1'];
    const small = ['--ring', 'small', '--insecure', '-o', none];
    expect(aegis('-f 4', ...compile, ...small)).toEqual({ status: 1, codes: ['C102'] });
  });
});

describe('a small machine', () => {
  it('is an error, not a crash, at any limit of memory', { timeout: timeoutMs }, () => {
    const seen = new Set<string>();
    for (let kib = 24_000; kib <= 400_000; kib *= 1.25) {
      const { status, codes } = exec(`-v ${Math.round(kib)}`, '-o', '/dev/null', '--threads', '4');
      expect(status).toBe(1);
      for (const code of codes) seen.add(code);
    }
    // R102: it got as far as the response.
    expect([...seen].sort()).toEqual(expect.arrayContaining(['R102', 'R502']));
    expect([...seen].every((code) => ['R101', 'R102', 'R242', 'R501', 'R502'].includes(code))).toBe(true);
  });
});

describe('files that are not there any more', () => {
  it('are named', async () => {
    const files = { plan: f.plan, keys: f.evalKeys, in: f.request, out: f.path('none') };
    for (const part of ['plan', 'keys', 'in'] as const) {
      expect(await codeOf(run({ ...files, [part]: f.path('gone') }))).toBe('R101');
    }
    expect(await codeOf(run({ ...files, weights: f.path('gone') }))).toBe('R101');
    expect(existsSync(files.out)).toBe(false);
  });
});
