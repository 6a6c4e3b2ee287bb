/** Runs that are killed and go on: the bits of a run that was left alone, whatever happened in between. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { lowerPlaced, place, type PlacementOptions } from '../../src/compile/place.js';
import { encrypt, keygen, run, type RunOptions, type RunReport } from '../../src/executor/index.js';
import { calibrateModule } from '../../src/passes/calibrate.js';
import { defaultPack, runPipeline } from '../../src/passes/pipeline.js';
import { defaultLiteral, makeParameters } from '../../src/target/parameters.js';
import { randomInput, tinyTransformer, type TinyShape } from '../passes/tiny-transformer.js';
import { binaries, codeOf, seededRandom } from './fixture.js';

const timeoutMs = 300_000;
const folder = mkdtempSync(join(tmpdir(), 'aegis-checkpoint-'));
const at = (name: string): string => join(folder, name);
const state = at('state');
const slots = [0, 1].map((slot) => join(state, `checkpoint-${slot}.aegis`));
const program = join(binaries, 'aegis-exec');
const kills = process.env['AEGIS_TEST_FULL'] === '1' ? 100 : 8;
const shape: TinyShape = { tokens: 7, width: 16, heads: 2, hidden: 32, sharpness: 1 };
const parameters = makeParameters(defaultLiteral('tiny', true));
let whole: RunReport;

const files = (name = 'one'): RunOptions => ({
  plan: at(`${name}.aegis`),
  keys: at('eval.keys'),
  in: at('request.ct'),
  out: at(`${name}.ct`),
  threads: 2,
});
const often = { checkpoint: state, checkpointSeconds: 0 };

interface Ended {
  readonly code: number | null;
  readonly signal: string | null;
  readonly out: string;
  readonly err: string;
}

/** aegis-exec, ended by the signal after that many milliseconds unless it is done. */
async function exec(words: string[], signal?: NodeJS.Signals, afterMs = 0, name = 'one'): Promise<Ended> {
  const { plan, keys, in: request, out } = files(name);
  const child = spawn(program, [plan, '--keys', keys, '--in', request, '-o', out, '--json', ...words]);
  let [written, errors] = ['', ''];
  child.stdout.on('data', (data: Buffer) => void (written += data.toString()));
  child.stderr.on('data', (data: Buffer) => void (errors += data.toString()));
  const timer = signal === undefined ? undefined : setTimeout(() => child.kill(signal), afterMs);
  const [code, by] = (await once(child, 'close')) as [number | null, string | null];
  clearTimeout(timer);
  return { code, signal: by, out: written, err: errors };
}
const words = ['--checkpoint', state, '--checkpoint-interval', '0'];
const shaOf = ({ out }: Ended) => (JSON.parse(out) as { outputSha256: string }).outputSha256;

/** Leaves two checkpoints behind: a run that is killed once both are there. */
async function cutShort(name = 'one'): Promise<void> {
  rmSync(state, { recursive: true, force: true });
  const { plan, keys, in: request, out } = files(name);
  const child = spawn(program, [plan, '--keys', keys, '--in', request, '-o', out, ...words]);
  const ended = once(child, 'close');
  while (child.exitCode === null && !slots.every((slot) => existsSync(slot))) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  child.kill('SIGKILL');
  await ended;
  expect(slots.every((slot) => existsSync(slot))).toBe(true);
}

function flip(path: string, from: number): void {
  const bytes = readFileSync(path);
  const index = Math.floor(from * bytes.length);
  bytes[index] = (bytes[index] ?? 0) ^ 1;
  writeFileSync(path, bytes);
}

