/**
 * Hybrid key switching in poly ops (DESIGN section 3): ModUp of digits, product with the key, ModDown;
 * rotations with the product first and the automorphism afterwards. docs/passes/lower-keyswitch.md states
 * every rule that fixes bits.
 */
import { defined, invariant } from '../../support/invariant.js';
import { keyClassFor, type KeyClass } from '../../target/parameters.js';
import type { Attrs, Op, Value } from '../../ir/module.js';
import { componentAxis, digitGroupAxis, limbRange, specialLimbs } from '../../ir/ops/poly.js';
import type { Window } from '../../ir/ops/poly-array.js';
import { onAxis, partial, sameSharding, slicedSharding } from '../../ir/sharding.js';
import { axisSize, withoutAxes, type Axis, type PolyType, type Sharding } from '../../ir/types.js';
import { fillGroups, modUp, undefinedGroups, zeroGroups, type Digits, type SwitchForm } from './decompose.js';
import { inverseMod, levelOf, polyOf, shapeOf, shardingOf, type Scope } from './scope.js';

function classNamed(s: Scope, name: string): KeyClass {
  return defined(
    s.parameters.keyClasses.find((c) => c.name === name),
    `key class ${name}`,
  );
}

/** Divides by the product of the special primes, rounding to nearest: limbs q + P to limbs q. */
export function modDown(s: Scope, value: Value, specials: number): Value {
  const special = specialLimbs(s.parameters, specials);
  const limbs = polyOf(value).limbs.slice(0, -specials);
  return divide(s, value, special, limbs);
}

/** Divides by the last prime, rounding to nearest, and drops it. */
export function rescale(s: Scope, value: Value): Value {
  const level = levelOf(value);
  return divide(s, value, [level], limbRange(0, level));
}

/** (a - a mod D) / D on `limbs`, D the product of the primes `divided`, with the centred remainder. */
function divide(s: Scope, value: Value, divided: readonly number[], limbs: readonly number[]): Value {
  const coefficients = s.allLimbs(s.op('poly.intt', [s.limbs(value, divided)]));
  const attrs = { limbs, ...shardingOf(polyOf(value)) };
  const converted = s.op('poly.base_convert', [coefficients], attrs);
  const remainder = s.op('poly.ntt', [converted]);
  const divisor = divided.reduce((product, limb) => product * s.prime(limb), 1n);
  const scalars = limbs.map((limb) => Number(inverseMod(divisor, s.prime(limb))));
  return s.op('poly.sub_scale', [s.limbs(value, limbs), remainder], { scalars });
}

/** A value of basis qp before its ModDown. */
export interface Undivided {
  readonly sum: Value;
  readonly specials: number;
}

/**
 * factor * x / P, rounded, then divided by the last prime q_l and rounded: the residues that modDown, add and
 * rescale give, with one transform of the limbs that stay. With c the centred remainder of x modulo P and r
 * that of factor (x - c) / P modulo q_l, both as coefficients,
 *   ((x - c) / P * factor - r) / q_l = (x - (c + (P / factor) r)) * factor / (P q_l)  modulo q_j, j < l.
 */
export function divideTwice(s: Scope, { sum, specials }: Undivided, factor: 1 | 2): Value {
  const special = specialLimbs(s.parameters, specials);
  const last = polyOf(sum).limbs.length - specials - 1;
  const [lastLimb, limbs] = [[last], limbRange(0, last)];
  const product = special.reduce((p, limb) => p * s.prime(limb), 1n);
  const scalarAt = (divisor: bigint, limb: number): number =>
    Number((BigInt(factor) * inverseMod(divisor, s.prime(limb))) % s.prime(limb));

  const coefficients = s.op('poly.intt', [s.limbs(sum, [last, ...special])]);
  const ofSpecials = s.limbs(coefficients, special);
  const atLast = s.op('poly.base_convert', [ofSpecials], { limbs: lastLimb });
  const quotient = s.op('poly.sub_scale', [s.limbs(coefficients, lastLimb), atLast], {
    scalars: [scalarAt(product, last)],
  });
  const converted = s.op('poly.base_convert', [ofSpecials], { limbs });
  const remainder = s.op('poly.base_convert', [quotient], { limbs });
  const weight = s.residues(limbs, (prime) => product * inverseMod(BigInt(factor), prime));
  const options = { over: [], scale: 1, accumulate: true };
  const both = s.op('poly.ntt', [s.into('poly.contract', [remainder, weight], converted, {}, options)]);
  const scalars = limbs.map((limb) => scalarAt(product * s.prime(last), limb));
  return s.op('poly.sub_scale', [s.limbs(sum, limbs), both], { scalars });
}

