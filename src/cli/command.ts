/** The one form in which commands are declared, and what all of them share. */
import type { Argv, CommandModule, InferredOptionTypes, Options, PositionalOptions } from 'yargs';
import { parseTake, readSamples, type Samples } from '../data/index.js';
import { defaultProfile, maxDevices, type PlacementOptions } from '../compile/place.js';
import { strategies, type Strategy } from '../passes/co-place/options.js';
import { loadProfile } from '../target/profile.js';
import type { Context } from './context.js';

type Definitions = Readonly<Record<string, Options>>;
type Positionals = Readonly<Record<string, PositionalOptions>>;
/** yargs also gives every value under its camel-case name. */
type Camel<S extends string> = S extends `${infer A}-${infer B}` ? `${A}${Capitalize<Camel<B>>}` : S;
type CamelKeys<T> = { [K in keyof T as Camel<K & string>]: T[K] };
export type ArgsOf<D extends Definitions> = CamelKeys<InferredOptionTypes<D>>;

export interface CommandSpec<P extends Positionals, O extends Definitions> {
  /** Name and positionals, as yargs writes them: `compile <model>`. */
  readonly command: string;
  readonly describe: string;
  readonly positionals: P;
  readonly options: O;
  /** Command line and what it does. */
  readonly examples: readonly (readonly [string, string])[];
  /** Mistakes in how options are combined: the text of a usage error. */
  readonly check?: (args: ArgsOf<P> & ArgsOf<O>) => string | undefined;
  readonly run: (args: ArgsOf<P> & ArgsOf<O>, context: Context) => Promise<void>;
}

/** How a parsed command is carried out: `cli.ts` makes the context and turns errors into exit codes. */
export type Invoke = (work: (context: Context) => Promise<void>) => Promise<void>;
export type MakeCommand = (invoke: Invoke) => CommandModule;

export function defineCommand<P extends Positionals, O extends Definitions>(
  spec: CommandSpec<P, O>,
): MakeCommand {
  return (invoke) => ({
    command: spec.command,
    describe: spec.describe,
    builder: (yargs) => {
      const withPositionals = Object.entries(spec.positionals).reduce(
        (all: Argv, [name, definition]) => all.positional(name, definition),
        yargs,
      );
      return withPositionals
        .options(spec.options)
        .epilogue(exampleText(spec.examples))
        .check((args) => {
          for (const [name, definition] of Object.entries({ ...spec.positionals, ...spec.options })) {
            if (Array.isArray(args[name]) && definition.array !== true) {
              throw new Error(`--${name} is given twice`);
            }
            if (args[name] === '') throw new Error(`--${name} is empty`);
            if (definition.type === 'number' && Number.isNaN(args[name])) {
              throw new Error(`--${name} is not a number`);
            }
          }
          const problem = spec.check?.(args as unknown as ArgsOf<P> & ArgsOf<O>);
          if (problem !== undefined) throw new Error(problem);
          return true;
        });
    },
    // yargs parsed exactly these definitions.
    handler: (args) => invoke((context) => spec.run(args as unknown as ArgsOf<P> & ArgsOf<O>, context)),
  });
}

function exampleText(examples: readonly (readonly [string, string])[]): string {
  return ['Examples:', ...examples.map(([line, meaning]) => `  ${line}\n      ${meaning}`)].join('\n');
}

export const outputOption = { alias: 'o', type: 'string', demandOption: true, requiresArg: true } as const;
const text = { type: 'string', requiresArg: true } as const;

/** Where sample inputs come from. */
export const sampleOptions = {
  samples: { ...text, describe: 'sample inputs: F.samples.json, or .npz with samples on the first axis' },
  take: { ...text, describe: 'samples from a up to b, not b itself: a:b' },
} as const;

/** The ring, and how much security is asked of it. */
export const ringOptions = {
  ring: {
    choices: ['tiny', 'small', 'secure'],
    default: 'secure',
    describe: 'tiny and small need --insecure',
  },
  security: { type: 'number', choices: [128, 192, 256], default: 128, describe: 'bits of security' },
  insecure: { type: 'boolean', default: false, describe: 'accept less security: for tests only' },
} as const;

/** Sizes of inputs whose ONNX shapes are symbolic. */
export const shapeOptions = {
  'seq-len': { type: 'number', requiresArg: true, describe: 'tokens of every symbolic sequence axis' },
  dim: {
    type: 'string',
    array: true,
    nargs: 1,
    describe: 'size of a symbolic axis, NAME=VALUE; may be repeated',
  },
} as const;

