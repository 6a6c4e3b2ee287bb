import { describe, expect, it } from 'vitest';
import { AegisError } from '../../src/support/diagnostics.js';
import { log2Big } from '../../src/target/primes.js';
import { maxLogQPBits } from '../../src/target/security.js';
import {
  defaultLiteral,
  digitsAt,
  keyClassFor,
  makeParameters,
  type ParametersLiteral,
} from '../../src/target/parameters.js';

function codeOf(literal: ParametersLiteral): string | undefined {
  try {
    makeParameters(literal);
    return undefined;
  } catch (error) {
    return error instanceof AegisError ? error.diagnostics[0]?.code : String(error);
  }
}

describe('parameters', () => {
  const secure = makeParameters(defaultLiteral('secure', false));

  it('reach 128 bits at the secure ring, by the table', () => {
    expect(secure.securityBits).toBe(128);
    expect(secure.logQP).toBeLessThanOrEqual(maxLogQPBits(16, 128) ?? 0);
    expect(secure.insecure).toBe(false);
  });

  it('cut digits by bits, at least 8 below the special primes', () => {
    for (const keyClass of secure.keyClasses.filter((c) => c.name !== 'sparse')) {
      const bits = (first: number, count: number) =>
        secure.primes.slice(first, first + count).reduce((sum, prime) => sum + log2Big(prime), 0);
      const limit = bits(secure.maxLevel + 1, keyClass.specials) - 8;
      for (const { first, count } of keyClass.digits) expect(bits(first, count)).toBeLessThanOrEqual(limit);
      const limbs = digitsAt(keyClass, keyClass.level).reduce((sum, { count }) => sum + count, 0);
      expect(limbs).toBe(keyClass.level + 1);
    }
    expect(keyClassFor(secure, secure.maxLevel).name).toBe('top');
  });

  it('give a class the fewest special primes that make its digits', () => {
    const bits = (first: number, count: number) =>
      secure.primes.slice(first, first + count).reduce((sum, prime) => sum + log2Big(prime), 0);
    const digits = (level: number, specials: number) => {
      const limit = bits(secure.maxLevel + 1, specials) - 8;
      let count = 0;
      for (let limb = 0; limb <= level; count++) {
        const first = limb++;
        while (limb <= level && bits(first, limb + 1 - first) <= limit) limb++;
      }
      return count;
    };
    for (const { name, level, specials, digits: cut } of secure.keyClasses) {
      if (name === 'sparse') continue;
      expect(digits(level, specials)).toBe(cut.length);
      expect(digits(level, specials - 1)).toBeGreaterThan(cut.length);
    }
    // No prime of P without a class.
    expect(Math.max(...secure.keyClasses.map(({ specials }) => specials))).toBe(secure.specials);
    expect(keyClassFor(secure, secure.evalModTop).name).toBe('evalmod');
  });

  it('keep canonical scales within 2^-15 of the start of their section', () => {
    for (let level = 0; level <= secure.computeTop; level++) {
      expect(Math.abs(Math.log2(secure.scales[level] ?? 0) - 40)).toBeLessThan(2 ** -15);
    }
  });

  it('are refused where the security table or the special primes say no', () => {
    expect(codeOf(defaultLiteral('small', false))).toBe('S101');
    expect(codeOf(defaultLiteral('secure', false, { logN: 15 }))).toBe('S101');
    expect(codeOf(defaultLiteral('secure', false, { security: 192 }))).toBe('S103');
    expect(codeOf(defaultLiteral('secure', true, { security: 256 }))).toBe('S103');
  });
});
