/** Correct plans of several ranks, broken in one place each: the verifier names what is wrong. */
import { describe, expect, it } from 'vitest';
import { verifySchedule } from '../../src/backend/index.js';
import type {
  CollectiveInfo,
  Command,
  PlanFunction,
  PlanProgram,
  PlanView,
} from '../../src/backend/plan-view.js';
import { peakBytes, rankMemory } from '../../src/backend/rank-memory.js';
import * as ranks from './ranks.js';
import {
  block,
  call,
  collect,
  func,
  info,
  loop,
  planParameters,
  port,
  rankPlan,
  rows,
  start,
  wait,
} from './ranks.js';

const plan = ranks.sample();

type Edit<T> = (value: T) => Partial<T>;
type Commands = readonly Command[];

function withProgram(rank: number, edit: Edit<PlanProgram>, from = plan): PlanView {
  const programs = from.programs.map((program, i) => {
    if (i !== rank) return program;
    const edited = { ...program, ...edit(program) };
    return { ...edited, memory: edit(program).memory ?? rankMemory(from, edited.functions, edited.keys) };
  });
  return { ...from, programs };
}

function withFunction(rank: number, name: string, edit: Edit<PlanFunction>, from = plan): PlanView {
  const edited = (program: PlanProgram): Partial<PlanProgram> => ({
    functions: program.functions.map((one) => (one.name === name ? { ...one, ...edit(one) } : one)),
  });
  return withProgram(rank, edited, from);
}

const onEveryRank = (change: (from: PlanView, rank: number) => PlanView): PlanView =>
  [0, 1, 2].reduce(change, plan);

function withMain(rank: number, edit: (commands: Commands) => Commands, from = plan): PlanView {
  return withFunction(rank, 'main', (main) => ({ commands: edit(main.commands) }), from);
}

/** Edits one command of main, by its path. */
function withCommand(rank: number, path: readonly number[], edit: Edit<Command>, from = plan): PlanView {
  const visit = (commands: Commands, [first, ...rest]: readonly number[]): Commands =>
    commands.map((command, i) => {
      if (i !== first) return command;
      return rest.length > 0
        ? { ...command, body: visit(command.body, rest) }
        : { ...command, ...edit(command) };
    });
  return withMain(rank, (commands) => visit(commands, path), from);
}

const withInfo = (id: number, edit: Edit<CollectiveInfo>): PlanView => ({
  ...plan,
  collectives: plan.collectives.map((one, i) => (i === id ? { ...one, ...edit(one) } : one)),
});
const without = (list: Commands, ...places: readonly number[]): Commands =>
  list.filter((_, i) => !places.includes(i));
const inserted = (list: Commands, place: number, ...more: Commands): Commands => [
  ...list.slice(0, place),
  ...more,
  ...list.slice(place),
];
const swapped = (list: Commands, i: number, j: number): Commands =>
  list.map((command, place) => list[place === i ? j : place === j ? i : place] ?? command);

// main of ranks 0 and 2: 0 start 0, 1 add, 2 wait 0, 3 collect 1, 4 loop [start 2, add, wait 2, copies], 5
// call,
// 6 start 5, 7 start 4, 8 wait 4, 9 wait 5, 10 copy, 11 key product, 12 add; of rank 1: 6 copy, 9 copy
// instead.
const touch = (buffer: number): Command =>
  block('add', 1, 0, { out: rows(ranks.u, 3), a: rows(buffer), b: rows(buffer) });
const put = (buffer: number, row = 0): Command =>
  block('copy', 1, 0, { out: rows(buffer, row), a: rows(ranks.x) });

