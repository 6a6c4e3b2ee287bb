/**
 * Commands to executor: loads plans, checks that keys and inputs fit, shows progress, lets Ctrl-C through.
 */
import { readFile, stat } from 'node:fs/promises';
import { readPlan, type PlanView } from '../backend/index.js';
import { elementCount, type Tensor } from '../data/index.js';
import { parseModule } from '../ir/parser.js';
import { assertVerified } from '../ir/verifier.js';
import type { ClientProgram } from '../frontend/index.js';
import { witnessPrefix, type Module } from '../ir/module.js';
import type { KeygenResult, RunReport, TaskHooks } from '../executor/index.js';
import { AegisError, Diagnostics } from '../support/diagnostics.js';
import type { Context } from './context.js';
import { checkInputs } from './files.js';

export interface LoadedPlan {
  readonly path: string;
  readonly bytes: Uint8Array;
  readonly view: PlanView;
}

/** Reads a plan that the runtime's verifier has accepted; the JavaScript reader trusts its input. */
export async function loadPlan(path: string): Promise<LoadedPlan> {
  await checkInputs([path]);
  const { validatePlan } = await import('../executor/index.js');
  await validatePlan(path);
  const bytes = await readFile(path);
  return { path, bytes, view: readPlan(bytes) };
}

/** The cipher module that compile wrote beside the plan. Errors: C121 absent, C122 not the plan's. */
export async function cipherBeside(plan: LoadedPlan, given?: string): Promise<Module> {
  const path = given ?? `${plan.path}.cipher`;
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new AegisError({
      code: 'C121',
      message: `${path} cannot be read (${error.code}): the cipher module is a file of its own`,
      help: `compile again with --emit-cipher ${path}, or verify with --encrypted`,
    });
  });
  const module = parseModule(text);
  assertVerified(module, 'read cipher module');
  if (!belongsTo(module, plan.view)) {
    throw new AegisError({
      code: 'C122',
      message: `${path} is not the module that ${plan.path} was made from`,
      help: 'compile again, both are written together',
    });
  }
  return module;
}

/** A cipher module from its text. */
export async function readCipher(path: string): Promise<Module> {
  const module = parseModule(await readFile(path, 'utf8'));
  assertVerified(module, 'read cipher module');
  return module;
}

function belongsTo({ sourceHash, parameters, outputs }: Module, view: PlanView): boolean {
  return (
    sourceHash === view.sourceHash
    && parameters?.logN === view.parameters.logN
    && parameters.primes.join() === view.parameters.primes.join()
    && outputs.every((port, i) => (port.predictedError ?? 0) === view.outputs[i]?.predictedError)
  );
}

/** What the data owner computes in the clear. Error: F301 the plan's part is damaged. */
export async function clientOf({ view }: LoadedPlan): Promise<ClientProgram> {
  const { ClientProgram } = await import('../frontend/index.js');
  return new ClientProgram(view.client, view.inputs, view.outputs);
}

/**
 * Values of the plan's input ports, out of named arrays for the model's inputs. Errors, all at once: D110
 * missing, D111 of another size; F115, F302: values that the client part does not take.
 */
export function portInputs(
  client: ClientProgram,
  arrays: ReadonlyMap<string, Tensor>,
  source: string,
): Record<string, Float64Array> {
  const diagnostics = new Diagnostics();
  const names = [...arrays.keys()].join(', ');
  for (const { name, shape } of client.inputs) {
    const tensor = arrays.get(name);
    if (tensor === undefined) {
      diagnostics.report({
        code: 'D110',
        message: `${source} has no input "${name}", only ${names === '' ? 'nothing' : names}`,
        help: 'name the arrays after the inputs of the model',
      });
    } else if (tensor.data.length !== elementCount(shape)) {
      diagnostics.report({
        code: 'D111',
        message:
          `input "${name}" of ${source} has shape [${tensor.shape.join(', ')}], `
          + `the plan was compiled for [${shape.join(', ')}]`,
      });
    }
  }
  diagnostics.throwIfAny();
  return client.encode(Object.fromEntries([...arrays].map(([name, { data }]) => [name, data])));
}

