/** What a rank holds in memory, from what its program says. */
import { digitsAt } from '../target/parameters.js';
import { defined } from '../support/invariant.js';
import type { Key, KeyPart, PlanProgram, PlanView, Plaintext, RankMemory } from './plan-view.js';

interface KeyParameters {
  readonly logN: number;
  readonly keyClasses: readonly {
    readonly specials: number;
    readonly digits: readonly { readonly first: number; readonly count: number }[];
  }[];
}

/**
 * Memory of a key: both halves, [digit][component][limb][N] words; the file holds one half and the seed of
 * the other. Of a part (`limbs` not empty), those limbs.
 */
export function keyBytes(key: Key, limbs: readonly number[], parameters: KeyParameters): number {
  const keyClass = defined(parameters.keyClasses[key.keyClass], 'key class');
  const limbCount = limbs.length > 0 ? limbs.length : key.level + 1 + keyClass.specials;
  return digitsAt(keyClass, key.level).length * 2 * limbCount * 2 ** parameters.logN * 8;
}

/** Coefficients are held once for all limbs. */
export function plaintextBytes({ elements, limbs, rowWords, coefficients }: Plaintext): number {
  return elements * (coefficients ? 1 : limbs.length) * rowWords * 8;
}

/** Plaintexts that the functions name, rising; what a call binds is a slot of the caller. */
export function usedPlaintexts(functions: PlanProgram['functions']): number[] {
  const used = new Set<number>();
  for (const { plaintexts } of functions) {
    for (const slot of plaintexts) if (!slot.argument) used.add(slot.plaintext);
  }
  return [...used].sort((a, b) => a - b);
}

export function rankMemory(
  plan: Pick<PlanView, 'keys' | 'plaintexts'> & { readonly parameters: KeyParameters },
  functions: PlanProgram['functions'],
  keys: readonly KeyPart[],
): RankMemory {
  const rowBytes = 2 ** plan.parameters.logN * 8;
  const entry = defined(functions.at(-1), 'entry function');
  const sum = <T>(list: readonly T[], bytes: (item: T) => number): number =>
    list.reduce((total, item) => total + bytes(item), 0);
  return {
    ports: sum(entry.buffers, ({ argument, rows }) => (argument ? rows * rowBytes : 0)),
    frame: entry.frameRows * rowBytes,
    keys: sum(keys, ({ key, limbs }) => keyBytes(defined(plan.keys[key], 'key'), limbs, plan.parameters)),
    plaintexts: sum(usedPlaintexts(functions), (id) =>
      plaintextBytes(defined(plan.plaintexts[id], 'plaintext')),
    ),
  };
}

export function peakBytes(memory: RankMemory): number {
  return memory.ports + memory.frame + memory.keys + memory.plaintexts;
}
