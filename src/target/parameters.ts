/**
 * CKKS parameters: from a literal (ring name, usable levels) to a checked, immutable set with primes,
 * canonical scales
 * and key classes. The chain, from level 0 up: q_0 (50 bits), StC and compute primes (near the scale 2^40),
 * EvalMod
 * primes (near 2^50), CtS primes (near 2^50); then the special primes P (DESIGN section 3, NUMBERS section
 * 3).
 */
import { AegisError } from '../support/diagnostics.js';
import { defined, invariant } from '../support/invariant.js';
import { log2Big, PrimePool } from './primes.js';
import { maxLogQPBits, maxSparseKeyBits, securityBitsOf, type SecurityBits } from './security.js';

export type RingName = 'tiny' | 'small' | 'secure';

export interface ParametersLiteral {
  readonly ring: RingName;
  readonly logN: number;
  /** log2 of the scale of compute levels. */
  readonly scaleBits: number;
  /** Levels between the bootstrap's output and the input of SlotsToCoeffs. */
  readonly usableLevels: number;
  readonly stcLevels: number;
  readonly evalModLevels: number;
  readonly ctsLevels: number;
  readonly specials: number;
  readonly security: SecurityBits;
  readonly insecure: boolean;
}

/** Bits of the large primes: q_0, EvalMod, CtS, special. */
export const largePrimeBits = 50;
export const defaultScaleBits = 40;
/** BERT-like layers need 10 to 13 levels between bootstraps (DESIGN section 4). */
export const defaultUsableLevels = 13;
/** Degree 30 Chebyshev (5) and three squarings (3). */
export const evalModLevels = 8;
/** What `evalModLevels` grows by where EvalMod ends with s + s^3/6, the arcsine to third order. */
export const arcsineLevels = 2;
/** A digit is this many bits smaller than P, so that key-switching noise stays below rescaling noise. */
const digitSlackBits = 8;

/**
 * Shape of a family of key-switching keys: generated modulo q_0..q_level and the first `specials` special
 * primes, with
 * a digit partition that depends on nothing else. Below `level` the same key is used with fewer limbs and
 * digits.
 */
export interface KeyClass {
  readonly name: 'stc' | 'compute' | 'evalmod' | 'top' | 'sparse';
  readonly level: number;
  readonly specials: number;
  /** First limb and limb count of each digit, cut by bits. */
  readonly digits: readonly { readonly first: number; readonly count: number }[];
}

export interface Parameters {
  readonly literal: ParametersLiteral;
  readonly logN: number;
  readonly slots: number;
  /** q_0..q_maxLevel, then the special primes. */
  readonly primes: readonly bigint[];
  readonly maxLevel: number;
  readonly specials: number;
  /** Level at which SlotsToCoeffs starts: the lowest level a value may have before its bootstrap. */
  readonly bootstrapInputLevel: number;
  /** Level of a bootstrapped value; the highest compute level. */
  readonly computeTop: number;
  /** Level after CoeffsToSlots. */
  readonly evalModTop: number;
  /** Two levels of EvalMod take its sine s to s + s^3/6. */
  readonly arcsine: boolean;
  /** Numeric canonical scale D(l) of each level, relative error below 2^-40. */
  readonly scales: readonly number[];
  /** Levels at which a tower of canonical scales starts; D(l-1) = D(l)^2 / q(l) holds for every other l-1. */
  readonly sectionTops: readonly number[];
  readonly keyClasses: readonly KeyClass[];
  readonly logQP: number;
  readonly securityBits: SecurityBits | 0;
  readonly insecure: boolean;
}

export const ringLogN: Readonly<Record<RingName, number>> = { tiny: 10, small: 12, secure: 16 };

/** `stcLevels` and `ctsLevels` are 3 at every ring, so that `small` has the chain of `secure`. */
export function defaultLiteral(
  ring: RingName,
  insecure: boolean,
  overrides: Partial<ParametersLiteral> = {},
): ParametersLiteral {
  const partial = {
    ring,
    logN: ringLogN[ring],
    scaleBits: defaultScaleBits,
    usableLevels: defaultUsableLevels,
    stcLevels: 3,
    evalModLevels,
    ctsLevels: 3,
    security: 128 as const,
    insecure,
    ...overrides,
  };
  const specials = overrides.specials ?? specialsWithin(partial);
  return { ...partial, specials };
}

/** As many special primes as the security budget of the secure ring leaves, at least one digit in three. */
function specialsWithin(p: Omit<ParametersLiteral, 'specials'>): number {
  const limit = defined(maxLogQPBits(ringLogN.secure, p.security), 'security table entry');
  const large = 1 + p.evalModLevels + p.ctsLevels;
  const chainBits = large * largePrimeBits + (p.stcLevels + p.usableLevels) * p.scaleBits;
  return Math.max(1, Math.floor((limit - chainBits) / largePrimeBits));
}

