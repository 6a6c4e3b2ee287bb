/**
 * The poly phase: each op is one plan command (runtime/hal/kernels.h says what it computes) or a view that
 * costs nothing. Values are arrays of RNS polynomials; a ciphertext is an array whose last axis is
 * `component`.
 *
 * A command makes a new array, or, with the operand `into`, writes a window of an array that nothing reads
 * afterwards and returns that array: `window.axes[name] = [start, size]` restricts an axis, `window.limbs`
 * the limbs, what is not named is written in full. Axes that the command's own result lacks are broadcast
 * over the window. With `accumulate` the window's old values are part of the sum. So parts of an array are
 * made in place, not copied there.
 *
 * Types are global: axes and limbs are those of the whole array, `sharding` says which rank holds what
 * (sharding.ts).
 */
import { defined } from '../../support/invariant.js';
import { digitsAt, type KeyClass, type Parameters } from '../../target/parameters.js';
import type { Attrs } from '../module.js';
import { collectiveOps } from './collective.js';
import { inserted, isPoly, resharded, shape, shapeAttrs, windowAttrs, windowType } from './poly-array.js';
import type { InferContext, OpDef } from '../opdef.js';
import {
  canonical,
  canView,
  indexedSharding,
  onAxis,
  reshapedSharding,
  resultSharding,
  shardingProblem,
  slicedSharding,
} from '../sharding.js';
import {
  axesCount,
  axisSize,
  broadcastAxes,
  withoutAxes,
  type Axis,
  type PolyType,
  type PtType,
  type Sharding,
  type Type,
} from '../types.js';

export { isPoly, type Window } from './poly-array.js';
export const componentAxis = 'component';
export const digitAxis = 'digit';
/** Groups of digits with a ModDown of their own. */
export const digitGroupAxis = 'digit_group';

type PolyInfer = (operands: readonly Type[], attrs: Attrs, context: InferContext) => PolyType | string;

const shardingAttr = {
  sharding: { kind: 'json', optional: true, doc: 'how work on replicated operands is shared, per mesh axis' },
} as const;
const accumulateAttr = { accumulate: { kind: 'bool', optional: true, doc: 'add to the window' } } as const;

/** Linear ops take partial sums; ops that read all limbs of a row together take no array sharded by limb. */
const linearOps = ['zero', 'copy', 'add', 'sub', 'contract', 'ntt', 'intt', 'key_product', 'automorphism'];
const limbReaders = ['base_convert'];

/** The sharding of what a command makes, per mesh axis. */
function withSharding(name: string, own: readonly Type[], made: PolyType, attrs: Attrs): PolyType | string {
  const operands = own.filter(isPoly);
  const asked = (attrs.sharding ?? []) as readonly Sharding[];
  const digits = name === 'poly.key_product' ? [digitAxis] : [];
  const rule = {
    over: [...((attrs.over ?? []) as readonly string[]), ...digits],
    linear: linearOps.includes(name.slice('poly.'.length)),
    limbwise: !limbReaders.includes(name.slice('poly.'.length)),
  };
  const count = Math.max(asked.length, ...operands.map((type) => type.sharding.length));
  const sharding: Sharding[] = [];
  for (let m = 0; m < count; m++) {
    const given = operands.map(({ axes, sharding: all }) => ({ axes, sharding: onAxis(all, m) }));
    const result = resultSharding(given, rule, asked[m]);
    const problem = typeof result === 'string' ? result : shardingProblem(made, result);
    if (problem !== undefined) return problem;
    sharding.push(result as Sharding);
  }
  return { ...made, sharding: canonical(sharding) };
}

