/**
 * Sample inputs for calibration and verification: `F.samples.json` (our own form, CONTRACT) or `.npz`, whose
 * arrays have the samples on their first axis; arrays called `logits` and `labels` are expected outputs
 * there.
 */
import { readFile, stat } from 'node:fs/promises';
import { AegisError, Diagnostics } from '../support/diagnostics.js';
import { defined } from '../support/invariant.js';
import { parseNpz } from './npz.js';
import { parseSamplesJson } from './samples-json.js';
import { elementCount, type Samples, type Tensor } from './types.js';

/** Half open: `0:16` is the first sixteen samples. */
export interface Take {
  readonly from: number;
  readonly to: number;
}

/** A string longer than this cannot be made by V8; samples of this size belong into an .npz. */
const maxJsonBytes = 2 ** 29 - 32;
const maxNpzBytes = 2 ** 31;

/** `a:b`, `a:` or `:b`, as Python slices with counts from the start. Error: D105. */
export function parseTake(text: string): Take {
  const match = /^(\d{0,9}):(\d{0,9})$/.exec(text);
  const from = Number(match?.[1] ?? '');
  const to = match?.[2] === '' ? Infinity : Number(match?.[2] ?? '');
  if (match === null || from >= to) {
    throw new AegisError({
      code: 'D105',
      message: `--take is ${JSON.stringify(text)}, expected first:end with first below end`,
      help: 'write --take 0:16 for the first sixteen samples',
    });
  }
  return { from, to };
}

export async function readSamples(path: string, take?: Take): Promise<Samples> {
  const kind = /\.(json|npz)$/i.exec(path)?.[1]?.toLowerCase();
  if (kind === undefined) {
    throw new AegisError({ code: 'D102', message: `${path} is neither .samples.json nor .npz` });
  }
  const bytes = await readDataFile(path, kind === 'json' ? maxJsonBytes : maxNpzBytes);
  const samples =
    kind === 'json'
      ? parseSamplesJson(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8'), path)
      : samplesOfArrays(parseNpz(bytes, path), path);
  return take === undefined ? samples : takeSamples(samples, take);
}

/** Named arrays of an .npz. */
export async function readNpz(path: string): Promise<Map<string, Tensor>> {
  return parseNpz(await readDataFile(path, maxNpzBytes), path);
}

/** Errors: D101 unreadable, D122 too large. */
async function readDataFile(path: string, maxBytes: number): Promise<Uint8Array> {
  try {
    const { size } = await stat(path);
    if (size > maxBytes) {
      throw new AegisError({ code: 'D122', message: `${path} has ${size} bytes, the limit is ${maxBytes}` });
    }
    return await readFile(path);
  } catch (error) {
    if (error instanceof AegisError) throw error;
    const reason = (error as NodeJS.ErrnoException).code ?? String(error);
    throw new AegisError({ code: 'D101', message: `${path} cannot be read: ${reason}` });
  }
}

export function takeSamples(samples: Samples, take: Take): Samples {
  if (take.from >= samples.count || (take.to !== Infinity && take.to > samples.count)) {
    throw new AegisError({
      code: 'D105',
      message:
        `--take ${take.from}:${take.to === Infinity ? '' : take.to} reaches past the `
        + `${samples.count} samples of ${samples.source}`,
    });
  }
  const { from, to } = take;
  return {
    ...samples,
    count: Math.min(to, samples.count) - from,
    inputs: new Map(
      [...samples.inputs].map(([name, input]) => [name, { ...input, data: input.data.slice(from, to) }]),
    ),
    logits: samples.logits?.slice(from, to) ?? null,
    labels: samples.labels?.slice(from, to) ?? null,
  };
}

/** Splits arrays along their first axis. Errors: D103 shapes that do not fit together. */
export function samplesOfArrays(arrays: ReadonlyMap<string, Tensor>, source: string): Samples {
  const diagnostics = new Diagnostics();
  const names = [...arrays.keys()].filter((name) => name !== 'logits' && name !== 'labels');
  const count = arrays.get(names[0] ?? '')?.shape[0] ?? 0;
  if (count < 1) diagnostics.report({ code: 'D103', message: `${source} holds no samples` });
  for (const [name, { shape }] of arrays) {
    if (shape[0] === count) continue;
    diagnostics.report({
      code: 'D103',
      message:
        `array ${JSON.stringify(name)} of ${source} has shape [${shape.join(', ')}], `
        + `expected ${count} samples on its first axis`,
    });
  }
  diagnostics.throwIfAny();
  const split = (tensor: Tensor): Float64Array[] => {
    const size = elementCount(tensor.shape.slice(1));
    return Array.from({ length: count }, (_, i) => tensor.data.slice(i * size, (i + 1) * size));
  };
  const logits = arrays.get('logits');
  const labels = arrays.get('labels');
  return {
    source,
    count,
    inputs: new Map(
      names.map((name) => {
        const tensor = defined(arrays.get(name), name);
        return [name, { dtype: tensor.dtype, shape: [1, ...tensor.shape.slice(1)], data: split(tensor) }];
      }),
    ),
    logits: logits === undefined ? null : split(logits),
    labels: labels === undefined ? null : split(labels).map((one) => defined(one[0], 'label')),
  };
}

/** One sample as named arrays, the form that `encrypt` takes and `.npz` files hold. */
export function sampleAt(samples: Samples, index: number): Map<string, Tensor> {
  return new Map(
    [...samples.inputs].map(([name, { dtype, shape, data }]) => [
      name,
      { dtype, shape, data: defined(data[index], `sample ${index} of ${name}`) },
    ]),
  );
}
