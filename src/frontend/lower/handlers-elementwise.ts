/** Elementwise operators and normalisations on views. */
import { broadcastIndex } from '../kernels/call.js';
import { elementCount } from '../model.js';
import { AegisError } from '../../support/diagnostics.js';
import type { Cluster } from './clusters.js';
import type { DraftKind } from './drafts.js';
import { maskedScores, scaleScores, selectedScores } from './handlers-attention.js';
import { maxViewElements, type Site } from './site.js';
import {
  composeIndex,
  indexOf,
  isBijective,
  sameIndex,
  type Client,
  type Symbol,
  type View,
} from './symbols.js';

type Shape = readonly number[];
type PairKind = 'tensor.add' | 'tensor.sub' | 'tensor.mul';

/** A function of every element keeps the view, since it commutes with data movement. */
export function unary(
  site: Site,
  kind: DraftKind,
  attrs: Readonly<Record<string, string | number>> = {},
): Symbol {
  const view = site.settle(site.view(0));
  return { ...view, draft: site.drafts.pointwise(kind, [view.draft], site.loc, attrs) };
}

/** A smaller operand repeated to the result's shape. */
function stretched(site: Site, view: View, shape: Shape): View {
  if (elementCount(view.shape) === elementCount(shape)) return { ...view, shape };
  if (elementCount(shape) > maxViewElements) return site.fail('a broadcast of too many elements', 'F102');
  return { ...view, shape, index: composeIndex(broadcastIndex(view.shape, shape), view.index) };
}

/** An operand in the result's shape; the client repeats its own before it encrypts them. */
function spreadView(site: Site, index: number, shape: Shape): View {
  const symbol = site.symbol(index);
  if (symbol?.kind !== 'client' || elementCount(symbol.shape) === elementCount(shape))
    return site.view(index);
  const name = site.client.apply('Expand', [symbol.name, site.client.ints(...shape)]);
  return site.asView({ ...symbol, name, shape });
}

/**
 * x times a client value: where all features of a token have one factor, that is one encrypted number for
 * each token, and it takes up the factor that waits.
 */
function timesClient(site: Site, x: View, factor: Client, shape: Shape): Symbol {
  const { client, drafts } = site;
  const settled = site.settle({ ...x, scale: 1 });
  const { rows, columns } = settled.draft;
  const spread = broadcastIndex(factor.shape, shape);
  const sources = new Int32Array(rows).fill(-1);
  const perToken = Array.from({ length: rows * columns }, (_, i) => {
    const row = Math.floor((settled.index?.[i] ?? i) / columns);
    const source = spread?.[i] ?? i;
    if (sources[row] === -1) sources[row] = source;
    return sources[row] === source;
  }).every((same) => same);
  const scale = { dtype: 'float32' as const, shape: [1], data: Float32Array.of(x.scale) };
  const own = client.float(factor.name);
  const name = x.scale === 1 ? own : client.apply('Mul', [own, client.constant(scale)]);
  if (!perToken) {
    const expanded = client.apply('Expand', [name, client.ints(...shape)]);
    const view = site.asView({ kind: 'client', name: expanded, shape });
    return pairOf(site, 'tensor.mul', settled, view, shape);
  }
  const flat = client.reshape(name, [elementCount(client.known(name).shape)]);
  const isWhole = client.known(flat).shape[0] === rows && sources.every((source, row) => source === row);
  const column = isWhole ? flat : client.apply('Gather', [flat, client.ints(...sources)], { axis: 0 });
  const operands = [settled.draft, site.column(site.masks.merged(column), rows)];
  const draft = drafts.make('tensor.scale_tokens', operands, { rows, columns, loc: site.loc });
  return { ...settled, draft };
}

