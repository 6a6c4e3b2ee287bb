import { packVariants, tokenBlockCounts } from '../../compile.js';
import { maxDevices } from '../../compile/place.js';
import { VariantLowering } from '../../compile/variants.js';
import { readRanges } from '../../data/index.js';
import { defined } from '../../support/invariant.js';
import { loadProfile } from '../../target/profile.js';
import type { RingName } from '../../target/parameters.js';
import type { SecurityBits } from '../../target/security.js';
import {
  checkKernelSpeed,
  checkSampleOptions,
  checkShapeOptions,
  defineCommand,
  kernelSpeedOption,
  parseDims,
  placementOptions,
  profileOption,
  readTaken,
  ringOptions,
  sampleOptions,
  shapeOptions,
  tokenBlocksOption,
} from '../command.js';
import { comparePage } from '../compare-html.js';
import { strategies, type Strategy } from '../../passes/co-place/index.js';
import { compareVariants } from '../compare-rows.js';
import { checkInputs, checkOutputs, writeTogether } from '../files.js';
import { insecureNotice } from '../format.js';
import { comparisonText } from '../simulation-text.js';

export const compareCommand = defineCommand({
  command: 'compare <model>',
  describe: 'simulate every placement of a model on several devices',
  positionals: { model: { type: 'string', demandOption: true, describe: 'ONNX file' } },
  options: {
    devices: { type: 'string', demandOption: true, requiresArg: true, describe: 'numbers of devices: 1,2,4' },
    profile: profileOption,
    strategy: { choices: strategies, array: true, nargs: 1, describe: 'only these; may be repeated' },
    ranges: { type: 'string', requiresArg: true, describe: 'ranges from aegis calibrate' },
    ...sampleOptions,
    ...shapeOptions,
    ...ringOptions,
    'kernel-speed': kernelSpeedOption,
    'token-blocks': tokenBlocksOption,
    overlap: placementOptions.overlap,
    html: { type: 'string', requiresArg: true, describe: 'write a page with charts there' },
  },
  examples: [
    [
      'aegis compare bert.onnx --seq-len 128 --devices 1,2,4 --profile a100-40g-nvlink --html compare.html',
      'latency, bytes and memory of every strategy',
    ],
  ],
  check: (args) => {
    if (parseDevices(args.devices) === undefined)
      return '--devices is not a list of device numbers like 1,2,4';
    if (args.ranges !== undefined && args.samples !== undefined) {
      return 'give --ranges or --samples, not both';
    }
    return checkKernelSpeed(args) ?? checkSampleOptions(args) ?? checkShapeOptions(args);
  },
  run: async (args, context) => {
    await checkInputs([args.model, args.ranges, args.samples].filter((path) => path !== undefined));
    if (args.html !== undefined) await checkOutputs([args.html]);
    const profile = loadProfile(args.profile);
    const devices = parseDevices(args.devices) ?? [];
    const given = args.tokenBlocks === undefined ? undefined : [args.tokenBlocks];
    const modules = await context.progress.during('pack', async (task) => {
      task.update(0, 'import');
      return packVariants(
        args.model,
        {
          seqLen: args.seqLen,
          dims: parseDims(args.dim),
          ring: args.ring as RingName,
          security: args.security as SecurityBits,
          insecure: args.insecure,
          ranges: args.ranges === undefined ? undefined : await readRanges(args.ranges),
          samples: args.samples === undefined ? undefined : await readTaken(args.samples, args.take),
        },
        given ?? tokenBlockCounts(Math.max(...devices)),
      );
    });
    const cipher = defined(modules[0], 'cipher module').cipher;
    const variants = new VariantLowering(
      modules.map((one) => one.cipher),
      { profile, overlap: args.overlap },
    );
    const comparison = await context.progress.during('compare', async (task) =>
      compareVariants((variant) => variants.lower(variant), {
        profile,
        devices,
        strategies: (args.strategy as Strategy[] | undefined) ?? strategies,
        kernelSpeed: args.kernelSpeed,
        onVariant: (strategy, count, done) => task.update(done, `${strategy}, ${count} devices`),
      }),
    );
    const insecure = cipher.parameters?.insecure === true;
    if (args.html !== undefined) {
      const page = comparePage(comparison, { profile, model: cipher.name, seqLen: args.seqLen, insecure });
      await writeTogether([{ path: args.html, content: page }]);
    }
    if (context.json) {
      context.out.write(`${JSON.stringify(comparison.rows)}\n`);
      return;
    }
    context.out.write(comparisonText(comparison, profile, context.style));
    if (insecure) context.out.write(`${insecureNotice(context.style)}\n`);
  },
});

/** Rising and different. */
function parseDevices(text: string): number[] | undefined {
  if (!/^\d{1,2}(,\d{1,2})*$/.test(text)) return undefined;
  const devices = [...new Set(text.split(',').map(Number))].sort((a, b) => a - b);
  return devices.every((count) => count >= 1 && count <= maxDevices) ? devices : undefined;
}
