/**
 * The runtime from TypeScript: keys, encryption, runs, decryption. Everything works on files, runs away from
 * the JavaScript thread and is rejected with an AegisError (codes R1xx-R5xx, docs/runtime.md; X1xx).
 */
import { callNative, type TaskHooks } from './native.js';
import { AegisError, type Diagnostic } from '../support/diagnostics.js';

export type { OnProgress, TaskHooks } from './native.js';

/** Worker threads; all cores unless given. */
interface Threads {
  readonly threads?: number | undefined;
}

export interface DoctorReport {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryBytes: number;
  /** What the system can still give, the control group's limit included. */
  readonly availableBytes: number;
  readonly features: readonly string[];
  /** Kernel tables that run here, and the one that is taken; '' if AEGIS_KERNELS names another. */
  readonly kernels: readonly string[];
  readonly chosenKernels: string;
  readonly sodium: string;
  /** The library of the mpi channel; '' if there is none, and why. */
  readonly mpi: string;
  readonly mpiProblem: string;
  /** The library of the nccl channel; '' if there is none, and why. */
  readonly nccl: string;
  readonly ncclProblem: string;
  /** GPUs with memory and compute capability; none: cudaProblem says why. */
  readonly cuda: readonly string[];
  readonly cudaProblem: string;
}

/** What this machine can do. */
export function doctor(): Promise<DoctorReport> {
  return callNative('doctor', {});
}

export interface PlanReport {
  readonly modelName: string;
  readonly insecure: boolean;
  /** Bytes that a run keeps resident. */
  readonly plaintextBytes: number;
  readonly keyBytes: number;
  readonly arenaBytes: number;
}

/** Verifies a plan file, or its bytes. The JavaScript reader (backend/read-plan.ts) trusts what passed. */
export function validatePlan(plan: string | Uint8Array): Promise<PlanReport> {
  return callNative('validatePlan', { plan });
}

export interface KeygenOptions extends TaskHooks, Threads {
  readonly plan: string;
  /** Gets secret.key (mode 0600), public.key and eval.keys. */
  readonly directory: string;
  /** Repeatable keys, for INSECURE plans only (R309). */
  readonly seed?: number | undefined;
}

export interface KeygenResult {
  readonly secretKey: string;
  readonly publicKey: string;
  readonly evalKeys: string;
  readonly evalKeysBytes: number;
  readonly keyCount: number;
  readonly insecure: boolean;
}

/** Makes all keys of a plan's manifest. The three files appear together, or none does. */
export async function keygen(options: KeygenOptions): Promise<KeygenResult> {
  const { plan, directory, seed, threads } = options;
  if (seed !== undefined && !(Number.isSafeInteger(seed) && seed >= 0)) {
    throw new AegisError({ code: 'X103', message: `seed ${seed} is not a whole number from 0 to 2^53 - 1` });
  }
  return callNative('keygen', { plan, directory, seed, threads }, options);
}

export interface EncryptOptions extends TaskHooks, Threads {
  readonly plan: string;
  /** public.key, or secret.key for less noise. */
  readonly key: string;
  /** Values of every input of the model, row-major. */
  readonly inputs: Readonly<Record<string, Float64Array>>;
  readonly out: string;
  /** Encrypt values outside the calibrated range after all: a warning for each such input instead of R306. */
  readonly allowOutOfRange?: boolean | undefined;
}

export interface EncryptResult {
  readonly warnings: readonly Diagnostic[];
  readonly insecure: boolean;
}

/** Writes a request. */
export function encrypt(options: EncryptOptions): Promise<EncryptResult> {
  const { plan, key, inputs, out, allowOutOfRange, threads } = options;
  return callNative('encrypt', { plan, key, inputs, out, allowOutOfRange, threads }, options);
}

