import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readPlan } from '../../src/backend/index.js';
import { writePlan } from '../../src/backend/write-plan.js';
import { simulate, type Simulation } from '../../src/backend/simulate.js';
import { comparePage } from '../../src/cli/compare-html.js';
import { compareVariants, rowOf, type CompareRow } from '../../src/cli/compare-rows.js';
import { profileOf, threadCounts } from '../../src/cli/measure-machine.js';
import { comparisonText, simulationText } from '../../src/cli/simulation-text.js';
import { compile } from '../../src/compile.js';
import { AegisError } from '../../src/support/diagnostics.js';
import { loadProfile, parseProfile } from '../../src/target/profile.js';
import { measuredProfile } from '../target/measured-profile.js';
import { aegis, codesOf } from './fake-context.js';

const folder = mkdtempSync(join(tmpdir(), 'aegis-simulate-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const model = 'examples/digits-vit/digits_vit.onnx';
const profile = loadProfile('a100-40g-nvlink');
const plain = { color: false, columns: 100 };

let bytes: Uint8Array;
let simulation: Simulation;
beforeAll(async () => {
  ({ plan: bytes } = await compile(model, { ring: 'tiny', insecure: true }));
  simulation = simulate(readPlan(bytes), { profile });
});

describe('a plan for one device', () => {
  it('has every kernel once, by opcode and by node', () => {
    const sum = (list: readonly { seconds: number }[]) => list.reduce((all, one) => all + one.seconds, 0);
    expect(simulation.latencyS).toBeGreaterThan(0);
    expect(sum([...simulation.opcodes.values()])).toBeCloseTo(simulation.latencyS, 9);
    expect(sum(simulation.nodes)).toBeCloseTo(simulation.latencyS, 9);
    expect(simulation).toMatchObject({ devices: 1, exposedCommS: 0, fits: true });
    expect(simulation.commBytes).toEqual({ attention: 0, ffn: 0, rest: 0 });
  });

  it('is told to people', () => {
    const text = simulationText('m.aegis', simulation, rowOf(simulation, undefined), profile, plain);
    expect(text).toMatch(/^m\.aegis: coplaced on 1 x a100-40g-nvlink\n/);
    for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(110);
    expect(text).toContain('kernels of the slowest rank');
  });

  it('is one row of compare; speedup needs a reference', () => {
    expect(rowOf(simulation, undefined)).toMatchObject({ speedup: null, efficiency: null });
    expect(Object.keys(rowOf(simulation, undefined))).toEqual([
      'strategy',
      'devices',
      'latencyS',
      'speedup',
      'efficiency',
      'exposedCommS',
      'commBytes',
      'peakBytesPerDevice',
      'fits',
    ]);
    expect(rowOf({ ...simulation, devices: 4 }, 2 * simulation.latencyS)).toMatchObject({
      speedup: 2,
      efficiency: 0.5,
    });
  });
});

describe('a comparison', () => {
  /** The plan with another peak. */
  const withPeak = (frame: number): Uint8Array => {
    const view = readPlan(bytes);
    const memory = { ports: 0, frame, keys: 0, plaintexts: 0 };
    return writePlan({ ...view, programs: view.programs.map((program) => ({ ...program, memory })) });
  };
  const options = { profile: { ...profile, memoryBytes: 1000 }, devices: [1], strategies: ['limb'] as const };

  it('is beside the one-device plan, made once where it fits the memory anyway', () => {
    const limits: (number | undefined)[] = [];
    const comparison = compareVariants(({ memoryLimit }) => {
      limits.push(memoryLimit);
      return withPeak(1000);
    }, options);
    expect(limits).toEqual([undefined]);
    expect(comparison.rows.length).toBe(1);
    expect(comparison.rows[0]).toMatchObject({ speedup: 1, efficiency: 1, reference: 'limited', fits: true });
    expect(comparisonText(comparison, options.profile, plain)).toMatch(/one device: \S+ \S+ within 1000 B\n/);
  });

  it('is beside the one made under the limit where that differs', () => {
    const comparison = compareVariants(
      ({ memoryLimit }) => withPeak(memoryLimit === undefined ? 2000 : 900),
      options,
    );
    expect(comparison.rows[0]).toMatchObject({ reference: 'limited', fits: true, peakBytesPerDevice: 900 });
  });

  it.each([
    ['lowering refuses', true],
    ['the plan is too large', false],
  ])('is beside the unlimited one, and says so, where %s', (_, refuses) => {
    const comparison = compareVariants(({ memoryLimit }) => {
      if (refuses && memoryLimit !== undefined) {
        throw new AegisError({ code: 'B110', message: 'too large' });
      }
      return withPeak(2000);
    }, options);
    expect(comparison.limitedS).toBeNull();
    expect(comparison.rows[0]).toMatchObject({
      speedup: 1,
      reference: 'unlimited',
      fits: false,
      speedupUnlimited: 1,
      peakBytesPerDevice: 2000,
    });
    expect(comparisonText(comparison, options.profile, plain)).toContain('no one-device plan fits 1000 B');
  });

  it('passes on other errors', () => {
    const fail = () => {
      throw new AegisError({ code: 'B999', message: 'other' });
    };
    expect(() => compareVariants(fail, { profile, devices: [1], strategies: [] })).toThrow(/B999/);
  });

  it('is a page that needs nothing else', () => {
    const two = { ...simulation, devices: 2, strategy: 'a<b', exposedCommS: 1, fits: false };
    const comparison = compareVariants(() => bytes, { profile, devices: [1], strategies: [] });
    const row: CompareRow = {
      ...rowOf(two, 1),
      reference: 'limited',
      speedupUnlimited: 1,
      efficiencyUnlimited: 0.5,
    };
    const page = comparePage(
      { ...comparison, rows: [...comparison.rows, row], simulations: [...comparison.simulations, two] },
      { profile, model: 'x & y', seqLen: 128, insecure: true },
    );
    expect(page).not.toMatch(/https?:|<script|<link|<img/);
    expect(page).toContain('<h1>x &amp; y, 128 tokens on a100-40g-nvlink</h1>');
    expect(page).toContain('2 x a&lt;b');
    expect(page).toContain('INSECURE');
    expect(page.match(/<svg/g)?.length).toBe(3);
    expect(page).not.toMatch(/NaN|undefined|Infinity/);
  });
});

describe('the commands', () => {
  it('compare prints rows', async () => {
    const argv = ['compare', model, '--devices', '1', '--profile', 'h200', '--ring', 'tiny', '--insecure'];
    const html = join(folder, 'c.html');
    const { status, out } = await aegis(...argv, '--json', '--html', html);
    expect(status).toBe(0);
    expect(JSON.parse(out)).toMatchObject([{ strategy: 'coplaced', devices: 1, speedup: 1, fits: true }]);
    expect(readFileSync(html, 'utf8')).toContain('</html>');
  });

  it('simulate prints one row, and speedup beside a reference; writes a trace', async () => {
    const [path, trace] = [join(folder, 'm.aegis'), join(folder, 't.json')];
    writeFileSync(path, bytes);
    const argv = ['simulate', path, '--profile', 'a100-40g-nvlink', '--trace', trace];
    const alone = JSON.parse((await aegis(...argv, '--json')).out) as CompareRow;
    expect(alone).toEqual(JSON.parse(JSON.stringify(rowOf(simulation, undefined))));
    const faster = await aegis(...argv, '--reference', path, '--kernel-speed', '2', '--json');
    expect(JSON.parse(faster.out)).toMatchObject({ speedup: 1, efficiency: 1 });
    const { traceEvents } = JSON.parse(readFileSync(trace, 'utf8')) as { traceEvents: unknown[] };
    expect(traceEvents.length).toBeGreaterThan(100);
    const text = await aegis(...argv);
    expect(text.status).toBe(0);
    expect(text.out).toContain('INSECURE');
  });

  it('have codes: no such profile, a file that is none', async () => {
    const text = join(folder, 'p.json');
    writeFileSync(text, '{}');
    const argv = ['compare', model, '--devices', '1', '--json', '--profile'];
    expect(codesOf(await aegis(...argv, 'none'))).toEqual(['T101']);
    expect(new Set(codesOf(await aegis(...argv, text)))).toEqual(new Set(['T103']));
  });
});

describe('a measured profile', () => {
  it('is made of what the runtime measured', () => {
    const { measured } = measuredProfile();
    const made = profileOf(
      {
        backend: 'avx2',
        copyBandwidth: 5e9,
        handOverSeconds: 1e-5,
        tables: (measured?.tables ?? []).map((table) => ({
          ...table,
          launchSeconds: 1e-6,
          kernels: {
            ...table.kernels,
            sub_scale: { ...table.kernels.sub_scale, wordSeconds: 2e-9 },
            add: { ...table.kernels.add, wordSeconds: 1e-9 },
          },
        })),
      },
      { cores: 2, cacheBytes: 2 ** 20, memoryBytes: 2 ** 30, cpu: 'a CPU' },
    );
    expect(parseProfile(JSON.stringify(made), 'p')).toEqual(made);
    expect(made.name).toBe('a CPU, 2 cores');
    expect(made.modularRate / 5e8).toBeCloseTo(1, 12);
    expect(made.memoryBandwidth / 1e9).toBeCloseTo(1, 12);
  });

  it.each([
    [1, [1]],
    [2, [1, 2]],
    [6, [1, 2, 4, 6]],
    [8, [1, 2, 4, 8]],
  ])('of %i cores has the threads %j', (cores, counts) => expect(threadCounts(cores)).toEqual(counts));
});
