import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { sampleInputs } from '../../src/compile.js';
import { readSamples } from '../../src/data/index.js';
import { importModel } from '../../src/frontend/index.js';
import { calibrateModule } from '../../src/passes/calibrate.js';
import { measureBounds } from '../../src/passes/measure-bounds.js';
import { cipherPipeline, defaultPack } from '../../src/passes/pipeline.js';
import type { Ranges } from '../../src/passes/ranges.js';
import { runCipher } from '../../src/ir/interpreter/cipher.js';
import type { Module } from '../../src/ir/module.js';
import { printModule } from '../../src/ir/printer.js';
import { assertVerified } from '../../src/ir/verifier.js';
import { planLevels, type LevelReport, type PlanLevelsOptions } from '../../src/passes/plan-levels.js';
import { planGreedily } from '../../src/passes/plan-levels/greedy.js';
import { LevelPrices } from '../../src/passes/plan-levels/price.js';
import { buildLevelProblem } from '../../src/passes/plan-levels/problem.js';
import { levelLimits, solveLevels } from '../../src/passes/plan-levels/solve.js';
import { AegisError } from '../../src/support/diagnostics.js';
import { defined } from '../../src/support/invariant.js';
import { defaultLiteral, makeParameters } from '../../src/target/parameters.js';
import { defaultProfile, loadProfile } from '../../src/target/profile.js';
import { leastSeconds, loadSolver } from './level-oracle.js';
import { randomModule, unitBounds, type RandomShape } from './random-cipher.js';
import { random } from './tiny-transformer.js';

/** Few levels, so that small modules need bootstraps. */
const parameters = makeParameters(defaultLiteral('tiny', true, { usableLevels: 4 }));
const prices = new LevelPrices(parameters, loadProfile(defaultProfile));
/** The tolerance of the integer program, relative. */
const oracleTolerance = 1e-4;
/** Of the bootstraps that the clear interpreter runs. */
const sineError = 1e-3;

const shapes: readonly (readonly [name: string, shape: RandomShape, seeds: number])[] = [
  ['straight', { ops: 7 }, 12],
  ['with loops', { ops: 6, loops: true }, 12],
  ['layers', { ops: 4, calls: 3 }, 10],
];

function planned(module: Module, options: PlanLevelsOptions = {}): { module: Module; report: LevelReport } {
  let report: LevelReport | undefined;
  const onReport = (one: LevelReport): void => void (report = one);
  const result = planLevels(module, unitBounds(module), { ...options, onReport });
  assertVerified(result, 'plan-levels');
  return { module: result, report: defined(report, 'report') };
}

/** Undefined where the greedy walk finds no plan. */
function greedySeconds(module: Module): number | undefined {
  try {
    return prices.module(planGreedily(module, unitBounds(module), prices));
  } catch (error) {
    if (error instanceof AegisError) return undefined;
    throw error;
  }
}

const example = ['examples/digits-vit/digits_vit.onnx', 'examples/digits-vit/digits_vit.samples.json'];
const corpus = process.env.AEGIS_CORPUS ?? '../shared/data';
const corpusModels = [
  ['trained/digits_vit_bnrelu.dyn20_static.onnx', 'trained/digits_vit_bnrelu.samples.json'],
  ['trained/digits_vit_sdpa.dyn20_static.onnx', 'trained/digits_vit_sdpa.samples.json'],
  ['trained/digits_vit_tel.dyn20_static.onnx', 'trained/digits_vit_tel.samples.json'],
  ['trained/spam_hfbert_sdpa.dyn20_static.onnx', 'trained/spam_hfbert.samples.json'],
  ['trained/spam_hfbert_encoder_only.dyn20_static.onnx', 'trained/spam_hfbert_encoder_only.samples.json'],
  ['trained/spam_mha.dyn20_static.onnx', 'trained/spam_mha.samples.json'],
  [
    'reconstructed/berttiny_emotion_encoder.dyn20_static.onnx',
    'reconstructed/berttiny_emotion_encoder.samples.json',
  ],
  ['reconstructed/gpt_nano_sort.dyn18_static.onnx', 'reconstructed/gpt_nano_sort.samples.json'],
].map((paths) => paths.map((path) => join(corpus, path)));

/** The module that plan-levels gets, on a few samples. */
async function packedModel(model: string, samplesPath: string): Promise<{ module: Module; ranges: Ranges }> {
  const samples = { ...(await readSamples(samplesPath)), count: 2 };
  const shapes = Object.fromEntries([...samples.inputs].map(([name, { shape }]) => [name, shape]));
  const { module: tensor } = importModel(model, { shapes });
  const ranges = calibrateModule(tensor, sampleInputs(tensor, samples));
  const context = { parameters: makeParameters(defaultLiteral('secure', false)), ranges, pack: defaultPack };
  let module: Module = tensor;
  for (const pass of cipherPipeline) {
    if (pass.name === 'plan-levels') break;
    module = pass.run(module, context);
  }
  return { module, ranges };
}

