import { describe, expect, it } from 'vitest';
import { lowerToPlan, readPlan } from '../../src/backend/index.js';
import type { Module, Value } from '../../src/ir/module.js';
import type { OpPlacement } from '../../src/ir/placement.js';
import { partial, replicated } from '../../src/ir/sharding.js';
import { checkPlacement } from '../../src/ir/verify-placement.js';
import { calibrateModule } from '../../src/passes/calibrate.js';
import { coPlace, strategies, type Strategy } from '../../src/passes/co-place/index.js';
import { defaultPack, runPipeline } from '../../src/passes/pipeline.js';
import { defaultLiteral, makeParameters } from '../../src/target/parameters.js';
import { loadProfile } from '../../src/target/profile.js';
import { axis, buildModule, ct } from '../backend/oracle.js';
import { bert, smallBert } from './bert.js';
import { randomInput, tinyTransformer } from './tiny-transformer.js';

function tinyCipher(): Module {
  const shape = { tokens: 7, width: 16, heads: 2, hidden: 32, sharpness: 1 };
  const module = tinyTransformer(shape, 7);
  const inputs = Array.from({ length: 8 }, (_, i) => ({ x: randomInput(shape, 100 + i) }));
  const context = {
    parameters: makeParameters(defaultLiteral('tiny', true)),
    ranges: calibrateModule(module, inputs),
    pack: { ...defaultPack, offsetsInSlots: 1, offsetsInArray: 2 },
  };
  return runPipeline(
    module,
    context,
    () => 0,
    () => undefined,
  ).module;
}

const profile = loadProfile('a100-40g-nvlink');
const tiny = tinyCipher();

/** Arithmetic alone, without launches and memory, so that sharing work out pays on a toy ring too. */
const slow = { ...profile, launchSeconds: 0, modularRate: 1e6, memoryBandwidth: 1e18 };

/** A linear layer, a square and another layer on token blocks p. */
function blockwise(): Module {
  return buildModule({
    inputs: [ct([axis('p', 4), axis('i', 2)], 4)],
    body: (b, [x]) => {
      const layer = (value: Value, scale: string, name: string): Value => {
        const flat = b.op('ct.reshape', [value], { axes: [axis('p', 4), axis('i', 2)] as never }, name);
        const turned = b.op('ct.rotate', [flat], { axis: 'b', steps: [0, 1, 2, 3] }, name);
        const axes = [axis('f', 2), axis('g', 2), axis('i', 2), axis('b', 4)];
        const values = Array.from({ length: 32 }, (_, k) => k / 32);
        const weight = b.op('pt.constant', [], { axes: axes as never, values }, name);
        const sums = b.op('ct.contract', [turned, weight], { over: ['i', 'b'], scale }, name);
        const layered = b.op('ct.rotate_each', [sums], { axis: 'g', steps: [0, 4], sum: true }, name);
        return b.op('ct.rescale', [layered], {}, name);
      };
      const inner = layer(x!, 'D4', 'ffn1');
      const square = b.op('ct.relinearize', [b.op('ct.mul', [inner, inner], { over: [] }, 'act')], {}, 'act');
      return [layer(b.op('ct.rescale', [square], {}, 'act'), 'D2', 'ffn2')];
    },
  });
}

function shape(placed: ReturnType<typeof coPlace>): unknown {
  const { placement, report } = placed;
  const functions = placement.functions.map(({ name, args, results, ops }) => [
    name,
    args,
    results,
    [...ops.values()],
  ]);
  return { functions, report };
}

