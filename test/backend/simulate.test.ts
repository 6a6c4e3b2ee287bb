import { describe, expect, it } from 'vitest';
import {
  emptyCommand,
  type CollectiveInfo,
  type Command,
  type PlanFunction,
  type PlanView,
} from '../../src/backend/plan-view.js';
import { simulate } from '../../src/backend/simulate.js';
import type { DeviceProfile } from '../../src/target/profile.js';

/** N = 8: an NTT of one row takes 1 s on one limb; a row takes 1 s on the link; nothing else takes time. */
const profile: DeviceProfile = {
  format: 1,
  name: 'test',
  provenance: {},
  memoryBytes: 1000,
  // An NTT reads and writes a row of 64 bytes.
  memoryBandwidth: 256,
  modularRate: 1e9,
  efficiency: 0.5,
  launchSeconds: 0,
  link: { bandwidth: 64, latencySeconds: 0, background: true },
  measured: null,
};
const logN = 3;

const view = { buffer: 0, offset: 0, strides: [], componentStride: 0, limbStride: 1, loopStrides: [] };

/** A kernel of that many seconds. */
function work(seconds: number, node = 0): Command {
  const limbs = Array.from({ length: seconds }, (_, i) => i);
  return { ...emptyCommand('ntt', node), limbs, out: view, a: view };
}
const start = (collective: number): Command => ({
  ...emptyCommand('collective', 0),
  collective,
  blocking: false,
});
const blocking = (collective: number): Command => ({ ...emptyCommand('collective', 0), collective });
const wait = (collective: number): Command => ({ ...emptyCommand('wait', 0), collective });
const loop = (tripCount: number, ...body: Command[]): Command => ({
  ...emptyCommand('loop', 0),
  tripCount,
  body,
});
const call = (callee: number): Command => ({ ...emptyCommand('call', 0), callee });

/** A gather of `rows` seconds. */
function gather(rows: number, options: Partial<CollectiveInfo> = {}): CollectiveInfo {
  return {
    kind: 'broadcast',
    group: [0, 1],
    rows: [rows],
    limbs: [],
    root: 0,
    node: 0,
    block: 'attention',
    executions: 1,
    receivedBytes: [0, rows * 64],
    ...options,
  };
}

function plan(programs: readonly (readonly Command[][])[], collectives: CollectiveInfo[] = []): PlanView {
  const func = (commands: Command[], i: number): PlanFunction => ({
    name: `f${i}`,
    frameRows: 0,
    buffers: [],
    plaintexts: [],
    commands,
  });
  return {
    formatMajor: 2,
    formatMinor: 0,
    compilerVersion: '',
    modelName: 'm',
    sourceHash: '',
    weightsHash: '',
    strategy: 'app',
    mesh: [],
    parameters: {
      logN,
      primes: [],
      maxLevel: 0,
      specials: 0,
      scales: [],
      keyClasses: [],
      ephemeralWeight: 0,
      logQP: 0,
      securityBits: 0,
      insecure: true,
    },
    keys: [],
    tables: [],
    plaintexts: [],
    programs: programs.map((functions, rank) => ({
      functions: functions.map(func),
      keys: [],
      inputs: [],
      outputs: [],
      memory: { ports: 1, frame: 10, keys: 100, plaintexts: 200 * (rank + 1) },
    })),
    inputs: [],
    outputs: [],
    locations: ['first', 'second'],
    summary: { levels: 0, bootstraps: 0, rotations: 0, ctMultiplications: 0, keyBytes: 0, weightsBytes: 0 },
    approximations: [],
    collectives,
  };
}

const one = (...commands: Command[]): Command[][] => [commands];
const run = (view: PlanView, options: { kernelSpeed?: number } = {}) =>
  simulate(view, { profile, ...options });

describe('compute', () => {
  it('adds up launches, loops and calls, by node and by kernel', () => {
    const s = run(
      plan([
        [
          [work(2, 1), loop(3, work(1))],
          [call(0), work(4), loop(10, call(0))],
        ],
      ]),
    );
    expect(s.latencyS).toBeCloseTo(11 * 5 + 4, 9);
    expect(s.exposedCommS).toBe(0);
    expect(s.nodes.map(({ node, seconds }) => [node, Math.round(seconds)])).toEqual([
      ['first', 37],
      ['second', 22],
    ]);
    expect(s.opcodes.get('ntt')?.launches).toBe(45);
  });

  it('is halved by kernels of twice the speed, communication is not', () => {
    const view = plan([one(work(6), blocking(0)), one(work(2), blocking(0))], [gather(5)]);
    expect(run(view).latencyS).toBeCloseTo(11, 9);
    expect(run(view, { kernelSpeed: 2 }).latencyS).toBeCloseTo(8, 9);
  });
});

