/**
 * Every reader of the runtime, fed 2000 seeded mutations of a good file: it ends well or with a code, and
 * never crashes.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { decrypt, encrypt, run, validatePlan } from '../../src/executor/index.js';
import { codeOf, input, makeFixture, seededRandom, type Fixture } from './fixture.js';

const mutations = 2000;
/** Calls in flight, so that the thread pool of Node is busy. */
const parallel = 4;

let f: Fixture;
beforeAll(async () => {
  f = await makeFixture();
  await run({ plan: f.plan, keys: f.evalKeys, in: f.request, out: f.path('response.ct') });
});
afterAll(() => f.remove());

const interestingBytes = [0x00, 0x01, 0x7f, 0x80, 0xff, 0x22, 0x5b, 0x7b, 0x2d];

/**
 * One to four changes: bits, bytes, decimal digits, words, copies of ranges, cuts, insertions; half of them
 * in the first
 * 4 KiB. Every second file gets one bit or byte only, which is what structure checks let through most often.
 */
function mutate(original: Uint8Array, random: () => number): Uint8Array {
  let bytes: Uint8Array = Uint8Array.from(original);
  const below = (n: number) => Math.floor(random() * n);
  const place = () => below(random() < 0.5 ? Math.min(bytes.length, 4096) : bytes.length);
  const gentle = random() < 0.5;
  for (let left = gentle ? 1 : 1 + below(4); left > 0 && bytes.length > 0; left--) {
    const at = place();
    switch (below(gentle ? 3 : 7)) {
      case 0:
        bytes[at] = (bytes[at] ?? 0) ^ (1 << below(8));
        break;
      case 1:
        bytes[at] = interestingBytes[below(interestingBytes.length)] ?? 0;
        break;
      case 2:
        bytes = replaceDigit(bytes, at, below);
        break;
      case 3:
        bytes.fill(random() < 0.5 ? 0 : 0xff, at, at + 8);
        break;
      case 4:
        bytes.copyWithin(at, place(), place());
        break;
      case 5:
        bytes = bytes.slice(0, at);
        break;
      case 6:
        bytes = splice(
          bytes,
          at,
          Uint8Array.from({ length: 1 + below(16) }, () => below(256)),
        );
        break;
    }
  }
  return bytes;
}

function splice(bytes: Uint8Array, at: number, inserted: Uint8Array): Uint8Array {
  const result = new Uint8Array(bytes.length + inserted.length);
  result.set(bytes.subarray(0, at));
  result.set(inserted, at);
  result.set(bytes.subarray(at), at + inserted.length);
  return result;
}

/** The next decimal digit after `at`: shapes and offsets of a safetensors header. */
function replaceDigit(bytes: Uint8Array, at: number, below: (n: number) => number): Uint8Array {
  const found = bytes.findIndex((byte, i) => i >= at && byte >= 0x30 && byte <= 0x39);
  if (found >= 0) bytes[found] = 0x30 + below(10);
  return bytes;
}

/** How often each code came, '' for files that were accepted. Only coded errors get this far (codeOf). */
async function bombard(
  name: string,
  original: Uint8Array,
  read: (path: string, worker: number) => Promise<unknown>,
): Promise<Map<string, number>> {
  const random = seededRandom(0xae615);
  const codes = new Map<string, number>();
  const files = Array.from({ length: mutations }, () => mutate(original, random));
  const work = async (worker: number) => {
    for (let i = worker; i < files.length; i += parallel) {
      const path = f.path(`mutated-${name}-${worker}`);
      await writeFile(path, files[i] ?? new Uint8Array(0));
      const code = await codeOf(read(path, worker));
      codes.set(code, (codes.get(code) ?? 0) + 1);
    }
  };
  await Promise.all(Array.from({ length: parallel }, (_, worker) => work(worker)));
  return codes;
}

function expectRefusals(codes: Map<string, number>): void {
  for (const code of codes.keys()) expect(code).toMatch(/^(|R[1-4]\d\d)$/);
  expect(mutations - (codes.get('') ?? 0)).toBeGreaterThan(mutations / 5);
  expect(codes.size).toBeGreaterThan(5);
}

it('plans', async () => {
  expectRefusals(await bombard('plan', await readFile(f.plan), (path) => validatePlan(path)));
});

it('plans that are run', async () => {
  const weights = f.weights;
  expectRefusals(
    await bombard('run-plan', await readFile(f.plan), (path, worker) =>
      run({
        plan: path,
        weights,
        keys: f.evalKeys,
        in: f.request,
        out: f.path(`mutated-out-${worker}`),
        threads: 1,
      }),
    ),
  );
});

it('secret keys', async () => {
  expectRefusals(
    await bombard('secret-key', await readFile(f.secretKey), (path) =>
      decrypt({ plan: f.plan, key: path, in: f.path('response.ct'), threads: 1 }),
    ),
  );
});

it('public keys', async () => {
  expectRefusals(
    await bombard('public-key', await readFile(f.publicKey), (path, worker) =>
      encrypt({
        plan: f.plan,
        key: path,
        inputs: { x: input },
        out: f.path(`mutated-request-${worker}`),
        threads: 1,
      }),
    ),
  );
});

it('evaluation keys', async () => {
  expectRefusals(
    await bombard('eval-keys', await readFile(f.evalKeys), (path, worker) =>
      run({ plan: f.plan, keys: path, in: f.request, out: f.path(`mutated-out-${worker}`), threads: 1 }),
    ),
  );
});

it('requests', async () => {
  expectRefusals(
    await bombard('request', await readFile(f.request), (path, worker) =>
      run({ plan: f.plan, keys: f.evalKeys, in: path, out: f.path(`mutated-out-${worker}`), threads: 1 }),
    ),
  );
});

it('responses', async () => {
  expectRefusals(
    await bombard('response', await readFile(f.path('response.ct')), (path) =>
      decrypt({ plan: f.plan, key: f.secretKey, in: path, threads: 1 }),
    ),
  );
});

it('weights', async () => {
  expectRefusals(
    await bombard('weights', await readFile(f.weights), (path, worker) =>
      run({
        plan: f.plan,
        weights: path,
        keys: f.evalKeys,
        in: f.request,
        out: f.path(`mutated-out-${worker}`),
        threads: 1,
      }),
    ),
  );
});
