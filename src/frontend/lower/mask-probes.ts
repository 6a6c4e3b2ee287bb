/**
 * Inputs to try masks on. Integer inputs of rank 1 or 2 are token ids or masks, 0 or an integer of the model
 * where a token is padding. Float inputs, and others of higher rank, are masks themselves: what they look
 * like where a query sees a key is a choice of the exporter, so all choices are tried.
 */
import { asNumbers } from '../kernels/call.js';
import type { GraphInput } from '../evaluate.js';
import { containerOf, elementCount, isFloat, type Tensor } from '../model.js';
import type { ClientGraph } from './client-graph.js';

/** An additive mask is nothing for a kept key, and at most this for a dropped one. */
export const closedBelow = -1000;
/** Of what an open mask adds to scores. */
export const formTolerance = 1e-6;
/** Integers among the constants of a mask that may stand for padding. */
const maxPaddingIds = 8;

/** Values of an input by its name: those that samples have. */
export type MaskSamples = Readonly<Record<string, readonly ArrayLike<number>[]>>;

interface Scheme {
  readonly kept: number;
  readonly dropped: number;
  readonly isOpen: (value: number) => boolean;
}

const additive: Scheme = { kept: 0, dropped: 10 * closedBelow, isOpen: (value) => value > closedBelow };
const keeping: Scheme = { kept: 1, dropped: 0, isOpen: (value) => value !== 0 };
const dropping: Scheme = { kept: 0, dropped: 1, isOpen: (value) => value === 0 };

export interface ProbeSet {
  /** The mask on every pattern. */
  readonly values: readonly Tensor[];
  /** Of inputs that are masks, by name: what they are where all tokens are kept. */
  readonly open: ReadonlyMap<string, Tensor>;
}

export class MaskProbes {
  constructor(
    private readonly client: ClientGraph,
    private readonly inputs: readonly GraphInput[],
    private readonly samples: MaskSamples,
  ) {}

  /** Inputs that are masks themselves and may be more than 0 or 1 for each key, among those of a value. */
  freeInputs(name: string): GraphInput[] {
    const read = this.client.inputsOf(name);
    return this.inputs.filter((input) => read.includes(input.name) && isFree(input));
  }

  /** Values on all patterns, for one integer after the other that may stand for padding. */
  *sets(name: string, items: number, tokens: number, holes: boolean): Generator<ProbeSet> {
    const all = patterns(tokens).slice(0, holes ? undefined : -1);
    const free = this.freeInputs(name);
    for (const scheme of free.length === 0 ? [keeping] : [additive, keeping, dropping]) {
      for (const padding of this.paddingIds(name)) {
        const given = all.map((_, first) => this.probe(all, items, { first, padding, scheme }));
        const values = given.map((inputs) => this.client.evaluate(name, inputs));
        const open = free.flatMap((input): [string, Tensor][] => {
          const tensor = given[0]?.get(input.name);
          return tensor === undefined ? [] : [[input.name, tensor]];
        });
        yield { values, open: new Map(open) };
      }
    }
  }

  /**
   * Every integer input with 1 where a pattern keeps a token and the padding elsewhere; items of a batch have
   * the patterns one after the other, except that the first one keeps all tokens of all items.
   */
  private probe(
    all: readonly boolean[][],
    items: number,
    { first, padding, scheme }: { first: number; padding: number; scheme: Scheme },
  ): Map<string, Tensor> {
    const kept = padding === 1 ? 2 : 1;
    return new Map(
      this.inputs.map((input) => {
        const { name, dtype, shape } = input;
        const count = elementCount(shape);
        const width = shape.at(-1) ?? 1;
        const free = isFree(input);
        const itemSize = !free ? width : shape[0] === items ? count / items : count;
        const base = free ? this.base(input, itemSize, isFloat(dtype) ? scheme : keeping) : undefined;
        const data = containerOf(dtype, count);
        for (let i = 0; i < count; i++) {
          const item = Math.floor(i / itemSize);
          const pattern = all[first === 0 ? 0 : 1 + ((first - 1 + item) % (all.length - 1))];
          const isKept = pattern?.[i % width] === true;
          const own = dtype === 'bool' ? Number(isKept) : isKept ? kept : padding;
          const value = base === undefined ? own : isKept ? (base.values[i] as number) : base.dropped;
          if (data instanceof BigInt64Array) data[i] = BigInt(value);
          else data[i] = value;
        }
        return [name, { dtype, shape, data }];
      }),
    );
  }

  /**
   * The mask with no token dropped. Samples show what it closes besides, if that depends on the query; keys
   * that they drop for all queries are padding.
   */
  private base(
    input: GraphInput,
    itemSize: number,
    scheme: Scheme,
  ): { values: Float64Array; dropped: number } {
    const { kept, dropped, isOpen } = scheme;
    const count = elementCount(input.shape);
    const width = input.shape.at(-1) ?? 1;
    const samples = (this.samples[input.name] ?? []).filter(({ length }) => length === count);
    const values = new Float64Array(count).fill(kept);
    if (samples.length === 0 || itemSize === width) return { values, dropped };
    const shown = values.map((_, i) => {
      const open = samples.find((sample) => isOpen(sample[i] as number));
      return open?.[i] ?? dropped;
    });
    const alike = shown.every((value, i) => {
      return isOpen(value) === isOpen(shown[i - (i % itemSize) + (i % width)] as number);
    });
    return { values: alike ? shown.map((value) => (isOpen(value) ? value : kept)) : shown, dropped };
  }

  /** Zero, and integers that token ids may be compared with. */
  private paddingIds(name: string): number[] {
    const found = this.client.constantsOf(name).flatMap((known): number[] => {
      if (isFloat(known.dtype) || known.dtype === 'bool' || elementCount(known.shape) !== 1) return [];
      return Array.from(asNumbers(known), Number).filter((id) => id > 0 && id < 2 ** 24);
    });
    return [...new Set([0, ...found])].slice(0, maxPaddingIds);
  }
}

/** May have more than one of two values for each token. */
export function isFree({ dtype, shape }: Pick<GraphInput, 'dtype' | 'shape'>): boolean {
  return isFloat(dtype) || shape.length > 2;
}

/** All tokens, prefixes, a suffix, and one with holes. */
function patterns(keys: number): boolean[][] {
  const row = (keeps: (i: number) => boolean) => Array.from({ length: keys }, (_, i) => keeps(i));
  const half = Math.ceil(keys / 2);
  return [
    row(() => true),
    row((i) => i < half),
    row((i) => i === 0),
    row((i) => i >= keys - half),
    row((i) => i === 0 || (i * 7 + 3) % 5 < 2),
  ];
}
