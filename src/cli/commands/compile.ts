import { rm } from 'node:fs/promises';
import type { CompileOptions, CompileResult, CompileSummary } from '../../compile.js';
import type { ErrorGoal } from '../../compile/error-goal.js';
import { readRanges } from '../../data/index.js';
import { moduleLines } from '../../ir/printer.js';
import { isWitness, type Module } from '../../ir/module.js';
import { describeApproximations } from '../approximations.js';
import { describeLevels } from '../../passes/plan-levels.js';
import { renderDiagnostic } from '../../support/diagnostics.js';
import { defined } from '../../support/invariant.js';
import type { RingName } from '../../target/parameters.js';
import type { SecurityBits } from '../../target/security.js';
import {
  checkSampleOptions,
  checkShapeOptions,
  defineCommand,
  outputOption,
  checkPlacementOptions,
  placementOf,
  placementOptions,
  paddingOption,
  parseByteCount,
  parseDims,
  readTaken,
  ringOptions,
  sampleOptions,
  shapeOptions,
  tokenBlocksOption,
} from '../command.js';
import type { Context } from '../context.js';
import { formatFields, formatBytes, formatError, formatSeconds, insecureNotice } from '../format.js';
import { checkInputs, checkOutputs, writeTogether, type Output } from '../files.js';

/** `verify` reads the cipher module; above this size of constants it is written only on request. */
const maxImplicitCipherBytes = 64 * 2 ** 20;

export const compileCommand = defineCommand({
  command: 'compile <model>',
  describe: 'compile an ONNX model into a plan',
  positionals: { model: { type: 'string', demandOption: true, describe: 'ONNX file' } },
  options: {
    output: { ...outputOption, describe: 'plan to write; PLAN.weights and PLAN.cipher go beside it' },
    ranges: { type: 'string', requiresArg: true, describe: 'ranges from aegis calibrate' },
    ...sampleOptions,
    ...shapeOptions,
    padding: paddingOption,
    ...ringOptions,
    ...placementOptions,
    'token-blocks': tokenBlocksOption,
    levels: {
      type: 'number',
      requiresArg: true,
      describe: 'usable levels between bootstraps; those of the fastest prime chain unless given',
    },
    'key-memory': {
      type: 'string',
      requiresArg: true,
      describe: 'bytes that evaluation keys may take, or 4GiB: fewer keys, more rotations',
    },
    'max-error': {
      type: 'string',
      requiresArg: true,
      describe:
        'predicted error that outputs may have: 0.01, or 1% of their range; fixed accuracy unless given',
    },
    witnesses: {
      type: 'boolean',
      default: false,
      describe: 'longer responses, by which decrypt names nodes whose values left their range',
    },
    'emit-cipher': {
      type: 'string',
      requiresArg: true,
      describe: 'write the final cipher module there, as text',
    },
    'dump-ir': {
      type: 'string',
      requiresArg: true,
      describe: 'folder for the text of the module after every pass',
    },
  },
  examples: [
    ['aegis compile model.onnx --samples model.samples.json --take 0:16 -o model.aegis', '128-bit security'],
    [
      'aegis compile model.onnx --ranges ranges.json --ring small --insecure -o try.aegis',
      'quick trial, no security',
    ],
  ],
  check: (args) => {
    if (args.ranges !== undefined && args.samples !== undefined) {
      return 'give --ranges or --samples, not both';
    }
    if (args.keyMemory !== undefined && parseByteCount(args.keyMemory) === undefined) {
      return '--key-memory is not a number of bytes';
    }
    if (
      args.levels !== undefined
      && !(Number.isInteger(args.levels) && args.levels >= 1 && args.levels <= 40)
    ) {
      return '--levels is not a whole number from 1 to 40';
    }
    if (args.maxError !== undefined && parseErrorGoal(args.maxError) === undefined) {
      return '--max-error is neither a positive number nor a percentage';
    }
    return checkSampleOptions(args) ?? checkShapeOptions(args) ?? checkPlacementOptions(args);
  },
  run: async (args, context) => {
    await checkInputs([args.model, args.ranges, args.samples].filter((path) => path !== undefined));
    const paths = [args.output, `${args.output}.weights`, `${args.output}.cipher`, args.emitCipher];
    await checkOutputs(paths.filter((path) => path !== undefined));
    const result = await compileWithProgress(
      args.model,
      {
        seqLen: args.seqLen,
        noPadding: !args.padding,
        dims: parseDims(args.dim),
        ring: args.ring as RingName,
        security: args.security as SecurityBits,
        insecure: args.insecure,
        levels: args.levels,
        ranges: args.ranges === undefined ? undefined : await readRanges(args.ranges),
        samples: args.samples === undefined ? undefined : await readTaken(args.samples, args.take),
        dumpIr: args.dumpIr,
        witnesses: args.witnesses,
        maxError: args.maxError === undefined ? undefined : parseErrorGoal(args.maxError),
        ...placementOf(args),
        keyMemory: args.keyMemory === undefined ? undefined : parseByteCount(args.keyMemory),
        ...(args.tokenBlocks === undefined ? {} : { pack: { tokenBlocks: args.tokenBlocks } }),
      },
      context,
    );
    await writePlanFiles(args.output, result, args.emitCipher);
    if (context.json) context.out.write(`${JSON.stringify(result.summary)}\n`);
    else context.out.write(summaryText(args.output, result, context));
  },
});

