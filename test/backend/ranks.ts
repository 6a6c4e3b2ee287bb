/** Small plans of several ranks, built by hand. */
import { receivedBytes } from '../../src/backend/collective-bytes.js';
import {
  emptyCommand,
  formatMajor,
  formatMinor,
  type CollectiveInfo,
  type Command,
  type Key,
  type Opcode,
  type PlanFunction,
  type PlanPort,
  type PlanProgram,
  type PlanView,
  type View,
} from '../../src/backend/plan-view.js';
import { rankMemory } from '../../src/backend/rank-memory.js';
import { toyParameters } from './oracle.js';

type Fields<T> = { readonly [K in keyof T]?: T[K] };

export const planParameters: PlanView['parameters'] = { ...toyParameters, ephemeralWeight: 0 };
export const primes = planParameters.primes;

/** Rows of a buffer; a limb is one row. */
export function rows(buffer: number, offset = 0, more: Fields<View> = {}): View {
  return { buffer, offset, strides: [], componentStride: 0, limbStride: 1, loopStrides: [], ...more };
}

export function kernel(op: Opcode, limbs: readonly number[], fields: Fields<Command>): Command {
  return { ...emptyCommand(op, 0), limbs, ...fields };
}

/** count rows of single limbs, all of one prime. */
export function block(op: Opcode, count: number, limb: number, fields: Fields<Command>): Command {
  const strided = (view: View | null | undefined): View | null =>
    view == null ? null : { ...view, strides: [1] };
  const views = { out: strided(fields.out), a: strided(fields.a), b: strided(fields.b) };
  return kernel(op, [limb], { ...fields, ...views, dims: [count] });
}

export function start(collective: number, a: View | null, out: View | null, blocking = false): Command {
  return { ...emptyCommand('collective', 0), collective, a, out, blocking };
}

export const collect = (collective: number, a: View | null, out: View | null): Command =>
  start(collective, a, out, true);
export const wait = (collective: number): Command => ({ ...emptyCommand('wait', 0), collective });
export const loop = (tripCount: number, body: readonly Command[]): Command => ({
  ...emptyCommand('loop', 0),
  tripCount,
  body,
});

export function call(
  callee: number,
  frameOffset: number,
  bindings: readonly (readonly [buffer: number, offset: number])[],
): Command {
  return {
    ...emptyCommand('call', 0),
    callee,
    frameOffset,
    bindings: bindings.map(([buffer, offset]) => ({ buffer, offset })),
  };
}

/** Argument buffers, then locals one after the other, then room for callees. */
export function func(
  name: string,
  args: readonly number[],
  locals: readonly number[],
  commands: readonly Command[],
  calleeRows = 0,
): PlanFunction {
  let frameRows = 0;
  const place = (count: number): number => (frameRows += count) - count;
  const buffers = [
    ...args.map((count) => ({ argument: true, offset: 0, rows: count })),
    ...locals.map((count) => ({ argument: false, offset: place(count), rows: count })),
  ];
  return { name, frameRows: frameRows + calleeRows, buffers, plaintexts: [], commands };
}

export function port(name: string, elements: number, level: number): PlanPort {
  const shape = [elements, 2 ** (planParameters.logN - 1)];
  const slots = { period: 1, features: 0, tokens: 0 };
  const numbers = { level, scale: 1, factor: 1, bound: 0, predictedError: 0 };
  return { name, shape, elements, ...slots, ...numbers };
}

export function info(
  kind: CollectiveInfo['kind'],
  group: readonly number[],
  counts: readonly number[],
  executions: number,
  more: { readonly limbs?: CollectiveInfo['limbs']; readonly root?: number } = {},
): CollectiveInfo {
  const shape = { kind, group, rows: counts, root: more.root ?? 0 };
  return {
    ...shape,
    limbs: more.limbs ?? [],
    node: 0,
    block: 'rest',
    executions,
    receivedBytes: receivedBytes(shape, executions, planParameters.logN),
  };
}

export interface RankPlan {
  readonly programs: readonly Omit<PlanProgram, 'memory'>[];
  readonly collectives: readonly CollectiveInfo[];
  readonly inputs: readonly PlanPort[];
  readonly outputs: readonly PlanPort[];
  readonly keys?: readonly Key[];
}

export function rankPlan(plan: RankPlan): PlanView {
  const shared = { parameters: planParameters, keys: plan.keys ?? [], plaintexts: [] };
  const names = { compilerVersion: '', modelName: 'ranks', sourceHash: '', weightsHash: '', strategy: '' };
  return {
    formatMajor,
    formatMinor,
    ...names,
    ...shared,
    mesh: [{ name: 'app', size: plan.programs.length }],
    tables: [],
    programs: plan.programs.map((program) => ({
      ...program,
      memory: rankMemory(shared, program.functions, program.keys),
    })),
    inputs: plan.inputs,
    outputs: plan.outputs,
    locations: ['node'],
    summary: { levels: 0, bootstraps: 0, rotations: 0, ctMultiplications: 0, keyBytes: 0, weightsBytes: 0 },
    collectives: plan.collectives,
    approximations: [],
  };
}