/** Sum, difference or product of two encrypted values, in the arrangement of one of them where possible. */
export function pairOf(site: Site, kind: PairKind, a: View, b: View, shape: Shape): Symbol {
  const [wideA, wideB] = [stretched(site, a, shape), stretched(site, b, shape)];
  const [x, y] = [settledOr(site, wideA), settledOr(site, wideB)];
  const alike =
    x.draft.rows === y.draft.rows && x.draft.columns === y.draft.columns && sameIndex(x.index, y.index);
  const both = isBijective(x) && isBijective(y) && x.scale === 1 && y.scale === 1;
  if (alike && both) return { ...x, draft: site.drafts.pointwise(kind, [x.draft, y.draft], site.loc) };
  // An input can be packed in any arrangement.
  const [freeX, freeY] = [wideA.draft.kind === 'input' ? wideA : x, wideB.draft.kind === 'input' ? wideB : y];
  const moved = isBijective(x) && x.scale === 1 ? inArrangementOf(site, x, freeY) : undefined;
  if (moved !== undefined) return { ...x, draft: site.drafts.pointwise(kind, [x.draft, moved], site.loc) };
  const other = isBijective(y) && y.scale === 1 ? inArrangementOf(site, y, freeX) : undefined;
  if (other !== undefined) return { ...y, draft: site.drafts.pointwise(kind, [other, y.draft], site.loc) };
  const [left, right] = [site.natural(x), site.natural(y)];
  return site.whole(site.drafts.pointwise(kind, [left, right], site.loc), shape);
}

/** Settled, or as it is where its elements cannot be a matrix by themselves. */
function settledOr(site: Site, view: View): View {
  try {
    return site.settle(view);
  } catch (error) {
    if (error instanceof AegisError) return view;
    throw error;
  }
}

/** What `view` holds, in the place where `target` holds the same element; undefined if no matrix does. */
function inArrangementOf(site: Site, target: View, view: View): View['draft'] | undefined {
  if (target.draft.kind === 'input') return undefined;
  const from = indexOf(view);
  const index = new Int32Array(from.length);
  indexOf(target).forEach((to, i) => (index[to] = from[i] as number));
  const { rows, columns } = target.draft;
  try {
    return site.matrix({ ...view, index, shape: [rows, columns] }, rows, columns);
  } catch (error) {
    if (error instanceof AegisError) return undefined;
    throw error;
  }
}

/** x + sign * constant. */
function plus(site: Site, view: View, other: number, sign: 1 | -1, shape: Shape): Symbol {
  const settled = site.settle(stretched(site, view, shape));
  const values = site.constant(other).map((value) => sign * value);
  const spread = site.constantFor(values, site.call.input(other).shape, settled);
  const draft = site.drafts.addConstant(settled.draft, spread, site.isOnlyUse(1 - other), site.loc);
  return { ...settled, draft };
}

/** x * constant, or divided by it: a scalar waits in the view, where attention may take it up. */
function times(site: Site, view: View, other: number, invert: boolean, shape: Shape): Symbol {
  const own = site.constant(other);
  const values = invert ? own.map((value) => 1 / value) : own;
  const uniform = site.uniform(other);
  const wide = stretched(site, view, shape);
  if (uniform !== undefined) return { ...wide, scale: wide.scale * (invert ? 1 / uniform : uniform) };
  const settled = site.settle(wide);
  const spread = site.constantFor(values, site.call.input(other).shape, settled);
  return {
    ...settled,
    draft: site.drafts.mulConstant(settled.draft, spread, site.isOnlyUse(1 - other), site.loc),
  };
}

export function add(site: Site, shape: Shape): Symbol {
  for (const [own, other] of [
    [0, 1],
    [1, 0],
  ] as const) {
    const symbol = site.symbol(own);
    if (symbol?.kind === 'scores' && !symbol.softmax) return maskedScores(site, { ...symbol, shape }, other);
  }
  if (site.symbol(0) === undefined) return plus(site, site.view(1), 0, 1, shape);
  if (site.symbol(1) === undefined) return plus(site, site.view(0), 1, 1, shape);
  return pairOf(site, 'tensor.add', spreadView(site, 0, shape), spreadView(site, 1, shape), shape);
}

export function sub(site: Site, shape: Shape): Symbol {
  const symbol = site.symbol(0);
  if (symbol?.kind === 'scores' && !symbol.softmax) return maskedScores(site, { ...symbol, shape }, 1, -1);
  if (site.symbol(1) === undefined) return plus(site, site.view(0), 1, -1, shape);
  if (symbol === undefined) {
    const view = site.view(1);
    return plus(site, { ...view, scale: -view.scale }, 0, 1, shape);
  }
  return pairOf(site, 'tensor.sub', spreadView(site, 0, shape), spreadView(site, 1, shape), shape);
}

