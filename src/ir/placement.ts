/**
 * Where a cipher module's work is done: for every op, how its operands must lie on the mesh and how its
 * results come
 * out (DESIGN section 6). co-place makes it, lower-keyswitch follows it; a cipher module has no placement of
 * its own.
 */
import type { Op } from './module.js';
import type { Mesh } from './sharding.js';
import type { Sharding } from './types.js';

/** One entry per mesh axis. */
export type Shardings = readonly Sharding[];

export interface OpPlacement {
  /** By operand; entries of plaintext operands are ignored: a rank encodes the part that its work needs. */
  readonly operands: readonly Shardings[];
  readonly results: readonly Shardings[];
  /**
   * The op's ModUp, where limbs are sharded: gather the limbs (input broadcast), or sum whole digits
   * (aggregation).
   */
  readonly modUp?: 'broadcast' | 'aggregate';
  /** Calls: name of the placed function. */
  readonly callee?: string;
}

/** A function placed for given shardings of its arguments; one function may be placed several times. */
export interface PlacedFunction {
  readonly name: string;
  /** Name of the function of the cipher module. */
  readonly source: string;
  readonly args: readonly Shardings[];
  readonly results: readonly Shardings[];
  /** Of every op, ops of loop bodies included. */
  readonly ops: ReadonlyMap<Op, OpPlacement>;
}

export interface Placement {
  readonly mesh: Mesh;
  readonly strategy: string;
  /** Callees before callers; the last one is placed from the entry function and has its name. */
  readonly functions: readonly PlacedFunction[];
}
