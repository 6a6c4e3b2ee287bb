import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { PlanPort } from '../../backend/plan-view.js';
import { sampleAt, type Samples } from '../../data/index.js';
import { AegisError } from '../../support/diagnostics.js';
import { defined } from '../../support/invariant.js';
import {
  checkSampleOptions, checkShapeOptions, defineCommand, parseDims, readTaken, sampleOptions, shapeOptions,
} from '../command.js';
import type { Context } from '../context.js';
import {
  cipherBeside, decryptResponse, encryptRequest, generateKeys, loadPlan, plainInputs, runPlan,
  type LoadedPlan,
} from '../engine.js';
import { checkInputs } from '../files.js';
import { formatError, formatFields, insecureNotice } from '../format.js';
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
      choices: ['ort', 'tensor'], default: 'ort',
      describe: 'ONNX Runtime, or our interpreter of the model',
    },
    model: {
      type: 'string', requiresArg: true,
      describe: 'ONNX file, for inputs whose outputs are not in the samples',
    },
    encrypted: {
      type: 'boolean', default: false,
      describe: 'encrypt, run and decrypt; without it, in the clear',
    },
    cipher: {
      type: 'string', requiresArg: true,
      describe: 'cipher module to run in the clear (default PLAN.cipher)',
    },
    threads: {
      type: 'number', requiresArg: true,
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
    const samples = args.random === undefined
      ? await readTaken(defined(args.samples, 'samples'), args.take)
      : randomSamples(plan.view.inputs.map(boundedPort), args.random, args.seed);
    // Wrong shapes are reported before anything is run.
    const inputs = Array.from({ length: samples.count }, (_, i) =>
      plainInputs(plan.view, sampleAt(samples, i), samples.source));
    const references = await referencesOf(samples, args.model, args.oracle as 'ort' | 'tensor', {
      seqLen: args.seqLen, dims: parseDims(args.dim),
    });
    const measure = args.encrypted
      ? await encryptedRuns(plan, inputs, port, args.threads ?? availableParallelism(), context)
      : await clearRuns(plan, inputs, port, args.cipher, context);
    const comparisons = measure.map((measured, i): Comparison => ({
      measured, reference: defined(references[i], 'reference'), rowLength: port.shape.at(-1) ?? 1,
      label: samples.labels?.[i],
    }));
    report(agreementOf(comparisons), plan, port, args.encrypted, context);
  },
});

type Inputs = Readonly<Record<string, Float64Array>>;

function boundedPort(port: PlanPort): { name: string; shape: readonly number[]; bound: number } {
  return { name: port.name, shape: port.shape, bound: port.bound > 0 ? port.bound : 1 };
}

async function referencesOf(
  samples: Samples, model: string | undefined, kind: 'ort' | 'tensor',
  shapes: Parameters<typeof openOracle>[2],
): Promise<readonly Float64Array[]> {
  if (samples.logits !== null) return samples.logits;
  if (model === undefined) {
    throw new AegisError({
      code: 'C121', message: `${samples.source} holds no expected outputs`,
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
  plan: LoadedPlan, inputs: readonly Inputs[], port: PlanPort, cipherPath: string | undefined,
  context: Context,
): Promise<Float64Array[]> {
  const { runCipher } = await import('../../ir/interpreter/cipher.js');
  const module = await cipherBeside(plan, cipherPath);
  return context.progress.during('verify', async (task) => inputs.map((input, i) => {
    task.update(i / inputs.length, `sample ${i + 1} of ${inputs.length}`);
    return defined(runCipher(module, input)[port.name], `output ${port.name}`);
  }));
}

/** Keys, requests and responses live in a folder of their own and go with it. */
async function encryptedRuns(
  plan: LoadedPlan, inputs: readonly Inputs[], port: PlanPort, threads: number, context: Context,
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

function report(
  agreement: Agreement, plan: LoadedPlan, port: PlanPort, encrypted: boolean, { json, out, style }: Context,
): void {
  const { insecure } = plan.view.parameters;
  const predictedError = port.predictedError;
  if (json) {
    out.write(`${JSON.stringify({ ...agreement, predictedError, insecure })}\n`);
    return;
  }
  const within = agreement.maxAbsError <= predictedError ? '' : ', above the prediction';
  const rows: [string, string][] = [
    ['samples', `${agreement.samples}, ${encrypted ? 'encrypted' : 'in the clear'}`],
    ['measured error', `${formatError(agreement.maxAbsError)}${within}`],
    ['predicted error', formatError(predictedError)],
    ['same decision', percent(agreement.argmaxAgreement)],
  ];
  if (agreement.accuracy !== undefined) rows.push(['accuracy', percent(agreement.accuracy)]);
  out.write(`${plan.path}\n${formatFields(rows)}\n${insecure ? `${insecureNotice(style)}\n` : ''}`);
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
