/**
 * Recognises padding masks by what they compute: the client's part of the graph is run on probe inputs, and a
 * mask that keeps or drops every key whatever the query and head is a key mask, however it was written.
 */
import { defined } from '../../support/invariant.js';
import type { GraphInput } from '../evaluate.js';
import { asNumbers, broadcastIndex } from '../kernels/call.js';
import { elementCount, isFloat, type Tensor } from '../model.js';
import type { ClientGraph } from './client-graph.js';

/** An additive mask is nothing for a kept key, and at most this for a dropped one. */
export const closedBelow = -1000;
/** Between the two, what the client tells them apart by. */
const threshold = -1;
/** Integers among the constants of a mask that may stand for padding. */
const maxPaddingIds = 8;

export type KeyMask =
  | { readonly kind: 'keys' | 'causal'; /** Client value [keys]: 1 for a kept key. */ readonly name: string }
  | { readonly kind: 'other'; readonly reason: string };

interface Probed {
  /** By probe and key. */
  readonly kept: readonly boolean[];
  readonly causal: boolean;
}

/** How the numbers of a mask are read; `keep`: what a boolean mask says of a kept key. */
export interface MaskForm {
  readonly shape: readonly number[];
  readonly keep: 0 | 1;
}

export class Masks {
  /** Masks of equal effect on all probes are one. */
  private readonly known = new Map<string, string>();
  /** Integer inputs that key masks are made from. */
  readonly sources = new Set<string>();

  constructor(
    private readonly client: ClientGraph,
    private readonly inputs: readonly GraphInput[],
  ) {}

  /** What the client value `name` does to scores of the form's shape, [.., queries, keys]. */
  keyMask(name: string, form: MaskForm): KeyMask {
    const keys = defined(form.shape.at(-1), 'keys');
    for (const values of this.probes(name, keys)) {
      const all = values.map((value) => classify(value, form));
      const reason = all.find((one) => typeof one === 'string');
      if (reason !== undefined) return { kind: 'other', reason };
      const probed = all.filter((one) => typeof one !== 'string');
      const kept = probed.flatMap((one) => one.kept);
      if (!kept.includes(false)) continue;
      const signature = kept.map(Number).join('');
      const column = this.known.get(signature) ?? this.column(name, form, keys);
      this.known.set(signature, column);
      this.client.inputsOf(name).forEach((input) => this.sources.add(input));
      return { kind: probed.some((one) => one.causal) ? 'causal' : 'keys', name: column };
    }
    return { kind: 'other', reason: 'drops no key on any probe' };
  }

  /** The key mask that the factors of `tokens` are, or the factors themselves. */
  merged(name: string, tokens: number): string {
    for (const values of this.probes(name, tokens)) {
      const factors = values.flatMap((value) => Array.from(asNumbers(value)));
      if (factors.some((factor) => factor !== 1)) return this.known.get(factors.join('')) ?? name;
    }
    return name;
  }

  /** Values on all patterns, for one integer after the other that may stand for padding. */
  private *probes(name: string, tokens: number): Generator<Tensor[]> {
    for (const padding of this.paddingIds(name)) {
      yield patterns(tokens).map((pattern) => this.client.evaluate(name, this.probe(pattern, padding)));
    }
  }

  /** Every integer input with 1 where the pattern keeps a token and the padding elsewhere. */
  private probe(pattern: readonly boolean[], padding: number): Map<string, Tensor> {
    const kept = padding === 1 ? 2 : 1;
    return new Map(
      this.inputs.map(({ name, dtype, shape }) => {
        const width = shape.at(-1) ?? 1;
        const values = Array.from({ length: elementCount(shape) }, (_, i) =>
          pattern[i % width] === true ? kept : padding,
        );
        const data =
          dtype === 'int64' || dtype === 'uint32'
            ? BigInt64Array.from(values, BigInt)
            : dtype === 'bool'
              ? Uint8Array.from(values, (value) => Number(value === kept))
              : Int32Array.from(values);
        return [name, { dtype, shape, data }];
      }),
    );
  }

  /** Zero, and integers that token ids may be compared with. */
  private paddingIds(name: string): number[] {
    const found = this.client.constantsOf(name).flatMap((known): number[] => {
      if (isFloat(known.dtype) || known.dtype === 'bool' || elementCount(known.shape) !== 1) return [];
      return Array.from(asNumbers(known), Number).filter((id) => id > 0 && id < 2 ** 24);
    });
    return [...new Set([0, ...found])].slice(0, maxPaddingIds);
  }

  /** The last query's row as ones and zeros: with a causal mask, it sees all keys that are kept. */
  private column(name: string, { keep }: MaskForm, keys: number): string {
    const { client } = this;
    const { dtype, shape } = client.known(name);
    const wide = shape.at(-1) === keys ? name : client.apply('Expand', [name, client.ints(keys)]);
    const rows = elementCount(client.known(wide).shape) / keys;
    const flat = client.reshape(wide, [rows, keys]);
    const row = client.apply('Gather', [flat, client.ints(rows - 1)], { axis: 0 });
    if (!isFloat(dtype)) {
      return client.float(keep === 1 ? row : client.apply('Not', [row]));
    }
    const limit = client.constant({ dtype, shape: [1], data: Float32Array.of(threshold) });
    return client.float(client.apply('Greater', [row, limit]));
  }
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

/** Which keys every query sees, or what is in the way. */
function classify(value: Tensor, { shape, keep }: MaskForm): Probed | string {
  const [queries, keys] = [shape.at(-2) ?? 1, shape.at(-1) ?? 1];
  const count = elementCount(shape);
  const spread = broadcastIndex(value.shape, shape);
  const numbers = asNumbers(value);
  const float = isFloat(value.dtype);
  const sees = new Uint8Array(count);
  for (let i = 0; i < count; i++) {
    const x = Number(numbers[spread === null ? i : (spread[i] as number)]);
    const open = float ? Math.abs(x) < 1e-6 : (x === 0 ? 0 : 1) === keep;
    if (float && !open && !(x <= closedBelow)) return `adds ${x} to a score`;
    sees[i] = open ? 1 : 0;
  }
  const kept = Array.from(sees.subarray(count - keys), (one) => one === 1);
  let [same, causal] = [true, true];
  for (let i = 0; i < count; i++) {
    const [query, key] = [Math.floor(i / keys) % queries, i % keys];
    const open = sees[i] === 1;
    same &&= open === kept[key];
    causal &&= open === (kept[key] === true && key <= query);
  }
  if (same) return { kept, causal: false };
  return causal ? { kept, causal } : 'depends on the query';
}
