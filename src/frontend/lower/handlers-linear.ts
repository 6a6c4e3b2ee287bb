/** Products: linear layers, convolutions as patches, attention. */
import type { Constant } from '../../ir/module.js';
import { defined } from '../../support/invariant.js';
import { affineIndex } from '../kernels/call.js';
import { attentionForm, convForm, maskIsOpen } from '../kernels/linear.js';
import { elementCount } from '../model.js';
import type { Draft } from './drafts.js';
import { closedBelow, type MaskForm } from './masks.js';
import type { Site } from './site.js';
import { composeIndex, matrixShape, type Scores, type Symbol, type View } from './symbols.js';

type Shape = readonly number[];

const batchHelp = 'export the model with batch 1, or with a dynamic batch';

function transposed(values: Float64Array, rows: number, columns: number): Float64Array {
  const out = new Float64Array(values.length);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) out[c * rows + r] = values[r * columns + c] as number;
  }
  return out;
}

/** The view with its last two dimensions exchanged. */
function swapped(view: View): View {
  const [rows, columns] = [view.shape.at(-2) ?? 1, view.shape.at(-1) ?? 1];
  const shape = [...view.shape.slice(0, -2), columns, rows];
  const batch = elementCount(shape.slice(0, -2));
  const order = affineIndex([batch, columns, rows], [rows * columns, 1, columns]);
  return { ...view, shape, index: composeIndex(order, view.index) };
}

/** The weight of a constant right operand, turned into [out, in]; leading dimensions must be one. */
function rightWeight(site: Site, index: number): Constant {
  const { shape } = site.call.input(index);
  const [inner, outer] = shape.length === 1 ? [shape[0] ?? 1, 1] : [shape.at(-2) ?? 1, shape.at(-1) ?? 1];
  if (elementCount(shape) !== inner * outer) return site.fail('a batch of weights');
  return { shape: [outer, inner], data: transposed(site.constant(index), inner, outer) };
}

/** x times a constant, or a constant times x: the latter is a linear layer on the transposed view. */
export function matMul(site: Site, shape: Shape): Symbol {
  const [left, right] = [site.symbol(0), site.symbol(1)];
  if (left !== undefined && right !== undefined) return encryptedProduct(site, left, right, shape);
  if (left !== undefined) {
    const x = site.natural(site.view(0));
    return site.whole(site.drafts.linear(x, rightWeight(site, 1), undefined, site.loc), shape);
  }
  const own = site.call.input(0).shape;
  const view = swapped(site.view(1));
  if (own.length < 2 || elementCount(own) !== elementCount(own.slice(-2))) {
    return site.fail('a batch of weights');
  }
  const weight = { shape: own.slice(-2), data: site.constant(0) };
  const product = site.drafts.linear(site.natural(view), weight, undefined, site.loc);
  return swapped(site.whole(product, [...view.shape.slice(0, -1), own.at(-2) ?? 1]));
}

export function gemm(site: Site, shape: Shape): Symbol {
  const view = site.call.int('transA', 0) !== 0 ? swapped(site.view(0)) : site.view(0);
  if (!site.isConstant(1)) return site.fail('a product of two encrypted matrices outside attention');
  const { shape: own } = site.call.input(1);
  const data = site.constant(1);
  const [first, second] = [own[0] ?? 1, own[1] ?? 1];
  const weight =
    site.call.int('transB', 0) !== 0
      ? { shape: [first, second], data }
      : { shape: [second, first], data: transposed(data, first, second) };
  const alpha = site.call.int('alpha', 1);
  const scaled = alpha === 1 ? weight : { ...weight, data: weight.data.map((value) => value * alpha) };
  const product = site.whole(site.drafts.linear(site.natural(view), scaled, undefined, site.loc), shape);
  if (!site.call.has(2)) return product;
  if (!site.isConstant(2)) return site.fail('an encrypted bias');
  const beta = site.call.int('beta', 1);
  const bias = site.constant(2).map((value) => value * beta);
  const values = site.constantFor(bias, site.call.input(2).shape, product);
  return { ...product, draft: site.drafts.addConstant(product.draft, values, true, site.loc) };
}

/** Patches of the input are data movement; the kernel is then a linear layer from patches to channels. */
export function conv(site: Site): Symbol {
  const view = site.view(0);
  if (!site.isConstant(1)) return site.fail('an encrypted kernel');
  const form = convForm(site.call);
  if (form.batch !== 1) return site.fail(`a batch of ${form.batch}`, 'F207', batchHelp);
  if (form.groups !== 1) return site.fail('grouped convolution', 'F202');
  const patches: View = {
    ...view,
    index: composeIndex(form.index(), view.index),
    shape: [form.positions, form.patch],
  };
  const weight = { shape: [form.outputs, form.patch], data: site.constant(1) };
  const bias = site.call.has(2) ? site.constant(2) : undefined;
  const draft = site.drafts.linear(site.natural(patches), weight, bias, site.loc);
  const index = affineIndex([form.outputs, form.positions], [1, form.outputs]);
  return { kind: 'view', draft, index, scale: 1, shape: form.shape };
}

