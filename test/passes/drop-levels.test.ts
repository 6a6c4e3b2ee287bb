import { describe, expect, it } from 'vitest';
import { runCipher } from '../../src/ir/interpreter/cipher.js';
import { walkOps, type Module, type Op, type Value } from '../../src/ir/module.js';
import { verifyModule } from '../../src/ir/verifier.js';
import { dropLevels, dropLevelsWhereCheaper } from '../../src/passes/drop-levels.js';
import { calibrateModule } from '../../src/passes/calibrate.js';
import { measureBounds } from '../../src/passes/measure-bounds.js';
import { cipherPipeline, defaultPack } from '../../src/passes/pipeline.js';
import { planGreedily } from '../../src/passes/plan-levels/greedy.js';
import { pricesFor } from '../../src/passes/plan-levels/price.js';
import { defined } from '../../src/support/invariant.js';
import { axesCount } from '../../src/ir/types.js';
import { axis, ct, mainModule, randomValues, tiny, tokenPort } from '../ir/build.js';
import { randomInput, tinyTransformer } from './tiny-transformer.js';

const tokens = 8;
const period = tiny.slots / tokens;
const ports = (outputs: number) => ({
  inputs: [tokenPort('x', tokens, period, tiny.slots)],
  outputs: [tokenPort('y', tokens, outputs * period, tiny.slots)],
});

interface Executed {
  readonly op: Op;
  readonly times: number;
}

/** Ops with how often they run. */
function executed(module: Module): Executed[] {
  const found: Executed[] = [];
  for (const { body } of module.functions) {
    const times = new Map<Op, number>();
    const inner = (op: Op, outer: number): void => {
      times.set(op, outer);
      op.regions.forEach((region) =>
        region.ops.forEach((one) => inner(one, outer * (op.attrs.tripCount as number))),
      );
    };
    body.ops.forEach((op) => inner(op, 1));
    walkOps(body, (op) => found.push({ op, times: times.get(op) ?? 0 }));
  }
  return found;
}

const levelOf = ({ type }: Value): number => (type.kind === 'ct' ? (type.level ?? NaN) : NaN);

function levels(module: Module, kind: string): number[] {
  return executed(module)
    .filter(({ op }) => op.kind === kind)
    .map(({ op }) => levelOf(op.results[0] as Value));
}

/** Limbs of all results of such ops in a run. */
function limbs(module: Module, kind: string): number {
  return executed(module)
    .filter(({ op }) => op.kind === kind)
    .flatMap(({ op, times }) => op.results.map((value) => times * (levelOf(value) + 1) * count(value)))
    .reduce((sum, one) => sum + one, 0);
}

const count = ({ type }: Value): number => (type.kind === 'ct' ? axesCount(type.axes) : 0);

function run(module: Module): Float64Array {
  expect(verifyModule(module)).toEqual([]);
  return runCipher(module, { x: randomValues(3, tiny.slots) }).y as Float64Array;
}

function expectClose(a: Float64Array, b: Float64Array): void {
  expect(a).toHaveLength(b.length);
  a.forEach((value, i) => expect(Math.abs(value - (b[i] as number))).toBeLessThan(1e-12));
}

