/** What a plan writes into ops: ranges of bootstraps, scales of plaintexts, types with levels. */
import type { Attrs, Op, Value } from '../../ir/module.js';
import { boundAttr } from '../../ir/ops/cipher.js';
import { canonicalScale, printScale } from '../../ir/scale.js';
import { qBasis, type Type } from '../../ir/types.js';
import { AegisError } from '../../support/diagnostics.js';

/** Bound of |value| over calibration inputs and slots, by value id of the packed module. */
export type ValueBounds = ReadonlyMap<number, number>;

/** A bootstrap folds values beyond its range: leave this much room over what calibration saw. */
const boundMargin = 2;
/** Below this the range gains no precision worth a function of its own. */
const smallestRangeLog2 = -8;

/** At the canonical scale of the level. */
export function leveled(type: Type, level: number): Type {
  if (type.kind !== 'ct') return type;
  return { ...type, basis: qBasis, level, scale: canonicalScale(level) };
}

/**
 * Plaintexts are encoded at D(l), so that the product's rescale lands on D(l-1) = D(l)^2 / q(l). Bounds have
 * served their purpose.
 */
export function finalAttrs(op: Op, level: number): Attrs {
  const { [boundAttr]: _, ...attrs } = op.attrs;
  return op.kind === 'ct.contract' ? { ...attrs, scale: printScale(canonicalScale(level)) } : attrs;
}

/** True if a bootstrap of the value would have a range. */
export function hasRange(value: Value, bounds: ValueBounds): boolean {
  const bound = bounds.get(value.id);
  return bound !== undefined && Number.isFinite(bound);
}

/** log2 of the range of a bootstrap of the value. Error L102 where its bound is not known. */
export function bootstrapRange(value: Value, loc: string, bounds: ValueBounds): number {
  const bound = bounds.get(value.id);
  if (bound === undefined || !Number.isFinite(bound)) {
    throw new AegisError({
      code: 'L102',
      node: loc,
      pass: 'plan-levels',
      message: 'this node needs a bootstrap, but the range of its value is not known',
      help: 'calibrate again, with samples: aegis calibrate MODEL --samples F -o RANGES.json',
    });
  }
  return Math.max(
    smallestRangeLog2,
    Math.ceil(Math.log2(Math.max(bound * boundMargin, 2 ** smallestRangeLog2))),
  );
}
