/** Token ids in, class out: the client's parts come from the plan, the model file is gone. */
import { mkdtempSync, readFileSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readPlan } from '../../src/backend/index.js';
import { formatNpz, parseNpz } from '../../src/data/index.js';
import { seededRandom } from '../data/random.js';
import { Chain, encode, runOnnxRuntime, weights } from '../frontend/onnx-builder.js';
import { aegis, codesOf, type Outcome } from './fake-context.js';

const folder = mkdtempSync(join(tmpdir(), 'aegis-client-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const file = (name: string): string => join(folder, name);
const ids = [3, 0, 19, 7];

async function ok(...argv: string[]): Promise<Outcome> {
  const outcome = await aegis(...argv);
  expect(outcome, argv.join(' ')).toMatchObject({ status: 0 });
  return outcome;
}

function model(): Uint8Array {
  const c = new Chain();
  const words = c.step('Gather', [weights(1, 20, 8), 'i_ids']);
  const logits = c.step('MatMul', [words, weights(2, 8, 3)]);
  const best = c.step('ArgMax', [logits], { axis: -1, keepdims: 0 });
  c.nodes.push({ op: 'Identity', in: [best], out: ['i_class'] });
  return encode(c.model({ i_ids: [1, ids.length] }, 'i_class'));
}

function writeInput(name: string, data: readonly number[]): void {
  const tensor = { dtype: 'int64' as const, shape: [1, data.length], data: Float64Array.from(data) };
  writeFileSync(file(name), formatNpz(new Map([['i_ids', tensor]])));
}

const encryptArguments = (input: string, request: string): string[] => {
  return ['encrypt', file('p.aegis'), '--key', file('public.key'), '--in', file(input), '-o', file(request)];
};

let wanted: readonly number[] = [];

beforeAll(async () => {
  writeFileSync(file('m.onnx'), model());
  wanted = (await runOnnxRuntime(file('m.onnx'), { i_ids: { dims: [1, 4], data: ids } })).i_class ?? [];
  await ok('compile', file('m.onnx'), '--ring', 'small', '--insecure', '-o', file('p.aegis'));
  await ok('verify', file('p.aegis'), '--random', '2', '--model', file('m.onnx'));
  unlinkSync(file('m.onnx'));
  await ok('keygen', file('p.aegis'), '-o', folder, '--seed', '1');
});

describe('a plan with client parts', () => {
  it('takes token ids and gives classes', async () => {
    writeInput('x.npz', ids);
    await ok(...encryptArguments('x.npz', 'request.ct'));
    const keys = ['--keys', file('eval.keys')];
    await ok('run', file('p.aegis'), ...keys, '--in', file('request.ct'), '-o', file('response.ct'));
    const secret = ['--key', file('secret.key')];
    await ok('decrypt', file('p.aegis'), ...secret, '--in', file('response.ct'), '-o', file('y.npz'));
    const found = parseNpz(readFileSync(file('y.npz')), 'y.npz').get('i_class');
    expect(found?.shape).toEqual([1, 4]);
    expect([...(found?.data ?? [])]).toEqual([...wanted]);
  });

  it('refuses other inputs by code', async () => {
    const codes = async (data: readonly number[]): Promise<readonly string[]> => {
      writeInput('bad.npz', data);
      return codesOf(await aegis(...encryptArguments('bad.npz', 'bad.ct'), '--json'));
    };
    expect(await codes([1, 2, 3])).toEqual(['D111']);
    expect(await codes([1, 2, 3, 20])).toEqual(['F302']);
    expect(await codes([1, 2, 3, -21])).toEqual(['F302']);
  });

  it('altered in its client parts, is refused by code or encrypts', async () => {
    writeInput('x.npz', ids);
    const original = readFileSync(file('p.aegis'));
    const prologue = Buffer.from(readPlan(original).client?.prologue ?? []);
    const start = original.indexOf(prologue);
    expect(start).toBeGreaterThan(0);
    const random = seededRandom(Number(process.env.AEGIS_SEED ?? 20261123));
    const seen = new Set<number>();
    for (let i = 0; i < 60; i++) {
      const bytes = Buffer.from(original);
      // The vector's length, which stands before it, and the headers of the file: weights change nothing.
      const at = start - 4 + random(i % 2 === 0 ? prologue.length + 4 : 120);
      bytes[at] = random(256);
      writeFileSync(file('altered.aegis'), bytes);
      const [, , ...rest] = encryptArguments('x.npz', 'altered.ct');
      const outcome = await aegis('encrypt', file('altered.aegis'), ...rest, '--json');
      if (outcome.status !== 0) expect(codesOf(outcome).join()).toMatch(/^[A-Z]\d\d\d/);
      seen.add(outcome.status);
    }
    expect([...seen].sort()).toEqual([0, 1]);
  });

  it('is inspected with them, and lowered again with them', async () => {
    const described = JSON.parse((await ok('inspect', file('p.aegis'), '--json')).out) as { client: unknown };
    expect(described.client).toEqual([
      {
        part: 'prologue',
        inputs: [{ name: 'i_ids', dtype: 'int64', shape: [1, 4] }],
        outputs: ['v0'],
        operators: { Gather: 1 },
        constants: 160,
      },
      expect.objectContaining({ part: 'epilogue', operators: { ArgMax: 1, Identity: 1 } }),
    ]);
    expect((await ok('inspect', file('p.aegis'))).out).toContain('prologue');
    await ok('lower', file('p.aegis.cipher'), '-o', file('again.aegis'));
    const parts = (name: string) => readPlan(readFileSync(file(name))).client;
    expect(parts('again.aegis')).toEqual(parts('p.aegis'));
  });
});