export interface RunOptions extends TaskHooks, Threads {
  readonly plan: string;
  /** `${plan}.weights` unless given. */
  readonly weights?: string | undefined;
  /** eval.keys. A secret key is refused (R310). */
  readonly keys: string;
  readonly in: string;
  readonly out: string;
  /** cpu, or cuda: rank r runs on GPU r modulo their number. */
  readonly backend?: string | undefined;
  /** local: ranks are threads of this process; mpi: it is one of those that mpirun or srun started. */
  readonly channel?: string | undefined;
  /** Folder for the state of the run, left there between calls of functions (docs/runtime.md). */
  readonly checkpoint?: string | undefined;
  /** At least, between two checkpoints; 60 unless given, 0: one after every call. */
  readonly checkpointSeconds?: number | undefined;
  /** Go on from the folder's checkpoint if it has one; else its being there is an error (R413). */
  readonly resume?: boolean | undefined;
}

export interface RankReport {
  readonly rank: number;
  /** What the rank refers to, keys and plaintexts counted whether ranks share them or not. */
  readonly peakBytes: number;
  readonly staticBytes: number;
  readonly collectives: readonly {
    readonly id: number;
    readonly node: string;
    readonly kind: string;
    readonly executions: number;
    readonly predictedBytes: number;
    readonly receivedBytes: number;
    readonly waitSeconds: number;
  }[];
  readonly seconds: number;
  /** In kernels, and blocked in collectives and waits. */
  readonly computeSeconds: number;
  readonly waitSeconds: number;
}

export interface CheckpointReport {
  readonly written: number;
  /** Of the largest. */
  readonly bytes: number;
  /** Spent on writing them. */
  readonly seconds: number;
  /** Share of the work that an earlier process had done. */
  readonly resumedAt: number;
}

export interface RunReport {
  /** Over the residues of all outputs in port order, little-endian words. */
  readonly outputSha256: string;
  /** Of the run alone; `loadSeconds` is for keys, weights and request. */
  readonly seconds: number;
  readonly loadSeconds: number;
  readonly insecure: boolean;
  /** Of several processes, rank 0's: the others have no hash and no outputs. */
  readonly root: boolean;
  /** Largest resident set of this process. */
  readonly processPeakBytes: number;
  readonly ranks: readonly RankReport[];
  /** By ONNX node, summed over ranks. */
  readonly timings: readonly { readonly node: string; readonly seconds: number }[];
  /** By plan command; row bytes are those read and written; seconds null where they were not measured. */
  readonly opcodes: readonly {
    readonly op: string;
    readonly seconds: number | null;
    readonly launches: number;
    readonly rowBytes: number;
  }[];
  /** If a folder for checkpoints was given. */
  readonly checkpoint?: CheckpointReport;
  /** R409: what made the run slower than it might be; `onWarning` got it before the run. */
  readonly warnings: readonly Diagnostic[];
}

/** Runs a plan on a request and writes the response. Opens no secret. */
export function run(options: RunOptions): Promise<RunReport> {
  const { plan, weights, keys, in: request, out, backend, channel, threads } = options;
  const { checkpoint, checkpointSeconds, resume } = options;
  return callNative(
    'run',
    {
      ...{ plan, weights, keys, in: request, out, backend, channel, threads },
      ...{ checkpoint, checkpointSeconds, resume },
    },
    options,
  );
}

export interface DecryptOptions extends TaskHooks, Threads {
  readonly plan: string;
  /** secret.key */
  readonly key: string;
  readonly in: string;
  /**
   * The result may be shown to others: noise is added that hides what its error tells about the key, for so
   * many shown results under this key, this one included (docs/security.md). R323: too little would be left.
   */
  readonly shareQueries?: number | undefined;
}

export interface DecryptResult {
  /** Of the model, row-major. */
  readonly outputs: Readonly<Record<string, Float64Array>>;
  /** Largest imaginary part of an output's slots, in units of the output: all of it is noise. */
  readonly noise: Readonly<Record<string, number>>;
  /** Standard deviation of the noise that was added, by output, if the result is to be shared. */
  readonly floodSigma: Readonly<Record<string, number>>;
  /** R306 a value outside its calibrated range, R322 more noise than predicted. */
  readonly warnings: readonly Diagnostic[];
  readonly insecure: boolean;
}

/**
 * Decrypts a response for the key's owner: unless it is to be shared nothing is added, so keep it to yourself
 * (docs/security.md).
 */
export function decrypt(options: DecryptOptions): Promise<DecryptResult> {
  const { plan, key, in: response, threads, shareQueries } = options;
  return callNative('decrypt', { plan, key, in: response, threads, shareQueries }, options);
}