describe('plan-levels of models', () => {
  const models = process.env.AEGIS_TEST_FULL === undefined ? [example] : [example, ...corpusModels];
  it.each(models)('%s: less than the greedy plan, within 1 %% of the least', async (model, samples) => {
    if (!existsSync(defined(model, 'model'))) return console.log(`skipped: no ${String(model)}`);
    const { module, ranges } = await packedModel(defined(model, 'model'), defined(samples, 'samples'));
    let report: LevelReport | undefined;
    const planned = planLevels(module, measureBounds(module, ranges), { onReport: (one) => (report = one) });
    assertVerified(planned, 'plan-levels');
    const { seconds, greedySeconds, gap } = defined(report, 'report');
    expect(seconds).toBeLessThan(greedySeconds ?? Infinity);
    expect(gap).toBeLessThanOrEqual(0.01);
  });
});

describe('plan-levels', () => {
  it.each(shapes)('takes the least seconds that an integer program finds: %s', async (_, shape, seeds) => {
    const solve = await loadSolver();
    let bootstraps = 0;
    for (let seed = 1; seed <= seeds; seed++) {
      const module = randomModule(parameters, shape, seed);
      const { report } = planned(module);
      const least = leastSeconds(module, prices, solve);
      const { problem, relaxed } = buildLevelProblem(module, { prices, known: () => true, sharers: 6 });
      const { value } = solveLevels(problem, levelLimits);
      expect(relaxed).toBe(0);
      expect(Math.abs(value - least)).toBeLessThanOrEqual(oracleTolerance * least);
      expect(report.boundSeconds).toBeLessThanOrEqual(least * (1 + oracleTolerance));
      expect(report.seconds).toBeGreaterThanOrEqual(least * (1 - oracleTolerance));
      expect(report.gap).toBeLessThanOrEqual(0.01);
      bootstraps += report.bootstraps;
    }
    expect(bootstraps).toBeGreaterThan(0);
  });

  it.each(shapes)('never takes more than the greedy plan, and computes the same: %s', (_, shape) => {
    let better = 0;
    for (let seed = 101; seed <= 130; seed++) {
      const module = randomModule(parameters, { ...shape, ops: 2 * shape.ops }, seed);
      const { module: result, report } = planned(module);
      const greedy = greedySeconds(module);
      expect(report.seconds).toBeCloseTo(prices.module(result), 12);
      if (greedy !== undefined) expect(report.seconds).toBeLessThanOrEqual(greedy * (1 + 1e-9));
      if (greedy !== undefined && report.seconds < 0.99 * greedy) better++;
      const next = random(seed);
      const x = Float64Array.from({ length: parameters.slots }, next);
      const [wanted, found] = [module, result].map((one) => defined(runCipher(one, { x })['y'], 'output'));
      wanted?.forEach((value, i) => expect(Math.abs(value - (found?.[i] ?? NaN))).toBeLessThan(sineError));
    }
    // A layer's boundary is chosen by both; inside there is little to choose in so few ops.
    if (shape.calls === undefined) expect(better).toBeGreaterThan(0);
  });

  it('gives a bound where tables do not fit, and its gap is true', () => {
    const limits = { ...levelLimits, tableEntries: 2000, sweeps: 10, rounds: 1, neighbourhoods: 1 };
    for (let seed = 1; seed <= 4; seed++) {
      const module = randomModule(parameters, { ops: 6 }, seed);
      const exact = planned(module).report;
      const { report } = planned(module, { limits });
      expect(report.boundSeconds).toBeLessThanOrEqual(exact.seconds * (1 + 1e-9));
      expect(report.seconds).toBeGreaterThanOrEqual(exact.boundSeconds * (1 - 1e-9));
      expect(report.seconds).toBeLessThanOrEqual(
        defined(report.greedySeconds ?? undefined, 'greedy') * (1 + 1e-9),
      );
    }
  });

  it('gives the same module for the same input', () => {
    const texts = [1, 2].map(() => printModule(planned(randomModule(parameters, { ops: 12 }, 7)).module));
    expect(texts[0]).toBe(texts[1]);
  });

  it('refuses a polynomial deeper than all levels, by node', () => {
    const few = makeParameters(defaultLiteral('tiny', true, { usableLevels: 1, stcLevels: 1 }));
    const module = randomModule(few, { ops: 8 }, 3);
    expect(() => planLevels(module, unitBounds(module))).toThrow(/L101.*no plan of bootstraps[^]*node/);
  });

  it('bootstraps only what has a range, while there is a way', () => {
    const module = randomModule(parameters, { ops: 12 }, 5);
    expect(planned(module).report.bootstraps).toBeGreaterThan(0);
    expect(() => planLevels(module, new Map())).toThrow('L102');
  });
});
