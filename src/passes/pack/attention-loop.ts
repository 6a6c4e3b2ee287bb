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
  /** R; divides `trips`. */
  readonly together: number;
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
    return added(body, sums, terms, loc);
  });
};

/**
 * The same with R keys for R = `together` iterations: g falls from trips - 1, and rot(Q, -stride (trips - 1))
 * = rot(Q, stride). The R queries come from one decomposition and meet keys and values that are read once.
 */
export const carriedLoop: LoopForm = (ctx, { trips, together, stride, queries, zeros, term }, loc) =>
  ctx.builder.loop(trips / together, [...zeros, ...queries], loc, (inner, carried) => {
    const body = ctx.within(inner);
    const sums = carried.slice(0, zeros.length).map((sum) => body.rotate(sum, stride * together, loc));
    const turns = Array.from({ length: together }, (_, r) => stride * (r + 1));
    const turned = carried
      .slice(zeros.length)
      .map((query) => inner.op('ct.rotate', [query], { axis: turnAxis, steps: ctx.reduceAll(turns) }, loc));
    const last = turned.map((query) =>
      inner.op('ct.index', [query], { axis: turnAxis, index: together - 1 }, loc),
    );
    const back = turns.map((_, r) => stride * (together - 1 - r));
    const summed = (sum: Value): Value =>
      inner.op('ct.rotate_each', [sum], { axis: turnAxis, steps: ctx.reduceAll(back), sum: true }, loc);
    const terms = together === 1 ? term(body, last, (sum) => sum) : term(body, turned, summed);
    return [...added(body, sums, terms, loc), ...last];
  });

/** Iterations that go together. */
const turnAxis = 'r';

function added(
  { builder }: PackContext,
  sums: readonly Value[],
  terms: readonly Value[],
  loc: string,
): Value[] {
  return sums.map((sum, i) => builder.op('ct.add', [sum, defined(terms[i], 'term')], {}, loc));
}
