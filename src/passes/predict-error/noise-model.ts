/**
 * Standard deviation of the noise that each op adds to one slot, as a slot value. A polynomial whose
 * coefficients have independent errors of deviation s has slot errors of deviation s sqrt(N), half of the
 * variance in the real part: s sqrt(N/2) / scale. Formulas: Costache, Curtis, Hales, Murphy, Ogilvie and
 * Player, "On the precision loss in approximate homomorphic encryption" (SAC 2023); the dense secret is
 * uniform ternary, E s_i^2 = 2/3.
 */
import { defined, invariant } from '../../support/invariant.js';
import type { Op, Value } from '../../ir/module.js';
import { parseScale, type Scale } from '../../ir/scale.js';
import { axesCount, type CtType } from '../../ir/types.js';
import {
  digitGroupsAt,
  digitsAt,
  keyClassFor,
  type KeyClass,
  type Parameters,
} from '../../target/parameters.js';

/** Deviation of fresh errors (DESIGN section 3). */
const freshDeviation = 3.2;
/** Variance of a rounding to the nearest integer. */
const roundingVariance = 1 / 12;
const secretVariance = 2 / 3;

/**
 * Root mean square of an op's results in a run without noise: errors of encoded plaintexts are relative to
 * it.
 */
export type Magnitude = (value: Value) => number;

export interface NoiseSources {
  readonly parameters: Parameters;
  readonly magnitude: Magnitude;
  /** Deviation of a bootstrap of values up to 2^rangeLog2. */
  readonly bootstrap: (rangeLog2: number) => number;
  /** rangeLog2 of a function that models a bootstrap. */
  readonly modelledRange: (callee: string) => number | undefined;
}

/** A fresh public-key encryption: v e_pk + e_0 + e_1 s, v ternary like the secret. */
export function freshNoise(parameters: Parameters, type: CtType): number {
  const n = 2 ** parameters.logN;
  return slotNoise(parameters, freshDeviation ** 2 * (2 * n * secretVariance + 1), type);
}

/** Deviation of element `element` of the op's result. */
export function opNoise(op: Op, element: number, sources: NoiseSources): number {
  const type = op.results[0]?.type;
  if (type?.kind !== 'ct' || type.level === null || type.scale === null) return 0;
  const { parameters } = sources;
  const slot = (variance: number): number => slotNoise(parameters, variance, type);
  switch (op.kind) {
    case 'ct.rescale':
    case 'ct.adjust':
    case 'ct.mod_down':
      return slot(divisionVariance(parameters));
    case 'ct.relinearize':
    case 'ct.conjugate':
    case 'ct.switch_secret':
      return slot(switchVariance(op, parameters, type.level));
    case 'ct.rotate':
      return slot(rotateVariance(op, element, type.level, parameters));
    case 'ct.rotate_each':
      return slot(rotateEachVariance(op, element, type.level, parameters));
    case 'ct.contract':
      return contractNoise(op, sources);
    case 'ct.add_plain':
      return plainNoise(parameters, op.operands[1]) / numericScale(type.scale, parameters);
    case 'ct.bootstrap':
      return sources.bootstrap(op.attrs.rangeLog2 as number);
    case 'call': {
      const range = sources.modelledRange(op.attrs.callee as string);
      return sources.bootstrap(defined(range, 'range of a modelled call'));
    }
    case 'ct.add':
    case 'ct.sub':
    case 'ct.mul':
    case 'ct.mul_i':
    case 'ct.sum':
    case 'ct.index':
    case 'ct.slice':
    case 'ct.concat':
    case 'ct.reshape':
    case 'ct.mod_raise':
    case 'ct.reinterpret':
    case 'ct.zero':
      return 0;
    default:
      invariant(false, `no noise model of ${op.kind}`);
  }
}

/** To double precision; the exact product is the backend's business. */
function numericScale(scale: Scale, parameters: Parameters): number {
  let bits = scale.two;
  for (const [level, exponent] of scale.canonical) {
    bits += exponent * Math.log2(defined(parameters.scales[level], 'canonical scale'));
  }
  for (const [prime, exponent] of scale.primes) {
    bits += exponent * Math.log2(Number(parameters.primes[prime]));
  }
  return 2 ** bits;
}

function slotNoise(parameters: Parameters, coefficientVariance: number, type: CtType): number {
  const scale = numericScale(defined(type.scale, 'scale'), parameters);
  return Math.sqrt(coefficientVariance * parameters.slots) / scale;
}

