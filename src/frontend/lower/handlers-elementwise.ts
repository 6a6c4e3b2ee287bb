/** Elementwise operators on views. */
import { broadcastIndex } from '../kernels/call.js';
import { elementCount } from '../model.js';
import type { Cluster } from './clusters.js';
import type { DraftKind } from './drafts.js';
import { normalized } from './handlers-norm.js';
import { maskedScores, scaleScores, selectedScores } from './handlers-attention.js';
import { divided, pairOf, stretched } from './pairs.js';
import type { Site } from './site.js';
import type { Client, Symbol, View } from './symbols.js';

type Shape = readonly number[];

/** A function of every element keeps the view, since it commutes with data movement. */
export function unary(
  site: Site,
  kind: DraftKind,
  attrs: Readonly<Record<string, string | number>> = {},
): Symbol {
  const view = site.settle(site.view(0));
  return { ...view, draft: site.drafts.pointwise(kind, [view.draft], site.loc, attrs) };
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
    case 'rms_norm':
      return normalized(site, match.kind, { ...view, shape }, match.epsilon);
    default:
      return match satisfies never;
  }
}