describe('co-place', () => {
  it.each(strategies)('places a small Transformer by strategy %s', (strategy) => {
    for (const devices of [1, 2, 3, 4]) {
      const { placement, report } = coPlace(tiny, { strategy, devices, profile });
      expect(checkPlacement(tiny, placement)).toEqual([]);
      expect(report.gap).toBeLessThan(1e-9);
      expect(report.computeSeconds + report.communicationSeconds).toBe(report.seconds);
      if (devices === 1) expect(report.communicationSeconds).toBe(0);
    }
  });

  it('is never slower with more freedom', () => {
    const seconds = (strategy: Strategy) => coPlace(tiny, { strategy, devices: 2, profile }).report.seconds;
    const best = seconds('coplaced') * (1 - 1e-9);
    expect(best).toBeLessThanOrEqual(Math.min(seconds('limb'), seconds('app'), seconds('replicate')));
    expect(seconds('app') * (1 - 1e-9)).toBeLessThanOrEqual(seconds('replicate'));
  });

  it.each(['app', 'coplaced'] as const)(
    'keeps token blocks where they are: no traffic, by %s',
    (strategy) => {
      const module = blockwise();
      const placed = coPlace(module, { strategy, devices: 4, profile: slow });
      expect(placed.report.communicatedBytes).toBe(0);
      const single = coPlace(module, { strategy, devices: 1, profile: slow }).report.seconds;
      expect(placed.report.seconds).toBeCloseTo(single / 4, 9);
      for (const [op, { results }] of placed.placement.functions[0]!.ops) {
        if (op.kind === 'ct.reshape') continue; // a view of the input costs nothing anywhere
        expect(results[0]![0]).toMatchObject({ kind: 'split', owners: [0, 1, 2, 3] });
      }
    },
  );

  it('moves limbs for every key switch where limbs are sharded', () => {
    const { report } = coPlace(blockwise(), { strategy: 'limb', devices: 4, profile: slow });
    expect(report.communicatedBytes).toBeGreaterThan(0);
  });

  it('gives up time for memory, and says so where the limit is out of reach', () => {
    const place = (memoryLimit?: number) =>
      coPlace(tiny, { strategy: 'coplaced', devices: 2, profile, memoryLimit }).report;
    const free = place();
    const least = place(1);
    expect(least.fits).toBe(false);
    expect(least.memoryBytes).toBeLessThan(free.memoryBytes);
    const limit = (free.memoryBytes + least.memoryBytes) / 2;
    const tight = place(limit);
    expect(tight.fits).toBe(true);
    expect(tight.memoryBytes).toBeLessThanOrEqual(limit);
    expect(tight.seconds).toBeGreaterThanOrEqual(free.seconds);
    expect(tight.gap).toBeGreaterThanOrEqual(0);
  });

  it('counts the weights of every call of an outlined layer', () => {
    const { module, ranges } = bert(smallBert, 8);
    const context = { parameters: makeParameters(defaultLiteral('small', true)), ranges, pack: defaultPack };
    const cipher = runPipeline(
      module,
      context,
      () => 0,
      () => undefined,
    ).module;
    const { placement, report } = coPlace(cipher, { strategy: 'app', devices: 2, profile });
    const { plan } = lowerToPlan(cipher, { compilerVersion: 'test', placement, profile });
    const held = readPlan(plan).programs.map(({ memory }) => Number(memory.keys) + Number(memory.plaintexts));
    const ratio = report.memory.residentBytes / Math.max(...held);
    expect(ratio).toBeGreaterThan(0.95);
    expect(ratio).toBeLessThan(1.12);
  });

  it('places the same module alike', () => {
    const place = () => shape(coPlace(tinyCipher(), { strategy: 'coplaced', devices: 3, profile }));
    expect(place()).toEqual(place());
  });
});

describe('the checker of placements', () => {
  const module = blockwise();
  const { placement } = coPlace(module, { strategy: 'app', devices: 4, profile: slow });
  const main = placement.functions[0]!;
  const changed = (kind: string, change: Partial<OpPlacement>): string[] => {
    const ops = new Map(main.ops);
    for (const [op, old] of ops) if (op.kind === kind) ops.set(op, { ...old, ...change });
    return checkPlacement(module, { ...placement, functions: [{ ...main, ops }] });
  };

  it.each<[string, Partial<OpPlacement>, RegExp]>([
    ['ct.rescale', { results: [[partial]] }, /not split along p/],
    ['ct.rotate', { operands: [[partial]] }, /not partial/],
    ['ct.relinearize', { results: [[{ kind: 'limbs', owners: [0] }]] }, /dealt otherwise/],
    ['ct.rotate_each', { results: [[replicated]] }, /not split along p/],
    ['ct.mul', { modUp: 'aggregate' }, /without limbs/],
    ['ct.reshape', { results: [[{ kind: 'split', axis: 'q', owners: [0] }]] }, /axis q has undefined/],
    ['ct.contract', { results: [[{ kind: 'split', axis: 'p', owners: [0, 1, 2, 9] }]] }, /no rank/],
  ])('refuses %s placed wrongly', (kind, change, fault) => {
    expect(changed(kind, change).join('\n')).toMatch(fault);
  });
});
