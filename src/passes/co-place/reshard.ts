/** What it takes to use a value of one sharding where another is needed. */
import { everyRank, sameSharding } from '../../ir/sharding.js';
import { axesCount, type CtType, type Sharding } from '../../ir/types.js';
import type { CollectiveKind } from '../../target/kernel-cost.js';
import { levelOfType, rowBytes, type Costing } from './op-cost.js';

export interface Transfer {
  readonly seconds: number;
  readonly bytes: number;
}

export const noTransfer: Transfer = { seconds: 0, bytes: 0 };

/** Limb rows of a value: on the chain, and on special primes. */
export function rowsOf(type: CtType): { chain: number; special: number } {
  const polynomials = axesCount(type.axes) * (type.degree + 1);
  const special = type.basis.kind === 'qp' ? type.basis.specials : 0;
  return { chain: polynomials * (levelOfType(type) + 1), special: polynomials * special };
}

/** A rank's part of what it holds (canView of ir/sharding.ts). */
export function viewable(from: Sharding, to: Sharding): boolean {
  if (sameSharding(from, to)) return true;
  if (from.kind === 'replicated') return to.kind === 'split' || to.kind === 'limbs' || to.kind === 'at';
  return from.kind === 'split' && to.kind === 'at' && from.owners.every((owner) => owner === to.rank);
}

/** Shares of a value: by rank, of chain rows. */
function shares(type: CtType, sharding: Sharding, ranks: number): number[] {
  const byRank = (owners: readonly number[]): number[] =>
    Array.from(
      { length: ranks },
      (_, r) => owners.filter((owner) => owner === r || owner === everyRank).length / owners.length,
    );
  switch (sharding.kind) {
    case 'split':
      return byRank(sharding.owners);
    case 'limbs':
      return byRank(sharding.owners.slice(0, levelOfType(type) + 1));
    case 'at':
      return Array.from({ length: ranks }, (_, r) => (r === sharding.rank ? 1 : 0));
    case 'replicated':
    case 'partial':
      return Array.from({ length: ranks }, () => 1);
  }
}

/** Share of the target part that a rank holds already. */
function overlaps(
  from: Sharding,
  to: Sharding,
  held: readonly number[],
  wanted: readonly number[],
): number[] {
  if (from.kind === 'split' && to.kind === 'split' && from.axis === to.axis) {
    return wanted.map(
      (_, r) => from.owners.filter((owner, i) => owner === r && to.owners[i] === r).length / to.owners.length,
    );
  }
  return wanted.map((share, r) => share * (held[r] ?? 0));
}

/** Undefined: impossible. */
export function reshard(costing: Costing, type: CtType, from: Sharding, to: Sharding): Transfer | undefined {
  if (viewable(from, to)) return noTransfer;
  if (to.kind === 'partial') return undefined;
  const { ranks, parameters, costs } = costing;
  const { chain, special } = rowsOf(type);
  const held = shares(type, from, ranks);
  const transfer = (kind: CollectiveKind, rows: number): Transfer => {
    const bytes = rows * rowBytes(parameters);
    return { bytes, seconds: costs.collective(kind, bytes) };
  };
  const away = (ranks - 1) / ranks;
  if (from.kind === 'partial') {
    if (to.kind === 'at') return undefined;
    if (to.kind === 'replicated') return transfer('all_reduce', 2 * (chain + special) * away);
    const wanted = Math.max(...shares(type, to, ranks)) * (ranks - 1);
    return to.kind === 'limbs'
      ? transfer('reduce_scatter', chain * wanted + 2 * special * away)
      : transfer('reduce_scatter', (chain + special) * wanted);
  }
  if (from.kind === 'at' || to.kind === 'at') return viaGather(transfer, from, held, chain, special);
  const ownSpecial = from.kind === 'limbs' ? 0 : special;
  if (to.kind === 'replicated') {
    const missing = 1 - Math.min(...held);
    return transfer('all_gather', missing * (chain + ownSpecial));
  }
  const wanted = shares(type, to, ranks);
  const overlap = overlaps(from, to, held, wanted);
  const most = (have: readonly number[], want: readonly number[]): number =>
    Math.max(
      ...want.map((share, r) => share - (overlap[r] ?? 0)),
      ...have.map((share, r) => share - (overlap[r] ?? 0)),
    );
  const moved = most(held, wanted) * chain;
  if (to.kind === 'limbs') return transfer('all_to_all', moved + (1 - Math.min(...held)) * special);
  return transfer('all_to_all', moved + (from.kind === 'limbs' ? 0 : most(held, wanted) * special));
}

function viaGather(
  transfer: (kind: CollectiveKind, rows: number) => Transfer,
  from: Sharding,
  held: readonly number[],
  chain: number,
  special: number,
): Transfer {
  if (from.kind === 'at') return transfer('broadcast', chain + special);
  const missing = 1 - Math.min(...held);
  return transfer('all_gather', missing * (chain + (from.kind === 'limbs' ? 0 : special)));
}
