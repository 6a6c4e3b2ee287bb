// Writes a BERT encoder with random weights and calibrated ranges for it: OUT.onnx and OUT.ranges.json.
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';
import { bertModel, embeddings } from './bert-model.mjs';
import { importModel } from '../dist/frontend/index.js';
import { calibrateModule } from '../dist/passes/calibrate.js';
import { carryRanges } from '../dist/passes/carry-ranges.js';

const usage = `npm run make:bert-base -- --out build/bert-base.onnx [options]

  --out FILE           ONNX file to write; its ranges go to FILE with .ranges.json for .onnx
  --layers 12  --width 768  --heads 12  --ffn 3072
  --seed 1             of weights and calibration inputs
  --seq-len 2048       length that the ranges are for
  --calibrate-len 64   length of the clear runs; other lengths are carried over and leave no probes
  --samples 2          clear runs
  --help
`;
const defaults = {
  layers: '12',
  width: '768',
  heads: '12',
  ffn: '3072',
  seed: '1',
  'seq-len': '2048',
  'calibrate-len': '64',
  samples: '2',
};
const { values: options } = parseArgs({
  options: {
    out: { type: 'string' },
    help: { type: 'boolean', default: false },
    ...Object.fromEntries(
      Object.entries(defaults).map(([name, value]) => [name, { type: 'string', default: value }]),
    ),
  },
});
if (options.help || options.out === undefined) {
  process[options.help ? 'stdout' : 'stderr'].write(usage);
  process.exit(options.help ? 0 : 2);
}

const whole = (name) => {
  const value = Number(options[name]);
  if (Number.isSafeInteger(value) && value >= (name === 'seed' ? 0 : 1)) return value;
  process.stderr.write(`--${name} ${options[name]} is not a whole number of at least 1\n\n${usage}`);
  process.exit(2);
};
const shape = {
  layers: whole('layers'),
  width: whole('width'),
  heads: whole('heads'),
  ffn: whole('ffn'),
  seed: whole('seed'),
};
if (shape.width % shape.heads !== 0) {
  process.stderr.write(`--width ${shape.width} is not a multiple of --heads ${shape.heads}\n`);
  process.exit(2);
}
const [seqLen, calibrateLen] = [whole('seq-len'), whole('calibrate-len')];

const bytes = bertModel(shape);
await mkdir(dirname(options.out), { recursive: true });
await writeFile(options.out, bytes);
process.stderr.write(`${options.out}: ${(bytes.length / 2 ** 20).toFixed(1)} MiB\n`);

const { module } = importModel(options.out, { seqLen: calibrateLen });
const samples = Array.from({ length: whole('samples') }, (_, i) => ({
  embeddings: embeddings(calibrateLen, shape.width, shape.seed + 1000 * (i + 1)),
}));
const ranges = calibrateModule(module, samples, (done) => {
  process.stderr.write(`calibrated on sample ${done} of ${samples.length}\n`);
});
const target = `${options.out.replace(/\.onnx$/, '')}.ranges.json`;
const carried = carryRanges(ranges, {
  from: calibrateLen,
  to: seqLen,
  shapes: { embeddings: [1, seqLen, shape.width] },
});
await writeFile(target, `${JSON.stringify(carried)}\n`);
process.stderr.write(`${target}: ranges at ${seqLen} tokens\n`);
