import { describe, expect, it } from 'vitest';
import { BlockBuilder, Ids } from '../../src/ir/builder.js';
import { runCipher, runCipherFunction, type CipherValue } from '../../src/ir/interpreter/cipher.js';
import { slotTransformSteps } from '../../src/ir/interpreter/dft.js';
import { walkOps, type Func, type Module, type Port, type Value } from '../../src/ir/module.js';
import { canonicalScale, printScale } from '../../src/ir/scale.js';
import type { CtType } from '../../src/ir/types.js';
import { verifyModule } from '../../src/ir/verifier.js';
import { evalMod, evaluateEvalMod, leastSquares } from '../../src/passes/approximation/evalmod.js';
import { BootstrapBody } from '../../src/passes/expand-bootstrap/body.js';
import { chainKeys } from '../../src/passes/chained-sum.js';
import { groupSteps, stageGroups } from '../../src/passes/expand-bootstrap/linear-maps.js';
import { expandBootstrap } from '../../src/passes/expand-bootstrap.js';
import {
  arcsineLevels,
  defaultLiteral,
  evalModLevels,
  evalModModel,
  makeParameters,
  messageRatio,
  type Parameters,
} from '../../src/target/parameters.js';
import { axis, cipherModule, ct, mainModule, randomSource, randomValues, tiny } from '../ir/build.js';

const micro = makeParameters(defaultLiteral('tiny', true, { logN: 6 }));

function partModule(
  parameters: Parameters,
  arg: CtType,
  range: number,
  part: (b: BootstrapBody, x: Value) => Value,
): Module {
  const builder = new BlockBuilder(new Ids(), parameters, [arg]);
  const body = new BootstrapBody(builder, parameters, range, 'part');
  const [x] = builder.args;
  const func: Func = { name: 'part', body: builder.finish(x === undefined ? [] : [part(body, x)]) };
  return cipherModule({ functions: [func], parameters });
}

/** Faults except the missing `main`. */
const faults = (module: Module) => verifyModule(module).filter((d) => d.code !== 'V120');

function run(module: Module, re: readonly Float64Array[], name: string): CipherValue {
  const func = module.functions[0];
  const [y] = runCipherFunction(module, func as Func, [
    { kind: 'ct', axes: [axis(name, re.length)], re, im: null },
  ]);
  return y as CipherValue;
}

const distance = (a: Float64Array, b: Float64Array) =>
  a.reduce((max, v, i) => Math.max(max, Math.abs(v - (b[i] ?? NaN))), 0);

describe('evalMod', () => {
  it('leaves 2^-27 of the range at every integer, 2^-33 at the frequent ones', () => {
    const random = randomSource(1);
    const slope = 0.83;
    for (const ratio of [2 ** 10, 2 ** 8]) {
      const fit = evalMod(slope, ratio);
      expect(fit.length).toBe(31);
      const worst = { frequent: 0, all: 0 };
      for (let trial = 0; trial < 40_000; trial++) {
        const integer = Math.floor(31 * random()) - 15;
        const eps = (2 * random() - 1) / ratio;
        const sine = (slope * Math.sin(2 * Math.PI * eps)) / (2 * Math.PI);
        const error = Math.abs(evaluateEvalMod(fit, integer + eps) - sine) / (slope / ratio);
        worst.all = Math.max(worst.all, error);
        if (Math.abs(integer) <= 6) worst.frequent = Math.max(worst.frequent, error);
      }
      expect(Math.log2(worst.all)).toBeLessThan(-27);
      expect(Math.log2(worst.frequent)).toBeLessThan(-33);
    }
  });

  it('solves least squares', () => {
    const c = leastSquares(
      [
        [1, 0],
        [1, 1],
        [1, 2],
      ],
      [1, 3, 5.3],
    );
    expect(c[0]).toBeCloseTo(0.95, 12);
    expect(c[1]).toBeCloseTo(2.15, 12);
  });
});

