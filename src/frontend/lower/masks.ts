/**
 * Recognises padding masks by what they compute: the client's part of the graph is run on probe inputs, and a
 * mask that keeps or drops every key whatever the query and head is a key mask, however it was written. It
 * may be the product with a constant one, as in causal attention.
 */
import type { Constant } from '../../ir/module.js';
import { defined } from '../../support/invariant.js';
import type { GraphInput } from '../evaluate.js';
import { asNumbers, broadcastIndex } from '../kernels/call.js';
import { elementCount, isFloat, type Tensor } from '../model.js';
import type { ClientGraph } from './client-graph.js';
import { closedBelow, formTolerance, MaskProbes, type MaskSamples } from './mask-probes.js';

/** Between the two, what the client tells them apart by. */
const threshold = -1;
/** The same beside position biases, none of which is below half of it. */
const biasedThreshold = -500;
/** A bias that the client compares with that of its request. */
const maxComparedBias = 2 ** 20;

export type KeyMask =
  | {
      readonly kind: 'keys';
      /** Client value [items * keys]: 1 for a kept key. */
      readonly name: string;
      /** [queries, keys]: 1 where a query sees a key that is kept, if there are others. */
      readonly constant: Uint8Array | undefined;
      /** Of the form's shape: what is added to the scores of kept keys, if anything. */
      readonly bias: Float64Array | undefined;
    }
  | { readonly kind: 'other'; readonly reason: string };

/** How the numbers of a mask are read; `keep`: what a boolean mask says of a kept key. */
export interface MaskForm {
  /** Of the scores: [.., queries, keys], items of a batch outermost. */
  readonly shape: readonly number[];
  readonly items: number;
  readonly keys: number;
  readonly keep: 0 | 1;
}

export class Masks {
  /** Masks of equal effect on all probes are one. */
  private readonly known = new Map<string, string>();
  /** Integer inputs that key masks are made from. */
  readonly sources = new Set<string>();
  /** Client values that have to be 1, by what they stand for. */
  readonly conditions = new Map<string, string>();

  /** Inputs that are masks themselves, with values that drop nothing. */
  readonly open = new Map<string, Tensor>();
  private readonly probes: MaskProbes;

  constructor(
    private readonly client: ClientGraph,
    private readonly inputs: readonly GraphInput[],
    samples: MaskSamples,
  ) {
    this.probes = new MaskProbes(client, inputs, samples);
  }

  /**
   * What the client value `name` does to scores of the form's shape. Where position biases follow the kept
   * tokens, requests are to keep tokens without holes.
   */
  keyMask(name: string, form: MaskForm): KeyMask {
    const isFree = this.probes.freeInputs(name).length > 0;
    const all = this.probedMask(name, form, true);
    if (all.kind === 'keys' && isFree) this.requireForm(name, form, all);
    if (all.kind === 'keys' || isFree || !isFloat(this.client.known(name).dtype)) return all;
    const whole = this.probedMask(name, form, false);
    const comparable = elementCount(form.shape) <= maxComparedBias;
    if (whole.kind !== 'keys' || whole.bias === undefined || !comparable) return all;
    this.requireBias(name, form, whole.bias);
    return whole;
  }

  private probedMask(name: string, form: MaskForm, holes: boolean): KeyMask {
    let reason = 'keeps all keys on all probes, or drops some on all';
    const isFree = this.probes.freeInputs(name).length > 0;
    for (const { values, open } of this.probes.sets(name, form.items, form.keys, holes)) {
      const found = this.readProbes(name, form, values);
      if (typeof found === 'string') {
        reason = found;
        if (isFree) continue;
        break;
      }
      if (found === undefined) continue;
      this.client.inputsOf(name).forEach((input) => this.sources.add(input));
      open.forEach((tensor, input) => this.open.set(input, tensor));
      return found;
    }
    return { kind: 'other', reason };
  }