beforeAll(async () => {
  const tensor = tinyTransformer(shape, 7);
  const samples = Array.from({ length: 8 }, (_, i) => ({ x: randomInput(shape, 100 + i) }));
  const options = {
    parameters,
    ranges: calibrateModule(tensor, samples),
    pack: { ...defaultPack, offsetsInSlots: 1, offsetsInArray: 2 },
  };
  const cipher = runPipeline(
    tensor,
    options,
    () => 0,
    () => undefined,
  ).module;
  const placements: [string, PlacementOptions][] = [
    ['one', {}],
    ['two', { strategy: 'coplaced', devices: 2 }],
  ];
  for (const [name, placement] of placements) {
    const { plan, weights } = lowerPlaced(place(cipher, placement), placement);
    writeFileSync(at(`${name}.aegis`), plan);
    writeFileSync(at(`${name}.aegis.weights`), weights);
  }
  await keygen({ plan: at('one.aegis'), directory: folder, seed: 5 });
  for (const [request, seed] of [
    ['request.ct', 4],
    ['other.ct', 5],
  ] as const) {
    const inputs = { x: randomInput(shape, seed) };
    await encrypt({ plan: at('one.aegis'), key: at('public.key'), inputs, out: at(request) });
  }
  whole = await run(files());
}, timeoutMs);
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(state, { recursive: true, force: true });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('a run with checkpoints', () => {
  it('gives the same bits and leaves none behind', async () => {
    const report = await run({ ...files(), ...often });
    expect(report.outputSha256).toBe(whole.outputSha256);
    expect(report.checkpoint?.written).toBeGreaterThan(1);
    expect(report.checkpoint?.bytes).toBeLessThan(whole.ranks[0]!.peakBytes - whole.ranks[0]!.staticBytes);
    expect(report.checkpoint?.resumedAt).toBe(0);
    expect(readdirSync(state)).toEqual(['lock']);
    const rare = await run({ ...files(), checkpoint: state });
    expect(rare.checkpoint?.written).toBe(0);
  });

  it(`goes on after ${kills} kills at any moment`, { timeout: timeoutMs }, async () => {
    const random = seededRandom(11);
    const start = performance.now();
    expect(shaOf(await exec(words))).toBe(whole.outputSha256);
    const wholeMs = performance.now() - start;
    let [killed, resumed] = [0, 0];
    for (let i = 0; killed < kills && i < 4 * kills; i++) {
      const ended = await exec([...words, '--resume'], 'SIGKILL', random() * wholeMs);
      if (ended.signal === 'SIGKILL') {
        killed++;
        continue;
      }
      expect(ended.code, ended.err).toBe(0);
      expect(shaOf(ended)).toBe(whole.outputSha256);
      resumed++;
    }
    const last = await exec([...words, '--resume']);
    expect(last.err).not.toContain('R412');
    expect(shaOf(last)).toBe(whole.outputSha256);
    expect(killed + resumed).toBeGreaterThan(0);
    expect(killed).toBeGreaterThan(kills / 2);
    expect(readdirSync(state)).toEqual(['lock']);
  });

  it('goes on with another number of threads and on another backend', { timeout: timeoutMs }, async () => {
    await cutShort();
    const copy = at('copy');
    mkdirSync(copy, { recursive: true });
    for (const name of readdirSync(state)) copyFileSync(join(state, name), join(copy, name));
    const one = await run({ ...files(), ...often, resume: true, threads: 1 });
    expect(one.outputSha256).toBe(whole.outputSha256);
    expect(one.checkpoint?.resumedAt).toBeGreaterThan(0);
    vi.stubEnv('AEGIS_CUDA_MODULE', join(binaries, 'aegis_cuda_emulated.so'));
    vi.stubEnv('AEGIS_EMULATED_CUDA', 'memory=4096');
    const device = { ...files(), checkpoint: copy, checkpointSeconds: 0, backend: 'cuda' };
    const report = await run({ ...device, resume: true });
    expect(report.outputSha256).toBe(whole.outputSha256);
    expect(report.checkpoint?.resumedAt).toBeGreaterThan(0);
    const again = await run(device);
    expect(again.outputSha256).toBe(whole.outputSha256);
    expect(again.checkpoint?.written).toBeGreaterThan(0);
  });

  it('of two ranks stops both at one call', { timeout: timeoutMs }, async () => {
    const uninterrupted = await run(files('two'));
    expect(uninterrupted.outputSha256).toBe(whole.outputSha256);
    await cutShort('two');
    const report = await run({ ...files('two'), ...often, resume: true });
    expect(report.outputSha256).toBe(whole.outputSha256);
    expect(report.checkpoint?.resumedAt).toBeGreaterThan(0);
    for (const { collectives } of report.ranks) {
      expect(collectives.map(({ receivedBytes }) => receivedBytes)).toEqual(
        collectives.map(({ predictedBytes }) => predictedBytes),
      );
    }
  });

  it('that is interrupted says how to go on, and does', { timeout: timeoutMs }, async () => {
    rmSync(state, { recursive: true, force: true });
    const { plan, keys, in: request, out } = files();
    const child = spawn(program, [plan, '--keys', keys, '--in', request, '-o', out, ...words]);
    let err = '';
    child.stderr.on('data', (data: Buffer) => void (err += data.toString()));
    const ended = once(child, 'close');
    while (child.exitCode === null && !existsSync(slots[0]!)) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    child.kill('SIGINT');
    expect(await ended).toEqual([130, null]);
    expect(err).toContain('error[R401]');
    expect(err).toContain('--resume goes on from the checkpoint in');
    expect(shaOf(await exec([...words, '--resume']))).toBe(whole.outputSha256);
  });
});

