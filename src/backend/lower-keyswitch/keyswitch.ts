/**
 * Hybrid key switching in poly ops (DESIGN section 3): ModUp of digits, product with the key, ModDown;
 * rotations with the product first and the automorphism afterwards. docs/passes/lower-keyswitch.md states
 * every rule that fixes bits.
 */
import { defined, invariant } from '../../support/invariant.js';
import { digitsAt, keyClassFor, type KeyClass } from '../../target/parameters.js';
import type { Attrs, Op, Value } from '../../ir/module.js';
import { componentAxis, digitAxis, limbRange, specialLimbs } from '../../ir/ops/poly.js';
import { axisSize, type PolyType } from '../../ir/types.js';
import { inverseMod, polyOf, shapeOf, type Scope } from './scope.js';

/** Level of an array without special limbs. */
export function levelOf(value: Value): number {
  return polyOf(value).limbs.length - 1;
}

function classNamed(s: Scope, name: string): KeyClass {
  return defined(
    s.parameters.keyClasses.find((c) => c.name === name),
    `key class ${name}`,
  );
}

/**
 * Digits [axes..][digit] of an array of single polynomials, on its own limbs and the special primes of the
 * class.
 */
export function modUp(s: Scope, c: Value, keyClass: KeyClass): Value {
  const type = polyOf(c);
  const level = levelOf(c);
  invariant(
    level <= keyClass.level,
    `key class ${keyClass.name} ends at level ${keyClass.level}, not ${level}`,
  );
  const digits = digitsAt(keyClass, level);
  const limbs = [...type.limbs, ...specialLimbs(s.parameters, keyClass.specials)];
  const coefficients = s.op('poly.intt', [c]);
  let out = s.undefined({ ...type, limbs, axes: [...type.axes, { name: digitAxis, size: digits.length }] });
  digits.forEach(({ first, count }, digit) => {
    const own = limbRange(first, count);
    const axes = { [digitAxis]: [digit, 1] as const };
    out = s.into('poly.copy', [s.limbs(c, own)], out, { axes, limbs: own }, { over: [] });
    // The limbs before and after the digit are two runs in memory.
    for (const others of [limbs.slice(0, first), limbs.slice(first + count)]) {
      if (others.length === 0) continue;
      const converted = s.op('poly.base_convert', [s.limbs(coefficients, own)], { limbs: others });
      out = s.into('poly.ntt', [converted], out, { axes, limbs: others });
    }
  });
  return out;
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
  const coefficients = s.op('poly.intt', [s.limbs(value, divided)]);
  const converted = s.op('poly.base_convert', [coefficients], { limbs });
  const remainder = s.op('poly.ntt', [converted]);
  const divisor = divided.reduce((product, limb) => product * s.prime(limb), 1n);
  const scalars = limbs.map((limb) => Number(inverseMod(divisor, s.prime(limb))));
  return s.op('poly.sub_scale', [s.limbs(value, limbs), remainder], { scalars });
}

