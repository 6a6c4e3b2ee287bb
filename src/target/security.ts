/**
 * Largest log2(QP) for a uniform ternary secret, error 3.19, classical attacks: Security Guidelines for
 * Implementing
 * Homomorphic Encryption (2024), table 5.2. A parameter set outside the table is an error, never an
 * interpolation.
 */
export type SecurityBits = 128 | 192 | 256;

const maxLogQP: Readonly<Record<SecurityBits, Readonly<Record<number, number>>>> = {
  128: { 10: 26, 11: 53, 12: 106, 13: 214, 14: 430, 15: 868, 16: 1747, 17: 3523 },
  192: { 11: 36, 12: 73, 13: 147, 14: 297, 15: 597, 16: 1199, 17: 2411 },
  256: { 11: 27, 12: 56, 13: 114, 14: 230, 15: 462, 16: 929, 17: 1866 },
};

/** Undefined where the table has no entry. */
export function maxLogQPBits(logN: number, security: SecurityBits): number | undefined {
  return maxLogQP[security][logN];
}

/** The strongest level of the table that (logN, logQP) reaches, 0 if none. */
export function securityBitsOf(logN: number, logQP: number): SecurityBits | 0 {
  for (const bits of [256, 192, 128] as const) {
    const limit = maxLogQPBits(logN, bits);
    if (limit !== undefined && logQP <= limit) return bits;
  }
  return 0;
}

/**
 * The switching key from the dense secret to the sparse ephemeral secret (Hamming weight 32) must live at a
 * modulus of
 * at most this many bits (NUMBERS section 2; the sparse secret is the weaker one there).
 */
export const maxSparseKeyBits = 121;
export const ephemeralHammingWeight = 32;
