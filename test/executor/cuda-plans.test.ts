/**
 * Plans on the CUDA backend, from files to a file. There need be no GPU: the module is emulated
 * (runtime/test/emulated_cuda), so what is checked is everything but the device itself.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import type { LoweredPlan } from '../../src/backend/index.js';
import { lowerPlaced, place, type PlacementOptions } from '../../src/compile/place.js';
import { doctor, encrypt, keygen, run, type RunReport } from '../../src/executor/index.js';
import type { Module } from '../../src/ir/module.js';
import { calibrateModule } from '../../src/passes/calibrate.js';
import { defaultPack, runPipeline } from '../../src/passes/pipeline.js';
import { defaultLiteral, makeParameters } from '../../src/target/parameters.js';
import { randomInput, tinyTransformer, type TinyShape } from '../passes/tiny-transformer.js';
import { binaries } from './fixture.js';

const timeoutMs = 300_000;
const emulated = join(binaries, 'aegis_cuda_emulated.so');
const program = join(binaries, 'aegis-exec');
const folder = mkdtempSync(join(tmpdir(), 'aegis-cuda-plans-'));
const at = (name: string): string => join(folder, name);
afterAll(() => rmSync(folder, { recursive: true, force: true }));
afterEach(() => {
  vi.unstubAllEnvs();
});

const moduleEnv = (devices: string) => ({ AEGIS_CUDA_MODULE: emulated, AEGIS_EMULATED_CUDA: devices });
function useDevices(devices: string): void {
  for (const [name, value] of Object.entries(moduleEnv(devices))) vi.stubEnv(name, value);
}

describe('one layer at the small ring', () => {
  const parameters = makeParameters(defaultLiteral('small', true));
  const shape: TinyShape = { tokens: 32, width: 16, heads: 2, hidden: 32, sharpness: 1 };
  let cipher: Module;
  let single: RunReport;

  const write = (name: string, { plan, weights }: LoweredPlan): string => {
    writeFileSync(at(name), plan);
    writeFileSync(at(`${name}.weights`), weights);
    return at(name);
  };
  const runAs = (name: string, backend: string): Promise<RunReport> => {
    const files = { plan: at(name), keys: at('eval.keys'), in: at('request.ct'), out: at(`${name}.ct`) };
    return run({ ...files, backend, threads: 2 });
  };

  beforeAll(async () => {
    const tensor = tinyTransformer(shape, 7);
    const ranges = calibrateModule(
      tensor,
      [1, 2, 3].map((seed) => ({ x: randomInput(shape, seed) })),
    );
    const context = { parameters, ranges, pack: defaultPack };
    cipher = runPipeline(
      tensor,
      context,
      () => 0,
      () => undefined,
    ).module;
    const plan = write('single', lowerPlaced(place(cipher, {}), {}));
    await keygen({ plan, directory: folder, seed: 5 });
    const input = { x: randomInput(shape, 4) };
    await encrypt({ plan, key: at('public.key'), inputs: input, out: at('request.ct') });
    single = await runAs('single', 'cpu');
  }, timeoutMs);

  it('one rank', { timeout: timeoutMs }, async () => {
    useDevices('devices=1');
    const start = performance.now();
    const report = await runAs('single', 'cuda');
    console.log('one rank', performance.now() - start, single.seconds);
    expect(report.outputSha256).toBe(single.outputSha256);
  });
});
