import { describe, expect, it } from 'vitest';
import { readPlan, verifySchedule } from '../../src/backend/index.js';
import type { Command, PlanFunction, PlanView, View } from '../../src/backend/plan-view.js';
import { axis, buildModule, ct, lower } from './oracle.js';

/** Everything the verifier looks at: a call, a loop with moving views, key products, in-place commands. */
function samplePlan(): PlanView {
  const module = buildModule({
    inputs: [ct([axis('g', 4)], 3)],
    functions: [
      {
        name: 'turn',
        args: [ct([axis('h', 2)], 3)],
        body: (b, [a]) => [b.op('ct.rotate_each', [a!], { axis: 'h', steps: [1, 2], sum: false }, 'turn')],
      },
    ],
    body: (b, [x]) => {
      const type = ct([axis('h', 2)], 3);
      const zero = b.op('ct.zero', [], { axes: [axis('h', 2)] as never, level: 3 }, '');
      const [sum] = b.loop(4, [zero], 'loop', (inner, [acc]) => {
        const one = inner.op('ct.index', [x!], { axis: 'g', index: 0, loopStride: 1 }, '');
        const wide = inner.op('ct.reshape', [one], { axes: [axis('h', 1)] as never }, '');
        const [turned] = inner.call(
          'turn',
          [inner.op('ct.concat', [wide, wide], { axis: 'h' }, '')],
          [type],
          '',
        );
        return [inner.op('ct.add', [acc!, turned!], {}, '')];
      });
      return [
        b.op(
          'ct.rescale',
          [b.op('ct.add_plain', [sum!, b.op('pt.constant', [], { axes: [], values: [1] }, '')], {}, '')],
          {},
          '',
        ),
      ];
    },
  });
  return readPlan(lower(module).plan);
}

type Edit<T> = (value: T) => Partial<T>;

/** A plan with one function edited. */
function withFunction(plan: PlanView, name: string, edit: Edit<PlanFunction>): PlanView {
  const program = plan.programs[0]!;
  const functions = program.functions.map((func) => (func.name === name ? { ...func, ...edit(func) } : func));
  return { ...plan, programs: [{ ...program, functions }] };
}

/** Edits the first command, at any depth, that `pick` accepts. */
function withCommand(
  plan: PlanView,
  name: string,
  pick: (c: Command) => boolean,
  edit: Edit<Command>,
): PlanView {
  let done = false;
  const visit = (command: Command): Command => {
    if (done) return command;
    if (pick(command)) {
      done = true;
      return { ...command, ...edit(command) };
    }
    return { ...command, body: command.body.map(visit) };
  };
  const result = withFunction(plan, name, (func) => ({ commands: func.commands.map(visit) }));
  expect(done).toBe(true);
  return result;
}

const is =
  (op: Command['op']) =>
  (command: Command): boolean =>
    command.op === op;
const moved = (view: View | null, offset: number): View => ({ ...view!, offset: view!.offset + offset });