/** Shardings of sums of products of digits: complete, as the array `like` lies. */
function completed(value: Value, like: readonly Sharding[]): readonly Sharding[] {
  return polyOf(value).sharding.map((one, m) => (one.kind === 'partial' ? onAxis(like, m) : one));
}

/** Two components [axes..][component] of c under the key, after ModDown. */
function keySwitch(
  s: Scope,
  c: Value,
  keyClass: KeyClass,
  key: 'relinearize' | 'to_sparse' | 'to_dense',
  form: SwitchForm,
): Value {
  const attrs = { key, class: keyClass.name, galois: [0], over: [] };
  const digits = modUp(s, c, keyClass, form);
  const { sharding } = polyOf(c);
  if (digits.groups !== undefined) return groupedProduct(s, digits, polyOf(c).axes, attrs, sharding);
  const product = s.op('poly.key_product', [digits.value], attrs);
  return modDown(s, s.lay(product, completed(product, sharding)), keyClass.specials);
}

/** Key products of each group of digits, divided by P, then added, complete as `sharding` says. */
function groupedProduct(
  s: Scope,
  digits: Digits,
  axes: readonly Axis[],
  attrs: Attrs,
  sharding: readonly Sharding[],
): Value {
  const type = { ...polyOf(digits.value), axes: [...axes, { name: componentAxis, size: 2 }], sharding };
  const sums = fillGroups(s, digits, undefinedGroups(s, digits, type), (part, first, target, window) =>
    s.into('poly.key_product', [part], target, window, {
      ...attrs,
      ...first,
      ...sharedWork(polyOf(part).sharding, sharding),
    }),
  );
  return sumOfQuotients(s, sums, digits.keyClass, sharding);
}

/** ModDown of the partial sums of all groups, then their sum. */
function sumOfQuotients(s: Scope, sums: Value, keyClass: KeyClass, sharding: readonly Sharding[]): Value {
  const quotients = modDown(s, s.lay(sums, completed(sums, sharding)), keyClass.specials);
  const total = s.op('poly.copy', [quotients], { over: [digitGroupAxis] });
  return s.lay(total, sharding);
}

/**
 * How work on `operand` is shared so that it comes out as `sharding` says, where the operand is replicated.
 */
function sharedWork(operand: readonly Sharding[], sharding: readonly Sharding[]): Attrs {
  const asked = sharding.map((one, m) =>
    onAxis(operand, m).kind === 'replicated' ? one : onAxis(operand, m),
  );
  return shardingOf({ sharding: asked });
}

// ---------------------------------------------------------------- rotations

/** The Galois element of a rotation to the left by `step` slots: 5^step mod 2N. */
function galoisOf(s: Scope, step: number): number {
  const order = 2n << BigInt(s.parameters.logN);
  let [result, base] = [1n, 5n];
  for (let e = BigInt(normalStep(s, step)); e > 0n; e >>= 1n) {
    if (e & 1n) result = (result * base) % order;
    base = (base * base) % order;
  }
  return Number(result);
}

function normalStep(s: Scope, step: number): number {
  const { slots } = s.parameters;
  return ((step % slots) + slots) % slots;
}

interface Run {
  readonly start: number;
  readonly size: number;
  readonly rotated: boolean;
}

/** Neighbouring steps that are all zero or all not. */
function runsOf(steps: readonly number[], rotated: (step: number) => boolean): Run[] {
  const runs: Run[] = [];
  steps.forEach((step, i) => {
    const last = runs.at(-1);
    if (last !== undefined && last.rotated === rotated(step)) {
      runs[runs.length - 1] = { ...last, size: last.size + 1 };
    } else runs.push({ start: i, size: 1, rotated: rotated(step) });
  });
  return runs;
}

