/** Sizes for the dynamic dimensions of the inputs. */
import { AegisError } from '../support/diagnostics.js';
import type { GraphInput } from './evaluate.js';
import type { MaskSamples } from './lower/mask-probes.js';
import type { InputDecl, OnnxModel } from './model.js';

export interface DimensionOptions {
  /**
   * Tokens of the sequence: the value of every dynamic dimension that is not a batch and not named in `dims`.
   */
  readonly seqLen?: number | undefined;
  readonly dims?: Readonly<Record<string, number>> | undefined;
  /** Masks are taken as open everywhere: requests have no padding, and the client refuses others. */
  readonly noPadding?: boolean | undefined;
  /** Values by input name: what a mask that is an input itself may look like. */
  readonly masks?: MaskSamples | undefined;
  /** Shapes by input name, such as those of samples: they fill what the options above leave open. */
  readonly shapes?: Readonly<Record<string, readonly number[]>> | undefined;
}

/**
 * One inference at a time is what a plan is for; batches are a compiler option, not a dimension of the model.
 */
const defaultBatch = 1;
const maxDimension = 2 ** 20;

const isSize = (size: number): boolean => Number.isInteger(size) && size >= 1 && size <= maxDimension;

/** The first dimension is the batch, unless its name says that it counts tokens. */
function isBatch(input: InputDecl, position: number, name: string): boolean {
  return position === 0 && (input.dims.length > 1 || /batch/i.test(name)) && !/seq|tok|len/i.test(name);
}

export function bindInputs(model: OnnxModel, options: DimensionOptions): GraphInput[] {
  const named = Object.entries(options.dims ?? {});
  const sequence = options.seqLen === undefined ? [] : [['--seq-len', options.seqLen] as const];
  const bad = [...named, ...sequence].find(([, size]) => !isSize(size));
  if (bad !== undefined) {
    throw new AegisError({ code: 'F112', message: `${bad[0]} is ${bad[1]}, expected 1 to ${maxDimension}` });
  }
  const open = new Set<string>();
  const inputs = model.inputs.map((input) => {
    const shape = input.dims.map((dim, position) => {
      if (typeof dim === 'number') return dim;
      const given =
        options.dims !== undefined && Object.hasOwn(options.dims, dim) ? options.dims[dim] : undefined;
      if (given !== undefined) return given;
      if (isBatch(input, position, dim)) return defaultBatch;
      if (options.seqLen !== undefined) return options.seqLen;
      const seen = options.shapes?.[input.name];
      const size = seen?.length === input.dims.length ? seen[position] : undefined;
      if (size !== undefined && isSize(size)) return size;
      open.add(dim === '?' ? `dimension ${position} of "${input.name}"` : dim);
      return 1;
    });
    return { name: input.name, dtype: input.dtype, shape };
  });
  if (open.size > 0) {
    throw new AegisError(
      [...open].map((name) => ({
        code: 'F112',
        message: `dynamic dimension without a value: ${name}`,
        help: `--dim ${/^\w+$/.test(name) ? name : 'name'}=value or --seq-len n or samples give it a value`,
      })),
    );
  }
  return inputs;
}
