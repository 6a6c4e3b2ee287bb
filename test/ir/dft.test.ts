import { describe, expect, it } from 'vitest';
import {
  slotTransformDiagonals,
  slotTransformSteps,
  type ComplexVector,
  type SlotTransform,
} from '../../src/ir/interpreter/dft.js';
import { runCipherFunction, type CipherValue } from '../../src/ir/interpreter/cipher.js';
import type { Value } from '../../src/ir/module.js';
import { verifyModule } from '../../src/ir/verifier.js';
import { axis, ct, mainModule, micro, randomValues } from './build.js';

function apply(transform: SlotTransform, x: ComplexVector): ComplexVector {
  const { slots } = transform;
  const y = { re: new Float64Array(slots), im: new Float64Array(slots) };
  for (const [step, diagonal] of slotTransformDiagonals(transform)) {
    for (let p = 0; p < slots; p++) {
      const q = (p + step) % slots;
      const [a, b, c, d] = [diagonal.re[p], diagonal.im[p], x.re[q], x.im[q]] as [
        number,
        number,
        number,
        number,
      ];
      y.re[p] = (y.re[p] as number) + a * c - b * d;
      y.im[p] = (y.im[p] as number) + a * d + b * c;
    }
  }
  return y;
}

const bitReversed = (index: number, bits: number): number =>
  Number.parseInt(index.toString(2).padStart(bits, '0').split('').reverse().join(''), 2);

/** z_k = sum_n m_n zeta^(5^k n): the polynomial at its roots, straight from the definition. */
function evaluated(coefficients: Float64Array): ComplexVector {
  const n = coefficients.length;
  const z = { re: new Float64Array(n / 2), im: new Float64Array(n / 2) };
  for (let k = 0, power = 1; k < n / 2; k++, power = (power * 5) % (2 * n)) {
    coefficients.forEach((m, j) => {
      const angle = (Math.PI * ((power * j) % (2 * n))) / n;
      z.re[k] = (z.re[k] as number) + m * Math.cos(angle);
      z.im[k] = (z.im[k] as number) + m * Math.sin(angle);
    });
  }
  return z;
}

function expectClose(a: ComplexVector, b: ComplexVector): void {
  for (const part of ['re', 'im'] as const) {
    a[part].forEach((value, s) => expect(Math.abs(value - (b[part][s] as number))).toBeLessThan(1e-10));
  }
}

describe('the slot transform', () => {
  for (const logSlots of [1, 2, 3, 5, 7]) {
    const slots = 2 ** logSlots;
    it(`of ${slots} slots takes bit-reversed coefficients to the values at the roots zeta^(5^k)`, () => {
      const m = randomValues(logSlots, 2 * slots);
      const w = { re: new Float64Array(slots), im: new Float64Array(slots) };
      for (let j = 0; j < slots; j++) {
        w.re[bitReversed(j, logSlots)] = m[j] as number;
        w.im[bitReversed(j, logSlots)] = m[j + slots] as number;
      }
      expectClose(apply({ slots, inverse: false, first: 1, count: logSlots }, w), evaluated(m));
    });

    it(`of ${slots} slots and its inverse, in groups of two stages, compose to the identity`, () => {
      const x = { re: randomValues(1, slots), im: randomValues(2, slots) };
      let y: ComplexVector = x;
      const groups = Array.from({ length: Math.ceil(logSlots / 2) }, (_, g) => {
        return { first: 1 + 2 * g, count: Math.min(2, logSlots - 2 * g) };
      });
      for (const group of groups) y = apply({ slots, inverse: false, ...group }, y);
      for (const group of groups.toReversed()) y = apply({ slots, inverse: true, ...group }, y);
      expectClose(y, x);
    });
  }

  it('has at most 2^(k+1) - 1 diagonals in k stages, all at the announced steps', () => {
    for (const inverse of [false, true]) {
      for (let first = 1; first <= 7; first++) {
        for (let count = 1; first + count - 1 <= 7; count++) {
          const steps = slotTransformSteps(128, first, count);
          const diagonals = slotTransformDiagonals({ slots: 128, inverse, first, count });
          expect(diagonals.size).toBeLessThanOrEqual(2 ** (count + 1) - 1);
          for (const step of diagonals.keys()) expect(steps.has(step)).toBe(true);
        }
      }
    }
  });

  it('runs as rotations and products by baby and giant steps', () => {
    // Four stages of 16 slots: all 16 steps, as 4 giant times 4 baby steps.
    const [baby, giant] = [
      [0, 1, 2, 3],
      [0, 4, 8, 12],
    ];
    const both = mainModule(
      [ct([])],
      (b, [x]) => {
        const transformed = (value: Value, inverse: boolean, factor: number): Value => {
          const rotated = b.op('ct.rotate', [value], { axis: 'b', steps: baby }, '');
          const axes = [{ ...axis('g', 4) }, { ...axis('b', 4) }];
          const dft = b.op('pt.dft', [], { axes, inverse, first: 1, count: 4, baby, giant, factor }, '');
          const sums = b.op('ct.contract', [rotated, dft], { over: ['b'] }, '');
          return b.op('ct.rotate_each', [sums], { axis: 'g', steps: giant, sum: true }, '');
        };
        const coefficients = transformed(x as Value, false, 0.5);
        return [coefficients, transformed(coefficients, true, 2)];
      },
      { parameters: micro },
    );
    expect(verifyModule(both).filter((d) => d.code !== 'V115')).toEqual([]);
    const x: CipherValue = { kind: 'ct', axes: [], re: [randomValues(1, 16)], im: [randomValues(2, 16)] };
    const main = both.functions[0];
    if (main === undefined) throw new Error('no main');
    const [middle, back] = runCipherFunction(both, main, [x]) as CipherValue[];
    const of = (value: CipherValue | undefined): ComplexVector => ({
      re: value?.re[0] as Float64Array,
      im: value?.im?.[0] as Float64Array,
    });
    const direct = apply({ slots: 16, inverse: false, first: 1, count: 4 }, of(x));
    expectClose(of(middle), { re: direct.re.map((v) => v / 2), im: direct.im.map((v) => v / 2) });
    expectClose(of(back), of(x));
  });
});
