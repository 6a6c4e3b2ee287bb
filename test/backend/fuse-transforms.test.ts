import { describe, expect, it } from 'vitest';
import { fusibleTransforms } from '../../src/backend/fuse-transforms.js';
import { lowerKeyswitch, readPlan } from '../../src/backend/index.js';
import type { Func, Module, Op } from '../../src/ir/module.js';
import { axis, buildModule, ct, lower } from './oracle.js';

const rescaled = (): Module =>
  buildModule({ inputs: [ct([axis('g', 3)], 2)], body: (b, [x]) => [b.op('ct.rescale', [x!], {}, '')] });

const entryOf = (module: Module): Func => lowerKeyswitch(module).functions.at(-1)!;

function withOps(func: Func, edit: (ops: readonly Op[]) => readonly Op[]): Func {
  return { ...func, body: { ...func.body, ops: edit(func.body.ops) } };
}

const each =
  (kind: string, edit: (op: Op) => Op) =>
  (ops: readonly Op[]): readonly Op[] =>
    ops.map((op) => (op.kind === kind ? edit(op) : op));

describe('fused transforms', () => {
  it('make a rescale three commands, in the memory of what is converted', () => {
    const { commands } = readPlan(lower(rescaled()).plan).programs[0]!.functions[0]!;
    expect(commands.map(({ op }) => op)).toEqual(['intt', 'base_convert', 'ntt_sub_scale']);
    const [, converted, fused] = commands;
    expect(fused).toMatchObject({ dims: [6], limbs: [0, 1], a: { buffer: 0, strides: [3] } });
    expect(fused!.b).toEqual(fused!.out);
    expect(fused!.b!.buffer).toBe(converted!.out!.buffer);
    expect(fused!.scalars).toHaveLength(2);
  });

  it('are found where views stand between', () => {
    const func = entryOf(rescaled());
    expect(func.body.ops.map(({ kind }) => kind)).toEqual([
      'poly.limbs',
      'poly.intt',
      'poly.base_convert',
      'poly.ntt',
      'poly.limbs',
      'poly.sub_scale',
    ]);
    expect([...fusibleTransforms(func)].map(({ kind }) => kind)).toEqual(['poly.ntt']);
  });

  it('are not: what something else reads, minuends, what another command parts from its reader', () => {
    const func = entryOf(rescaled());
    const ntt = func.body.ops.find(({ kind }) => kind === 'poly.ntt')!;
    const returned = { ...func, body: { ...func.body, results: [...func.body.results, ntt.results[0]!] } };
    const swapped = withOps(
      func,
      each('poly.sub_scale', (op) => ({ ...op, operands: op.operands.toReversed() })),
    );
    const squared = withOps(
      func,
      each('poly.sub_scale', (op) => ({ ...op, operands: [op.operands[1]!, op.operands[1]!] })),
    );
    const apart = withOps(func, (ops) => ops.toSpliced(4, 0, { ...ops[1]!, results: [] }));
    const into = withOps(
      func,
      each('poly.sub_scale', (op) => ({ ...op, operands: [...op.operands, op.results[0]!] })),
    );
    for (const other of [returned, swapped, squared, apart, into]) {
      expect(fusibleTransforms(other).size).toBe(0);
    }
  });
});