describe('verifySchedule', () => {
  const plan = samplePlan();

  it('accepts what the backend writes', () => expect(verifySchedule(plan)).toEqual([]));

  it('finds a read of what nothing has written', () => {
    const broken = withFunction(plan, 'turn', (func) => ({ commands: func.commands.slice(1) }));
    expect(verifySchedule(broken)[0]).toMatch(
      /operand a reads row 0 of buffer \d+, which nothing has written/,
    );
  });

  it('finds live buffers that overlap', () => {
    const broken = withFunction(plan, 'turn', (func) => ({
      buffers: func.buffers.map((buffer) => (buffer.argument ? buffer : { ...buffer, offset: 0 })),
    }));
    expect(verifySchedule(broken).join('\n')).toMatch(/which buffer \d+ has overwritten|overlaps an input/);
  });

  it('finds a value that the next iteration needs and the body overwrites', () => {
    const main = plan.programs[0]!.functions.at(-1)!;
    const sum = main.commands.find(is('loop'))!.body.find(is('add'))!.out!.buffer;
    const frameOffset = main.buffers[sum]!.offset;
    const broken = withFunction(
      withCommand(plan, 'main', is('call'), () => ({ frameOffset })),
      'main',
      () => ({ frameRows: main.frameRows + 200 }),
    );
    expect(verifySchedule(broken).join('\n')).toMatch(/which a callee may have overwritten/);
  });

  it('finds views that leave their buffers, in the last iteration too', () => {
    const wide = withCommand(plan, 'turn', is('intt'), (c) => ({ a: moved(c.a, 1000) }));
    expect(verifySchedule(wide)[0]).toMatch(/operand a leaves buffer 0/);
    const late = withCommand(plan, 'main', is('loop'), (c) => ({ tripCount: c.tripCount + 1 }));
    expect(verifySchedule(late).join('\n')).toMatch(/operand a leaves buffer 0/);
  });

  it('finds outputs on top of inputs, except where kernels allow it', () => {
    const inPlace = withCommand(plan, 'turn', is('base_convert'), (c) => ({
      out: { ...c.a!, limbStride: 1 },
    }));
    expect(verifySchedule(inPlace).join('\n')).toMatch(/overlaps an input/);
    const shifted = withCommand(plan, 'turn', is('ntt_sub_scale'), (c) => ({ out: moved(c.b, -1) }));
    expect(verifySchedule(shifted)).not.toEqual([]);
    const minuend = withCommand(plan, 'turn', is('ntt_sub_scale'), (c) => ({ out: c.a }));
    expect(verifySchedule(minuend).join('\n')).toMatch(/overlaps an input/);
  });

  it('finds outputs that are written twice or not in full', () => {
    const twice = withCommand(plan, 'turn', is('key_product'), (c) => ({
      out: { ...c.out!, componentStride: 0 },
    }));
    expect(verifySchedule(twice).join('\n')).toMatch(/twice/);
    const partly = withFunction(plan, 'main', (func) => ({ commands: func.commands.slice(0, -3) }));
    expect(verifySchedule(partly).join('\n')).toMatch(/output 0 is not written in full/);
  });

  it('finds wrong shapes, keys, plaintexts and calls', () => {
    const cases: [PlanView, RegExp][] = [
      [withCommand(plan, 'turn', is('ntt'), () => ({ dims: [1, 1, 1, 1, 1, 1, 1] })), /7 batch dimensions/],
      [withCommand(plan, 'turn', is('ntt'), () => ({ accumulate: true })), /neither sums nor accumulates/],
      [withCommand(plan, 'turn', is('ntt'), () => ({ limbs: [99] })), /limbs \[99\]/],
      [withCommand(plan, 'turn', is('key_product'), () => ({ keys: [0] })), /1 keys or rotations, not 2/],
      [withCommand(plan, 'turn', is('key_product'), () => ({ keys: [0, 77] })), /a key that is none of 2/],
      [withCommand(plan, 'turn', is('automorphism'), () => ({ galois: [] })), /0 keys or rotations/],
      [withCommand(plan, 'turn', is('contract'), (c) => ({ plain: moved(c.plain, 1) })), /operand plain/],
      [withCommand(plan, 'turn', is('ntt_sub_scale'), () => ({ scalars: [] })), /not one scalar/],
      [withCommand(plan, 'main', is('call'), () => ({ callee: 1 })), /not an earlier one/],
      [withCommand(plan, 'main', is('call'), () => ({ bindings: [] })), /binds 0 arguments/],
      [withCommand(plan, 'main', is('call'), () => ({ frameOffset: 1e6 })), /callee frame leaves/],
      [withCommand(plan, 'main', is('loop'), () => ({ tripCount: 0 })), /without iterations/],
      [withFunction(plan, 'turn', () => ({ frameRows: 8 })), /outside of the frame/],
    ];
    for (const [broken, message] of cases) expect(verifySchedule(broken).join('\n')).toMatch(message);
  });
});
