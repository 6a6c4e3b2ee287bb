/**
 * What is known of a private ONNX value during canonicalisation. Data movement makes no ops: a value is a
 * *view*, an index of every element into a canonical matrix, and only where an operator needs a matrix
 * [tokens, features] is the index read as tokens and features. So any chain of Reshape, Transpose, Slice,
 * Gather, ... means what it does.
 */
import type { Diagnostic } from '../../support/diagnostics.js';
import type { Draft } from './drafts.js';

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
  readonly heads: number;
  readonly scale: number;
  readonly softmax: boolean;
  /** One for each kept key, zero for a padded one: [keys, 1]. */
  readonly mask?: Draft | undefined;
  readonly shape: readonly number[];
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

/** How a [rows, columns] index reads a [.., features] matrix, or why it does not. */
export type Reading =
  | { readonly kind: 'selection'; readonly first: number; readonly features: Int32Array }
  | { readonly kind: 'other'; readonly reason: string };

/** index[r, c] must be (first + r) * width + features[c]. */
export function readIndex(index: Int32Array, rows: number, columns: number, width: number): Reading {
  const other = (reason: string): Reading => ({ kind: 'other', reason });
  if (index.some((i) => i < 0)) return other('pads encrypted values with zeros');
  const first = Math.floor((index[0] ?? 0) / width);
  const features = new Int32Array(columns);
  for (let c = 0; c < columns; c++) {
    features[c] = (index[c] as number) - first * width;
    if ((features[c] as number) < 0 || (features[c] as number) >= width) {
      return other('mixes tokens and features');
    }
  }
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      if (index[r * columns + c] !== (first + r) * width + (features[c] as number)) {
        return other('moves tokens in a way other than a range of tokens and a choice of features');
      }
    }
  }
  return { kind: 'selection', first, features };
}
