import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { formatNpz, parseNpz, type Tensor } from '../../src/data/index.js';
import { AegisError } from '../../src/support/diagnostics.js';
import { mutate, seededRandom } from './random.js';

const folder = mkdtempSync(join(tmpdir(), 'aegis-npz-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const arrays = new Map<string, Tensor>([
  ['image', { dtype: 'float32', shape: [2, 1, 4], data: Float64Array.from([0, 0.5, 1, -2, 3, 4, 5, 6]) }],
  ['ids', { dtype: 'int64', shape: [2, 3], data: Float64Array.from([1, 2, 3, 101, 2 ** 40, -7]) }],
  ['exact', { dtype: 'float64', shape: [2], data: Float64Array.from([0.1, 1e300]) }],
  ['mask', { dtype: 'bool', shape: [2, 1], data: Float64Array.from([1, 0]) }],
  ['scalar', { dtype: 'int32', shape: [], data: Float64Array.from([42]) }],
  ['zeros', { dtype: 'float32', shape: [1000], data: new Float64Array(1000) }],
]);

function codeOf(read: () => unknown): string {
  try {
    read();
  } catch (error) {
    if (error instanceof AegisError) return error.diagnostics[0]?.code ?? '';
    throw error;
  }
  return 'none';
}

function python(script: string): string | undefined {
  try {
    return execFileSync('python3', ['-c', script], {
      cwd: folder,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
  } catch {
    return undefined;
  }
}
const hasNumpy = python('import numpy') !== undefined;

describe('npz', () => {
  it('reads what it wrote', () => {
    expect(parseNpz(formatNpz(arrays), 'a.npz')).toEqual(arrays);
  });

  it('writes the same bytes for the same arrays', () => {
    expect(formatNpz(arrays)).toEqual(formatNpz(new Map(arrays)));
  });

  it.skipIf(!hasNumpy)('is read by numpy (skipped where numpy is absent)', () => {
    writeFileSync(join(folder, 'ours.npz'), formatNpz(arrays));
    expect(
      python(`
import numpy as np
a = np.load('ours.npz')
print({k: (str(a[k].dtype), a[k].shape, a[k].ravel()[:3].tolist()) for k in sorted(a.files)})`)?.trim(),
    ).toBe(
      "{'exact': ('float64', (2,), [0.1, 1e+300]), 'ids': ('int64', (2, 3), [1, 2, 3]), "
        + "'image': ('float32', (2, 1, 4), [0.0, 0.5, 1.0]), 'mask': ('bool', (2, 1), [True, False]), "
        + "'scalar': ('int32', (), [42]), 'zeros': ('float32', (1000,), [0.0, 0.0, 0.0])}",
    );
  });

  it.skipIf(!hasNumpy)('reads what numpy writes: compressed, big-endian, column-major, float16', () => {
    python(`
import numpy as np
x = np.arange(24).reshape(2, 3, 4)
np.savez_compressed('a.npz', c=x.astype('>f4'), f=np.asfortranarray(x).astype('f8', order='F'),
                    h=np.array([1.5, -2**-20, 6e-8], 'f2'), u=x.astype('u1'), i=x.astype('>i8'))
np.savez('b.npz', c=x.astype('f4'))`);
    const read = parseNpz(readFileSync(join(folder, 'a.npz')), 'a.npz');
    const range = Float64Array.from({ length: 24 }, (_, i) => i);
    for (const name of ['c', 'f', 'u', 'i'])
      expect(read.get(name)).toMatchObject({ shape: [2, 3, 4], data: range });
    expect(read.get('h')?.data).toEqual(Float64Array.from([1.5, -(2 ** -20), 2 ** -24]));
    expect(parseNpz(readFileSync(join(folder, 'b.npz')), 'b.npz').get('c')?.data).toEqual(range);
  });

  it.skipIf(!hasNumpy)('refuses strings, complex numbers and pickled objects by code', () => {
    for (const value of ["['a']", '[1j]', '[{}]', "np.zeros(1, 'i4,f4')"]) {
      python(`import numpy as np; np.savez('bad.npz', x=np.array(${value}))`);
      expect(codeOf(() => parseNpz(readFileSync(join(folder, 'bad.npz')), 'bad.npz'))).toBe('D124');
    }
  });

  it('refuses NaN and integers that a double cannot hold', () => {
    for (const tensor of [
      { dtype: 'float32', shape: [1], data: Float64Array.from([NaN]) },
      { dtype: 'int64', shape: [1], data: Float64Array.from([2 ** 60]) },
    ] as const) {
      expect(codeOf(() => parseNpz(formatNpz(new Map([['x', tensor]])), 'x.npz'))).toBe('D125');
    }
  });

  it('refuses damage by code: cut, overwritten, foreign', () => {
    const good = formatNpz(arrays);
    expect(codeOf(() => parseNpz(good.subarray(0, good.length - 1), 'x'))).toBe('D120');
    expect(codeOf(() => parseNpz(new TextEncoder().encode('hello'), 'x'))).toBe('D120');
    const flipped = Uint8Array.from(good);
    flipped[60] = (flipped[60] ?? 0) ^ 1;
    expect(codeOf(() => parseNpz(flipped, 'x'))).toMatch(/^D12/);
  });

  it('refuses an entry that promises more than it may unpack to', () => {
    const bomb = formatNpz(
      new Map([['zeros', { dtype: 'float64', shape: [1 << 20], data: new Float64Array(1 << 20) }]]),
    );
    const view = new DataView(bomb.buffer, bomb.byteOffset, bomb.byteLength);
    const directory = view.getUint32(bomb.length - 6, true);
    view.setUint32(directory + 24, 100, true);
    expect(codeOf(() => parseNpz(bomb, 'bomb.npz'))).toBe('D120');
    view.setUint32(directory + 24, 0xfffffff0, true);
    expect(codeOf(() => parseNpz(bomb, 'bomb.npz'))).toBe('D122');
  });

  it('answers 2000 seeded mutations with arrays or a code', () => {
    const small = formatNpz(new Map([...arrays].filter(([name]) => name !== 'zeros')));
    const random = seededRandom(20261101);
    const codes = new Map<string, number>();
    for (let i = 0; i < 2000; i++) {
      const code = codeOf(() => parseNpz(mutate(small, random), 'x.npz'));
      codes.set(code, (codes.get(code) ?? 0) + 1);
    }
    for (const code of codes.keys()) expect(code).toMatch(/^(none|D12[0-5])$/);
    expect([...codes.values()].reduce((a, b) => a + b)).toBe(2000);
    expect(codes.size).toBeGreaterThan(2);
  });
});
