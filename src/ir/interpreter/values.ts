import type { Parameters } from '../../target/parameters.js';
import type { Axis } from '../types.js';
import type { PlainArray } from './plain.js';

/**
 * Elements row-major over the axes, N/2 slots each. Vectors are shared between values: never write to them.
 */
export interface CipherValue {
  readonly kind: 'ct';
  readonly axes: readonly Axis[];
  readonly re: readonly Float64Array[];
  /** Imaginary parts, null where all are zero. */
  readonly im: readonly Float64Array[] | null;
}

export type RuntimeValue = CipherValue | PlainArray;

/** What the interpretation of an op may depend on besides its operands. */
export interface OpContext {
  readonly slots: number;
  /** Null before they are chosen, when EvalMod has no error. */
  readonly parameters: Parameters | null;
  /** Iteration of the innermost enclosing loop. */
  readonly iteration: number;
}