/** A view of heads [..., h, t, d] as the matrix [t, h*d]; `strides` lead from (t, h, d) into the view. */
function headsMatrix(
  site: Site,
  view: View,
  sizes: readonly [number, number, number],
  strides: Shape,
): Draft {
  const [tokens, heads, size] = sizes;
  const order = affineIndex(sizes, strides);
  return site.matrix({ ...view, index: composeIndex(order, view.index), shape: sizes }, tokens, heads * size);
}

/** The result of an attention, [t, h*d], seen as [..., h, t, d]. */
function headsView(draft: Draft, heads: number, size: number, shape: Shape): View {
  const index = affineIndex([heads, draft.rows, size], [size, heads * size, 1]);
  return { kind: 'view', draft, index: heads === 1 ? null : index, scale: 1, shape };
}

function encryptedProduct(site: Site, left: Symbol, right: Symbol, shape: Shape): Symbol {
  if (left.kind === 'scores') return weightedValues(site, left, site.asView(right), shape);
  const [q, k] = [site.asView(left), site.asView(right)];
  const [tokens, size] = [q.shape.at(-2) ?? 1, q.shape.at(-1) ?? 1];
  const keys = k.shape.at(-1) ?? 1;
  const heads = elementCount(q.shape.slice(0, -2));
  const batch = q.shape[0] ?? 1;
  if (q.shape.length === 4 && batch !== 1) {
    // The masks behind are still to be looked at, so the walk goes on with stand-ins.
    site.report('F207', `a batch of ${batch}`, batchHelp);
    const standIn = site.placeholder([tokens, size]).draft;
    return { kind: 'scores', q: standIn, k: standIn, heads, scale: 1, softmax: false, shape };
  }
  if (elementCount(k.shape.slice(0, -2)) !== heads) {
    return site.fail('queries and keys have different numbers of heads');
  }
  const qDraft = headsMatrix(site, { ...q, scale: 1 }, [tokens, heads, size], [size, tokens * size, 1]);
  const kDraft = headsMatrix(site, { ...k, scale: 1 }, [keys, heads, size], [1, size * keys, keys]);
  return { kind: 'scores', q: qDraft, k: kDraft, heads, scale: q.scale * k.scale, softmax: false, shape };
}

function weightedValues(site: Site, scores: Scores, v: View, shape: Shape): Symbol {
  if (!scores.softmax) return site.fail('scores without softmax');
  if (scores.q.kind === 'unsupported') return { kind: 'opaque', shape };
  const [keys, size] = [v.shape.at(-2) ?? 1, v.shape.at(-1) ?? 1];
  const { heads } = scores;
  if (elementCount(v.shape.slice(0, -2)) !== heads) return site.fail('values have another number of heads');
  const vDraft = headsMatrix(site, v, [keys, heads, size], [size, keys * size, 1]);
  const draft = attentionDraft(site, [scores.q, scores.k, vDraft], heads, scores.scale, scores.mask);
  return headsView(draft, heads, size, shape);
}

function attentionDraft(
  site: Site,
  [q, k, v]: readonly [Draft, Draft, Draft],
  heads: number,
  scale: number,
  mask: Draft | undefined,
): Draft {
  if (k.columns !== q.columns || k.rows !== v.rows) return site.fail('queries, keys and values do not fit');
  const attrs = { heads, scale };
  const operands = mask === undefined ? [q, k, v] : [q, k, v, mask];
  return site.drafts.make('tensor.attention', operands, {
    attrs,
    rows: q.rows,
    columns: v.columns,
    loc: site.loc,
  });
}

/** The operator of opset 23. */
export function attention(site: Site): Symbol {
  const form = attentionForm(site.call);
  const mask = operandMask(site, [1, form.heads, form.queries, form.keys]);
  const { heads, keyHeads } = form;
  if (form.batch !== 1) return site.fail(`a batch of ${form.batch}`, 'F207', batchHelp);
  if (form.softcap !== 0) return site.fail('a soft cap on the scores');
  if (form.causal) reportCausal(site);
  const part = (which: 0 | 1 | 2, tokens: number, size: number) => {
    const view = site.view(which);
    const [headStride = 0, tokenStride = 0, featureStride = 0] = form.strides(which);
    const shared = which === 0 ? 1 : heads / keyHeads;
    // Grouped queries: neighbouring heads read one key head.
    const order = affineIndex(
      [tokens, heads / shared, shared, size],
      [tokenStride, headStride, 0, featureStride],
    );
    const sizes = [tokens, heads * size];
    const moved = { ...view, scale: 1, index: composeIndex(order, view.index), shape: sizes };
    return { draft: site.matrix(moved, tokens, heads * size), scale: view.scale };
  };
  const [q, k, v] = [
    part(0, form.queries, form.size),
    part(1, form.keys, form.size),
    part(2, form.keys, form.valueSize),
  ];
  const scale = form.scale * q.scale * k.scale;
  const draft = attentionDraft(site, [q.draft, k.draft, v.draft], heads, scale, mask);
  const symbol =
    form.shape.length === 3
      ? site.whole(draft, form.shape)
      : headsView(draft, heads, form.valueSize, form.shape);
  return { ...symbol, scale: v.scale };
}

