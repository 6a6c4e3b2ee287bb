/**
 * Plans on the CUDA backend, from files to a file. There need be no GPU: the module is emulated
 * (runtime/test/emulated_cuda), so what is checked is everything but the device itself.
 */
import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import type { LoweredPlan } from '../../src/backend/index.js';
import { lowerPlaced, place, type PlacementOptions } from '../../src/compile/place.js';
import { doctor, encrypt, keygen, run, type RunReport } from '../../src/executor/index.js';
import type { Module } from '../../src/ir/module.js';
import { calibrateModule } from '../../src/passes/calibrate.js';
import { defaultPack, runPipeline } from '../../src/passes/pipeline.js';
import { defaultLiteral, makeParameters } from '../../src/target/parameters.js';
import { defined } from '../../src/support/invariant.js';
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

/** What a program writes, whether it succeeds or not. */
const execute = (path: string, words: string[], { env }: { env: NodeJS.ProcessEnv }) =>
  new Promise<{ stdout: string }>((resolve) => {
    execFile(path, words, { env }, (_, stdout) => {
      resolve({ stdout });
    });
  });

const mpi = spawnSync('mpirun', ['--version']).status === 0 && (await doctor()).mpi !== '';
if (!mpi) process.stderr.write('CUDA ranks are not run over mpi: no mpirun, or a build without MPI\n');

// The emulator takes ten times as long as the CPU's kernels: the small ring is for the full tests.
const full = process.env['AEGIS_TEST_FULL'] === '1';
const ring = full ? 'small' : 'tiny';

describe(`one layer at the ${ring} ring`, () => {
  const parameters = makeParameters(defaultLiteral(ring, true));
  const shape: TinyShape = { tokens: 7, width: 16, heads: 2, hidden: 32, sharpness: 1 };
  let cipher: Module;
  let single: RunReport;

  const write = (name: string, { plan, weights }: LoweredPlan): string => {
    writeFileSync(at(name), plan);
    writeFileSync(at(`${name}.weights`), weights);
    return at(name);
  };
  const files = (name: string) => ({
    plan: at(name),
    keys: at('eval.keys'),
    in: at('request.ct'),
    out: at(`${name}.ct`),
    threads: 2,
  });
  const traffic = ({ ranks }: RunReport) =>
    ranks.map(({ rank, peakBytes, collectives }) => ({
      rank,
      peakBytes,
      collectives: collectives.map(({ id, executions, receivedBytes }) => ({
        id,
        executions,
        receivedBytes,
      })),
    }));

  beforeAll(async () => {
    const tensor = tinyTransformer(shape, 7);
    const ranges = calibrateModule(
      tensor,
      Array.from({ length: 8 }, (_, i) => ({ x: randomInput(shape, 100 + i) })),
    );
    const pack = { ...defaultPack, offsetsInSlots: 1, offsetsInArray: 2 };
    cipher = runPipeline(
      tensor,
      { parameters, ranges, pack },
      () => 0,
      () => undefined,
    ).module;
    const plan = write('single', lowerPlaced(place(cipher, {}), {}));
    await keygen({ plan, directory: folder, seed: 5 });
    const input = { x: randomInput(shape, 4) };
    await encrypt({ plan, key: at('public.key'), inputs: input, out: at('request.ct') });
    single = await run(files('single'));
  }, timeoutMs);

  it('one rank gives the bits of the CPU', { timeout: timeoutMs }, async () => {
    useDevices('memory=4096');
    const report = await run({ ...files('single'), backend: 'cuda' });
    expect(report.outputSha256).toBe(single.outputSha256);
    expect(traffic(report)).toEqual(traffic(single));
    expect(report.opcodes.map(({ op, launches, rowBytes }) => ({ op, launches, rowBytes }))).toEqual(
      single.opcodes.map(({ op, launches, rowBytes }) => ({ op, launches, rowBytes })),
    );
    for (const { seconds } of report.opcodes) expect(seconds).toBeNull();
    expect(report.ranks[0]?.computeSeconds).toBeGreaterThan(0);
    expect(report.warnings).toEqual([]);
  });

  it('streams keys to a device that is too small for them', { timeout: timeoutMs }, async () => {
    useDevices('memory=1');
    const refused: unknown = await run({ ...files('single'), backend: 'cuda' }).catch(
      (error: unknown) => error,
    );
    const figures = /needs ([\d.]+) MiB there: keys ([\d.]+) MiB/.exec(String(refused))?.slice(1).map(Number);
    const [needed, keys] = defined(figures, 'figures of the refusal');
    useDevices(`memory=${Math.ceil(needed! - 0.3 * keys!)}`);
    const report = await run({ ...files('single'), backend: 'cuda' });
    expect(report.outputSha256).toBe(single.outputSha256);
    expect(report.warnings).toMatchObject([
      { code: 'R409', message: expect.stringMatching(/^keys .*streamed/) },
    ]);
  });

  const cases: readonly (PlacementOptions & { machine: string; warned: boolean })[] = [
    { strategy: 'app', devices: 4, machine: 'devices=2', warned: false },
    { strategy: 'coplaced', devices: 2, machine: 'devices=1,jitter=1', warned: false },
    { strategy: 'limb', devices: 4, machine: 'devices=3,peers=0', warned: true },
  ];
  it.each(full ? cases : cases.slice(0, 1))(
    '$strategy on $devices ranks and $machine too',
    async ({ machine, warned, ...options }) => {
      const name = `${options.strategy}-${options.devices}`;
      write(name, lowerPlaced(place(cipher, options), options));
      const onCpu = await run(files(name));
      useDevices(`memory=4096,${machine}`);
      const report = await run({ ...files(name), backend: 'cuda' });
      expect(report.outputSha256).toBe(single.outputSha256);
      expect(traffic(report)).toEqual(traffic(onCpu));
      expect(report.warnings.some(({ code }) => code === 'R409')).toBe(warned);
    },
    timeoutMs,
  );
});

