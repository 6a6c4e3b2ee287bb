/**
 * Cost of the parts of a key switch, in NTTs of one limb. The ratios follow from operation counts (an NTT is
 * logN/2
 * butterflies a word, an inner product one multiply-add) and are close to what the CPU kernels measure.
 */
import { digitsAt, keyClassFor, type Parameters } from './parameters.js';

/** One multiply-add per word against logN/2 butterflies. */
const multiplyAddInNtts = 0.12;

export interface KeySwitchCost {
  /** Decomposition and lift of one polynomial; shared by all rotations of a ciphertext (hoisting). */
  readonly modUp: number;
  /** Inner product with one key, both components. */
  readonly keyProduct: number;
  /** Division of both components by the special primes. */
  readonly modDown: number;
}

export function keySwitchCost(parameters: Parameters, level: number): KeySwitchCost {
  const keyClass = keyClassFor(parameters, level);
  const digits = digitsAt(keyClass, level);
  const limbs = level + 1;
  const extended = limbs + keyClass.specials;
  const lifted = digits.reduce((sum, digit) => sum + extended - digit.count, 0);
  const conversions = digits.reduce((sum, digit) => sum + digit.count * (extended - digit.count), 0);
  return {
    modUp: limbs + lifted + conversions * multiplyAddInNtts,
    keyProduct: 2 * digits.length * extended * multiplyAddInNtts,
    modDown: 2 * (keyClass.specials + limbs + keyClass.specials * limbs * multiplyAddInNtts),
  };
}

export function keySwitchTotal(cost: KeySwitchCost): number {
  return cost.modUp + cost.keyProduct + cost.modDown;
}

/** Memory of a switching key cut at a level: both halves, [digit][component][limb][N] words. */
export function switchingKeyBytes(parameters: Parameters, level: number): number {
  const keyClass = keyClassFor(parameters, level);
  const rows = digitsAt(keyClass, level).length * 2 * (level + 1 + keyClass.specials);
  return rows * 2 ** parameters.logN * 8;
}

/** Product of two ciphertexts with relinearization and rescale, the product summed over `terms` pairs. */
export function multiplyCost(parameters: Parameters, level: number, terms: number): number {
  const tensor = 4 * terms * (level + 1) * multiplyAddInNtts;
  return tensor + keySwitchTotal(keySwitchCost(parameters, level)) + 2 * (level + 1);
}

/**
 * Bootstrap of `elements` real ciphertexts, paired as real + i*imag: M + 2E a pair (DESIGN section 3). M:
 * linear maps,
 * about 36 rotations at the top and 30 at the bottom; E: about 14 products at EvalMod levels.
 */
export function bootstrapCost(parameters: Parameters, elements: number): number {
  const top = keySwitchCost(parameters, parameters.maxLevel);
  const bottom = keySwitchCost(parameters, parameters.bootstrapInputLevel);
  const linear = 3 * (top.modUp + 8 * top.keyProduct + 5 * keySwitchTotal(top)) + 30 * keySwitchTotal(bottom);
  const evalMod = 14 * multiplyCost(parameters, parameters.evalModTop, 1);
  return Math.ceil(elements / 2) * linear + elements * evalMod;
}