function command(
  name: string,
  operands: readonly string[],
  summary: string,
  attrs: OpDef['attrs'],
  infer: PolyInfer,
): OpDef {
  return {
    name,
    phase: 'poly',
    summary,
    operands: [...operands, 'into...'],
    attrs: { ...attrs, ...windowAttrs, ...shardingAttr },
    infer: (types, given, context) => {
      const own = types.slice(0, operands.length);
      if (types.length < operands.length || types.length > operands.length + 1) {
        return `${name} has ${types.length} operands`;
      }
      const made = infer(own, given, context);
      const result = typeof made === 'string' ? made : withSharding(name, own, made, given);
      if (typeof result === 'string') return result;
      const into = types[operands.length];
      if (into !== undefined) {
        const whole = inserted(into, result, given);
        return typeof whole === 'string' ? whole : [whole];
      }
      const partial = given.window !== undefined || given.accumulate === true;
      return partial ? 'window and accumulate need the operand into' : [result];
    },
  };
}

/** Polynomial operands of one form and the same limbs, axes broadcast by name. */
function joined(types: readonly Type[], form?: PolyType['form']): PolyType | string {
  const [first, ...rest] = types;
  if (!isPoly(first)) return 'operand 0 must be a polynomial array';
  if (form !== undefined && first.form !== form) return `operand 0 must be in ${form} form`;
  let axes: readonly Axis[] = first.axes;
  for (const type of rest) {
    if (!isPoly(type)) return 'operands must be polynomial arrays';
    if (type.form !== first.form) return `operands have forms ${first.form} and ${type.form}`;
    if (type.limbs.join() !== first.limbs.join()) {
      return `operands have limbs [${first.limbs.join()}] and [${type.limbs.join()}]`;
    }
    const both = broadcastAxes(axes, type.axes);
    if (typeof both === 'string') return both;
    axes = both;
  }
  return { ...first, axes: componentLast(axes) };
}

/** Broadcasting may append axes after `component`, which stays the last axis of every ciphertext array. */
function componentLast(axes: readonly Axis[]): readonly Axis[] {
  return [...withoutAxes(axes, [componentAxis]), ...axes.filter((axis) => axis.name === componentAxis)];
}

function summed(type: PolyType | string, attrs: Attrs): PolyType | string {
  if (typeof type === 'string') return type;
  const over = (attrs.over ?? []) as readonly string[];
  const missing = over.find((name) => axisSize(type.axes, name) === undefined);
  return missing === undefined ? { ...type, axes: withoutAxes(type.axes, over) } : `no axis ${missing}`;
}

/** Broadcast with a plaintext array. */
function withPlain(types: readonly Type[]): PolyType | string {
  const [a] = types;
  return isPoly(a) && a.form !== 'ntt' ? 'operand 0 must be in ntt form' : besidePlain(types);
}

/** Products with real constants are the same in both forms. */
function timesPlain(types: readonly Type[]): PolyType | string {
  const [, p] = types;
  return p?.kind === 'pt' && p.period === 1 && !p.complex ? besidePlain(types) : withPlain(types);
}

function besidePlain([a, p]: readonly Type[]): PolyType | string {
  if (!isPoly(a) || p?.kind !== 'pt') return 'operands must be a polynomial array and a plaintext array';
  // The batch axes of the plaintext come before the component axis, as in every ciphertext array.
  const batch = broadcastAxes(withoutAxes(a.axes, [componentAxis]), p.axes);
  if (typeof batch === 'string') return batch;
  return { ...a, axes: [...batch, ...a.axes.filter((axis) => axis.name === componentAxis)] };
}

const overAttr = { over: { kind: 'strings', doc: 'axes that are summed' } } as const;
const scaleAttr = {
  scale: {
    kind: 'real',
    doc: 'value * scale is rounded to the nearest integer; 1 for exact residues and monomials',
  },
} as const;

