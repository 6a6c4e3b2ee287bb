import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism, cpus, freemem, totalmem } from 'node:os';
import { defineCommand } from '../command.js';
import { bold, formatBytes, formatFields, type Style } from '../format.js';

/** Instruction sets that kernels exist for, strongest first. */
const kernelFeatures: readonly (readonly [string, readonly string[]])[] = [
  ['avx512ifma', ['avx512f', 'avx512dq', 'avx512vl', 'avx512ifma']],
  ['avx2', ['avx2', 'fma']],
];

interface DoctorReport {
  readonly platform: string;
  readonly node: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly freeMemoryBytes: number;
  /** Of those that kernels exist for. */
  readonly cpuFeatures: readonly string[];
  readonly runtime: RuntimeReport | null;
  /** Why the runtime cannot be loaded. */
  readonly runtimeProblem: string | null;
  readonly nvidiaDriver: string | null;
  readonly gpus: number;
  readonly possible: Readonly<Record<string, boolean>>;
}

interface RuntimeReport {
  /** Kernel tables that run here, and the one that is taken. */
  readonly kernels: readonly string[];
  readonly chosenKernels: string;
  readonly sodium: string;
  /** The library of the mpi channel; '' if there is none, and why. */
  readonly mpi: string;
  readonly mpiProblem: string;
  /** The same of the nccl channel. */
  readonly nccl: string;
  readonly ncclProblem: string;
  /** GPUs that the CUDA module can use; none: cudaProblem says why. */
  readonly cuda: readonly string[];
  readonly cudaProblem: string;
}

export const doctorCommand = defineCommand({
  command: 'doctor',
  describe: 'what this machine can do',
  positionals: {},
  options: {},
  examples: [['aegis doctor --json', 'for bug reports']],
  run: async (_args, { json, out, style }) => {
    const report = await examine();
    out.write(json ? `${JSON.stringify(report)}\n` : reportText(report, style));
  },
});

async function examine(): Promise<DoctorReport> {
  const found = await examineRuntime();
  const runtime = typeof found === 'string' ? null : found;
  const able = runtime !== null;
  return {
    platform: `${process.platform} ${process.arch}`,
    node: process.version,
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    freeMemoryBytes: freemem(),
    cpuFeatures: cpuFeatures(),
    runtime,
    runtimeProblem: typeof found === 'string' ? found : null,
    nvidiaDriver: nvidiaDriver(),
    gpus: gpuCount(),
    possible: {
      compile: true,
      keygen: able,
      encrypt: able,
      run: able,
      decrypt: able,
      mpi: (runtime?.mpi ?? '') !== '',
      cuda: (runtime?.cuda.length ?? 0) > 0,
    },
  };
}

async function examineRuntime(): Promise<RuntimeReport | string> {
  try {
    const { doctor } = await import('../../executor/index.js');
    return await doctor();
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** The flags that the kernel reports, which are those that the operating system also saves. */
function cpuFeatures(): string[] {
  const info = readIfPresent('/proc/cpuinfo');
  const flags = new Set((/^(?:flags|Features)\s*:\s*(.*)$/m.exec(info)?.[1] ?? '').split(' '));
  return kernelFeatures.flatMap(([, wanted]) => wanted).filter((flag) => flags.has(flag));
}

function nvidiaDriver(): string | null {
  const version = readIfPresent('/proc/driver/nvidia/version');
  return /Kernel Module\S*\s+(?:for \S+\s+)?([\d.]+)/.exec(version)?.[1] ?? null;
}

function gpuCount(): number {
  return Array.from({ length: 64 }, (_, i) => `/dev/nvidia${i}`).filter((path) => existsSync(path)).length;
}

function readIfPresent(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function reportText(r: DoctorReport, style: Style): string {
  const yes = (able: boolean, why: string) => (able ? 'yes' : `no: ${why}`);
  const noRuntime = 'the runtime is not built, run npm run setup';
  return [
    bold(style, 'machine'),
    formatFields([
      ['system', `${r.platform}, Node ${r.node}`],
      ['processor', `${r.cpu}, ${r.cores} cores`],
      ['vector units', r.cpuFeatures.length === 0 ? 'none that kernels use' : r.cpuFeatures.join(' ')],
      ['memory', `${formatBytes(r.memoryBytes)}, ${formatBytes(r.freeMemoryBytes)} free`],
      ['GPU', r.gpus === 0 ? 'none' : `${r.gpus}, driver ${r.nvidiaDriver ?? 'unknown'}`],
    ]),
    bold(style, 'runtime'),
    formatFields(
      r.runtime === null
        ? [['library', `not loaded: ${r.runtimeProblem}`]]
        : [
            ['kernels', `${r.runtime.chosenKernels} of ${r.runtime.kernels.join(', ')}`],
            ['libsodium', r.runtime.sodium],
            [
              'CUDA',
              r.runtime.cuda.length === 0 ? `none: ${r.runtime.cudaProblem}` : r.runtime.cuda.join('; '),
            ],
            ['MPI', r.runtime.mpi === '' ? `none: ${r.runtime.mpiProblem}` : r.runtime.mpi],
            ['NCCL', r.runtime.nccl === '' ? `none: ${r.runtime.ncclProblem}` : r.runtime.nccl],
          ],
    ),
    bold(style, 'possible here'),
    formatFields([
      ['compile', 'yes'],
      ['keygen, encrypt, decrypt', yes(r.runtime !== null, noRuntime)],
      ['run on the CPU', yes(r.runtime !== null, noRuntime)],
      ['run several ranks', r.possible['mpi'] === true ? 'as threads or with mpirun' : 'as threads'],
      ['run on a GPU', yes(r.possible['cuda'] === true, r.runtime?.cudaProblem ?? noRuntime)],
    ]),
    '',
  ].join('\n');
}