const inFlight: readonly [string, PlanView, RegExp][] = [
  [
    'no wait',
    withMain(0, (c) => without(c, 9)),
    /program 0.*command 6 \(collective\): collective 5 is never waited for in its block/,
  ],
  [
    'no wait in a loop',
    withCommand(1, [4], (c) => ({ body: without(c.body, 2) })),
    /command 4\.0 \(collective\): collective 2 is never waited for/,
  ],
  [
    'two waits',
    withMain(0, (c) => inserted(c, 3, wait(0))),
    /command 3 \(wait\): waits for collective 0, which this block has not started/,
  ],
  [
    'a wait for a blocking collective',
    withMain(1, (c) => inserted(c, 4, wait(1))),
    /waits for collective 1, which this block has not started/,
  ],
  [
    'a wait in another block',
    withMain(0, (c) => inserted(without(c, 2), 2, loop(1, [wait(0)]))),
    /command 2\.0 \(wait\): waits for collective 0, which this block/,
  ],
  [
    'a wait before the start',
    withMain(2, (c) => swapped(c, 0, 2)),
    /command 0 \(wait\): waits for collective 0, which this block has not started/,
  ],
  [
    'started twice',
    withMain(0, (c) => inserted(c, 1, start(0, rows(ranks.x), rows(ranks.h)))),
    /starts collective 0, which is in flight/,
  ],
  [
    'a read of the receive block',
    withMain(0, (c) => inserted(c, 2, touch(ranks.g))),
    /command 2 \(add\): operand a reads row 0 of buffer 2, which collective 0 has in flight/,
  ],
  [
    'a write to the send block',
    withMain(0, (c) => inserted(c, 8, put(ranks.t, 1))),
    /command 8 \(copy\): operand out writes row 1, in flight in the send block of collective 5/,
  ],
  [
    'a write to the receive block',
    withMain(0, (c) => inserted(c, 8, put(ranks.e, 5))),
    /writes row 5, in flight in the receive block of collective 5/,
  ],
  [
    'a call whose frame is in flight',
    withMain(0, (c) =>
      inserted(c, 8, {
        ...call(0, 28, [
          [ranks.s, 0],
          [ranks.z, 0],
        ]),
      }),
    ),
    /the callee frame writes row 28, in flight in the send block of collective 5/,
  ],
  [
    'a call that writes what is in flight',
    withMain(0, (c) =>
      inserted(
        c,
        7,
        call(0, 53, [
          [ranks.s, 0],
          [ranks.t, 0],
        ]),
      ),
    ),
    /argument 1 writes row 0, in flight in the send block of collective 5/,
  ],
  [
    'a call that starts what is in flight',
    withMain(0, (c) => inserted(c, 5, start(3, rows(ranks.s), rows(ranks.z)))),
    /starts collective 3, which is in flight/,
  ],
  [
    'a collective that receives what another sends',
    withCommand(0, [7], () => ({ out: rows(ranks.t) })),
    /the receive block writes row 0, in flight in the send block of collective 5/,
  ],
  [
    'a send block that the loop overwrites',
    withCommand(0, [4], (c) => ({ body: swapped(c.body, 2, 3) })),
    /reads row 0 of buffer 3, which collective 2 has in flight/,
  ],
];

const blocks: readonly [string, PlanView, RegExp][] = [
  ['nothing sent', withCommand(0, [0], () => ({ a: null })), /command 0 \(collective\): has no send block/],
  [
    'nothing received',
    withCommand(0, [3], () => ({ out: null })),
    /command 3 \(collective\): has no receive block/,
  ],
  [
    'a root that receives',
    withCommand(1, [7], () => ({ out: rows(ranks.b) })),
    /program 1.*has a receive block/,
  ],
  [
    'a rank that sends in a broadcast',
    withCommand(2, [7], () => ({ a: rows(ranks.z) })),
    /program 2.*has a send block/,
  ],
  ['another root', withInfo(4, () => ({ root: 2 })), /program 1.*command 7 \(collective\): has a send block/],
  [
    'a send block outside',
    withCommand(0, [0], () => ({ a: rows(ranks.x, 1) })),
    /the send block of 4 rows leaves buffer 0 of 4 rows/,
  ],
  [
    'a receive block outside',
    withCommand(0, [0], () => ({ out: rows(ranks.t) })),
    /the receive block of 12 rows leaves buffer 5 of 4 rows/,
  ],
  [
    'a send block outside in the last iteration',
    withCommand(0, [4, 0], (c) => ({ a: { ...c.a!, loopStrides: [6] } })),
    /command 4\.0 \(collective\): the send block of 12 rows leaves buffer 2/,
  ],
  [
    'a send block that nothing has written',
    withMain(0, (c) => inserted(without(c, 1), 7, c[1]!)),
    /the send block reads row 0 of buffer 5, which nothing has written/,
  ],
  [
    'sent and received in one place',
    withCommand(0, [3], () => ({ out: rows(ranks.g, 3) })),
    /the receive block overlaps an input/,
  ],
  [
    'buffers that overlap',
    withFunction(0, 'main', (main) => ({
      buffers: main.buffers.map((one, i) => (i === ranks.h ? { ...one, offset: 4 } : one)),
    })),
    /the receive block overlaps an input/,
  ],
  [
    'live buffers that overlap',
    withFunction(2, 'main', (main) => ({
      buffers: main.buffers.map((one, i) => (i === ranks.s ? { ...one, offset: 0 } : one)),
    })),
    /program 2.*reads row \d+ of buffer \d+, which buffer \d+ has overwritten/,
  ],
  [
    'a rank of another group',
    withMain(1, (c) => inserted(c, 6, collect(5, rows(ranks.t), rows(ranks.e)))),
    /rank 1 is not in group 0,2 of collective 5/,
  ],
  [
    'a collective that does not exist',
    withCommand(0, [3], () => ({ collective: 9 })),
    /command 3 \(collective\): collective 9 of 6/,
  ],
];