const commands: readonly OpDef[] = [
  command('poly.zero', [], 'zero polynomials', shapeAttrs, (_, attrs) => shape(attrs)),
  command('poly.copy', ['a'], 'a, summed over axes', { ...overAttr, ...accumulateAttr }, (types, attrs) =>
    summed(joined(types), attrs),
  ),
  command('poly.add', ['a', 'b'], 'a + b', {}, (types) => joined(types)),
  command('poly.sub', ['a', 'b'], 'a - b', {}, (types) => joined(types)),
  command('poly.add_plain', ['a', 'p'], 'a + p', scaleAttr, withPlain),
  command(
    'poly.contract',
    ['a', 'p'],
    'sum over axes of a * p',
    { ...overAttr, ...scaleAttr, ...accumulateAttr },
    (types, attrs) => summed(timesPlain(types), attrs),
  ),
  command(
    'poly.tensor',
    ['a', 'b'],
    'sum over axes of the product of two ciphertexts: three components',
    { ...overAttr, ...accumulateAttr },
    ([x, y], attrs) => {
      if (!isPoly(x) || !isPoly(y)) return 'operands must be polynomial arrays';
      if (axisSize(x.axes, componentAxis) !== 2 || axisSize(y.axes, componentAxis) !== 2) {
        return 'operands must have two components';
      }
      const batch = [x, y].map((type) => ({ ...type, axes: withoutAxes(type.axes, [componentAxis]) }));
      const type = summed(joined(batch, 'ntt'), attrs);
      return typeof type === 'string'
        ? type
        : { ...type, axes: [...type.axes, { name: componentAxis, size: 3 }] };
    },
  ),
  command('poly.ntt', ['a'], 'coefficients to NTT form', {}, (types) => {
    const type = joined(types, 'coeff');
    return typeof type === 'string' ? type : { ...type, form: 'ntt' };
  }),
  command('poly.intt', ['a'], 'NTT form to coefficients', {}, (types) => {
    const type = joined(types, 'ntt');
    return typeof type === 'string' ? type : { ...type, form: 'coeff' };
  }),
  command(
    'poly.base_convert',
    ['a'],
    'centred base conversion from the limbs of a',
    { limbs: { kind: 'ints', doc: 'destination prime indices' } },
    (types, attrs) => {
      const type = joined(types, 'coeff');
      return typeof type === 'string' ? type : { ...type, limbs: attrs.limbs as readonly number[] };
    },
  ),
  command(
    'poly.sub_scale',
    ['a', 'b'],
    '(a - b) * scalar on each limb',
    { scalars: { kind: 'ints', doc: 'one per limb' } },
    (types, attrs) => {
      const type = joined(types);
      if (typeof type === 'string') return type;
      const count = (attrs.scalars as readonly number[]).length;
      return count === type.limbs.length ? type : `${count} scalars for ${type.limbs.length} limbs`;
    },
  ),
  command(
    'poly.key_product',
    ['digits'],
    'inner product of digits and switching keys: two components',
    {
      key: { kind: 'string', doc: '`relinearize`, `galois`, `to_sparse` or `to_dense`' },
      class: { kind: 'string', doc: 'name of the key class' },
      galois: {
        kind: 'ints',
        doc: 'Galois element of entry i + iteration * (size of axis); [0] for other keys',
      },
      axis: {
        kind: 'string',
        optional: true,
        doc: 'axis along which the key changes; added last if the digits lack it',
      },
      level: { kind: 'int', optional: true, doc: 'highest chain limb, where a rank holds only some limbs' },
      firstDigit: { kind: 'int', optional: true, doc: 'digit of the key that the first of `digits` meets' },
      ...overAttr,
      ...accumulateAttr,
    },
    keyProduct,
  ),
  command(
    'poly.automorphism',
    ['a'],
    'X -> X^galois, summed over axes',
    {
      galois: { kind: 'ints', doc: 'entry i + iteration * (size of axis), of the innermost loop' },
      axis: { kind: 'string', optional: true, doc: 'axis along which the element changes' },
      ...overAttr,
      ...accumulateAttr,
    },
    (types, attrs) => {
      const type = joined(types, 'ntt');
      if (typeof type === 'string') return type;
      return entriesProblem(type.axes, attrs) ?? summed(type, attrs);
    },
  ),
];

function entriesProblem(axes: readonly Axis[], attrs: Attrs): string | undefined {
  const entries = (attrs.galois as readonly number[]).length;
  const size = typeof attrs.axis === 'string' ? axisSize(axes, attrs.axis) : 1;
  if (size === undefined) return `no axis ${String(attrs.axis)}`;
  return entries > 0 && entries % size === 0 ? undefined : `${entries} galois entries for ${size} indices`;
}

