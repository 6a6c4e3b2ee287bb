/**
 * Products of the last dimension of a view with a constant, however tokens and features lie in it: a linear
 * layer where a row reads one token, a mix of tokens where it reads one feature of several ones.
 */
import type { Constant } from '../../ir/module.js';
import { defined } from '../../support/invariant.js';
import { elementCount } from '../model.js';
import type { Draft } from './drafts.js';
import type { Site } from './site.js';
import { indexOf, matrixShape, type View } from './symbols.js';

/** Weights of a linear layer that is mostly zeros, and of a mix of tokens. */
const maxWeights = 2 ** 24;
/** Tokens of a mix beside those that it reads: more would be features that became tokens. */
const maxTokenGrowth = 4;
/** Features that one row may read of every token. */
const maxFeatures = 16;

/** view [.., K] times weight^T, weight [N, K]: the product [.., N] in the ONNX shape `shape`. */
export function contract(
  site: Site,
  view: View,
  weight: Constant,
  bias: Float64Array | undefined,
  shape: readonly number[],
): View {
  const { rows, columns } = matrixShape(view.shape);
  const own = { ...view, scale: 1 };
  const scaled = (product: View): View => ({ ...product, scale: product.scale * view.scale });
  if (bias === undefined && !site.isMatrix(view, rows, columns)) {
    const product =
      byFeatures(site, own, weight, shape)
      ?? bySums(site, own, weight, shape)
      ?? byTokens(site, own, weight, shape);
    if (product !== undefined) return scaled(product);
  }
  return site.whole(site.drafts.linear(site.matrix(view, rows, columns), weight, bias, site.loc), shape);
}

/** Index of every different key, in order of appearance. */
class Numbering {
  readonly keys = new Map<string, number>();
  of(key: string): number {
    const known = this.keys.get(key) ?? this.keys.size;
    this.keys.set(key, known);
    return known;
  }
}

/** Every row reads one token: rows that read the same features share a block of the weight. */
function byFeatures(site: Site, view: View, weight: Constant, shape: readonly number[]): View | undefined {
  const { draft } = view;
  const { rows, columns } = matrixShape(view.shape);
  const index = indexOf(view);
  const outputs = defined(weight.shape[0], 'outputs');
  const patterns = new Numbering();
  const features: Int32Array[] = [];
  const place = new Int32Array(rows);
  const tokens = new Int32Array(rows);
  for (let r = 0; r < rows; r++) {
    const own = index.subarray(r * columns, (r + 1) * columns);
    const read = [...new Set(own.filter((i) => i >= 0).map((i) => Math.floor(i / draft.columns)))];
    if (read.length > 1) return undefined;
    tokens[r] = read[0] ?? 0;
    const pattern = own.map((i) => (i < 0 ? -1 : i % draft.columns));
    place[r] = patterns.of(pattern.join());
    features[place[r] as number] ??= pattern;
  }
  const width = features.length * outputs;
  if (width * draft.columns > maxWeights) return undefined;
  const data = new Float64Array(width * draft.columns);
  features.forEach((pattern, p) => {
    for (let n = 0; n < outputs; n++) {
      const row = data.subarray((p * outputs + n) * draft.columns, (p * outputs + n + 1) * draft.columns);
      pattern.forEach((f, k) => {
        if (f >= 0) row[f] = (row[f] as number) + (weight.data[n * columns + k] as number);
      });
    }
  });
  const product = site.drafts.linear(draft, { shape: [width, draft.columns], data }, undefined, site.loc);
  const order = Int32Array.from({ length: rows * outputs }, (_, i) => {
    const row = Math.floor(i / outputs);
    return (tokens[row] as number) * width + (place[row] as number) * outputs + (i % outputs);
  });
  return { kind: 'view', draft: product, index: order, scale: 1, shape };
}

/** One weight for all elements of a row, which are some features of some tokens. */
function bySums(site: Site, view: View, weight: Constant, shape: readonly number[]): View | undefined {
  const { draft } = view;
  const { rows, columns } = matrixShape(view.shape);
  const index = indexOf(view);
  const [factor = 0] = weight.data;
  const isSum = weight.shape[0] === 1 && weight.data.every((w) => w === factor);
  if (!isSum || draft.kind === 'input' || index.some((i) => i < 0)) return undefined;
  const [featureSets, tokenSets] = [new Numbering(), new Numbering()];
  const places = new Int32Array(2 * rows);
  for (let r = 0; r < rows; r++) {
    const own = index.subarray(r * columns, (r + 1) * columns);
    const features = [...new Set(own.map((i) => i % draft.columns))].sort((a, b) => a - b);
    const tokens = [...new Set(own.map((i) => Math.floor(i / draft.columns)))].sort((a, b) => a - b);
    if (features.length * tokens.length !== columns || new Set(own).size !== columns) return undefined;
    places[2 * r] = tokenSets.of(tokens.join());
    places[2 * r + 1] = featureSets.of(features.join());
  }
  const ones = (sets: Numbering, width: number, value: number): Float64Array => {
    const data = new Float64Array(sets.keys.size * width);
    for (const [key, at] of sets.keys) for (const i of key.split(',')) data[at * width + Number(i)] = value;
    return data;
  };
  const [height, width] = [tokenSets.keys.size, featureSets.keys.size];
  if (height * draft.rows > maxWeights || width * draft.columns > maxWeights) return undefined;
  const summed = { shape: [width, draft.columns], data: ones(featureSets, draft.columns, factor) };
  const features = site.drafts.linear(draft, summed, undefined, site.loc);
  const sums = site.drafts.mixTokens(features, ones(tokenSets, draft.rows, 1), height, site.loc);
  const order = Int32Array.from({ length: rows }, (_, r) => {
    return (places[2 * r] as number) * width + (places[2 * r + 1] as number);
  });
  return { kind: 'view', draft: sums, index: order, scale: 1, shape };
}