  /** The mask that explains its values on all probes; a string says why there is none. */
  private readProbes(
    name: string,
    form: MaskForm,
    values: readonly Tensor[],
  ): Extract<KeyMask, { kind: 'keys' }> | string | undefined {
    const [first] = values;
    const bias = first === undefined ? undefined : biasOf(first, form);
    const all = values.map((value) => openScores(value, form, bias));
    const reason = all.find((one) => typeof one === 'string');
    if (reason !== undefined) return reason;
    const probed = separate(
      all.filter((one) => typeof one !== 'string'),
      form,
    );
    if (typeof probed === 'string') return probed;
    const { kept, constant, byLast } = probed;
    if (!kept.includes(0) || kept.slice(0, form.items * form.keys).includes(0)) return undefined;
    const signature = this.signature(name, kept);
    const limit = bias === undefined ? threshold : biasedThreshold;
    const column = this.known.get(signature) ?? this.column(name, form, { byLast, limit });
    this.known.set(signature, column);
    return { kind: 'keys', name: column, constant: constant.includes(0) ? constant : undefined, bias };
  }

  /** Masks of other inputs are other masks, whatever they do on equal probes. */
  private signature(name: string, kept: readonly number[]): string {
    return `${this.client.inputsOf(name).sort().join()} ${kept.join('')}`;
  }

  /**
   * A mask that is an input itself may be anything: the client is to refuse requests in which it is not the
   * product that was compiled.
   */
  private requireForm(
    name: string,
    { shape, items, keys, keep }: MaskForm,
    { name: column, constant, bias }: Extract<KeyMask, { kind: 'keys' }>,
  ): void {
    const { client } = this;
    const { dtype, shape: own } = client.known(name);
    const queries = shape.at(-2) ?? 1;
    const floats = (data: Float32Array, dims: readonly number[]) =>
      client.constant({ dtype: 'float32', shape: dims, data });
    const number = (value: number) => floats(Float32Array.of(value), [1]);
    // Heads with one mask are compared once.
    const heads = own.length === shape.length ? own[1] : 1;
    const narrow =
      shape.length === 4 && bias === undefined ? [shape[0] ?? 1, heads ?? 1, queries, keys] : shape;
    const lead = elementCount(narrow) / (items * queries * keys);
    const full = [items, lead, queries, keys];
    const wide = client.reshape(client.apply('Expand', [name, client.ints(...narrow)]), full);
    const kept = client.reshape(column, [items, 1, 1, keys]);
    const known = constant === undefined ? undefined : Float32Array.from(constant);
    const seen = known === undefined ? kept : client.apply('Mul', [kept, floats(known, [queries, keys])]);
    const expected = client.apply('Cast', [seen], { to: 9 });
    let sound: string;
    if (isFloat(dtype)) {
      const value = client.float(wide);
      const rest =
        bias === undefined ? value : client.apply('Sub', [value, floats(Float32Array.from(bias), full)]);
      const limit = number(bias === undefined ? formTolerance : biasTolerance);
      const isOpen = client.apply('Less', [client.apply('Abs', [rest]), limit]);
      const isClosed = client.apply('Less', [value, number(biasedThreshold)]);
      const open = client.apply('And', [expected, isOpen]);
      sound = client.apply('Or', [open, client.apply('And', [client.apply('Not', [expected]), isClosed])]);
    } else {
      const chosen = client.apply('Cast', [wide], { to: 9 });
      const closed = client.apply('Xor', [expected, chosen]);
      sound = keep === 1 ? client.apply('Not', [closed]) : closed;
    }
    const every = { axes: [0, 1, 2, 3], keepdims: 0 };
    const result = client.reshape(client.apply('ReduceMin', [client.float(sound)], every), [1]);
    const what = constant === undefined && bias === undefined ? '' : ', beside what the samples show';
    this.require(`the attention mask keeps or drops keys for all queries alike${what}`, result);
  }

  private require(what: string, result: string): void {
    if ([...this.conditions.values()].includes(result)) return;
    const number = this.conditions.size === 0 ? '' : ` (${this.conditions.size + 1})`;
    this.conditions.set(`${what}${number}`, result);
  }

