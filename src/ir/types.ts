/**
 * Types of IR values in the three phases. A type is a plain readonly record; equal types print equally.
 *
 * tensor: `tensor<1x17x32 f32>`            a real tensor of the model
 * cipher: `ct<j=8, b=2; level 12, scale D12, slots c=64, degree 1>`
 *                                          a named-axis array of ciphertexts
 *         `pt<j=8; period 64>` a named-axis array of plaintext vectors (recipes for the runtime's encoder)
 * poly:   `poly<j=8, component=2; limbs [0..12], ntt>`
 *                                          a named-axis array of RNS polynomials, sharded on the mesh
 */
import type { Scale } from './scale.js';

/** A named batch axis. Axes of one value have distinct names; the first is the slowest in memory. */
export interface Axis {
  readonly name: string;
  readonly size: number;
}

export interface TensorType {
  readonly kind: 'tensor';
  readonly dtype: 'f32' | 'i64' | 'bool';
  readonly shape: readonly number[];
}

/**
 * `q`: residues modulo q_0..q_level. `qp`: extended by the special primes of the key class named in the op
 * that
 * made it, and scaled by their product P; only linear operations and ModDown take it (lazy ModDown).
 */
export type Basis = { readonly kind: 'q' } | { readonly kind: 'qp'; readonly specials: number };

export interface CtType {
  readonly kind: 'ct';
  readonly axes: readonly Axis[];
  /** Number of components minus one: 1 after relinearization, 2 after a product. */
  readonly degree: 1 | 2;
  readonly basis: Basis;
  /** Index of the highest prime; null until plan-levels has run. */
  readonly level: number | null;
  /** Exact scale; null until plan-levels has run. In basis qp it is the scale after ModDown. */
  readonly scale: Scale | null;
}

/**
 * Plaintext operands are recipes: the runtime encodes them for the level and scale at which they are used.
 */
export interface PtType {
  readonly kind: 'pt';
  readonly axes: readonly Axis[];
  /** Slots repeat with this period (power of two, at most N/2); 1 is a constant. */
  readonly period: number;
  readonly complex: boolean;
}

/**
 * How a poly value lies on one mesh axis (DESIGN section 6): whole on every rank; the indices of an array
 * axis, or
 * limbs by prime index (-1: on every rank), each with its owner; a sum modulo q still to be made; on one
 * rank.
 */
export type Sharding =
  | { readonly kind: 'replicated' }
  | { readonly kind: 'split'; readonly axis: string; readonly owners: readonly number[] }
  | { readonly kind: 'limbs'; readonly owners: readonly number[] }
  | { readonly kind: 'partial' }
  | { readonly kind: 'at'; readonly rank: number };

export interface PolyType {
  readonly kind: 'poly';
  /** Batch axes; an axis called `component` or `digit` is laid out like any other. */
  readonly axes: readonly Axis[];
  /** Prime indices of the limbs, in memory order: q_0.. are 0.., special primes follow the last q. */
  readonly limbs: readonly number[];
  readonly form: 'ntt' | 'coeff';
  /** One entry per mesh axis; an empty list on one device. */
  readonly sharding: readonly Sharding[];
}

export type Type = TensorType | CtType | PtType | PolyType;
export type Phase = 'tensor' | 'cipher' | 'poly';

export const qBasis: Basis = { kind: 'q' };

export function axisSize(axes: readonly Axis[], name: string): number | undefined {
  return axes.find((axis) => axis.name === name)?.size;
}

export function axesCount(axes: readonly Axis[]): number {
  return axes.reduce((product, axis) => product * axis.size, 1);
}

/** Broadcast of named axes: the union by name, in order of first appearance; sizes must agree. */
export function broadcastAxes(...lists: (readonly Axis[])[]): Axis[] | string {
  const result: Axis[] = [];
  for (const axis of lists.flat()) {
    const known = result.find((other) => other.name === axis.name);
    if (known === undefined) result.push(axis);
    else if (known.size !== axis.size) return `axis ${axis.name} has sizes ${known.size} and ${axis.size}`;
  }
  return result;
}

export function withoutAxes(axes: readonly Axis[], names: readonly string[]): Axis[] {
  return axes.filter((axis) => !names.includes(axis.name));
}
