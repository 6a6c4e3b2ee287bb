/**
 * A small plan with keys and a request, made by the runtime's own test program
 * (runtime/test/client_fixture_main.cc).
 */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { encrypt, keygen } from '../../src/executor/index.js';
import { AegisError } from '../../src/support/diagnostics.js';

/** The folder that the addon and the programs beside it were built into. */
export const binaries = dirname(process.env['AEGIS_ADDON'] ?? 'build/bin/aegis.node');

export const inputCount = 80;
export const input = Float64Array.from({ length: inputCount }, (_, i) => Math.sin(i));

export interface Fixture {
  readonly directory: string;
  readonly plan: string;
  readonly weights: string;
  /** Another ring. */
  readonly otherPlan: string;
  readonly secretKey: string;
  readonly publicKey: string;
  readonly evalKeys: string;
  readonly request: string;
  path(name: string): string;
  remove(): Promise<void>;
}

export async function makeFixture(): Promise<Fixture> {
  const directory = await mkdtemp(join(tmpdir(), 'aegis-executor-'));
  const path = (name: string) => join(directory, name);
  await promisify(execFile)(join(binaries, 'aegis_client_fixture_files'), [directory]);
  const plan = path('plan.aegis');
  const keys = await keygen({ plan, directory: path('keys'), seed: 1 });
  const request = path('request.ct');
  await encrypt({ plan, key: keys.publicKey, inputs: { x: input }, out: request });
  return {
    ...keys,
    directory,
    plan,
    weights: `${plan}.weights`,
    otherPlan: path('other.aegis'),
    request,
    path,
    remove: () => rm(directory, { recursive: true }),
  };
}

/** The code that a promise is rejected with; '' if it is not. Anything but a coded error is thrown on. */
export async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return '';
  } catch (error) {
    if (error instanceof AegisError) return error.diagnostics[0]?.code ?? '';
    throw error;
  }
}

/** mulberry32 */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}
