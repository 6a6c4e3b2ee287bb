import { mkdir, mkdtemp, rm, stat } from 'node:fs/promises';
import { availableParallelism, tmpdir, totalmem } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { formatNpz, readSamples, sampleAt, takeSamples, type Samples } from '../../data/index.js';
import type { RunReport } from '../../executor/index.js';
import { AegisError } from '../../support/diagnostics.js';
import { defined } from '../../support/invariant.js';
import { defineCommand } from '../command.js';
import type { Context } from '../context.js';
import { drawDigit, scoresTable, sizesTable, timeTable, type TimeShare } from '../demo-text.js';
import {
  clientOf,
  decryptResponse,
  encryptRequest,
  generateKeys,
  loadPlan,
  portInputs,
  runPlan,
  type LoadedPlan,
} from '../engine.js';
import { writeTogether } from '../files.js';
import { bold, formatBytes, formatError, formatSeconds, insecureNotice } from '../format.js';
import { argmax, largestDifference } from '../measure.js';
import { openOracle } from '../oracle.js';
import { compileWithProgress, writePlanFiles } from './compile.js';

const calibrationSamples = 16;
/** The first digit that calibration did not see. */
const shownSample = calibrationSamples;
const side = 8;
const maxTimeRows = 14;

export const demoCommand = defineCommand({
  command: 'demo',
  describe: 'read a handwritten digit without seeing it: compile, encrypt, run, decrypt',
  positionals: {},
  options: {
    secure: {
      type: 'boolean',
      default: false,
      describe: '128-bit parameters: more memory and minutes more time',
    },
    output: { alias: 'o', type: 'string', requiresArg: true, describe: 'keep the files in this folder' },
    threads: { type: 'number', requiresArg: true, describe: 'threads; all cores unless given' },
  },
  examples: [
    ['aegis demo', 'the whole way in about a minute, with small INSECURE parameters'],
    ['aegis demo -o demo-out', 'the same; the files stay, to go on with by hand'],
  ],
  run: async (args, context) => {
    const folder = args.output ?? (await mkdtemp(join(tmpdir(), 'aegis-demo-')));
    try {
      await mkdir(folder, { recursive: true });
      await demo(
        {
          folder,
          kept: args.output !== undefined,
          secure: args.secure,
          threads: args.threads ?? availableParallelism(),
        },
        context,
      );
    } finally {
      if (args.output === undefined) await rm(folder, { recursive: true, force: true });
    }
  },
});

interface DemoOptions {
  readonly folder: string;
  readonly kept: boolean;
  readonly secure: boolean;
  readonly threads: number;
}

/** Nodes in the order of the plan; commands of no node, such as copies of inputs, stand under one name. */
function nodeShares(report: RunReport): TimeShare[] {
  return report.timings.map(({ node, seconds }) => ({
    name: node === '' ? '(no node)' : node,
    seconds,
    detail: '',
  }));
}

function kernelShares(report: RunReport): TimeShare[] {
  return report.opcodes.flatMap(({ op, seconds, launches }) =>
    launches > 0 && seconds !== null
      ? [{ name: snakeCase(op), seconds, detail: `${launches} launches` }]
      : [],
  );
}

/** As `inspect --phase schedule` writes commands. */
function snakeCase(name: string): string {
  return name.replace(/(?<=[a-z])(?=[A-Z])/g, '_').toLowerCase();
}

interface Sizes {
  readonly planBytes: number;
  readonly weightsBytes: number;
  readonly secretKeyBytes: number;
  readonly publicKeyBytes: number;
  readonly evalKeysBytes: number;
  readonly requestBytes: number;
  readonly responseBytes: number;
}

function whereKept({ kept, folder }: DemoOptions): string {
  const place = relative(process.cwd(), folder) || '.';
  return kept ? `\n    All in ${place}: go on with aegis inspect, verify, run.\n` : '';
}

/** The server's part: runs the plan and says where the time went. */
async function serve(
  plan: LoadedPlan,
  keys: string,
  { folder, threads }: DemoOptions,
  context: Context,
  say: (text: string) => void,
): Promise<RunReport> {
  const files = { keys, request: join(folder, 'request.ct'), response: join(folder, 'response.ct') };
  const report = await runPlan(plan, { ...files, threads }, context);
  const peakBytes = Math.max(...report.ranks.map((rank) => rank.peakBytes));
  say(`    ${formatSeconds(report.seconds)} on ${threads} threads, at most ${formatBytes(peakBytes)}\n\n`);
  say(`${timeTable('model node', nodeShares(report), maxTimeRows)}\n\n`);
  say(`${timeTable('kernel', kernelShares(report), maxTimeRows)}\n`);
  return report;
}