describe('collectives', () => {
  it('begin when the last rank has started them; waiting for a slow rank is imbalance', () => {
    const s = run(
      plan([one(work(5), blocking(0), work(1)), one(work(2), blocking(0), work(1))], [gather(3)]),
    );
    expect(s.latencyS).toBeCloseTo(9, 9);
    expect(s.ranks.map((rank) => rank.imbalanceSeconds)).toEqual([0, 3]);
    expect(s.ranks.map((rank) => rank.exposedSeconds)).toEqual([
      [0, 3, 0],
      [0, 3, 0],
    ]);
    expect(s.exposedCommS).toBeCloseTo(3, 9);
  });

  it('hide behind computation between start and wait', () => {
    const program = one(work(1), start(0), work(4), wait(0), work(1));
    expect(run(plan([program, program], [gather(3)]))).toMatchObject({ latencyS: 6, exposedCommS: 0 });
    expect(run(plan([program, program], [gather(6)]))).toMatchObject({ latencyS: 8, exposedCommS: 2 });
  });

  it('hide behind nothing where ranks move the rows themselves', () => {
    const program = one(work(1), start(0), work(4), wait(0), work(1));
    const own = { ...profile, link: { ...profile.link, background: false } };
    expect(simulate(plan([program, program], [gather(3)]), { profile: own })).toMatchObject({
      latencyS: 9,
      exposedCommS: 3,
    });
  });

  it('queue behind one another', () => {
    const program = one(start(0), start(1), work(1), wait(0), wait(1));
    const s = run(plan([program, program], [gather(3), gather(4, { block: 'ffn' })]));
    expect(s.latencyS).toBeCloseTo(7, 9);
    expect(s.blocks.attention).toEqual({ bytes: 192, commS: 3, exposedS: 2, collectives: 1 });
    expect(s.blocks.ffn).toEqual({ bytes: 256, commS: 4, exposedS: 4, collectives: 1 });
    expect(s.commBytes).toEqual({ rest: 0, attention: 192, ffn: 256 });
  });

  it('of another group wait for those before them in the queue of any member', () => {
    const early = gather(2, { group: [0, 2], receivedBytes: [0, 0] });
    const late = gather(1, { group: [0, 1], receivedBytes: [0, 0] });
    const s = run(
      plan(
        [one(start(0), start(1), wait(0), wait(1)), one(blocking(1), work(1)), one(work(5), blocking(0))],
        [early, late],
      ),
    );
    expect(s.ranks.map(({ seconds }) => seconds)).toEqual([8, 9, 7]);
  });

  it('that never meet are our bug', () => {
    expect(() => run(plan([one(blocking(0)), one(work(1))], [gather(1)]))).toThrow(/deadlock/);
  });
});

