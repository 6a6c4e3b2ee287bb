import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import {
  formatNpz,
  parseSamplesJson,
  parseTake,
  readNpz,
  readSamples,
  sampleAt,
  takeSamples,
} from '../../src/data/index.js';
import { AegisError, type Diagnostic } from '../../src/support/diagnostics.js';
import { mutate, seededRandom } from './random.js';

const folder = mkdtempSync(join(tmpdir(), 'aegis-samples-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const good = {
  model: 'm.onnx',
  meta: {},
  inputs: {
    ids: {
      dtype: 'int64',
      shape: [1, 2],
      data: [
        [1, 2],
        [3, 4],
        [5, 6],
      ],
    },
    mask: {
      dtype: 'bool',
      shape: [1, 2],
      data: [
        [true, false],
        [1, 0],
        [true, true],
      ],
    },
  },
  logits: [[[0.5, 1]], [[2, 3]], [[4, 5]]],
  labels: [1, 0, 1],
};

function diagnosticsOf(read: () => unknown): readonly Diagnostic[] {
  try {
    read();
  } catch (error) {
    if (error instanceof AegisError) return error.diagnostics;
    throw error;
  }
  return [];
}

async function codeOf(promise: Promise<unknown>): Promise<string | undefined> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof AegisError) return error.diagnostics[0]?.code;
    throw error;
  }
  return undefined;
}

describe('samples.json', () => {
  it('reads inputs, nested logits and labels', () => {
    const samples = parseSamplesJson(JSON.stringify(good), 's.json');
    expect(samples.count).toBe(3);
    expect(samples.inputs.get('mask')?.data[1]).toEqual(Float64Array.from([1, 0]));
    expect(samples.logits?.[2]).toEqual(Float64Array.from([4, 5]));
    expect(samples.labels).toEqual([1, 0, 1]);
    expect(sampleAt(samples, 1).get('ids')).toEqual({
      dtype: 'int64',
      shape: [1, 2],
      data: Float64Array.from([3, 4]),
    });
  });

  it('reads the example of the house', async () => {
    const samples = await readSamples('examples/digits-vit/digits_vit.samples.json', parseTake('16:18'));
    expect(samples.count).toBe(2);
    expect(samples.inputs.get('image')?.shape).toEqual([1, 1, 8, 8]);
    expect(samples.logits?.[0]).toHaveLength(10);
  });

  it('reports everything that is wrong, at once', () => {
    const bad = structuredClone(good) as unknown as { inputs: { ids: { data: unknown[] } }; labels: unknown };
    bad.inputs.ids.data = [[1], [2.5, 3], ['x', 1]];
    bad.labels = [1, 2];
    const messages = diagnosticsOf(() => parseSamplesJson(JSON.stringify(bad), 's.json')).map(
      (d) => d.message,
    );
    expect(messages).toEqual([
      's.json: inputs.ids.data[0] has 1 values, its shape needs 2',
      's.json: inputs.ids.data[1] holds 2.5, which is not a whole number',
      's.json: inputs.ids.data[2] holds "x", expected a number',
      's.json: labels has 2 entries for 3 samples',
    ]);
  });

  it('answers 2000 seeded mutations with samples or D103', () => {
    const bytes = new TextEncoder().encode(JSON.stringify(good));
    const random = seededRandom(7);
    let refused = 0;
    for (let i = 0; i < 2000; i++) {
      const text = Buffer.from(mutate(bytes, random)).toString('utf8');
      const found = diagnosticsOf(() => parseSamplesJson(text, 's.json'));
      for (const { code } of found) expect(code).toBe('D103');
      if (found.length > 0) refused++;
    }
    expect(refused).toBeGreaterThan(1000);
  });
});

describe('sample files', () => {
  it('splits an npz along its first axis', async () => {
    const path = join(folder, 's.npz');
    writeFileSync(
      path,
      formatNpz(
        new Map([
          ['x', { dtype: 'float32', shape: [3, 2], data: Float64Array.from([1, 2, 3, 4, 5, 6]) }],
          ['labels', { dtype: 'int64', shape: [3], data: Float64Array.from([7, 8, 9]) }],
        ]),
      ),
    );
    const samples = await readSamples(path, parseTake('1:'));
    expect(samples).toMatchObject({ count: 2, labels: [8, 9], logits: null });
    expect(samples.inputs.get('x')).toEqual({
      dtype: 'float32',
      shape: [1, 2],
      data: [Float64Array.from([3, 4]), Float64Array.from([5, 6])],
    });
    expect((await readNpz(path)).get('x')?.shape).toEqual([3, 2]);
  });

  it('refuses an npz whose arrays disagree on the number of samples', async () => {
    const path = join(folder, 'uneven.npz');
    const array = (count: number) => ({
      dtype: 'float32' as const,
      shape: [count],
      data: new Float64Array(count),
    });
    writeFileSync(
      path,
      formatNpz(
        new Map([
          ['x', array(3)],
          ['y', array(2)],
        ]),
      ),
    );
    expect(await codeOf(readSamples(path))).toBe('D103');
    writeFileSync(path, formatNpz(new Map()));
    expect(await codeOf(readSamples(path))).toBe('D103');
  });

  it('names files that are missing or of another kind', async () => {
    expect(await codeOf(readSamples(join(folder, 'absent.json')))).toBe('D101');
    expect(await codeOf(readNpz(folder))).toBe('D101');
    expect(await codeOf(readSamples(join(folder, 'a.csv')))).toBe('D102');
  });

  it('takes slices, and refuses empty ones and those past the end', () => {
    expect(parseTake('0:16')).toEqual({ from: 0, to: 16 });
    expect(parseTake(':4')).toEqual({ from: 0, to: 4 });
    expect(parseTake('4:')).toEqual({ from: 4, to: Infinity });
    for (const text of ['', '4', '4:4', '5:4', '-1:3', 'a:b', '1:2:3']) {
      expect(diagnosticsOf(() => parseTake(text))[0]?.code).toBe('D105');
    }
    const samples = parseSamplesJson(JSON.stringify(good), 's.json');
    expect(takeSamples(samples, parseTake('1:3')).labels).toEqual([0, 1]);
    expect(diagnosticsOf(() => takeSamples(samples, parseTake('2:4')))[0]?.code).toBe('D105');
    expect(diagnosticsOf(() => takeSamples(samples, parseTake('3:')))[0]?.code).toBe('D105');
  });
});
