/** Plans for several ranks, from files to a file: threads, processes of mpirun, and ranks that fail. */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { doctor, encrypt, keygen, run } from '../../src/executor/index.js';
import { AegisError } from '../../src/support/diagnostics.js';
import { binaries, seededRandom } from './fixture.js';

const folder = mkdtempSync(join(tmpdir(), 'aegis-ranks-'));
const at = (name: string) => join(folder, name);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const plan = (ranks: number) => at(`ranks${ranks}.aegis`);
const program = join(binaries, 'aegis-exec');
const files = (ranks: number, out: string) => ({
  plan: plan(ranks),
  keys: at('eval.keys'),
  in: at('request.ct'),
  out: at(out),
});
const args = (ranks: number, out: string) => {
  const { plan: file, keys, in: request, out: response } = files(ranks, out);
  return [file, '--keys', keys, '--in', request, '-o', response, '--threads', '1'];
};
/** A message of a rank that stopped, or that made the others stop. */
const named = /rank \d.*collective \d+ \([a-z-]+\) for node "\w+"/;
let reference = '';

beforeAll(async () => {
  expect(spawnSync(join(binaries, 'aegis_ranks_fixture_files'), [folder]).status).toBe(0);
  await keygen({ plan: plan(1), directory: folder, seed: 1 });
  const x = Float64Array.from({ length: 80 }, (_, i) => Math.sin(i));
  await encrypt({ plan: plan(1), key: at('public.key'), inputs: { x }, out: at('request.ct') });
  reference = (await run(files(1, 'one.ct'))).outputSha256;
});

describe('ranks as threads', () => {
  it.each([2, 3, 4, 5])('%i give the bits of one, and move what was predicted', async (ranks) => {
    const report = await run({ ...files(ranks, `out${ranks}.ct`), threads: ranks });
    expect(report.outputSha256).toBe(reference);
    expect(report.ranks.map(({ rank }) => rank)).toEqual(Array.from({ length: ranks }, (_, i) => i));
    for (const { collectives, peakBytes, staticBytes } of report.ranks) {
      expect(collectives.map(({ kind }) => kind)).toEqual([
        'all-gather',
        'all-reduce',
        'reduce-scatter',
        'all-gather',
        'all-to-all',
        'broadcast',
      ]);
      expect(collectives.map(({ receivedBytes }) => receivedBytes)).toEqual(
        collectives.map(({ predictedBytes }) => predictedBytes),
      );
      expect(collectives.map(({ executions }) => executions)).toEqual([1, 2, 1, 1, 1, 1]);
      expect(peakBytes).toBeGreaterThan(staticBytes);
    }
  });

  it('ends soon when a rank fails or hangs, and every rank says where', async () => {
    const random = seededRandom(9);
    // Not the broadcast at the end: whoever has received it is done.
    for (let i = 0; i < 6; i++) {
      const [rank, collective] = [Math.floor(random() * 4), Math.floor(random() * 6)];
      const kind = i % 2 === 0 ? 'fail' : 'hang';
      const start = performance.now();
      const { status, stdout } = spawnSync(program, [...args(4, 'none.ct'), '--json'], {
        env: {
          ...process.env,
          AEGIS_FAULT: `rank=${rank},collective=${collective},kind=${kind}`,
          // The first one takes the default of 8 seconds.
          ...(i === 1 ? {} : { AEGIS_CHANNEL_TIMEOUT: '3' }),
        },
        encoding: 'utf8',
      });
      expect(performance.now() - start).toBeLessThan(10_000);
      expect(status).toBe(1);
      const { errors } = JSON.parse(stdout) as { errors: { code: string; message: string }[] };
      expect(errors[0]?.code).toBe(kind === 'fail' ? 'R407' : 'R405');
      expect(errors).toHaveLength(4);
      const survivors = errors.filter(({ message }) => message !== `rank ${rank} did not stop`);
      expect(survivors.length).toBeGreaterThanOrEqual(3);
      for (const { message } of survivors) {
        expect(message).toMatch(named);
        expect(message).toContain(`rank ${rank}`);
      }
      expect(readdirSync(folder).filter((name) => name.startsWith('none'))).toEqual([]);
    }
  }, 60_000);

  it('gives the errors of all ranks through the addon', async () => {
    process.env['AEGIS_FAULT'] = 'rank=1,collective=2,kind=fail';
    try {
      const error: unknown = await run(files(3, 'none.ct')).catch((caught: unknown) => caught);
      expect(error).toBeInstanceOf(AegisError);
      const { diagnostics } = error as AegisError;
      expect(diagnostics.map(({ code }) => code)).toEqual(['R407', 'R405', 'R405']);
      for (const { message } of diagnostics) expect(message).toMatch(named);
    } finally {
      delete process.env['AEGIS_FAULT'];
    }
  });
});

const mpi = spawnSync('mpirun', ['--version']).status === 0 && (await doctor()).mpi !== '';
if (!mpi) process.stderr.write('the mpi channel is not tested: no mpirun, or a build without MPI\n');

interface Ended {
  readonly status: number | null;
  readonly out: string;
  readonly err: string;
  readonly seconds: number;
  /** Of performance.now(). */
  readonly endedAt: number;
}

/**
 * Root and more processes than cores are usual in containers; no shared memory between address spaces there.
 */
const mpiOptions = [
  '--allow-run-as-root',
  '--oversubscribe',
  '--mca',
  'btl_vader_single_copy_mechanism',
  'none',
];

