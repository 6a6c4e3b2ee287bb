/** A device profile of this machine, from the runtime's own measurements (runtime/bench/bench_profile.cc). */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { fileURLToPath } from 'node:url';
import { AegisError } from '../support/diagnostics.js';
import { defined } from '../support/invariant.js';
import { kernelKinds } from '../target/kernel-cost.js';
import { parseProfile, profileFormat, type DeviceProfile, type MeasuredTable } from '../target/profile.js';

const program = 'build/bin/aegis-bench-profile';
/** Words of work that the CPU backend gives one thread at a time (kGrainWords). */
const grainWords = 2 ** 15;
/** Where the system does not say: a second-level cache. */
const defaultCacheBytes = 2 ** 20;

interface Measurements {
  readonly backend: string;
  /** Of each of as many copies as there are threads, bytes per second. */
  readonly copyBandwidth: number;
  readonly handOverSeconds: number;
  readonly tables: readonly (MeasuredTable & { readonly launchSeconds: number })[];
}

/** 1, 2, 4, ... and all cores. */
export function threadCounts(cores: number): number[] {
  const counts: number[] = [];
  for (let threads = 1; threads < cores; threads *= 2) counts.push(threads);
  return [...counts, cores];
}

/** Errors: T105 the program is not built, T106 it failed. */
export async function measureMachine(
  onProgress: (fraction: number, detail: string) => void,
  signal: AbortSignal,
): Promise<DeviceProfile> {
  const cores = availableParallelism();
  const threads = threadCounts(cores);
  const steps = threads.length * kernelKinds.length;
  let done = 0;
  const text = await runProgram(['--threads', threads.join()], signal, (line) =>
    onProgress(done++ / steps, line),
  );
  const profile = profileOf(JSON.parse(text) as Measurements, {
    cores,
    cacheBytes: cacheBytes(),
    memoryBytes: totalmem(),
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
  });
  return parseProfile(JSON.stringify(profile), 'of this machine');
}

export interface Machine {
  readonly cores: number;
  readonly cacheBytes: number;
  readonly memoryBytes: number;
  readonly cpu: string;
}

export function profileOf(measured: Measurements, machine: Machine): DeviceProfile {
  const { cores, cacheBytes, memoryBytes, cpu } = machine;
  const single = defined(measured.tables[0], 'table of one thread');
  const all = defined(measured.tables.at(-1), 'table of all threads');
  const by = `measured: aegis-bench-profile on ${cpu}, ${cores} cores, ${measured.backend}`;
  return {
    format: profileFormat,
    name: `${cpu}, ${cores} cores`,
    provenance: {
      memoryBytes: 'measured: memory of the machine, shared by all ranks',
      memoryBandwidth: `${by}: rows copied that no cache holds, all threads`,
      modularRate: `${by}: sub_scale in cache, all threads`,
      efficiency: 'measured rates need none',
      launchSeconds: `${by}: an addition of one row against one of two`,
      'link.bandwidth': `${by}: one of ${cores} copies at once, 64 MiB each`,
      'link.latencySeconds': `${by}: two threads that wake each other`,
      'link.background': 'the local channel copies in the rank that waits',
      'measured.cacheBytes': 'assumed: half of the largest cache that the system reports',
      'measured.grainSeconds': "derived: 2^15 words of additions, the thread pool's smallest piece",
      'measured.tables': `${by}: fastest of repeated launches`,
    },
    memoryBytes,
    memoryBandwidth: 1 / all.kernels.copy.byteSeconds,
    modularRate: 1 / all.kernels.sub_scale.wordSeconds,
    efficiency: 1,
    launchSeconds: Math.max(...measured.tables.map(({ launchSeconds }) => launchSeconds)),
    link: { bandwidth: measured.copyBandwidth, latencySeconds: measured.handOverSeconds, background: false },
    measured: {
      backend: measured.backend,
      cores,
      cacheBytes,
      grainSeconds: grainWords * single.kernels.add.wordSeconds,
      tables: measured.tables.map(({ threads, kernels }) => ({ threads, kernels })),
    },
  };
}

function runProgram(
  args: readonly string[],
  signal: AbortSignal,
  onLine: (line: string) => void,
): Promise<string> {
  const path = fileURLToPath(new URL(`../../${program}`, import.meta.url));
  if (!existsSync(path)) {
    throw new AegisError({ code: 'T105', message: `there is no ${program}`, help: 'run npm run setup' });
  }
  return new Promise((resolve, reject) => {
    const child = spawn(path, args, { stdio: ['ignore', 'pipe', 'pipe'], signal });
    let [out, err] = ['', ''];
    child.stdout.on('data', (data: Buffer) => (out += data.toString()));
    child.stderr.on('data', (data: Buffer) => {
      const lines = (err + data.toString()).split('\n');
      err = lines.pop() ?? '';
      for (const line of lines) onLine(line);
    });
    child.on('error', reject);
    child.on('close', (status, killer) => {
      if (status === 0) return resolve(out);
      reject(new AegisError({ code: 'T106', message: `${program} ended with ${killer ?? status}: ${err}` }));
    });
  });
}

/** Half of the largest cache, as Linux reports it: what is used in between takes the other half. */
function cacheBytes(): number {
  const folder = '/sys/devices/system/cpu/cpu0/cache';
  if (!existsSync(folder)) return defaultCacheBytes;
  const sizes = readdirSync(folder)
    .filter((name) => name.startsWith('index'))
    .map((name) => {
      const match = /^(\d+)([KM])/.exec(readFileSync(`${folder}/${name}/size`, 'utf8'));
      return match === null ? 0 : Number(match[1]) * (match[2] === 'M' ? 2 ** 20 : 2 ** 10);
    });
  return Math.max(defaultCacheBytes, ...sizes.map((size) => size / 2));
}
