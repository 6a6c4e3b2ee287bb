/** The parts of keys that a rank holds, and what key products need of them. */
import { digitsAt } from '../../target/parameters.js';
import type { Command, Key, PlanProgram, PlanView } from '../plan-view.js';
import { rising } from './collectives.js';

/** Per key of the plan, 1 for each prime whose rows the rank holds; undefined where it holds none. */
export type KeyLimbs = readonly (Uint8Array | undefined)[];

function limbsOf(key: Key, plan: PlanView): Uint8Array {
  const { primes, maxLevel, keyClasses } = plan.parameters;
  const specials = keyClasses[key.keyClass]?.specials ?? 0;
  return Uint8Array.from(primes, (_, limb) =>
    Number(limb <= key.level || (limb > maxLevel && limb <= maxLevel + specials)),
  );
}

/** Unsound parts are reported and left out. */
export function keyLimbs(plan: PlanView, program: PlanProgram, report: (fault: string) => void): KeyLimbs {
  const held = new Array<Uint8Array | undefined>(plan.keys.length).fill(undefined);
  for (const part of program.keys) {
    const key = plan.keys[part.key];
    if (key === undefined) report(`holds key ${part.key} of ${plan.keys.length}`);
    else if (held[part.key] !== undefined) report(`holds key ${part.key} twice`);
    else {
      const all = limbsOf(key, plan);
      if (!rising(part.limbs) || part.limbs.some((limb) => all[limb] !== 1)) {
        report(`limbs [${part.limbs.join()}] are not limbs of key ${part.key}, rising`);
      }
      held[part.key] =
        part.limbs.length === 0 ? all : all.map((_, limb) => Number(part.limbs.includes(limb)));
    }
  }
  return held;
}

export function keyProblem(command: Command, plan: PlanView, held: KeyLimbs): string | undefined {
  for (const index of new Set(command.keys)) {
    const key = plan.keys[index];
    const keyClass = key === undefined ? undefined : plan.parameters.keyClasses[key.keyClass];
    if (key === undefined || keyClass === undefined) return `a key that is none of ${plan.keys.length}`;
    const digits = digitsAt(keyClass, key.level).length;
    const end = command.firstDigit + command.digitCount;
    if (command.digitCount < 1 || end > digits) {
      return `digits ${command.firstDigit} to ${end - 1} of key ${index}, which has ${digits}`;
    }
    const limbs = held[index];
    if (limbs === undefined) return `needs key ${index}, of which the rank holds nothing`;
    const missing = command.limbs.find((limb) => limbs[limb] !== 1);
    if (missing !== undefined) return `needs limb ${missing} of key ${index}, which the rank does not hold`;
  }
  return undefined;
}
