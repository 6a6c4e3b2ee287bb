import { describe, expect, it } from 'vitest';
import type { Value } from '../../src/ir/module.js';
import { canonicalScale, mulScale, primeScale, printScale, divScale } from '../../src/ir/scale.js';
import {
  axis,
  ct,
  distance,
  plus,
  rotated,
  runOracle,
  scaled,
  slotCount,
  times,
  toyParameters,
} from './oracle.js';
import { centre } from './toy-ckks.js';

/** Noise at scale 2^40 and N = 32 stays far below this; a wrong rule gives errors of order 1 or 2^40. */
const tolerance = 2 ** -20;
const close = (error: number): void => expect(error).toBeLessThan(tolerance);
const printed = (level: number): string => printScale(canonicalScale(level));

describe('lowered plans decrypt to the right slots', () => {
  it('adds and subtracts with broadcast axes', () => {
    const {
      inputs: [x, y],
      outputs: [sum, difference],
    } = runOracle({
      inputs: [ct([axis('j', 2)], 2), ct([axis('j', 2), axis('k', 3)], 2)],
      body: (b, [p, q]) => [b.op('ct.add', [p!, q!], {}, 'n'), b.op('ct.sub', [p!, q!], {}, 'n')],
    });
    for (let j = 0; j < 2; j++) {
      for (let k = 0; k < 3; k++) {
        close(distance(sum![j * 3 + k]!, plus(x![j]!, y![j * 3 + k]!)));
        close(distance(difference![j * 3 + k]!, plus(x![j]!, scaled(y![j * 3 + k]!, -1))));
      }
    }
  });

  it.each([5, 4, 2, 1])('multiplies, relinearizes and rescales at level %i', (level) => {
    const {
      inputs: [x, y],
      outputs: [z],
      plan,
    } = runOracle({
      inputs: [ct([axis('j', 3)], level), ct([axis('j', 3), axis('k', 2)], level)],
      body: (b, [p, q]) => {
        const product = b.op('ct.mul', [p!, q!], { over: ['j'] }, 'mul');
        return [b.op('ct.rescale', [b.op('ct.relinearize', [product], {}, 'mul')], {}, 'mul')];
      },
    });
    expect(plan.outputs[0]!.scale).toBeCloseTo(toyParameters.scales[level - 1]!, -20);
    for (let k = 0; k < 2; k++)
      close(distance(z![k]!, plus(...[0, 1, 2].map((j) => times(x![j]!, y![j * 2 + k]!)))));
  });

  it('adds arrays of two and of three components', () => {
    const {
      inputs: [x],
      outputs: [z, w],
    } = runOracle({
      inputs: [ct([], 3, canonicalScale(3))],
      body: (b, [p]) => {
        const square = b.op('ct.mul', [p!, p!], { over: [] }, '');
        const one = b.op('pt.constant', [], { axes: [], values: [1] }, '');
        const same = b.op('ct.contract', [p!, one], { over: [], scale: printed(3) }, '');
        const finish = (v: Value) => b.op('ct.rescale', [b.op('ct.relinearize', [v], {}, '')], {}, '');
        return [
          finish(b.op('ct.add', [same, square], {}, '')),
          finish(b.op('ct.sub', [same, square], {}, '')),
        ];
      },
    });
    close(distance(z![0]!, plus(x![0]!, times(x![0]!, x![0]!))));
    close(distance(w![0]!, plus(x![0]!, scaled(times(x![0]!, x![0]!), -1))));
  });

  it.each([[[0, 1, 5, -3]], [[2, 7]], [[3, 0, 0, 4, 16]], [[0]]])('rotates by %j from one ModUp', (steps) => {
    const {
      inputs: [x],
      outputs: [z],
    } = runOracle({
      inputs: [ct([axis('j', 2)], 4)],
      body: (b, [p]) => [b.op('ct.rotate', [p!], { axis: 'r', steps }, 'rot')],
    });
    steps.forEach((step, i) =>
      [0, 1].forEach((j) => close(distance(z![j * steps.length + i]!, rotated(x![j]!, step)))),
    );
  });

  it.each([[[0, 1, 2]], [[-2, 0, 6]], [[1]]])(
    'sums lazy rotations by %j against plaintexts before one ModDown',
    (steps) => {
      const period = 4;
      const data = Float64Array.from({ length: steps.length * period }, (_, i) => (i % 7) / 3 - 1);
      const {
        inputs: [x],
        outputs: [z],
      } = runOracle({
        inputs: [ct([axis('j', 2)], 3)],
        constants: { w: { shape: [data.length], data } },
        tables: { f: Int32Array.from(data.keys()) },
        body: (b, [p]) => {
          const turned = b.op('ct.rotate', [p!], { axis: 'r', steps, lazy: 'compute' }, 'lin');
          const plain = b.op(
            'pt.vector',
            [],
            { axes: [{ name: 'r', size: steps.length }], period, constant: 'w', features: 'f', factor: 0.5 },
            'lin',
          );
          const sum = b.op('ct.contract', [turned, plain], { over: ['r'], scale: printed(3) }, 'lin');
          return [b.op('ct.rescale', [b.op('ct.mod_down', [sum], {}, 'lin')], {}, 'lin')];
        },
      });
      [0, 1].forEach((j) =>
        close(
          distance(
            z![j]!,
            plus(
              ...steps.map((step, r) =>
                rotated(x![j]!, step).map((v, s) => {
                  const w = 0.5 * data[r * period + (s % period)]!;
                  return { re: v.re * w, im: v.im * w };
                }),
              ),
            ),
          ),
        ),
      );
    },
  );

  it.each([[[1, 2, 3]], [[0, 5, -1]], [[4, 0, 2]], [[0, 16, 0]]])(
    'rotates each element by %j, apart and summed',
    (steps) => {
      const {
        inputs: [x],
        outputs: [apart, sum],
      } = runOracle({
        inputs: [ct([axis('i', 2), axis('g', 3)], 2)],
        body: (b, [p]) => [
          b.op('ct.rotate_each', [p!], { axis: 'g', steps, sum: false }, 'rot'),
          b.op('ct.rotate_each', [p!], { axis: 'g', steps, sum: true }, 'rot'),
        ],
      });
      [0, 1].forEach((i) => {
        const expected = steps.map((step, g) => rotated(x![i * 3 + g]!, step));
        expected.forEach((slots, g) => close(distance(apart![i * 3 + g]!, slots)));
        close(distance(sum![i]!, plus(...expected)));
      });
    },
  );

  it('loops over offsets: index and rotations move with the iteration, sums are carried', () => {
    const trips = 4;
    const {
      inputs: [x],
      outputs: [z],
    } = runOracle({
      inputs: [ct([axis('g', 2 * trips), axis('k', 2)], 3)],
      body: (b, [p]) => {
        const zero = b.op('ct.zero', [], { axes: [{ name: 'k', size: 2 }], level: 3 }, '');
        return b.loop(trips, [zero], 'attention', (inner, [sum]) => {
          const parts = [0, 1].map((index) => {
            const one = inner.op('ct.index', [p!], { axis: 'g', index, loopStride: 2 }, '');
            return inner.op(
              'ct.reshape',
              [one],
              {
                axes: [
                  { name: 'h', size: 1 },
                  { name: 'k', size: 2 },
                ],
              },
              '',
            );
          });
          const both = inner.op('ct.concat', parts, { axis: 'h' }, '');
          const turned = inner.op(
            'ct.rotate_each',
            [both],
            { axis: 'h', steps: [0, 1], sum: true, loopStride: 2 },
            '',
          );
          return [inner.op('ct.add', [sum!, turned], {}, '')];
        });
      },
    });
    [0, 1].forEach((k) =>
      close(
        distance(z![k]!, plus(...Array.from({ length: 2 * trips }, (_, g) => rotated(x![g * 2 + k]!, g)))),
      ),
    );
  });

  it('keeps carried values apart that trade places', () => {
    const {
      inputs: [x, y],
      outputs: [p, q],
    } = runOracle({
      inputs: [ct([], 1), ct([], 1)],
      body: (b, [u, v]) =>
        b.loop(3, [u!, v!], '', (inner, [s, t]) => [t!, inner.op('ct.add', [s!, t!], {}, '')]),
    });
    // (s, t) -> (t, s + t), three times
    close(distance(p![0]!, plus(x![0]!, scaled(y![0]!, 2))));
    close(distance(q![0]!, plus(scaled(x![0]!, 2), scaled(y![0]!, 3))));
  });

  it('runs nested loops', () => {
    const {
      inputs: [x],
      outputs: [z],
    } = runOracle({
      inputs: [ct([axis('g', 3), axis('h', 2)], 1)],
      body: (b, [p]) =>
        b.loop(3, [b.op('ct.zero', [], { axes: [], level: 1 }, '')], '', (outer, [sum]) => {
          const row = outer.op('ct.index', [p!], { axis: 'g', index: 0, loopStride: 1 }, '');
          return outer.loop(2, [sum!], '', (inner, [acc]) => [
            inner.op(
              'ct.add',
              [acc!, inner.op('ct.index', [row], { axis: 'h', index: 1, loopStride: -1 }, '')],
              {},
              '',
            ),
          ]);
        }),
    });
    close(distance(z![0]!, plus(...x!)));
  });

  it('adjusts a level down and meets a value of that level', () => {
    const {
      inputs: [x, y],
      outputs: [z],
    } = runOracle({
      inputs: [ct([axis('j', 2)], 5), ct([axis('j', 2)], 1)],
      body: (b, [p, q]) => [b.op('ct.add', [b.op('ct.adjust', [p!], { level: 1 }, ''), q!], {}, '')],
    });
    [0, 1].forEach((j) => close(distance(z![j]!, plus(x![j]!, y![j]!))));
  });

  it('conjugates, multiplies by i, adds plaintexts', () => {
    const {
      inputs: [x],
      outputs: [z],
    } = runOracle({
      inputs: [ct([], 3)],
      body: (b, [p]) => {
        const turned = b.op('ct.mul_i', [b.op('ct.conjugate', [p!], {}, '')], {}, '');
        const constants = b.op(
          'pt.constant',
          [],
          { axes: [{ name: 'e', size: 3 }], values: [0.25, -1, 3] },
          '',
        );
        const one = b.op('pt.constant', [], { axes: [], values: [1] }, '');
        const broadcast = b.op('ct.add_plain', [turned, constants], {}, '');
        return [b.op('ct.add_plain', [broadcast, one], {}, '')];
      },
    });
    [0.25, -1, 3].forEach((constant, e) =>
      close(
        distance(
          z![e]!,
          x![0]!.map((v) => ({ re: v.im + constant + 1, im: v.re })),
        ),
      ),
    );
  });

  it('slices, indexes, joins, reshapes and sums arrays', () => {
    const {
      inputs: [x],
      outputs: [z, w],
    } = runOracle({
      inputs: [ct([axis('a', 2), axis('b', 6)], 2)],
      body: (b, [p]) => {
        const tail = b.op('ct.slice', [p!], { axis: 'b', start: 2, size: 4 }, '');
        const split = b.op(
          'ct.reshape',
          [tail],
          { axes: [axis('a', 2), axis('c', 2), axis('d', 2)] as never },
          '',
        );
        const flat = b.op('ct.reshape', [tail], { axes: [axis('f', 8)] as never }, '');
        const picked = b.op('ct.index', [split], { axis: 'c', index: 1 }, '');
        const joined = b.op(
          'ct.concat',
          [picked, b.op('ct.index', [split], { axis: 'c', index: 0 }, '')],
          { axis: 'd' },
          '',
        );
        return [
          b.op('ct.sum', [joined], { axis: 'a' }, ''),
          b.op('ct.slice', [flat], { axis: 'f', start: 3, size: 2 }, ''),
        ];
      },
    });
    [4, 5, 2, 3].forEach((from, d) => close(distance(z![d]!, plus(x![from]!, x![6 + from]!))));
    [5, 8].forEach((from, f) => close(distance(w![f]!, x![from]!)));
  });

  it('raises the modulus under the sparse secret and comes back', () => {
    const { maxLevel, primes } = toyParameters;
    const {
      inputs: [x],
      rows,
      runner,
      plan,
    } = runOracle({
      inputs: [ct([axis('j', 2)], 0)],
      body: (b, [p]) => {
        const sparse = b.op('ct.switch_secret', [p!], { to: 'sparse' }, '');
        return [
          sparse,
          b.op('ct.switch_secret', [b.op('ct.mod_raise', [sparse], {}, '')], { to: 'dense' }, ''),
        ];
      },
    });
    expect(plan.outputs.map((port) => port.level)).toEqual([0, maxLevel]);
    const { scale } = plan.inputs[0]!;
    [0, 1].forEach((j) => {
      const message = runner.scheme.ring.encode(x![j]!, scale);
      const low = runner.scheme.decrypt(rows(0, j), 'sparse');
      const raised = runner.scheme.decrypt(rows(1, j));
      for (const [i, value] of message.entries()) {
        expect(Math.abs(Number(centre(low[i]! - value, primes[0]!)))).toBeLessThan(2 ** 16);
        expect(Math.abs(Number(centre(raised[i]! - value, primes[0]!)))).toBeLessThan(2 ** 16);
      }
      // The multiples of q_0 that ModRaise adds are few, because the secret is sparse: |I| <= (h + 1) / 2 or
      // so.
      const largest = raised.reduce(
        (most, value) => (value > most ? value : -value > most ? -value : most),
        0n,
      );
      expect(Number(largest / primes[0]!)).toBeLessThan(6);
    });
  });

  it('calls functions, with plaintext arguments encoded as the callee uses them', () => {
    const {
      inputs: [x],
      outputs: [z],
      lowered,
    } = runOracle({
      inputs: [ct([axis('j', 2)], 4)],
      functions: [
        {
          name: 'layer',
          args: [ct([axis('j', 2)], 3), { kind: 'pt', axes: [axis('j', 2)], period: 1, complex: false }],
          models: { kind: 'bootstrap', rangeLog2: 0 },
          body: (b, [a, w]) => {
            const product = b.op(
              'ct.rescale',
              [b.op('ct.contract', [a!, w!], { over: [], scale: printed(3) }, '')],
              {},
              '',
            );
            const turned = b.op('ct.rotate_each', [product], { axis: 'j', steps: [1, 2], sum: false }, '');
            return [b.op('ct.add_plain', [turned, w!], {}, '')];
          },
        },
      ],
      body: (b, [p]) => {
        const low = b.op('ct.adjust', [p!], { level: 3 }, '');
        const weights = [
          [0.5, 2],
          [-1, 0.25],
        ].map((values) => b.op('pt.constant', [], { axes: [axis('j', 2)] as never, values }, ''));
        const type = ct([axis('j', 2)], 2);
        const [first] = b.call('layer', [low, weights[0]!], [type], 'l0');
        const [second] = b.call('layer', [low, weights[1]!], [type], 'l1');
        return [b.op('ct.add', [first!, second!], {}, '')];
      },
    });
    const layer = (values: readonly number[], j: number) =>
      rotated(scaled(x![j]!, values[j]!), j + 1).map((v) => ({ re: v.re + values[j]!, im: v.im }));
    [0, 1].forEach((j) => close(distance(z![j]!, plus(layer([0.5, 2], j), layer([-1, 0.25], j)))));
    expect(lowered.summary).toMatchObject({ bootstraps: 4, rotations: 4, ctMultiplications: 0 });
  });

  it('reinterprets a value at another scale without touching residues', () => {
    const scale = divScale(mulScale(canonicalScale(2), primeScale(1)), primeScale(2));
    const {
      inputs: [x],
      outputs: [z],
      plan,
    } = runOracle({
      inputs: [ct([], 2)],
      body: (b, [p]) => {
        const factor = Number(toyParameters.primes[2]!) / Number(toyParameters.primes[1]!);
        const doubled = b.op('ct.add', [p!, p!], {}, '');
        const other = b.op('ct.reinterpret', [doubled], { scale: printScale(scale), factor }, '');
        return [
          b.op('ct.add_plain', [other, b.op('pt.constant', [], { axes: [], values: [1] }, '')], {}, ''),
          doubled,
        ];
      },
    });
    const ratio = plan.inputs[0]!.scale / plan.outputs[0]!.scale;
    close(
      distance(
        z![0]!,
        x![0]!.map((v) => ({ re: 2 * v.re * ratio + 1, im: 2 * v.im * ratio })),
      ),
    );
  });

  it('unrolls launches of more than six dimensions', () => {
    const names = ['a', 'b', 'c', 'd', 'e', 'f', 'g'];
    const axes = names.map((name) => axis(name, 2));
    const odd = axes.filter((_, i) => i % 2 === 0);
    const {
      inputs: [x, y],
      outputs: [z],
    } = runOracle({
      inputs: [ct(axes, 0), ct(odd, 0)],
      body: (b, [p, q]) => [b.op('ct.add', [p!, q!], {}, '')],
    });
    for (let e = 0; e < 128; e++) {
      const bits = names.map((_, i) => (e >> (6 - i)) & 1);
      const o = bits.filter((_, i) => i % 2 === 0).reduce((sum, bit) => 2 * sum + bit, 0);
      close(distance(z![e]!, plus(x![e]!, y![o]!)));
    }
  });

  it('has as many slots as the toy ring', () => expect(slotCount).toBe(16));
});
