// The placement tables of docs/measurements.md: every strategy on several numbers of devices, for each number
// of token blocks and each device profile, simulated once more with faster kernels.
import { parseArgs } from 'node:util';
import { compareVariants } from '../dist/cli/compare-rows.js';
import { packVariants } from '../dist/compile.js';
import { VariantLowering } from '../dist/compile/variants.js';
import { readRanges } from '../dist/data/index.js';
import { strategies } from '../dist/passes/co-place/index.js';
import { loadProfile } from '../dist/target/profile.js';

const usage = `npm run placement-table -- MODEL.onnx --ranges RANGES.json [options]

  --seq-len 2048
  --devices 1,2,4,8
  --token-blocks 1,2,4,8
  --profile a100-40g-nvlink,a6000-nvlink
  --kernel-speed 1,2     kernels so many times faster, communication as it is
  --json                 a row on a line
  --help
`;
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    ranges: { type: 'string' },
    'seq-len': { type: 'string', default: '2048' },
    devices: { type: 'string', default: '1,2,4,8' },
    'token-blocks': { type: 'string', default: '1,2,4,8' },
    profile: { type: 'string', default: 'a100-40g-nvlink,a6000-nvlink' },
    'kernel-speed': { type: 'string', default: '1,2' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});
if (options.help || positionals.length !== 1 || options.ranges === undefined) {
  process[options.help ? 'stdout' : 'stderr'].write(usage);
  process.exit(options.help ? 0 : 2);
}

const numbers = (name) => options[name].split(',').map(Number);
const model = {
  seqLen: Number(options['seq-len']),
  ring: 'secure',
  security: 128,
  insecure: false,
  ranges: await readRanges(options.ranges),
};

const columns =
  'strategy | devices | latency, s | speedup | efficiency | exposed, s | attention, GB | FFN, GB | rest, GB | memory, GB | fits';
const cells = (row) => [
  row.devices === 1 ? '-' : row.strategy,
  row.devices,
  row.latencyS.toFixed(1),
  row.speedup.toFixed(2),
  `${(100 * row.efficiency).toFixed(1)} %`,
  row.exposedCommS.toFixed(2),
  ...['attention', 'ffn', 'rest'].map((block) => (row.commBytes[block] / 1e9).toFixed(1)),
  (row.peakBytesPerDevice / 1e9).toFixed(1),
  row.fits ? 'yes' : 'no',
];

for (const tokenBlocks of numbers('token-blocks')) {
  const [variant] = await packVariants(positionals[0], model, [tokenBlocks]);
  for (const name of options.profile.split(',')) {
    const profile = loadProfile(name);
    const lowering = new VariantLowering([variant.cipher], { profile, overlap: true });
    for (const kernelSpeed of numbers('kernel-speed')) {
      const { rows } = compareVariants((one) => lowering.lower(one), {
        profile,
        devices: numbers('devices'),
        strategies,
        kernelSpeed,
      });
      const at = { tokenBlocks, profile: name, kernelSpeed };
      if (options.json) {
        for (const row of rows) process.stdout.write(`${JSON.stringify({ ...at, ...row })}\n`);
        continue;
      }
      const title = `P = ${tokenBlocks}, ${name}${kernelSpeed === 1 ? '' : `, kernels ${kernelSpeed} times as fast`}`;
      const rule = columns.replace(/[^|]+/g, '---');
      const lines = [columns, rule, ...rows.map((row) => cells(row).join(' | '))].map(
        (line) => `| ${line} |`,
      );
      process.stdout.write(`${title}\n\n${lines.join('\n')}\n\n`);
    }
  }
}
