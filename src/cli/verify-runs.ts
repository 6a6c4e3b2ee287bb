/** Runs of a plan for `verify`: in the clear with injected noise, or encrypted, and what nodes make there. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { PlanPort } from '../backend/plan-view.js';
import type { ClientProgram } from '../frontend/index.js';
import type { Module } from '../ir/module.js';
import { defined } from '../support/invariant.js';
import type { Context } from './context.js';
import {
  cipherBeside,
  decryptPorts,
  encryptRequest,
  generateKeys,
  loadPlan,
  runPlan,
  type LoadedPlan,
} from './engine.js';
import { formatError, formatTable } from './format.js';

export type Inputs = Readonly<Record<string, Float64Array>>;

/** Noise of an ONNX node in slot values: 6 sigma of the error model, and the largest one found. */
export interface NodeRow {
  readonly node: string;
  readonly ops: number;
  readonly level: number;
  readonly magnitude: number;
  readonly noise: number;
  readonly predicted: number;
  readonly measured: number;
}

export interface Runs {
  /** Values of the output ports, input by input. */
  readonly outputs: readonly Inputs[];
  readonly nodes: readonly NodeRow[] | undefined;
}

/** The error model runs each of them several times. */
const maxPredictionInputs = 4;

/** Runs that measure take other noise than those that predict. */
const measuringSeed = 7919;

interface ClearOptions {
  readonly cipher?: string | undefined;
  readonly noise: boolean;
  readonly perNode: boolean;
  readonly seed: number;
}

/** The clear interpreter of the final cipher module: layouts, approximations, bootstraps, noise. */
export async function clearRuns(
  plan: LoadedPlan,
  inputs: readonly Inputs[],
  { cipher, noise, perNode, seed }: ClearOptions,
  context: Context,
): Promise<Runs> {
  const { predictError, runWithNoise, sigmas } = await import('../passes/predict-error.js');
  const { runCipher } = await import('../ir/interpreter/cipher.js');
  const module = await cipherBeside(plan, cipher);
  return context.progress.during('verify', async (task) => {
    const show = (i: number): void => task.update(i / inputs.length, `sample ${i + 1} of ${inputs.length}`);
    if (!noise && !perNode) {
      const outputs = inputs.map((input, i) => (show(i), runCipher(module, input)));
      return { outputs, nodes: undefined };
    }
    const measured = runWithNoise(module, inputs, measuringSeed + seed, show);
    const clean = () => inputs.map((input) => runCipher(module, input));
    const outputs = noise ? measured.outputs : clean();
    if (!perNode) return { outputs, nodes: undefined };
    task.update(1, 'error model');
    const few = inputs.slice(0, maxPredictionInputs);
    const { nodes } = predictError(
      module,
      few,
      few.map((input) => runCipher(module, input)),
    );
    const found = new Map(measured.nodes.map((row) => [row.node, row.largest]));
    return {
      outputs,
      nodes: nodes.map((row): NodeRow => {
        const { node, ops, level, magnitude, noise: deviation } = row;
        const predicted = sigmas * deviation;
        return { node, ops, level, magnitude, noise: deviation, predicted, measured: found.get(node) ?? 0 };
      }),
    };
  });
}

interface EncryptedOptions {
  readonly threads: number;
  readonly perNode: boolean;
}

