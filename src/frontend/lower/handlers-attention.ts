/**
 * Attention: from products of queries and keys through masks and softmax to the product with the values.
 * Items of a batch are tokens beside each other, and a mask keeps them apart.
 */
import { defined } from '../../support/invariant.js';
import { affineIndex, asNumbers, broadcastIndex } from '../kernels/call.js';
import { attentionForm } from '../kernels/linear.js';
import { elementCount, isFloat } from '../model.js';
import {
  addedConstant,
  addedSum,
  attentionConstants,
  paddedAdded,
  scaledAdded,
  type Added,
  type ScoreSizes,
} from './added-scores.js';
import type { Draft } from './drafts.js';
import { closedBelow } from './mask-probes.js';
import type { MaskForm } from './masks.js';
import { stretched } from './pairs.js';
import type { Site } from './site.js';
import { composeIndex, indexOf, type Scores, type Symbol, type View } from './symbols.js';

type Shape = readonly number[];

const maskHelp =
  'a mask is a constant, or keeps and drops keys for all queries and heads alike, or is the product of both';

/** A view of heads [item, head, token, feature] by strides, as the matrix [item * token, head * feature]. */
function headsMatrix(
  site: Site,
  view: View,
  sizes: { readonly batch: number; readonly tokens: number; readonly heads: number; readonly size: number },
  strides: {
    readonly batch: number;
    readonly token: number;
    readonly head: number;
    readonly feature: number;
  },
): Draft {
  const { batch, tokens, heads, size } = sizes;
  const shape = [batch, tokens, heads, size];
  const order = affineIndex(shape, [strides.batch, strides.token, strides.head, strides.feature]);
  const moved = { ...view, index: composeIndex(order, view.index), shape };
  return site.matrix(moved, batch * tokens, heads * size);
}

/** The result of an attention, [item * token, head * feature], seen as [.., head, token, feature]. */
function headsView(draft: Draft, batch: number, heads: number, shape: Shape): View {
  const [tokens, size] = [draft.rows / batch, draft.columns / heads];
  const order = [tokens * draft.columns, size, draft.columns, 1];
  const index = affineIndex([batch, heads, tokens, size], order);
  return { kind: 'view', draft, index: heads === 1 ? null : index, scale: 1, shape };
}

/** Heads of one item read the same tokens: leading indices that start at another token are another item. */
function batchOf(view: View): number {
  const leads = elementCount(view.shape.slice(0, -2));
  if (view.draft.kind === 'input') return view.shape.length === 4 ? (view.shape[0] ?? 1) : 1;
  const index = indexOf(view);
  const area = elementCount(view.shape.slice(-2));
  const tokens = Array.from({ length: leads }, (_, l) =>
    Math.floor((index[l * area] as number) / view.draft.columns),
  );
  const items = new Set(tokens).size;
  const each = leads / items;
  const grouped = tokens.every((token, l) => token === tokens[l - (l % each)]);
  return Number.isInteger(each) && grouped ? items : 1;
}

/** Scores, or probabilities times values; without a left symbol, queries are constant. */
export function encryptedProduct(site: Site, left: Symbol | undefined, right: Symbol, shape: Shape): Symbol {
  if (left?.kind === 'opaque' || right.kind === 'opaque') return site.fail('an operand that was refused');
  const lead = shape.slice(0, -2);
  const spread = (view: View): View => stretched(site, view, [...lead, ...view.shape.slice(-2)]);
  if (left?.kind === 'scores') return weightedValues(site, left, spread(site.asView(right)), shape);
  // Heads that share their keys, or their queries.
  const k = spread(site.asView(right));
  const q = left === undefined ? undefined : spread(site.asView(left));
  const [queries, keys] = [shape.at(-2) ?? 1, shape.at(-1) ?? 1];
  const size = k.shape.at(-2) ?? 1;
  const leads = elementCount(lead);
  const isKnown = q?.draft.kind !== 'unsupported' && k.draft.kind !== 'unsupported';
  const batch = isKnown ? batchOf(q ?? k) : 1;
  const heads = leads / batch;
  const qStrides = { batch: heads * queries * size, token: size, head: queries * size, feature: 1 };
  const kStrides = { batch: heads * size * keys, token: 1, head: size * keys, feature: keys };
  const kDraft = headsMatrix(site, { ...k, scale: 1 }, { batch, tokens: keys, heads, size }, kStrides);
  const qSizes = { batch, tokens: queries, heads, size };
  return {
    kind: 'scores',
    q:
      q === undefined
        ? constantQueries(site, kDraft, qSizes, qStrides)
        : headsMatrix(site, { ...q, scale: 1 }, qSizes, qStrides),
    k: kDraft,
    batch,
    heads,
    scale: (q?.scale ?? 1) * k.scale,
    cap: null,
    added: null,
    mask: null,
    pending: null,
    softmax: false,
    shape,
  };
}

