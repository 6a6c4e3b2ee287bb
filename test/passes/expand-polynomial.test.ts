import { describe, expect, it } from 'vitest';
import { runCipherFunction, type CipherValue } from '../../src/ir/interpreter/cipher.js';
import { canonicalScale, printScale } from '../../src/ir/scale.js';
import { verifyModule } from '../../src/ir/verifier.js';
import { walkOps, type Module } from '../../src/ir/module.js';
import type { Axis } from '../../src/ir/types.js';
import { evaluateChebyshev } from '../../src/passes/approximation/index.js';
import { planSeries } from '../../src/passes/approximation/paterson-stockmeyer.js';
import { expandPolynomial } from '../../src/passes/expand-polynomial.js';
import { axis, ct, mainModule, micro, randomValues } from '../ir/build.js';

const level = 14;

function polynomialModule(coefficients: readonly number[], axes: readonly Axis[] = []): Module {
  // Module functions other than main need no ports.
  const module = mainModule(
    [ct(axes, level)],
    (b, [x]) => {
      return x === undefined ? [] : [b.op('ct.polynomial', [x], { coefficients }, 'gelu')];
    },
    { parameters: micro },
  );
  const main = module.functions[0];
  return { ...module, functions: main === undefined ? [] : [{ ...main, name: 'series' }] };
}

function countOps(module: Module): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const func of module.functions)
    walkOps(func.body, (op) => (counts[op.kind] = (counts[op.kind] ?? 0) + 1));
  return counts;
}

const soundOf = (module: Module) => verifyModule(module).filter((d) => d.code !== 'V120');

function check(coefficients: readonly number[], axes: readonly Axis[] = []): Record<string, number> {
  const module = expandPolynomial(polynomialModule(coefficients, axes));
  expect(soundOf(module)).toEqual([]);
  const func = module.functions[0];
  if (func === undefined) throw new Error('no function');
  const type = func.body.results[0]?.type;
  const out = level - Math.ceil(Math.log2(coefficients.length));
  expect(
    type?.kind === 'ct' && [type.level, printScale(type.scale ?? canonicalScale(99)), type.degree],
  ).toEqual([out, `D${out}`, 1]);
  const elements = axes.reduce((n, a) => n * a.size, 1);
  const re = Array.from({ length: elements }, (_, e) => randomValues(e + 1, micro.slots));
  const x: CipherValue = { kind: 'ct', axes, re, im: null };
  const [y] = runCipherFunction(module, func, [x]) as CipherValue[];
  const scale = coefficients.reduce((sum, c) => sum + Math.abs(c), 1e-300);
  re.forEach((vector, e) =>
    vector.forEach((t, s) => {
      const wanted = evaluateChebyshev(coefficients, t);
      expect(Math.abs((y?.re[e]?.[s] ?? NaN) - wanted) / scale).toBeLessThan(1e-13);
    }),
  );
  return countOps(module);
}

describe('expand-polynomial', () => {
  it('is exact and of optimal depth at every degree up to 255', () => {
    for (let degree = 1; degree <= 255; degree++) {
      check(Array.from(randomValues(degree, degree + 1)));
    }
  });

  it('takes constants, trimmed, even and odd series', () => {
    check([0.75]);
    check([0.75, 0, 0, 0]);
    check([0, 0, 0, 0, 1]);
    check([0.5, 1e-18, 0.25, 1e-18, 1e-18]);
    const random = randomValues(7, 64);
    const even = check(Array.from(random, (c, k) => (k % 2 === 0 ? c : 0)));
    const odd = check(Array.from(random, (c, k) => (k % 2 === 1 ? c : 0)));
    const dense = check(Array.from(random));
    expect(even['ct.mul']).toBeLessThan(dense['ct.mul'] ?? 0);
    expect(odd['ct.mul']).toBeLessThanOrEqual(dense['ct.mul'] ?? 0);
  });

  it('works on arrays, whatever their axes are called', () => {
    check(Array.from(randomValues(3, 24)), [axis('power', 2), axis('j', 3)]);
  });

  it('takes about sqrt(2 degree) + log2(degree) products', () => {
    for (const degree of [7, 15, 27, 30, 31, 46, 63, 100, 127, 255]) {
      const { counts } = planSeries(Array.from(randomValues(degree, degree + 1)));
      expect(counts.products).toBeLessThanOrEqual(Math.sqrt(2 * degree) + Math.log2(degree) + 6);
      expect(counts.relinearizations).toBeLessThan(counts.products);
    }
  });
});
