import { describe, expect, it } from 'vitest';
import { readPlan } from '../../src/backend/index.js';
import type { Command } from '../../src/backend/plan-view.js';
import {
  denseLayout,
  indexLayout,
  isDense,
  reshapedLayout,
  windowLayout,
  type Storage,
} from '../../src/backend/layout.js';
import { opDef } from '../../src/ir/ops/table.js';
import type { Attrs } from '../../src/ir/module.js';
import type { PolyType, Type } from '../../src/ir/types.js';
import { axis, buildModule, ct, lower, toyParameters, type Source } from './oracle.js';

const commandsOf = (source: Source): readonly Command[] =>
  readPlan(lower(buildModule(source)).plan).programs[0]!.functions.at(-1)!.commands;
const opsOf = (commands: readonly Command[]): string[] => commands.map((command) => command.op);

describe('memory of commands', () => {
  it('accumulates in a loop without copies', () => {
    const [zero, loop, ...rest] = commandsOf({
      inputs: [ct([axis('g', 4)], 1)],
      body: (b, [x]) =>
        b.loop(4, [b.op('ct.zero', [], { axes: [], level: 1 }, '')], '', (inner, [sum]) => [
          inner.op(
            'ct.add',
            [sum!, inner.op('ct.index', [x!], { axis: 'g', index: 0, loopStride: 1 }, '')],
            {},
            '',
          ),
        ]),
    });
    expect(zero?.op).toBe('zero');
    expect(opsOf(loop?.body ?? [])).toEqual(['add']);
    expect(loop?.body[0]).toMatchObject({
      out: { buffer: 1 },
      a: { buffer: 1 },
      b: { buffer: 0, loopStrides: [4] },
    });
    expect(rest).toEqual([]);
  });

  it('copies the initial value of a loop that is needed later, and results that are arguments', () => {
    const commands = commandsOf({
      inputs: [ct([], 1)],
      body: (b, [x]) => {
        const [sum] = b.loop(2, [x!], '', (inner, [a]) => [inner.op('ct.add', [a!, x!], {}, '')]);
        return [sum!, x!];
      },
    });
    expect(opsOf(commands)).toEqual(['copy', 'loop', 'copy']);
  });

  it('merges axes that are one dimension in memory', () => {
    const [add] = commandsOf({
      inputs: [ct([axis('a', 2), axis('b', 3)], 1), ct([axis('a', 2), axis('b', 3)], 1)],
      body: (b, [x, y]) => [b.op('ct.add', [x!, y!], {}, '')],
    });
    expect(add).toMatchObject({ dims: [12], out: { strides: [2] }, limbs: [0, 1] });
  });

  it('never writes over an input', () => {
    const [first] = commandsOf({ inputs: [ct([], 1)], body: (b, [x]) => [b.op('ct.add', [x!, x!], {}, '')] });
    expect(first).toMatchObject({ out: { buffer: 1 }, a: { buffer: 0 }, b: { buffer: 0 } });
  });
});

