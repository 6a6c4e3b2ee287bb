/** Operators that join tokens: means, pooling, concatenation. */
import { AegisError } from '../../support/diagnostics.js';
import { defined } from '../../support/invariant.js';
import { affineIndex } from '../kernels/call.js';
import { reducedAxes } from '../kernels/reduce.js';
import { elementCount } from '../model.js';
import { contract } from './contract.js';
import type { Draft } from './drafts.js';
import type { Site } from './site.js';
import { composeIndex, indexOf, matrixShape, type Symbol, type View } from './symbols.js';

type Shape = readonly number[];

/** Mean (or sum) over tokens, or over the features of every token. */
export function reduce(site: Site, shape: Shape): Symbol {
  const view = site.view(0);
  const axes = (reducedAxes(site.call) ?? []).filter((d) => view.shape[d] !== 1);
  if (axes.length === 0) return { ...view, shape };
  const isSum = site.node.opType === 'ReduceSum';
  const terms = elementCount(axes.map((d) => view.shape[d] ?? 1));
  const scale = view.scale * (isSum ? terms : 1);
  const mean = meanOver(site, { ...view, scale: 1 }, axes, shape);
  return { ...mean, scale: mean.scale * scale };
}

/** The kept dimensions before `split` are tokens of the result, those behind it features. */
interface Arrangement {
  readonly view: View;
  readonly tokens: number;
  readonly columns: number;
}

function arrange(view: View, axes: readonly number[], split: number): Arrangement {
  const kept = view.shape.map((_, d) => d).filter((d) => !axes.includes(d));
  const strides = view.shape.map((_, d) => elementCount(view.shape.slice(d + 1)));
  const order = [...kept.slice(0, split), ...axes, ...kept.slice(split)];
  const size = (dims: readonly number[]) => elementCount(dims.map((d) => defined(view.shape[d], 'size')));
  const index = affineIndex(
    order.map((d) => defined(view.shape[d], 'size')),
    order.map((d) => defined(strides[d], 'stride')),
  );
  const [tokens, columns] = [size(kept.slice(0, split)), size(kept.slice(split))];
  const shape = [tokens * size(axes), columns];
  return { view: { ...view, index: composeIndex(index, view.index), shape }, tokens, columns };
}

function meanOver(site: Site, view: View, axes: readonly number[], shape: Shape): View {
  const terms = elementCount(axes.map((d) => view.shape[d] ?? 1));
  const features = featureMean(site, view, axes, terms);
  if (features !== undefined) return site.whole(features, shape);
  // What stands before the reduced dimensions is tokens, if that may be chosen.
  const natural = Math.min(...axes);
  const others = Array.from({ length: view.shape.length - axes.length + 1 }, (_, split) => split);
  const splits = [natural, ...others].map((split) => arrange(view, axes, split));
  const simple = splits.find((one) => site.isSimple(one.view, one.tokens * terms, one.columns));
  if (simple === undefined) return contractedMean(site, view, axes, shape);
  const { view: moved, tokens, columns } = simple;
  const x = site.matrix(moved, tokens * terms, columns);
  if (tokens === 1) {
    const mean = site.drafts.make('tensor.mean_tokens', [x], { rows: 1, columns, loc: site.loc });
    return site.whole(mean, shape);
  }
  const weight = new Float64Array(tokens * tokens * terms);
  for (let i = 0; i < tokens * terms; i++) weight[Math.floor(i / terms) * tokens * terms + i] = 1 / terms;
  return site.whole(site.drafts.mixTokens(x, weight, tokens, site.loc), shape);
}

/** The mean of a view in which the kept dimensions are neither all tokens nor all features. */
function contractedMean(site: Site, view: View, axes: readonly number[], shape: Shape): View {
  const { view: moved, tokens, columns } = arrange(view, axes, view.shape.length - axes.length);
  const terms = elementCount(moved.shape) / (tokens * columns);
  const weight = { shape: [1, terms], data: new Float64Array(terms).fill(1 / terms) };
  return contract(site, { ...moved, shape: [tokens * columns, terms] }, weight, undefined, shape);
}

/** The mean over the last dimensions, if they are features: a linear layer. */
function featureMean(site: Site, view: View, axes: readonly number[], terms: number): Draft | undefined {
  const first = view.shape.length - axes.length;
  if (Math.min(...axes) !== first) return undefined;
  const rows = elementCount(view.shape.slice(0, first));
  if (!site.isSimple(view, rows, terms)) return undefined;
  const weight = { shape: [1, terms], data: new Float64Array(terms).fill(1 / terms) };
  return site.drafts.linear(site.matrix(view, rows, terms), weight, undefined, site.loc);
}

export function globalAveragePool(site: Site, shape: Shape): Symbol {
  const view = site.view(0);
  const axes = view.shape.map((_, d) => d).filter((d) => d >= 2 && view.shape[d] !== 1);
  if (axes.length === 0) return { ...view, shape };
  const mean = meanOver(site, { ...view, scale: 1 }, axes, shape);
  return { ...mean, scale: mean.scale * view.scale };
}

/** Encrypted parts of one matrix side by side, features or tokens of several ones, and constants. */
export function concat(site: Site, shape: Shape): Symbol {
  const all = Array.from({ length: site.node.inputs.length }, (_, i) => i);
  // Some exports write an empty part: what a rotary embedding leaves as it is.
  const parts = all.filter((i) => elementCount(site.call.input(i).shape) > 0);
  const encrypted = parts.filter((i) => site.symbol(i) !== undefined);
  const axis = site.call.axis(site.call.int('axis', 0), shape.length);
  if (encrypted.length === parts.length) {
    const views = parts.map((i) => site.view(i));
    const whole = oneMatrix(site, views, axis, shape);
    if (whole !== undefined) return whole;
  }
  const [only] = encrypted;
  const plain = encrypted.length === 1 && elementCount(shape.slice(0, axis)) === 1;
  if (plain && only !== undefined && axis < shape.length - 1) return withConstants(site, only, parts, shape);
  return joined(site, parts, axis, shape);
}

