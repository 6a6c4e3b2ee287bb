/** Inputs of a model in the clear: out of samples, or seeded random ones. */
import { createHash } from 'node:crypto';
import type { Samples } from '../data/index.js';
import { ClientProgram, type ClientInput, type DimensionOptions } from '../frontend/index.js';
import type { Module } from '../ir/module.js';
import type { Ranges } from '../passes/ranges.js';
import { AegisError } from '../support/diagnostics.js';
import { defined } from '../support/invariant.js';

/** Random inputs for models compiled without samples: enough to find ranges, and no more than that. */
const randomSamples = 8;

/** What the data owner computes in the clear. */
export function clientOf(module: Pick<Module, 'client' | 'inputs' | 'outputs'>): ClientProgram {
  return new ClientProgram(module.client, module.inputs, module.outputs);
}

function sampleShapes(samples: Samples): Record<string, readonly number[]> {
  return Object.fromEntries([...samples.inputs].map(([name, input]) => [name, input.shape]));
}

/** Dimensions that the model leaves open are those of the calibration inputs, and masks look like theirs. */
export function seenIn({
  ranges,
  samples,
}: {
  readonly ranges?: Ranges | undefined;
  readonly samples?: Samples | undefined;
}): Partial<Pick<DimensionOptions, 'shapes' | 'masks'>> {
  if (ranges !== undefined) {
    const masks = Object.entries(ranges.masks ?? {}).map(([name, values]) => [name, [values]] as const);
    return { shapes: ranges.shapes, masks: Object.fromEntries(masks) };
  }
  if (samples === undefined) return {};
  const masks = Object.fromEntries([...samples.inputs].map(([name, { data }]) => [name, data]));
  return { shapes: sampleShapes(samples), masks };
}

/**
 * Values of the module's input ports out of samples of the model's inputs. Errors: D110 (missing input), D111
 * (wrong size), F115, F302 (refused by the client part).
 */
export function sampleInputs(module: Module, samples: Samples): Record<string, Float64Array>[] {
  const client = clientOf(module);
  return Array.from({ length: samples.count }, (_, i) =>
    client.encode(
      Object.fromEntries(client.inputs.map((input) => [input.name, sampleValues(input, samples, i)])),
    ),
  );
}

function sampleValues({ name, shape }: ClientInput, samples: Samples, i: number): Float64Array {
  const input = samples.inputs.get(name);
  const names = [...samples.inputs.keys()].join(', ');
  if (input === undefined) {
    throw new AegisError({
      code: 'D110',
      message: `${samples.source} has no input "${name}", only ${names}`,
      help: 'name the arrays after the inputs of the model',
    });
  }
  const data = defined(input.data[i], 'sample');
  const size = shape.reduce((a, b) => a * b, 1);
  if (data.length === size) return data;
  throw new AegisError({
    code: 'D111',
    message: `input "${name}" has ${size} values but sample ${i} has ${data.length}`,
    help: 'give samples of the shape the model was imported at',
  });
}

/**
 * From SHA-256 in counter mode, the same everywhere: reals uniform in [-1, 1), rows of a table uniform, other
 * integers 1, as in a mask that leaves nothing out, and masks of other forms open.
 */
export function randomInputs(tensor: Module): Record<string, Float64Array>[] {
  const client = clientOf(tensor);
  return Array.from({ length: randomSamples }, (_, sample) =>
    client.encode(
      Object.fromEntries(
        client.inputs.map(({ name, shape, dtype, limit, open }) => {
          if (open !== undefined) return [name, open];
          const size = shape.reduce((a, b) => a * b, 1);
          const values = uniform(`${sample} ${name}`, size);
          if (/^(float|bfloat)/.test(dtype)) return [name, values];
          return [name, values.map((x) => (limit === undefined ? 1 : Math.floor(((x + 1) / 2) * limit)))];
        }),
      ),
    ),
  );
}

/** In [-1, 1). */
function uniform(seed: string, size: number): Float64Array {
  const words = Array.from({ length: Math.ceil(size / 8) }, (_, block) => {
    const digest = createHash('sha256').update(`${seed} ${block}`).digest();
    return Array.from({ length: 8 }, (_, i) => digest.readInt32LE(4 * i) / 2 ** 31);
  });
  return Float64Array.from(words.flat().slice(0, size));
}
