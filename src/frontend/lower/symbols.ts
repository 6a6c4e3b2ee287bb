/**
 * What is known of a private ONNX value during canonicalisation. Data movement makes no ops: a value is a
 * *view*, an index of every element into a canonical matrix, and only where an operator needs a matrix
 * [tokens, features] is the index read as tokens and features. So any chain of Reshape, Transpose, Slice,
 * Gather, ... means what it does.
 */
import type { Diagnostic } from '../../support/diagnostics.js';
import type { Draft } from './drafts.js';
import type { Added } from './added-scores.js';

export interface View {
  readonly kind: 'view';
  readonly draft: Draft;
  /** Flat index into the draft, -1 for zero; null: element i is element i. */
  readonly index: Int32Array | null;
  /** A pending factor: scalars on queries, keys and scores meet in the scale of the attention. */
  readonly scale: number;
  readonly shape: readonly number[];
}

/** Scores q k^T of all heads, and after softmax the probabilities. Shape [..., queries, keys]. */
export interface Scores {
  readonly kind: 'scores';
  readonly q: Draft;
  readonly k: Draft;
  /** Items of a batch: their tokens follow each other in q and k. */
  readonly batch: number;
  readonly heads: number;
  readonly scale: number;
  /** Scores are cap tanh(scale q k^T); null without a soft cap. */
  readonly cap: number | null;
  /** Constants added to the scores. */
  readonly added: Added | null;
  readonly softmax: boolean;
  readonly mask: KeyColumn | null;
  /** A client value added to the scores that is no mask by itself, but may be one with the next. */
  readonly pending: { readonly name: string; readonly reason: string } | null;
  readonly shape: readonly number[];
}

/** One for each kept key, zero for a padded one: [keys, 1]. */
export interface KeyColumn {
  readonly draft: Draft;
  /** The client value [keys] that it encrypts. */
  readonly name: string;
}

/** A boolean that is false everywhere, as IsNaN of a finite value. */
export interface Never {
  readonly kind: 'never';
  readonly shape: readonly number[];
}

/** Depends on integer inputs only: the client computes it in the clear, under this name (client-graph.ts). */
export interface Client {
  readonly kind: 'client';
  readonly shape: readonly number[];
  readonly name: string;
}

/**
 * Cannot be computed encrypted. If only the model's outputs need it, the client computes it after decryption;
 * where an encrypted operator needs it, these are the reasons for the refusal.
 */
export interface Deferred {
  readonly kind: 'deferred';
  readonly shape: readonly number[];
  readonly problems: readonly Diagnostic[];
}

/** Result of something unsupported or malformed; what follows from it alone is not reported again. */
export interface Opaque {
  readonly kind: 'opaque';
  readonly shape: readonly number[];
}

export type Symbol = View | Scores | Never | Client | Deferred | Opaque;

/** Rows and columns of an ONNX shape: tokens are all dimensions but the last. */
export function matrixShape(shape: readonly number[]): { readonly rows: number; readonly columns: number } {
  const columns = shape.at(-1) ?? 1;
  return { rows: shape.slice(0, -1).reduce((a, b) => a * b, 1), columns };
}

/** Follows a view through a movement. */
export function composeIndex(outer: Int32Array | null, inner: Int32Array | null): Int32Array | null {
  if (outer === null) return inner;
  if (inner === null) return outer;
  return outer.map((i) => (i < 0 ? -1 : (inner[i] as number)));
}

export function sameIndex(a: Int32Array | null, b: Int32Array | null): boolean {
  if (a === b) return true;
  return a !== null && b !== null && a.length === b.length && a.every((value, i) => value === b[i]);
}

/** The view's index, spelled out. */
export function indexOf(view: View): Int32Array {
  if (view.index !== null) return view.index;
  const count = view.shape.reduce((a, b) => a * b, 1);
  return Int32Array.from({ length: count }, (_, i) => i);
}

/** Every element of the draft exactly once. */
export function isBijective(view: View): boolean {
  const count = view.draft.rows * view.draft.columns;
  if (view.index === null) return true;
  if (view.index.length !== count) return false;
  const seen = new Uint8Array(count);
  for (const i of view.index) {
    if (i < 0 || seen[i] === 1) return false;
    seen[i] = 1;
  }
  return true;
}
