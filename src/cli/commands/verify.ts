import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { NodeError } from '../../passes/predict-error.js';
import type { PlanPort } from '../../backend/plan-view.js';
import { parseTake, sampleAt, type Samples } from '../../data/index.js';
import { AegisError } from '../../support/diagnostics.js';
import { defined } from '../../support/invariant.js';
import {
  checkSampleOptions,
  checkShapeOptions,
  defineCommand,
  parseDims,
  readTaken,
  sampleOptions,
  shapeOptions,
} from '../command.js';
import type { Context } from '../context.js';
import {
  cipherBeside,
  decryptResponse,
  encryptRequest,
  generateKeys,
  loadPlan,
  plainInputs,
  runPlan,
  type LoadedPlan,
} from '../engine.js';
import { checkInputs } from '../files.js';
import { formatError, formatFields, formatTable, insecureNotice } from '../format.js';
import { agreementOf, type Agreement, type Comparison } from '../measure.js';
import { openOracle, randomSamples } from '../oracle.js';

export const verifyCommand = defineCommand({
  command: 'verify <plan>',
  describe: 'compare what a plan computes with the model, on samples',
  positionals: { plan: { type: 'string', demandOption: true, describe: 'plan of aegis compile' } },
  options: {
    ...sampleOptions,
    random: { type: 'number', requiresArg: true, describe: 'number of random inputs, instead of samples' },
    seed: { type: 'number', requiresArg: true, default: 1, describe: 'of the random inputs' },
    oracle: {
      choices: ['ort', 'tensor'],
      default: 'ort',
      describe: 'ONNX Runtime, or our interpreter of the model',
    },
    model: {
      type: 'string',
      requiresArg: true,
      describe: 'ONNX file, for inputs whose outputs are not in the samples',
    },
    encrypted: {
      type: 'boolean',
      default: false,
      describe: 'encrypt, run and decrypt; without it, in the clear',
    },
    cipher: {
      type: 'string',
      requiresArg: true,
      describe: 'cipher module to run in the clear (default PLAN.cipher)',
    },
    'per-node': {
      type: 'boolean',
      default: false,
      describe: 'predicted noise of every ONNX node, on these inputs',
    },
    threads: {
      type: 'number',
      requiresArg: true,
      describe: 'threads of encrypted runs; all cores unless given',
    },
    ...shapeOptions,
  },
  examples: [
    ['aegis verify model.aegis --samples model.samples.json --take 16:64', 'in the clear, seconds'],
    ['aegis verify model.aegis --samples model.samples.json --take 16:18 --encrypted', 'two encrypted runs'],
    [
      'aegis verify model.aegis --random 4 --oracle ort --model model.onnx',
      'random inputs against ONNX Runtime',
    ],
  ],
  check: (args) => {
    if ((args.samples === undefined) === (args.random === undefined)) {
      return 'give --samples or --random, one of them';
    }
    if (args.random !== undefined && !(Number.isSafeInteger(args.random) && args.random > 0)) {
      return '--random is not a positive whole number';
    }
    if (args.random !== undefined && args.model === undefined) return '--random needs --model';
    if (args.encrypted && args.cipher !== undefined) return '--cipher is for runs without --encrypted';
    return checkSampleOptions(args) ?? checkShapeOptions(args);
  },
  run: async (args, context) => {
    const files = [args.plan, args.samples, args.model, args.cipher];
    await checkInputs(files.filter((path) => path !== undefined));
    const plan = await loadPlan(args.plan);
    const port = defined(plan.view.outputs[0], 'output of the plan');
    const samples =
      args.random === undefined
        ? await readTaken(defined(args.samples, 'samples'), args.take)
        : randomSamples(plan.view.inputs.map(boundedPort), args.random, args.seed);
    // Wrong shapes are reported before anything is run.
    const inputs = Array.from({ length: samples.count }, (_, i) =>
      plainInputs(plan.view, sampleAt(samples, i), samples.source),
    );
    const references = await referencesOf(samples, args.model, args.oracle as 'ort' | 'tensor', {
      seqLen: args.seqLen,
      dims: parseDims(args.dim),
    });
    const measure = args.encrypted
      ? await encryptedRuns(plan, inputs, port, args.threads ?? availableParallelism(), context)
      : await clearRuns(plan, inputs, port, args.cipher, context);
    const comparisons = measure.map((measured, i): Comparison => ({
      measured,
      reference: defined(references[i], 'reference'),
      rowLength: port.shape.at(-1) ?? 1,
      label: samples.labels?.[i],
    }));
    const nodes = args.perNode ? await predictNodes(plan, inputs, args.cipher, context) : undefined;
    const first = args.take === undefined ? 0 : parseTake(args.take).from;
    report(agreementOf(comparisons, first), { plan, port, encrypted: args.encrypted, nodes }, context);
  },
});

/** The error model runs each of them several times. */
const maxPredictionInputs = 4;

type Inputs = Readonly<Record<string, Float64Array>>;

