/** Checks of single attributes and types. Each returns what is wrong, as the text of a diagnostic. */
import { unreachable } from '../support/invariant.js';
import type { Parameters } from '../target/parameters.js';
import type { AttrValue } from './module.js';
import type { AttrKind } from './opdef.js';
import { parseScale } from './scale.js';
import { shardingProblem } from './sharding.js';
import type { Axis, Phase, Type } from './types.js';

/** Receives one fault. */
export type Report = (code: string, message: string, help?: string) => void;

/** Undefined if `value` is of the kind, else what it should be. */
export function attrProblem(value: AttrValue, kind: AttrKind): string | undefined {
  const unless = (sound: boolean, wanted: string): string | undefined => (sound ? undefined : wanted);
  const isReal = (item: unknown): boolean => typeof item === 'number' && Number.isFinite(item);
  const every = (test: (item: unknown) => boolean): boolean => Array.isArray(value) && value.every(test);
  switch (kind) {
    case 'int':
      return unless(Number.isSafeInteger(value), 'an integer');
    case 'real':
      return unless(isReal(value), 'a finite number');
    case 'bool':
      return unless(typeof value === 'boolean', 'true or false');
    case 'string':
      return unless(typeof value === 'string', 'a string');
    case 'ints':
      return unless(every(Number.isSafeInteger), 'a list of integers');
    case 'reals':
      return unless(every(isReal), 'a list of finite numbers');
    case 'strings':
      return unless(
        every((item) => typeof item === 'string'),
        'a list of strings',
      );
    case 'scale': {
      const sound = typeof value === 'string' && parseScale(value) !== undefined;
      return unless(sound, 'a scale such as "D12"');
    }
    case 'axes':
      return unless(every(isAxis), 'a list of axes name=size');
    case 'json':
      return undefined;
    default:
      return unreachable(kind);
  }
}

function isAxis(item: unknown): boolean {
  if (typeof item !== 'object' || item === null || Array.isArray(item)) return false;
  const { name, size, ...rest } = item as Record<string, unknown>;
  return typeof name === 'string' && Number.isSafeInteger(size) && Object.keys(rest).length === 0;
}

const phaseTypes: Readonly<Record<Phase, readonly Type['kind'][]>> = {
  tensor: ['tensor'],
  cipher: ['ct', 'pt'],
  poly: ['poly', 'pt'],
};

export function phaseProblem(type: Type, phase: Phase): string | undefined {
  if (phaseTypes[phase].includes(type.kind)) return undefined;
  return `type ${type.kind} does not belong to phase ${phase}`;
}

/** Bounds that hold for every value: axes, levels, limbs, periods. */
export function typeProblem(type: Type, parameters: Parameters | null): string | undefined {
  switch (type.kind) {
    case 'tensor': {
      const bad = type.shape.find((size) => !Number.isSafeInteger(size) || size < 0);
      return bad === undefined ? undefined : `dimension ${bad} is not a size`;
    }
    case 'ct':
      return axesProblem(type.axes) ?? levelProblem(type, parameters);
    case 'pt': {
      const limit = parameters?.slots ?? 2 ** 30;
      const { axes, period } = type;
      const sound = Number.isSafeInteger(Math.log2(period)) && period >= 1 && period <= limit;
      const problem = sound ? undefined : `period ${period} is not a power of two up to ${limit}`;
      return axesProblem(axes) ?? problem;
    }
    case 'poly': {
      const count = parameters?.primes.length ?? Infinity;
      const bad = type.limbs.find((limb) => !Number.isSafeInteger(limb) || limb < 0 || limb >= count);
      if (bad !== undefined) return `limb ${bad} is not one of ${count} primes`;
      const distinct = new Set(type.limbs).size === type.limbs.length;
      const sharding = type.sharding
        .map((one) => shardingProblem(type, one))
        .find((text) => text !== undefined);
      return axesProblem(type.axes) ?? (distinct ? sharding : 'a limb is listed twice');
    }
    default:
      return unreachable(type);
  }
}

function axesProblem(axes: readonly Axis[]): string | undefined {
  const names = new Set<string>();
  for (const { name, size } of axes) {
    if (!Number.isSafeInteger(size) || size < 1) return `axis ${name} has size ${size}`;
    if (names.has(name)) return `axis ${name} is listed twice`;
    names.add(name);
  }
  return undefined;
}

function levelProblem(type: Type & { kind: 'ct' }, parameters: Parameters | null): string | undefined {
  const { level, scale } = type;
  if ((level === null) !== (scale === null)) return 'level and scale are known together or not at all';
  if (level === null) return undefined;
  const top = parameters?.maxLevel ?? Infinity;
  if (!Number.isSafeInteger(level) || level < 0 || level > top) return `level ${level} is not in 0..${top}`;
  const specials = parameters?.specials ?? Infinity;
  if (type.basis.kind === 'qp' && (type.basis.specials < 1 || type.basis.specials > specials)) {
    return `${type.basis.specials} special primes, not 1..${specials}`;
  }
  return undefined;
}