/**
 * Checks a literal and derives everything else. Errors: S101 (insecure), S103 (no room for special primes).
 */
export function makeParameters(literal: ParametersLiteral): Parameters {
  const { logN } = literal;
  invariant(logN >= 4 && logN <= 17, `logN ${logN} is out of range`);
  const pool = new PrimePool(logN);
  const computeTop = literal.stcLevels + literal.usableLevels;
  const evalModTop = computeTop + literal.evalModLevels;
  const maxLevel = evalModTop + literal.ctsLevels;

  const large = 1n << BigInt(largePrimeBits);
  const primes: bigint[] = new Array<bigint>(maxLevel + 1);
  const scales: number[] = new Array<number>(maxLevel + 1).fill(0);
  primes[0] = pool.below(large);
  fillTower(pool, primes, scales, computeTop, 0, 2 ** literal.scaleBits);
  // EvalMod scales start a little below 2^50 so that the nearest primes stay below it as well.
  const evalModScale = 2 ** largePrimeBits * (1 - 2 ** -12);
  fillTower(pool, primes, scales, evalModTop, computeTop, evalModScale);
  for (let level = evalModTop + 1; level <= maxLevel; level++) {
    primes[level] = pool.below(large);
    scales[level] = evalModScale;
  }
  const specials = Array.from({ length: literal.specials }, () => pool.below(large));
  const sections = { maxLevel, computeTop, evalModTop, bootstrapInputLevel: literal.stcLevels };
  const keyClasses = makeKeyClasses([...primes, ...specials], sections);
  const used = Math.max(...keyClasses.map((keyClass) => keyClass.specials));
  const all = [...primes, ...specials.slice(0, used)];

  const logQP = all.reduce((sum, prime) => sum + log2Big(prime), 0);
  const securityBits = securityBitsOf(logN, logQP);
  checkSpecials(literal);
  checkSecurity(literal, logQP, securityBits);
  return {
    literal,
    logN,
    slots: 2 ** (logN - 1),
    primes: all,
    specials: used,
    ...sections,
    arcsine: literal.evalModLevels === evalModLevels + arcsineLevels,
    scales,
    sectionTops: [computeTop, evalModTop, ...range(evalModTop + 1, maxLevel)],
    keyClasses,
    logQP,
    securityBits,
    insecure: securityBits < literal.security,
  };
}

/** Canonical scales and primes of one section, greedily: q(l) is the unused prime nearest to D(l). */
function fillTower(
  pool: PrimePool,
  primes: bigint[],
  scales: number[],
  top: number,
  bottom: number,
  topScale: number,
): void {
  let scale = topScale;
  scales[top] = scale;
  for (let level = top; level > bottom; level--) {
    const prime = pool.nearest(BigInt(Math.round(scale)));
    primes[level] = prime;
    scale = scale * (scale / Number(prime));
    if (level - 1 > bottom || bottom === 0) scales[level - 1] = scale;
  }
}

/**
 * A digit holds at least one prime of `largePrimeBits`, and stays `digitSlackBits` below the special primes.
 */
function checkSpecials(literal: ParametersLiteral): void {
  if (literal.specials * largePrimeBits - digitSlackBits >= largePrimeBits) return;
  throw new AegisError({
    code: 'S103',
    message:
      `${literal.security}-bit security leaves room for ${literal.specials} special primes beside a chain of `
      + `${literal.usableLevels} usable levels, 2 are needed`,
    help: 'use fewer --levels, or a lower --security',
  });
}

function checkSecurity(literal: ParametersLiteral, logQP: number, securityBits: SecurityBits | 0): void {
  if (literal.insecure || securityBits >= literal.security) return;
  const limit = maxLogQPBits(literal.logN, literal.security);
  throw new AegisError({
    code: 'S101',
    message:
      limit === undefined
        ? `no ${literal.security}-bit security bound is known for N = 2^${literal.logN}`
        : `log2(QP) is ${logQP.toFixed(0)} but ${literal.security}-bit security at N = 2^${literal.logN} `
          + `allows ${limit}`,
    help: 'use --ring secure, or accept an INSECURE plan for tests with --insecure',
  });
}

function range(first: number, last: number): number[] {
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => first + i);
}