/** The mask that the operator itself takes. */
function operandMask(site: Site, shape: Shape): Draft | undefined {
  if (maskIsOpen(site.call, 3)) return undefined;
  const symbol = site.symbol(3);
  if (symbol?.kind === 'client') return keyMask(site, symbol.name, { shape, keep: 1 });
  if (symbol !== undefined || !isCausalMask(site, 3)) reportMask(site);
  else reportCausal(site);
  return undefined;
}

/** The key mask that a client value is; anything else is reported. */
function keyMask(site: Site, name: string, form: MaskForm): Draft | undefined {
  const found = site.masks.keyMask(name, form);
  if (found.kind === 'other') {
    reportMask(site, found.reason);
    return undefined;
  }
  if (found.kind === 'causal') reportCausal(site);
  return site.column(found.name, form.shape.at(-1) ?? 1);
}

function withMask(site: Site, scores: Scores, name: string, keep: 0 | 1): Scores {
  const mask = keyMask(site, name, { shape: scores.shape, keep });
  if (mask !== undefined && scores.mask !== undefined && scores.mask !== mask) {
    reportMask(site, 'is the second one');
  }
  return { ...scores, mask: mask ?? scores.mask };
}

/** Closed above the diagonal, open on and below it; the last two dimensions are queries and keys. */
function isCausalMask(site: Site, index: number): boolean {
  const { shape, data, dtype } = site.call.input(index);
  if (data === null) return false;
  const { columns } = matrixShape(shape);
  const rows = shape.at(-2) ?? 1;
  const open = dtype === 'bool' ? (v: number) => v !== 0 : (v: number) => v === 0;
  const values = site.constant(index);
  return (
    rows > 1 && values.every((value, i) => open(value) === i % columns <= Math.floor(i / columns) % rows)
  );
}

/** Scores plus a mask: zeros change nothing, everything else is reported and then looked through. */
export function maskedScores(site: Site, scores: Scores, other: number): Symbol {
  const uniform = site.uniform(other);
  const { shape } = scores;
  const symbol = site.symbol(other);
  if (symbol?.kind === 'client' && site.node.opType === 'Add') return withMask(site, scores, symbol.name, 1);
  // A constant added to all scores of a row cancels in the softmax.
  if (uniform !== undefined && Number.isFinite(uniform)) return { ...scores, shape };
  if (symbol === undefined && isCausalMask(site, other)) reportCausal(site);
  else reportMask(site);
  return { ...scores, shape };
}

function reportCausal(site: Site): void {
  site.report('F204', 'causal attention is not supported yet', 'use an encoder (bidirectional) model');
}

function reportMask(site: Site, reason = 'is a constant'): void {
  const help = 'only masks that keep or drop a key for all queries and heads alike, or that are causal';
  site.report('F203', `the attention mask ${reason}`, help);
}

/** Where(mask, scores, fill) and Where(mask, fill, scores). */
export function selectedScores(site: Site, scores: Scores, at: 1 | 2): Symbol {
  const condition = site.isConstant(0) ? site.constant(0) : undefined;
  const keep = at === 1 ? 1 : 0;
  const chooser = site.symbol(0);
  if (chooser?.kind === 'client') {
    const fill = site.uniform(at === 1 ? 2 : 1);
    if (fill === undefined || fill > closedBelow)
      return site.fail('fills scores with something else than a mask');
    return withMask(site, scores, chooser.name, keep);
  }
  if (condition?.every((value) => (value !== 0 ? 1 : 0) === keep) === true) return scores;
  const { columns } = matrixShape(site.call.input(0).shape);
  const rows = site.call.input(0).shape.at(-2) ?? 1;
  const causal =
    rows > 1
    && condition?.every((value, i) => {
      const below = i % columns <= Math.floor(i / columns) % rows;
      return (value !== 0 ? 1 : 0) === (below ? keep : 1 - keep);
    }) === true;
  if (causal) reportCausal(site);
  else reportMask(site);
  return scores;
}

/** Softmax over the keys. */
export function softmax(site: Site): Symbol {
  const symbol = site.symbol(0);
  if (symbol?.kind !== 'scores') {
    return site.fail('softmax outside attention', 'F202', 'take the softmax after decryption');
  }
  const axis = site.call.axis(site.call.int('axis', site.call.opset < 13 ? 1 : -1), symbol.shape.length);
  if (symbol.softmax || axis !== symbol.shape.length - 1) {
    return site.fail('softmax over another axis than the keys');
  }
  return { ...symbol, softmax: true };
}

/** Scores through a change of shape that keeps queries and keys. */
export function reshapedScores(
  site: Site,
  scores: Scores,
  shape: Shape,
  movement: Int32Array | null,
): Symbol {
  const [from, to] = [scores.shape.slice(-2), shape.slice(-2)];
  if (movement !== null || from.join() !== to.join()) return site.fail('moves attention scores');
  return { ...scores, shape: defined(shape, 'shape') };
}
