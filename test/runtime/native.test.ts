/**
 * The C++ tests are programs of their own; each prints what it checks and `N passed, 0 failed` at the end.
 */
import { execFile } from 'node:child_process';
import { accessSync, constants, existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';

const folder = 'build/runtime/bin';
const run = promisify(execFile);
const timeoutMs = 300_000;

function programs(): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => /^aegis_(conformance|\w+_test)$/.test(name))
    .sort();
}

describe('runtime', () => {
  it('has built its test programs (npm run setup)', () => {
    expect(programs()).toContain('aegis_conformance');
  });

  it.each(programs())(
    '%s',
    async (name) => {
      const path = join(folder, name);
      accessSync(path, constants.X_OK);
      const { stdout } = await run(path, { timeout: timeoutMs, maxBuffer: 2 ** 28 });
      const summary = stdout.trimEnd().split('\n').at(-1);
      expect(summary).toMatch(/^[1-9]\d* passed, 0 failed$/);
    },
    timeoutMs,
  );
});
