/**
 * The two forms of the loop over key offsets (attention.ts): iteration g meets queries rotated by -stride g
 * with keys at rest, and its sums are rotated back by stride g.
 */
import type { Value } from '../../ir/module.js';
import { defined } from '../../support/invariant.js';
import type { PackContext } from './context.js';
import { ctType } from './layout.js';

export interface OffsetLoop {
  /** G; stride * trips = N/2. */
  readonly trips: number;
  readonly stride: number;
  /** What an iteration takes in its own frame: Q, and the inverses of earlier rounds. */
  readonly queries: readonly Value[];
  /** Start of the sums. */
  readonly zeros: readonly Value[];
  /** What one iteration adds to the sums, each passed through `turned`. */
  readonly term: (
    body: PackContext,
    queries: readonly Value[],
    turned: (sum: Value) => Value,
  ) => readonly Value[];
}

type LoopForm = (ctx: PackContext, loop: OffsetLoop, loc: string) => readonly Value[];

/** Iteration g rotates the queries by -stride g and its sums by stride g: a key for every g. */
export const turnedLoop: LoopForm = (ctx, { trips, stride, queries, zeros, term }, loc) => {
  for (let g = 0; g < trips; g++) ctx.reduceAll([stride * g, -stride * g]);
  return ctx.builder.loop(trips, zeros, loc, (inner, sums) => {
    const body = ctx.within(inner);
    const moved = (value: Value, sign: 1 | -1) => {
      const one = body.reshape(value, [...ctType(value).axes, { name: 'g', size: 1 }], loc);
      return inner.op(
        'ct.rotate_each',
        [one],
        { axis: 'g', steps: [0], sum: true, loopStride: sign * stride },
        loc,
      );
    };
    const frame = queries.map((value) => moved(value, -1));
    const terms = term(body, frame, (sum) => moved(sum, 1));
    return sums.map((sum, i) => inner.op('ct.add', [sum, defined(terms[i], 'term')], {}, loc));
  });
};

/** The same with one key: g falls from trips - 1, and rot(Q, -stride (trips - 1)) = rot(Q, stride). */
export const carriedLoop: LoopForm = (ctx, { trips, stride, queries, zeros, term }, loc) =>
  ctx.builder.loop(trips, [...zeros, ...queries], loc, (inner, carried) => {
    const body = ctx.within(inner);
    const rotated = carried.map((value) => body.rotate(value, stride, loc));
    const frame = rotated.slice(zeros.length);
    const terms = term(body, frame, (sum) => sum);
    const sums = terms.map((value, i) => inner.op('ct.add', [defined(rotated[i], 'sum'), value], {}, loc));
    return [...sums, ...frame];
  });