  /** The client is to refuse requests with other biases of kept keys, but for a number for each query. */
  private requireBias(name: string, { shape }: MaskForm, bias: Float64Array): void {
    const { client } = this;
    const number = (value: number) =>
      client.constant({ dtype: 'float32', shape: [1], data: Float32Array.of(value) });
    const wide = client.apply('Expand', [client.float(name), client.ints(...shape)]);
    const known = client.constant({ dtype: 'float32', shape, data: Float32Array.from(bias) });
    const difference = client.apply('Sub', [wide, known]);
    const axes = { axes: [shape.length - 1], keepdims: 1 };
    const below = client.apply('Sub', [difference, client.apply('ReduceMax', [difference], axes)]);
    const closed = client.apply('Less', [below, number(biasedThreshold)]);
    const same = client.apply('Greater', [below, number(-biasTolerance)]);
    const sound = client.float(client.apply('Or', [closed, same]));
    const every = { axes: shape.map((_, d) => d), keepdims: 0 };
    const result = client.reshape(client.apply('ReduceMin', [sound], every), [1]);
    this.require('position biases: kept tokens have no holes', result);
  }

  /**
   * The client is to refuse requests in which a query sees no key. `name`: a key mask of all items' keys;
   * `keep`: a constant mask of all items' queries and keys.
   */
  requireKeys(name: string, keep: Constant): void {
    const { client } = this;
    const [queries = 1, keys = 1] = keep.shape;
    const column = client.reshape(name, [keys]);
    const first = keysOfFirst(keep);
    let seen: string;
    if (first === undefined) {
      const constant = client.constant({
        dtype: 'float32',
        shape: [queries, keys],
        data: Float32Array.from(keep.data),
      });
      seen = client.apply('ReduceMax', [client.apply('Mul', [constant, column])], { axes: [1], keepdims: 0 });
    } else seen = client.apply('Gather', [column, client.ints(...first)], { axis: 0 });
    const what = first === undefined ? 'every query sees a key' : 'the first token is not padding';
    this.require(`masked attention: ${what}`, seen);
  }

  /** The key mask that factors of tokens are, or the factors themselves. */
  merged(name: string): string {
    const [first] = this.client.inputsOf(name);
    const shape = this.inputs.find((input) => input.name === first)?.shape ?? [];
    const isFree = this.probes.freeInputs(name).length > 0;
    for (const { values } of this.probes.sets(name, shape[0] ?? 1, shape.at(-1) ?? 1, true)) {
      const factors = values.flatMap((value) => Array.from(asNumbers(value), Number));
      if (factors.every((factor) => factor === 1)) continue;
      const known = this.known.get(this.signature(name, factors));
      if (known !== undefined && isFree) this.requireEqual(name, known);
      if (known !== undefined || !isFree) return known ?? name;
    }
    return name;
  }

  private requireEqual(name: string, column: string): void {
    const { client } = this;
    const same = client.float(client.near(client.float(name), column, formTolerance));
    this.require('factors of tokens are those of the attention mask', same);
  }

  /** Kept keys of all items as ones and zeros: what the last query sees, or any query of the item. */
  private column(
    name: string,
    { shape, keep, items, keys }: MaskForm,
    { byLast, limit: least }: { readonly byLast: boolean; readonly limit: number },
  ): string {
    const { client } = this;
    const { dtype } = client.known(name);
    const own = items === 1 ? [keys] : shape.length === 4 ? [items, 1, 1, keys] : shape;
    const wide = client.apply('Expand', [name, client.ints(...own)]);
    const rows = elementCount(client.known(wide).shape) / keys;
    const limit = client.constant({ dtype, shape: [1], data: Float32Array.of(least) });
    const open = !isFloat(dtype)
      ? client.float(keep === 1 ? wide : client.apply('Not', [wide]))
      : client.float(client.apply('Greater', [wide, limit]));
    const flat = client.reshape(open, [items, rows / items, keys]);
    const each = byLast
      ? client.apply('Gather', [flat, client.ints(rows / items - 1)], { axis: 1 })
      : client.apply('ReduceMax', [flat], { axes: [1], keepdims: 0 });
    return client.reshape(each, [items * keys]);
  }
}

