/**
 * The placement language (DESIGN section 6): how poly values lie on the mesh, and what that makes of the
 * results of
 * ops. Every rule speaks of one mesh axis; the axes do not see each other.
 */
import { defined } from '../support/invariant.js';
import { axesCount, axisSize, type Axis, type PolyType, type Sharding } from './types.js';

/** Owner of a limb that every rank holds. */
export const everyRank = -1;
export const replicated: Sharding = { kind: 'replicated' };
export const partial: Sharding = { kind: 'partial' };

export interface Mesh {
  readonly axes: readonly { readonly name: string; readonly size: number }[];
}

export function meshSize(mesh: Mesh): number {
  return mesh.axes.reduce((product, axis) => product * axis.size, 1);
}

/** Coordinates of a rank, the first mesh axis slowest. */
export function coordinatesOf(mesh: Mesh, rank: number): number[] {
  const coordinates: number[] = [];
  let rest = rank;
  for (const { size } of [...mesh.axes].reverse()) {
    coordinates.unshift(rest % size);
    rest = Math.floor(rest / size);
  }
  return coordinates;
}

/** Ranks that differ from `rank` in coordinate `axis` only, rising. */
export function groupOf(mesh: Mesh, rank: number, axis: number): number[] {
  const stride = mesh.axes.slice(axis + 1).reduce((product, other) => product * other.size, 1);
  const size = defined(mesh.axes[axis], 'mesh axis').size;
  const own = Math.floor(rank / stride) % size;
  return Array.from({ length: size }, (_, i) => rank + (i - own) * stride);
}

/** Contiguous blocks that differ by one index at most: rank of each of `count` indices. */
export function blockOwners(count: number, ranks: number): number[] {
  return Array.from({ length: count }, (_, i) => Math.floor((i * ranks) / count));
}

/** Chain limbs dealt round-robin, special limbs everywhere: by prime index. */
export function dealtLimbs(chain: number, specials: number, ranks: number): Sharding {
  const owners = Array.from({ length: chain + specials }, (_, i) => (i < chain ? i % ranks : everyRank));
  return { kind: 'limbs', owners };
}

export function sameSharding(a: Sharding, b: Sharding): boolean {
  if (a.kind === 'split' && b.kind === 'split')
    return (
      a.axis === b.axis && a.owners.length === b.owners.length && a.owners.every((o, i) => o === b.owners[i])
    );
  if (a.kind === 'limbs' && b.kind === 'limbs') return a.owners.every((o, i) => o === b.owners[i]);
  if (a.kind === 'at' && b.kind === 'at') return a.rank === b.rank;
  return a.kind === b.kind;
}

export function sameShardings(a: readonly Sharding[], b: readonly Sharding[]): boolean {
  const count = Math.max(a.length, b.length);
  return Array.from({ length: count }, (_, m) => m).every((m) => sameSharding(onAxis(a, m), onAxis(b, m)));
}

/** The list without replicated entries at its end: equal shardings are equal lists. */
export function canonical(sharding: readonly Sharding[]): readonly Sharding[] {
  const count = sharding.findLastIndex(({ kind }) => kind !== 'replicated') + 1;
  return count === sharding.length ? sharding : sharding.slice(0, count);
}

/** Shardings of all mesh axes with another one on mesh axis `m`. */
export function withSharding(sharding: readonly Sharding[], m: number, one: Sharding): readonly Sharding[] {
  const count = Math.max(sharding.length, m + 1);
  return Array.from({ length: count }, (_, i) => (i === m ? one : onAxis(sharding, i)));
}

/** How a value lies on mesh axis `m`; a missing entry means replicated. */
export function onAxis(sharding: readonly Sharding[], m: number): Sharding {
  return sharding[m] ?? replicated;
}

// ---------------------------------------------------------------- what a rank holds

