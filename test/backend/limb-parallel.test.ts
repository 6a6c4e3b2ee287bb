import { describe, expect, it } from 'vitest';
import { readPlan } from '../../src/backend/index.js';
import type { Module, Value } from '../../src/ir/module.js';
import type { Placement } from '../../src/ir/placement.js';
import { blockOwners } from '../../src/ir/sharding.js';
import { axisSize, type Type } from '../../src/ir/types.js';
import { localModDown } from '../../src/passes/local-mod-down.js';
import { defaultLiteral, makeParameters } from '../../src/target/parameters.js';
import {
  axis,
  buildModule,
  ct,
  distance,
  lower,
  plus,
  rotated,
  runOracle,
  times,
  type Source,
} from './oracle.js';
import { limbPlacement, limbsOf, uniformPlacement } from './placements.js';
import { PlanRunner, type Slots } from './run-plan.js';
import { Random } from './toy-ckks.js';

/** Level 7: eight limbs in four digits, two special primes. */
const shape = { usableLevels: 6, stcLevels: 1, evalModLevels: 1, ctsLevels: 1, specials: 2 };
const parameters = makeParameters(defaultLiteral('tiny', true, { ...shape, logN: 5 }));
const level = 7;
const [l, K] = [8, 2];
const elements = 6;
const steps = Array.from({ length: elements }, (_, i) => i + 1);

/** Noise stays far below this; a wrong rule gives errors of order 1 and more. */
const tolerance = 2 ** -20;

type Body = (op: (kind: string, operands: readonly Value[], attrs?: object) => Value, x: Value) => Value;

function source(body: Body, axes = [axis('g', elements)]): Source {
  return {
    inputs: [ct(axes, level)],
    body: (b, [x]) => [
      body((kind, operands, attrs = {}) => b.op(kind, operands, { ...attrs }, kind.slice(3)), x!),
    ],
  };
}

const summed = source((op, x) => op('ct.rotate_each', [x], { axis: 'g', steps, sum: true }));
const grouped = (digitGroups: number): Source =>
  source((op, x) => op('ct.rotate_each', [x], { axis: 'g', steps, sum: true, digitGroups }));
const one = (body: Body): Source => source(body, []);

/** Limbs that each rank receives, by kind of collective. */
function received(
  module: Module,
  placement: Placement,
): { total: number[]; kinds: Record<string, number[]> } {
  const plan = readPlan(lower(module, placement).plan);
  const total = plan.programs.map(() => 0);
  const kinds: Record<string, number[]> = {};
  for (const { kind, group, receivedBytes } of plan.collectives) {
    const list = (kinds[kind] ??= plan.programs.map(() => 0));
    group.forEach((rank, i) => {
      const limbs = receivedBytes[i]! / (8 * 2 ** parameters.logN);
      list[rank]! += limbs;
      total[rank]! += limbs;
    });
  }
  return { total, kinds };
}

const onLimbs = (from: Source, ranks: number, modUp: 'broadcast' | 'aggregate' = 'broadcast') => {
  const module = buildModule(from, parameters);
  return received(module, limbPlacement(module, ranks, modUp));
};
const everyRank = (ranks: number, limbs: number): number[] => new Array<number>(ranks).fill(limbs);
const away = (ranks: number): number => (ranks - 1) / ranks;
/** Limbs of the chain that each rank has. */
const dealt = (ranks: number): number[] =>
  Array.from({ length: ranks }, (_, r) => Math.ceil((l - r) / ranks));
const sum = (list: readonly number[]): number => list.reduce((a, b) => a + b, 0);