async function demo(options: DemoOptions, context: Context): Promise<void> {
  const say = (text: string) => {
    if (!context.json) context.out.write(text);
  };
  const heading = (text: string) => say(`\n${bold(context.style, text)}\n`);
  const example = fileURLToPath(new URL('../../../examples/digits-vit/', import.meta.url));
  const model = join(example, 'digits_vit.onnx');
  const samples = await readSamples(join(example, 'digits_vit.samples.json'));
  const file = (name: string) => join(options.folder, name);

  say('A vision transformer reads a handwritten digit that it never sees.\n');
  heading('1  The model owner compiles');
  const plan = await compileExample(model, samples, file('digits.aegis'), options, context);
  say(planLines(plan));
  if (plan.view.parameters.insecure) say(`    ${insecureNotice(context.style)}\n`);

  heading('2  The data owner makes keys');
  const [keys, keySeconds] = await timed(() => generateKeys(plan, options.folder, undefined, context));
  say(
    `    ${keys.keyCount} keys for the server, ${formatBytes(keys.evalKeysBytes)}, `
      + `in ${formatSeconds(keySeconds)}\n`,
  );

  const sample = sampleAt(samples, shownSample);
  const input = defined(plan.view.inputs[0], 'input').name;
  heading(`3  and encrypts test image ${shownSample}, which calibration did not see`);
  say(`${drawDigit(defined(sample.get(input), 'image').data, side)}\n`);
  await writeTogether([{ path: file('image.npz'), content: formatNpz(sample) }]);
  const inputs = portInputs(await clientOf(plan), sample, 'the example');
  const [{ bytes }, encryptSeconds] = await timed(() =>
    encryptRequest(plan, keys.publicKey, inputs, file('request.ct'), context),
  );
  say(`    request of ${formatBytes(bytes)} in ${formatSeconds(encryptSeconds)}\n`);

  heading('4  The server runs the plan; it has no secret');
  const report = await serve(plan, keys.evalKeys, options, context, say);

  heading('5  The data owner decrypts');
  const output = defined(plan.view.outputs[0], 'output');
  const decrypted = await decryptResponse(plan, keys.secretKey, file('response.ct'), context);
  const logits = defined(decrypted.get(output.name), 'logits').data;
  const reference = await referenceLogits(model, samples);
  const error = largestDifference(logits, reference);
  const label = samples.labels?.[shownSample];
  say(`${scoresTable(logits, reference, context.style)}\n\n`);
  say(`    The digit is read as ${argmax(logits)}; its label is ${label}.\n`);
  say(`    Error measured ${formatError(error)}, predicted ${formatError(output.predictedError)}.\n`);

  heading('Files');
  const sizes = await fileSizes(options.folder);
  say(`${sizeLines(sizes)}\n`);
  say(whereKept(options));
  if (plan.view.parameters.insecure) {
    say(`\n${insecureNotice(context.style)}; aegis demo --secure uses 128-bit ones\n`);
  }
  if (context.json) {
    const result = {
      digit: argmax(logits),
      label: label ?? null,
      logits: [...logits],
      reference: [...reference],
      maxAbsError: error,
      predictedError: output.predictedError,
      seconds: report.seconds,
      insecure: plan.view.parameters.insecure,
      ...sizes,
    };
    context.out.write(`${JSON.stringify(result)}\n`);
  }
}

async function compileExample(
  model: string,
  samples: Samples,
  path: string,
  { secure }: DemoOptions,
  context: Context,
): Promise<LoadedPlan> {
  const result = await compileWithProgress(
    model,
    {
      ring: secure ? 'secure' : 'small',
      insecure: !secure,
      samples: takeSamples(samples, { from: 0, to: calibrationSamples }),
    },
    context,
  );
  const { peakBytes } = result.summary;
  if (peakBytes > totalmem()) {
    throw new AegisError({
      code: 'B111',
      message: `a run needs ${formatBytes(peakBytes)} of memory, this machine has ` + formatBytes(totalmem()),
      help: secure ? 'run the demo without --secure, or on a larger machine' : undefined,
    });
  }
  await writePlanFiles(path, result);
  return loadPlan(path);
}

/** ONNX Runtime where it is installed; else what it gave when the example was made. */
async function referenceLogits(model: string, samples: Samples): Promise<Float64Array> {
  try {
    const oracle = await openOracle('ort', model, {});
    return await oracle(sampleAt(samples, shownSample));
  } catch (error) {
    if (!(error instanceof AegisError)) throw error;
    return defined(samples.logits?.[shownSample], 'stored logits');
  }
}

function planLines({ view }: LoadedPlan): string {
  const { parameters: p, summary: s } = view;
  const security = p.insecure ? 'no security' : `${p.securityBits}-bit security`;
  return (
    `    ring N = 2^${p.logN}, log2(QP) = ${p.logQP.toFixed(0)}, ${security}\n`
    + `    ${s.bootstraps} bootstraps, ${s.rotations} rotations, `
    + `${s.ctMultiplications} products of ciphertexts\n`
  );
}

async function timed<T>(work: () => Promise<T>): Promise<[T, number]> {
  const start = performance.now();
  const result = await work();
  return [result, (performance.now() - start) / 1000];
}

async function fileSizes(folder: string): Promise<Sizes> {
  const bytes = async (name: string) => (await stat(join(folder, name))).size;
  return {
    planBytes: await bytes('digits.aegis'),
    weightsBytes: await bytes('digits.aegis.weights'),
    secretKeyBytes: await bytes('secret.key'),
    publicKeyBytes: await bytes('public.key'),
    evalKeysBytes: await bytes('eval.keys'),
    requestBytes: await bytes('request.ct'),
    responseBytes: await bytes('response.ct'),
  };
}

function sizeLines(sizes: Sizes): string {
  return sizesTable([
    { what: 'plan', bytes: sizes.planBytes, place: 'digits.aegis, to the server and the data owner' },
    { what: 'weights', bytes: sizes.weightsBytes, place: 'digits.aegis.weights, to the server' },
    { what: 'evaluation keys', bytes: sizes.evalKeysBytes, place: 'eval.keys, once to the server' },
    { what: 'secret key', bytes: sizes.secretKeyBytes, place: 'secret.key, stays with the data owner' },
    { what: 'public key', bytes: sizes.publicKeyBytes, place: 'public.key, to whoever encrypts' },
    { what: 'request', bytes: sizes.requestBytes, place: 'request.ct, to the server' },
    { what: 'response', bytes: sizes.responseBytes, place: 'response.ct, back' },
  ]);
}