/** Queries that do not depend on the input, as those of pooling by attention, as a bias of nothing. */
function constantQueries(
  site: Site,
  like: Draft,
  sizes: { readonly batch: number; readonly tokens: number; readonly heads: number; readonly size: number },
  strides: {
    readonly batch: number;
    readonly token: number;
    readonly head: number;
    readonly feature: number;
  },
): Draft {
  const { batch, tokens, heads, size } = sizes;
  const columns = heads * size;
  const own = site.call.input(0).shape;
  const full = [batch, heads, tokens, size];
  const spread = broadcastIndex(own, [...(own.length > 3 ? full : [batch * heads, tokens, size])]);
  const values = site.constant(0);
  const order = affineIndex(
    [batch, tokens, heads, size],
    [strides.batch, strides.token, strides.head, strides.feature],
  );
  const rows = Float64Array.from(order, (i) => values[spread === null ? i : (spread[i] as number)] as number);
  const x = padTokens(site, like, batch, tokens);
  const zero = { shape: [columns, x.columns], data: new Float64Array(columns * x.columns) };
  return site.drafts.addConstant(site.drafts.linear(x, zero, undefined, site.loc), rows, true, site.loc);
}

function sizesOf(scores: Scores): ScoreSizes {
  const { batch, heads, q, k } = scores;
  return { batch, heads, queries: q.rows / batch, keys: k.rows / batch };
}

function weightedValues(site: Site, scores: Scores, v: View, shape: Shape): Symbol {
  if (!scores.softmax) return site.fail('scores without softmax');
  const { batch, heads } = scores;
  const [tokens, size] = [v.shape.at(-2) ?? 1, v.shape.at(-1) ?? 1];
  if (elementCount(v.shape.slice(0, -2)) !== batch * heads) {
    return site.fail('values have another number of heads');
  }
  const strides = { batch: heads * tokens * size, token: size, head: tokens * size, feature: 1 };
  const vDraft = headsMatrix(site, { ...v, scale: 1 }, { batch, tokens, heads, size }, strides);
  const view = headsView(attentionDraft(site, scores, vDraft), batch, heads, shape);
  return { ...view, scale: v.scale };
}

function attentionDraft(site: Site, given: Scores, values: Draft): Draft {
  const square = squared(site, given, values);
  const { scores, v } = square;
  const { q, k, heads, cap } = scores;
  if (cap !== null && cap <= 0) return site.fail('a soft cap that is not positive');
  const scale = scores.scale * (cap ?? 1);
  if (k.columns !== q.columns || k.rows !== v.rows) return site.fail('queries, keys and values do not fit');
  const constants = scores.batch === 1 && scores.added === null ? {} : attentionOf(site, scores);
  if (cap !== null && constants.bias !== undefined) return site.fail('a bias on scores with a soft cap');
  if (scores.mask !== null && constants.keep !== undefined) {
    site.masks.requireKeys(scores.mask.name, constants.keep);
  }
  const operands = scores.mask === null ? [q, k, v] : [q, k, v, scores.mask.draft];
  const draft = site.drafts.make('tensor.attention', operands, {
    attrs: { heads, scale, ...(cap === null ? {} : { cap }) },
    constants,
    rows: q.rows,
    columns: v.columns,
    loc: site.loc,
  });
  return q.rows === given.q.rows ? draft : padTokens(site, draft, given.batch, given.q.rows / given.batch);
}

/** As many queries as keys: the missing ones are zero; added keys are closed. */
function squared(site: Site, scores: Scores, v: Draft): { scores: Scores; v: Draft } {
  const { batch, q, k, mask } = scores;
  const { queries, keys, heads } = sizesOf(scores);
  if (queries === keys) return { scores, v };
  const tokens = Math.max(queries, keys);
  const pad = (x: Draft): Draft => padTokens(site, x, batch, tokens);
  const sizes = { batch, heads, queries: tokens, keys: tokens };
  const own = scores.added ?? { batch: 1, heads: 1, values: new Float64Array(queries * keys) };
  const added = paddedAdded(own, { queries, keys }, sizes);
  const wide = { ...scores, q: pad(q), k: pad(k), added: keys < tokens ? added : scores.added && added };
  if (mask === null || keys === tokens) return { scores: wide, v: pad(v) };
  const { client } = site;
  const zeros = client.constant({
    dtype: 'float32',
    shape: [batch, tokens - keys],
    data: new Float32Array(batch * (tokens - keys)),
  });
  const row = client.apply('Concat', [client.reshape(mask.name, [batch, keys]), zeros], { axis: 1 });
  const name = client.reshape(row, [batch * tokens]);
  return { scores: { ...wide, mask: { name, draft: site.column(name, batch * tokens) } }, v: pad(v) };
}

