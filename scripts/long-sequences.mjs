// One encoder layer at several lengths: compiles, makes keys, runs encrypted on local ranks, decrypts and
// compares; prints seconds, memory of a rank and error of each length.
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import onnxProto from 'onnx-proto';
import { bertModel, embeddings } from './bert-model.mjs';
import { readPlan } from '../dist/backend/index.js';
import { lowerPlaced, place } from '../dist/compile/place.js';
import { compile } from '../dist/compile.js';
import { decrypt, encrypt, keygen } from '../dist/executor/index.js';
import { importModel } from '../dist/frontend/index.js';
import { runTensor } from '../dist/ir/interpreter/tensor.js';
import { calibrateModule } from '../dist/passes/calibrate.js';

const usage = `npm run long-sequences -- [options]

  --tokens 256,512,1024  lengths, a table row each
  --devices 2            ranks, threads of one process
  --width 16  --heads 2  --ffn 32
  --strategy coplaced
  --ring small
  --samples 2            clear runs that calibrate; the encrypted input is another one
  --blocks N             token blocks: all that compile tries unless given
  --offsets-in-slots N, --offsets-in-array N, --offsets-together N,
  --offset-keys-limit BYTES
                         as in docs/passes/pack.md
  --threads N            all cores unless given
  --one-rank             runs a plan for one rank on the same request too, and compares the outputs' bits
  --compile-only
  --json                 an object on a line for each length, sizes in bytes
  --help
`;
const { values: options } = parseArgs({
  options: {
    tokens: { type: 'string', default: '256,512,1024' },
    devices: { type: 'string', default: '2' },
    width: { type: 'string', default: '16' },
    heads: { type: 'string', default: '2' },
    ffn: { type: 'string', default: '32' },
    strategy: { type: 'string', default: 'coplaced' },
    ring: { type: 'string', default: 'small' },
    samples: { type: 'string', default: '2' },
    blocks: { type: 'string' },
    'offsets-in-slots': { type: 'string' },
    'offsets-in-array': { type: 'string' },
    'offsets-together': { type: 'string' },
    'offset-keys-limit': { type: 'string' },
    threads: { type: 'string', default: String(cpus().length) },
    'one-rank': { type: 'boolean', default: false },
    'compile-only': { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});
if (options.help) {
  process.stdout.write(usage);
  process.exit(0);
}

const whole = (name, text = options[name]) => {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 1) return value;
  process.stderr.write(`--${name} ${text} is not a whole number of at least 1\n\n${usage}`);
  process.exit(2);
};
const lengths = options.tokens.split(',').map((text) => whole('tokens', text));
const devices = whole('devices');
const shape = { layers: 1, width: whole('width'), heads: whole('heads'), ffn: whole('ffn'), seed: 1 };
const [threads, sampleCount] = [whole('threads'), whole('samples')];
const packOptions = {
  tokenBlocks: 'blocks',
  offsetsInSlots: 'offsets-in-slots',
  offsetsInArray: 'offsets-in-array',
  offsetsTogether: 'offsets-together',
  offsetKeysLimitBytes: 'offset-keys-limit',
};
const pack = Object.fromEntries(
  Object.entries(packOptions).flatMap(([field, name]) =>
    options[name] === undefined ? [] : [[field, whole(name)]],
  ),
);

const program = join(
  dirname(process.env.AEGIS_ADDON ?? fileURLToPath(new URL('../build/bin/aegis.node', import.meta.url))),
  'aegis-exec',
);

/** BERT's own deviation suits width 768; here every linear layer keeps the deviation, so scores spread. */
function makeModel() {
  const { ModelProto } = onnxProto.onnx;
  const model = ModelProto.decode(bertModel(shape));
  for (const tensor of model.graph.initializer) {
    if (tensor.dims.length !== 2) continue;
    const data = new Float32Array(Uint8Array.from(tensor.rawData).buffer);
    const deviation = Math.sqrt(data.reduce((sum, x) => sum + x * x, 0) / data.length);
    const gain = 1 / (deviation * Math.sqrt(Number(tensor.dims[0])));
    tensor.rawData = new Uint8Array(data.map((x) => x * gain).buffer);
  }
  return ModelProto.encode(model).finish();
}

const timed = async (work) => {
  const start = performance.now();
  const result = await work();
  return [result, Number(((performance.now() - start) / 1000).toFixed(1))];
};

async function write(plan, lowered) {
  await writeFile(plan, lowered.plan);
  await writeFile(`${plan}.weights`, lowered.weights);
}

/** In a process of its own, whose resident set is that of the run. */
async function execute(plan, at) {
  const files = [plan, '--keys', at('eval.keys'), '--in', at('request.ct'), '-o', at('response.ct')];
  const child = spawn(program, [...files, '--threads', String(threads), '--json'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  child.stdout.on('data', (chunk) => (text += chunk));
  const status = await new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  if (status !== 0) throw new Error(`aegis-exec ended with status ${status}: ${text}`);
  return JSON.parse(text);
}

const total = ({ ports, frame, keys, plaintexts }) => ports + frame + keys + plaintexts;
const warn = ({ warnings }) => {
  for (const { code, message } of warnings) process.stderr.write(`${code}: ${message}\n`);
};

async function measure(tokens, at) {
  const sample = (i) => ({ embeddings: embeddings(tokens, shape.width, 1000 * (i + 1)) });
  const [model, plan] = [at('model.onnx'), at('model.plan')];
  const { module: tensor } = importModel(model, { seqLen: tokens });
  const ranges = calibrateModule(
    tensor,
    Array.from({ length: sampleCount }, (_, i) => sample(i)),
  );
  const { ring, strategy } = options;
  const insecure = ring !== 'secure';
  const [lowered, compileSeconds] = await timed(() =>
    compile(model, { ring, insecure, ranges, pack, devices, strategy }),
  );
  warn(lowered);
  await write(plan, lowered);
  const { cipher, summary } = lowered;
  const { programs, outputs, keys } = readPlan(lowered.plan);
  const memories = programs.map(({ memory }) => memory);
  const row = {
    tokens,
    logN: summary.logN,
    blocks: cipher.functions.at(-1).body.results[0].type.axes.find(({ name }) => name === 'p')?.size ?? 1,
    rotations: summary.rotations,
    bootstraps: summary.bootstraps,
    keys: keys.length,
    compileSeconds,
    peakBytes: memories.map(total),
    memory: memories.reduce((a, b) => (total(b) > total(a) ? b : a)),
    predictedError: outputs[0].predictedError,
  };
  if (options['compile-only']) return row;

  const [, keygenSeconds] = await timed(() =>
    keygen({ plan, directory: at('.'), threads, ...(insecure ? { seed: 5 } : {}) }),
  );
  const inputs = sample(sampleCount);
  await encrypt({ plan, key: at('public.key'), inputs, out: at('request.ct'), threads });
  const report = await execute(plan, at);
  const result = await decrypt({ plan, key: at('secret.key'), in: at('response.ct'), threads });
  warn(result);
  const expected = runTensor(tensor, inputs).last_hidden_state;
  const error = result.outputs.last_hidden_state.reduce(
    (max, value, i) => Math.max(max, Math.abs(value - expected[i])),
    0,
  );
  const measured = {
    ...row,
    keygenSeconds,
    loadSeconds: report.loadSeconds,
    runSeconds: report.seconds,
    measuredPeakBytes: report.ranks.map(({ peakBytes }) => peakBytes),
    processPeakBytes: report.processPeakBytes,
    error,
  };
  if (!options['one-rank']) return measured;
  await write(at('single.plan'), lowerPlaced(place(cipher, {}), {}));
  const single = await execute(at('single.plan'), at);
  return { ...measured, sameAsOneRank: single.outputSha256 === report.outputSha256 };
}

const mib = (bytes) => Math.round(bytes / 2 ** 20);

/** A line of the table; `before` is the length above it. */
function formatted(row, before) {
  const peak = Math.max(...(row.measuredPeakBytes ?? row.peakBytes));
  const above =
    before === undefined ? undefined : Math.max(...(before.measuredPeakBytes ?? before.peakBytes));
  return {
    tokens: row.tokens,
    logN: row.logN,
    blocks: row.blocks,
    'compile s': row.compileSeconds,
    ...(row.error === undefined
      ? {}
      : {
          'keygen s': row.keygenSeconds,
          'load s': Number(row.loadSeconds.toFixed(1)),
          'run s': Number(row.runSeconds.toFixed(1)),
        }),
    'rank MiB': mib(peak),
    growth: above === undefined ? '' : (peak / above).toFixed(2),
    ...Object.fromEntries(['frame', 'keys', 'plaintexts'].map((part) => [part, mib(row.memory[part])])),
    ...(row.error === undefined
      ? {}
      : { 'process MiB': mib(row.processPeakBytes), error: row.error.toExponential(1) }),
    predicted: row.predictedError.toExponential(1),
    ...(row.sameAsOneRank === undefined ? {} : { 'one rank': row.sameAsOneRank ? 'same bits' : 'DIFFERS' }),
  };
}

const folder = await mkdtemp(join(tmpdir(), 'aegis-long-'));
const at = (name) => join(folder, name);
try {
  await writeFile(at('model.onnx'), makeModel());
  const rows = [];
  for (const tokens of lengths) {
    const row = await measure(tokens, at);
    rows.push(row);
    if (options.json) console.log(JSON.stringify(row));
    else process.stderr.write(`${tokens} tokens done\n`);
  }
  if (!options.json) console.table(rows.map((row, i) => formatted(row, rows[i - 1])));
} finally {
  await rm(folder, { recursive: true, force: true });
}
