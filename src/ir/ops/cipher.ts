/**
 * The cipher phase: batched CKKS operations on named-axis arrays. Levels and scales are null until
 * plan-levels has run,
 * then exact. This phase fixes every rounding point (each ModUp, ModDown, rescale); what follows only moves
 * work.
 */
import { defined } from '../../support/invariant.js';
import type { Parameters } from '../../target/parameters.js';
import type { Attrs } from '../module.js';
import type { InferContext, OpDef } from '../opdef.js';
import {
  canonicalScale,
  divScale,
  mulScale,
  parseScale,
  primeScale,
  scalesEqual,
  printScale,
  type Scale,
} from '../scale.js';
import {
  axesCount,
  axisSize,
  broadcastAxes,
  qBasis,
  withoutAxes,
  type Axis,
  type CtType,
  type PtType,
  type Type,
} from '../types.js';

/** D(l)^2 / q(l) is D(l-1) by definition, except where a section of the chain starts. */
function rescaled(type: CtType, parameters: Parameters | null): Scale | null {
  if (type.scale === null || type.level === null) return null;
  const towered = parameters !== null && !parameters.sectionTops.includes(type.level - 1);
  if (towered && scalesEqual(type.scale, mulScale(canonicalScale(type.level), canonicalScale(type.level)))) {
    return canonicalScale(type.level - 1);
  }
  return divScale(type.scale, primeScale(type.level));
}

function asCt(type: Type | undefined): CtType | undefined {
  return type?.kind === 'ct' ? type : undefined;
}

/** What two ciphertext operands must agree on; a string says what they do not. */
function agree(a: CtType, b: CtType, sameScale: boolean): string | undefined {
  if (a.level !== b.level) return `operands have levels ${a.level} and ${b.level}`;
  if (a.basis.kind !== b.basis.kind) return `operands have bases ${a.basis.kind} and ${b.basis.kind}`;
  if (sameScale && a.scale !== null && b.scale !== null && !scalesEqual(a.scale, b.scale)) {
    return `operands have scales ${printScale(a.scale)} and ${printScale(b.scale)}`;
  }
  return undefined;
}

type CtInfer = (a: CtType, attrs: Attrs, context: InferContext) => CtType | string;

/** Declares an op with one ciphertext operand. */
function unary(name: string, summary: string, attrs: OpDef['attrs'], infer: CtInfer): OpDef {
  return {
    name,
    phase: 'cipher',
    summary,
    operands: ['a'],
    attrs,
    infer: ([type], given, context) => {
      const a = asCt(type);
      if (a === undefined) return 'operand 0 must be a ciphertext array';
      const result = infer(a, given, context);
      return typeof result === 'string' ? result : [result];
    },
  };
}

function elementwise(name: string, summary: string): OpDef {
  return {
    name,
    phase: 'cipher',
    summary,
    operands: ['a', 'b'],
    attrs: {},
    infer: ([x, y]) => {
      const [a, b] = [asCt(x), asCt(y)];
      if (a === undefined || b === undefined) return 'both operands must be ciphertext arrays';
      const axes = broadcastAxes(a.axes, b.axes);
      const problem = typeof axes === 'string' ? axes : agree(a, b, true);
      if (typeof axes === 'string' || problem !== undefined) return problem ?? '';
      return [{ ...a, axes, degree: a.degree === 2 || b.degree === 2 ? 2 : 1 }];
    },
  };
}

const keyed = (a: CtType): string | undefined =>
  a.degree !== 1
    ? 'operand must be relinearized'
    : a.basis.kind !== 'q'
      ? 'operand needs a ModDown first'
      : undefined;

function scaleAttr(attrs: Attrs, name: string): Scale | null {
  const text = attrs[name];
  return typeof text === 'string' ? defined(parseScale(text), `scale ${text}`) : null;
}

const overAttr = { kind: 'strings', doc: 'axes that are summed' } as const;
const plainScaleAttr = {
  kind: 'scale',
  optional: true,
  doc: 'scale at which the plaintext is encoded; set by plan-levels',
} as const;
const lazyAttr = {
  kind: 'string',
  optional: true,
  doc: 'key class whose special primes the result keeps (basis qp); without it ModDown follows at once',
} as const;
const digitGroupsAttr = {
  kind: 'int',
  optional: true,
  doc: "digits in so many contiguous groups: each group's sum is divided by P, then the quotients are added",
} as const;
const loopStrideAttr = {
  kind: 'int',
  optional: true,
  doc: 'added per iteration of the innermost enclosing loop',
} as const;