interface Row {
  /** Index into the classes of rows that read the same tokens. */
  readonly group: number;
  /** Position in its class: the feature of the result. */
  readonly at: number;
}

/**
 * Columns of the view fall into groups that read one feature in every row, of other tokens each; rows that
 * read the same tokens are features of the result beside each other.
 */
function byTokens(site: Site, view: View, weight: Constant, shape: readonly number[]): View | undefined {
  const { draft } = view;
  const { rows, columns } = matrixShape(view.shape);
  const index = indexOf(view);
  const outputs = defined(weight.shape[0], 'outputs');
  if (draft.kind === 'input' || index.some((i) => i < 0)) return undefined;
  const feature = (r: number, k: number) => (index[r * columns + k] as number) % draft.columns;
  const token = (r: number, k: number) => Math.floor((index[r * columns + k] as number) / draft.columns);
  const all = Array.from({ length: columns }, (_, k) => k);
  const groups = columnGroups(all, rows, feature);
  if (groups.length > maxFeatures) return undefined;
  const classes = new Numbering();
  const sizes: number[] = [];
  const first: number[] = [];
  const placed = Array.from({ length: rows }, (_, r): Row => {
    const group = classes.of(all.map((k) => token(r, k)).join());
    first[group] ??= r;
    sizes[group] = (sizes[group] ?? 0) + 1;
    return { group, at: (sizes[group] ?? 1) - 1 };
  });
  const width = sizes[0] ?? 0;
  // More results than tokens lie in blocks of features beside each other.
  const own = draft.rows / classes.keys.size;
  const blocks = outputs > own && Number.isInteger(outputs / own) ? outputs / own : 1;
  const each = outputs / blocks;
  const count = classes.keys.size * each;
  const many = outputs * classes.keys.size > maxTokenGrowth * draft.rows;
  if (many || sizes.some((size) => size !== width) || count * draft.rows > maxWeights) return undefined;
  const terms: Draft[] = [];
  for (const group of groups) {
    const lead = defined(group[0], 'column');
    const features = new Int32Array(width).fill(-1);
    for (let r = 0; r < rows; r++) {
      const { at } = defined(placed[r], 'row');
      if (features[at] !== -1 && features[at] !== feature(r, lead)) return undefined;
      features[at] = feature(r, lead);
    }
    const source = site.drafts.selectFeatures(draft, features, site.loc);
    for (let block = 0; block < blocks; block++) {
      const data = new Float64Array(count * draft.rows);
      first.forEach((r, item) => {
        for (let n = 0; n < each; n++) {
          for (const k of group) {
            const to = (item * each + n) * draft.rows + token(r, k);
            data[to] = (data[to] as number) + (weight.data[(block * each + n) * columns + k] as number);
          }
        }
      });
      const place = Array.from({ length: width }, (_, f) => block * width + f);
      const spread = site.drafts.spreadFeatures(source, place, blocks * width, site.loc);
      terms.push(site.drafts.mixTokens(spread, data, count, site.loc));
    }
  }
  const order = Int32Array.from({ length: elementCount(shape) }, (_, i) => {
    const { group, at } = defined(placed[Math.floor(i / outputs)], 'row');
    const [block, n] = [Math.floor((i % outputs) / each), i % each];
    return (group * each + n) * blocks * width + block * width + at;
  });
  return { kind: 'view', draft: site.total(terms), index: order, scale: 1, shape };
}

/** Columns by the features that they read in all rows. */
function columnGroups(
  columns: readonly number[],
  rows: number,
  feature: (row: number, column: number) => number,
): number[][] {
  const numbering = new Numbering();
  const groups: number[][] = [];
  for (const k of columns) {
    const key = Array.from({ length: rows }, (_, r) => feature(r, k)).join();
    const group = numbering.of(key);
    (groups[group] ??= []).push(k);
  }
  return groups;
}