/** Every item with `count` tokens: cut, or filled up with zeros. */
function padTokens(site: Site, x: Draft, batch: number, count: number): Draft {
  const own = x.rows / batch;
  if (own === count) return x;
  const { rows, columns } = x;
  if (batch === 1 && count < own) return site.drafts.selectTokens(x, 0, count, site.loc);
  if (batch === 1) {
    const constant = { shape: [count - own, columns], data: new Float64Array((count - own) * columns) };
    return site.drafts.make('tensor.concat_tokens', [x], {
      attrs: { before: false, count: count - own },
      constants: { constant },
      rows: rows + count - own,
      columns,
      loc: site.loc,
    });
  }
  const tokens = Int32Array.from({ length: batch * count }, (_, i) =>
    i % count < own ? Math.floor(i / count) * own + (i % count) : -1,
  );
  return site.drafts.gatherTokens(x, tokens, site.loc);
}

function attentionOf(site: Site, scores: Scores): ReturnType<typeof attentionConstants> & object {
  const constants = attentionConstants(scores.added, sizesOf(scores));
  return typeof constants === 'string' ? site.fail(constants, 'F203', maskHelp) : constants;
}

/** The operator of opsets 23 and 24. */
export function attention(site: Site): Symbol {
  const form = attentionForm(site.call);
  const { batch, heads, keyHeads, queries, keys } = form;
  const part = (which: 0 | 1 | 2, tokens: number, size: number) => {
    const view = site.view(which);
    const [head = 0, token = 0, feature = 0] = form.strides(which);
    const shared = which === 0 ? 1 : heads / keyHeads;
    const item = elementCount(view.shape) / batch;
    // Grouped queries: neighbouring heads read one key head.
    const order = affineIndex([batch, tokens, heads / shared, shared, size], [item, token, head, 0, feature]);
    const sizes = [batch * tokens, heads * size];
    const moved = { ...view, scale: 1, index: composeIndex(order, view.index), shape: sizes };
    return { draft: site.matrix(moved, batch * tokens, heads * size), scale: view.scale };
  };
  const [q, k, v] = [part(0, queries, form.size), part(1, keys, form.size), part(2, keys, form.valueSize)];
  const open: Scores = {
    kind: 'scores',
    q: q.draft,
    k: k.draft,
    batch,
    heads,
    scale: (form.scale * q.scale * k.scale) / (form.softcap > 0 ? form.softcap : 1),
    cap: form.softcap > 0 ? form.softcap : null,
    added: null,
    mask: null,
    pending: null,
    softmax: false,
    shape: [batch, heads, queries, keys],
  };
  const masked = site.call.has(3) ? maskedScores(site, open, 3) : open;
  if (masked.pending !== null) reportMask(site, masked.pending.reason);
  const causal = form.causal ? plusAdded(masked, causalMask(queries, keys)) : masked;
  const draft = attentionDraft(site, causal, v.draft);
  const symbol =
    form.shape.length === 3 ? site.whole(draft, form.shape) : headsView(draft, batch, heads, form.shape);
  return { ...symbol, scale: v.scale };
}

function causalMask(queries: number, keys: number): Added {
  const closed = (i: number): boolean => i % keys > Math.floor(i / keys);
  const values = Float64Array.from({ length: queries * keys }, (_, i) => (closed(i) ? -Infinity : 0));
  return { batch: 1, heads: 1, values };
}

function plusAdded(scores: Scores, added: Added): Scores {
  return { ...scores, added: addedSum(scores.added, added, sizesOf(scores)) };
}

/** Scores plus a constant, or plus a mask that the client computes; anything else is reported. */
export function maskedScores(site: Site, scores: Scores, other: number, sign: 1 | -1 = 1): Scores {
  const uniform = site.uniform(other);
  const isMask = !isFloat(site.call.input(other).dtype);
  // A number added to all scores of a row cancels in the softmax.
  if (uniform !== undefined && Number.isFinite(uniform) && !isMask) return scores;
  const symbol = site.symbol(other);
  if (symbol?.kind === 'client' && sign === 1) return paddedScores(site, scores, symbol.name, 1);
  if (!site.isConstant(other)) {
    reportMask(site, symbol?.kind === 'client' ? 'is subtracted' : 'depends on encrypted values');
    return scores;
  }
  const values = site.constant(other).map((value) => {
    if (isMask) return value === 0 ? -Infinity : 0;
    return sign * value;
  });
  const added = addedConstant(values, site.call.input(other).shape, scores.shape, sizesOf(scores));
  return plusAdded(scores, added);
}