const records: readonly [string, PlanView, RegExp][] = [
  ['too few rows', withInfo(0, () => ({ rows: [4, 4] })), /collective 0: 2 counts of rows, not 3/],
  [
    'rows that do not fit',
    withInfo(0, () => ({ rows: [4, 4, 5] })),
    /program 2.*the send block of 5 rows leaves buffer 0 of 4 rows/,
  ],
  [
    'a rank that sends to itself',
    withInfo(3, () => ({ rows: [1, 1, 1, 1, 0, 2, 2, 1, 0] })),
    /collective 3: a rank sends rows to itself/,
  ],
  ['limbs of a copy', withInfo(0, () => ({ limbs: [[0]] })), /collective 0: 1 lists of limbs, not 0/],
  [
    'no limbs of a sum',
    withInfo(1, () => ({ limbs: [[0], [], [2]] })),
    /collective 1: limbs \[\] of segment 1 of 4 rows/,
  ],
  [
    'a limb beyond the primes',
    withInfo(1, () => ({ limbs: [[0], [99], [2]] })),
    /collective 1: limbs \[99\] of segment 1/,
  ],
  ['a group out of order', withInfo(5, () => ({ group: [2, 0] })), /collective 5: group \[2,0\] of 3 ranks/],
  [
    'a group beyond the mesh',
    withInfo(5, () => ({ group: [0, 3] })),
    /collective 5: group \[0,3\] of 3 ranks/,
  ],
  ['a root beyond the group', withInfo(4, () => ({ root: 3 })), /collective 4: root 3 of 3 ranks/],
  ['a node beyond the locations', withInfo(4, () => ({ node: 1 })), /collective 4: location 1 of 1/],
  [
    'other executions',
    withInfo(2, () => ({
      executions: 4,
      receivedBytes: info('all_reduce', [0, 1, 2], [12], 4).receivedBytes,
    })),
    /collective 2: rank 0 executes it 3 times, not 4 as predicted/,
  ],
  [
    'other bytes',
    withInfo(3, (one) => ({ receivedBytes: one.receivedBytes.map((bytes, i) => bytes + (i === 1 ? 8 : 0)) })),
    /collective 3: rank 1 receives 768 bytes, not 776 as predicted/,
  ],
];

