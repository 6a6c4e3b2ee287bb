/** Exact real functions behind the nonlinear operators, in double precision. */
import { unreachable } from '../../support/invariant.js';
import {
  erf,
  gelu,
  geluTanh,
  namedFunction,
  relu,
  sigmoid,
  silu,
  type FunctionName,
} from '../../support/special-functions.js';
import type { RealFunction } from './chebyshev.js';

/** Named functions of one variable; `exp` is exp(scale x). */
export type NonlinearFunction =
  | { readonly kind: 'exp'; readonly scale: number }
  | { readonly kind: 'gelu' | 'gelu-tanh' | 'tanh' | 'relu' | 'sigmoid' | 'silu' }
  | { readonly kind: 'named'; readonly name: FunctionName; readonly alpha: number; readonly beta: number }
  | { readonly kind: 'inverse' | 'inverse-sqrt' | 'erf' };

export function realFunction(fn: NonlinearFunction): RealFunction {
  switch (fn.kind) {
    case 'exp':
      return (x) => Math.exp(fn.scale * x);
    case 'gelu':
      return gelu;
    case 'gelu-tanh':
      return geluTanh;
    case 'tanh':
      return Math.tanh;
    case 'relu':
      return relu;
    case 'sigmoid':
      return sigmoid;
    case 'silu':
      return silu;
    case 'named':
      return namedFunction(fn.name).make(fn.alpha, fn.beta);
    case 'inverse':
      return (x) => 1 / x;
    case 'inverse-sqrt':
      return (x) => 1 / Math.sqrt(x);
    case 'erf':
      return erf;
    default:
      return unreachable(fn);
  }
}
