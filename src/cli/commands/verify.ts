import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { NodeError } from '../../passes/predict-error.js';
import type { PlanPort } from '../../backend/plan-view.js';
import type { ClientInput } from '../../frontend/index.js';
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
  clientOf,
  decryptResponse,
  encryptRequest,
  generateKeys,
  loadPlan,
  portInputs,
  runPlan,
  type LoadedPlan,
} from '../engine.js';
import { checkInputs } from '../files.js';
import { formatError, formatFields, formatTable, insecureNotice } from '../format.js';
import { agreementOf, type Agreement, type Comparison } from '../measure.js';
import { openOracle, randomSamples, type RandomInput } from '../oracle.js';

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
    const client = await clientOf(plan);
    const output = defined(client.outputs[0], 'output of the model');
    const samples =
      args.random === undefined
        ? await readTaken(defined(args.samples, 'samples'), args.take)
        : randomSamples(client.inputs.map(boundedBy(plan.view.inputs)), args.random, args.seed);
    // Wrong shapes are reported before anything is run.
    const inputs = Array.from({ length: samples.count }, (_, i) =>
      portInputs(client, sampleAt(samples, i), samples.source),
    );
    const references = await referencesOf(samples, args.model, args.oracle as 'ort' | 'tensor', {
      seqLen: args.seqLen,
      dims: parseDims(args.dim),
    });
    const measure = args.encrypted
      ? await encryptedRuns(plan, inputs, output.name, args.threads ?? availableParallelism(), context)
      : (await clearRuns(plan, inputs, args.cipher, context)).map(
          (values) => defined(client.decode(values)[0], 'output').data,
        );
    const comparisons = measure.map((measured, i): Comparison => ({
      measured,
      reference: defined(references[i], 'reference'),
      rowLength: output.shape.at(-1) ?? 1,
      label: samples.labels?.[i],
    }));
    const nodes = args.perNode ? await predictNodes(plan, inputs, args.cipher, context) : undefined;
    const first = args.take === undefined ? 0 : parseTake(args.take).from;
    // What is computed after decryption has no prediction of its own.
    const predictedError = client.hasEpilogue ? undefined : plan.view.outputs[0]?.predictedError;
    const shown = { plan, predictedError, encrypted: args.encrypted, nodes };
    report(agreementOf(comparisons, first), shown, context);
  },
});

/** The error model runs each of them several times. */
const maxPredictionInputs = 4;

type Inputs = Readonly<Record<string, Float64Array>>;

/** An input of the model with what its port was calibrated for, if it has one. */
function boundedBy(ports: readonly PlanPort[]): (input: ClientInput) => RandomInput {
  return (input) => {
    const bound = ports.find(({ name }) => name === input.name)?.bound ?? 0;
    return { ...input, bound: bound > 0 ? bound : 1 };
  };
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
  cipherPath: string | undefined,
  context: Context,
): Promise<Inputs[]> {
  const { runCipher } = await import('../../ir/interpreter/cipher.js');
  const module = await cipherBeside(plan, cipherPath);
  return context.progress.during('verify', async (task) =>
    inputs.map((input, i) => {
      task.update(i / inputs.length, `sample ${i + 1} of ${inputs.length}`);
      return runCipher(module, input);
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
  output: string,
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
      results.push(defined(outputs.get(output), `output ${output}`).data);
    }
    return results;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

interface Shown {
  readonly plan: LoadedPlan;
  readonly predictedError: number | undefined;
  readonly encrypted: boolean;
  readonly nodes: readonly NodeError[] | undefined;
}

function report(agreement: Agreement, shown: Shown, { json, out, style }: Context): void {
  const { plan, predictedError, encrypted, nodes } = shown;
  const { insecure } = plan.view.parameters;
  if (json) {
    // JSON has no infinity, and null would pass `<=` in some languages.
    const maxAbsError = Math.min(agreement.maxAbsError, Number.MAX_VALUE);
    out.write(`${JSON.stringify({ ...agreement, maxAbsError, predictedError, insecure, nodes })}\n`);
    return;
  }
  const above = agreement.maxAbsError > (predictedError ?? Infinity) ? ': ABOVE THE PREDICTION' : '';
  const rows: [string, string][] = [
    ['samples', `${agreement.samples} ${encrypted ? 'encrypted' : 'in the clear'}`],
    ['measured error', `${formatError(agreement.maxAbsError)} on sample ${agreement.worstSample}${above}`],
    [
      'predicted error',
      predictedError === undefined
        ? 'none: the output is computed after decryption'
        : formatError(predictedError),
    ],
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
