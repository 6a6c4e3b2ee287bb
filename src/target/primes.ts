import { invariant } from '../support/invariant.js';

function powMod(base: bigint, exponent: bigint, modulus: bigint): bigint {
  let result = 1n;
  let b = base % modulus;
  for (let e = exponent; e > 0n; e >>= 1n) {
    if (e & 1n) result = (result * b) % modulus;
    b = (b * b) % modulus;
  }
  return result;
}

/** Deterministic Miller-Rabin: these bases decide every n below 3.3e24 (Sorenson and Webster 2015). */
const witnesses = [2n, 3n, 5n, 7n, 11n, 13n, 17n, 19n, 23n, 29n, 31n, 37n, 41n];

export function isPrime(n: bigint): boolean {
  if (n < 2n) return false;
  for (const p of witnesses) {
    if (n === p) return true;
    if (n % p === 0n) return false;
  }
  let d = n - 1n;
  let twos = 0;
  for (; (d & 1n) === 0n; d >>= 1n) twos++;
  return witnesses.every((a) => {
    let x = powMod(a, d, n);
    if (x === 1n || x === n - 1n) return true;
    for (let i = 1; i < twos; i++) {
      x = (x * x) % n;
      if (x === n - 1n) return true;
    }
    return false;
  });
}

/**
 * Deals out primes q = 1 mod 2N, each at most once, nearest to a wanted size. Ties go to the smaller prime.
 * All primes stay below 2^50 (DESIGN section 3).
 */
export class PrimePool {
  private readonly used = new Set<bigint>();
  private readonly step: bigint;
  constructor(logN: number) {
    this.step = 1n << BigInt(logN + 1);
  }

  /** The unused prime nearest to `target`. */
  nearest(target: bigint): bigint {
    const centre = (target / this.step) * this.step + 1n;
    for (let distance = 0n; distance < 1n << 24n; distance++) {
      for (const candidate of [centre - distance * this.step, centre + (distance + 1n) * this.step]) {
        const ordered = candidate > this.step && candidate < 1n << 50n;
        if (ordered && !this.used.has(candidate) && isPrime(candidate)) return this.take(candidate);
      }
    }
    invariant(false, `no prime left near ${target}`);
  }

  /** The largest unused prime below `limit`. */
  below(limit: bigint): bigint {
    let candidate = ((limit - 2n) / this.step) * this.step + 1n;
    while (this.used.has(candidate) || !isPrime(candidate)) {
      candidate -= this.step;
      invariant(candidate > this.step, `no prime left below ${limit}`);
    }
    return this.take(candidate);
  }

  private take(prime: bigint): bigint {
    this.used.add(prime);
    return prime;
  }
}

/** log2 of a big integer, to double precision. */
export function log2Big(n: bigint): number {
  const bits = n.toString(2).length;
  const shift = Math.max(0, bits - 60);
  return Math.log2(Number(n >> BigInt(shift))) + shift;
}
