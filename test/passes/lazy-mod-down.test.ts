import { describe, expect, it } from 'vitest';
import { runCipher } from '../../src/ir/interpreter/cipher.js';
import { walkOps, type Module, type Value } from '../../src/ir/module.js';
import { verifyModule } from '../../src/ir/verifier.js';
import { lazyModDown } from '../../src/passes/lazy-mod-down.js';
import { keyClassFor } from '../../src/target/parameters.js';
import { axis, ct, mainModule, randomValues, tiny, tokenPort } from '../ir/build.js';

const level = 9;
const tokens = 8;
const period = tiny.slots / tokens;

/** `steps` rotations of one ciphertext, summed into `outputs` ciphertexts. */
function convolution(steps: number, outputs: number, more?: (rotated: Value) => readonly Value[]): Module {
  return mainModule(
    [ct([], level)],
    (b, [x]) => {
      if (x === undefined) return [];
      const list = Array.from({ length: steps }, (_, i) => i);
      const rotated = b.op('ct.rotate', [x], { axis: 'r', steps: list }, 'conv');
      const axes = [axis('o', outputs), axis('r', steps)].map((a) => ({ ...a }));
      const values = Array.from(randomValues(5, outputs * steps));
      const kernel = b.op('pt.constant', [], { axes, values }, 'conv');
      const sum = b.op('ct.contract', [rotated, kernel], { over: ['r'], scale: `D${level}` }, 'conv');
      return [b.op('ct.rescale', [sum], {}, 'conv'), ...(more?.(rotated) ?? [])];
    },
    {
      inputs: [tokenPort('x', tokens, period, tiny.slots)],
      outputs: [tokenPort('y', tokens, outputs * period, tiny.slots)],
    },
  );
}

function ops(module: Module): string[] {
  const kinds: string[] = [];
  for (const func of module.functions) walkOps(func.body, (op) => kinds.push(op.kind));
  return kinds;
}

describe('lazy-mod-down', () => {
  it('moves the ModDown of rotations behind their sum', () => {
    const before = convolution(16, 2);
    const after = lazyModDown(before);
    expect(verifyModule(after)).toEqual([]);
    expect(ops(after)).toEqual(['ct.rotate', 'pt.constant', 'ct.contract', 'ct.mod_down', 'ct.rescale']);
    const rotate = after.functions[0]?.body.ops[0];
    expect(rotate?.attrs.lazy).toBe(keyClassFor(tiny, level).name);
    const x = randomValues(2, tiny.slots);
    expect(runCipher(after, { x })).toEqual(runCipher(before, { x }));
    // Nothing is left to do.
    expect(ops(lazyModDown(after))).toEqual(ops(after));
  });

  it('leaves sums that are as many as the rotations', () => {
    const before = convolution(4, 4);
    expect(ops(lazyModDown(before))).toEqual(ops(before));
  });

  it('leaves rotations that something else uses', () => {
    const before = convolution(16, 1, (rotated) => [rotated]);
    const lazy = { ...before, outputs: [] };
    expect(ops(lazyModDown(lazy))).toEqual(ops(before));
  });
});