function mpirun(
  ranks: number,
  out: string,
  env: Readonly<Record<string, string>> = {},
  during: (pids: readonly number[]) => void = () => undefined,
): Promise<Ended> {
  const start = performance.now();
  const child = spawn(
    'mpirun',
    [...mpiOptions, '-n', `${ranks}`, program, ...args(ranks, out), '--channel', 'mpi', '--json'],
    { env: { ...process.env, OMPI_MCA_rmaps_base_oversubscribe: '1', ...env } },
  );
  const text = { out: '', err: '' };
  child.stdout.on('data', (data: Buffer) => (text.out += data.toString()));
  child.stderr.on('data', (data: Buffer) => (text.err += data.toString()));
  const watch = setInterval(() => {
    const pids = childrenOf(child.pid ?? 0);
    if (pids.length === ranks) during(pids);
  }, 20);
  return new Promise((resolve) => {
    child.on('close', (status) => {
      clearInterval(watch);
      const endedAt = performance.now();
      resolve({ status, ...text, seconds: (endedAt - start) / 1000, endedAt });
    });
  });
}

/** aegis-exec processes under this one. */
function childrenOf(pid: number): number[] {
  const file = `/proc/${pid}/task/${pid}/children`;
  if (!existsSync(file)) return [];
  return readFileSync(file, 'utf8')
    .trim()
    .split(/\s+/)
    .map(Number)
    .filter((child) => existsSync(`/proc/${child}/cmdline`))
    .filter((child) => readFileSync(`/proc/${child}/cmdline`, 'utf8').startsWith(program));
}

/** MPI has started, and the run is near. */
function hasRequest(pid: number): boolean {
  try {
    const folderOf = `/proc/${pid}/fd`;
    return readdirSync(folderOf).some((fd) => readlinkSync(join(folderOf, fd)) === at('request.ct'));
  } catch {
    return false;
  }
}

const stopped = /rank (\d) (?:stopped|gave up|failed)[^\n]*? collective \d+ \([a-z-]+\) for node \\?"\w+/g;
const pending = /rank (\d) (?:stopped|gave up) in collective \d+ \([a-z-]+\) for node \\?"\w+/g;

/** Ranks that said where they were, by a message like this. */
function ranksNamed({ out, err }: Ended, message: RegExp): number[] {
  const ranks = Array.from((out + err).matchAll(message), (match) => Number(match[1]));
  return [...new Set(ranks)].sort();
}

describe.skipIf(!mpi)('ranks as processes', () => {
  it.each([2, 4])(
    '%i give the bits of one, and move what was predicted',
    async (ranks) => {
      const { status, out, err } = await mpirun(ranks, `mpi${ranks}.ct`);
      expect(err).toBe('');
      expect(status).toBe(0);
      const report = JSON.parse(out) as Awaited<ReturnType<typeof run>>;
      expect(report.outputSha256).toBe(reference);
      const local = await run({ ...files(ranks, 'local.ct'), threads: ranks });
      expect(
        report.ranks.map(({ rank, peakBytes, staticBytes }) => ({ rank, peakBytes, staticBytes })),
      ).toEqual(local.ranks.map(({ rank, peakBytes, staticBytes }) => ({ rank, peakBytes, staticBytes })));
      for (const { collectives } of report.ranks)
        for (const one of collectives) expect(one.receivedBytes).toBe(one.predictedBytes);
      expect(readFileSync(at(`mpi${ranks}.ct`)).equals(readFileSync(at('one.ct')))).toBe(true);
    },
    60_000,
  );

  it.each(['fail', 'hang', 'exit'])(
    'ends soon when a rank is made to %s',
    async (kind) => {
      const ended = await mpirun(4, 'none.ct', {
        AEGIS_FAULT: `rank=2,collective=3,kind=${kind}`,
        AEGIS_CHANNEL_TIMEOUT: '4',
      });
      expect(ended.seconds).toBeLessThan(10);
      expect(ended.status).not.toBe(0);
      expect(ranksNamed(ended, stopped)).toEqual(expect.arrayContaining([0, 1, 3]));
      expect(ranksNamed(ended, pending)).not.toEqual([]);
      expect(readdirSync(folder).filter((name) => name.startsWith('none'))).toEqual([]);
    },
    60_000,
  );

  it.each(['SIGSTOP', 'SIGKILL'] as const)(
    'ends soon after %s of a rank',
    async (signal) => {
      let seen = 0;
      let sentAt = 0;
      // Rank 0 is busy for three seconds, so that the signal finds the others waiting for it.
      const ended = await mpirun(
        4,
        'none.ct',
        { AEGIS_FAULT: 'rank=0,collective=1,kind=slow', AEGIS_CHANNEL_TIMEOUT: '4' },
        (pids) => {
          if (!pids.every(hasRequest) || seen++ !== 50) return;
          process.kill(pids[1] ?? 0, signal);
          sentAt = performance.now();
        },
      );
      expect(seen).toBeGreaterThan(50);
      expect((ended.endedAt - sentAt) / 1000).toBeLessThan(10);
      expect(ended.status).not.toBe(0);
      expect(ranksNamed(ended, stopped)).toEqual(expect.arrayContaining([0, 2, 3]));
      expect(ranksNamed(ended, pending)).toEqual(expect.arrayContaining([2, 3]));
      expect(readdirSync(folder).filter((name) => name.startsWith('none'))).toEqual([]);
    },
    60_000,
  );

  it('refuses a number of processes that is not the number of ranks', async () => {
    const { status, stdout } = spawnSync(
      'mpirun',
      [...mpiOptions, '-n', '2', program, ...args(3, 'none.ct'), '--channel', 'mpi', '--json'],
      { encoding: 'utf8' },
    );
    expect(status).not.toBe(0);
    expect(stdout).toContain('R406');
  }, 60_000);
});
