/** Normalisations: of the features of a token, or of whatever the last dimensions of a view are. */
import { elementCount } from '../model.js';
import { contract } from './contract.js';
import { divided, pairOf } from './pairs.js';
import type { Site } from './site.js';
import { matrixShape, type Symbol, type View } from './symbols.js';

type Shape = readonly number[];

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

/** The dimensions from `axis` on as one. */
function flatRows(site: Site, shape: Shape): View {
  const view = site.view(0);
  const axis = site.call.axis(site.call.int('axis', -1), shape.length);
  return { ...view, shape: [...shape.slice(0, axis), elementCount(shape.slice(axis))] };
}

export function layerNorm(site: Site, shape: Shape): Symbol {
  const view = flatRows(site, shape);
  if (![1, 2].every((i) => !site.call.has(i) || site.isConstant(i))) return site.fail('encrypted parameters');
  const normal = normalized(site, 'layer_norm', view, site.call.int('epsilon', 1e-5));
  const scaled = timesRow(site, normal, site.constant(1));
  return { ...(site.call.has(2) ? plusRow(site, scaled, site.constant(2)) : scaled), shape };
}

export function rmsNorm(site: Site, shape: Shape): Symbol {
  const view = flatRows(site, shape);
  if (site.call.has(1) && !site.isConstant(1)) return site.fail('encrypted parameters');
  const normal = normalized(site, 'rms_norm', view, site.call.int('epsilon', 1e-5));
  return { ...(site.call.has(1) ? timesRow(site, normal, site.constant(1)) : normal), shape };
}

function timesRow(site: Site, view: View, row: Float64Array): View {
  const values = site.constantFor(row, [row.length], view);
  return { ...view, draft: site.drafts.mulConstant(view.draft, values, true, site.loc) };
}

function plusRow(site: Site, view: View, row: Float64Array): View {
  const values = site.constantFor(row, [row.length], view);
  return { ...view, draft: site.drafts.addConstant(view.draft, values, true, site.loc) };
}

/** Rows of the last dimension without gamma and beta, settled. */
export function normalized(site: Site, kind: 'layer_norm' | 'rms_norm', view: View, epsilon: number): View {
  const { rows, columns } = matrixShape(view.shape);
  if (!site.isMatrix(view, rows, columns)) return composed(site, kind, view, epsilon);
  const x = site.matrix(view, rows, columns);
  return site.whole(site.drafts.pointwise(`tensor.${kind}`, [x], site.loc, { epsilon }), view.shape);
}

/**
 * x / sqrt(mean of x^2 + epsilon), x less its mean in layer normalisation, where a row is not the features of
 * a token: groups of features, as heads, or one feature of all tokens.
 */
function composed(site: Site, kind: 'layer_norm' | 'rms_norm', view: View, epsilon: number): View {
  const { shape } = view;
  const x = site.settle(view);
  const centred = kind === 'layer_norm' ? pairOf(site, 'tensor.sub', x, meanOfRows(site, x), shape) : x;
  const square = site.drafts.pointwise('tensor.mul', [centred.draft, centred.draft], site.loc);
  const mean = site.settle(meanOfRows(site, { ...centred, draft: square }));
  const constant = new Float64Array(mean.draft.rows * mean.draft.columns).fill(epsilon);
  const variance = { ...mean, draft: site.drafts.addConstant(mean.draft, constant, true, site.loc) };
  const root = site.drafts.pointwise('tensor.function', [variance.draft], site.loc, { name: 'sqrt' });
  const inverse = divided(site, 1, { ...variance, draft: root }, variance.shape);
  return site.settle(pairOf(site, 'tensor.mul', centred, inverse, shape));
}

/** [.., 1] */
function meanOfRows(site: Site, view: View): View {
  const { columns } = matrixShape(view.shape);
  const weight = { shape: [1, columns], data: new Float64Array(columns).fill(1 / columns) };
  return contract(site, view, weight, undefined, [...view.shape.slice(0, -1), 1]);
}
