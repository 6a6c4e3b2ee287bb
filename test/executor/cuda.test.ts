/** The CUDA module: what doctor and run say where module, driver or GPU is missing, and that nvcc builds it. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { doctor, run } from '../../src/executor/index.js';
import { AegisError } from '../../src/support/diagnostics.js';
import { binaries, makeFixture, type Fixture } from './fixture.js';

let f: Fixture;
beforeAll(async () => {
  f = await makeFixture();
});
afterAll(() => f.remove());
afterEach(() => {
  vi.unstubAllEnvs();
});

/** Of a run on the backend, with AEGIS_CUDA_MODULE set to `module`. */
async function refusal(module: string) {
  vi.stubEnv('AEGIS_CUDA_MODULE', module);
  const files = { plan: f.plan, keys: f.evalKeys, in: f.request, out: f.path('no.ct') };
  const error: unknown = await run({ ...files, backend: 'cuda' }).catch((caught: unknown) => caught);
  if (!(error instanceof AegisError)) throw new Error(`expected a refusal, got ${String(error)}`);
  return error.diagnostics[0];
}

describe('without a CUDA module', () => {
  it('a run is refused with R404, and doctor says the same', async () => {
    const cases = [
      [f.path('none.so'), `this build has no CUDA module: there is no ${f.path('none.so')}`],
      [f.request, 'the CUDA module cannot be loaded'],
      [join(binaries, 'aegis.node'), 'belongs to another build'],
    ] as const;
    for (const [module, problem] of cases) {
      expect(await refusal(module)).toMatchObject({
        code: 'R404',
        message: expect.stringContaining(problem),
        help: expect.stringContaining('-DAEGIS_CUDA=ON'),
      });
      expect(await doctor()).toMatchObject({ cuda: [], cudaProblem: expect.stringContaining(problem) });
    }
  });
});

describe('with a CUDA module', () => {
  it.each([
    ['0 0', 'there is no NVIDIA driver', 'install an NVIDIA driver for CUDA 13.0 or newer'],
    ['12040 1', 'the NVIDIA driver is for CUDA 12.4, the CUDA module for 13.0', 'for CUDA 13.0 or newer'],
    ['13010 0', 'the NVIDIA driver finds no GPU', 'nvidia-smi'],
    ['13010 -1', 'counting devices: out of memory', 'nvidia-smi'],
  ])('driver and devices %s: %s', async (machine, problem, help) => {
    vi.stubEnv('AEGIS_FAKE_CUDA', machine);
    expect(await refusal(join(binaries, 'aegis_fake_cuda.so'))).toMatchObject({
      code: 'R404',
      message: expect.stringContaining(problem),
      help: expect.stringContaining(help),
    });
    expect(await doctor()).toMatchObject({ cuda: [], cudaProblem: expect.stringContaining(problem) });
  });

  it('devices are described', async () => {
    vi.stubEnv('AEGIS_CUDA_MODULE', join(binaries, 'aegis_fake_cuda.so'));
    vi.stubEnv('AEGIS_FAKE_CUDA', '13000 2');
    const cuda = ['Test 0, 80.00 GiB, sm_90', 'Test 1, 80.00 GiB, sm_90'];
    expect(await doctor()).toMatchObject({ cuda, cudaProblem: '' });
  });
});

const full = process.env['AEGIS_TEST_FULL'] === '1';
const nvcc = full && spawnSync('nvcc', ['--version']).status === 0;

describe.skipIf(!nvcc)('the CUDA module', () => {
  const folder = mkdtempSync(join(tmpdir(), 'aegis-cuda-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('is built without a warning, and says what this machine has', { timeout: 300_000 }, async () => {
    execFileSync('cmake', ['-S', 'runtime', '-B', folder, '-DAEGIS_CUDA=ON', '-DAEGIS_ADDON=OFF']);
    const built = spawnSync('cmake', ['--build', folder, '--target', 'aegis_cuda'], { encoding: 'utf8' });
    expect(built.status).toBe(0);
    expect(built.stdout + built.stderr).not.toMatch(/warning/i);
    const refused = await refusal(join(folder, 'bin/aegis_cuda.so'));
    const { cuda, cudaProblem } = await doctor();
    expect(refused?.code).toBe('R404');
    expect(refused?.message).toContain(cuda[0] ?? cudaProblem);
    if (cuda.length === 0) expect(cudaProblem).toContain('NVIDIA driver');
  });
});
