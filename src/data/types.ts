/**
 * Arrays and samples as they come from files and go to files. Numbers are doubles whatever the file's type
 * was.
 */
export type DType = 'float32' | 'float64' | 'int64' | 'int32' | 'bool';

export interface Tensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Row-major; integers are exact (a reader refuses those above 2^53). */
  readonly data: Float64Array;
}

export interface SampleInput {
  readonly dtype: DType;
  /** Shape of one sample; the first axis is the batch axis of size 1. */
  readonly shape: readonly number[];
  /** Flat row-major values, one array per sample. */
  readonly data: readonly Float64Array[];
}

export interface Samples {
  /** The file, for messages. */
  readonly source: string;
  readonly count: number;
  readonly inputs: ReadonlyMap<string, SampleInput>;
  /** Flat expected values of the model's first output, one array per sample. */
  readonly logits: readonly Float64Array[] | null;
  readonly labels: readonly number[] | null;
}

export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}