/** Two components [axes..][component] of c under the key, after ModDown. */
function keySwitch(
  s: Scope,
  c: Value,
  keyClass: KeyClass,
  key: 'relinearize' | 'to_sparse' | 'to_dense',
): Value {
  const product = s.op('poly.key_product', [modUp(s, c, keyClass)], {
    key,
    class: keyClass.name,
    galois: [0],
    over: [],
  });
  return modDown(s, product, keyClass.specials);
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

/** Key product of the digits of c1 plus P*c0: what the automorphism is applied to, in limbs q + P. */
function rotationProduct(s: Scope, c0: Value, digits: Value, keyClass: KeyClass, turn: Turn): Value {
  const attrs = { key: 'galois', class: keyClass.name, over: [], ...turnAttrs(turn) };
  const product = s.op('poly.key_product', [digits], attrs);
  return addLifted(s, c0, product, keyClass, { [componentAxis]: [0, 1] }, { accumulate: true });
}

function turned(s: Scope, value: Value, turn: Turn, over: readonly string[] = []): Value {
  return s.op('poly.automorphism', [value], { ...turnAttrs(turn), over });
}

export function conjugate(s: Scope, a: Value): Value {
  const keyClass = keyClassFor(s.parameters, levelOf(a));
  const turn = { galois: [2 ** (s.parameters.logN + 1) - 1] };
  const digits = modUp(s, s.component(a, 1), keyClass);
  const product = rotationProduct(s, s.component(a, 0), digits, keyClass, turn);
  return turned(s, modDown(s, product, keyClass.specials), turn);
}

/** ct.rotate: one ModUp for all steps. */
export function rotate(s: Scope, op: Op, a: Value, result: PolyType): Value {
  const { axis, lazy } = op.attrs as { axis: string; lazy?: string };
  const steps = op.attrs.steps as readonly number[];
  const keyClass = lazy === undefined ? keyClassFor(s.parameters, levelOf(a)) : classNamed(s, lazy);
  const runs = runsOf(steps, (step) => normalStep(s, step) !== 0);
  const digits = runs.some((run) => run.rotated) ? modUp(s, s.component(a, 1), keyClass) : undefined;
  const product = (turn: Turn): Value => {
    const value = rotationProduct(s, s.component(a, 0), defined(digits, 'digits'), keyClass, turn);
    return lazy === undefined ? modDown(s, value, keyClass.specials) : value;
  };
  const turnOf = (run: Run): Turn => ({
    axis,
    galois: steps.slice(run.start, run.start + run.size).map((step) => galoisOf(s, step)),
  });

  const [only, second] = runs;
  if (only?.rotated === true && second === undefined) return turned(s, product(turnOf(only)), turnOf(only));
  let out = s.undefined(result);
  for (const run of runs) {
    const axes = { [axis]: [run.start, run.size] as const };
    if (run.rotated) {
      out = s.into(
        'poly.automorphism',
        [product(turnOf(run))],
        out,
        { axes },
        { ...turnAttrs(turnOf(run)), over: [] },
      );
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
  const nothing = shapeOf({ ...polyOf(a), axes: [], limbs: special });
  return s.into('poly.zero', [], lifted, { axes, limbs: special }, nothing);
}

/**
 * ct.rotate_each: one ModUp and one key per element; with `sum` the sum is made in basis qp, before one
 * ModDown.
 */
export function rotateEach(s: Scope, op: Op, a: Value, result: PolyType): Value {
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
  const product = (run: Run): Value => {
    const part = s.slice(a, axis, run.start, run.size);
    return rotationProduct(
      s,
      s.component(part, 0),
      modUp(s, s.component(part, 1), keyClass),
      keyClass,
      turnOf(run),
    );
  };
  return op.attrs.sum === true
    ? rotateEachSum(s, a, axis, keyClass, runs, (run) => [product(run), turnOf(run)])
    : rotateEachApart(s, a, axis, keyClass, runs, (run) => [product(run), turnOf(run)], result);
}

type Rotated = (run: Run) => readonly [product: Value, turn: Turn];

function rotateEachSum(
  s: Scope,
  a: Value,
  axis: string,
  keyClass: KeyClass,
  runs: readonly Run[],
  rotated: Rotated,
): Value {
  let sum: Value | undefined;
  for (const run of runs.filter((r) => r.rotated)) {
    const [product, turn] = rotated(run);
    sum =
      sum === undefined
        ? turned(s, product, turn, [axis])
        : s.into(
            'poly.automorphism',
            [product],
            sum,
            {},
            { ...turnAttrs(turn), over: [axis], accumulate: true },
          );
  }
  // Nothing is rotated: P*c, then ModDown, would give c back exactly.
  if (sum === undefined) return s.op('poly.copy', [a], { over: [axis] });
  for (const run of runs.filter((r) => !r.rotated)) {
    const part = s.slice(a, axis, run.start, run.size);
    sum = addLifted(s, part, sum, keyClass, {}, { over: [axis], accumulate: true });
  }
  return modDown(s, sum, keyClass.specials);
}

function rotateEachApart(
  s: Scope,
  a: Value,
  axis: string,
  keyClass: KeyClass,
  runs: readonly Run[],
  rotated: Rotated,
  result: PolyType,
): Value {
  const [only, second] = runs;
  if (only?.rotated === true && second === undefined) {
    const [product, turn] = rotated(only);
    return turned(s, modDown(s, product, keyClass.specials), turn);
  }
  let out = s.undefined(result);
  for (const run of runs) {
    const axes = { [axis]: [run.start, run.size] as const };
    if (!run.rotated) {
      out = s.into('poly.copy', [s.slice(a, axis, run.start, run.size)], out, { axes }, { over: [] });
      continue;
    }
    const [product, turn] = rotated(run);
    const down = modDown(s, product, keyClass.specials);
    out = s.into('poly.automorphism', [down], out, { axes }, { ...turnAttrs(turn), over: [] });
  }
  return out;
}

// ---------------------------------------------------------------- bootstrapping

/** Centred residues modulo q_0 on every limb of the chain. */
export function modRaise(s: Scope, a: Value): Value {
  invariant(levelOf(a) === 0, 'ct.mod_raise takes level 0');
  const coefficients = s.op('poly.intt', [a]);
  const raised = s.op('poly.base_convert', [coefficients], {
    limbs: limbRange(0, s.parameters.maxLevel + 1),
  });
  return s.op('poly.ntt', [raised]);
}

export function switchSecret(s: Scope, a: Value, to: string): Value {
  invariant(to === 'sparse' || to === 'dense', `unknown secret ${to}`);
  const [keyClass, key] =
    to === 'sparse'
      ? [classNamed(s, 'sparse'), 'to_sparse' as const]
      : [classNamed(s, 'top'), 'to_dense' as const];
  const switched = keySwitch(s, s.component(a, 1), keyClass, key);
  return s.into(
    'poly.copy',
    [s.component(a, 0)],
    switched,
    { axes: { [componentAxis]: [0, 1] } },
    { over: [], accumulate: true },
  );
}

export function relinearize(s: Scope, a: Value): Value {
  invariant(axisSize(polyOf(a).axes, componentAxis) === 3, 'ct.relinearize takes three components');
  const switched = keySwitch(s, s.component(a, 2), keyClassFor(s.parameters, levelOf(a)), 'relinearize');
  return s.op('poly.add', [s.slice(a, componentAxis, 0, 2), switched]);
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