function keyProduct(types: readonly Type[], attrs: Attrs, { parameters }: InferContext): PolyType | string {
  const digits = joined(types, 'ntt');
  if (typeof digits === 'string') return digits;
  const keyClass = parameters?.keyClasses.find((c) => c.name === attrs.class);
  if (parameters === null || keyClass === undefined) return `unknown key class ${String(attrs.class)}`;
  const problem = digitsProblem(digits, keyClass, parameters, attrs);
  if (problem !== undefined) return problem;
  let axes = withoutAxes(digits.axes, [digitAxis]);
  const axis = attrs.axis;
  if (typeof axis === 'string' && axisSize(axes, axis) === undefined) {
    // A new axis is outside loops or the same in every iteration: its size is the number of entries.
    axes = [...axes, { name: axis, size: (attrs.galois as readonly number[]).length }];
  }
  const result = entriesProblem(axes, attrs) ?? summed({ ...digits, axes }, attrs);
  return typeof result === 'string'
    ? result
    : { ...result, axes: [...result.axes, { name: componentAxis, size: 2 }] };
}

/**
 * Digits must be those of the class, on limbs q_0..q_level and all special primes of the class; a rank has
 * some.
 */
function digitsProblem(
  type: PolyType,
  keyClass: KeyClass,
  parameters: Parameters,
  attrs: Attrs,
): string | undefined {
  const specials = specialLimbs(parameters, keyClass.specials);
  const level = (attrs.level as number | undefined) ?? type.limbs.length - specials.length - 1;
  const wanted = [...limbRange(0, level + 1), ...specials];
  const part = attrs.level !== undefined;
  const fits = part ? type.limbs.every((limb) => wanted.includes(limb)) : wanted.join() === type.limbs.join();
  if (level < 0 || level > keyClass.level || !fits) {
    return `limbs [${type.limbs.join()}] do not fit key class ${keyClass.name}`;
  }
  const count = digitsAt(keyClass, level).length;
  const given = defined(axisSize(type.axes, digitAxis), 'digit axis');
  const first = attrs.firstDigit as number | undefined;
  if (first === undefined ? given === count : first + given <= count) return undefined;
  return `key class ${keyClass.name} has ${count} digits at level ${level}, not ${given}`;
}

function view(
  name: string,
  summary: string,
  attrs: OpDef['attrs'],
  infer: (a: PolyType, attrs: Attrs) => PolyType | string,
): OpDef {
  return {
    name,
    phase: 'poly',
    operands: ['a'],
    summary,
    attrs,
    infer: ([a], given) => {
      if (!isPoly(a)) return 'operand 0 must be a polynomial array';
      const type = infer(a, given);
      return typeof type === 'string' ? type : [type];
    },
  };
}

