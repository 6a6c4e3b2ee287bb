/**
 * Ranges calibrated at one sequence length, for another. Statistics of single tokens stay as they are; a sum
 * over keys grows with their number. See docs/passes/calibrate.md.
 */
import type { Interval, NodeRange, Ranges } from './ranges.js';

export interface LengthChange {
  readonly from: number;
  readonly to: number;
  /** Shapes of the inputs at the new length. */
  readonly shapes: Ranges['shapes'];
}

const shifted = (interval: Interval, by: number): Interval => ({
  min: interval.min + by,
  max: interval.max + by,
});

/**
 * With T/T0 times the keys and scores of one distribution: log sum exp(s) grows by log(T/T0), log sum p^2 of
 * the softmax falls by as much. Probes are kept only at their own length.
 */
export function carryRanges(ranges: Ranges, { from, to, shapes }: LengthChange): Ranges {
  if (from === to) return ranges;
  const growth = Math.log(to / from);
  const carried = <N extends NodeRange>(node: N): N => {
    const keys = node.attention?.keys;
    return node.attention === undefined
      ? node
      : {
          ...node,
          attention: {
            scores: node.attention.scores,
            ...(keys === undefined
              ? {}
              : { keys: { min: (keys.min * to) / from, max: (keys.max * to) / from } }),
            logSumExp: node.attention.logSumExp.map((interval) => shifted(interval, growth)),
            logSquareSum: node.attention.logSquareSum.map((interval) => shifted(interval, -growth)),
          },
        };
  };
  return { ...ranges, shapes, nodes: ranges.nodes.map(carried), probes: [] };
}
