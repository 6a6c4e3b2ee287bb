import { describe, expect, it } from 'vitest';
import type { BlockBuilder } from '../../src/ir/builder.js';
import type { Value } from '../../src/ir/module.js';
import { canonicalScale, mulScale, printScale } from '../../src/ir/scale.js';
import type { PtType } from '../../src/ir/types.js';
import { readPlan } from '../../src/backend/index.js';
import { plaintextBytes } from '../../src/backend/rank-memory.js';
import { printSchedule } from '../../src/backend/print-schedule.js';
import { expansionButterflies, heldAsCoefficients, heldRows, rowWords } from '../../src/target/plain-rows.js';
import { axis, buildModule, ct, distance, lower, plus, runOracle, scaled, type Source } from './oracle.js';

const level = 3;
const scale = printScale(canonicalScale(level));
const product = mulScale(canonicalScale(level), canonicalScale(level));

/** Two elements of weights of this period. */
function weights(b: BlockBuilder, constant: string, period: number): Value {
  const attrs = { axes: [{ name: 'r', size: 2 }], period, constant, features: 'f', factor: 1 };
  return b.op('pt.vector', [], attrs, 'w');
}

function tables(period: number): NonNullable<Source['tables']> {
  return { f: Int32Array.from({ length: 2 * period }, (_, i) => i) };
}

function constant(period: number, largest: number) {
  return {
    shape: [2 * period],
    data: Float64Array.from({ length: 2 * period }, (_, i) => largest / (i + 1)),
  };
}

/** x times weights, at the last level of the chain that makes the number of limbs. */
function products(period: number, largest: number, at = level): Source {
  return {
    inputs: [ct([axis('r', 2)], at)],
    constants: { w: constant(period, largest) },
    tables: tables(period),
    body: (b, [x]) => {
      const attrs = { over: ['r'], scale: printScale(canonicalScale(at)) };
      return [b.op('ct.contract', [x!, weights(b, 'w', period)], attrs, 'c')];
    },
  };
}

const plaintextsOf = (source: Source) => readPlan(lower(buildModule(source)).plan).plaintexts;

describe('the form of a plaintext', () => {
  it('is coefficients where rows are short, real and for several limbs', () => {
    const real = (period: number) => ({ period, complex: false });
    expect(heldAsCoefficients(real(64), 13, 2 ** 16)).toBe(true);
    expect(heldAsCoefficients(real(512), 13, 2 ** 16)).toBe(true);
    expect(heldAsCoefficients(real(2048), 13, 2 ** 16)).toBe(true);
    expect(heldAsCoefficients(real(4096), 13, 2 ** 16)).toBe(false);
    expect(heldAsCoefficients(real(64), 1, 2 ** 16)).toBe(false);
    expect(heldAsCoefficients(real(1), 13, 2 ** 16)).toBe(false);
    expect(heldAsCoefficients({ period: 64, complex: true }, 13, 2 ** 16)).toBe(false);
    expect([rowWords(real(64), 2 ** 16), heldRows(real(64), 13, 2 ** 16)]).toEqual([128, 1]);
    expect(heldRows(real(2 ** 15), 13, 2 ** 16)).toBe(13);
    expect(expansionButterflies(128)).toBe(64 * 7);
  });

  it('is said in the plan, whose bytes do not depend on limbs then', () => {
    const [held] = plaintextsOf(products(2, 1));
    expect(held).toMatchObject({ coefficients: true, limbs: [], rowWords: 4, elements: 2 });
    expect(plaintextBytes(held!)).toBe(2 * 4 * 8);
    const [long] = plaintextsOf(products(16, 1));
    expect(long).toMatchObject({ coefficients: false, limbs: [0, 1, 2, 3], rowWords: 32 });
    expect(plaintextBytes(long!)).toBe(2 * 4 * 32 * 8);
    const [single] = plaintextsOf(products(2, 1, 0));
    expect(single).toMatchObject({ coefficients: false, limbs: [0] });
    const text = printSchedule(readPlan(lower(buildModule(products(2, 1))).plan));
    expect(text).toContain('vector 2 x 4 coefficients, scale');
  });

  it('is residues where coefficients might not fit signed words', () => {
    expect(plaintextsOf(products(2, 2 ** 20))[0]!.coefficients).toBe(true);
    expect(plaintextsOf(products(2, 2 ** 23))[0]!.coefficients).toBe(false);
  });
});

describe('plaintexts held as coefficients', () => {
  it('give the same slots, on all ranks of every placement', () => {
    const { plan, inputs, outputs } = runOracle(products(2, 1));
    expect(plan.plaintexts.map((p) => p.coefficients)).toEqual([true]);
    const [x0, x1] = inputs[0]!;
    const w = constant(2, 1).data;
    const by = (x: typeof x0, r: number) =>
      x!.map((v, s) => ({ re: v.re * w[r * 2 + (s % 2)]!, im: v.im * w[r * 2 + (s % 2)]! }));
    expect(distance(outputs[0]![0]!, plus(by(x0, 0), by(x1, 1)))).toBeLessThan(2 ** -20);
  });

  it('are added, too', () => {
    const source: Source = {
      inputs: [ct([axis('r', 2)], level)],
      constants: { w: constant(2, 1) },
      tables: tables(2),
      body: (b, [x]) => [b.op('ct.add_plain', [x!, weights(b, 'w', 2)], {}, 'a')],
    };
    const { plan, inputs, outputs } = runOracle(source);
    expect(plan.plaintexts.map((p) => p.coefficients)).toEqual([true]);
    const w = constant(2, 1).data;
    inputs[0]!.forEach((x, r) => {
      const expected = x.map((v, s) => ({ re: v.re + w[r * 2 + (s % 2)]!, im: v.im }));
      expect(distance(outputs[0]![r]!, expected)).toBeLessThan(2 ** -20);
    });
  });

  // The callee is emitted before its callers: its argument takes the form that all of them allow.
  it.each([
    [1, true],
    [2 ** 23, false],
  ])('are bound by calls, the largest of them %d', (largest, coefficients) => {
    const x = ct([axis('r', 2)], level);
    const y = ct([], level, product);
    const p: PtType = { kind: 'pt', axes: [axis('r', 2)], period: 2, complex: false };
    const source: Source = {
      inputs: [x],
      constants: { small: constant(2, 1), large: constant(2, largest) },
      tables: tables(2),
      functions: [
        { name: 'outer', args: [x, p], body: (b, [a, w]) => b.call('inner', [a!, w!], [y], 'o') },
        {
          name: 'inner',
          args: [x, p],
          body: (b, [a, w]) => [b.op('ct.contract', [a!, w!], { over: ['r'], scale }, 'i')],
        },
      ],
      body: (b, [a]) => {
        const call = (callee: string, name: string): Value =>
          b.call(callee, [a!, weights(b, name, 2)], [y], 'm')[0]!;
        return [b.op('ct.sub', [call('outer', 'large'), call('inner', 'small')], {}, 'd')];
      },
    };
    const held = readPlan(lower(buildModule(source)).plan).plaintexts.map((one) => one.coefficients);
    expect(held).toEqual([coefficients, coefficients]);
    if (!coefficients) return;
    const { outputs } = runOracle(source);
    expect(distance(outputs[0]![0]!, scaled(outputs[0]![0]!, 0))).toBeLessThan(2 ** -20);
  });
});