/** `--no-padding`. */
export const paddingOption = {
  type: 'boolean',
  default: true,
  describe: 'requests may have padding; with --no-padding masks cost nothing, and encrypt refuses padding',
} as const;

export const tokenBlocksOption = {
  type: 'number',
  requiresArg: true,
  choices: [1, 2, 4, 8],
  describe: 'blocks of tokens in ciphertexts of their own; the fastest unless given',
} as const;

/** Where the work of a plan is done. */
export const placementOptions = {
  devices: { type: 'number', requiresArg: true, default: 1, describe: 'ranks of the plan' },
  strategy: { choices: strategies, default: 'coplaced', describe: 'how work is shared out among devices' },
  profile: {
    ...text,
    default: defaultProfile,
    describe: 'device that the plan is made for: a name, or a file',
  },
  overlap: { type: 'boolean', default: true, describe: 'hide communication behind computation' },
  'memory-limit': { ...text, describe: 'bytes that a device may hold, or 8GiB; other plans are refused' },
} as const;

interface PlacementArgs {
  readonly devices: number;
  readonly strategy: string;
  readonly profile: string;
  readonly overlap: boolean;
  readonly memoryLimit?: string | undefined;
}

export function checkPlacementOptions(args: PlacementArgs): string | undefined {
  if (!Number.isSafeInteger(args.devices) || args.devices < 1 || args.devices > maxDevices) {
    return `--devices is not a number from 1 to ${maxDevices}`;
  }
  if (args.memoryLimit !== undefined && parseByteCount(args.memoryLimit) === undefined) {
    return '--memory-limit is not a number of bytes';
  }
  return undefined;
}

export function placementOf(args: PlacementArgs): PlacementOptions {
  return {
    devices: args.devices,
    strategy: args.strategy as Strategy,
    profile: loadProfile(args.profile),
    overlap: args.overlap,
    memoryLimit: args.memoryLimit === undefined ? undefined : parseByteCount(args.memoryLimit),
  };
}

/** `name=value` pairs. Throws what is wrong, as a usage error. */
export function parseDims(pairs: readonly string[] | undefined): Record<string, number> {
  return Object.fromEntries(
    (pairs ?? []).map((pair): [string, number] => {
      const match = /^([^=]+)=([1-9]\d{0,8})$/.exec(pair);
      if (match === null) {
        throw new Error(`--dim is ${JSON.stringify(pair)}, expected NAME=VALUE with a positive size`);
      }
      return [match[1] ?? '', Number(match[2])];
    }),
  );
}

export function checkShapeOptions(args: {
  seqLen?: number | undefined;
  dim?: readonly string[] | undefined;
}): string | undefined {
  if (args.seqLen !== undefined && !(Number.isSafeInteger(args.seqLen) && args.seqLen > 0)) {
    return '--seq-len is not a positive whole number';
  }
  try {
    parseDims(args.dim);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/** The samples of `sampleOptions`. */
export async function readTaken(samples: string, take: string | undefined): Promise<Samples> {
  return readSamples(samples, take === undefined ? undefined : parseTake(take));
}

export function checkSampleOptions(args: {
  samples?: string | undefined;
  take?: string | undefined;
}): string | undefined {
  return args.take !== undefined && args.samples === undefined ? '--take needs --samples' : undefined;
}

/** Bytes: a number, or one with a unit (`4GiB`, `512M`; binary units both ways). */
export function parseByteCount(given: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?$/i.exec(given);
  if (match === null) return undefined;
  const power = ['', 'K', 'M', 'G', 'T'].indexOf((match[2] ?? '').toUpperCase());
  const bytes = Math.floor(Number(match[1]) * 1024 ** power);
  return Number.isSafeInteger(bytes) && bytes > 0 ? bytes : undefined;
}

/** Of a device profile. */
export const profileOption = {
  type: 'string',
  demandOption: true,
  requiresArg: true,
  describe: 'device profile: a100-40g-nvlink, h200, ... or a file of aegis profile',
} as const;

export const kernelSpeedOption = {
  type: 'number',
  default: 1,
  requiresArg: true,
  describe: 'kernels this many times as fast, communication as it is',
} as const;

export function checkKernelSpeed({ kernelSpeed }: { kernelSpeed: number }): string | undefined {
  return kernelSpeed > 0 && Number.isFinite(kernelSpeed) ? undefined : '--kernel-speed is not above 0';
}