describe('a checkpoint', () => {
  it('that is damaged is passed over for the older one, or refused', { timeout: timeoutMs }, async () => {
    await cutShort();
    const newer = slots.reduce((a, b) => (statSync(a).mtimeMs > statSync(b).mtimeMs ? a : b));
    const older = slots.find((slot) => slot !== newer)!;
    const random = seededRandom(3);
    const original = readFileSync(newer);
    const untouched = readFileSync(older);
    for (let i = 0; i < 6; i++) {
      writeFileSync(older, untouched);
      writeFileSync(newer, original);
      flip(newer, i % 2 === 0 ? random() : random() * 0.002);
      const ended = await exec(['--checkpoint', state, '--resume']);
      expect(ended.err).toContain('warning[R412]');
      expect(shaOf(ended)).toBe(whole.outputSha256);
    }
    writeFileSync(older, untouched);
    writeFileSync(newer, original);
    flip(newer, 0.5);
    const copy = at('damaged');
    mkdirSync(copy, { recursive: true });
    for (const name of readdirSync(state)) copyFileSync(join(state, name), join(copy, name));
    const warned: string[] = [];
    const onWarning = (code: string) => void warned.push(code);
    const report = await run({ ...files(), ...often, resume: true, onWarning });
    expect(report.outputSha256).toBe(whole.outputSha256);
    expect(report.checkpoint?.resumedAt).toBeGreaterThan(0);
    expect(warned).toEqual(['R412']);
    truncateSync(join(copy, older.slice(state.length + 1)), 1000);
    expect(await codeOf(run({ ...files(), checkpoint: copy, resume: true }))).toBe('R412');
  });

  it('is refused to another request, plan or keys', { timeout: timeoutMs }, async () => {
    await cutShort();
    const refused = (options: Partial<RunOptions>, name?: string) =>
      codeOf(run({ ...files(name), checkpoint: state, resume: true, ...options }));
    expect(await refused({ in: at('other.ct') })).toBe('R411');
    expect(await refused({}, 'two')).toBe('R411');
    await keygen({ plan: at('one.aegis'), directory: at('other-keys'), seed: 6 });
    const inputs = { x: randomInput(shape, 4) };
    const key = join(at('other-keys'), 'public.key');
    await encrypt({ plan: at('one.aegis'), key, inputs, out: at('foreign.ct') });
    const keys = join(at('other-keys'), 'eval.keys');
    expect(await refused({ keys, in: at('foreign.ct') })).toBe('R411');
    expect(slots.every((slot) => existsSync(slot))).toBe(true);
    expect(await codeOf(run({ ...files(), checkpoint: state }))).toBe('R413');
    const report = await run({ ...files(), checkpoint: state, resume: true });
    expect(report.outputSha256).toBe(whole.outputSha256);
  });

  it('has a folder of its own, and ranks in one process', async () => {
    mkdirSync(state);
    writeFileSync(join(state, '.checkpoint-0.aegis.1-0.tmp'), 'half');
    const hold = 'exec 9>"$1"; flock 9; echo; exec sleep 60';
    const holder = spawn('bash', ['-c', hold, 'bash', join(state, 'lock')]);
    await once(holder.stdout, 'data');
    expect(await codeOf(run({ ...files(), checkpoint: state }))).toBe('R415');
    holder.kill();
    await once(holder, 'close');
    const warned: string[] = [];
    const onWarning = (code: string) => void warned.push(code);
    await run({ ...files(), checkpoint: state, resume: true, onWarning });
    expect(warned).toEqual(['R416']);
    expect(readdirSync(state)).toEqual(['lock']);
    expect(await codeOf(run({ ...files(), checkpoint: state, channel: 'mpi' }))).toBe('R410');
    expect(await codeOf(run({ ...files(), checkpoint: join(files().plan, 'x') }))).toBe('R102');
  });

  it('that does not fit the disk is a warning, and the run goes on', async () => {
    // A limit between the response's size and a checkpoint's.
    const { plan, keys, in: request, out } = files();
    const before = await run({ ...files(), ...often });
    const blocks = Math.floor((before.checkpoint?.bytes ?? 0) / 2048);
    const line = `ulimit -f ${blocks}; exec "$@"`;
    const ended = spawnSync('bash', [
      ...['-c', line, 'bash', program, plan, '--keys', keys, '--in', request, '-o', out],
      ...[...words, '--json'],
    ]);
    expect(ended.stderr.toString()).toContain('warning[R414]');
    expect((JSON.parse(ended.stdout.toString()) as RunReport).outputSha256).toBe(whole.outputSha256);
    expect(readdirSync(state)).toEqual(['lock']);
  });
});
