/**
 * CKKS with big integers, straight from the definitions: the oracle for lowered plans. N is 2^4 to 2^6,
 * transforms are
 * quadratic, and randomness is a seeded generator; nothing here is secure or fast.
 */
import { invariant } from '../../src/support/invariant.js';
import { digitsAt } from '../../src/target/parameters.js';
import type { Key, PlanParameters } from '../../src/backend/plan-view.js';

export type Row = bigint[];
export interface Complex {
  readonly re: number;
  readonly im: number;
}

export function mod(a: bigint, q: bigint): bigint {
  const r = a % q;
  return r < 0n ? r + q : r;
}

export function powMod(base: bigint, exponent: bigint, q: bigint): bigint {
  let [result, b] = [1n, mod(base, q)];
  for (let e = exponent; e > 0n; e >>= 1n) {
    if (e & 1n) result = (result * b) % q;
    b = (b * b) % q;
  }
  return result;
}

export const inverse = (a: bigint, q: bigint): bigint => powMod(a, q - 2n, q);

export function centre(a: bigint, q: bigint): bigint {
  const r = mod(a, q);
  return 2n * r > q ? r - q : r;
}

/** Small deterministic generator (Lehmer, 2^31 - 1). */
export class Random {
  constructor(private state: number) {}
  below(limit: number): number {
    this.state = (this.state * 48271) % 2147483647;
    return this.state % limit;
  }
  uniform(q: bigint): bigint {
    return mod((BigInt(this.below(2 ** 30)) << 30n) | BigInt(this.below(2 ** 30)), q);
  }
}

export class ToyRing {
  readonly n: number;
  private readonly powers: bigint[][];
  private readonly inverses: bigint[][];

  constructor(
    readonly logN: number,
    readonly primes: readonly bigint[],
  ) {
    this.n = 2 ** logN;
    // psi as in runtime/ckks/modulus.h: from the smallest g that gives exact order 2N.
    const roots = primes.map((q) => {
      for (let g = 2n; ; g++) {
        const psi = powMod(g, (q - 1n) / BigInt(2 * this.n), q);
        if (powMod(psi, BigInt(this.n), q) === q - 1n) return psi;
      }
    });
    const table = (psi: bigint, q: bigint): bigint[] => {
      const list = [1n];
      while (list.length < 2 * this.n) list.push((list.at(-1)! * psi) % q);
      return list;
    };
    this.powers = primes.map((q, i) => table(roots[i]!, q));
    this.inverses = primes.map((q, i) => table(inverse(roots[i]!, q), q));
  }

  bitReverse(k: number): number {
    let r = 0;
    for (let i = 0; i < this.logN; i++) r |= ((k >> i) & 1) << (this.logN - 1 - i);
    return r;
  }

  ntt(a: readonly bigint[], limb: number): Row {
    const [q, powers] = [this.primes[limb]!, this.powers[limb]!];
    return Array.from({ length: this.n }, (_, k) => {
      const e = 2 * this.bitReverse(k) + 1;
      let sum = 0n;
      for (let i = 0; i < this.n; i++) sum += a[i]! * powers[(e * i) % (2 * this.n)]!;
      return mod(sum, q);
    });
  }

  intt(a: readonly bigint[], limb: number): Row {
    const [q, powers] = [this.primes[limb]!, this.inverses[limb]!];
    const nInverse = inverse(BigInt(this.n), q);
    return Array.from({ length: this.n }, (_, i) => {
      let sum = 0n;
      for (let k = 0; k < this.n; k++)
        sum += a[k]! * powers[((2 * this.bitReverse(k) + 1) * i) % (2 * this.n)]!;
      return mod(sum * nInverse, q);
    });
  }

  permutation(galois: number): number[] {
    return Array.from({ length: this.n }, (_, k) =>
      this.bitReverse((((galois * (2 * this.bitReverse(k) + 1)) % (2 * this.n)) - 1) / 2),
    );
  }

  /** Coefficients of a polynomial under X -> X^galois. */
  automorphism(coefficients: readonly bigint[], galois: number): bigint[] {
    const out = new Array<bigint>(this.n).fill(0n);
    coefficients.forEach((c, i) => {
      const e = (i * galois) % (2 * this.n);
      out[e % this.n] = e < this.n ? c : -c;
    });
    return out;
  }

  /** z_j is the value at zeta^(5^j), zeta = exp(i pi / N). */
  private angle(slot: number, k: number): number {
    const g = Number(powMod(5n, BigInt(slot), BigInt(2 * this.n)));
    return (Math.PI * ((g * k) % (2 * this.n))) / this.n;
  }

  encode(slots: readonly Complex[], scale: number): bigint[] {
    invariant(slots.length === this.n / 2, 'a vector fills all slots');
    return Array.from({ length: this.n }, (_, k) => {
      let sum = 0;
      slots.forEach((z, j) => {
        sum += z.re * Math.cos(this.angle(j, k)) + z.im * Math.sin(this.angle(j, k));
      });
      return BigInt(Math.round((2 / this.n) * sum * scale));
    });
  }