/** P * a on the q limbs of `target`, added there; `axes` as in a window. */
function addLifted(
  s: Scope,
  a: Value,
  target: Value,
  keyClass: KeyClass,
  axes: Record<string, readonly [number, number]>,
  options: { over?: readonly string[]; accumulate: boolean },
): Value {
  const product = specialLimbs(s.parameters, keyClass.specials).reduce((p, limb) => p * s.prime(limb), 1n);
  const limbs = polyOf(a).limbs;
  return s.into(
    'poly.contract',
    [a, s.integer(limbs, product)],
    target,
    { axes, limbs },
    { over: options.over ?? [], scale: 1, accumulate: options.accumulate },
  );
}

interface Turn {
  readonly galois: readonly number[];
  /** Axis along which the element changes. */
  readonly axis?: string;
}

function turnAttrs(turn: Turn): Attrs {
  return turn.axis === undefined ? { galois: turn.galois } : { galois: turn.galois, axis: turn.axis };
}

const firstComponent = { axes: { [componentAxis]: [0, 1] } } as const;

/**
 * Key product of digits plus P*c0, in limbs q + P: what the automorphism is applied to. `shared`: among
 * ranks.
 */
function rotationProduct(s: Scope, c0: Value, digits: Digits, turn: Turn, shared: Attrs = {}): Value {
  const product = s.op('poly.key_product', [digits.value], { ...rotationKey(digits, turn), ...shared });
  return addLifted(s, c0, product, digits.keyClass, firstComponent.axes, { accumulate: true });
}

function rotationKey(digits: Digits, turn: Turn): Attrs {
  return { key: 'galois', class: digits.keyClass.name, over: [], ...turnAttrs(turn) };
}

/** The same after ModDown. `axes`: of the products, `component` aside. */
function rotationQuotient(
  s: Scope,
  c0: Value,
  digits: Digits,
  turn: Turn,
  axes: readonly Axis[],
  sharding: readonly Sharding[],
): Value {
  if (digits.groups === undefined) {
    const shared = sharedWork(polyOf(digits.value).sharding, sharding);
    const product = rotationProduct(s, c0, digits, turn, shared);
    return modDown(s, s.lay(product, completed(product, sharding)), digits.keyClass.specials);
  }
  const quotient = groupedProduct(s, digits, axes, rotationKey(digits, turn), sharding);
  // (P c0 + x) / P = c0 + x / P, exactly.
  return s.into('poly.copy', [c0], quotient, firstComponent, { over: [], accumulate: true });
}

function turned(s: Scope, value: Value, turn: Turn, over: readonly string[] = []): Value {
  return s.op('poly.automorphism', [value], { ...turnAttrs(turn), over });
}

export function conjugate(s: Scope, a: Value, form: SwitchForm): Value {
  const keyClass = keyClassFor(s.parameters, levelOf(a));
  const turn = { galois: [2 ** (s.parameters.logN + 1) - 1] };
  const [c0, c1] = [s.component(a, 0), s.component(a, 1)];
  const digits = modUp(s, c1, keyClass, form);
  return turned(s, rotationQuotient(s, c0, digits, turn, polyOf(c0).axes, polyOf(a).sharding), turn);
}

