/** `F.samples.json` (CONTRACT). Errors: D103, all that are found, each with the place in the file. */
import { AegisError, Diagnostics } from '../support/diagnostics.js';
import { elementCount, type DType, type SampleInput, type Samples } from './types.js';

const dtypes: readonly DType[] = ['float32', 'float64', 'int64', 'int32', 'bool'];
const maxRank = 16;
/** A file damaged in one place often has the same mistake in every sample. */
const maxReports = 20;

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

export function parseSamplesJson(text: string, source: string): Samples {
  return new Reader(source).read(text);
}

class Reader {
  private readonly diagnostics = new Diagnostics();
  constructor(private readonly source: string) {}

  read(text: string): Samples {
    const root = this.parse(text);
    if (!isRecord(root) || !isRecord(root['inputs'])) {
      throw this.error('it has no object "inputs"');
    }
    const inputs = new Map<string, SampleInput>();
    for (const [name, value] of Object.entries(root['inputs'])) {
      const input = this.input(value, `inputs.${name}`);
      if (input !== undefined) inputs.set(name, input);
    }
    const count = [...inputs.values()][0]?.data.length ?? 0;
    if (count === 0) this.report('it holds no samples');
    for (const [name, input] of inputs) {
      if (input.data.length !== count) {
        this.report(`inputs.${name} has ${input.data.length} samples, other inputs have ${count}`);
      }
    }
    const logits =
      this.perSample(root['logits'], 'logits', count)?.map(
        (value, i) => this.flat(value, `logits[${i}]`) ?? new Float64Array(0),
      ) ?? null;
    const labels = this.perSample(root['labels'], 'labels', count)?.map((v, i) => this.label(v, i)) ?? null;
    this.diagnostics.throwIfAny();
    return { source: this.source, count, inputs, logits, labels };
  }

  private parse(text: string): Json {
    try {
      return JSON.parse(text) as Json;
    } catch (error) {
      throw this.error(`it is not JSON: ${(error as Error).message}`);
    }
  }

  private input(value: Json, where: string): SampleInput | undefined {
    if (!isRecord(value)) return this.report(`${where} is not an object`);
    const dtype = dtypes.find((known) => known === value['dtype']);
    if (dtype === undefined) {
      const given = JSON.stringify(value['dtype']);
      return this.report(`${where}.dtype is ${given}, expected ${dtypes.join(', ')}`);
    }
    const shape = value['shape'];
    if (!Array.isArray(shape) || shape.length > maxRank || !shape.every(isSize)) {
      return this.report(`${where}.shape is not a list of sizes`);
    }
    const sizes = shape as number[];
    const size = elementCount(sizes);
    const data = value['data'];
    if (!Array.isArray(data)) return this.report(`${where}.data is not a list of samples`);
    const values = data.map((one, i) => this.values(one, size, dtype, `${where}.data[${i}]`));
    return { dtype, shape: sizes, data: values };
  }

  private values(value: Json, size: number, dtype: DType, where: string): Float64Array {
    const flat = this.flat(value, where);
    if (flat === undefined) return new Float64Array(0);
    if (flat.length !== size) this.report(`${where} has ${flat.length} values, its shape needs ${size}`);
    const whole = dtype === 'int64' || dtype === 'int32';
    const bad = whole ? flat.findIndex((number) => !Number.isSafeInteger(number)) : -1;
    if (bad >= 0) this.report(`${where} holds ${flat[bad]}, which is not a whole number`);
    return flat;
  }

  /** Values may be nested lists; only the order counts. */
  private flat(value: Json, where: string): Float64Array | undefined {
    const numbers = Array.isArray(value) ? (value.flat(maxRank) as Json[]) : [value];
    const bad = numbers.findIndex((one) => typeof one !== 'boolean' && !Number.isFinite(one));
    if (bad >= 0) {
      return this.report(`${where} holds ${JSON.stringify(numbers[bad])?.slice(0, 40)}, expected a number`);
    }
    return Float64Array.from(numbers as number[], Number);
  }

  private perSample(value: Json | undefined, name: string, count: number): Json[] | undefined {
    if (value === null || value === undefined) return undefined;
    if (!Array.isArray(value)) return this.report(`${name} is neither a list nor null`);
    if (value.length !== count) {
      return this.report(`${name} has ${value.length} entries for ${count} samples`);
    }
    return value;
  }

  private label(value: Json, index: number): number {
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
    this.report(`labels[${index}] is ${JSON.stringify(value)?.slice(0, 40)}, expected a class number`);
    return 0;
  }

  private report(what: string): undefined {
    if (this.diagnostics.list.length < maxReports) {
      this.diagnostics.report({ code: 'D103', message: this.message(what) });
    }
  }

  private error(what: string): AegisError {
    return new AegisError({ code: 'D103', message: this.message(what) });
  }

  private message(what: string): string {
    return `${this.source}: ${what}`;
  }
}

function isRecord(value: Json | undefined): value is { [key: string]: Json } {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isSize(value: Json): boolean {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