  decode(coefficients: readonly bigint[], scale: number): Complex[] {
    return Array.from({ length: this.n / 2 }, (_, j) => {
      let [re, im] = [0, 0];
      coefficients.forEach((c, k) => {
        re += Number(c) * Math.cos(this.angle(j, k));
        im += Number(c) * Math.sin(this.angle(j, k));
      });
      return { re: re / scale, im: im / scale };
    });
  }
}

/** A switching key: [digit][component][limb], NTT form; limbs are prime indices. */
export type ToyKey = readonly (readonly ReadonlyMap<number, Row>[])[];

export class ToyScheme {
  readonly ring: ToyRing;
  readonly dense: bigint[];
  readonly sparse: bigint[];
  private readonly random = new Random(7);

  constructor(readonly parameters: PlanParameters) {
    this.ring = new ToyRing(parameters.logN, parameters.primes);
    const { n } = this.ring;
    this.dense = Array.from({ length: n }, () => BigInt(this.random.below(3) - 1));
    this.sparse = Array.from({ length: n }, (_, i) =>
      i % 8 === 3 ? BigInt(2 * this.random.below(2) - 1) : 0n,
    );
  }

  private smallError(): bigint[] {
    return Array.from({ length: this.ring.n }, () => BigInt(this.random.below(7) - 3));
  }

  /** [component][limb] of a fresh encryption at a level. */
  encrypt(message: readonly bigint[], level: number): Row[][] {
    const rows: Row[][] = [[], []];
    const error = this.smallError();
    for (let limb = 0; limb <= level; limb++) {
      const q = this.parameters.primes[limb]!;
      const a = Array.from({ length: this.ring.n }, () => this.random.uniform(q));
      const s = this.ring.ntt(this.dense, limb);
      const m = this.ring.ntt(
        message.map((c, i) => c + error[i]!),
        limb,
      );
      rows[0]!.push(a.map((x, i) => mod(m[i]! - x * s[i]!, q)));
      rows[1]!.push(a);
    }
    return rows;
  }

  /** Centred coefficients modulo q_0 ... q_level. */
  decrypt(rows: readonly (readonly Row[])[], secret: 'dense' | 'sparse' = 'dense'): bigint[] {
    const limbs = rows[0]!.length;
    const residues = Array.from({ length: limbs }, (_, limb) => {
      const q = this.parameters.primes[limb]!;
      const s = this.ring.ntt(this[secret], limb);
      let power: Row = s.map(() => 1n);
      let sum: Row = s.map(() => 0n);
      for (const component of rows) {
        sum = sum.map((x, i) => mod(x + component[limb]![i]! * power[i]!, q));
        power = power.map((x, i) => mod(x * s[i]!, q));
      }
      return this.ring.intt(sum, limb);
    });
    const primes = this.parameters.primes.slice(0, limbs);
    const product = primes.reduce((a, b) => a * b, 1n);
    return Array.from({ length: this.ring.n }, (_, i) => {
      const sum = primes.reduce((total, q, limb) => {
        const hat = product / q;
        return total + hat * mod(residues[limb]![i]! * inverse(hat, q), q);
      }, 0n);
      return centre(sum, product);
    });
  }

  /** b = -a s_to + e + [row in digit] P s_from (runtime/client/keygen.h). */
  makeKey(key: Key): ToyKey {
    const keyClass = this.parameters.keyClasses[key.keyClass]!;
    const [from, to] = this.secretsOf(key);
    const firstSpecial = this.parameters.maxLevel + 1;
    const limbs = [
      ...Array.from({ length: key.level + 1 }, (_, i) => i),
      ...Array.from({ length: keyClass.specials }, (_, i) => firstSpecial + i),
    ];
    const p = limbs
      .slice(key.level + 1)
      .reduce((product, limb) => product * this.parameters.primes[limb]!, 1n);
    return digitsAt(keyClass, key.level).map(({ first, count }) => {
      const [b, a] = [new Map<number, Row>(), new Map<number, Row>()];
      const error = this.smallError();
      for (const limb of limbs) {
        const q = this.parameters.primes[limb]!;
        const [sFrom, sTo, e] = [from, to, error].map((poly) => this.ring.ntt(poly, limb)) as [Row, Row, Row];
        const own = limb >= first && limb < first + count;
        const random = Array.from({ length: this.ring.n }, () => this.random.uniform(q));
        a.set(limb, random);
        b.set(
          limb,
          random.map((x, i) => mod(e[i]! - x * sTo[i]! + (own ? p * sFrom[i]! : 0n), q)),
        );
      }
      return [b, a];
    });
  }

  private secretsOf(key: Key): [bigint[], bigint[]] {
    switch (key.kind) {
      case 'relinearize':
        return [this.squared(), this.dense];
      case 'galois': {
        const order = BigInt(2 * this.ring.n);
        const inverseGalois = Number(powMod(BigInt(key.galois), order / 2n - 1n, order));
        return [this.dense, this.ring.automorphism(this.dense, inverseGalois)];
      }
      case 'to_sparse':
        return [this.dense, this.sparse];
      case 'to_dense':
        return [this.sparse, this.dense];
    }
  }

  private squared(): bigint[] {
    const { n } = this.ring;
    const out = new Array<bigint>(n).fill(0n);
    this.dense.forEach((x, i) =>
      this.dense.forEach((y, j) => {
        out[(i + j) % n]! += i + j < n ? x * y : -x * y;
      }),
    );
    return out;
  }
}