describe('loops with communication', () => {
  const bodies: readonly (readonly [string, Command[], Command[]])[] = [
    ['blocking', [work(2), blocking(0)], [work(3), blocking(0)]],
    ['overlapped', [start(0), work(2), wait(0)], [start(0), work(1), wait(0), work(1)]],
    [
      'pipelined',
      [start(0), work(1), start(1), work(1), wait(0), wait(1)],
      [start(0), start(1), wait(0), wait(1)],
    ],
    ['a loop in a loop', [loop(5, blocking(0), work(1)), work(1)], [work(2), loop(5, work(1), blocking(0))]],
  ];

  it.each(bodies)('%s: many iterations take what the unrolled ones take', (_, first, second) => {
    const collectives = [gather(3), gather(2, { block: 'ffn' })];
    const looped = run(plan([one(work(7), loop(200, ...first)), one(loop(200, ...second))], collectives));
    const repeat = (body: Command[]): Command[] => Array.from({ length: 200 }, () => body).flat();
    const unrolled = run(plan([one(work(7), ...repeat(first)), one(...repeat(second))], collectives));
    expect(looped.latencyS).toBeCloseTo(unrolled.latencyS, 6);
    looped.ranks.forEach((rank, i) => {
      const other = unrolled.ranks[i]!;
      expect(rank.seconds).toBeCloseTo(other.seconds, 6);
      expect(rank.computeSeconds).toBeCloseTo(other.computeSeconds, 6);
      expect(rank.imbalanceSeconds).toBeCloseTo(other.imbalanceSeconds, 6);
      rank.commSeconds.forEach((value, b) => expect(value).toBeCloseTo(other.commSeconds[b]!, 6));
      rank.exposedSeconds.forEach((value, b) => expect(value).toBeCloseTo(other.exposedSeconds[b]!, 6));
    });
  });

  it('wait for a communication queue that is overtaken only after many iterations', () => {
    // The queue is busy for 1000 s; computation catches up with 2 s an iteration against 1 s of
    // communication.
    const program = (seconds: number) => one(start(0), work(seconds), loop(1500, start(1), work(2), wait(1)));
    const s = run(plan([program(1), program(1)], [gather(1000), gather(1)]));
    // The first wait ends at 1001; from then on an iteration takes 2 s.
    expect(s.latencyS).toBeCloseTo(1001 + 1499 * 2, 6);
    const free = (first: number) => one(start(0), loop(300, work(first), start(1)), wait(0), work(1));
    const t = run(plan([free(2), free(2)], [gather(200), gather(1)]));
    expect(t.latencyS).toBeCloseTo(601, 6);
  });

  it('of a billion iterations are quick', () => {
    const program = one(loop(1e9, start(0), work(2), wait(0)));
    expect(run(plan([program, program], [gather(1)])).latencyS).toBeCloseTo(2e9, 0);
  });

  it('of ranks that do not loop alike are run one by one', () => {
    const s = run(
      plan([one(loop(6, work(1), blocking(0))), one(loop(2, loop(3, blocking(0)), work(1)))], [gather(1)]),
    );
    expect(s.latencyS).toBeCloseTo(13, 9);
    const t = run(plan([one(loop(3, blocking(0))), one(blocking(0), blocking(0), blocking(0))], [gather(1)]));
    expect(t.latencyS).toBeCloseTo(3, 9);
  });
});

describe('memory', () => {
  it('is that of the largest rank', () => {
    const s = run(plan([one(work(1)), one(work(1))]));
    expect(s).toMatchObject({ peakBytesPerDevice: 511, fits: true });
    expect(simulate(plan([one(work(1))]), { profile: { ...profile, memoryBytes: 310 } }).fits).toBe(false);
  });
});

describe('the trace', () => {
  it('has a process per rank and its two queues, in order and without gaps', () => {
    const program = one(work(1), start(0), work(1, 1), wait(0), loop(4, blocking(0)));
    const { trace } = simulate(plan([program, program], [gather(3)]), { profile, trace: true });
    const events = trace?.traceEvents ?? [];
    const of = (pid: number, tid: number) =>
      events
        .filter((event) => event.ph === 'X' && event.pid === pid && event.tid === tid)
        .map(({ name, ts, dur }) => [name, (ts ?? 0) / 1e6, (dur ?? 0) / 1e6]);
    expect(of(0, 0)).toEqual([
      ['ntt', 0, 1],
      ['ntt', 1, 1],
      ['wait', 2, 2],
      ['wait', 4, 3],
      ['wait', 7, 3],
      ['2 more iterations', 10, 6],
    ]);
    expect(of(1, 1)).toEqual([
      ['broadcast', 1, 3],
      ['broadcast', 4, 3],
      ['broadcast', 7, 3],
    ]);
    expect(events.find((event) => event.name === 'ntt')?.args).toEqual({
      node: 'first',
      rows: 1,
      bytes: 128,
    });
    expect(events.find((event) => event.name === 'broadcast')?.args).toMatchObject({ block: 'attention' });
  });

  it('stays small: two iterations of a loop, the first call of a function', () => {
    const view = plan([[[loop(1000, work(1))], Array.from({ length: 50 }, () => call(0))]]);
    const { trace } = simulate(view, { profile, trace: true });
    // Three names, 50 calls, one loop with two kernels and what is left of it.
    expect(trace?.traceEvents.length).toBe(3 + 50 + 4);
  });
});
