/** A causal mask with padding as a float input of the model, from samples to decrypted outputs. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { formatNpz, parseNpz, type Tensor } from '../../src/data/index.js';
import { added, additive, attention, both, causal, rows, tokens } from '../frontend/masked-attention.js';
import { encode, maxDifference, runOnnxRuntime, weights } from '../frontend/onnx-builder.js';
import { aegis, codesOf, type Outcome } from './fake-context.js';

const folder = mkdtempSync(join(tmpdir(), 'aegis-mask-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const file = (name: string): string => join(folder, name);
const small = ['--ring', 'small', '--insecure'];
const samples = ['--samples', file('samples.npz')];
const kept = [
  [1, 1, 1, 1, 1, 1],
  [1, 1, 1, 1, 0, 0],
  [1, 1, 1, 0, 0, 0],
];
const x = (seed: number): readonly number[] => weights(seed, tokens, 8).floats ?? [];

async function ok(...argv: string[]): Promise<Outcome> {
  const outcome = await aegis(...argv);
  expect(outcome, argv.join(' ')).toMatchObject({ status: 0 });
  return outcome;
}

function write(
  name: string,
  xs: readonly (readonly number[])[],
  masks: readonly (readonly number[])[],
): void {
  const tensor = (shape: readonly number[], values: readonly (readonly number[])[]): Tensor => {
    return { dtype: 'float32', shape: [values.length, ...shape], data: Float64Array.from(values.flat()) };
  };
  const arrays = new Map([
    ['x', tensor([tokens, 8], xs)],
    ['mask', tensor([1, tokens, tokens], masks)],
  ]);
  writeFileSync(file(name), formatNpz(arrays));
}

const encrypt = (input: string): string[] => {
  return ['encrypt', file('p.aegis'), '--key', file('public.key'), '--in', file(input), '-o', file('q.ct')];
};

beforeAll(async () => {
  writeFileSync(file('m.onnx'), encode(attention([1, 1, tokens, tokens], added)));
  const masks = kept.map((one) => additive(both(one, causal)));
  write('samples.npz', [x(1), x(2), x(3)], masks);
  await ok('compile', file('m.onnx'), ...samples, ...small, '-o', file('p.aegis'));
});

describe('a causal mask as a float input', () => {
  it('is kept in calibrated ranges: they make the same plan', async () => {
    await ok('calibrate', file('m.onnx'), ...samples, '-o', file('ranges.json'));
    await ok('compile', file('m.onnx'), '--ranges', file('ranges.json'), ...small, '-o', file('again.aegis'));
    expect(readFileSync(file('again.aegis')).equals(readFileSync(file('p.aegis')))).toBe(true);
  });

  it('is open in random inputs', async () => {
    const model = ['--model', file('m.onnx')];
    for (const oracle of ['ort', 'tensor']) {
      const { out } = await ok(
        ...['verify', file('p.aegis'), '--random', '2', '--oracle', oracle, ...model, '--json'],
      );
      const { maxAbsError, predictedError } = JSON.parse(out) as Record<string, number>;
      expect(maxAbsError).toBeLessThanOrEqual(predictedError ?? 0);
    }
  });

  it('drops padding in an encrypted run', async () => {
    await ok('keygen', file('p.aegis'), '-o', folder, '--seed', '1');
    const data = additive(both(kept[1] ?? [], causal));
    write('x.npz', [x(5)], [data]);
    await ok(...encrypt('x.npz'));
    const keys = ['--keys', file('eval.keys')];
    await ok('run', file('p.aegis'), ...keys, '--in', file('q.ct'), '-o', file('r.ct'));
    const secret = ['--key', file('secret.key')];
    await ok('decrypt', file('p.aegis'), ...secret, '--in', file('r.ct'), '-o', file('y.npz'));
    const [found] = parseNpz(readFileSync(file('y.npz')), 'y.npz').values();
    const wanted = await runOnnxRuntime(file('m.onnx'), {
      x: { dims: [1, tokens, 8], data: x(5) },
      mask: { dims: [1, 1, tokens, tokens], data },
    });
    expect(maxDifference(found?.data ?? [], Object.values(wanted)[0] ?? [])).toBeLessThan(1e-3);
  });

  it('F302: another one is refused', async () => {
    write('open.npz', [x(5)], [additive(rows(kept[0] ?? [], tokens))]);
    expect(codesOf(await aegis(...encrypt('open.npz'), '--json'))).toEqual(['F302']);
  });
});