describe('stage groups', () => {
  it('cover every diagonal once, with fewer steps where they wrap', () => {
    for (const [logSlots, groups] of [
      [9, 3],
      [11, 3],
      [15, 3],
      [15, 4],
      [4, 3],
      [5, 1],
    ] as const) {
      const slots = 2 ** logSlots;
      const list = stageGroups(logSlots, groups);
      expect(list.reduce((sum, g) => sum + g.count, 0)).toBe(logSlots);
      for (const [group, keyCost] of list.flatMap((one) => [0, 1, 10].map((cost) => [one, cost] as const))) {
        const { baby, giant } = groupSteps(group, slots, keyCost);
        const sums = giant.flatMap((g) => baby.map((b) => (g + b) % slots));
        expect(new Set(sums).size).toBe(sums.length);
        expect(
          [...slotTransformSteps(slots, group.first, group.count)].filter((s) => !sums.includes(s)),
        ).toEqual([]);
      }
    }
    expect(stageGroups(11, 3)).toEqual([
      { first: 1, count: 3 },
      { first: 4, count: 4 },
      { first: 8, count: 4 },
    ]);
    expect(groupSteps({ first: 11, count: 5 }, 2 ** 15)).toMatchObject({ giant: [0, 8192, 16384, 24576] });
  });

  it('takes fewer keys the dearer they are', () => {
    const keys = (keyCost: number): number => {
      const { baby, giant, chain } = groupSteps({ first: 6, count: 5 }, 2 ** 15, keyCost);
      const steps = [...baby, ...(chain === undefined ? giant : chainKeys(chain))];
      return new Set(steps.filter((step) => step !== 0)).size;
    };
    expect([0, 1, 5, 20, 100].map(keys)).toEqual([18, 14, 9, 5, 3]);
  });
});

