/**
 * Calibrated ranges: what `aegis calibrate` measures by running the `tensor` phase in the clear, and what
 * packing needs
 * to choose intervals of approximation. Ranges are measured; margins are added where they are used.
 */
export interface Interval {
  readonly min: number;
  readonly max: number;
}

/** Statistics of one attention op over all heads, queries and samples. */
export interface AttentionRanges {
  readonly scores: Interval;
  /** Number of keys that a mask keeps, where there is one. */
  readonly keys?: Interval | undefined;
  /** For k = 0, 1, ..: log sum exp(score / 2^k) of a row. */
  readonly logSumExp: readonly Interval[];
  /**
   * For k = 0, 1, ..: log sum p^2 of a row, p = softmax(score / 2^(k+1)): what is inverted after k+1 gives k.
   */
  readonly logSquareSum: readonly Interval[];
}

export interface NodeRange {
  readonly kind: 'input' | 'variance' | 'attention';
  readonly interval: Interval;
  readonly attention?: AttentionRanges | undefined;
  /**
   * What the error budget leaves the node, not part of a file: an absolute error of activations, a relative
   * one of inverse square roots and of softmax weights. Without a budget, the constants of pack.
   */
  readonly tolerance?: number | undefined;
}

/**
 * By op index in `main` of the canonical tensor module, which is deterministic for a model and its shapes.
 */
export type NodeRanges = ReadonlyMap<number, NodeRange>;

/** Interval of an op's result, by the same index. */
export type ValueRanges = ReadonlyMap<number, Interval>;

/**
 * With a mask, requests may keep this many times fewer tokens than the shortest calibration sample: their
 * softmax denominators are that much smaller. Measured on the spam models: one bootstrap of one ciphertext.
 */
export const shorterRequests = 4;

/** Rounds of square-and-renormalise that are measured and may be chosen. */
export const maxSoftmaxRounds = 5;

export interface Ranges {
  readonly format: 'aegis-ranges';
  readonly version: 1;
  readonly model: string;
  readonly sourceHash: string;
  /** Shapes of the inputs at which the model was calibrated. */
  readonly shapes: Readonly<Record<string, readonly number[]>>;
  /** The model was calibrated with all masks open. */
  readonly noPadding?: boolean | undefined;
  /** Of inputs that are masks themselves: values that drop no token. */
  readonly masks?: Readonly<Record<string, readonly number[]>> | undefined;
  readonly nodes: readonly (NodeRange & { readonly op: number; readonly node: string })[];
  /** Interval of every op's result; older files have none. */
  readonly values?: readonly (Interval & { readonly op: number })[] | undefined;
  /**
   * Calibration inputs: ranges of ciphertext values and predicted errors are measured on them after packing.
   */
  readonly probes: readonly Readonly<Record<string, readonly number[]>>[];
}
