/**
 * Plaintext recipes: what the runtime's encoder turns into plaintexts, at the level and scale of the op that
 * uses them.
 * Every recipe states the slot vector of each array element exactly; ir/interpreter/plain.ts materialises the
 * same.
 */
import type { OpDef } from '../opdef.js';
import type { Axis, PtType } from '../types.js';

const axesAttr = { kind: 'axes', doc: 'array axes, slowest first' } as const;
const periodAttr = { kind: 'int', doc: 'slots per token group' } as const;
const tableDoc = 'name of an index table of the module';

const pt = (axes: unknown, period: number, complex = false): PtType[] => [
  { kind: 'pt', axes: axes as readonly Axis[], period, complex },
];

export const plainOps: readonly OpDef[] = [
  {
    name: 'pt.constant',
    phase: 'cipher',
    operands: [],
    summary: 'real constants, one per array element, the same in every slot',
    attrs: { axes: axesAttr, values: { kind: 'reals', doc: 'row-major over the axes' } },
    infer: (_, attrs) => pt(attrs.axes, 1),
  },
  {
    name: 'pt.vector',
    phase: 'cipher',
    operands: [],
    summary:
      'slot u + period*t of element e is factor * constant[features[e*period+u] + tokens[t]], 0 if either is '
      + 'negative; without tokens the vector has the period, else it fills all slots. With G = N/2 / period, '
      + 'tokens has G entries, or P G if the first axis is cut into P token blocks: an element of block p '
      + 'then reads entry p G + t. With iterations n, features has n tables one after the other, and the '
      + 'innermost enclosing loop of n iterations reads one in each',
    attrs: {
      axes: axesAttr,
      period: periodAttr,
      constant: { kind: 'string', doc: 'name of a constant of the module' },
      features: { kind: 'string', doc: tableDoc },
      tokens: { kind: 'string', optional: true, doc: tableDoc },
      factor: { kind: 'real', doc: 'multiplies every value' },
      iterations: { kind: 'int', optional: true, doc: 'trip count of the enclosing loop' },
    },
    infer: (_, attrs, context) => {
      if (attrs.tokens === undefined) return pt(attrs.axes, attrs.period as number);
      if (context.parameters === null) return 'a pt.vector with tokens needs parameters';
      return pt(attrs.axes, context.parameters.slots);
    },
  },
  {
    name: 'pt.diagonals',
    phase: 'cipher',
    operands: [],
    summary:
      'generalised diagonals of a matrix for baby steps b and giant steps G, axes (out..., giant, in..., '
      + 'baby): at position p, with u = (p - G) mod period, the value is factor * weight[rows[o*period+u], '
      + 'columns[i*period+u+G+b]] where 0 <= u+G+b < period and both indices are >= 0, else 0',
    attrs: {
      axes: axesAttr,
      period: periodAttr,
      weight: { kind: 'string', doc: 'name of a rank-2 constant of the module' },
      rows: { kind: 'string', doc: `output feature of (out element, position); ${tableDoc}` },
      columns: { kind: 'string', doc: `input feature of (in element, position); ${tableDoc}` },
      baby: { kind: 'ints', doc: 'baby steps, slots' },
      giant: { kind: 'ints', doc: 'giant steps, slots' },
      factor: { kind: 'real', doc: 'multiplies every value' },
    },
    infer: (_, attrs) => pt(attrs.axes, attrs.period as number),
  },
  {
    name: 'pt.dft',
    phase: 'cipher',
    operands: [],
    summary:
      'diagonals of a product of consecutive butterfly stages of the slot transform without bit reversal, '
      + 'axes (giant, baby); stage s joins slots 2^(s-1) apart. inverse = false: the stages '
      + 'first..first+count-1 of the transform from coefficients to slots, applied in rising order; '
      + 'inverse = true: their inverses, in falling order',
    attrs: {
      axes: axesAttr,
      inverse: { kind: 'bool', doc: 'true for CoeffsToSlots' },
      first: { kind: 'int', doc: 'first stage, from 1' },
      count: { kind: 'int', doc: 'number of stages' },
      baby: { kind: 'ints', doc: 'baby steps, slots' },
      giant: { kind: 'ints', doc: 'giant steps, slots' },
      factor: { kind: 'real', doc: 'multiplies every value' },
    },
    infer: (_, attrs, context) =>
      context.parameters === null
        ? 'pt.dft needs parameters'
        : pt(attrs.axes, context.parameters.slots, true),
  },
];