describe('limbs received in a key switch (NUMBERS section 5)', () => {
  it('l f with input broadcast, once for all rotations of a ciphertext', () => {
    const square = one((op, x) => op('ct.relinearize', [op('ct.mul', [x, x], { over: [] })]));
    const hoisted = one((op, x) => op('ct.rotate', [x], { axis: 'r', steps: [1, 2, 3, 4, 5] }));
    const lazy = one((op, x) => {
      const turned = op('ct.rotate', [x], { axis: 'r', steps: [1, 2, 3], lazy: 'compute' });
      return op('ct.mod_down', [op('ct.sum', [turned], { axis: 'r' })]);
    });
    for (const from of [square, hoisted, lazy]) {
      for (const ranks of [2, 4])
        expect(onLimbs(from, ranks).total).toEqual(everyRank(ranks, l * away(ranks)));
      expect(onLimbs(from, 3).total).toEqual(dealt(3).map((own) => l - own));
    }
    expect(onLimbs(summed, 4).total).toEqual(everyRank(4, elements * l * away(4)));
  });

  it('(2 l + 4 K) f for each sum with output aggregation, and whole digits: (l/G) f for each element', () => {
    for (const ranks of [2, 4]) {
      const { kinds } = onLimbs(summed, ranks, 'aggregate');
      expect(kinds.reduce_scatter).toEqual(everyRank(ranks, 2 * l * away(ranks)));
      expect(kinds.all_reduce).toEqual(everyRank(ranks, 4 * K * away(ranks)));
      expect(sum(kinds.all_to_all!)).toBe(elements * l * away(ranks));
    }
    const { kinds } = onLimbs(summed, 3, 'aggregate');
    expect(kinds.reduce_scatter).toEqual(dealt(3).map((own) => 2 * 2 * own));
    expect(sum(kinds.all_reduce!)).toBe(3 * 4 * K * away(3));
    // Digits 0 and 1 on rank 0, 2 on rank 1, 3 on rank 2: limbs 1 2, 5, 6 7 come from others.
    expect(kinds.all_to_all).toEqual([2, 1, 2].map((limbs) => elements * limbs));
  });

  it('2 l f for each sum where each rank divides its digits by P', () => {
    for (const ranks of [2, 4]) {
      const { kinds } = onLimbs(grouped(ranks), ranks, 'aggregate');
      expect(kinds.reduce_scatter).toEqual(everyRank(ranks, 2 * l * away(ranks)));
      expect(sum(kinds.all_to_all!)).toBe(elements * l * away(ranks));
      expect(Object.keys(kinds).sort()).toEqual(['all_to_all', 'reduce_scatter']);
    }
    expect(onLimbs(grouped(3), 3, 'aggregate').kinds.reduce_scatter).toEqual(
      dealt(3).map((own) => 2 * 2 * own),
    );
  });

  it('2 for a rescale, none for the owner of the dropped limb', () => {
    const from = one((op, x) => op('ct.rescale', [op('ct.mul_i', [x])]));
    expect(onLimbs(from, 4).total).toEqual([2, 2, 2, 0]);
    expect(onLimbs(from, 3).total).toEqual([2, 0, 2]);
  });

  it('none for whole ciphertexts', () => {
    const from = source((op, x) => op('ct.rotate_each', [x], { axis: 'g', steps, sum: false }));
    const module = buildModule(from, parameters);
    const lay = [{ kind: 'split', axis: 'g', owners: blockOwners(elements, 3) }] as const;
    const placement = uniformPlacement(module, { axes: [{ name: 'app', size: 3 }] }, () => lay);
    expect(received(module, placement).total).toEqual([0, 0, 0]);
  });
});

describe('common receives', () => {
  it('ops that decompose the same polynomial share one gather', () => {
    const from = one((op, x) => {
      const some = op('ct.rotate', [x], { axis: 'r', steps: [1, 2] });
      const more = op('ct.rotate', [x], { axis: 'r', steps: [4, 0] });
      return op('ct.add', [op('ct.add', [some, more]), op('ct.conjugate', [x])]);
    });
    expect(onLimbs(from, 4).total).toEqual(everyRank(4, l * away(4)));
    const { kinds } = onLimbs(from, 4, 'aggregate');
    expect(sum(kinds.all_to_all!)).toBe(l * away(4));
  });

  it('a loop gathers what it does not change before it starts', () => {
    const from: Source = {
      inputs: [ct([], level)],
      body: (b, [x]) => {
        const zero = b.op('ct.zero', [], { axes: [], level }, '');
        return b.loop(5, [zero], '', (inner, [carried]) => {
          const turned = inner.op('ct.rotate', [x!], { axis: 'r', steps: [1] }, '');
          return [inner.op('ct.add', [carried!, inner.op('ct.sum', [turned], { axis: 'r' }, '')], {}, '')];
        });
      },
    };
    expect(onLimbs(from, 4).total).toEqual(everyRank(4, l * away(4)));
  });
});