/** Indices of an array axis that coordinate `c` of the mesh axis holds. */
export function ownIndices(sharding: Sharding, axis: Axis, c: number): number[] {
  const all = Array.from({ length: axis.size }, (_, i) => i);
  if (sharding.kind !== 'split' || sharding.axis !== axis.name) return all;
  return all.filter((i) => sharding.owners[i] === c);
}

export function ownLimbs(sharding: Sharding, limbs: readonly number[], c: number): number[] {
  if (sharding.kind !== 'limbs') return [...limbs];
  return limbs.filter((limb) => sharding.owners[limb] === c || sharding.owners[limb] === everyRank);
}

/** The part of a sharded array that the rank at these coordinates holds; undefined if there is none. */
export function localType(type: PolyType, coordinates: readonly number[]): PolyType | undefined {
  let { axes, limbs } = type as { axes: readonly Axis[]; limbs: readonly number[] };
  for (const [m, c] of coordinates.entries()) {
    const sharding = onAxis(type.sharding, m);
    if (sharding.kind === 'at' && sharding.rank !== c) return undefined;
    axes = axes.map((axis) => ({ ...axis, size: ownIndices(sharding, axis, c).length }));
    limbs = ownLimbs(sharding, limbs, c);
  }
  return axesCount(axes) === 0 || limbs.length === 0 ? undefined : { ...type, axes, limbs, sharding: [] };
}

// ---------------------------------------------------------------- rules

/** What a sharding must name to make sense on a type; undefined if it does. */
export function shardingProblem(type: PolyType, sharding: Sharding): string | undefined {
  if (sharding.kind === 'split') {
    const size = axisSize(type.axes, sharding.axis);
    if (size === undefined) return `sharded axis ${sharding.axis} does not exist`;
    if (size !== sharding.owners.length) {
      return `axis ${sharding.axis} has ${size} indices but ${sharding.owners.length} owners`;
    }
    if (sharding.owners.some((owner) => owner < 0)) return `an index of axis ${sharding.axis} has no owner`;
  }
  if (sharding.kind === 'limbs') {
    const missing = type.limbs.find((limb) => sharding.owners[limb] === undefined);
    if (missing !== undefined) return `limb ${missing} has no owner`;
  }
  return undefined;
}

export interface ComputeRule {
  /** Axes that are summed. */
  readonly over: readonly string[];
  /** Linear in every operand: takes partial sums. */
  readonly linear: boolean;
  /** Works limb by limb. */
  readonly limbwise: boolean;
}

/**
 * Sharding of the result of a command. Operands are sharded alike or replicated, and a rank takes its part of
 * a
 * replicated operand; a sum over a sharded axis is partial. `asked` shards work on replicated operands.
 */
export function resultSharding(
  operands: readonly { readonly axes: readonly Axis[]; readonly sharding: Sharding }[],
  rule: ComputeRule,
  asked: Sharding | undefined,
): Sharding | string {
  const leads = operands.map((operand) => operand.sharding).filter(({ kind }) => kind !== 'replicated');
  const lead = leads[0];
  if (lead === undefined) return asked ?? replicated;
  if (asked !== undefined && !sameSharding(asked, lead)) return 'operands are sharded already';
  const other = leads.find((sharding) => !sameSharding(sharding, lead));
  if (other !== undefined) return `operands are sharded ${lead.kind} and ${other.kind}`;
  switch (lead.kind) {
    case 'split':
      return rule.over.includes(lead.axis) ? partial : lead;
    case 'limbs':
      return rule.limbwise ? lead : 'this op reads all limbs';
    case 'partial':
      if (!rule.linear) return 'a partial sum must be reduced before this op';
      return leads.length === operands.length ? lead : 'a partial sum meets a complete operand';
    default:
      return lead;
  }
}

/** Part of an array that a command writes (ops/poly.ts). */
interface WindowPart {
  readonly axes?: Readonly<Record<string, readonly [start: number, size: number]>>;
}

