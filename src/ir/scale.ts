/**
 * Exact CKKS scales. A scale is `canonical(level)^power * 2^two * prod q_i^e_i`, kept symbolically so that
 * equality is
 * exact: values of different scale never meet by accident (DESIGN section 3). Canonical scales are the tower
 * D(l-1) = D(l)^2 / q(l) of a section of the modulus chain; their numeric value is known to the parameters
 * only.
 */
export interface Scale {
  /** Exponents of canonical scales D<level>, sorted by level, no zeros. */
  readonly canonical: readonly (readonly [level: number, exponent: number])[];
  /** Exponents of chain primes by prime index, sorted, no zeros. */
  readonly primes: readonly (readonly [prime: number, exponent: number])[];
  readonly two: number;
}

export function canonicalScale(level: number): Scale {
  return { canonical: [[level, 1]], primes: [], two: 0 };
}

export const unitScale: Scale = { canonical: [], primes: [], two: 0 };

function combine(
  a: readonly (readonly [number, number])[],
  b: readonly (readonly [number, number])[],
  sign: 1 | -1,
): (readonly [number, number])[] {
  const sums = new Map<number, number>(a);
  for (const [key, exponent] of b) sums.set(key, (sums.get(key) ?? 0) + sign * exponent);
  return [...sums].filter(([, exponent]) => exponent !== 0).sort(([x], [y]) => x - y);
}

export function mulScale(a: Scale, b: Scale): Scale {
  return {
    canonical: combine(a.canonical, b.canonical, 1),
    primes: combine(a.primes, b.primes, 1),
    two: a.two + b.two,
  };
}

export function divScale(a: Scale, b: Scale): Scale {
  return {
    canonical: combine(a.canonical, b.canonical, -1),
    primes: combine(a.primes, b.primes, -1),
    two: a.two - b.two,
  };
}

export function primeScale(prime: number): Scale {
  return { canonical: [], primes: [[prime, 1]], two: 0 };
}

export function powerOfTwoScale(two: number): Scale {
  return { canonical: [], primes: [], two };
}

export function scalesEqual(a: Scale, b: Scale): boolean {
  return printScale(a) === printScale(b);
}

/** `D12`, `D12^2`, `D12^2*q12^-1`, `D3*2^-2`, `1`. */
export function printScale(scale: Scale): string {
  const power = (base: string, exponent: number) => (exponent === 1 ? base : `${base}^${exponent}`);
  const parts = [
    ...scale.canonical.map(([level, exponent]) => power(`D${level}`, exponent)),
    ...scale.primes.map(([prime, exponent]) => power(`q${prime}`, exponent)),
    ...(scale.two === 0 ? [] : [power('2', scale.two)]),
  ];
  return parts.length === 0 ? '1' : parts.join('*');
}

export function parseScale(text: string): Scale | undefined {
  if (text === '1') return unitScale;
  let scale = unitScale;
  for (const part of text.split('*')) {
    const match = /^(D|q)?(\d+)(?:\^(-?\d+))?$/.exec(part);
    if (match === null) return undefined;
    const [, kind, digits, power] = match;
    const index = Number(digits);
    const exponent = power === undefined ? 1 : Number(power);
    if (kind === undefined && index !== 2) return undefined;
    const one: readonly (readonly [number, number])[] = [[index, exponent]];
    scale = mulScale(scale, {
      canonical: kind === 'D' ? one : [],
      primes: kind === 'q' ? one : [],
      two: kind === undefined ? exponent : 0,
    });
  }
  return scale;
}