/** ct.rotate: one ModUp for all steps. */
export function rotate(s: Scope, op: Op, a: Value, result: PolyType, form: SwitchForm): Value {
  const { axis, lazy } = op.attrs as { axis: string; lazy?: string };
  const steps = op.attrs.steps as readonly number[];
  const keyClass = lazy === undefined ? keyClassFor(s.parameters, levelOf(a)) : classNamed(s, lazy);
  const runs = runsOf(steps, (step) => normalStep(s, step) !== 0);
  const found = runs.some((run) => run.rotated) ? modUp(s, s.component(a, 1), keyClass, form) : undefined;
  const product = (run: Run): Value => {
    const sharding = result.sharding.map((one) => slicedSharding(one, axis, run.start, run.size));
    const c0 = s.component(a, 0);
    const digits = defined(found, 'digits');
    const turn = turnOf(run);
    if (lazy === undefined) {
      const axes = [...polyOf(c0).axes, { name: axis, size: run.size }];
      return rotationQuotient(s, c0, digits, turn, axes, sharding);
    }
    const shared = sharedWork(polyOf(digits.value).sharding, sharding);
    const value = rotationProduct(s, c0, digits, turn, shared);
    return s.lay(value, completed(value, sharding));
  };
  const turnOf = (run: Run): Turn => ({
    axis,
    galois: steps.slice(run.start, run.start + run.size).map((step) => galoisOf(s, step)),
  });

  const [only, second] = runs;
  if (only?.rotated === true && second === undefined) return turned(s, product(only), turnOf(only));
  let out = s.undefined(result);
  for (const run of runs) {
    const axes = { [axis]: [run.start, run.size] as const };
    if (run.rotated) {
      const attrs = { ...turnAttrs(turnOf(run)), over: [] };
      out = s.into('poly.automorphism', [product(run)], out, { axes }, attrs);
    } else if (lazy === undefined) out = s.into('poly.copy', [a], out, { axes }, { over: [] });
    else out = liftedInto(s, a, out, keyClass, axes);
  }
  return out;
}

/** The unrotated element in basis qp: P*c on the q limbs, zero on the special limbs. */
function liftedInto(
  s: Scope,
  a: Value,
  out: Value,
  keyClass: KeyClass,
  axes: Record<string, readonly [number, number]>,
): Value {
  const special = specialLimbs(s.parameters, keyClass.specials);
  const lifted = addLifted(s, a, out, keyClass, axes, { accumulate: false });
  const nothing = shapeOf({ ...polyOf(a), axes: [], limbs: special, sharding: [] });
  return s.into('poly.zero', [], lifted, { axes, limbs: special }, nothing);
}

interface RotateEach {
  readonly a: Value;
  readonly axis: string;
  readonly keyClass: KeyClass;
  readonly runs: readonly Run[];
  readonly turnOf: (run: Run) => Turn;
  readonly form: SwitchForm;
  readonly result: PolyType;
}

/**
 * ct.rotate_each: one ModUp and one key per element; with `sum` the sum is made in basis qp, before one
 * ModDown (or one per group of digits).
 */
export function rotateEach(s: Scope, op: Op, a: Value, result: PolyType, form: SwitchForm): Value {
  const site = rotateEachSite(s, op, a, result, form);
  const { axis, runs } = site;
  if (op.attrs.sum !== true) return rotateEachApart(s, site);
  const turning = runs.filter((run) => run.rotated);
  const first = turning[0];
  // Nothing is rotated: P*c, then ModDown, would give c back exactly.
  if (first === undefined) return s.lay(s.op('poly.copy', [a], { over: [axis] }), result.sharding);
  const own = runDigits(s, site, first);
  const digitsOf = (run: Run): Digits => (run === first ? own : runDigits(s, site, run));
  if (own.groups !== undefined) return rotateEachGrouped(s, site, turning, digitsOf);
  const sum = rotateEachSum(s, site, turning, digitsOf);
  // A sum over a sharded axis, or of digits of several ranks, is completed before it is rounded.
  return modDown(s, s.lay(sum, result.sharding), site.keyClass.specials);
}

/** ct.rotate_each {sum} on one rank before its ModDown; some element is rotated. */
export function rotateEachUndivided(
  s: Scope,
  op: Op,
  a: Value,
  result: PolyType,
  form: SwitchForm,
): Undivided {
  const site = rotateEachSite(s, op, a, result, form);
  const turning = site.runs.filter((run) => run.rotated);
  const sum = rotateEachSum(s, site, turning, (run) => runDigits(s, site, run));
  return { sum, specials: site.keyClass.specials };
}