const views: readonly OpDef[] = [
  view(
    'poly.index',
    'one index of an axis; the axis goes',
    {
      axis: { kind: 'string', doc: 'existing axis' },
      index: { kind: 'int', doc: 'index in the first iteration' },
      loopStride: { kind: 'int', optional: true, doc: 'added per iteration of the innermost enclosing loop' },
    },
    (a, attrs) => {
      const size = axisSize(a.axes, attrs.axis as string);
      const index = attrs.index as number;
      if (size === undefined || index < 0 || index >= size) {
        return `no index ${index} on axis ${String(attrs.axis)}`;
      }
      const moves = (attrs.loopStride ?? 0) !== 0;
      const type = { ...a, axes: withoutAxes(a.axes, [attrs.axis as string]) };
      return viewed(type, a, (sharding) => indexedSharding(sharding, attrs.axis as string, index, moves));
    },
  ),
  view(
    'poly.slice',
    'indices start .. start+size-1 of an axis',
    {
      axis: { kind: 'string', doc: 'existing axis' },
      start: { kind: 'int', doc: 'first index' },
      size: { kind: 'int', doc: 'number of indices' },
    },
    (a, attrs) => {
      const [start, size] = [attrs.start as number, attrs.size as number];
      const type = windowType(a, { axes: { [attrs.axis as string]: [start, size] } });
      if (typeof type === 'string') return type;
      return viewed(type, a, (sharding) => slicedSharding(sharding, attrs.axis as string, start, size));
    },
  ),
  view(
    'poly.limbs',
    'some limbs, evenly spaced in memory',
    { limbs: { kind: 'ints', doc: 'prime indices' } },
    (a, attrs) => windowType(a, { limbs: attrs.limbs as readonly number[] }),
  ),
  view(
    'poly.reshape',
    'same elements in row-major order under other axes; a copy where strides do not allow it',
    { axes: { kind: 'axes', doc: 'new axes' } },
    (a, attrs) => {
      const axes = attrs.axes as unknown as readonly Axis[];
      if (axesCount(axes) !== axesCount(a.axes)) {
        return `${axesCount(a.axes)} elements do not fill ${axesCount(axes)}`;
      }
      return viewed({ ...a, axes }, a, (sharding) => reshapedSharding(sharding, a.axes, axes));
    },
  ),
  view(
    'poly.part',
    "each rank's part, under another sharding, of what it holds already; nothing is communicated",
    { sharding: { kind: 'json', doc: 'per mesh axis' } },
    (a, attrs) => {
      const sharding = attrs.sharding as unknown as readonly Sharding[];
      const m = sharding.findIndex((to, i) => !canView(a, onAxis(a.sharding, i), to));
      return m < 0 ? resharded(a, sharding) : `the part on mesh axis ${m} would need communication`;
    },
  ),
];

/** A view keeps what its operand's owners hold. */
function viewed(
  type: PolyType,
  a: PolyType,
  rule: (sharding: Sharding) => Sharding | string,
): PolyType | string {
  const sharding: Sharding[] = [];
  for (const old of a.sharding) {
    const result = rule(old);
    if (typeof result === 'string') return result;
    sharding.push(result);
  }
  return { ...type, sharding: canonical(sharding) };
}

export const polyOps: readonly OpDef[] = [
  ...commands,
  {
    name: 'poly.undefined',
    phase: 'poly',
    operands: [],
    attrs: { ...shapeAttrs, ...shardingAttr },
    infer: (_, attrs) => {
      const type = resharded(shape(attrs), (attrs.sharding ?? []) as unknown as readonly Sharding[]);
      return typeof type === 'string' ? type : [type];
    },
    summary: 'memory for an array that is made piece by piece; every piece is written before it is read',
  },
  ...views,
  ...collectiveOps,
  {
    name: 'poly.residues',
    phase: 'poly',
    operands: [],
    summary: 'one integer constant, given by its residues',
    attrs: { limbs: { kind: 'ints', doc: 'prime indices' }, residues: { kind: 'ints', doc: 'one per limb' } },
    infer: (_, attrs) =>
      (attrs.limbs as unknown[]).length === (attrs.residues as unknown[]).length
        ? [exactPlain(1, false)]
        : 'one residue per limb is needed',
  },
  {
    name: 'poly.monomial',
    phase: 'poly',
    operands: [],
    summary: 'the monomial X^power; power N/2 is the imaginary unit',
    attrs: { power: { kind: 'int', doc: 'exponent' } },
    infer: () => [exactPlain(1, true)],
  },
];

function exactPlain(period: number, complex: boolean): PtType {
  return { kind: 'pt', axes: [], period, complex };
}

/** Views share the memory of their operand. */
export const viewKinds: ReadonlySet<string> = new Set(views.map((def) => def.name));

/** Operands of a command before `into`; undefined for kinds that are not commands. */
export function commandArity(kind: string): number | undefined {
  const def = commands.find((other) => other.name === kind);
  return def === undefined ? undefined : def.operands.length - 1;
}

export function limbRange(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => first + i);
}

/** The first `count` special primes: they form one nested list. */
export function specialLimbs(parameters: Parameters, count: number): number[] {
  return limbRange(parameters.maxLevel + 1, count);
}
