/**
 * The feature-fast layout (DESIGN section 4): slot = u + period * t. A packed value is an array of
 * ciphertexts with a
 * table that says which feature lies at position u of which element; tokens lie in order from t = 0, and
 * every slot of
 * a token that the value does not have is zero. With token blocks, the first axis is the block p of token
 * p * groups + t.
 */
import type { Value } from '../../ir/module.js';
import { axesCount, axisSize, type Axis, type CtType } from '../../ir/types.js';
import { invariant } from '../../support/invariant.js';
import { tokenAxis } from './context.js';

export interface Packed {
  readonly value: Value;
  /** Feature at element e of a block, position u: `features[e * period + u]`, -1 where there is none. */
  readonly features: Int32Array;
  readonly featureCount: number;
  readonly tokens: number;
  /**
   * `copies`: positions with the same feature hold the same value. `terms`: the feature is their sum, which
   * the next
   * linear layer makes for nothing.
   */
  readonly repeats: 'copies' | 'terms';
}

export function ctType(value: Value): CtType {
  invariant(value.type.kind === 'ct', 'expected a ciphertext array');
  return value.type;
}

export function blocksOf(value: Value): number {
  return axisSize(ctType(value).axes, tokenAxis) ?? 1;
}

/** All axes but that of token blocks. */
export function elementAxes(value: Value): readonly Axis[] {
  return ctType(value).axes.filter((axis) => axis.name !== tokenAxis);
}

/** Elements of a token block. */
export function elementsOf(value: Value): number {
  return axesCount(elementAxes(value));
}

/** Features in order: feature f at position f mod period of block f / period. */
export function plainFeatures(featureCount: number, period: number): Int32Array {
  const blocks = Math.ceil(featureCount / period);
  return Int32Array.from({ length: blocks * period }, (_, i) => (i < featureCount ? i : -1));
}

/** The axis of ciphertexts that hold features in order. */
export function featureAxes(featureCount: number, period: number): Axis[] {
  return [{ name: 'f', size: Math.ceil(featureCount / period) }];
}

/**
 * Columns of a linear layer that reads this value: every position of a feature when positions are terms, the
 * first one
 * only when they are copies.
 */
export function readColumns(packed: Packed): Int32Array {
  if (packed.repeats === 'terms') return packed.features;
  const seen = new Set<number>();
  return packed.features.map((feature) => {
    if (feature < 0 || seen.has(feature)) return -1;
    seen.add(feature);
    return feature;
  });
}

export function sameLayout(a: Packed, b: Packed): boolean {
  return (
    a.tokens === b.tokens
    && a.repeats === 'copies'
    && b.repeats === 'copies'
    && a.features.length === b.features.length
    && a.features.every((f, i) => f === b.features[i])
  );
}