function withConstants(site: Site, only: number, parts: readonly number[], shape: Shape): Symbol {
  const { columns } = matrixShape(shape);
  let draft = site.natural(site.view(only));
  const join = (list: readonly number[], before: boolean) => {
    const data = Float64Array.from(list.flatMap((i) => Array.from(site.constant(i))));
    if (data.length === 0) return;
    const tokens = data.length / columns;
    draft = site.drafts.make('tensor.concat_tokens', [draft], {
      attrs: { before, count: tokens },
      constants: { constant: { shape: [tokens, columns], data } },
      rows: draft.rows + tokens,
      columns,
      loc: site.loc,
    });
  };
  join(parts.slice(0, only), true);
  join(parts.slice(only + 1), false);
  return site.whole(draft, shape);
}

/** Where element i of a part goes in the concatenation. */
function places(part: Shape, axis: number, shape: Shape, offset: number): (i: number) => number {
  const row = elementCount(shape.slice(axis));
  const width = elementCount(part.slice(axis));
  return (i) => Math.floor(i / width) * row + offset + (i % width);
}

/** Parts of one matrix: only the index changes, and signs become factors of the matrix. */
function oneMatrix(site: Site, views: readonly View[], axis: number, shape: Shape): Symbol | undefined {
  const first = defined(views[0], 'first part');
  const { draft } = first;
  if (views.some((view) => view.draft !== draft)) return undefined;
  const scaled = views.some((view) => view.scale !== first.scale);
  if (scaled && draft.kind === 'input') return undefined;
  const index = new Int32Array(elementCount(shape));
  const factors = new Float64Array(draft.rows * draft.columns).fill(Number.NaN);
  let [offset, clash] = [0, false];
  for (const view of views) {
    const to = places(view.shape, axis, shape, offset);
    indexOf(view).forEach((from, i) => {
      index[to(i)] = from;
      if (from < 0) return;
      clash ||= !Number.isNaN(factors[from] as number) && factors[from] !== view.scale;
      factors[from] = view.scale;
    });
    offset += elementCount(view.shape.slice(axis));
  }
  if (!scaled) return { ...first, index, shape };
  if (clash) return undefined;
  const all = factors.map((factor) => (Number.isNaN(factor) ? 1 : factor));
  return { ...first, draft: site.drafts.mulConstant(draft, all, true, site.loc), index, scale: 1, shape };
}

/** Different matrices: as features beside each other along the last dimension, else as tokens. */
function joined(site: Site, parts: readonly number[], axis: number, shape: Shape): Symbol {
  const isFeatures = axis === shape.length - 1;
  const byFeatures = isFeatures ? tryFeatures(site, parts, axis, shape) : undefined;
  if (byFeatures !== undefined) return byFeatures;
  const { rows, columns } = matrixShape(shape);
  const constants = new Float64Array(rows * columns);
  let offset = 0;
  const terms: Draft[] = [];
  for (const i of parts) {
    const own = site.call.input(i).shape;
    const to = places(own, axis, shape, offset);
    offset += elementCount(own.slice(axis));
    if (site.symbol(i) === undefined) {
      site.constant(i).forEach((value, e) => (constants[to(e)] = value));
      continue;
    }
    const view = site.view(i);
    const index = new Int32Array(rows * columns).fill(-1);
    indexOf(view).forEach((from, e) => (index[to(e)] = from));
    terms.push(site.matrix({ ...view, index, shape: [rows, columns] }, rows, columns));
  }
  return site.whole(site.drafts.addConstant(site.total(terms), constants, false, site.loc), shape);
}

/** Every part as a matrix of its own, with as many tokens: their features follow each other. */
function tryFeatures(site: Site, parts: readonly number[], axis: number, shape: Shape): Symbol | undefined {
  const isZero = (i: number) =>
    site.symbol(i) === undefined && site.constant(i).every((value) => value === 0);
  if (parts.some((i) => site.symbol(i) === undefined && !isZero(i))) return undefined;
  const views: View[] = [];
  try {
    for (const i of parts) if (site.symbol(i) !== undefined) views.push(site.settle(site.view(i)));
  } catch (error) {
    if (error instanceof AegisError) return undefined;
    throw error;
  }
  const first = defined(views[0], 'first part');
  if (views.some((view) => view.draft.rows !== first.draft.rows || view.draft.kind === 'input')) {
    return undefined;
  }
  const width = views.reduce((sum, view) => sum + view.draft.columns, 0);
  const index = new Int32Array(elementCount(shape)).fill(-1);
  let [offset, column] = [0, 0];
  const terms = parts.flatMap((part) => {
    const view = site.symbol(part) === undefined ? undefined : views.shift();
    const partShape = site.call.input(part).shape;
    const to = places(partShape, axis, shape, offset);
    offset += elementCount(partShape.slice(axis));
    if (view === undefined) return [];
    const own = view.draft.columns;
    const start = column;
    indexOf(view).forEach((from, i) => {
      index[to(i)] = Math.floor(from / own) * width + start + (from % own);
    });
    column += own;
    const columns = Array.from({ length: own }, (_, i) => start + i);
    return [site.drafts.spreadFeatures(view.draft, columns, width, site.loc)];
  });
  return { ...first, draft: site.total(terms), index, shape };
}