/** `0.01`, absolute, or `1%` of the outputs' range. */
function parseErrorGoal(given: string): ErrorGoal | undefined {
  const match = /^(\d*\.?\d+(?:e[+-]?\d+)?)(%?)$/i.exec(given);
  if (match === null) return undefined;
  const isFraction = match[2] === '%';
  const value = Number(match[1]) / (isFraction ? 100 : 1);
  return value > 0 && Number.isFinite(value) ? { value, isFraction } : undefined;
}

/** Compiles; warnings go to standard error. */
export async function compileWithProgress(
  model: string,
  options: CompileOptions,
  { err, progress }: Context,
): Promise<CompileResult> {
  const { compile } = await import('../../compile.js');
  const result = await progress.during('compile', (task) =>
    compile(model, { ...options, onProgress: (pass, fraction) => task.update(fraction, pass) }),
  );
  for (const warning of result.warnings) {
    err.write(`${renderDiagnostic(warning).replace(/^error/, 'warning')}\n`);
  }
  return result;
}

/** PLAN, PLAN.weights and PLAN.cipher, all or none; the module once more where `emitCipher` says. */
export async function writePlanFiles(
  path: string,
  result: CompileResult,
  emitCipher?: string,
): Promise<void> {
  const small = constantBytes(result.cipher) <= maxImplicitCipherBytes;
  const cipherPaths = [small ? `${path}.cipher` : undefined, emitCipher].filter((one) => one !== undefined);
  const content = cipherPaths.length === 0 ? '' : cipherText(result.cipher);
  await writeTogether([
    { path: `${path}.weights`, content: result.weights },
    { path, content: result.plan },
    ...cipherPaths.map((cipherPath): Output => ({ path: cipherPath, content })),
  ]);
  // One that an earlier compile left would be taken for this plan's.
  if (!small) await rm(`${path}.cipher`, { force: true });
}

function constantBytes({ constants, client }: Module): number {
  const parts = (client?.prologue?.length ?? 0) + (client?.epilogue?.length ?? 0);
  return [...constants.values()].reduce((sum, { data }) => sum + data.byteLength, parts);
}

/** In pieces: the text may be longer than the longest string. */
function cipherText(module: Module): Uint8Array {
  const lines: Buffer[] = [];
  for (const line of moduleLines(module)) lines.push(Buffer.from(`${line}\n`));
  return Buffer.concat(lines);
}

/** `17 usable levels, 6 special primes, of 8 chains, others up to 26.0 % slower`. */
function describeChain({ parameters }: Module, [first, ...others]: CompileSummary['chains']): string {
  const { usableLevels, specials } = defined(parameters, 'parameters').literal;
  const taken = `${usableLevels} usable levels, ${specials} special primes`;
  if (first?.seconds == null) return taken;
  const slower = others.flatMap(({ seconds }) => (seconds === null ? [] : [seconds]));
  const best = Math.min(first.seconds, ...slower);
  const share = (seconds: number): string => `${(100 * (seconds / best - 1)).toFixed(1)} %`;
  const found = slower.length === 0 ? '' : `, others up to ${share(Math.max(...slower))} slower`;
  return `${taken}, of ${others.length + 1} chains${found}`;
}

function summaryText(path: string, { summary, cipher }: CompileResult, { style }: Context): string {
  const passes = summary.passes.reduce((sum, pass) => sum + pass.seconds, 0);
  const errors = cipher.outputs
    .filter(({ name }) => !isWitness(name))
    .map(
      (port) =>
        `${port.name} ${port.predictedError === undefined ? 'unknown' : formatError(port.predictedError)}`,
    );
  const lines = [
    `${path}: ${formatBytes(summary.planBytes)}, weights ${formatBytes(summary.weightsBytes)}, compiled in `
      + formatSeconds(passes),
    formatFields([
      ['ring', `N = 2^${summary.logN}, log2(QP) = ${summary.logQP.toFixed(0)}, ${summary.levels} levels`],
      ['security', summary.insecure ? 'INSECURE' : `${summary.securityBits} bits`],
      [
        'operations',
        `${summary.bootstraps} bootstraps, ${summary.rotations} rotations, `
          + `${summary.ctMultiplications} products of ciphertexts`,
      ],
      ['levels', describeLevels(summary.levelPlan)],
      ['approximations', describeApproximations(summary.approximations)],
      ['chain', describeChain(cipher, summary.chains)],
      ['memory of a run', `${formatBytes(summary.peakBytes)}, keys ${formatBytes(summary.keyBytes)} of it`],
      ['predicted error', errors.join(', ')],
    ]),
  ];
  if (summary.insecure) lines.push(insecureNotice(style));
  return `${lines.join('\n')}\n`;
}
