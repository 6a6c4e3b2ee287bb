/** Loads the N-API addon (runtime/addon) and turns its tasks into promises, its errors into diagnostics. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { AegisError } from '../support/diagnostics.js';
import { InvariantError } from '../support/invariant.js';

/** `fraction` in 0..1 of what `detail` names: a phase, or an ONNX node. Called at most every 50 ms. */
export type OnProgress = (fraction: number, detail: string) => void;

/** Something that the user should know at once. */
export type OnWarning = (code: string, message: string) => void;

export interface TaskHooks {
  readonly onProgress?: OnProgress | undefined;
  /** Of `run` alone. */
  readonly onWarning?: OnWarning | undefined;
  /** Ends the work at its next step; the promise is rejected with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** What every function of the addon returns. */
export interface NativeTask<T> {
  readonly promise: Promise<T>;
  cancel(): void;
}

type NativeFunction = (options: object) => NativeTask<unknown>;
type FunctionName = 'doctor' | 'validatePlan' | 'keygen' | 'encrypt' | 'decrypt' | 'run';
type NativeAddon = Readonly<Record<FunctionName, NativeFunction>>;

/** From src/executor and from dist/executor alike. */
const packageRoot = fileURLToPath(new URL('../../', import.meta.url));
/** Where scripts/setup.sh has it built. */
const addonPath = 'build/bin/aegis.node';

let loaded: NativeAddon | undefined;

/** Errors: X101 not built, X102 not loadable here. AEGIS_ADDON names another file than the built one. */
function addon(): NativeAddon {
  if (loaded !== undefined) return loaded;
  const path = process.env['AEGIS_ADDON'] ?? packageRoot + addonPath;
  if (!existsSync(path)) {
    throw new AegisError({
      code: 'X101',
      message: `the native runtime is not built: there is no ${path}`,
      help: 'run npm run setup',
    });
  }
  try {
    loaded = createRequire(import.meta.url)(path) as NativeAddon;
  } catch (error) {
    throw new AegisError({
      code: 'X102',
      message: `the native runtime ${path} cannot be loaded: ${messageOf(error)}`,
      help: 'build it again on this machine: remove build/ and run npm run setup',
    });
  }
  return loaded;
}

/** Calls the addon; `options` are its fields (runtime/addon/addon.cc). */
export async function callNative<T>(name: FunctionName, options: object, hooks: TaskHooks = {}): Promise<T> {
  const { signal, onProgress, onWarning } = hooks;
  signal?.throwIfAborted();
  const guarded = guardProgress(onProgress);
  const task = addon()[name]({ ...options, onProgress: guarded.callback, onWarning });
  const cancel = () => task.cancel();
  signal?.addEventListener('abort', cancel, { once: true });
  guarded.onThrow = cancel;
  try {
    return (await task.promise) as T;
  } catch (error) {
    if (guarded.thrown !== undefined) throw guarded.thrown.error;
    if (signal?.aborted === true) throw signal.reason;
    throw asDiagnostic(error);
  } finally {
    signal?.removeEventListener('abort', cancel);
  }
}

interface GuardedProgress {
  readonly callback: OnProgress | undefined;
  thrown: { readonly error: unknown } | undefined;
  onThrow: () => void;
}

/** An exception of the callback ends the task and reaches the caller, instead of ending the process. */
function guardProgress(onProgress: OnProgress | undefined): GuardedProgress {
  const guarded: GuardedProgress = {
    callback:
      onProgress === undefined
        ? undefined
        : (fraction, detail) => {
            if (guarded.thrown !== undefined) return;
            try {
              onProgress(fraction, detail);
            } catch (error) {
              guarded.thrown = { error };
              guarded.onThrow();
            }
          },
    thrown: undefined,
    onThrow: () => {},
  };
  return guarded;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

interface NativeError {
  readonly code: string;
  readonly message: string;
  readonly help?: string;
}

/** An error that the runtime reported, and those of other ranks; R500 is a bug of ours. */
function asDiagnostic(error: unknown): unknown {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'string') return error;
  if (error.code === 'R500') return new InvariantError(error.message.replace(/^internal error: /, ''));
  const others = 'others' in error && Array.isArray(error.others) ? (error.others as NativeError[]) : [];
  return new AegisError(
    [error as NativeError, ...others].map(({ code, message, help }) => ({ code, message, help })),
  );
}
