/**
 * What one launch of a kernel costs: work from its shape, seconds from the work and a device profile
 * (docs/cost-model.md). Kernels are those of runtime/hal/kernels.h.
 */
import { unreachable } from '../support/invariant.js';
import { kernelKinds, kernelTableFor, type DeviceProfile, type KernelKind } from './profile.js';

export { kernelKinds, type KernelKind } from './profile.js';

const wordBytes = 8;

export interface KernelShape {
  readonly kind: KernelKind;
  readonly logN: number;
  /** Outputs: product of the batch dimensions that are not summed. */
  readonly batch: number;
  readonly limbs: number;
  /** Elements summed into each output; 1 unless given. */
  readonly summed?: number;
  readonly accumulate?: boolean;
  /** base_convert: source limbs. */
  readonly sources?: number;
  /** key_product: digits of the input. */
  readonly digits?: number;
  /** Distinct buffer rows that are read; fewer than the launch touches where an operand is broadcast. */
  readonly readRows?: number;
  /** Distinct words of encoded plaintexts as they are held; full rows for every product unless given. */
  readonly plainWords?: number;
  /** Butterflies that expand plaintexts held as coefficients, on all limbs. */
  readonly butterflies?: number;
  /** key_product: distinct keys; 1 unless given. */
  readonly keys?: number;
}

export interface KernelWork {
  readonly kind: KernelKind;
  /** Products added up without reduction; butterflies of a transform; addends of a sum. */
  readonly terms: number;
  /** Words that are reduced and stored; base_convert: those of the sources too. */
  readonly words: number;
  /** Of plaintexts that are expanded. */
  readonly butterflies: number;
  /** Rows of buffers, read and written. */
  readonly bufferBytes: number;
  /** Keys and plaintexts. */
  readonly staticBytes: number;
}

export function kernelWork(shape: KernelShape): KernelWork {
  const { kind, batch, limbs, summed = 1, accumulate = false } = shape;
  const n = 2 ** shape.logN;
  const { terms, words, readRows, writtenRows } = countRows(shape, summed);
  const buffers = (shape.readRows ?? readRows) + writtenRows * (accumulate ? 2 : 1);
  const full = batch * limbs * n * summed;
  const plain = kind === 'contract' || kind === 'add_plain' ? (shape.plainWords ?? full) : 0;
  const keyRows = kind === 'key_product' ? 2 * (shape.keys ?? 1) * (shape.digits ?? 1) * limbs : 0;
  return {
    kind,
    terms: terms * n,
    words: words * n,
    butterflies: shape.butterflies ?? 0,
    bufferBytes: buffers * n * wordBytes,
    staticBytes: (plain + keyRows * n) * wordBytes,
  };
}

interface RowCounts {
  readonly terms: number;
  readonly words: number;
  readonly readRows: number;
  readonly writtenRows: number;
}

/** In rows of N words. */
function countRows(shape: KernelShape, summed: number): RowCounts {
  const { kind, batch, limbs, sources = 1, digits = 1 } = shape;
  const rows = batch * limbs;
  switch (kind) {
    case 'zero':
      return { terms: 0, words: rows, readRows: 0, writtenRows: rows };
    case 'add':
    case 'sub':
    case 'sub_scale':
      return { terms: 0, words: rows, readRows: 2 * rows, writtenRows: rows };
    case 'add_plain':
      return { terms: 0, words: rows, readRows: rows, writtenRows: rows };
    case 'copy':
    case 'automorphism':
    case 'contract':
      return { terms: rows * summed, words: rows, readRows: rows * summed, writtenRows: rows };
    case 'tensor':
      return {
        terms: 4 * rows * summed,
        words: 3 * rows,
        readRows: 4 * rows * summed,
        writtenRows: 3 * rows,
      };
    case 'ntt_sub_scale':
      return { terms: (rows * shape.logN) / 2, words: rows, readRows: 2 * rows, writtenRows: rows };
    case 'ntt':
    case 'intt':
      return { terms: (rows * shape.logN) / 2, words: rows, readRows: rows, writtenRows: rows };
    case 'base_convert':
      return {
        terms: rows * sources,
        words: batch * (sources + limbs),
        readRows: batch * sources,
        writtenRows: rows,
      };
    case 'key_product':
      return {
        terms: 2 * rows * summed * digits,
        words: 2 * rows,
        readRows: rows * summed * digits,
        writtenRows: 2 * rows,
      };
    default:
      return unreachable(kind);
  }
}

/**
 * Modular multiply-adds that a term and a word stand for, in units of one with its own reduction (20 integer
 * instructions of 32 bits). A product that is only added to a 128-bit sum takes half of them, a reduction the
 * other half, an addition modulo q a quarter.
 */
const operationWeights: Readonly<Record<KernelKind, { readonly term: number; readonly word: number }>> = {
  zero: { term: 0, word: 0 },
  copy: { term: 0.1, word: 0 },
  add: { term: 0, word: 0.25 },
  sub: { term: 0, word: 0.25 },
  add_plain: { term: 0, word: 0.25 },
  contract: { term: 0.5, word: 0.5 },
  tensor: { term: 0.5, word: 0.5 },
  ntt: { term: 1, word: 0.25 },
  intt: { term: 1, word: 0.25 },
  base_convert: { term: 0.5, word: 0.75 },
  sub_scale: { term: 0, word: 1 },
  key_product: { term: 0.5, word: 0.5 },
  automorphism: { term: 0.1, word: 0 },
  ntt_sub_scale: { term: 1, word: 1.25 },
};

