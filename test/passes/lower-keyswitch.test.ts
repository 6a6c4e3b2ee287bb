import { describe, expect, it } from 'vitest';
import { lowerKeyswitch, numericScale } from '../../src/backend/index.js';
import { walkOps, type Module, type Op } from '../../src/ir/module.js';
import { parseModule } from '../../src/ir/parser.js';
import { printModule } from '../../src/ir/printer.js';
import { canonicalScale, mulScale, parseScale, primeScale } from '../../src/ir/scale.js';
import { verifyModule } from '../../src/ir/verifier.js';
import { axis, buildModule, ct, toyParameters, type Source } from '../backend/oracle.js';

function opsOf(module: Module): Op[] {
  const ops: Op[] = [];
  for (const func of module.functions) walkOps(func.body, (op) => ops.push(op));
  return ops;
}

function lowered(source: Source): { poly: Module; kinds: (kind: string) => Op[] } {
  const poly = lowerKeyswitch(buildModule(source));
  expect(verifyModule(poly)).toEqual([]);
  return { poly, kinds: (kind) => opsOf(poly).filter((op) => op.kind === `poly.${kind}`) };
}

const one = (kind: string, attrs: Op['attrs'], level = 4): Source => ({
  inputs: [ct([axis('j', 2)], level)],
  body: (b, [x]) => [b.op(kind, [x!], attrs, 'node')],
});

describe('lower-keyswitch', () => {
  it('shares one ModUp among the steps of a rotation', () => {
    const { kinds } = lowered(one('ct.rotate', { axis: 'r', steps: [0, 1, 2, 3] }));
    // ModUp of c1 and ModDown of the products: two transforms back, whatever the number of steps.
    expect(kinds('intt').length).toBe(2);
    expect(kinds('key_product').map((op) => op.attrs.galois)).toEqual([[5, 25, 61]]);
    expect(kinds('automorphism').map((op) => op.attrs.galois)).toEqual([[5, 25, 61]]);
  });

  it('needs no key for steps that are multiples of the slot count', () => {
    const { kinds } = lowered(one('ct.rotate', { axis: 'r', steps: [0, 16, -16] }));
    expect(kinds('key_product')).toEqual([]);
  });

  it('sums rotations in the extended basis: one ModDown for the sum', () => {
    const { kinds } = lowered(one('ct.rotate_each', { axis: 'j', steps: [1, 2], sum: true }));
    expect(kinds('sub_scale').length).toBe(1);
    expect(kinds('automorphism')[0]?.results[0]?.type).toMatchObject({ limbs: [0, 1, 2, 3, 4, 8, 9, 10] });
  });

  it('covers every iteration of a loop in the tables of keys, with the identity where a step becomes zero', () => {
    const { kinds } = lowered({
      inputs: [ct([axis('j', 2)], 3)],
      body: (b, [x]) =>
        b.loop(3, [x!], '', (inner, [a]) => [
          inner.op('ct.rotate_each', [a!], { axis: 'j', steps: [0, 1], sum: false, loopStride: 4 }, ''),
        ]),
    });
    const powers = [0, 1, 4, 5, 8, 9].map((step) => Number(5n ** BigInt(step) % 64n));
    expect(kinds('key_product').map((op) => op.attrs.galois)).toEqual([powers]);
    expect(powers[0]).toBe(1);
  });

  it.each([
    [1, 'stc', 2],
    [4, 'compute', 3],
    [7, 'top', 3],
  ])('picks the cheapest class at level %i', (level, name, specials) => {
    const { kinds } = lowered(one('ct.conjugate', {}, level));
    const [product] = kinds('key_product');
    expect(product?.attrs).toMatchObject({ class: name, galois: [63] });
    expect(product?.results[0]?.type).toMatchObject({ limbs: { length: level + 1 + specials } });
  });

  it('rescales by the centred remainder', () => {
    const { kinds } = lowered(one('ct.rescale', {}, 2));
    expect(kinds('base_convert').map((op) => op.attrs.limbs)).toEqual([[0, 1]]);
    const scalars = kinds('sub_scale')[0]?.attrs.scalars as number[];
    const { primes } = toyParameters;
    scalars.forEach((scalar, i) => expect((BigInt(scalar) * primes[2]!) % primes[i]!).toBe(1n));
  });

  it('adds a plaintext in place where the ciphertext is used up', () => {
    const source = (twice: boolean): Source => ({
      inputs: [ct([], 2)],
      body: (b, [x]) => {
        const sum = b.op('ct.add', [x!, x!], {}, '');
        const added = b.op(
          'ct.add_plain',
          [sum, b.op('pt.constant', [], { axes: [], values: [1] }, '')],
          {},
          '',
        );
        return twice ? [added, sum] : [added];
      },
    });
    expect(lowered(source(false)).kinds('copy').length).toBe(0);
    expect(lowered(source(true)).kinds('copy').length).toBe(1);
  });

  it('prints, parses and verifies', () => {
    const { poly } = lowered(one('ct.rotate_each', { axis: 'j', steps: [1, 0], sum: true }));
    const text = printModule(poly);
    expect(printModule(parseModule(text))).toBe(text);
    expect(verifyModule(parseModule(text))).toEqual([]);
  });

  it('refuses what an earlier pass should have expanded', () => {
    const source = one('ct.polynomial', { coefficients: [0, 1, 0.5] }, 4);
    expect(() => lowerKeyswitch(buildModule(source))).toThrow(/must be expanded/);
  });
});

describe('numericScale', () => {
  const { scales, primes } = toyParameters;
  it('follows the tower of canonical scales', () => {
    const product = mulScale(canonicalScale(4), canonicalScale(4));
    expect(numericScale(product, toyParameters)).toBe(scales[4]! * scales[4]!);
    const rescaled = numericScale(parseScale('D4^2*q4^-1')!, toyParameters);
    expect(Math.abs(rescaled / scales[3]! - 1)).toBeLessThan(2 ** -50);
    expect(numericScale(primeScale(2), toyParameters)).toBe(Number(primes[2]!));
  });

  it('does not overflow on the way', () => {
    const large = numericScale(parseScale('D4^40*q4^-39*2^-3')!, toyParameters);
    expect(Math.abs(Math.log2(large) - 37)).toBeLessThan(0.01);
  });
});