function boundedPort(port: PlanPort): { name: string; shape: readonly number[]; bound: number } {
  return { name: port.name, shape: port.shape, bound: port.bound > 0 ? port.bound : 1 };
}

async function referencesOf(
  samples: Samples,
  model: string | undefined,
  kind: 'ort' | 'tensor',
  shapes: Parameters<typeof openOracle>[2],
): Promise<readonly Float64Array[]> {
  if (samples.logits !== null) return samples.logits;
  if (model === undefined) {
    throw new AegisError({
      code: 'C121',
      message: `${samples.source} holds no expected outputs`,
      help: 'give --model MODEL to compute them with ONNX Runtime',
    });
  }
  const oracle = await openOracle(kind, model, shapes);
  const outputs: Float64Array[] = [];
  for (let i = 0; i < samples.count; i++) outputs.push(await oracle(sampleAt(samples, i)));
  return outputs;
}

/** The clear interpreter of the final cipher module: layouts, approximations, bootstraps; no noise. */
async function clearRuns(
  plan: LoadedPlan,
  inputs: readonly Inputs[],
  port: PlanPort,
  cipherPath: string | undefined,
  context: Context,
): Promise<Float64Array[]> {
  const { runCipher } = await import('../../ir/interpreter/cipher.js');
  const module = await cipherBeside(plan, cipherPath);
  return context.progress.during('verify', async (task) =>
    inputs.map((input, i) => {
      task.update(i / inputs.length, `sample ${i + 1} of ${inputs.length}`);
      return defined(runCipher(module, input)[port.name], `output ${port.name}`);
    }),
  );
}

/** What noise does to every node, by the error model. */
async function predictNodes(
  plan: LoadedPlan,
  inputs: readonly Inputs[],
  cipherPath: string | undefined,
  context: Context,
): Promise<readonly NodeError[]> {
  const { predictError } = await import('../../passes/predict-error.js');
  const { runCipher } = await import('../../ir/interpreter/cipher.js');
  const module = await cipherBeside(plan, cipherPath);
  const few = inputs.slice(0, maxPredictionInputs);
  return context.progress.during('per node', async (task) => {
    task.update(0, 'error model');
    return predictError(
      module,
      few,
      few.map((input) => runCipher(module, input)),
    ).nodes;
  });
}

/** Keys, requests and responses live in a folder of their own and go with it. */
async function encryptedRuns(
  plan: LoadedPlan,
  inputs: readonly Inputs[],
  port: PlanPort,
  threads: number,
  context: Context,
): Promise<Float64Array[]> {
  const folder = await mkdtemp(join(tmpdir(), 'aegis-verify-'));
  try {
    const keys = await generateKeys(plan, folder, undefined, context);
    const [request, response] = [join(folder, 'request.ct'), join(folder, 'response.ct')];
    const results: Float64Array[] = [];
    for (const input of inputs) {
      await encryptRequest(plan, keys.publicKey, input, request, context);
      await runPlan(plan, { keys: keys.evalKeys, request, response, threads }, context);
      const outputs = await decryptResponse(plan, keys.secretKey, response, context);
      results.push(defined(outputs.get(port.name), `output ${port.name}`).data);
    }
    return results;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

interface Shown {
  readonly plan: LoadedPlan;
  readonly port: PlanPort;
  readonly encrypted: boolean;
  readonly nodes: readonly NodeError[] | undefined;
}

function report(agreement: Agreement, shown: Shown, { json, out, style }: Context): void {
  const {
    plan,
    port: { predictedError },
    encrypted,
    nodes,
  } = shown;
  const { insecure } = plan.view.parameters;
  if (json) {
    // JSON has no infinity, and null would pass `<=` in some languages.
    const maxAbsError = Math.min(agreement.maxAbsError, Number.MAX_VALUE);
    out.write(`${JSON.stringify({ ...agreement, maxAbsError, predictedError, insecure, nodes })}\n`);
    return;
  }
  const above = agreement.maxAbsError > predictedError ? ': ABOVE THE PREDICTION' : '';
  const rows: [string, string][] = [
    ['samples', `${agreement.samples} ${encrypted ? 'encrypted' : 'in the clear'}`],
    ['measured error', `${formatError(agreement.maxAbsError)} on sample ${agreement.worstSample}${above}`],
    ['predicted error', formatError(predictedError)],
    ['same decision', percent(agreement.argmaxAgreement)],
  ];
  if (agreement.accuracy !== undefined) rows.push(['accuracy', percent(agreement.accuracy)]);
  out.write(`${plan.path}\n${formatFields(rows)}\n`);
  if (nodes !== undefined) out.write(`\n${nodesText(nodes)}\n`);
  if (insecure) out.write(`${insecureNotice(style)}\n`);
}

function nodesText(nodes: readonly NodeError[]): string {
  return formatTable(
    [
      ['node', 'ops', 'level', 'largest value', 'predicted noise'],
      ...nodes.map(({ node, ops, level, magnitude, noise }) => [
        node,
        String(ops),
        String(level),
        magnitude.toPrecision(3),
        formatError(noise),
      ]),
    ],
    [1, 2, 3, 4],
  );
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