describe('layouts', () => {
  const type: PolyType = {
    kind: 'poly',
    axes: [axis('a', 2), axis('b', 6), axis('component', 2)],
    limbs: [0, 1, 2],
    form: 'ntt',
    sharding: [],
  };
  const storage: Storage = { id: 0, rows: 72, kind: 'local', depth: 0, first: 0, last: 0 };
  const whole = denseLayout(storage, type);

  it('index, window and limbs move the offset', () => {
    expect(indexLayout(whole, 'a', 1, 0, 0)).toMatchObject({ offset: 36, strides: [6, 3] });
    expect(indexLayout(whole, 'b', 2, -1, 2)).toMatchObject({ offset: 12, loopStrides: [0, -6] });
    const window = windowLayout(whole, { axes: { b: [2, 3] }, limbs: [1, 2] });
    expect(window).toMatchObject({ offset: 13, limbs: [1, 2], limbStride: 1 });
    expect(isDense(window)).toBe(false);
    expect(windowLayout(whole, { limbs: [2, 0] })).toMatchObject({ offset: 2, limbStride: -2 });
  });

  it('reshapes where strides allow it', () => {
    const split = [axis('a', 2), axis('c', 2), axis('d', 3), axis('component', 2)];
    expect(reshapedLayout(whole, split)?.strides).toEqual([36, 18, 6, 3]);
    const sliced = windowLayout(whole, { axes: { b: [0, 4] } });
    expect(
      reshapedLayout(sliced, [axis('a', 2), axis('c', 2), axis('d', 2), axis('component', 2)])?.strides,
    ).toEqual([36, 12, 6, 3]);
    expect(reshapedLayout(sliced, [axis('f', 8), axis('component', 2)])).toBeUndefined();
    expect(reshapedLayout(whole, [axis('x', 1), axis('f', 24), axis('y', 1)])?.strides).toEqual([0, 3, 0]);
  });
});

describe('poly ops refuse', () => {
  const poly = (
    axes: PolyType['axes'],
    limbs: readonly number[],
    form: PolyType['form'] = 'ntt',
  ): PolyType => ({ kind: 'poly', axes, limbs, form, sharding: [] });
  const infer = (kind: string, operands: readonly Type[], attrs: Attrs = {}) =>
    opDef(kind).infer(operands, attrs, { parameters: toyParameters });
  const a = poly([axis('j', 2)], [0, 1]);

  it.each<[string, readonly Type[], Attrs, RegExp]>([
    ['poly.add', [a, poly([axis('j', 3)], [0, 1])], {}, /axis j has sizes 2 and 3/],
    ['poly.add', [a, poly([], [0])], {}, /limbs \[0,1\] and \[0\]/],
    ['poly.add', [a, poly([], [0, 1], 'coeff')], {}, /forms ntt and coeff/],
    ['poly.ntt', [a], {}, /must be in coeff form/],
    ['poly.copy', [a], { over: ['k'] }, /no axis k/],
    ['poly.copy', [a], { over: [], accumulate: true }, /need the operand into/],
    ['poly.copy', [a, a], { over: [], window: { axes: { j: [1, 2] } } }, /window 1\+2 leaves axis j/],
    ['poly.copy', [a, a], { over: [], window: { limbs: [0] } }, /window has limbs \[0\]/],
    ['poly.copy', [a, poly([axis('j', 2)], [0, 1], 'coeff')], { over: [] }, /into has form coeff/],
    ['poly.sub_scale', [a, a], { scalars: [1] }, /1 scalars for 2 limbs/],
    ['poly.tensor', [a, a], { over: [] }, /two components/],
    [
      'poly.key_product',
      [a],
      { key: 'galois', class: 'none', galois: [5], over: [] },
      /unknown key class none/,
    ],
    [
      'poly.key_product',
      [a],
      { key: 'galois', class: 'stc', galois: [5], over: [] },
      /do not fit key class stc/,
    ],
    [
      'poly.key_product',
      [poly([axis('digit', 2)], [0, 1, 8, 9])],
      { key: 'galois', class: 'stc', galois: [5], over: [] },
      /key class stc has 1 digits at level 1, not 2/,
    ],
    [
      'poly.automorphism',
      [a],
      { galois: [5, 25, 61], axis: 'j', over: [] },
      /3 galois entries for 2 indices/,
    ],
    ['poly.index', [a], { axis: 'j', index: 2 }, /no index 2/],
    ['poly.limbs', [a], { limbs: [7] }, /limb 7/],
    ['poly.reshape', [a], { axes: [axis('x', 3)] as never }, /2 elements do not fill 3/],
    ['poly.residues', [], { limbs: [0, 1], residues: [1] }, /one residue per limb/],
  ])('%s %#', (kind, operands, attrs, message) => expect(infer(kind, operands, attrs)).toMatch(message));
});