describe('bits', () => {
  const few = (attrs: object, kind = 'sum'): Source =>
    source(
      (op, x) => op('ct.rotate_each', [x], { axis: 'g', steps: [3, 0, 5], sum: kind === 'sum', ...attrs }),
      [axis('g', 3)],
    );
  const run = (from: Source) => runOracle(from, { parameters });
  const exact = run(few({}));
  const wanted = (x: readonly Slots[]): Slots => plus(rotated(x[0]!, 3), x[1]!, rotated(x[2]!, 5));

  it('of a sum with output aggregation are those of one rank', () => {
    expect(distance(exact.outputs[0]![0]!, wanted(exact.inputs[0]!))).toBeLessThan(tolerance);
  });

  it.each([1, 3, 7])(
    'with a ModDown for each of %i groups of digits do not depend on ranks',
    (digitGroups) => {
      const local = run(few({ digitGroups }));
      expect(distance(local.outputs[0]![0]!, exact.outputs[0]![0]!)).toBeLessThan(tolerance);
      expect(local.rows(0, 0).flat().join() === exact.rows(0, 0).flat().join()).toBe(digitGroups === 1);
    },
  );

  it('of every op that takes groups do not depend on ranks', () => {
    const digitGroups = 3;
    const { inputs, outputs } = run({
      inputs: [ct([axis('g', 2)], 6)],
      body: (b, [x]) => {
        const op = (kind: string, a: Value, attrs: object) => b.op(kind, [a], { ...attrs, digitGroups }, '');
        const square = b.op('ct.mul', [x!, x!], { over: ['g'] }, '');
        return [
          op('ct.rotate', x!, { axis: 'r', steps: [1, 0] }),
          op('ct.rotate_each', x!, { axis: 'g', steps: [0, 5], sum: false }),
          op('ct.conjugate', x!, {}),
          op('ct.relinearize', square, {}),
        ];
      },
    });
    const x = inputs[0]!;
    const near = (a: Slots, b: Slots): void => expect(distance(a, b)).toBeLessThan(tolerance);
    near(outputs[0]![0]!, rotated(x[0]!, 1));
    near(outputs[1]![1]!, rotated(x[1]!, 5));
    near(
      outputs[2]![1]!,
      x[1]!.map(({ re, im }) => ({ re, im: -im })),
    );
    near(outputs[3]![0]!, plus(times(x[0]!, x[0]!), times(x[1]!, x[1]!)));
  });

  it.each([
    ['sum', undefined],
    ['sum', 2],
    ['apart', undefined],
  ] as const)('hold on two mesh axes, elements and limbs: %s, %s groups', (kind, digitGroups) => {
    const module = buildModule(few(digitGroups === undefined ? {} : { digitGroups }, kind), parameters);
    const mesh = { axes: ['app', 'limb'].map((name) => ({ name, size: 2 })) };
    const split = (type: Type) =>
      type.kind === 'ct' && axisSize(type.axes, 'g') !== undefined
        ? ({ kind: 'split', axis: 'g', owners: [0, 0, 1] } as const)
        : ({ kind: 'replicated' } as const);
    const runner = new PlanRunner(readPlan(lower(module).plan));
    const { elements: count, level: top } = runner.plan.inputs[0]!;
    const random = new Random(7);
    const { n, primes } = runner.scheme.ring;
    const rows = Array.from({ length: count * 2 * (top + 1) }, (_, i) =>
      Array.from({ length: n }, () => random.uniform(primes[i % (top + 1)]!)),
    );
    const expected = runner.run([rows]);
    for (const modUp of ['broadcast', 'aggregate'] as const) {
      const lay = (type: Type) => [split(type), limbsOf(module, 2)];
      const plan = readPlan(lower(module, uniformPlacement(module, mesh, lay, modUp)).plan);
      expect(new PlanRunner(plan).run([rows])).toEqual(expected);
    }
  });
});

describe('local-mod-down', () => {
  it('takes sums that receive less than with input broadcast', () => {
    const cut = (from: Source, groups: number) =>
      localModDown(buildModule(from, parameters), groups).functions[0]!.body.ops.map(
        (op) => op.attrs.digitGroups,
      );
    expect(cut(summed, 4)).toEqual([4]);
    const two = source(
      (op, x) => op('ct.rotate_each', [x], { axis: 'g', steps: [1, 2], sum: true }),
      [axis('g', 2)],
    );
    expect(cut(two, 4)).toEqual([undefined]);
    expect(cut(summed, 1)).toEqual([undefined]);
  });
});
