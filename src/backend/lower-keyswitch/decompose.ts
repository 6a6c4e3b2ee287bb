/**
 * Decomposition of a polynomial into digits (ModUp), and who holds them where limbs are sharded: every rank
 * the
 * own limbs of all digits (input broadcast), or whole digits (output aggregation; NUMBERS section 5).
 */
import { defined, invariant } from '../../support/invariant.js';
import { digitGroupsAt, digitsAt, type KeyClass } from '../../target/parameters.js';
import type { Attrs, Value } from '../../ir/module.js';
import { componentAxis, digitAxis, digitGroupAxis, limbRange, specialLimbs } from '../../ir/ops/poly.js';
import { blockOwners, withSharding } from '../../ir/sharding.js';
import { withoutAxes, type PolyType, type Sharding } from '../../ir/types.js';
import { levelOf, polyOf, shapeOf, shardingOf, type Scope } from './scope.js';

/** How the key switches of an op are made. */
export interface SwitchForm {
  /** Where limbs are sharded. */
  readonly modUp: 'broadcast' | 'aggregate';
  /**
   * Digits in so many contiguous groups, each with a ModDown of its own; undefined: one ModDown of the sum.
   */
  readonly digitGroups?: number | undefined;
}

/** Neighbouring digits whose products are divided by P together. */
interface DigitGroup {
  readonly first: number;
  readonly count: number;
  /** Rank along the mesh axis, where ranks hold whole digits. */
  readonly owner: number;
}

export interface Digits {
  /** [axes..][digit], on the limbs of the polynomial and the special primes of the class. */
  readonly value: Value;
  readonly keyClass: KeyClass;
  /** Mesh axis along which ranks hold whole digits; undefined: none. */
  readonly meshAxis: number | undefined;
  /** Undefined: one ModDown for all digits. */
  readonly groups: readonly DigitGroup[] | undefined;
}

/** Digits of an array of single polynomials. */
export function modUp(s: Scope, c: Value, keyClass: KeyClass, form: SwitchForm): Digits {
  const level = levelOf(c);
  invariant(
    level <= keyClass.level,
    `key class ${keyClass.name} ends at level ${keyClass.level}, not ${level}`,
  );
  const { sharding } = polyOf(c);
  const m = form.modUp === 'aggregate' ? sharding.findIndex((one) => one.kind === 'limbs') : -1;
  const meshAxis = m < 0 ? undefined : m;
  const digits = digitsAt(keyClass, level);
  const ranks = meshAxis === undefined ? 1 : s.ranksAlong(meshAxis);
  const { digitGroups: cut } = form;
  const groupOf = cut === undefined ? blockOwners(digits.length, ranks) : digitGroupsAt(keyClass, level, cut);
  const owners = groupOf.map((group) => Math.floor((group * ranks) / (cut ?? ranks)));
  const value =
    meshAxis === undefined
      ? digitsOf(s, c, keyClass, digits)
      : wholeDigits(s, c, keyClass, { digits, owners, meshAxis });
  const groups = digitGroups(groupOf, owners);
  // A single ModDown of all digits is that of the sum.
  const grouped = cut !== undefined && (groups.length > 1 || meshAxis !== undefined);
  return { value, keyClass, meshAxis, groups: grouped ? groups : undefined };
}

function digitGroups(groupOf: readonly number[], owners: readonly number[]): DigitGroup[] {
  return [...new Set(groupOf)].map((group) => {
    const first = groupOf.indexOf(group);
    const count = groupOf.filter((other) => other === group).length;
    return { first, count, owner: defined(owners[first], 'owner of a digit') };
  });
}

type DigitRanges = readonly { readonly first: number; readonly count: number }[];

/** Every rank makes its limbs of all digits, from the coefficients of all limbs. */
function digitsOf(s: Scope, c: Value, keyClass: KeyClass, digits: DigitRanges): Value {
  const coefficients = s.allLimbs(s.coefficients(c));
  const out = s.undefined(digitsType(s, polyOf(c), keyClass, digits.length));
  return fillDigits(s, out, digits, {
    own: (limbs) => s.limbs(c, limbs),
    coefficients: (limbs) => s.limbs(coefficients, limbs),
    attrs: shardingOf(polyOf(c)),
  });
}

interface WholeDigits {
  readonly digits: DigitRanges;
  readonly owners: readonly number[];
  readonly meshAxis: number;
}

