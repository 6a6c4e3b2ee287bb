import { describe, expect, it } from 'vitest';
import type { PlanView } from '../../src/backend/plan-view.js';
import { blockRows } from './exchange.js';
import {
  collect,
  info,
  func,
  kernel,
  planParameters,
  port,
  primes,
  rankPlan,
  rows,
  sample,
} from './ranks.js';
import { PlanRunner, runPlan } from './run-plan.js';
import { mod, Random, type Row } from './toy-ckks.js';

const n = 2 ** planParameters.logN;

/** Random rows [element][component][limb]. */
function randomPort(elements: number, level: number): Row[] {
  const random = new Random(5);
  return Array.from({ length: elements * 2 * (level + 1) }, (_, i) =>
    Array.from({ length: n }, () => random.uniform(primes[i % (level + 1)]!)),
  );
}

const plus = (q: bigint, ...all: readonly Row[]): Row =>
  all[0]!.map((_, i) =>
    mod(
      all.reduce((sum, row) => sum + row[i]!, 0n),
      q,
    ),
  );
const times = (row: Row, factor: bigint): Row => row.map((v) => v * factor);

describe('runPlan of several ranks', () => {
  it('runs every kind of collective', () => {
    const plan = sample();
    const input = randomPort(2, 2);
    const runner = new PlanRunner(plan);
    const [output] = runner.run([input]);
    // Row [element][component] of a rank.
    const x = (rank: number, i: number): Row => input[i * 3 + rank]!;
    // Rank 1 receives 2 rows of 3 x from rank 0, then 1 row from rank 2 (its rows 0 and 1 go to rank 0).
    const s = (rank: number, i: number): Row => times(x(rank, i), 3n).map((v) => mod(v, primes[rank]!));
    const broadcast = [s(0, 0), s(0, 1), s(2, 2)];
    for (const rank of [0, 1, 2]) {
      const q = primes[rank]!;
      const key = runner.keys[0]!;
      const g = (i: number): Row => times(x(rank, i), 27n);
      const k = [0, 1].map((component) =>
        plus(q, ...key.map((digit, d) => digit[component]!.get(rank)!.map((v, j) => v * g(d)[j]!))),
      );
      for (const i of [0, 1, 2, 3]) {
        const b = broadcast[i] ?? x(rank, 0);
        const parts = [b, g(i), times(x(rank, i), 4n), ...(i < 2 ? [k[i]!] : [])];
        expect(output![i * 3 + rank], `rank ${rank}, row ${i}`).toEqual(plus(q, ...parts));
      }
    }
  });

  it('slices inputs and gathers outputs that several ranks hold', () => {
    const part = (elements: readonly number[]) => [{ buffer: 0, elements, limbs: [] }];
    const copy = kernel('copy', [0, 1], {
      dims: [2],
      out: rows(1, 0, { strides: [2] }),
      a: rows(0, 0, { strides: [2] }),
    });
    const program = (elements: readonly number[]) => ({
      functions: [func('main', [4, 4], [], [copy])],
      keys: [],
      inputs: part(elements),
      outputs: part(elements).map((one) => ({ ...one, buffer: 1 })),
    });
    const ports = { inputs: [port('x', 3, 1)], outputs: [port('y', 3, 1)], collectives: [] };
    const plan = rankPlan({ ...ports, programs: [program([0]), program([2]), program([1]), program([2])] });
    const input = randomPort(3, 1);
    expect(runPlan(plan, [input])).toEqual([input]);
    const missing = rankPlan({ ...ports, programs: [program([0]), program([2])] });
    expect(() => runPlan(missing, [input])).toThrow(/row 4 of output 0 is on some rank/);
  });

  it('stops at a deadlock, at other orders, and at a limb of a key that the rank does not hold', () => {
    const crossed = (order: readonly number[]) => ({
      functions: [
        func(
          'main',
          [2, 2],
          [8],
          order.map((id) => collect(id, rows(0), rows(2, 4 * id))),
        ),
      ],
      keys: [],
      inputs: [{ buffer: 0, elements: [], limbs: [] }],
      outputs: [{ buffer: 1, elements: [], limbs: [] }],
    });
    const collectives = [info('all_gather', [0, 1], [2, 2], 1), info('all_gather', [0, 1], [2, 2], 1)];
    const ports = { inputs: [port('x', 1, 0)], outputs: [port('y', 1, 0)], collectives };
    const run = (plan: PlanView): Row[][] =>
      runPlan(plan, [randomPort(plan.inputs[0]!.elements, plan.inputs[0]!.level)]);
    expect(() => run(rankPlan({ ...ports, programs: [crossed([0, 1]), crossed([1, 0])] }))).toThrow(
      /collective 0 of group 0,1 on rank 1/,
    );
    expect(() => run(rankPlan({ ...ports, programs: [crossed([0, 1]), crossed([0])] }))).toThrow(
      /deadlock: rank 0 waits for collective 1 of group 0,1/,
    );
    const plan = sample();
    const programs = plan.programs.map((program) => ({ ...program, keys: [{ key: 0, limbs: [0] }] }));
    expect(() => run({ ...plan, programs })).toThrow(/rank 1 holds limb 1 of key 0/);
  });

  it('states the blocks as the format does', () => {
    const toAll = info('all_to_all', [0, 1], [0, 3, 5, 0], 1);
    expect([blockRows(toAll, 0), blockRows(toAll, 1)]).toEqual([
      { send: 3, receive: 5 },
      { send: 5, receive: 3 },
    ]);
  });
});