/** `primes`: the chain and all special primes that security allows; a class takes no more than it needs. */
function makeKeyClasses(
  primes: readonly bigint[],
  p: { maxLevel: number; computeTop: number; evalModTop: number; bootstrapInputLevel: number },
): KeyClass[] {
  const bits = primes.map(log2Big);
  const bitsOf = (first: number, count: number) =>
    bits.slice(first, first + count).reduce((a, b) => a + b, 0);
  const most = primes.length - p.maxLevel - 1;
  const cut = (level: number, specials: number, slackBits: number): KeyClass['digits'] => {
    const limit = bitsOf(p.maxLevel + 1, specials) - slackBits;
    const digits: { first: number; count: number }[] = [];
    for (let limb = 0, sum = Infinity; limb <= level; limb++) {
      const size = defined(bits[limb], 'prime');
      const last = digits.at(-1);
      if (last === undefined || sum + size > limit) {
        digits.push({ first: limb, count: 1 });
        sum = size;
      } else {
        digits[digits.length - 1] = { first: last.first, count: last.count + 1 };
        sum += size;
      }
    }
    return digits;
  };
  // As many digits as `specials` special primes make, with the fewest that do: each is one more limb.
  const make = (name: KeyClass['name'], level: number, specials: number): KeyClass => {
    const count = cut(level, specials, digitSlackBits).length;
    let fewest = specials;
    while (fewest > 2 && cut(level, fewest - 1, digitSlackBits).length === count) fewest--;
    return { name, level, specials: fewest, digits: cut(level, fewest, digitSlackBits) };
  };
  // One digit at the lowest levels: there hundreds of bits of log2(QP) are spare.
  const stcBits = bitsOf(0, p.bootstrapInputLevel + 1) + digitSlackBits;
  const stcSpecials = Math.min(most, Math.ceil(stcBits / (largePrimeBits - 0.01)));
  // Two digits at compute levels.
  const computeBits = bitsOf(0, p.computeTop + 1) / 2 + largePrimeBits;
  const computeSpecials = Math.min(most, Math.ceil(computeBits / largePrimeBits));
  invariant(
    bitsOf(0, 1) + bitsOf(p.maxLevel + 1, 1) <= maxSparseKeyBits,
    'sparse key above its modulus bound',
  );
  return [
    make('stc', p.bootstrapInputLevel, stcSpecials),
    make('compute', p.computeTop, computeSpecials),
    make('evalmod', p.evalModTop, most),
    make('top', p.maxLevel, most),
    { name: 'sparse', level: 0, specials: 1, digits: cut(0, 1, 0) },
  ];
}

/**
 * log2 of what SlotsToCoeffs adds to the scale D_0. Noise is divided by it; the error of s + s^3/6 at |x| = R
 * grows to 2^-25, that of a sine alone would be 2^-13.
 */
export const raisedScaleLog2 = (parameters: Parameters): number => (parameters.arcsine ? 2 : 0);

/** q_0 / scale of the coefficients before ModRaise: 2^10, with the arcsine step 2^8. */
export function messageRatio(parameters: Parameters): number {
  const scale = defined(parameters.scales[0], 'D_0') * 2 ** raisedScaleLog2(parameters);
  return Number(parameters.primes[0]) / scale;
}

/**
 * The sine is taken steeper by 3/4 of its relative error (2 pi / ratio)^2 / 6 at |x| = R: the largest error,
 * at R and R / 2, is a quarter of what the slope 1 at 0 would leave (minimax among odd multiples).
 */
export function sineGain(parameters: Parameters): number {
  return parameters.arcsine ? 1 : 1 + ((2 * Math.PI) / messageRatio(parameters)) ** 2 / 8;
}

/**
 * What EvalMod makes of x without noise, |x| <= R = 2^rangeLog2: gain unit s, s = sin(x / unit), unit = R
 * ratio / (2 pi); with the arcsine step unit (s + s^3/6), whose error is 3 x^5 / (40 unit^4).
 */
export function evalModModel(parameters: Parameters, rangeLog2: number): (x: number) => number {
  const unit = (2 ** rangeLog2 * messageRatio(parameters)) / (2 * Math.PI);
  const gain = sineGain(parameters);
  const cubic = parameters.arcsine ? 1 / 6 : 0;
  return (x) => {
    const s = Math.sin(x / unit);
    return gain * unit * (s + cubic * s ** 3);
  };
}

/** The cheapest class whose keys reach `level`. */
export function keyClassFor(parameters: Parameters, level: number): KeyClass {
  const found = parameters.keyClasses.find((c) => c.name !== 'sparse' && c.level >= level);
  return defined(found, `key class for level ${level}`);
}

/** The digits of a key that a value at `level` uses: whole digits, the last one cut at the level. */
export function digitsAt(
  keyClass: Pick<KeyClass, 'digits'>,
  level: number,
): { first: number; count: number }[] {
  return keyClass.digits
    .filter((digit) => digit.first <= level)
    .map((digit) => ({ first: digit.first, count: Math.min(digit.count, level + 1 - digit.first) }));
}

/**
 * Group of each digit that a value at `level` uses, where they are cut into contiguous groups (ct.*
 * digitGroups).
 */
export function digitGroupsAt(keyClass: Pick<KeyClass, 'digits'>, level: number, groups: number): number[] {
  const { length } = digitsAt(keyClass, level);
  return Array.from({ length }, (_, digit) => Math.floor((digit * groups) / length));
}
