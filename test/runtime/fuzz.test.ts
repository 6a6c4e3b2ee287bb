/**
 * A short run of every fuzz target (runtime/fuzz). They need clang and several minutes to build, so they are
 * built by the full tests, or by hand with scripts/fuzz.sh; without them the test is skipped and says why.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';

const full = process.env['AEGIS_TEST_FULL'] === '1';
const clang = ['clang++', 'clang++-14'].some((name) => spawnSync(name, ['--version']).status === 0);
const built = existsSync('build/fuzz/bin/aegis_fuzz_meeting');
const reason = !clang
  ? 'there is no clang++'
  : !built && !full
    ? 'the targets are not built (bash scripts/fuzz.sh)'
    : undefined;
if (reason !== undefined) process.stderr.write(`fuzz targets are not run: ${reason}\n`);

const folder = mkdtempSync(join(tmpdir(), 'aegis-fuzz-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('fuzz targets', () => {
  it.skipIf(reason !== undefined)('find nothing', { timeout: full ? 1_800_000 : 240_000 }, () => {
    const env = { ...process.env, ...(full ? {} : { AEGIS_FUZZ_BIN: 'build/fuzz/bin' }) };
    const words = ['scripts/fuzz.sh', full ? '20000' : '2000', folder];
    const { stdout, status } = spawnSync('bash', words, { env, encoding: 'utf8' });
    expect(stdout).toMatch(/total: \d+ executions, 0 findings/);
    expect(status).toBe(0);
    const targets = readdirSync('runtime/fuzz').filter((name) => /^fuzz_\w+\.cc$/.test(name));
    expect(stdout.trim().split('\n')).toHaveLength(targets.length + 1);
  });
});