function rotateEachSite(s: Scope, op: Op, a: Value, result: PolyType, form: SwitchForm): RotateEach {
  const axis = op.attrs.axis as string;
  const steps = op.attrs.steps as readonly number[];
  const stride = (op.attrs.loopStride ?? 0) as number;
  const keyClass = keyClassFor(s.parameters, levelOf(a));
  // With a loop stride a step may be zero in some iterations only: the key of element 1 then switches s to s.
  const runs = runsOf(steps, (step) => stride !== 0 || normalStep(s, step) !== 0);
  const turnOf = (run: Run): Turn => {
    const own = steps.slice(run.start, run.start + run.size);
    const iterations = limbRange(0, stride === 0 ? 1 : s.tripCount);
    return { axis, galois: iterations.flatMap((i) => own.map((step) => galoisOf(s, step + i * stride))) };
  };
  return { a, axis, keyClass, runs, turnOf, form, result };
}

function elementsOf(s: Scope, { a, axis }: RotateEach, run: Run): Value {
  return s.slice(a, axis, run.start, run.size);
}

function runDigits(s: Scope, site: RotateEach, run: Run): Digits {
  return modUp(s, s.component(elementsOf(s, site, run), 1), site.keyClass, site.form);
}

type DigitsOf = (run: Run) => Digits;

/** In basis qp. */
function rotateEachSum(s: Scope, site: RotateEach, turning: readonly Run[], digitsOf: DigitsOf): Value {
  const { axis, keyClass, runs, turnOf } = site;
  let sum: Value | undefined;
  for (const run of turning) {
    const turn = turnOf(run);
    const digits = digitsOf(run);
    const product = rotationProduct(s, s.component(elementsOf(s, site, run), 0), digits, turn);
    const attrs = { ...turnAttrs(turn), over: [axis], accumulate: true };
    sum =
      sum === undefined
        ? turned(s, product, turn, [axis])
        : s.into('poly.automorphism', [product], sum, {}, attrs);
  }
  let total = defined(sum, 'sum of rotations');
  for (const run of runs.filter((r) => !r.rotated)) {
    const options = { over: [axis], accumulate: true };
    total = addLifted(s, elementsOf(s, site, run), total, keyClass, {}, options);
  }
  return total;
}

/** Sums over elements of each group of digits, their ModDowns added, then what needs no key. */
function rotateEachGrouped(s: Scope, site: RotateEach, turning: readonly Run[], digitsOf: DigitsOf): Value {
  const { a, axis, keyClass, runs, turnOf, result } = site;
  let sums: Value | undefined;
  for (const run of turning) {
    const turn = turnOf(run);
    const digits = digitsOf(run);
    const type = groupType(a, axis, polyOf(digits.value).limbs);
    // A rank without elements of a run adds nothing to its partial sum, which is zero then.
    const shared = type.sharding.some((one) => one.kind === 'partial');
    const target = sums ?? (shared ? zeroGroups : undefinedGroups)(s, digits, type);
    const attrs = { ...turnAttrs(turn), over: [axis], accumulate: shared || sums !== undefined };
    sums = fillGroups(s, digits, target, (part, first, out, window) => {
      const product = s.op('poly.key_product', [part], { ...rotationKey(digits, turn), ...first });
      return s.into('poly.automorphism', [product], out, window, attrs);
    });
  }
  let total = sumOfQuotients(s, defined(sums, 'sums of groups'), keyClass, result.sharding);
  for (const run of runs) {
    const part = elementsOf(s, site, run);
    total = run.rotated
      ? addSum(s, 'poly.automorphism', s.component(part, 0), total, firstComponent, {
          ...turnAttrs(turnOf(run)),
          over: [axis],
        })
      : addSum(s, 'poly.copy', part, total, {}, { over: [axis] });
  }
  return total;
}

/** Sum over an axis of products in `limbs`. */
function groupType(a: Value, axis: string, limbs: readonly number[]): PolyType {
  const type = polyOf(a);
  const sharding = type.sharding.map((one): Sharding =>
    one.kind === 'split' && one.axis === axis ? partial : one,
  );
  return { ...type, axes: withoutAxes(type.axes, [axis]), limbs, sharding };
}

/** Adds what a command makes of `a`, summed over an axis, to a window of `target`. */
function addSum(s: Scope, kind: string, a: Value, target: Value, window: Window, attrs: Attrs): Value {
  const { sharding } = polyOf(target);
  const alike = polyOf(a).sharding.every(
    (one, m) => one.kind === 'replicated' || sameSharding(one, onAxis(sharding, m)),
  );
  if (alike) return s.into(kind, [a], target, window, { ...attrs, accumulate: true });
  const sum = s.lay(s.op(kind, [a], attrs), sharding);
  return s.into('poly.copy', [sum], target, window, { over: [], accumulate: true });
}

