import type { OpDef } from '../opdef.js';
import { declaredByCaller } from '../opdef.js';

/**
 * Loops and calls. Result types are the carried types and the callee's result types; the verifier checks
 * them.
 */
export const controlOps: readonly OpDef[] = [
  {
    name: 'loop',
    phase: 'any',
    operands: ['initial...'],
    regions: 1,
    summary: 'runs its block `tripCount` times; block arguments are the carried values, of fixed type',
    attrs: { tripCount: { kind: 'int', doc: 'number of iterations, equal on all ranks' } },
    infer: () => declaredByCaller,
  },
  {
    name: 'call',
    phase: 'any',
    operands: ['arguments...'],
    summary: 'calls a function of the module',
    attrs: { callee: { kind: 'string', doc: 'function name' } },
    infer: () => declaredByCaller,
  },
];
