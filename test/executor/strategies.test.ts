/**
 * One model, one cipher module, every placement: the same ciphertexts, and the bytes and memory that the plan
 * predicted (DESIGN section 1, promise 2).
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readPlan, type LoweredPlan } from '../../src/backend/index.js';
import { lowerPlaced, place, type PlacementOptions } from '../../src/compile/place.js';
import { decrypt, encrypt, keygen, run, type RunReport } from '../../src/executor/index.js';
import type { Module } from '../../src/ir/module.js';
import { runTensor } from '../../src/ir/interpreter/tensor.js';
import { calibrateModule } from '../../src/passes/calibrate.js';
import { strategies } from '../../src/passes/co-place/index.js';
import { layerBlocks } from '../../src/passes/layer-blocks.js';
import { defaultPack, runPipeline } from '../../src/passes/pipeline.js';
import { defaultLiteral, makeParameters } from '../../src/target/parameters.js';
import { randomInput, tinyTransformer, type TinyShape } from '../passes/tiny-transformer.js';

const parameters = makeParameters(defaultLiteral('small', true));
const shape: TinyShape = { tokens: 32, width: 16, heads: 2, hidden: 32, sharpness: 1 };
const timeoutMs = 600_000;

describe.each([1, 2])('one layer at the small ring, %i token blocks', (tokenBlocks) => {
  const folder = mkdtempSync(join(tmpdir(), 'aegis-strategies-'));
  const at = (name: string): string => join(folder, name);
  const tensor = tinyTransformer(shape, 7);
  const probes = [1, 2, 3].map((seed) => ({ x: randomInput(shape, seed) }));
  const input = { x: randomInput(shape, 4) };
  let cipher: Module;
  let single: RunReport;

  const write = (name: string, { plan, weights }: LoweredPlan): string => {
    writeFileSync(at(name), plan);
    writeFileSync(at(`${name}.weights`), weights);
    return at(name);
  };
  const runAs = (name: string): Promise<RunReport> =>
    run({ plan: at(name), keys: at('eval.keys'), in: at('request.ct'), out: at(`${name}.ct`), threads: 2 });

  beforeAll(async () => {
    const ranges = calibrateModule(tensor, probes);
    const context = { parameters, ranges, pack: { ...defaultPack, tokenBlocks } };
    const { module } = runPipeline(
      tensor,
      context,
      () => 0,
      () => undefined,
    );
    cipher = { ...module, blocks: layerBlocks(tensor) };
    const plan = write('single', lowerPlaced(place(cipher, {}), {}));
    await keygen({ plan, directory: folder, seed: 5 });
    await encrypt({ plan, key: at('public.key'), inputs: input, out: at('request.ct') });
    single = await runAs('single');
  }, timeoutMs);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('computes the model', async () => {
    const { outputs } = await decrypt({ plan: at('single'), key: at('secret.key'), in: at('single.ct') });
    const expected = runTensor(tensor, input).logits!;
    outputs.logits!.forEach((value, i) => expect(Math.abs(value - expected[i]!)).toBeLessThan(0.01));
  });

  // All combinations with one block; with two, what shares blocks out.
  const full = tokenBlocks === 1 || process.env['AEGIS_TEST_FULL'] === '1';
  const combinations = strategies.flatMap((strategy) =>
    [2, 4].flatMap((devices) => [true, false].map((overlap) => ({ strategy, devices, overlap }))),
  );
  const taken = combinations.filter(
    (one) => full || (one.overlap && ['app', 'coplaced'].includes(one.strategy)),
  );
  it.each(taken)(
    '$strategy on $devices ranks, overlap $overlap',
    async (options: PlacementOptions) => {
      const lowered = lowerPlaced(place(cipher, options), options);
      const name = `${options.strategy}-${options.devices}-${options.overlap}`;
      write(name, lowered);
      const report = await runAs(name);
      expect(report.outputSha256).toBe(single.outputSha256);
      const { programs } = readPlan(lowered.plan);
      expect(report.ranks).toHaveLength(options.devices!);
      report.ranks.forEach((rank, r) => {
        const { ports, frame, keys, plaintexts } = programs[r]!.memory;
        expect(rank.peakBytes).toBe(ports + frame + keys + plaintexts);
        for (const one of rank.collectives) expect(one.receivedBytes).toBe(one.predictedBytes);
        expect(rank.collectives.length).toBeGreaterThan(0);
      });
    },
    timeoutMs,
  );
});