export function mul(site: Site, shape: Shape): Symbol {
  for (const [own, other] of [
    [0, 1],
    [1, 0],
  ] as const) {
    const symbol = site.symbol(own);
    if (symbol?.kind === 'scores') return scaleScores(site, symbol, site.uniform(other));
    const factor = site.symbol(other);
    if (symbol?.kind === 'view' && factor?.kind === 'client') {
      return timesClient(site, stretched(site, symbol, shape), factor, shape);
    }
  }
  if (site.symbol(0) === undefined) return times(site, site.view(1), 0, false, shape);
  if (site.symbol(1) === undefined) return times(site, site.view(0), 1, false, shape);
  return pairOf(site, 'tensor.mul', site.view(0), site.view(1), shape);
}

export function div(site: Site, shape: Shape): Symbol {
  const symbol = site.symbol(0);
  const divisor = site.symbol(1);
  if (symbol?.kind === 'view' && divisor?.kind === 'client') {
    const inverse = site.client.apply('Reciprocal', [site.client.float(divisor.name)]);
    return timesClient(site, stretched(site, symbol, shape), { ...divisor, name: inverse }, shape);
  }
  if (divisor !== undefined) return quotient(site, shape);
  if (symbol === undefined) return site.fail('two constants');
  const uniform = site.uniform(1);
  if (symbol.kind === 'scores') {
    return scaleScores(site, symbol, uniform === undefined ? undefined : 1 / uniform);
  }
  return times(site, site.view(0), 1, true, shape);
}

/** x / y as x times the reciprocal of y on its calibrated range, which must not contain 0. */
function quotient(site: Site, shape: Shape): Symbol {
  const below = site.view(1);
  if (site.symbol(0) !== undefined) {
    return pairOf(site, 'tensor.mul', site.view(0), divided(site, 1, below, below.shape), shape);
  }
  const above = site.uniform(0);
  if (above === undefined) return site.fail('division of different constants by encrypted values');
  return divided(site, above, below, shape);
}

/** number / x */
export function divided(site: Site, number: number, x: View, shape: Shape): View {
  const settled = site.settle(stretched(site, { ...x, scale: 1 }, shape));
  const draft = site.drafts.pointwise('tensor.function', [settled.draft], site.loc, { name: 'reciprocal' });
  return { ...settled, draft, scale: number / x.scale };
}

export function neg(site: Site): Symbol {
  const view = site.view(0);
  return { ...view, scale: -view.scale };
}

/** Small whole exponents as products. */
export function pow(site: Site): Symbol {
  const exponent = site.isConstant(1) ? site.uniform(1) : undefined;
  const view = site.settle(site.view(0));
  const x = view.draft;
  const square = () => site.drafts.pointwise('tensor.mul', [x, x], site.loc);
  switch (exponent) {
    case 1:
      return view;
    case 2:
      return { ...view, draft: square() };
    case 3:
      return { ...view, draft: site.drafts.pointwise('tensor.mul', [square(), x], site.loc) };
    case 4:
      return { ...view, draft: site.drafts.pointwise('tensor.mul', [square(), square()], site.loc) };
    case undefined:
      return site.fail('an exponent that is not one constant');
    case -1:
      return divided(site, 1, view, view.shape);
    case 0.5:
      return { ...view, draft: site.drafts.pointwise('tensor.function', [x], site.loc, { name: 'sqrt' }) };
    default:
      return {
        ...view,
        draft: site.drafts.pointwise('tensor.function', [x], site.loc, { name: 'power', alpha: exponent }),
      };
  }
}

/** A Where whose condition is public and the same everywhere, or can never hold. */
export function where(site: Site, shape: Shape): Symbol {
  const condition = site.symbol(0);
  const [yes, no] = [site.symbol(1), site.symbol(2)];
  const uniform = condition?.kind === 'never' ? 0 : site.uniform(0);
  if (yes?.kind === 'scores') return selectedScores(site, { ...yes, shape }, 1);
  if (no?.kind === 'scores' && uniform === undefined) return selectedScores(site, { ...no, shape }, 2);
  if (uniform === undefined) return site.fail('chooses among encrypted values');
  const chosen = uniform === 0 ? no : yes;
  if (chosen === undefined) return site.fail('the result is public');
  return chosen.kind === 'view' ? stretched(site, chosen, shape) : { ...chosen, shape };
}