const orders: readonly [string, PlanView, RegExp][] = [
  [
    'another order on one rank',
    withMain(1, (c) => swapped(c, 4, 5)),
    /group 0,1,2: number 2 in order is collective 2 \(main 4\.0, node "node"\) on rank 0, but collective 3 \(exchange 1, node "node"\) on rank 1/,
  ],
  [
    'a collective missing on one rank',
    withMain(2, (c) => without(c, 7, 8)),
    /number 6 in order is collective 4 \(main 7, .*\) on rank 0, but nothing more on rank 2/,
  ],
  [
    'another trip count on one rank',
    withCommand(1, [4], () => ({ tripCount: 4 })),
    /number 5 in order is collective 3 .* on rank 0, but collective 2 .* on rank 1/,
  ],
  [
    'a call missing on one rank',
    withMain(0, (c) => without(c, 5)),
    /number 5 in order is collective 4 .* on rank 0, but collective 3 .* on rank 1/,
  ],
  [
    'a wait on one side',
    withCommand(0, [6], () => ({ blocking: true })),
    /command 9 \(wait\): waits for collective 5, which this block/,
  ],
  [
    'three groups in a circle',
    circle([
      [0, 2],
      [1, 0],
      [2, 1],
    ]),
    /deadlock: rank 0 waits for collective 0 \(main 0, .*of group 0,1; rank 1 waits for collective 1 .*of group 1,2; rank 2 waits for collective 2 .*of group 0,2$/,
  ],
  [
    'a circle by waits',
    circle(
      [
        [0, 2],
        [1, 0],
        [2, 1],
      ],
      'waits',
    ),
    /deadlock: rank 0 waits for collective 0 \(main 1, /,
  ],
  [
    'a circle in the second iteration',
    circle(
      [
        [0, 2],
        [1, 0],
        [2, 1],
      ],
      'loop',
    ),
    /deadlock: rank 0 waits for collective 0/,
  ],
];

const shares: readonly [string, PlanView, RegExp][] = [
  [
    'no part of a key',
    withProgram(1, () => ({ keys: [] })),
    /program 1.*command 10 \(key_product\): needs key 0, of which the rank holds nothing/,
  ],
  [
    'a limb of a key missing',
    withProgram(2, () => ({ keys: [{ key: 0, limbs: [0, 1] }] })),
    /program 2.*needs limb 2 of key 0, which the rank does not hold/,
  ],
  [
    'a limb that the key does not have',
    withProgram(0, () => ({ keys: [{ key: 0, limbs: [0, 3] }] })),
    /program 0, limbs \[0,3\] are not limbs of key 0/,
  ],
  ['a key twice', withProgram(0, (p) => ({ keys: [...p.keys, ...p.keys] })), /program 0, holds key 0 twice/],
  [
    'a key that does not exist',
    withProgram(0, (p) => ({ keys: [...p.keys, { key: 1, limbs: [] }], memory: p.memory })),
    /program 0, holds key 1 of 1/,
  ],
  ['too many digits', withCommand(0, [11], (c) => ({ digitCount: c.digitCount + 1 })), /of key 0, which has/],
  [
    'a limb of an output missing',
    withProgram(1, () => ({ outputs: [{ buffer: ranks.y, elements: [], limbs: [0] }] })),
    /output 0: no rank holds limb 1 of element 0/,
  ],
  [
    'a part of another size',
    withProgram(1, () => ({ outputs: [{ buffer: ranks.y, elements: [1], limbs: [1] }] })),
    /program 1, output 0: a part of 2 rows in a buffer of 4/,
  ],
  [
    'an element out of range',
    withProgram(1, () => ({ inputs: [{ buffer: ranks.x, elements: [0, 2], limbs: [1] }] })),
    /program 1, input 0: elements \[0,2\] of 2/,
  ],
  [
    'a limb out of range',
    withProgram(1, () => ({ inputs: [{ buffer: ranks.x, elements: [], limbs: [3] }] })),
    /program 1, input 0: limbs \[3\] of level 2/,
  ],
  [
    'a port in a local buffer',
    withProgram(0, () => ({ inputs: [{ buffer: ranks.s, elements: [], limbs: [0] }] })),
    /input 0: buffer 4 is no argument/,
  ],
  [
    'two ports in one buffer',
    withProgram(0, () => ({ outputs: [{ buffer: ranks.x, elements: [], limbs: [0] }] })),
    /output 0: buffer 0 is another port's/,
  ],
  ['no part of a port', withProgram(2, () => ({ outputs: [] })), /program 2, 0 parts for 1 outputs/],
  [
    'an output written in part',
    withMain(1, (c) =>
      without(c, 11, 12).map((one) =>
        one.out?.buffer === ranks.y ? { ...one, dims: [2], out: { ...one.out, offset: 1 } } : one,
      ),
    ),
    /program 1, output 0 is not written in full/,
  ],
  ...(['ports', 'frame', 'keys', 'plaintexts'] as const).map((name): [string, PlanView, RegExp] => [
    `other memory of ${name}`,
    withProgram(1, ({ memory }) => ({ memory: { ...memory, [name]: memory[name] + 1 } })),
    new RegExp(`program 1, memory.${name} is \\d+ bytes, not \\d+ as predicted`),
  ]),
];

/** Ranks 0, 1, 2 with pairs in a circle; each rank issues its two collectives in the given order. */
function circle(
  orderOf: readonly (readonly number[])[],
  how: 'blocking' | 'waits' | 'loop' = 'blocking',
): PlanView {
  const times = how === 'loop' ? 3 : 1;
  const collectives = [
    [0, 1],
    [1, 2],
    [0, 2],
  ].map((group) => info('all_gather', group, [2, 2], times));
  const programs = orderOf.map((order) => {
    const [first, second] = order.map((id, i) => [rows(0), rows(2, 4 * i), id] as const);
    const issue = [first!, second!].map(([a, out, id]) => collect(id, a, out));
    const body =
      how === 'waits'
        ? [first!, second!].flatMap(([a, out, id]) => [start(id, a, out), wait(id)])
        : how === 'loop'
          ? [loop(times, issue)]
          : issue;
    return {
      functions: [func('main', [2, 2], [8], [...body, block('copy', 2, 0, { out: rows(1), a: rows(0) })])],
      keys: [],
      inputs: [{ buffer: 0, elements: [], limbs: [] }],
      outputs: [{ buffer: 1, elements: [], limbs: [] }],
    };
  });
  return rankPlan({ programs, collectives, inputs: [port('x', 1, 0)], outputs: [port('y', 1, 0)] });
}

describe('verifySchedule of several ranks', () => {
  it('accepts correct plans', () => {
    expect(verifySchedule(plan)).toEqual([]);
    expect(
      verifySchedule(
        circle(
          [
            [0, 2],
            [0, 1],
            [1, 2],
          ].map((order) => [...order].sort()),
        ),
      ),
    ).toEqual([]);
    const late = [0, 2].reduce((from, rank) => withMain(rank, (c) => swapped(c, 8, 9), from), plan);
    expect(verifySchedule(late)).toEqual([]);
    expect(verifySchedule(onEveryRank((from, rank) => withCommand(rank, [0], (c) => c, from)))).toEqual([]);
  });

  it('accepts the same order in other structures', () => {
    const unrolled = withMain(1, (c) => [
      ...c.slice(0, 4),
      ...[1, 2, 3].flatMap(() => c[4]!.body),
      ...c.slice(5),
    ]);
    expect(verifySchedule(unrolled)).toEqual([]);
  });

  it('states bytes by hand: a row has 2^logN words, an all-reduce is two passes of a third of the rows', () => {
    const row = 8 * 2 ** planParameters.logN;
    expect(plan.collectives.map((one) => one.receivedBytes.map((bytes) => bytes / row))).toEqual([
      [8, 8, 8],
      [8, 8, 8],
      [48, 48, 48],
      [3, 3, 3],
      [3, 0, 3],
      [4, 4],
    ]);
    const uneven = info('all_reduce', [0, 1, 2], [7], 1).receivedBytes.map((bytes) => bytes / row);
    expect(uneven).toEqual([2 * 3 + 4, 2 * 2 + 5, 2 * 2 + 5]);
    const digits = planParameters.keyClasses[0]!.digits.filter(({ first }) => first <= 2).length;
    expect(plan.programs[0]!.memory).toEqual({
      ports: 8 * row,
      frame: 56 * row,
      keys: digits * 2 * row,
      plaintexts: 0,
    });
  });

  it('holds each rank to the memory limit', () => {
    const peak = peakBytes(plan.programs[0]!.memory);
    expect(verifySchedule(plan, { memoryLimit: peak })).toEqual([]);
    expect(verifySchedule(plan, { memoryLimit: peak - 1 })).toContain(
      `program 2, needs ${peak} bytes at its peak, above the limit of ${peak - 1}`,
    );
  });

  for (const [name, broken, message] of [...inFlight, ...blocks, ...records, ...orders, ...shares]) {
    it(`finds ${name}`, () => expect(verifySchedule(broken).join('\n')).toMatch(new RegExp(message, 'm')));
  }
});
