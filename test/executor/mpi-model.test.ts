/** A whole model as processes of mpirun: the bits of one rank, and the bytes of ranks as threads. */
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readPlan } from '../../src/backend/index.js';
import { lowerPlaced, place, type PlacementOptions } from '../../src/compile/place.js';
import { doctor, encrypt, keygen, run, type RunReport } from '../../src/executor/index.js';
import type { Module } from '../../src/ir/module.js';
import { calibrateModule } from '../../src/passes/calibrate.js';
import { defaultPack, runPipeline } from '../../src/passes/pipeline.js';
import { defined } from '../../src/support/invariant.js';
import { defaultLiteral, makeParameters } from '../../src/target/parameters.js';
import { randomInput, tinyTransformer, type TinyShape } from '../passes/tiny-transformer.js';
import { binaries } from './fixture.js';

const timeoutMs = 300_000;
const parameters = makeParameters(defaultLiteral('small', true));
const shape: TinyShape = { tokens: 32, width: 16, heads: 2, hidden: 32, sharpness: 1 };

const folder = mkdtempSync(join(tmpdir(), 'aegis-mpi-model-'));
const at = (name: string): string => join(folder, name);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const mpi = spawnSync('mpirun', ['--version']).status === 0 && (await doctor()).mpi !== '';
if (!mpi) process.stderr.write('no model is run over mpi: no mpirun, or a build without MPI\n');

/** Root and more processes than cores are usual in containers; no shared memory between address spaces there. */
const mpiOptions = [
  '--allow-run-as-root',
  '--oversubscribe',
  '--mca',
  'btl_vader_single_copy_mechanism',
  'none',
];

interface Ended {
  readonly status: number | null;
  readonly out: string;
  readonly err: string;
}

function mpirun(ranks: number, args: readonly string[]): Promise<Ended> {
  const program = join(binaries, 'aegis-exec');
  const child = spawn(
    'mpirun',
    [...mpiOptions, '-n', `${ranks}`, program, ...args, '--channel', 'mpi', '--json'],
    { env: { ...process.env, OMPI_MCA_rmaps_base_oversubscribe: '1' } },
  );
  const text = { out: '', err: '' };
  child.stdout.on('data', (data: Buffer) => (text.out += data.toString()));
  child.stderr.on('data', (data: Buffer) => (text.err += data.toString()));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status) => resolve({ status, ...text }));
  });
}

/** What two reports on one plan have in common. */
function traffic({ ranks }: Pick<RunReport, 'ranks'>) {
  return ranks.map(({ rank, peakBytes, staticBytes, collectives }) => ({
    rank,
    peakBytes,
    staticBytes,
    collectives: collectives.map(({ id, node, kind, executions, receivedBytes }) => ({
      id,
      node,
      kind,
      executions,
      receivedBytes,
    })),
  }));
}

describe.skipIf(!mpi)('one layer at the small ring, ranks as processes', () => {
  let cipher: Module;
  let single: RunReport;

  const files = (name: string, out: string) => ({
    plan: at(name),
    keys: at('eval.keys'),
    in: at('request.ct'),
    out: at(out),
  });
  const write = (name: string, options: PlacementOptions): Uint8Array => {
    const { plan, weights } = lowerPlaced(place(cipher, options), options);
    writeFileSync(at(name), plan);
    writeFileSync(at(`${name}.weights`), weights);
    return plan;
  };

  beforeAll(async () => {
    const tensor = tinyTransformer(shape, 7);
    const probes = [1, 2, 3].map((seed) => ({ x: randomInput(shape, seed) }));
    const context = { parameters, ranges: calibrateModule(tensor, probes), pack: defaultPack };
    ({ module: cipher } = runPipeline(
      tensor,
      context,
      () => 0,
      () => undefined,
    ));
    write('single', {});
    await keygen({ plan: at('single'), directory: folder, seed: 5 });
    const inputs = { x: randomInput(shape, 4) };
    await encrypt({ plan: at('single'), key: at('public.key'), inputs, out: at('request.ct') });
    single = await run({ ...files('single', 'single.ct'), threads: 2 });
  }, timeoutMs);

  const placements = (['coplaced', 'limb'] as const).flatMap((strategy) =>
    [2, 4].map((devices) => ({ strategy, devices })),
  );
  it.each(placements)(
    '$strategy on $devices',
    async ({ strategy, devices }) => {
      const name = `${strategy}-${devices}`;
      const { programs } = readPlan(write(name, { strategy, devices }));
      const local = await run({ ...files(name, 'local.ct'), threads: devices });
      expect(local.outputSha256).toBe(single.outputSha256);

      const { plan, keys, in: request, out } = files(name, `${name}.ct`);
      const ended = await mpirun(devices, [
        plan,
        '--keys',
        keys,
        '--in',
        request,
        '-o',
        out,
        '--threads',
        '1',
      ]);
      expect(ended.err).toBe('');
      expect(ended.status).toBe(0);
      const report = JSON.parse(ended.out) as Pick<RunReport, 'outputSha256' | 'ranks'>;
      expect(report.outputSha256).toBe(single.outputSha256);
      expect(readFileSync(out).equals(readFileSync(at('single.ct')))).toBe(true);
      expect(traffic(report)).toEqual(traffic(local));
      expect(report.ranks).toHaveLength(devices);
      for (const { rank, peakBytes, collectives } of report.ranks) {
        const { ports, frame, keys: keyBytes, plaintexts } = defined(programs[rank], 'program').memory;
        expect(peakBytes).toBe(ports + frame + keyBytes + plaintexts);
        expect(collectives.length).toBeGreaterThan(0);
        for (const one of collectives) expect(one.receivedBytes).toBe(one.predictedBytes);
      }
    },
    timeoutMs,
  );
});