/** Sizes of float inputs are bounded by calibration, so nothing becomes NaN or infinite. */
export function isNan(_: Site, shape: Shape): Symbol {
  return { kind: 'never', shape };
}

export function batchNorm(site: Site): Symbol {
  const view = site.settle(site.view(0));
  const channels = view.shape[1] ?? 1;
  if (![1, 2, 3, 4].every((i) => site.isConstant(i))) return site.fail('encrypted parameters');
  const [gamma, beta, mean, variance] = [1, 2, 3, 4].map((i) => site.constant(i)) as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const epsilon = site.call.int('epsilon', 1e-5);
  const factor = gamma.map((value, c) => value / Math.sqrt((variance[c] as number) + epsilon));
  const shift = beta.map((value, c) => value - (mean[c] as number) * (factor[c] as number));
  const shape = [channels, ...view.shape.slice(2).map(() => 1)];
  const fold = site.isOnlyUse(0);
  const scaled = site.drafts.mulConstant(view.draft, site.constantFor(factor, shape, view), fold, site.loc);
  return {
    ...view,
    draft: site.drafts.addConstant(scaled, site.constantFor(shift, shape, view), true, site.loc),
  };
}

export function layerNorm(site: Site, shape: Shape): Symbol {
  const view = site.view(0);
  const axis = site.call.axis(site.call.int('axis', -1), shape.length);
  const columns = elementCount(shape.slice(axis));
  const x = site.matrix(view, elementCount(shape.slice(0, axis)), columns);
  const draft = normalized(site, x, site.call.int('epsilon', 1e-5));
  if (![1, 2].every((i) => !site.call.has(i) || site.isConstant(i))) return site.fail('encrypted parameters');
  const gamma = site.constant(1);
  const repeated = (values: Float64Array): Float64Array => {
    const out = new Float64Array(x.rows * columns);
    for (let row = 0; row < x.rows; row++) out.set(values.subarray(0, columns), row * columns);
    return out;
  };
  const scaled = site.drafts.mulConstant(draft, repeated(gamma), true, site.loc);
  if (!site.call.has(2)) return site.whole(scaled, shape);
  return site.whole(site.drafts.addConstant(scaled, repeated(site.constant(2)), true, site.loc), shape);
}

export function rmsNorm(site: Site, shape: Shape): Symbol {
  const view = site.view(0);
  const axis = site.call.axis(site.call.int('axis', -1), shape.length);
  const columns = elementCount(shape.slice(axis));
  const x = site.matrix(view, elementCount(shape.slice(0, axis)), columns);
  const epsilon = site.call.int('epsilon', 1e-5);
  const draft = site.drafts.pointwise('tensor.rms_norm', [x], site.loc, { epsilon });
  if (!site.call.has(1)) return site.whole(draft, shape);
  if (!site.isConstant(1)) return site.fail('encrypted parameters');
  const gamma = site.constant(1);
  const factors = Float64Array.from(
    { length: x.rows * columns },
    (_, i) => gamma[i % gamma.length] as number,
  );
  return site.whole(site.drafts.mulConstant(draft, factors, true, site.loc), shape);
}

function normalized(site: Site, x: View['draft'], epsilon: number): View['draft'] {
  return site.drafts.pointwise('tensor.layer_norm', [x], site.loc, { epsilon });
}

/** What the cluster finder recognised, applied to its source. */
export function cluster(site: Site, found: Cluster, source: Symbol, shape: Shape): Symbol {
  const view = site.asView(source);
  const { match } = found;
  switch (match.kind) {
    case 'gelu': {
      const x = site.settle(view);
      return {
        ...x,
        draft: site.drafts.pointwise('tensor.gelu', [x.draft], site.loc, { approximate: match.approximate }),
      };
    }
    case 'silu': {
      const x = site.settle({ ...view, scale: view.scale * match.factor });
      return {
        ...x,
        draft: site.drafts.pointwise('tensor.silu', [x.draft], site.loc),
        scale: 1 / match.factor,
      };
    }
    case 'layer_norm':
      return site.whole(normalized(site, site.natural(view), match.epsilon), shape);
    case 'rms_norm': {
      const { epsilon } = match;
      const draft = site.drafts.pointwise('tensor.rms_norm', [site.natural(view)], site.loc, { epsilon });
      return site.whole(draft, shape);
    }
    default:
      return match satisfies never;
  }
}
