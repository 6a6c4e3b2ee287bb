import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';

const run = promisify(execFile);
const program = 'build/runtime/bin/aegis-bench';
const small = ['--logn', '10', '--limbs', '4', '--specials', '2', '--dnum', '2', '--rotations', '2'];

interface Row {
  readonly name: string;
  readonly backend: string;
  readonly medianUs: number;
  readonly minUs: number;
  readonly operations: number;
  readonly bytes: number;
  readonly emulated?: boolean;
  readonly operationsPerSecond?: number;
  readonly floorBytesUs?: number;
  readonly floorOperationsUs?: number;
  readonly fractionOfFloor?: number;
}

async function rowsOf(...args: string[]): Promise<Map<string, Row>> {
  const { stdout } = await run(program, ['--json', ...small, ...args]);
  return new Map((JSON.parse(stdout) as Row[]).map((row) => [row.name, row]));
}

describe('aegis-bench', () => {
  it('runs every command of the CUDA kernels in the emulator, and says that their times mean nothing', async () => {
    const rows = await rowsOf('--backend', 'cuda-emulated', '--profile', 'src/target/profiles/h100-80g.json');
    for (const name of ['ntt', 'mul_relin', 'rotate', 'rotate_hoisted', 'rescale', 'key_product_batch']) {
      expect(rows.get(name), name).toMatchObject({ backend: 'cuda-emulated', logN: 10, emulated: true });
      expect(rows.get(name)!.fractionOfFloor).toBeUndefined();
    }
    // One row of 2^10 words, read and written, at 3350 GB/s; 2^10 * 10 / 2 butterflies and a quarter a word.
    expect(rows.get('ntt')).toMatchObject({ bytes: 2 * 8 * 1024, operations: 1024 * 5.25 });
    expect(rows.get('ntt_batch')!.bytes).toBe(12 * 2 * 8 * 1024);
    const { bytes, floorBytesUs } = rows.get('rotate')!;
    expect(floorBytesUs).toBeCloseTo(bytes / 3350e3, 1);
    // Two blocks of 4 words for each of 256 threads, 64 steps.
    for (const form of ['shoup64', 'split32', 'fp64']) {
      const row = rows.get(`multiply_${form}`);
      expect(row, form).toMatchObject({ emulated: true, operations: 2 * 1024 * 64, bytes: 2 * 1024 * 16 });
      expect(row!.operationsPerSecond).toBeUndefined();
    }
  });

  it('times the kernels of this machine', async () => {
    const rows = await rowsOf('--threads', '2');
    for (const row of rows.values()) {
      expect(row.emulated).toBeUndefined();
      expect(row.minUs).toBeGreaterThan(0);
      expect(row.medianUs).toBeGreaterThanOrEqual(row.minUs);
    }
    expect([...rows.keys()].filter((name) => name.startsWith('multiply_'))).toEqual([]);
    expect(rows.get('ntt_sub_scale')!.bytes).toBe(rows.get('sub_scale')!.bytes);
  });

  it('refuses what it cannot run', async () => {
    const refused = async (...args: string[]): Promise<unknown> =>
      run(program, args, { env: { ...process.env, AEGIS_CUDA_MODULE: '/nonexistent' } }).then(
        () => undefined,
        (error: unknown) => error,
      );
    expect(await refused('--backend', 'cuda')).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/R404/) as string,
    });
    expect(await refused('--backend', 'gpu')).toMatchObject({ code: 2 });
    expect(await refused('--logn', '30')).toMatchObject({ code: 2 });
    expect(await refused('--profile', 'package.json')).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/R101/) as string,
    });
  });
});
