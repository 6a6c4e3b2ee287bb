import { defined, invariant } from '../support/invariant.js';
import type { Parameters } from '../target/parameters.js';
import type { Scale } from '../ir/scale.js';

/**
 * The number that an exact scale stands for, to double precision. Factors are multiplied one by one in a
 * fixed order with the exponent of two kept apart, so that D12^30 does not overflow on the way and every
 * machine gets the same bits.
 */
export function numericScale(scale: Scale, parameters: Parameters): number {
  let [mantissa, two] = [1, scale.two];
  const multiply = (factor: number, exponent: number): void => {
    invariant(factor > 0, 'factors of a scale are positive');
    for (let i = Math.abs(exponent); i > 0; i--) {
      mantissa = exponent > 0 ? mantissa * factor : mantissa / factor;
      const shift = Math.floor(Math.log2(mantissa));
      mantissa *= 2 ** -shift;
      two += shift;
    }
  };
  for (const [level, exponent] of scale.canonical) {
    multiply(defined(parameters.scales[level], `scale of level ${level}`), exponent);
  }
  for (const [prime, exponent] of scale.primes) {
    multiply(Number(defined(parameters.primes[prime], `prime ${prime}`)), exponent);
  }
  invariant(Math.abs(two) < 1000, `scale 2^${two} is out of range`);
  return mantissa * 2 ** two;
}