/** Both components are rounded, the second is multiplied by the secret. */
function divisionVariance(parameters: Parameters): number {
  return roundingVariance * (1 + 2 ** parameters.logN * secretVariance);
}

/** Sum over digits of digit * error, divided by P; each digit is centred and uniform. */
function keyVariance(parameters: Parameters, keyClass: KeyClass, level: number): number {
  const primes = parameters.primes.map(Number);
  const product = (first: number, count: number): number =>
    primes.slice(first, first + count).reduce((sum, prime) => sum + Math.log2(prime), 0);
  const specialBits = product(parameters.maxLevel + 1, keyClass.specials);
  const n = 2 ** parameters.logN;
  return digitsAt(keyClass, level).reduce((sum, { first, count }) => {
    return sum + n * freshDeviation ** 2 * roundingVariance * 4 ** (product(first, count) - specialBits);
  }, 0);
}

function switchVariance(op: Op, parameters: Parameters, level: number): number {
  const keyClass = keyClassFor(parameters, level);
  return keyVariance(parameters, keyClass, level) + modDownVariance(op, parameters, keyClass, level);
}

/** One ModDown, or one per group of digits. */
function modDownVariance(op: Op, parameters: Parameters, keyClass: KeyClass, level: number): number {
  const groups = op.attrs.digitGroups as number | undefined;
  const count = groups === undefined ? 1 : new Set(digitGroupsAt(keyClass, level, groups)).size;
  return count * divisionVariance(parameters);
}

function isTurn(op: Op, parameters: Parameters, step: number): boolean {
  return step % parameters.slots !== 0 || op.attrs.loopStride !== undefined;
}

/** The steps are the last axis. A lazy rotation has no ModDown of its own. */
function rotateVariance(op: Op, element: number, level: number, parameters: Parameters): number {
  const steps = op.attrs.steps as readonly number[];
  if (!isTurn(op, parameters, defined(steps[element % steps.length], 'step'))) return 0;
  const { lazy } = op.attrs;
  const found = parameters.keyClasses.find((keyClass) => keyClass.name === lazy);
  return found === undefined ? switchVariance(op, parameters, level) : keyVariance(parameters, found, level);
}

/** With `sum`, one ModDown for all elements. */
function rotateEachVariance(op: Op, element: number, level: number, parameters: Parameters): number {
  const keyClass = keyClassFor(parameters, level);
  const steps = op.attrs.steps as readonly number[];
  const turns = steps.filter((step) => isTurn(op, parameters, step)).length;
  if (op.attrs.sum === true) {
    const products = turns * keyVariance(parameters, keyClass, level);
    return turns === 0 ? 0 : products + modDownVariance(op, parameters, keyClass, level);
  }
  const operand = op.operands[0]?.type;
  const axes = operand?.kind === 'ct' ? operand.axes : [];
  const at = axes.findIndex((axis) => axis.name === op.attrs.axis);
  const inner = axesCount(axes.slice(at + 1));
  const step = defined(steps[Math.floor(element / inner) % steps.length], 'step');
  return isTurn(op, parameters, step) ? switchVariance(op, parameters, level) : 0;
}

/**
 * Deviation of an encoded plaintext's real slots, in units of 1 / scale. A vector of period c has 2c
 * coefficients that are not zero; of a real vector they come in pairs and all error is real. A constant is
 * one coefficient.
 */
function plainNoise(parameters: Parameters, plain: Value | undefined): number {
  const type = plain?.type;
  invariant(type?.kind === 'pt', 'the operand is a plaintext array');
  if (type.period === 1) return Math.sqrt(roundingVariance);
  return Math.sqrt(roundingVariance * (type.complex ? 1 : 2) * Math.min(type.period, parameters.slots / 2));
}

/** Every product carries the rounding error of its plaintext times the ciphertext's value. */
function contractNoise(op: Op, sources: NoiseSources): number {
  const [a, p] = op.operands;
  const text = op.attrs.scale;
  const scale = typeof text === 'string' ? parseScale(text) : undefined;
  const over = op.attrs.over as readonly string[];
  const sizes = new Map(
    [a, p].flatMap((value) => {
      const type = value?.type;
      const axes = type?.kind === 'ct' || type?.kind === 'pt' ? type.axes : [];
      return axes.map(({ name, size }) => [name, size] as const);
    }),
  );
  const terms = over.reduce((product, name) => product * (sizes.get(name) ?? 1), 1);
  const { parameters } = sources;
  const relative = plainNoise(parameters, p) / numericScale(defined(scale, 'plaintext scale'), parameters);
  return Math.sqrt(terms) * relative * sources.magnitude(defined(a, 'operand'));
}