/** Scores under the mask that a client value is; `keep`: what a boolean says of a kept key. */
function paddedScores(site: Site, scores: Scores, name: string, keep: 0 | 1): Scores {
  const { batch } = scores;
  const { keys } = sizesOf(scores);
  const constantPart = isFloat(site.client.known(name).dtype) ? site.client.plusConstant(name) : undefined;
  if (constantPart !== undefined) {
    const { rest, tensor } = constantPart;
    const values = Float64Array.from(asNumbers(tensor));
    const added = addedConstant(values, tensor.shape, scores.shape, sizesOf(scores));
    return paddedScores(site, plusAdded(scores, added), rest, keep);
  }
  const form = { shape: scores.shape, items: batch, keys, keep };
  const whole = scores.pending === null ? name : together(site, scores.pending.name, name, form);
  const found = site.masks.keyMask(whole, form);
  if (found.kind === 'other') {
    if (isFloat(site.client.known(whole).dtype)) {
      const rows = site.client.known(whole).shape.at(-2) ?? 1;
      const wide = site.client.ints(...scores.shape.slice(0, -2), rows, keys);
      const pending = site.client.apply('Expand', [site.client.float(whole), wide]);
      return { ...scores, pending: { name: pending, reason: found.reason } };
    }
    reportMask(site, found.reason);
    return scores;
  }
  const mask = { draft: site.column(found.name, batch * keys), name: found.name };
  if (scores.mask !== null && scores.mask.draft !== mask.draft) reportMask(site, 'is the second one');
  const { constant, bias } = found;
  const own = { ...scores, mask, pending: null };
  const masked =
    bias === undefined ? own : plusAdded(own, addedConstant(bias, scores.shape, scores.shape, sizesOf(own)));
  if (constant === undefined) return masked;
  const values = Float64Array.from(constant, (one) => (one === 0 ? -Infinity : 0));
  return plusAdded(masked, { batch: 1, heads: 1, values });
}

/** What two client values do to scores: the second one a sum, or a boolean that closes keys. */
function together(site: Site, first: string, second: string, { shape, keep }: MaskForm): string {
  const { client } = site;
  const known = client.known(second);
  // The first one may have been added to scores of another shape, with as many elements.
  const rows =
    elementCount(client.known(first).shape) / elementCount(shape.slice(0, -2)) / (shape.at(-1) ?? 1);
  const own = client.reshape(first, [...shape.slice(0, -2), rows, shape.at(-1) ?? 1]);
  if (isFloat(known.dtype)) return client.apply('Add', [own, client.float(second)]);
  const low = client.constant({ dtype: 'float32', shape: [1], data: Float32Array.of(10 * closedBelow) });
  return client.apply('Where', keep === 1 ? [second, own, low] : [second, low, own]);
}

function reportMask(site: Site, reason: string): void {
  site.report('F203', `the attention mask ${reason}`, maskHelp);
}

/** Where(mask, scores, fill) and Where(mask, fill, scores): a fill far below all scores closes a key. */
export function selectedScores(site: Site, scores: Scores, at: 1 | 2): Symbol {
  const other = at === 1 ? 2 : 1;
  const fill = site.uniform(other);
  const keep = at === 1 ? 1 : 0;
  const isFill = fill !== undefined && fill <= closedBelow;
  const chooser = site.symbol(0);
  if (chooser?.kind === 'client' && isFill) return paddedScores(site, scores, chooser.name, keep);
  if (!site.isConstant(0)) {
    reportMask(site, isFill ? 'depends on encrypted values' : 'fills scores with other values');
    return scores;
  }
  const values = site.constant(0).map((value) => ((value !== 0 ? 1 : 0) === keep ? 0 : -Infinity));
  if (values.every((value) => value === 0)) return scores;
  if (!isFill) return site.fail('a choice between scores and other values', 'F203', maskHelp);
  const added = addedConstant(values, site.call.input(0).shape, scores.shape, sizesOf(scores));
  return plusAdded(scores, added);
}

export function scaleScores(site: Site, symbol: Symbol, factor: number | undefined): Symbol {
  if (symbol.kind !== 'scores' || symbol.softmax || factor === undefined || symbol.pending !== null) {
    return site.fail('attention scores times something other than a number');
  }
  const added = scaledAdded(symbol.added, factor);
  if (symbol.cap !== null) return { ...symbol, cap: symbol.cap * factor, added };
  return { ...symbol, scale: symbol.scale * factor, added };
}

/** A soft cap: tanh of scores, which factors precede and follow. */
export function cappedScores(site: Site, scores: Scores): Symbol {
  const isPlain =
    scores.added === null && scores.mask === null && scores.pending === null && scores.cap === null;
  if (scores.softmax || !isPlain) return site.fail('tanh of masked scores');
  return { ...scores, cap: 1 };
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
  if (symbol.pending !== null) reportMask(site, symbol.pending.reason);
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
