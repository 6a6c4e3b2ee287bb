import { describe, expect, it } from 'vitest';
import { cipherHandlers } from '../../src/ir/interpreter/cipher-ops.js';
import { runCipherFunction, type CipherValue } from '../../src/ir/interpreter/cipher.js';
import { materialise } from '../../src/ir/interpreter/plain.js';
import { packInput, unpackOutput } from '../../src/ir/interpreter/ports.js';
import { BlockBuilder, Ids } from '../../src/ir/builder.js';
import type { Attrs, Module, Port, Value } from '../../src/ir/module.js';
import { opTable } from '../../src/ir/ops/table.js';
import type { CtType } from '../../src/ir/types.js';
import { defined } from '../../src/support/invariant.js';
import { axis, cipherModule, ct, mainModule, micro, randomValues } from './build.js';

const slots = 16;

function value(type: CtType, seed: number, complex = false): CipherValue {
  const count = type.axes.reduce((product, a) => product * a.size, 1);
  const part = (first: number): Float64Array[] =>
    Array.from({ length: count }, (_, e) => randomValues(first + e, slots));
  return { kind: 'ct', axes: type.axes, re: part(seed), im: complex ? part(seed + 100) : null };
}

/** Result of one op on values of the given types. */
function run(
  kind: string,
  values: readonly CipherValue[],
  attrs: Attrs = {},
  levels: number | null = 9,
): CipherValue {
  const types = values.map((v) => ct(v.axes, levels));
  const module = mainModule(types, (b, args) => [b.op(kind, args, attrs, '')], { parameters: micro });
  const [result] = runCipherFunction(module, defined(module.functions[0], 'main'), values);
  if (result?.kind !== 'ct') throw new Error('no ciphertext result');
  return result;
}

const j3 = ct([axis('j', 3)]);
const j3b2 = ct([axis('j', 3), axis('b', 2)]);
const at = (v: CipherValue, element: number, slot: number): [number, number] => [
  v.re[element]?.[slot] as number,
  v.im?.[element]?.[slot] ?? 0,
];

function expectSlots(
  v: CipherValue,
  count: number,
  wanted: (element: number, slot: number) => [number, number],
): void {
  expect(v.re).toHaveLength(count);
  for (let e = 0; e < count; e++) {
    for (let s = 0; s < slots; s++) {
      const [[re, im], [wantedRe, wantedIm]] = [at(v, e, s), wanted(e, s)];
      expect(Math.abs(re - wantedRe) + Math.abs(im - wantedIm)).toBeLessThan(1e-12);
    }
  }
}

const times = ([a, b]: [number, number], [c, d]: [number, number]): [number, number] => [
  a * c - b * d,
  a * d + b * c,
];
const plus = ([a, b]: [number, number], [c, d]: [number, number]): [number, number] => [a + c, b + d];

it('interprets every ciphertext op of the table', () => {
  const ops = [...opTable.values()].filter((def) => def.phase === 'cipher' && def.name.startsWith('ct.'));
  expect(ops.map((def) => def.name).filter((name) => cipherHandlers[name] === undefined)).toEqual([]);
});