/** Every rank makes all limbs of its digits, after their own limbs have come to it. */
function wholeDigits(
  s: Scope,
  c: Value,
  keyClass: KeyClass,
  { digits, owners, meshAxis }: WholeDigits,
): Value {
  const { sharding } = polyOf(c);
  const dealt = sharding[meshAxis];
  invariant(dealt?.kind === 'limbs', 'limbs are sharded');
  const limbOwners = [...dealt.owners];
  digits.forEach(({ first, count }, digit) =>
    limbOwners.fill(defined(owners[digit], 'owner of a digit'), first, first + count),
  );
  const along = (one: Sharding): readonly Sharding[] => withSharding(sharding, meshAxis, one);
  const moved = s.lay(c, along({ kind: 'limbs', owners: limbOwners }));
  const coefficients = s.coefficients(moved);
  const type = digitsType(s, polyOf(c), keyClass, digits.length);
  const out = s.undefined({ ...type, sharding: along({ kind: 'split', axis: digitAxis, owners }) });
  const at = (value: Value, limbs: readonly number[]): Value => {
    const rank = defined(limbOwners[defined(limbs[0], 'limb')], 'owner of a limb');
    return s.lay(s.limbs(value, limbs), along({ kind: 'at', rank }));
  };
  return fillDigits(s, out, digits, {
    own: (limbs) => at(moved, limbs),
    coefficients: (limbs) => at(coefficients, limbs),
    attrs: {},
  });
}

function digitsType(s: Scope, type: PolyType, keyClass: KeyClass, digits: number): PolyType {
  return {
    ...type,
    limbs: [...type.limbs, ...specialLimbs(s.parameters, keyClass.specials)],
    axes: [...type.axes, { name: digitAxis, size: digits }],
  };
}

interface DigitSource {
  /** Limbs in NTT form. */
  readonly own: (limbs: readonly number[]) => Value;
  readonly coefficients: (limbs: readonly number[]) => Value;
  /** How conversions are shared. */
  readonly attrs: Attrs;
}

function fillDigits(s: Scope, target: Value, digits: DigitRanges, source: DigitSource): Value {
  const { limbs } = polyOf(target);
  let out = target;
  digits.forEach(({ first, count }, digit) => {
    const own = limbRange(first, count);
    const axes = { [digitAxis]: [digit, 1] as const };
    out = s.into('poly.copy', [source.own(own)], out, { axes, limbs: own }, { over: [] });
    // The limbs before and after the digit are two runs in memory.
    for (const others of [limbs.slice(0, first), limbs.slice(first + count)]) {
      if (others.length === 0) continue;
      const attrs = { limbs: others, ...source.attrs };
      const converted = s.op('poly.base_convert', [source.coefficients(own)], attrs);
      out = s.into('poly.ntt', [converted], out, { axes, limbs: others });
    }
  });
  return out;
}

// ---------------------------------------------------------------- groups of digits

/** Writes what a group's digits make into a window of an array. */
type WriteGroup = (
  digits: Value,
  attrs: { readonly firstDigit: number },
  target: Value,
  window: { readonly axes: Readonly<Record<string, readonly [number, number]>> },
) => Value;

/**
 * Memory for the partial sums [axes..][digit_group][component] of all groups; `type` is that of one group's.
 */
export function undefinedGroups(s: Scope, digits: Digits, type: PolyType): Value {
  return s.undefined(groupsType(digits, type));
}

export function zeroGroups(s: Scope, digits: Digits, type: PolyType): Value {
  return s.op('poly.zero', [], shapeOf(groupsType(digits, type)));
}

function groupsType(digits: Digits, type: PolyType): PolyType {
  const { meshAxis } = digits;
  const groups = defined(digits.groups, 'groups of digits');
  const component = defined(
    type.axes.find((axis) => axis.name === componentAxis),
    'component axis',
  );
  const axes = [
    ...withoutAxes(type.axes, [componentAxis]),
    { name: digitGroupAxis, size: groups.length },
    component,
  ];
  const owners = groups.map(({ owner }) => owner);
  const sharding =
    meshAxis === undefined
      ? type.sharding
      : withSharding(type.sharding, meshAxis, { kind: 'split', axis: digitGroupAxis, owners });
  return { ...type, axes, sharding };
}

/** The partial sums, group by group. */
export function fillGroups(s: Scope, digits: Digits, target: Value, write: WriteGroup): Value {
  const { meshAxis } = digits;
  let sums = target;
  defined(digits.groups, 'groups of digits').forEach(({ first, count, owner }, g) => {
    const own = s.slice(digits.value, digitAxis, first, count);
    const lain =
      meshAxis === undefined
        ? own
        : s.lay(own, withSharding(polyOf(own).sharding, meshAxis, { kind: 'at', rank: owner }));
    sums = write(lain, { firstDigit: first }, sums, { axes: { [digitGroupAxis]: [g, 1] } });
  });
  return sums;
}