describe('expand-bootstrap', () => {
  for (const parameters of [micro, tiny]) {
    it(`takes slots to coefficients and back (${parameters.slots} slots)`, () => {
      for (const count of parameters === micro ? [1, 2, 3, 5, 6] : [3]) {
        const range = 5;
        const input = ct([axis('b', count)], parameters.bootstrapInputLevel);
        const module = partModule(parameters, input, range, (b, x) => {
          const raised = b.modRaise(b.slotsToCoeffs(b.pair(x, count)));
          return b.separate(b.coeffsToSlots(raised), count);
        });
        expect(faults(module)).toEqual([]);
        const type = module.functions[0]?.body.results[0]?.type as CtType;
        expect(type).toMatchObject({ level: parameters.evalModTop, axes: [axis('b', count)] });
        expect(printScale(type.scale ?? canonicalScale(0))).toBe(`D${parameters.evalModTop}`);
        const x = Array.from({ length: count }, (_, e) =>
          randomValues(e, parameters.slots).map((v) => v * 2 ** range),
        );
        const y = run(module, x, 'b');
        // x / R is m / D_0; it comes back as m / (16 q_0).
        const back = 2 ** range * 16 * (Number(parameters.primes[0]) / (parameters.scales[0] ?? 0));
        y.re.forEach((v, e) =>
          expect(
            distance(
              v.map((t) => t * back),
              x[e] as Float64Array,
            ),
          ).toBeLessThan(1e-10),
        );
      }
    });

    it(`gives the coefficients of the slot transform (${parameters.slots} slots)`, () => {
      // A constant vector is the constant polynomial: SlotsToCoeffs of (1, 0, 0, ..) has 1 in every slot.
      const module = partModule(parameters, ct([axis('p', 1)], parameters.bootstrapInputLevel), 0, (b, x) =>
        b.slotsToCoeffs(x),
      );
      expect(
        printScale((module.functions[0]?.body.results[0]?.type as CtType).scale ?? canonicalScale(9)),
      ).toBe('D0');
      const unit = new Float64Array(parameters.slots).map((_, i) => (i === 0 ? 1 : 0));
      const y = run(module, [unit], 'p');
      expect(distance(y.re[0] as Float64Array, new Float64Array(parameters.slots).fill(1))).toBeLessThan(
        1e-12,
      );
    });
  }

  it('takes I + eps to the value itself with the arcsine step', () => {
    const literal = defaultLiteral('tiny', true, { evalModLevels: evalModLevels + arcsineLevels });
    const parameters = makeParameters(literal);
    const ratio = messageRatio(parameters);
    expect(Math.log2(ratio)).toBeCloseTo(8, 3);
    for (const range of [-2, 0, 3]) {
      const arg = ct([axis('b', 1)], parameters.evalModTop);
      const module = partModule(parameters, arg, range, (b, x) => b.evalMod(x));
      expect(faults(module)).toEqual([]);
      expect(module.functions[0]?.body.results[0]?.type).toMatchObject({
        level: parameters.computeTop,
        scale: canonicalScale(parameters.computeTop),
      });
      const random = randomSource(6);
      const values = randomValues(1, parameters.slots).map((v) => v * 2 ** range);
      values[0] = 2 ** range;
      const t = values.map((x) => (Math.floor(13 * random()) - 6 + x / (2 ** range * ratio)) / 16);
      const y = run(module, [t], 'b').re[0] as Float64Array;
      const model = evalModModel(parameters, range);
      expect(distance(y, values.map(model))).toBeLessThan(2 ** (range - 29));
      expect(distance(values, values.map(model))).toBeLessThan(2 ** (range - 25));
      expect(Math.abs(model(2 ** range) - 2 ** range)).toBeGreaterThan(2 ** (range - 26));
    }
  });

  it('takes I + eps to the value at canonical scale', () => {
    for (const range of [-1, 0, 4]) {
      const module = partModule(tiny, ct([axis('b', 2)], tiny.evalModTop), range, (b, x) => b.evalMod(x));
      expect(faults(module)).toEqual([]);
      expect(module.functions[0]?.body.results[0]?.type).toMatchObject({
        level: tiny.computeTop,
        scale: canonicalScale(tiny.computeTop),
      });
      const random = randomSource(5);
      const ratio = Number(tiny.primes[0]) / (tiny.scales[0] ?? 0);
      const values = [0, 1].map((e) => randomValues(e, tiny.slots).map((v) => v * 2 ** range));
      const t = values.map((vector) =>
        vector.map((x) => (Math.floor(31 * random()) - 15 + x / (2 ** range * ratio)) / 16),
      );
      const y = run(module, t, 'b');
      const unit = (2 ** range * ratio) / (2 * Math.PI);
      const gain = 1 + (2 ** range / unit) ** 2 / 8;
      y.re.forEach((vector, e) => {
        const x = values[e] as Float64Array;
        const sine = x.map((v) => gain * unit * Math.sin(v / unit));
        expect(distance(vector, sine)).toBeLessThan(2 ** (range - 24));
        expect(distance(vector, x)).toBeLessThan(2 ** (range - 19));
      });
      // The largest error, at R and R / 2, is a quarter of the cubic term (2 pi / ratio)^2 / 6.
      const model = evalModModel(tiny, range);
      const errors = [0.5, 1].map((share) => model(share * 2 ** range) / 2 ** range - share);
      const quarter = (2 ** range / unit) ** 2 / 24;
      expect((errors[0] ?? 0) / quarter).toBeCloseTo(1, 3);
      expect((errors[1] ?? 0) / quarter).toBeCloseTo(-1, 3);
    }
  });

  it('calls one function per batch and range, which the clear interpreter runs as a sine', () => {
    const port = (name: string, elements: number): Port => ({
      name,
      shape: [elements, tiny.slots],
      factor: 1,
      slots: {
        period: tiny.slots,
        tokens: Int32Array.of(0),
        features: Int32Array.from({ length: elements * tiny.slots }, (_, at) => at),
      },
    });
    const before = mainModule(
      [ct([axis('i', 2), axis('j', 3)], tiny.bootstrapInputLevel)],
      (b, [x]) => {
        const fresh = (value: Value, rangeLog2: number): Value =>
          b.op('ct.bootstrap', [value], { rangeLog2 }, 'LayerNorm');
        const low = (value: Value): Value =>
          b.op('ct.adjust', [value], { level: tiny.bootstrapInputLevel }, 'LayerNorm');
        return x === undefined ? [] : [fresh(low(fresh(low(fresh(x, 1)), 1)), -2)];
      },
      { inputs: [port('x', 6)], outputs: [port('y', 6)] },
    );
    const module = expandBootstrap(before);
    expect(verifyModule(module)).toEqual([]);
    expect(module.functions.map((f) => f.name)).toEqual(['bootstrap_6_r1', 'bootstrap_6_rm2', 'main']);
    const x = randomValues(3, 6 * tiny.slots).map((v) => v / 4);
    const [wanted, found] = [before, module].map((m) => runCipher(m, { x }).y as Float64Array);
    expect(distance(found as Float64Array, wanted as Float64Array)).toBe(0);
    expect(distance(found as Float64Array, x)).toBeLessThan(1e-5);
  });

  it('verifies at every ring and counts its operations', () => {
    for (const ring of ['tiny', 'small', 'secure'] as const) {
      const parameters = makeParameters(defaultLiteral(ring, ring !== 'secure'));
      const before = mainModule(
        [ct([axis('j', 5)], parameters.bootstrapInputLevel)],
        (b, [x]) => (x === undefined ? [] : [b.op('ct.bootstrap', [x], { rangeLog2: 3 }, 'x')]),
        { parameters },
      );
      const module = expandBootstrap(before);
      expect(faults(module).filter((d) => d.code !== 'V115')).toEqual([]);
      const counts: Record<string, number> = {};
      walkOps((module.functions[0] as Func).body, (op) => {
        const steps = Array.isArray(op.attrs.steps) ? op.attrs.steps.filter((step) => step !== 0).length : 1;
        counts[op.kind] = (counts[op.kind] ?? 0) + steps;
      });
      expect(counts['ct.relinearize']).toBe(9 + 3);
      expect(counts['ct.mod_raise']).toBe(1);
    }
  });
});