/** Rows above this length do not fit the shared memory of a multiprocessor: a transform is two passes. */
const onePassLogN = 12;

/** In modular multiply-adds. */
export function operationsOf(work: KernelWork): number {
  const { term, word } = operationWeights[work.kind];
  return work.terms * term + work.words * word + work.butterflies * operationWeights.ntt.term;
}

/** Passes over the rows of transforms that are long, by the share of operands that they take twice. */
const twice: Partial<Record<KernelKind, number>> = { ntt: 1, intt: 1, ntt_sub_scale: 2 / 3 };

/** Between memory and the device's units: every operand once, what is transformed of long rows twice. */
export function trafficOf(work: KernelWork, logN: number): number {
  const again = logN > onePassLogN ? (twice[work.kind] ?? 0) : 0;
  return work.bufferBytes * (1 + again) + work.staticBytes;
}

/** How ranks share a machine whose kernels were measured. One rank has all of it unless given. */
export interface Sharing {
  readonly ranks: number;
}

/**
 * Seconds of one launch. Modelled: launch + max(operations / rate, bytes / bandwidth) / efficiency. Measured:
 * launch + max(terms and words in cache, bytes that come from memory), by the row of the table for the
 * threads that a rank gets.
 */
export function kernelSeconds(
  profile: DeviceProfile,
  work: KernelWork,
  logN: number,
  sharing: Sharing = { ranks: 1 },
): number {
  const { measured } = profile;
  if (measured === null) {
    const compute = operationsOf(work) / profile.modularRate;
    const memory = trafficOf(work, logN) / profile.memoryBandwidth;
    return profile.launchSeconds + Math.max(compute, memory) / profile.efficiency;
  }
  const { table, single, together } = kernelTableFor(measured, sharing.ranks);
  const cost = table.kernels[work.kind];
  // All ranks stream from one memory.
  const byteSeconds = Math.max(cost.byteSeconds, sharing.ranks * together.kernels[work.kind].byteSeconds);
  const resident = work.bufferBytes <= measured.cacheBytes / sharing.ranks ? 0 : work.bufferBytes;
  const memory = (work.staticBytes + resident) * byteSeconds;
  const inCache = (kernels: typeof table.kernels): number =>
    work.terms * kernels[work.kind].termSeconds
    + work.words * kernels[work.kind].wordSeconds
    + work.butterflies * kernels.ntt.termSeconds;
  // A launch below one grain runs on one thread.
  const serial = Math.min(inCache(single.kernels), measured.grainSeconds);
  // More ranks than cores take turns.
  const turns = Math.max(1, sharing.ranks / measured.cores);
  return profile.launchSeconds + turns * Math.max(inCache(table.kernels), serial) + memory;
}

export type CollectiveKind = 'all_gather' | 'reduce_scatter' | 'all_reduce' | 'all_to_all' | 'broadcast';

export interface CollectiveShape {
  readonly kind: CollectiveKind;
  readonly ranks: number;
  /** As CollectiveInfo.rows of plan.fbs, in bytes. */
  readonly bytes: readonly number[];
  readonly root?: number;
}

/** Largest number of bytes that one rank receives or sends. */
export function collectiveBytes(shape: CollectiveShape): number {
  const { kind, ranks, bytes } = shape;
  const total = bytes.reduce((sum, one) => sum + one, 0);
  const at = (i: number): number => bytes[i] ?? 0;
  switch (kind) {
    case 'all_gather':
    case 'reduce_scatter':
      // A block goes to, or its parts come from, each of the others; all other blocks go the other way.
      return Math.max(...bytes.map((own) => Math.max(total - own, (ranks - 1) * own)));
    case 'all_reduce':
      return (2 * at(0) * (ranks - 1)) / ranks;
    case 'broadcast':
      return at(0);
    case 'all_to_all': {
      const each = Array.from({ length: ranks }, (_, r) => r);
      const sent = each.map((s) => each.reduce((sum, d) => sum + at(s * ranks + d), 0));
      const received = each.map((d) => each.reduce((sum, s) => sum + at(s * ranks + d), 0));
      return Math.max(...sent, ...received);
    }
    default:
      return unreachable(kind);
  }
}

/** Alpha-beta: steps * latency + bytes / bandwidth per direction. Ranks exchange directly. */
export function collectiveSeconds(profile: DeviceProfile, shape: CollectiveShape): number {
  if (shape.ranks === 1) return 0;
  const steps = (shape.ranks - 1) * (shape.kind === 'all_reduce' ? 2 : 1);
  return steps * profile.link.latencySeconds + collectiveBytes(shape) / profile.link.bandwidth;
}

/** Every kind once, for tables. */
export function forEachKernel<T>(make: (kind: KernelKind) => T): Record<KernelKind, T> {
  return Object.fromEntries(kernelKinds.map((kind) => [kind, make(kind)])) as Record<KernelKind, T>;
}
