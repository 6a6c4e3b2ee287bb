/** Elementwise ops of the tensor phase as functions to approximate. */
import type { Op } from '../../ir/module.js';
import type { FunctionName } from '../../support/special-functions.js';
import type { NonlinearFunction } from '../approximation/index.js';

export function activationOf(op: Op): NonlinearFunction | undefined {
  switch (op.kind) {
    case 'tensor.gelu':
      return { kind: op.attrs.approximate === 'tanh' ? 'gelu-tanh' : 'gelu' };
    case 'tensor.relu':
      return { kind: 'relu' };
    case 'tensor.tanh':
      return { kind: 'tanh' };
    case 'tensor.sigmoid':
      return { kind: 'sigmoid' };
    case 'tensor.silu':
      return { kind: 'silu' };
    case 'tensor.function': {
      const { name, alpha = 0, beta = 0 } = op.attrs as { name: FunctionName; alpha?: number; beta?: number };
      return { kind: 'named', name, alpha, beta };
    }
    default:
      return undefined;
  }
}
