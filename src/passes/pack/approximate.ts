/**
 * Intervals and targets of approximation. Calibration saw a few samples; intervals are widened so that other
 * inputs
 * stay inside, because a Chebyshev series explodes outside its interval.
 */
import type { Interval } from '../ranges.js';

/** Of t in [-1, 1], t = scale x + shift. */
export function argumentOf({ scale, shift }: { scale: number; shift: number }): Interval {
  return { min: (-1 - shift) / scale, max: (1 - shift) / scale };
}

/** Arguments: each end moves out by this part of the span. */
const argumentMargin = 0.4;
/**
 * Positive quantities (variances, softmax denominators): each end moves by this factor, plus a part of the
 * log span.
 */
const positiveFactor = 2;
const positiveLogMargin = 0.25;
/** Of variances that spread over decades: a factor of 16 beyond what was seen, both margins together. */
const mostLogMargin = Math.log(16);

export function widen(interval: Interval): Interval {
  const span = Math.max(interval.max - interval.min, 1e-3);
  return { min: interval.min - argumentMargin * span, max: interval.max + argumentMargin * span };
}

/** Widens an interval of logarithms. */
export function widenLog(log: Interval): Interval {
  const margin = Math.log(positiveFactor) + positiveLogMargin * (log.max - log.min);
  return { min: log.min - margin, max: log.max + margin };
}

export function widenPositive(interval: Interval): Interval {
  const seen = { min: Math.log(interval.min), max: Math.log(interval.max) };
  const log = widenLog(seen);
  return {
    min: Math.exp(Math.max(log.min, seen.min - mostLogMargin)),
    max: Math.exp(Math.min(log.max, seen.max + mostLogMargin)),
  };
}

/** The map of [min, max] onto [-1, 1]: t = scale * x + shift. */
export function normalisation(interval: Interval): { scale: number; shift: number } {
  const scale = 2 / (interval.max - interval.min);
  return { scale, shift: -(interval.max + interval.min) / (interval.max - interval.min) };
}
