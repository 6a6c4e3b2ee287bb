import { availableParallelism } from 'node:os';
import type { PlanPort } from '../../backend/plan-view.js';
import type { ClientInput, ClientProgram, MaskSamples } from '../../frontend/index.js';
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
import { clientOf, loadPlan, portInputs, reportRanges, type LoadedPlan } from '../engine.js';
import { checkInputs } from '../files.js';
import { formatError, formatFields, insecureNotice } from '../format.js';
import { agreementOf, type Agreement, type Comparison } from '../measure.js';
import { openOracle, randomSamples, type RandomInput } from '../oracle.js';
import { clearRuns, encryptedRuns, nodesText, predictedAfter, type NodeRow } from '../verify-runs.js';

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
      describe: 'noise of every ONNX node, predicted and measured; with --encrypted by the secret key',
    },
    noise: {
      type: 'boolean',
      default: true,
      describe: 'runs in the clear add the noise of every operation; --no-noise leaves approximation errors',
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
      masks: openMasks(client),
    });
    const threads = args.threads ?? availableParallelism();
    const runs = args.encrypted
      ? await encryptedRuns(plan, inputs, { threads, perNode: args.perNode }, context)
      : await clearRuns(plan, inputs, { ...args, seed: args.seed }, context);
    for (const values of runs.outputs) await reportRanges(plan, values, context);
    const comparisons = runs.outputs.map((values, i): Comparison => ({
      measured: defined(client.decode(values)[0], 'output').data,
      reference: defined(references[i], 'reference'),
      rowLength: output.shape.at(-1) ?? 1,
      label: samples.labels?.[i],
    }));
    const first = args.take === undefined ? 0 : parseTake(args.take).from;
    const predictedError = predictedAfter(client, plan.view.outputs, runs.outputs);
    const shown = { plan, predictedError, encrypted: args.encrypted, noise: args.noise, nodes: runs.nodes };
    report(agreementOf(comparisons, first), shown, context);
  },
});

function openMasks({ inputs }: ClientProgram): MaskSamples {
  return Object.fromEntries(inputs.flatMap(({ name, open }) => (open === undefined ? [] : [[name, [open]]])));
}

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

interface Shown {
  readonly plan: LoadedPlan;
  readonly predictedError: number | undefined;
  readonly encrypted: boolean;
  readonly noise: boolean;
  readonly nodes: readonly NodeRow[] | undefined;
}

function report(agreement: Agreement, shown: Shown, { json, out, style }: Context): void {
  const { plan, predictedError, encrypted, noise, nodes } = shown;
  const { insecure } = plan.view.parameters;
  if (json) {
    // JSON has no infinity, and null would pass `<=` in some languages.
    const maxAbsError = Math.min(agreement.maxAbsError, Number.MAX_VALUE);
    out.write(`${JSON.stringify({ ...agreement, maxAbsError, predictedError, insecure, nodes })}\n`);
    return;
  }
  const above = agreement.maxAbsError > (predictedError ?? Infinity) ? ': ABOVE THE PREDICTION' : '';
  const clear = noise ? 'in the clear with noise' : 'in the clear without noise';
  const rows: [string, string][] = [
    ['samples', `${agreement.samples} ${encrypted ? 'encrypted' : clear}`],
    ['measured error', `${formatError(agreement.maxAbsError)} on sample ${agreement.worstSample}${above}`],
    [
      'predicted error',
      predictedError === undefined ? 'unknown: compile gave none' : formatError(predictedError),
    ],
    ['same decision', percent(agreement.argmaxAgreement)],
  ];
  if (agreement.accuracy !== undefined) rows.push(['accuracy', percent(agreement.accuracy)]);
  out.write(`${plan.path}\n${formatFields(rows)}\n`);
  if (nodes !== undefined) out.write(`\n${nodesText(nodes, encrypted)}\n`);
  if (insecure) out.write(`${insecureNotice(style)}\n`);
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