/** Native work reports finer than anyone reads; `Progress` thins it out. */
async function nativeWork<T>(
  title: string,
  context: Context,
  work: (hooks: TaskHooks) => Promise<T>,
): Promise<T> {
  return context.interruptible((signal) =>
    context.progress.during(title, (task) =>
      work({ signal, onProgress: (fraction, detail) => task.update(fraction, detail) }),
    ),
  );
}

function showWarnings(warnings: readonly { code: string; message: string }[], { err }: Context): void {
  const start = err.isTTY ? '\r\x1b[K' : ''; // over a progress bar
  for (const { code, message } of warnings) err.write(`${start}warning[${code}]: ${message}\n`);
}

export async function generateKeys(
  plan: LoadedPlan,
  directory: string,
  seed: number | undefined,
  context: Context,
): Promise<KeygenResult> {
  const { keygen } = await import('../executor/index.js');
  return nativeWork('keygen', context, (hooks) => keygen({ plan: plan.path, directory, seed, ...hooks }));
}

export async function encryptRequest(
  plan: LoadedPlan,
  key: string,
  inputs: Readonly<Record<string, Float64Array>>,
  request: string,
  context: Context,
): Promise<{ bytes: number }> {
  const { encrypt } = await import('../executor/index.js');
  const { warnings } = await nativeWork('encrypt', context, (hooks) =>
    encrypt({ plan: plan.path, key, inputs, out: request, ...hooks }),
  );
  showWarnings(warnings, context);
  return { bytes: (await stat(request)).size };
}

export interface RunFiles {
  readonly keys: string;
  readonly request: string;
  readonly response: string;
  readonly threads: number;
  readonly backend?: string;
  readonly channel?: string;
  readonly checkpoint?: string | undefined;
  readonly checkpointSeconds?: number | undefined;
  readonly resume?: boolean;
}

export async function runPlan(plan: LoadedPlan, files: RunFiles, context: Context): Promise<RunReport> {
  const { run } = await import('../executor/index.js');
  const { request, response, ...options } = files;
  const onWarning = (code: string, message: string) => showWarnings([{ code, message }], context);
  return nativeWork('run', context, (hooks) =>
    run({ plan: plan.path, in: request, out: response, onWarning, ...options, ...hooks }),
  );
}

/** Values of the output ports; `shareQueries` as of `decrypt`. */
export async function decryptPorts(
  plan: LoadedPlan,
  key: string,
  response: string,
  context: Context,
  shareQueries?: number,
): Promise<Readonly<Record<string, Float64Array>>> {
  const { decrypt } = await import('../executor/index.js');
  const { outputs, warnings } = await nativeWork('decrypt', context, (hooks) =>
    decrypt({ plan: plan.path, key, in: response, shareQueries, ...hooks }),
  );
  // What witnesses say is reported by node.
  showWarnings(
    warnings.filter(({ message }) => !message.includes(witnessPrefix)),
    context,
  );
  return outputs;
}

/** Witnesses (compile --witnesses) show the nodes whose values left the interval of their polynomial. */
export async function reportRanges(
  { view }: LoadedPlan,
  outputs: Readonly<Record<string, Float64Array>>,
  { err }: Context,
): Promise<void> {
  const { rangeViolations } = await import('../passes/add-witnesses.js');
  const [first, ...others] = rangeViolations(view.outputs, outputs);
  if (first === undefined) return;
  const after = others.length === 0 ? '' : `, and ${others.length} more after it`;
  err.write(
    `warning[C130]: node "${first.node}" left its range${after}: its argument reached `
      + `${first.largest.toPrecision(3)} where [-1, 1] is approximated; the result is not to be trusted\n`
      + '  help: calibrate with inputs like this one\n',
  );
}

/** Outputs of the model in its own shapes; `shareQueries` as of `decrypt`. */
export async function decryptResponse(
  plan: LoadedPlan,
  key: string,
  response: string,
  context: Context,
  shareQueries?: number,
): Promise<Map<string, Tensor>> {
  const outputs = await decryptPorts(plan, key, response, context, shareQueries);
  await reportRanges(plan, outputs, context);
  const client = await clientOf(plan);
  return new Map(
    client.decode(outputs).map(({ name, shape, data }) => [name, { dtype: 'float64', shape, data }]),
  );
}