/** The first key of every query's item, if all queries see it. */
function keysOfFirst({ shape, data }: Constant): number[] | undefined {
  const [queries = 1, keys = 1] = shape;
  const first = Array.from({ length: queries }, (_, q) => {
    return data.subarray(q * keys, (q + 1) * keys).findIndex((one) => one !== 0);
  });
  const own = [...new Set(first)];
  const items = own.length;
  const isStart = own.every((key, i) => key === (i * keys) / items);
  return isStart && first.every((key, q) => key === own[Math.floor((q * items) / queries)]) ? own : undefined;
}

/** Largest difference of biases that count as equal. */
const biasTolerance = 1e-3;

/** What the mask adds to scores when it keeps all tokens; undefined if that is nothing, or too much. */
function biasOf(value: Tensor, { shape }: MaskForm): Float64Array | undefined {
  if (!isFloat(value.dtype)) return undefined;
  const spread = broadcastIndex(value.shape, shape);
  const numbers = asNumbers(value);
  const bias = new Float64Array(elementCount(shape));
  for (let i = 0; i < bias.length; i++) {
    const x = Number(numbers[spread === null ? i : (spread[i] as number)]);
    bias[i] = x <= closedBelow ? 0 : x;
  }
  const small = bias.every((x) => Math.abs(x) < 1e-6);
  return small || bias.some((x) => !(Math.abs(x) < -biasedThreshold / 2)) ? undefined : bias;
}

/**
 * 1 for every score that the mask leaves as it is, but for the bias and one number for all kept keys of a
 * query; or what is in the way.
 */
function openScores(
  value: Tensor,
  { shape, keep, keys }: MaskForm,
  bias: Float64Array | undefined,
): Uint8Array | string {
  const spread = broadcastIndex(value.shape, shape);
  const numbers = asNumbers(value);
  const float = isFloat(value.dtype);
  const sees = new Uint8Array(elementCount(shape));
  const row = new Float64Array(keys);
  for (let first = 0; first < sees.length; first += keys) {
    for (let k = 0; k < keys; k++) {
      const at = first + k;
      row[k] = Number(numbers[spread === null ? at : (spread[at] as number)]) - (bias?.[at] ?? 0);
    }
    const top = row.reduce((a, x) => Math.max(a, x), -Infinity);
    const shift = bias !== undefined && top > biasedThreshold / 2 && Number.isFinite(top) ? top : 0;
    for (let k = 0; k < keys; k++) {
      const x = (row[k] as number) - shift;
      const open = float
        ? Math.abs(x) < (bias === undefined ? 1e-6 : biasTolerance)
        : (x === 0 ? 0 : 1) === keep;
      if (float && !open && !(x <= closedBelow)) return `adds ${x} to a score`;
      sees[first + k] = open ? 1 : 0;
    }
  }
  return sees;
}

interface Separated {
  /** By probe, item and key. */
  readonly kept: readonly number[];
  readonly constant: Uint8Array;
  /** The last query shows which keys are kept; else all queries together do. */
  readonly byLast: boolean;
}

/**
 * Masks of all probes, the first of which keeps all tokens, as one constant [queries, keys] times kept keys.
 * Queries that see no key are left out: requests with such are refused.
 */
function separate(probes: readonly Uint8Array[], { shape, items, keys }: MaskForm): Separated | string {
  const area = (shape.at(-2) ?? 1) * keys;
  const constant = defined(probes[0], 'probe').slice(0, area);
  const byLast = !constant.subarray(area - keys).includes(0);
  const all: number[] = [];
  for (const sees of probes) {
    const size = sees.length / items;
    for (let start = 0; start < sees.length; start += size) {
      const item = sees.subarray(start, start + size);
      const kept = new Uint8Array(keys);
      for (let i = byLast ? size - keys : 0; i < size; i++)
        kept[i % keys] = Math.max(kept[i % keys] as number, item[i] as number);
      all.push(...kept);
      for (let row = 0; row < size; row += keys) {
        const first = row % area;
        const wanted = kept.map((one, key) => one * (constant[first + key] as number));
        if (wanted.includes(1) && wanted.some((one, key) => one !== item[row + key])) {
          return 'depends on the query and the request at once';
        }
      }
    }
  }
  return { kept: all, constant, byLast };
}