/** Keys, requests and responses live in a folder of their own and go with it. */
export async function encryptedRuns(
  plan: LoadedPlan,
  inputs: readonly Inputs[],
  options: EncryptedOptions,
  context: Context,
): Promise<Runs> {
  const folder = await mkdtemp(join(tmpdir(), 'aegis-verify-'));
  try {
    if (options.perNode) return await tappedRuns(plan, inputs, options.threads, folder, context);
    return { outputs: await runsIn(folder, plan, inputs, options.threads, context), nodes: undefined };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function runsIn(
  folder: string,
  plan: LoadedPlan,
  inputs: readonly Inputs[],
  threads: number,
  context: Context,
): Promise<Inputs[]> {
  const keys = await generateKeys(plan, folder, undefined, context);
  const [request, response] = [join(folder, 'request.ct'), join(folder, 'response.ct')];
  const results: Inputs[] = [];
  for (const input of inputs) {
    await encryptRequest(plan, keys.publicKey, input, request, context);
    await runPlan(plan, { keys: keys.evalKeys, request, response, threads }, context);
    results.push(await decryptPorts(plan, keys.secretKey, response, context));
  }
  return results;
}

/**
 * A plan of the same cipher module whose response holds a value of every node too. Decrypting those takes
 * the data owner's secret key: a means of debugging, made and thrown away here.
 */
async function tappedRuns(
  plan: LoadedPlan,
  inputs: readonly Inputs[],
  threads: number,
  folder: string,
  context: Context,
): Promise<Runs> {
  const { predictError } = await import('../passes/predict-error.js');
  const { tapNodes } = await import('../passes/tap-nodes.js');
  const { runCipher } = await import('../ir/interpreter/cipher.js');
  const module = await cipherBeside(plan);
  const { module: tapped, taps } = tapNodes(module);
  const debug = await writeDebugPlan(tapped, folder);
  const outputs = await runsIn(folder, debug, inputs, threads, context);
  const clean = inputs.map((input) => runCipher(tapped, input));
  const few = inputs.slice(0, maxPredictionInputs);
  const prediction = predictError(tapped, few, clean.slice(0, maxPredictionInputs));
  const rows = new Map(prediction.nodes.map((row) => [row.node, row]));
  const nodes = taps.map(({ node, port, value }): NodeRow => {
    const row = defined(rows.get(node), 'row of a node');
    const measured = outputs.map((values, i) => differenceOf(values[port], clean[i]?.[port]));
    const type = value.type;
    return {
      node,
      ops: row.ops,
      level: type.kind === 'ct' ? (type.level ?? row.level) : row.level,
      magnitude: row.magnitude,
      noise: row.noise,
      predicted: prediction.parts[port]?.noise ?? 0,
      measured: Math.max(...measured),
    };
  });
  return { outputs, nodes };
}

async function writeDebugPlan(module: Module, folder: string): Promise<LoadedPlan> {
  const { lowerToPlan } = await import('../backend/index.js');
  const path = join(folder, 'debug.aegis');
  const { plan, weights } = lowerToPlan(module, { compilerVersion: 'verify' });
  await writeFile(`${path}.weights`, weights);
  await writeFile(path, plan);
  return loadPlan(path);
}

function differenceOf(found: Float64Array | undefined, wanted: Float64Array | undefined): number {
  const b = defined(wanted, 'slots');
  return defined(found, 'slots').reduce((max, x, i) => Math.max(max, Math.abs(x - (b[i] ?? NaN))), 0);
}

/** Draws of port errors for what is computed after decryption. */
const epilogueDraws = 8;

/**
 * Predicted error of the first output. What is computed after decryption has that of its ports, carried
 * through it: the largest change of the output over draws of +-prediction on every decrypted value.
 */
export function predictedAfter(
  client: ClientProgram,
  ports: readonly PlanPort[],
  outputs: readonly Inputs[],
): number | undefined {
  if (!client.hasEpilogue) return ports[0]?.predictedError;
  const predicted = new Map(ports.map(({ name, predictedError }) => [name, predictedError ?? 0]));
  if ([...predicted.values()].every((error) => error === 0)) return undefined;
  let state = 1;
  const sign = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state < 0 ? -1 : 1;
  };
  let largest = 0;
  for (const values of outputs) {
    const [plain] = client.decode(values);
    for (let draw = 0; draw < epilogueDraws; draw++) {
      const moved = Object.fromEntries(
        Object.entries(values).map(([name, data]) => {
          const error = predicted.get(name) ?? 0;
          return [name, data.map((x) => x + sign() * error)];
        }),
      );
      largest = Math.max(largest, differenceOf(client.decode(moved)[0]?.data, plain?.data));
    }
  }
  return largest;
}

export function nodesText(nodes: readonly NodeRow[], encrypted: boolean): string {
  const table = formatTable(
    [
      ['node', 'ops', 'level', 'largest value', 'predicted noise', 'measured', 'measured / predicted'],
      ...nodes.map(({ node, ops, level, magnitude, predicted, measured }) => [
        node,
        String(ops),
        String(level),
        magnitude.toPrecision(3),
        formatError(predicted),
        formatError(measured),
        predicted === 0 ? '-' : (measured / predicted).toFixed(2),
      ]),
    ],
    [1, 2, 3, 4, 5, 6],
  );
  return encrypted ? `debugging only: needs the secret key of the data owner\n${table}` : table;
}