function rotateEachApart(s: Scope, site: RotateEach): Value {
  const { a, axis, runs, turnOf, result } = site;
  const quotient = (run: Run): Value => {
    const own = elementsOf(s, site, run);
    const c0 = s.component(own, 0);
    const digits = runDigits(s, site, run);
    return rotationQuotient(s, c0, digits, turnOf(run), polyOf(c0).axes, polyOf(own).sharding);
  };
  const [only, second] = runs;
  if (only?.rotated === true && second === undefined) return turned(s, quotient(only), turnOf(only));
  let out = s.undefined(result);
  for (const run of runs) {
    const axes = { [axis]: [run.start, run.size] as const };
    out = run.rotated
      ? s.into('poly.automorphism', [quotient(run)], out, { axes }, { ...turnAttrs(turnOf(run)), over: [] })
      : s.into('poly.copy', [s.slice(a, axis, run.start, run.size)], out, { axes }, { over: [] });
  }
  return out;
}

// ---------------------------------------------------------------- bootstrapping

/** Centred residues modulo q_0 on every limb of the chain. */
export function modRaise(s: Scope, a: Value): Value {
  invariant(levelOf(a) === 0, 'ct.mod_raise takes level 0');
  const coefficients = s.allLimbs(s.op('poly.intt', [a]));
  const raised = s.op('poly.base_convert', [coefficients], {
    limbs: limbRange(0, s.parameters.maxLevel + 1),
    ...shardingOf(polyOf(a)),
  });
  return s.op('poly.ntt', [raised]);
}

export function switchSecret(s: Scope, a: Value, to: string, form: SwitchForm): Value {
  invariant(to === 'sparse' || to === 'dense', `unknown secret ${to}`);
  const [keyClass, key] =
    to === 'sparse'
      ? [classNamed(s, 'sparse'), 'to_sparse' as const]
      : [classNamed(s, 'top'), 'to_dense' as const];
  const switched = keySwitch(s, s.component(a, 1), keyClass, key, form);
  return s.into(
    'poly.copy',
    [s.component(a, 0)],
    switched,
    { axes: { [componentAxis]: [0, 1] } },
    { over: [], accumulate: true },
  );
}

export function relinearize(s: Scope, a: Value, form: SwitchForm): Value {
  invariant(axisSize(polyOf(a).axes, componentAxis) === 3, 'ct.relinearize takes three components');
  const keyClass = keyClassFor(s.parameters, levelOf(a));
  const switched = keySwitch(s, s.component(a, 2), keyClass, 'relinearize', form);
  return s.op('poly.add', [s.slice(a, componentAxis, 0, 2), switched]);
}

/** `relinearize` before its ModDown: the key product plus P (c0, c1). */
export function relinearizeUndivided(s: Scope, a: Value, form: SwitchForm): Undivided {
  const keyClass = keyClassFor(s.parameters, levelOf(a));
  const digits = modUp(s, s.component(a, 2), keyClass, form);
  const attrs = { key: 'relinearize', class: keyClass.name, galois: [0], over: [] };
  const product = s.op('poly.key_product', [digits.value], attrs);
  const others = s.slice(a, componentAxis, 0, 2);
  const sum = addLifted(s, others, product, keyClass, {}, { accumulate: true });
  return { sum, specials: keyClass.specials };
}

/**
 * Times the integer nearest to `factor` on limbs 0..level+1, then a rescale: the result has level `level`.
 */
export function adjust(s: Scope, a: Value, level: number, factor: number): Value {
  invariant(factor >= 1 && factor < 2 ** 53, `adjusting factor ${factor} is not an exact integer`);
  const limbs = limbRange(0, level + 2);
  const constant = s.integer(limbs, BigInt(Math.round(factor)));
  return rescale(s, s.op('poly.contract', [s.limbs(a, limbs), constant], { over: [], scale: 1 }));
}
