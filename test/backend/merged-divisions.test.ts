import { describe, expect, it } from 'vitest';
import type { BlockBuilder } from '../../src/ir/builder.js';
import type { Value } from '../../src/ir/module.js';
import { canonicalScale, printScale } from '../../src/ir/scale.js';
import { lowerKeyswitch } from '../../src/backend/index.js';
import { walkOps } from '../../src/ir/module.js';
import { axis, buildModule, ct, runOracle, type Source } from './oracle.js';

type Op = BlockBuilder['op'];

/** Values that end with a ModDown, at level 4. */
const sums: Record<string, (op: Op, x: Value) => Value> = {
  relinearize: (op, x) => op('ct.relinearize', [op('ct.mul', [x, x], { over: [] }, '')], {}, ''),
  mod_down: (op, x) => {
    const turned = op('ct.rotate', [x], { axis: 'r', steps: [0, 1, 3], lazy: 'compute' }, '');
    const axes = [{ name: 'r', size: 3 }];
    const plain = op('pt.constant', [], { axes, values: [0.5, -0.25, 0.75] }, '');
    const scale = printScale(canonicalScale(4));
    return op('ct.mod_down', [op('ct.contract', [turned, plain], { over: ['r'], scale }, '')], {}, '');
  },
  rotate_each: (op, x) => op('ct.rotate_each', [x], { axis: 'j', steps: [1, 0], sum: true }, ''),
};

/** `apart`: the quotient by P is an output too, so that the rescale divides by itself. */
const rescaled = (name: keyof typeof sums, doubled: boolean, apart: boolean): Source => ({
  inputs: [ct([axis('j', 2)], 4)],
  body: (b, [x]) => {
    const op: Op = b.op.bind(b);
    const sum = sums[name]!(op, x!);
    const scaled = doubled ? op('ct.add', [sum, sum], {}, '') : sum;
    const result = op('ct.rescale', [scaled], {}, '');
    return apart ? [result, sum] : [result];
  },
});

const transforms = (source: Source): number => {
  let count = 0;
  for (const func of lowerKeyswitch(buildModule(source)).functions)
    walkOps(func.body, (op) => {
      if (op.kind !== 'poly.sub_scale') return;
      const type = op.results[0]!.type;
      if (type.kind === 'poly' && type.form === 'ntt') count++;
    });
  return count;
};

describe('a rescale after a ModDown', () => {
  const cases = Object.keys(sums).flatMap((name) => [false, true].map((doubled) => ({ name, doubled })));
  it.each(cases)('shares its transform, with the bits of two divisions: $name, doubled $doubled', (one) => {
    const [merged, apart] = [false, true].map((other) => rescaled(one.name, one.doubled, other));
    expect(transforms(merged!)).toBe(transforms(apart!) - 1);
    const [slots, expected] = [merged!, apart!].map((source) => runOracle(source).outputs[0]);
    expect(slots).toEqual(expected);
  });
});