describe.each([false, true])('ciphertext ops, complex %s', (complex) => {
  const a = value(j3, 1, complex);
  const b = value(j3b2, 50, complex);
  it('adds and subtracts by axis name', () => {
    expectSlots(run('ct.add', [a, b]), 6, (e, s) => plus(at(a, e >> 1, s), at(b, e, s)));
    expectSlots(run('ct.sub', [b, a]), 6, (e, s) => plus(at(b, e, s), times([-1, 0], at(a, e >> 1, s))));
    expectSlots(run('ct.sub', [value(j3, 1, !complex), a]), 3, (e, s) =>
      plus(at(value(j3, 1, !complex), e, s), times([-1, 0], at(a, e, s))),
    );
  });

  it('multiplies and sums over axes', () => {
    expectSlots(run('ct.mul', [a, b], { over: [] }), 6, (e, s) => times(at(a, e >> 1, s), at(b, e, s)));
    expectSlots(run('ct.mul', [a, b], { over: ['j'] }), 2, (e, s) =>
      [0, 1, 2].map((j) => times(at(a, j, s), at(b, 2 * j + e, s))).reduce(plus),
    );
    expectSlots(run('ct.sum', [b], { axis: 'j' }), 2, (e, s) =>
      [0, 1, 2].map((j) => at(b, 2 * j + e, s)).reduce(plus),
    );
  });

  it('rotates to the left, around all slots', () => {
    const rotated = run('ct.rotate', [a], { axis: 'r', steps: [0, 5, -3] });
    expect(rotated.axes.map((x) => x.name)).toEqual(['j', 'r']);
    expectSlots(rotated, 9, (e, s) => at(a, Math.floor(e / 3), (s + [0, 5, 13][e % 3]!) % slots));
    const each = run('ct.rotate_each', [b], { axis: 'j', steps: [1, -1, 20], sum: false });
    expectSlots(each, 6, (e, s) => at(b, e, (s + [1, 15, 4][e >> 1]!) % slots));
    const summed = run('ct.rotate_each', [b], { axis: 'b', steps: [1, 2], sum: true });
    expectSlots(summed, 3, (e, s) => plus(at(b, 2 * e, (s + 1) % slots), at(b, 2 * e + 1, (s + 2) % slots)));
  });

  it('selects, joins and renames', () => {
    expectSlots(run('ct.index', [b], { axis: 'j', index: 1 }), 2, (e, s) => at(b, 2 + e, s));
    expectSlots(run('ct.slice', [b], { axis: 'j', start: 1, size: 2 }), 4, (e, s) => at(b, 2 + e, s));
    const joined = run('ct.concat', [b, run('ct.slice', [b], { axis: 'b', start: 1, size: 1 })], {
      axis: 'b',
    });
    expectSlots(joined, 9, (e, s) => at(b, 2 * Math.floor(e / 3) + [0, 1, 1][e % 3]!, s));
    const other = run('ct.reshape', [b], { axes: [{ name: 'x', size: 6 }] });
    expect(other.axes).toEqual([axis('x', 6)]);
    expectSlots(other, 6, (e, s) => at(b, e, s));
  });

  it('evaluates Chebyshev series', () => {
    const result = run('ct.polynomial', [a], { coefficients: [0.5, -1, 0.25, 2] });
    expectSlots(result, 3, (e, s) => {
      const x = at(a, e, s);
      const square = times(x, x);
      const t2 = plus(times([2, 0], square), [-1, 0]);
      const t3 = plus(times([4, 0], times(square, x)), times([-3, 0], x));
      return [times([0.5, 0], [1, 0]), times([-1, 0], x), times([0.25, 0], t2), times([2, 0], t3)].reduce(
        plus,
      );
    });
    expectSlots(run('ct.polynomial', [a], { coefficients: [0.5] }), 3, () => [0.5, 0]);
  });

  it('conjugates, turns by i and changes the unit', () => {
    expectSlots(run('ct.conjugate', [a]), 3, (e, s) => [at(a, e, s)[0], -at(a, e, s)[1]]);
    expectSlots(run('ct.mul_i', [a]), 3, (e, s) => times([0, 1], at(a, e, s)));
    expectSlots(run('ct.reinterpret', [a], { scale: 'D9*2^-3', factor: 8 }), 3, (e, s) =>
      times([8, 0], at(a, e, s)),
    );
  });

  it('leaves values as they are where only moduli change', () => {
    for (const [kind, attrs] of [
      ['ct.rescale', {}],
      ['ct.adjust', { level: 3 }],
      ['ct.switch_secret', { to: 'dense' }],
    ] as const) {
      expectSlots(run(kind, [a], attrs), 3, (e, s) => at(a, e, s));
    }
    expectSlots(run('ct.mod_raise', [a], {}, 0), 3, (e, s) => at(a, e, s));
  });

  it('bootstraps with the error of the sine', () => {
    const ratio = Number(micro.primes[0]) / (micro.scales[0] as number);
    const gain = 1 + ((2 * Math.PI) / ratio) ** 2 / 8;
    const sine = (x: number): number =>
      gain * ((4 * ratio) / (2 * Math.PI)) * Math.sin((2 * Math.PI * x) / (4 * ratio));
    expect(ratio).toBeGreaterThan(1000);
    const result = run('ct.bootstrap', [a], { rangeLog2: 2 }, micro.bootstrapInputLevel);
    expectSlots(result, 3, (e, s) => [sine(at(a, e, s)[0]), sine(at(a, e, s)[1])]);
    expect(at(result, 0, 0)).not.toEqual(at(a, 0, 0));
  });

  it('contracts with plaintexts of every period', () => {
    for (const period of [1, 2, 4, 16]) {
      const features = Int32Array.from({ length: 6 * period }, (_, i) => (i % 5 === 3 ? -1 : i));
      const weights = randomValues(9, 6 * period);
      const module: Module = {
        ...mainModule(
          [j3b2],
          (block, [x]) => {
            const p = block.op(
              'pt.vector',
              [],
              {
                axes: [{ ...axis('b', 2) }, { ...axis('j', 3) }],
                period,
                constant: 'c',
                features: 'f',
                factor: 2,
              },
              '',
            );
            const c = block.op('ct.contract', [x as Value, p], { over: ['j'] }, '');
            return [c, block.op('ct.add_plain', [x as Value, p], {}, '')];
          },
          { parameters: micro },
        ),
        constants: new Map([['c', { shape: [6 * period], data: weights }]]),
        tables: new Map([['f', features]]),
      };
      const results = runCipherFunction(module, defined(module.functions[0], 'main'), [b]) as CipherValue[];
      const weight = (j: number, k: number, s: number): [number, number] => {
        const i = (k * 3 + j) * period + (s % period);
        return [i % 5 === 3 ? 0 : 2 * (weights[i] as number), 0];
      };
      expectSlots(results[0] as CipherValue, 2, (k, s) =>
        [0, 1, 2].map((j) => times(at(b, 2 * j + k, s), weight(j, k, s))).reduce(plus),
      );
      expectSlots(results[1] as CipherValue, 6, (e, s) => plus(at(b, e, s), weight(e >> 1, e & 1, s)));
    }
  });
});