describe('drop-levels', () => {
  it('rotates below the level of the product that made the value', () => {
    const before = mainModule(
      [ct([], 9)],
      (b, [x]) => {
        const square = b.op('ct.mul', [x as Value, x as Value], { over: [] }, 'a');
        const linear = b.op('ct.rescale', [b.op('ct.relinearize', [square], {}, 'a')], {}, 'a');
        const turned = b.op('ct.rotate', [linear], { axis: 'r', steps: [0, 1, 2] }, 'a');
        return [b.op('ct.adjust', [turned], { level: 4 }, 'b')];
      },
      ports(3),
    );
    const after = dropLevels(before);
    expectClose(run(after), run(before));
    expect(levels(after, 'ct.rotate')).toEqual([4]);
    // The argument stays at 9 and is adjusted before the product.
    expect(levels(after, 'ct.adjust')).toEqual([5]);
    expect(levels(after, 'ct.rescale')).toEqual([4]);
    expect(dropLevels(after)).toEqual(after);
  });

  it('adjusts what a loop reads once, in front of it, and carries no level too many', () => {
    const before = mainModule(
      [ct([], 9)],
      (b, [x]) => {
        const copies = b.op('ct.rotate', [x as Value], { axis: 'r', steps: [0, 1] }, 'a');
        const zero = b.op('ct.zero', [], { axes: [], level: 5 }, 'a');
        const [sum] = b.loop(4, [zero, x as Value], 'a', (inner, [total, turned]) => {
          const low = inner.op('ct.adjust', [copies], { level: 5 }, 'a');
          const query = inner.op('ct.adjust', [turned as Value], { level: 5 }, 'a');
          const sums = inner.op('ct.sum', [low], { axis: 'r' }, 'a');
          const next = inner.op('ct.rotate', [turned as Value], { axis: 's', steps: [4] }, 'a');
          const added = inner.op(
            'ct.add',
            [inner.op('ct.add', [total as Value, sums], {}, 'a'), query],
            {},
            'a',
          );
          return [added, inner.op('ct.index', [next], { axis: 's', index: 0 }, 'a')];
        });
        return [sum as Value];
      },
      ports(1),
    );
    const after = dropLevels(before);
    expectClose(run(after), run(before));
    const adjusts = executed(after).filter(({ op }) => op.kind === 'ct.adjust');
    expect(adjusts.map(({ times }) => times)).toEqual([1]);
    expect(levels(after, 'ct.rotate')).toEqual([5, 5]);
  });

  it('leaves a layer whose many inputs another one needs higher', () => {
    const values = Array.from(randomValues(5, 8));
    const before = mainModule(
      [ct([axis('i', 8)], 9)],
      (b, [x]) => {
        const layer = (): Value => {
          const weights = b.op('pt.constant', [], { axes: [{ ...axis('i', 8) }], values }, 'a');
          const sum = b.op('ct.contract', [x as Value, weights], { over: ['i'], scale: 'D9' }, 'a');
          return b.op('ct.rescale', [sum], {}, 'a');
        };
        const [high, low] = [layer(), layer()];
        const square = b.op('ct.mul', [high, high], { over: [] }, 'a');
        const result = b.op('ct.rescale', [b.op('ct.relinearize', [square], {}, 'a')], {}, 'a');
        const two = [result, b.op('ct.adjust', [low], { level: 7 }, 'a')].map((one) =>
          b.op('ct.reshape', [one], { axes: [{ ...axis('o', 1) }] }, 'a'),
        );
        return [b.op('ct.concat', two, { axis: 'o' }, 'a')];
      },
      { inputs: [tokenPort('x', tokens, 8 * period, tiny.slots)], outputs: ports(2).outputs },
    );
    const after = dropLevels(before);
    expect(verifyModule(after)).toEqual([]);
    expect(levels(after, 'ct.contract')).toEqual([9, 9]);
    expect(levels(after, 'ct.adjust')).toEqual([7]);
  });

  it.each([
    ['one block', {}],
    ['a loop over key offsets', { tokenBlocks: 2, offsetsInSlots: 1, offsetsInArray: 2 }],
    ['carried queries', { tokenBlocks: 2, offsetsInSlots: 1, offsetsInArray: 2, offsetKeysLimitBytes: 0 }],
  ])('of a Transformer, %s: same values, less work', (_, pack) => {
    const shape = { tokens: 15, width: 16, heads: 2, hidden: 32, sharpness: 1 };
    const module = tinyTransformer(shape, 7);
    const ranges = calibrateModule(
      module,
      [1, 2, 3].map((seed) => ({ x: randomInput(shape, seed) })),
    );
    const context = { parameters: tiny, ranges, pack: { ...defaultPack, ...pack } };
    const prices = pricesFor(tiny, undefined);
    const planned = (greedily: boolean): Module => {
      let result: Module = module;
      for (const pass of cipherPipeline) {
        if (pass.name === 'drop-levels') break;
        result =
          greedily && pass.name === 'plan-levels'
            ? planGreedily(result, measureBounds(result, ranges), prices)
            : pass.run(result, context);
      }
      return result;
    };
    // The exact planner leaves little to drop, and what is dropped there may cost more.
    const exact = planned(false);
    const asPriced = [exact, dropLevels(exact)].map((one) => prices.module(one));
    expect(prices.module(dropLevelsWhereCheaper(exact, prices))).toBeLessThanOrEqual(Math.min(...asPriced));
    const before = planned(true);
    const after = dropLevels(before);
    const x = randomInput(shape, 9);
    expectClose(
      runCipher(after, { x }).logits as Float64Array,
      runCipher(before, { x }).logits as Float64Array,
    );
    const kinds = ['ct.rotate', 'ct.rotate_each', 'ct.relinearize', 'ct.rescale', 'ct.mul', 'ct.contract'];
    for (const kind of kinds) expect(limbs(after, kind)).toBeLessThanOrEqual(limbs(before, kind));
    expect(limbs(after, 'ct.rotate')).toBeLessThan(limbs(before, 'ct.rotate'));
    // The greedy walk adjusts late: what is made lower may be adjusted once more, for less than that saves.
    const [less, more] = [after, before].map((one) =>
      ['ct.adjust', ...kinds].reduce((sum, kind) => sum + limbs(one, kind), 0),
    );
    expect(less).toBeLessThan(defined(more, 'limbs'));
    expect(prices.module(after)).toBeLessThan(prices.module(before));
  });
});