describe('plans for several ranks', () => {
  const plan = (ranks: number) => at(`ranks${ranks}.aegis`);
  const args = (ranks: number, out: string): string[] => {
    const files = ['--keys', at('ranks/eval.keys'), '--in', at('ranks.ct'), '-o', at(out)];
    return [plan(ranks), ...files, '--threads', '1', '--backend', 'cuda', '--json'];
  };
  const hashOf = (stdout: string): string => (JSON.parse(stdout) as RunReport).outputSha256;
  let reference = '';

  beforeAll(async () => {
    expect(spawnSync(join(binaries, 'aegis_ranks_fixture_files'), [folder]).status).toBe(0);
    await keygen({ plan: plan(1), directory: at('ranks'), seed: 1 });
    const x = Float64Array.from({ length: 80 }, (_, i) => Math.sin(i));
    await encrypt({ plan: plan(1), key: at('ranks/public.key'), inputs: { x }, out: at('ranks.ct') });
    const files = { plan: plan(1), keys: at('ranks/eval.keys'), in: at('ranks.ct') };
    reference = (await run({ ...files, out: at('one.ct') })).outputSha256;
  });

  it.each([1, 2, 4])('%i as threads', (ranks) => {
    const env = { ...process.env, ...moduleEnv('devices=2') };
    const { stdout } = spawnSync(program, args(ranks, 'local.ct'), { env, encoding: 'utf8' });
    expect(hashOf(stdout)).toBe(reference);
  });

  it.skipIf(!mpi)('2 as processes', { timeout: 60_000 }, () => {
    const options = ['--allow-run-as-root', '--oversubscribe', '--mca', 'btl_vader_single_copy_mechanism'];
    const { stdout } = spawnSync(
      'mpirun',
      [...options, 'none', '-n', '2', program, ...args(2, 'mpi.ct'), '--channel', 'mpi'],
      {
        env: { ...process.env, OMPI_MCA_rmaps_base_oversubscribe: '1', ...moduleEnv('devices=2') },
        encoding: 'utf8',
      },
    );
    expect(hashOf(stdout)).toBe(reference);
    const { ranks } = JSON.parse(stdout) as RunReport;
    expect(ranks.flatMap(({ collectives }) => collectives.map((c) => c.receivedBytes))).toEqual(
      ranks.flatMap(({ collectives }) => collectives.map((c) => c.predictedBytes)),
    );
  });

  const nccl = { AEGIS_NCCL_LIBRARY: join(binaries, 'aegis_fake_nccl.so') };

  it('3 as threads that exchange rows by NCCL', () => {
    const env = { ...process.env, ...moduleEnv('devices=3'), ...nccl };
    const { stdout } = spawnSync(program, [...args(3, 'nccl.ct'), '--channel', 'nccl'], {
      env,
      encoding: 'utf8',
    });
    expect(hashOf(stdout)).toBe(reference);
  });

  const together = (ranks: number, extra: NodeJS.ProcessEnv) =>
    Promise.all(
      Array.from({ length: ranks }, (_, rank) => {
        const rendezvous = { AEGIS_RENDEZVOUS: at('meeting'), AEGIS_RANK: `${rank}` };
        const env = { ...process.env, ...moduleEnv('devices=2'), ...nccl, ...rendezvous, ...extra };
        return execute(program, [...args(ranks, 'folder.ct'), '--channel', 'nccl'], { env });
      }),
    );

  it('2 as processes that meet in a folder', { timeout: 60_000 }, async () => {
    const [first, second] = await together(2, {});
    expect(hashOf(first?.stdout ?? '')).toBe(reference);
    expect(second?.stdout).toBe('');
    expect(readdirSync(at('meeting'))).toEqual([]);
  });

  it('2 processes of which one fails both say so', { timeout: 60_000 }, async () => {
    const ended = await together(2, { AEGIS_FAULT: 'rank=1,collective=2,kind=fail' });
    const errors = ended.map(
      ({ stdout }) => (JSON.parse(stdout) as { errors: { code: string; message: string }[] }).errors[0],
    );
    expect(errors.map((error) => error?.code)).toEqual(['R405', 'R407']);
    for (const error of errors) expect(error?.message).toContain('rank 1');
    rmSync(at('meeting'), { recursive: true });
  });

  it('says which device failed, or has too little memory', () => {
    const errorsOf = (devices: string) => {
      const env = { ...process.env, ...moduleEnv(devices) };
      const { status, stdout } = spawnSync(program, args(2, 'none.ct'), { env, encoding: 'utf8' });
      expect(status).toBe(1);
      return (JSON.parse(stdout) as { errors: { code: string; message: string }[] }).errors;
    };
    expect(errorsOf('devices=2,memory=60')[0]).toMatchObject({
      code: 'R501',
      message: expect.stringContaining('device 0 (EMULATED GPU 0) has 60.00 MiB free but the plan needs'),
    });
    const failed = errorsOf('devices=2,fail=9');
    expect(failed.map(({ code }) => code).sort()).toEqual(['R405', 'R408']);
    expect(failed.find(({ code }) => code === 'R408')?.message).toMatch(
      /rank [01] on device [01] \(EMULATED GPU [01]\) stopped .*an illegal memory access/,
    );
  });
});