it('a modelled function is not executed', () => {
  const ids = new Ids();
  const body = new BlockBuilder(ids, micro, [ct([])]);
  const wrong = body.op('ct.add', [body.args[0] as Value, body.args[0] as Value], {}, '');
  const models = { kind: 'bootstrap', rangeLog2: 0 } as const;
  const main = new BlockBuilder(ids, micro, [ct([])]);
  const results = main.call('refresh', main.args, [ct([])], 'node');
  const module = cipherModule({
    parameters: micro,
    functions: [
      { name: 'refresh', body: body.finish([wrong]), models },
      { name: 'main', body: main.finish(results) },
    ],
  });
  const x = value(ct([]), 3);
  const seen: string[] = [];
  const [y] = runCipherFunction(module, defined(module.functions[1], 'main'), [x], {
    observe: (op) => seen.push(op.kind),
  }) as CipherValue[];
  expect(seen).toEqual(['call']);
  const difference = (y?.re[0] as Float64Array).map((v, s) => Math.abs(v - (x.re[0]?.[s] as number)));
  expect(Math.max(...difference)).toBeLessThan(1e-5);
  expect(Math.max(...difference)).toBeGreaterThan(0);
});

it('plaintext vectors with tokens fill all slots', () => {
  const block = new BlockBuilder(new Ids(), micro);
  block.op(
    'pt.vector',
    [],
    { axes: [], period: 4, constant: 'c', features: 'f', tokens: 't', factor: 1 },
    '',
  );
  const op = defined(block.finish([]).ops[0], 'op');
  const made = materialise(op, {
    parameters: micro,
    constants: new Map([['c', { shape: [2, 3], data: Float64Array.of(1, 2, 3, 4, 5, 6) }]]),
    tables: new Map([
      ['f', Int32Array.of(2, 1, -1, 0)],
      ['t', Int32Array.of(0, 3, -1, 0)],
    ]),
  });
  expect([...made.re(0)]).toEqual([3, 2, 0, 1, 6, 5, 0, 4, 0, 0, 0, 0, 3, 2, 0, 1]);
  expect(made.re(0)).toBe(made.re(0));
});

it('ports pack and unpack by their slot map and factor', () => {
  const port: Port = {
    name: 'x',
    shape: [2, 3],
    factor: 4,
    slots: {
      period: 4,
      features: Int32Array.of(0, 1, 0, -1, 2, -1, -1, -1),
      tokens: Int32Array.of(0, 3, -1, 0),
    },
  };
  const elements = packInput(port, Float64Array.of(4, 8, 12, 16, 20, 24));
  expect(elements.map((e) => [...e])).toEqual([
    [1, 2, 1, 0, 4, 5, 4, 0, 0, 0, 0, 0, 1, 2, 1, 0],
    [3, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0],
  ]);
  expect([...unpackOutput(port, elements)]).toEqual([4, 8, 12, 16, 20, 24]);
});