function digitGroupsProblem({ digitGroups, lazy }: Attrs): string | undefined {
  if (digitGroups === undefined) return undefined;
  if ((digitGroups as number) < 1) return `${String(digitGroups)} groups of digits`;
  return lazy === undefined ? undefined : 'a lazy rotation has no ModDown to cut into groups';
}

function extended(attrs: Attrs, context: InferContext): CtType['basis'] | string {
  if (typeof attrs.lazy !== 'string') return qBasis;
  const keyClass = context.parameters?.keyClasses.find((c) => c.name === attrs.lazy);
  return keyClass === undefined
    ? `unknown key class ${attrs.lazy}`
    : { kind: 'qp', specials: keyClass.specials };
}

/** Name of the attribute that every ciphertext op may have until levels are planned. */
export const boundAttr = 'bound';
const boundDef = {
  kind: 'real',
  optional: true,
  doc: 'calibrated bound of |slot|, for the range of a bootstrap; until plan-levels',
} as const;

const ops: readonly OpDef[] = [
  elementwise('ct.add', 'a + b, axes broadcast by name'),
  elementwise('ct.sub', 'a - b, axes broadcast by name'),
  {
    name: 'ct.add_plain',
    phase: 'cipher',
    operands: ['a', 'p'],
    attrs: {},
    summary: 'a + p; p is encoded at the scale of a',
    infer: ([x, p]) => {
      const a = asCt(x);
      if (a === undefined || p?.kind !== 'pt')
        return 'operands must be a ciphertext array and a plaintext array';
      if (a.basis.kind !== 'q') return 'operand 0 needs a ModDown first';
      const axes = broadcastAxes(a.axes, p.axes);
      return typeof axes === 'string' ? axes : [{ ...a, axes }];
    },
  },
  {
    name: 'ct.contract',
    phase: 'cipher',
    operands: ['a', 'p'],
    summary: 'sum over axes of a * p: products with plaintexts, linear layers, multiplication by constants',
    attrs: { over: overAttr, scale: plainScaleAttr },
    infer: ([x, p], attrs) => {
      const a = asCt(x);
      if (a === undefined || p?.kind !== 'pt')
        return 'operands must be a ciphertext array and a plaintext array';
      return contracted(a, p, attrs);
    },
  },
  {
    name: 'ct.mul',
    phase: 'cipher',
    operands: ['a', 'b'],
    attrs: { over: overAttr },
    summary: 'sum over axes of a * b; the result has degree 2',
    infer: ([x, y], attrs) => {
      const [a, b] = [asCt(x), asCt(y)];
      if (a === undefined || b === undefined) return 'both operands must be ciphertext arrays';
      const problem = agree(a, b, false) ?? keyed(a) ?? keyed(b);
      if (problem !== undefined) return problem;
      const axes = broadcastAxes(a.axes, b.axes);
      if (typeof axes === 'string') return axes;
      const scale = a.scale === null || b.scale === null ? null : mulScale(a.scale, b.scale);
      return [{ ...a, axes: withoutAxes(axes, attrs.over as string[]), degree: 2, scale }];
    },
  },
  unary('ct.relinearize', 'degree 2 to degree 1', { digitGroups: digitGroupsAttr }, (a, attrs) =>
    a.degree === 2 && a.basis.kind === 'q'
      ? (digitGroupsProblem(attrs) ?? { ...a, degree: 1 })
      : 'operand must have degree 2',
  ),
  unary('ct.rescale', 'divides by the last prime and drops it', {}, (a, _, context) => {
    if (a.basis.kind !== 'q') return 'operand needs a ModDown first';
    if (a.level === null) return a;
    if (a.level < 1) return 'ct.rescale needs level >= 1 but operand 0 has level 0';
    return { ...a, level: a.level - 1, scale: rescaled(a, context.parameters) };
  }),
  unary(
    'ct.adjust',
    'drops to a lower level at its canonical scale: times 1 at the compensating scale, in a dropped level',
    { level: { kind: 'int', doc: 'target level' } },
    (a, attrs) => {
      const level = attrs.level as number;
      if (keyed(a) !== undefined) return keyed(a) ?? '';
      if (a.level !== null && level >= a.level)
        return `ct.adjust to level ${level} needs a higher level than ${a.level}`;
      return { ...a, level, scale: canonicalScale(level) };
    },
  ),
  unary(
    'ct.rotate',
    'every element rotated left by every step, on a new last axis, from one ModUp per element (hoisting)',
    {
      axis: { kind: 'string', doc: 'name of the new axis' },
      steps: { kind: 'ints', doc: 'slots; the unrotated 0 needs no key' },
      lazy: lazyAttr,
      digitGroups: digitGroupsAttr,
    },
    (a, attrs, context) => {
      const basis = extended(attrs, context);
      const problem = digitGroupsProblem(attrs);
      if (problem !== undefined) return problem;
      if (keyed(a) !== undefined || typeof basis === 'string') return keyed(a) ?? String(basis);
      const axis = attrs.axis as string;
      if (axisSize(a.axes, axis) !== undefined) return `axis ${axis} exists already`;
      return { ...a, basis, axes: [...a.axes, { name: axis, size: (attrs.steps as number[]).length }] };
    },
  ),
  unary(
    'ct.rotate_each',
    'element i of an axis rotated left by steps[i]; with `sum` the axis is summed before one ModDown',
    {
      axis: { kind: 'string', doc: 'existing axis' },
      steps: { kind: 'ints', doc: 'slots, one per index of the axis' },
      sum: { kind: 'bool', doc: 'sum over the axis' },
      loopStride: loopStrideAttr,
      digitGroups: digitGroupsAttr,
    },
    (a, attrs) => {
      const axis = attrs.axis as string;
      const size = axisSize(a.axes, axis);
      const problem = digitGroupsProblem(attrs);
      if (problem !== undefined) return problem;
      if (keyed(a) !== undefined) return keyed(a) ?? '';
      if (size !== (attrs.steps as number[]).length) return `axis ${axis} and steps differ in length`;
      return attrs.sum === true ? { ...a, axes: withoutAxes(a.axes, [axis]) } : a;
    },
  ),
  unary(
    'ct.conjugate',
    'complex conjugate of every slot',
    { digitGroups: digitGroupsAttr },
    (a, attrs) => keyed(a) ?? digitGroupsProblem(attrs) ?? a,
  ),
  unary('ct.mul_i', 'times the imaginary unit: the monomial X^(N/2), exact', {}, (a) => a),
  unary('ct.sum', 'sum over an axis', { axis: { kind: 'string', doc: 'existing axis' } }, (a, attrs) =>
    axisSize(a.axes, attrs.axis as string) === undefined
      ? `no axis ${String(attrs.axis)}`
      : { ...a, axes: withoutAxes(a.axes, [attrs.axis as string]) },
  ),
  unary('ct.mod_down', 'divides by the special primes: basis qp to basis q', {}, (a) =>
    a.basis.kind === 'qp' ? { ...a, basis: qBasis } : 'operand must be in basis qp',
  ),
  unary(
    'ct.index',
    'one index of an axis; the axis goes',
    {
      axis: { kind: 'string', doc: 'existing axis' },
      index: { kind: 'int', doc: 'index in the first iteration' },
      loopStride: loopStrideAttr,
    },
    (a, attrs) => {
      const size = axisSize(a.axes, attrs.axis as string);
      if (size === undefined || (attrs.index as number) < 0 || (attrs.index as number) >= size)
        return `no index ${String(attrs.index)} on axis ${String(attrs.axis)}`;
      return { ...a, axes: withoutAxes(a.axes, [attrs.axis as string]) };
    },
  ),
  unary(
    'ct.slice',
    'indices start .. start+size-1 of an axis',
    {
      axis: { kind: 'string', doc: 'existing axis' },
      start: { kind: 'int', doc: 'first index' },
      size: { kind: 'int', doc: 'number of indices' },
    },
    (a, attrs) => {
      const full = axisSize(a.axes, attrs.axis as string);
      const [start, size] = [attrs.start as number, attrs.size as number];
      if (full === undefined || start < 0 || size < 1 || start + size > full)
        return `slice ${start}+${size} leaves axis ${String(attrs.axis)}`;
      return { ...a, axes: a.axes.map((axis) => (axis.name === attrs.axis ? { ...axis, size } : axis)) };
    },
  ),
  {
    name: 'ct.concat',
    phase: 'cipher',
    operands: ['parts...'],
    summary: 'joins arrays along an axis that all have, in order',
    attrs: { axis: { kind: 'string', doc: 'existing axis' } },
    infer: (types, attrs) => {
      const parts = types.map(asCt);
      const first = parts[0];
      let size = 0;
      for (const part of parts) {
        if (part === undefined || first === undefined) return 'operands must be ciphertext arrays';
        const problem = agree(first, part, true);
        if (problem !== undefined) return problem;
        if (part.axes.map((a) => a.name).join() !== first.axes.map((a) => a.name).join())
          return 'operands have different axes';
        size += axisSize(part.axes, attrs.axis as string) ?? NaN;
      }
      if (first === undefined || Number.isNaN(size)) return `no axis ${String(attrs.axis)}`;
      return [
        { ...first, axes: first.axes.map((axis) => (axis.name === attrs.axis ? { ...axis, size } : axis)) },
      ];
    },
  },
  unary(
    'ct.reshape',
    'same elements in row-major order under other axes',
    { axes: { kind: 'axes', doc: 'new axes' } },
    (a, attrs) => {
      const axes = attrs.axes as unknown as readonly Axis[];
      return axesCount(axes) === axesCount(a.axes)
        ? { ...a, axes }
        : `${axesCount(a.axes)} elements do not fill ${axesCount(axes)}`;
    },
  ),
  unary(
    'ct.polynomial',
    'Chebyshev series sum_k coefficients[k] T_k(a) with a in [-1, 1], at depth ceil(log2(degree + 1))',
    { coefficients: { kind: 'reals', doc: 'by degree, in the Chebyshev basis' } },
    (a, attrs) => {
      const depth = polynomialDepth((attrs.coefficients as number[]).length - 1);
      if (keyed(a) !== undefined) return keyed(a) ?? '';
      if (a.level === null) return a;
      if (a.level < depth) return `ct.polynomial needs level >= ${depth} but operand 0 has level ${a.level}`;
      return { ...a, level: a.level - depth, scale: canonicalScale(a.level - depth) };
    },
  ),
  unary(
    'ct.bootstrap',
    'back to the top compute level; |a| <= 2^rangeLog2',
    { rangeLog2: { kind: 'int', doc: 'log2 of the bound of |a|' } },
    (a, _, context) => {
      if (keyed(a) !== undefined) return keyed(a) ?? '';
      const p = context.parameters;
      if (a.level === null || p === null) return a;
      if (a.level !== p.bootstrapInputLevel)
        return `ct.bootstrap takes level ${p.bootstrapInputLevel} but operand 0 has level ${a.level}`;
      return { ...a, level: p.computeTop, scale: canonicalScale(p.computeTop) };
    },
  ),
  unary(
    'ct.mod_raise',
    'centred residues modulo q_0 taken to the whole chain: adds multiples of q_0',
    {},
    (a, _, context) => {
      if (a.level !== 0 || context.parameters === null)
        return `ct.mod_raise takes level 0 but operand 0 has level ${a.level}`;
      return keyed(a) ?? { ...a, level: context.parameters.maxLevel };
    },
  ),
  unary(
    'ct.switch_secret',
    'key switch between the secret and the sparse ephemeral secret',
    { to: { kind: 'string', doc: '`sparse` at level 0 or `dense`' } },
    (a, attrs) =>
      keyed(a) ?? (attrs.to === 'sparse' && a.level !== 0 ? 'the sparse secret is for level 0 only' : a),
  ),
  unary(
    'ct.reinterpret',
    'the same residues at another scale: the value becomes factor times as large',
    { scale: { kind: 'scale', doc: 'new scale' }, factor: { kind: 'real', doc: 'old scale / new scale' } },
    (a, attrs) => ({ ...a, scale: scaleAttr(attrs, 'scale') }),
  ),
  {
    name: 'ct.zero',
    phase: 'cipher',
    operands: [],
    summary: 'zero ciphertexts, the start of sums carried by loops',
    attrs: {
      axes: { kind: 'axes', doc: 'array axes' },
      level: { kind: 'int', optional: true, doc: 'set by plan-levels' },
    },
    infer: (_, attrs) => {
      const level = typeof attrs.level === 'number' ? attrs.level : null;
      const scale = level === null ? null : canonicalScale(level);
      return [
        {
          kind: 'ct',
          axes: attrs.axes as unknown as readonly Axis[],
          degree: 1,
          basis: qBasis,
          level,
          scale,
        },
      ];
    },
  },
];

export const cipherOps: readonly OpDef[] = ops.map((def) => ({
  ...def,
  attrs: { ...def.attrs, [boundAttr]: boundDef },
}));

function contracted(a: CtType, p: PtType, attrs: Attrs): readonly Type[] | string {
  const axes = broadcastAxes(a.axes, p.axes);
  if (typeof axes === 'string') return axes;
  const over = attrs.over as string[];
  const missing = over.find((name) => axisSize(axes, name) === undefined);
  if (missing !== undefined) return `no axis ${missing}`;
  const plainScale = scaleAttr(attrs, 'scale');
  const scale = a.scale === null || plainScale === null ? null : mulScale(a.scale, plainScale);
  return [{ ...a, axes: withoutAxes(axes, over), scale }];
}

/** Levels a Chebyshev series of this degree takes (Paterson-Stockmeyer at optimal depth). */
export function polynomialDepth(degree: number): number {
  return Math.ceil(Math.log2(degree + 1));
}
