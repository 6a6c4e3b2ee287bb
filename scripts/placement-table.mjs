// The placement tables of docs/measurements.md: every strategy on several numbers of devices, for each number
// of token blocks and each device profile, simulated at several speeds of kernels.
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

/** One table: rows of all kernel speeds beside each other, since bytes and memory are the same. */
function table(rows) {
  const [first] = rows;
  const speeds = [...new Set(rows.map((row) => row.kernelSpeed))].sort((a, b) => a - b);
  const slowest = rows.filter((row) => row.kernelSpeed === speeds[0]);
  const times = ['latency, s', 'speedup', 'efficiency', 'exposed, s'];
  const head = [
    ...['strategy', 'devices'],
    ...speeds.flatMap((speed) => times.map((name) => (speed === 1 ? name : `${name}, ${speed} x`))),
    ...['attention, GB', 'FFN, GB', 'rest, GB', 'memory, GB', 'fits'],
  ];
  const cells = (row) => [
    row.devices === 1 ? '-' : row.strategy,
    row.devices,
    ...speeds.flatMap((speed) => {
      const same = (one) => one.strategy === row.strategy && one.devices === row.devices;
      const at = rows.find((one) => same(one) && one.kernelSpeed === speed);
      const share = `${(100 * at.efficiency).toFixed(1)} %`;
      return [at.latencyS.toFixed(1), at.speedup.toFixed(2), share, at.exposedCommS.toFixed(2)];
    }),
    ...['attention', 'ffn', 'rest'].map((block) => (row.commBytes[block] / 1e9).toFixed(1)),
    (row.peakBytesPerDevice / 1e9).toFixed(1),
    row.fits ? 'yes' : 'no',
  ];
  const lines = [head, head.map(() => '---'), ...slowest.map(cells)];
  const text = lines.map((line) => `| ${line.join(' | ')} |`).join('\n');
  return `P = ${first.tokenBlocks}, ${first.profile}\n\n${text}\n\n`;
}

async function* compared() {
  for (const tokenBlocks of numbers('token-blocks')) {
    const [variant] = await packVariants(positionals[0], model, [tokenBlocks]);
    for (const name of options.profile.split(',')) {
      const profile = loadProfile(name);
      const lowering = new VariantLowering([variant.cipher], { profile, overlap: true });
      yield numbers('kernel-speed').flatMap((kernelSpeed) => {
        const at = { profile, devices: numbers('devices'), strategies, kernelSpeed };
        const { rows } = compareVariants((one) => lowering.lower(one), at);
        return rows.map((row) => ({ tokenBlocks, profile: name, kernelSpeed, ...row }));
      });
    }
  }
}

for await (const rows of compared()) {
  process.stdout.write(options.json ? rows.map((row) => `${JSON.stringify(row)}\n`).join('') : table(rows));
}
