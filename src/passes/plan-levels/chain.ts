/**
 * The prime chain as a choice by predicted time: few usable levels make every op cheap and need many
 * bootstraps, many levels the other way round; special primes and the digits of keys follow.
 */
import { walkOps, type Module } from '../../ir/module.js';
import { defined } from '../../support/invariant.js';
import { switchingKeyBytes } from '../../target/cost.js';
import {
  defaultLiteral,
  makeParameters,
  ringLogN,
  type Parameters,
  type ParametersLiteral,
} from '../../target/parameters.js';
import type { DeviceProfile } from '../../target/profile.js';
import { hasRange, type ValueBounds } from './attributes.js';
import { levelsTaken, pricesFor } from './price.js';
import { buildLevelProblem } from './problem.js';
import { fits, levelLimits, solveLevels } from './solve.js';

export interface Chain {
  readonly parameters: Parameters;
  /** Least predicted time of a run at the secure ring, with shared adjustments counted from below. */
  readonly seconds: number;
  /** Of one key at the highest compute level and one at the top. */
  readonly keyBytes: number;
}

/**
 * Usable levels that are tried: beyond 18 keys fall into so many digits that no model of docs/cost-model.md
 * is faster, and between these numbers digits are cut badly.
 */
const levelsTried = [18, 17, 16, 15, 14, 13, 10, 8];
/** Below the least of them numbers are tried while a plan takes at most this many times the best. */
const worthTrying = 1.2;
/** Times this near to the fastest count as equal: among them the smallest keys are taken. */
const equalWithin = 0.01;
/** A trial is to take about a second; chains whose tables are larger are left out. */
const trialLimits = { ...levelLimits, tableEntries: 3e7 };

/**
 * Parameters with this many usable levels, all else as in the literal, and the fewest special primes that
 * leave keys in as few digits as security allows: more of them cost time and memory and save nothing.
 * Error S103: no room for special primes.
 */
export function chainOf(literal: ParametersLiteral, usableLevels: number): Parameters {
  const { ring, insecure, specials: _, ...rest } = literal;
  const most = makeParameters(defaultLiteral(ring, insecure, { ...rest, usableLevels }));
  let best = most;
  while (best.specials > 2) {
    const fewer = makeParameters({ ...best.literal, specials: best.specials - 1 });
    if (digitsOfTop(fewer) > digitsOfTop(most)) break;
    best = fewer;
  }
  return best;
}

function digitsOfTop({ keyClasses }: Parameters): number {
  return defined(
    keyClasses.find(({ name }) => name === 'top'),
    'class of keys at the top',
  ).digits.length;
}

/**
 * Chains that have a plan, the one to take first; levels of the module open. Only that of the module where a
 * trial of it would take too long, or no chain has a plan.
 */
export function rankChains(
  module: Module,
  bounds: ValueBounds,
  profile: DeviceProfile | undefined,
): readonly Chain[] {
  const parameters = defined(module.parameters, 'parameters');
  const { literal } = parameters;
  const own = { parameters, seconds: Infinity, keyBytes: keyBytesOf(parameters) };
  const deepest = deepestOp(module);
  const found: Chain[] = [];
  const best = (): number => Math.min(...found.map(({ seconds }) => seconds));
  const tried = (usableLevels: number): number => {
    const chain = trial(module, bounds, chainOf(literal, usableLevels), profile);
    if (chain.seconds < Infinity) found.push(chain);
    return chain.seconds;
  };
  for (const levels of levelsTried) if (levels >= deepest) tried(levels);
  for (let levels = Math.min(...levelsTried) - 1; levels >= Math.max(1, deepest); levels--) {
    if (tried(levels) > worthTrying * best()) break;
  }
  if (!found.some((chain) => chain.parameters.literal.usableLevels === literal.usableLevels)) return [own];
  const equal = (1 + equalWithin) * best();
  return found.sort((a, b) => {
    const [near, far] = [a, b].map(({ seconds }) => seconds <= equal);
    if (near !== far) return near === true ? -1 : 1;
    return near === true ? a.keyBytes - b.keyBytes : a.seconds - b.seconds;
  });
}

/** Levels that one op and the bootstraps before and after it leave between them at least. */
function deepestOp(module: Module): number {
  let deepest = 0;
  for (const { body } of module.functions)
    walkOps(body, (op) => (deepest = Math.max(deepest, levelsTaken(op))));
  return deepest;
}

/** At the size of the secure ring: the test rings take its chain, where launches would decide otherwise. */
function trial(
  module: Module,
  bounds: ValueBounds,
  parameters: Parameters,
  profile: DeviceProfile | undefined,
): Chain {
  const keyBytes = keyBytesOf(parameters);
  const atSize = makeParameters({ ...parameters.literal, logN: Math.max(parameters.logN, ringLogN.secure) });
  const { problem } = buildLevelProblem(
    { ...module, parameters: atSize },
    { prices: pricesFor(atSize, profile), known: (value) => hasRange(value, bounds), sharers: 0 },
  );
  const seconds = fits(problem, trialLimits) ? solveLevels(problem, trialLimits).value : Infinity;
  return { parameters, seconds, keyBytes };
}

function keyBytesOf(parameters: Parameters): number {
  return [parameters.computeTop, parameters.maxLevel].reduce(
    (sum, level) => sum + switchingKeyBytes(parameters, level),
    0,
  );
}