/**
 * Three ranks; rank r holds limb r of both elements of x and y (4 rows, [element][component]), and limb r of
 * a
 * key. Every collective kind, starts and waits in the entry, a loop and a call.
 *
 *   g = all-gather(x)             while t = x + x
 *   s = reduce-scatter(g) = 3 x
 *   3 times: h = all-reduce(g), with u = t + t beside it; g = h: g becomes 27 g
 *   z = exchange(s): each rank sends 2 rows to the next one, 1 row to the one before
 *   b = broadcast of z from rank 1; ranks 0 and 2 gather t into e
 *   k = key product of digits taken from g
 *   y = b[i] + g[r][i] + u[i], and the key product's halves are added to the rows of element 0
 */
export function sample(): PlanView {
  const key: Key = { kind: 'relinearize', galois: 0, keyClass: 0, level: 2 };
  const limbsOfRows = [0, 1, 2].flatMap((limb) => [limb, limb, limb, limb]);
  const every = [0, 1, 2];
  const collectives = [
    info('all_gather', every, [4, 4, 4], 1),
    info('reduce_scatter', every, [4, 4, 4], 1, { limbs: [[0], [1], [2]] }),
    info('all_reduce', every, [12], 3, { limbs: [limbsOfRows] }),
    info('all_to_all', every, [0, 2, 1, 1, 0, 2, 2, 1, 0], 1),
    info('broadcast', every, [3], 1, { root: 1 }),
    info('all_gather', [0, 2], [4, 4], 1),
  ];
  const programs = every.map((rank) => ({
    functions: [exchangeFunction(), entryFunction(rank)],
    keys: [{ key: 0, limbs: [rank] }],
    inputs: [{ buffer: x, elements: [], limbs: [rank] }],
    outputs: [{ buffer: y, elements: [], limbs: [rank] }],
  }));
  const ports = { inputs: [port('x', 2, 2)], outputs: [port('y', 2, 2)] };
  return rankPlan({ programs, collectives, keys: [key], ...ports });
}

/** Buffers of the entry function of `sample`. */
export const [x, y, g, h, s, t, u, z, b, e, k] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10] as const;

function exchangeFunction(): PlanFunction {
  const commands = [block('copy', 3, 0, { out: rows(2), a: rows(0) }), collect(3, rows(2), rows(1))];
  return func('exchange', [3, 3], [3], commands);
}

function entryFunction(rank: number): PlanFunction {
  const own = 4 * rank;
  const root = rank === 1;
  const digits = planParameters.keyClasses[0]!.digits.filter(({ first }) => first <= 2).length;
  const product = { out: rows(k, 0, { componentStride: 1 }), a: rows(g, own, { componentStride: 1 }) };
  const commands = [
    start(0, rows(x), rows(g)),
    block('add', 4, rank, { out: rows(t), a: rows(x), b: rows(x) }),
    wait(0),
    collect(1, rows(g), rows(s)),
    loop(3, [
      start(2, rows(g), rows(h)),
      block('add', 4, rank, { out: rows(u), a: rows(t), b: rows(t) }),
      wait(2),
      ...[0, 1, 2].map((limb) => block('copy', 4, limb, { out: rows(g, 4 * limb), a: rows(h, 4 * limb) })),
    ]),
    call(0, 12 + 12 + 4 + 4 + 4 + 3 + 4 + 8 + 2, [
      [s, 0],
      [z, 0],
    ]),
    ...(root ? [block('copy', 3, rank, { out: rows(b), a: rows(z) })] : [start(5, rows(t), rows(e))]),
    start(4, root ? rows(z) : null, root ? null : rows(b)),
    wait(4),
    ...(root ? [] : [wait(5)]),
    block('copy', 1, rank, { out: rows(b, 3), a: rows(x) }),
    kernel('key_product', [rank], { ...product, keys: [0], digitCount: digits, dims: [] }),
    block('add', 4, rank, { out: rows(y), a: rows(b), b: rows(g, own) }),
    block('add', 4, rank, { out: rows(y), a: rows(y), b: rows(u) }),
    block('add', 2, rank, { out: rows(y), a: rows(y), b: rows(k) }),
  ];
  return func('main', [4, 4], [12, 12, 4, 4, 4, 3, 4, 8, 2], commands, 3);
}
