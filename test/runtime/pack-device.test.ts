import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const run = promisify(execFile);
const maxBytes = 20 * 2 ** 20;
const packMs = 600_000;
const buildMs = 3_600_000;
const full = process.env['AEGIS_TEST_FULL'] === '1';

describe('npm run pack:device', () => {
  const work = mkdtempSync(join(tmpdir(), 'aegis-pack-test-'));
  const archive = join(work, 'pack.tar.gz');
  const folder = join(work, 'aegis-device');
  const inPack = (...names: string[]): string => join(folder, ...names);

  beforeAll(async () => {
    await run(process.execPath, ['scripts/pack-device.mjs', '-o', archive], { maxBuffer: 2 ** 26 });
    await run('tar', ['-xzf', archive, '-C', work]);
  }, packMs);
  afterAll(() => rmSync(work, { recursive: true, force: true }));

  it('holds what a machine without network and Node needs, in 20 MiB', () => {
    expect(statSync(archive).size).toBeLessThan(maxBytes);
    for (const file of [
      'device-check.sh',
      'runtime/CMakeLists.txt',
      'runtime/backends/cuda/module.cu',
      'generated/plan/plan_generated.h',
      'third_party/include/flatbuffers/flatbuffers.h',
      'third_party/include/nlohmann/json.hpp',
      'third_party/include/sodium.h',
      'third_party/include/sodium/version.h',
      'third_party/lib/libsodium.a',
      'profiles/h100-80g.json',
      'example/ranks1.aegis',
      'example/ranks2.aegis',
      'example/ranks4.aegis',
      'example/model.weights',
      'example/request.ct',
      'example/seed',
    ]) {
      expect(existsSync(inPack(file)), file).toBe(true);
    }
    expect(existsSync(inPack('runtime/addon'))).toBe(false);
    expect(readFileSync(inPack('example/outputSha256'), 'utf8')).toMatch(/^[0-9a-f]{64}\n$/);
  });

  it('holds no secret and no evaluation keys', () => {
    const names = readdirSync(folder, { recursive: true, encoding: 'utf8' });
    expect(names.filter((name) => /\.keys?$/.test(name))).toEqual([]);
  });

  it('does not write over what is there', async () => {
    const again = run(process.execPath, ['scripts/pack-device.mjs', '-o', archive]);
    await expect(again).rejects.toMatchObject({ code: 1, stderr: expect.stringMatching(/exists/) as string });
  });

  it.runIf(full)(
    'builds in a clean folder and gives the same output on the CPU, for 1, 2 and 4 ranks',
    async () => {
      const env = { ...process.env, OUT: join(work, 'out'), BUILD: join(work, 'build') };
      await run('bash', [inPack('device-check.sh'), '--cpu-only'], { env, maxBuffer: 2 ** 26 });
      const summary = JSON.parse(readFileSync(join(work, 'out/summary.json'), 'utf8')) as {
        steps: { name: string; state: string }[];
      };
      expect(summary.steps.map(({ name, state }) => `${name} ${state}`)).toEqual([
        'build passed',
        'conformance-emulated passed',
        'keys passed',
        'run-cpu-1 passed',
        'run-cpu-2 passed',
        'run-cpu-4 passed',
      ]);
    },
    buildMs,
  );
});
