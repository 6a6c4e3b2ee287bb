/** How an index into a matrix [tokens, features] reads another matrix. */
import { affineIndex } from '../kernels/call.js';
import { elementCount } from '../model.js';

/** Columns of the result that read one feature each, of the same token in every row. */
export interface ReadingPart {
  /** Token of every row, -1 for zero. */
  readonly tokens: Int32Array;
  readonly columns: readonly number[];
  /** Feature of each of the columns. */
  readonly features: readonly number[];
}

export type Reading =
  | {
      readonly kind: 'parts';
      readonly parts: readonly ReadingPart[];
      /** Some column reads different features in different rows: features become tokens. */
      readonly mixed: boolean;
    }
  | { readonly kind: 'other'; readonly reason: string };

/** More would cost too many token movements: a convolution with so many taps. */
const maxParts = 40;
/** Features that become tokens make this many times more of them at most. */
const maxTokenGrowth = 4;

/**
 * Splits a [rows, columns] index into a [.., width] matrix by the tokens that its columns read. A column of
 * several features is the sum of one part for each, zero in the rows of the others.
 */
export function readIndex(index: Int32Array, rows: number, columns: number, width: number): Reading {
  const open: { tokens: Int32Array; columns: number[]; features: number[] }[] = [];
  const tokensRead = Math.floor(index.reduce((a, b) => Math.max(a, b), 0) / width) + 1;
  let mixed = false;
  for (let c = 0; c < columns; c++) {
    const byFeature = new Map<number, Int32Array>();
    for (let r = 0; r < rows; r++) {
      const at = index[r * columns + c] as number;
      if (at < 0) continue;
      const tokens = byFeature.get(at % width) ?? new Int32Array(rows).fill(-1);
      byFeature.set(at % width, tokens);
      tokens[r] = Math.floor(at / width);
      if (byFeature.size > maxParts) return { kind: 'other', reason: 'mixes tokens and features' };
    }
    mixed ||= byFeature.size > 1;
    if (mixed && rows > maxTokenGrowth * tokensRead) {
      return { kind: 'other', reason: 'mixes tokens and features' };
    }
    for (const [feature, tokens] of byFeature) {
      const part = open.find(
        (one) => one.columns.at(-1) !== c && one.tokens.every((token, r) => token === tokens[r]),
      );
      if (part === undefined) open.push({ tokens, columns: [c], features: [feature] });
      else {
        part.columns.push(c);
        part.features.push(feature);
      }
    }
    if (open.length > maxParts) {
      const reason = mixed
        ? 'mixes tokens and features'
        : `reads tokens in more than ${maxParts} different orders at once`;
      return { kind: 'other', reason };
    }
  }
  return { kind: 'parts', parts: open, mixed };
}

/** The first token, if the part reads consecutive tokens. */
export function firstOfRange({ tokens }: ReadingPart): number | undefined {
  const first = tokens[0] ?? 0;
  return first >= 0 && tokens.every((token, r) => token === first + r) ? first : undefined;
}

export interface Arrangement {
  readonly rows: number;
  readonly columns: number;
  /** Element of the input at every place of the matrix. */
  readonly index: Int32Array;
}

/** Every choice of one run of dimensions as features, the last ones first; all others are tokens. */
export function arrangements(shape: readonly number[]): Arrangement[] {
  const rank = shape.length;
  const strides = shape.map((_, d) => elementCount(shape.slice(d + 1)));
  const result: Arrangement[] = [];
  for (let end = rank; end > 0; end--) {
    for (let start = end - 1; start >= 0; start--) {
      const dims = shape.map((_, d) => d);
      const features = dims.slice(start, end);
      const order = [...dims.slice(0, start), ...dims.slice(end), ...features];
      const sizes = order.map((d) => shape[d] ?? 1);
      const index = affineIndex(
        sizes,
        order.map((d) => strides[d] ?? 0),
      );
      const columns = elementCount(features.map((d) => shape[d] ?? 1));
      result.push({ rows: index.length / columns, columns, index });
    }
  }
  return result;
}

/** index(token, feature) = a(token) + b(feature), without zeros: what a client can pack as it is. */
export function isSeparable(index: Int32Array, rows: number, columns: number): boolean {
  const base = index[0] as number;
  for (let r = 0; r < rows; r++) {
    const first = index[r * columns] as number;
    for (let c = 0; c < columns; c++) {
      const at = index[r * columns + c] as number;
      if (at < 0 || at - first !== (index[c] as number) - base) return false;
    }
  }
  return true;
}
