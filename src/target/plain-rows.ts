/** Rows of encoded plaintexts: how many words, and in which form they are held (runtime/plan/plan.fbs). */

/** The part of a plaintext type that settles its rows. */
export interface SlotPeriod {
  /** Slots repeat with this period (a power of two, at most N/2). */
  readonly period: number;
  readonly complex: boolean;
}

/**
 * Distinct NTT values of a plaintext with this period: it is a polynomial in X^(N/2c), in bit-reversed order
 * each of its 2c values fills a block (DESIGN section 4). Real constants are the same everywhere.
 */
export function rowWords({ period, complex }: SlotPeriod, degree: number): number {
  return period === 1 && !complex ? 1 : Math.min(2 * period, degree);
}

/** Butterflies that make an NTT row of a limb from `words` coefficients. */
export function expansionButterflies(words: number): number {
  return (words / 2) * Math.log2(words);
}

/**
 * Is a plaintext used on `limbs` limbs held as coefficients, once for all of them? Only where expanding them
 * costs little: at most N/2 butterflies a limb, against N multiply-adds for each of the two polynomials of a
 * ciphertext. Recipes that are no real slot vectors are complex or have rows of one word.
 */
export function heldAsCoefficients(type: SlotPeriod, limbs: number, degree: number): boolean {
  const words = rowWords(type, degree);
  return !type.complex && words > 1 && limbs > 1 && expansionButterflies(words) <= degree / 2;
}

/** Rows of `rowWords` words that hold one element used on `limbs` limbs. */
export function heldRows(type: SlotPeriod, limbs: number, degree: number): number {
  return heldAsCoefficients(type, limbs, degree) ? 1 : limbs;
}