/** Checks that what a command makes may be written into a window of `target`; undefined if it may. */
export function windowShardingProblem(
  target: Sharding,
  produced: Sharding,
  made: Pick<PolyType, 'axes' | 'limbs'>,
  window: WindowPart,
  accumulate: boolean,
): string | undefined {
  if (produced.kind === 'replicated')
    return target.kind === 'partial' ? 'a partial sum takes one addend' : undefined;
  if (target.kind === 'partial') {
    // Each addend comes from one rank.
    const everywhere =
      produced.kind === 'limbs' && made.limbs.some((limb) => produced.owners[limb] === everyRank);
    return produced.kind === 'partial' || (accumulate && !everywhere)
      ? undefined
      : 'the window is a partial sum';
  }
  if (target.kind !== 'split') {
    return sameSharding(target, produced) ? undefined : `a ${produced.kind} result in a ${target.kind} array`;
  }
  const [start, size] = window.axes?.[target.axis] ?? [0, target.owners.length];
  const owners = target.owners.slice(start, start + size);
  if (axisSize(made.axes, target.axis) === undefined || produced.kind === 'at') {
    const fits = produced.kind === 'at' && owners.every((owner) => owner === produced.rank);
    return fits ? undefined : `a ${produced.kind} result for indices of other ranks`;
  }
  const fits = sameSharding(produced, { ...target, owners });
  return fits ? undefined : `a ${produced.kind} result with other owners`;
}

/** Sharding after one index of an axis is taken. */
export function indexedSharding(
  sharding: Sharding,
  axis: string,
  index: number,
  moves: boolean,
): Sharding | string {
  if (sharding.kind !== 'split' || sharding.axis !== axis) return sharding;
  if (moves) return `a loop cannot move along the sharded axis ${axis}`;
  return { kind: 'at', rank: defined(sharding.owners[index], 'owner') };
}

export function slicedSharding(sharding: Sharding, axis: string, start: number, size: number): Sharding {
  if (sharding.kind !== 'split' || sharding.axis !== axis) return sharding;
  return { ...sharding, owners: sharding.owners.slice(start, start + size) };
}

/** The same owners of the same elements under other axes; a string if no axis says so. */
export function reshapedSharding(
  sharding: Sharding,
  axes: readonly Axis[],
  to: readonly Axis[],
): Sharding | string {
  if (sharding.kind !== 'split') return sharding;
  const k = axes.findIndex((axis) => axis.name === sharding.axis);
  const inner = axesCount(axes.slice(k + 1));
  const count = axesCount(axes);
  const ownerOf = (flat: number): number | undefined =>
    sharding.owners[Math.floor(flat / inner) % sharding.owners.length];
  for (const [i, axis] of to.entries()) {
    const unit = axesCount(to.slice(i + 1));
    const owners = Array.from({ length: axis.size }, (_, index) => defined(ownerOf(index * unit), 'owner'));
    let fits = true;
    for (let flat = 0; flat < count && fits; flat++) {
      fits = ownerOf(flat) === owners[Math.floor(flat / unit) % axis.size];
    }
    if (fits) return { kind: 'split', axis: axis.name, owners };
  }
  return `no axis of the new shape holds the owners of ${sharding.axis}`;
}

/** What can be viewed without communication: a rank's part of what it holds. */
export function canView(type: PolyType, from: Sharding, to: Sharding): boolean {
  if (sameSharding(from, to)) return true;
  if (from.kind === 'replicated') return to.kind === 'split' || to.kind === 'limbs' || to.kind === 'at';
  if (from.kind === 'limbs') {
    const owners = new Set(type.limbs.map((limb) => from.owners[limb]));
    if (to.kind === 'replicated') return owners.size === 1 && owners.has(everyRank);
    if (to.kind === 'at') return [...owners].every((owner) => owner === to.rank || owner === everyRank);
    if (to.kind !== 'limbs') return false;
    return type.limbs.every(
      (limb) => from.owners[limb] === everyRank || from.owners[limb] === to.owners[limb],
    );
  }
  return from.kind === 'split' && to.kind === 'at' && from.owners.every((owner) => owner === to.rank);
}
