import { describe, expect, it } from 'vitest';
import { walkOps, type Module } from '../../src/ir/module.js';
import { axesCount } from '../../src/ir/types.js';
import { runCipher } from '../../src/ir/interpreter/cipher.js';
import { runTensor } from '../../src/ir/interpreter/tensor.js';
import { verifyModule } from '../../src/ir/verifier.js';
import { calibrateModule, nodeRanges } from '../../src/passes/calibrate.js';
import { mergeDuplicates } from '../../src/passes/merge-duplicates.js';
import type { PackOptions } from '../../src/passes/pack/context.js';
import { packModule } from '../../src/passes/pack/index.js';
import { rotationSteps } from '../../src/passes/pipeline.js';
import { planLevels } from '../../src/passes/plan-levels.js';
import { measureBounds } from '../../src/passes/measure-bounds.js';
import { defaultLiteral, makeParameters } from '../../src/target/parameters.js';
import { randomInput, tinyTransformer, type TinyShape } from './tiny-transformer.js';

const parameters = makeParameters(defaultLiteral('tiny', true));

interface Case {
  readonly name: string;
  readonly shape: TinyShape;
  readonly options?: Partial<PackOptions>;
}

const base: TinyShape = { tokens: 8, width: 16, heads: 2, hidden: 32, sharpness: 1 };
const cases: readonly Case[] = [
  { name: 'full tokens, shape by cost', shape: base },
  { name: 'padded tokens', shape: { ...base, tokens: 5 } },
  { name: 'wide scores: rounds of renormalisation', shape: { ...base, tokens: 6, sharpness: 12 } },
  {
    name: 'streamed over blocks of key offsets',
    shape: base,
    options: { featuresInSlots: 1, offsetsInSlots: 1, offsetsInArray: 2 },
  },
  {
    name: 'streamed and padded',
    shape: { ...base, tokens: 7 },
    options: { featuresInSlots: 1, offsetsInSlots: 2, offsetsInArray: 1 },
  },
  { name: 'causal', shape: { ...base, causal: true } },
  { name: 'causal, padded, with rounds', shape: { ...base, tokens: 6, sharpness: 12, causal: true } },
  {
    name: 'causal and biased, streamed and padded',
    shape: { ...base, tokens: 7, causal: true, biased: true },
    options: { featuresInSlots: 1, offsetsInSlots: 2, offsetsInArray: 1 },
  },
  {
    name: 'causal, in a loop that carries the queries, several steps together',
    shape: { ...base, tokens: 7, causal: true, biased: true },
    options: { offsetsInSlots: 1, offsetsInArray: 1, offsetKeysLimitBytes: 0, offsetsTogether: 2 },
  },
  {
    name: 'causal and biased in token blocks',
    shape: { ...base, tokens: 30, causal: true, biased: true },
    options: { tokenBlocks: 4 },
  },
  {
    name: 'features and all key offsets in slots',
    shape: { ...base, tokens: 7 },
    options: { featuresInSlots: 4, offsetsInSlots: 8 },
  },
  {
    name: 'all features in slots, wide scores, causal and biased',
    shape: { ...base, tokens: 6, sharpness: 12, causal: true, biased: true },
    options: { featuresInSlots: 8, offsetsInSlots: 4 },
  },
  {
    name: 'features in slots, streamed, padded, with rounds',
    shape: { ...base, tokens: 6, sharpness: 12 },
    options: { featuresInSlots: 4, offsetsInSlots: 2, offsetsInArray: 1 },
  },
  {
    name: 'features in slots in token blocks',
    shape: { ...base, tokens: 30, causal: true },
    options: { tokenBlocks: 4, featuresInSlots: 2, offsetsInSlots: 4 },
  },
  {
    name: 'features that do not fill the positions in slots, heads neither',
    shape: { tokens: 8, width: 18, heads: 3, hidden: 40, sharpness: 1 },
    options: { featuresInSlots: 4, offsetsInSlots: 4 },
  },
  { name: 'dear keys: giant steps in chains', shape: { ...base, tokens: 7 }, options: { newKey: 100 } },
  {
    name: 'several ciphertexts per token',
    shape: { tokens: 32, width: 32, heads: 4, hidden: 64, sharpness: 1 },
  },
  {
    name: 'features that do not fill the last ciphertext',
    shape: { tokens: 30, width: 24, heads: 3, hidden: 40, sharpness: 1 },
  },
];

describe('pack and plan-levels', () => {
  it.each(cases)('$name', ({ shape, options }) => {
    const module = tinyTransformer(shape, 7);
    const inputs = Array.from({ length: 12 }, (_, i) => ({ x: randomInput(shape, 100 + i) }));
    const ranges = calibrateModule(module, inputs.slice(0, 8));
    const packed = mergeDuplicates(packModule(module, parameters, nodeRanges(ranges), options));
    expect(verifyModule(packed)).toEqual([]);
    const planned = planLevels(packed, measureBounds(packed, ranges));
    expect(verifyModule(planned)).toEqual([]);
    for (const input of inputs) {
      const expected = runTensor(module, input).logits!;
      for (const stage of [packed, planned]) {
        const got = runCipher(stage, input).logits!;
        got.forEach((value, i) => expect(Math.abs(value - expected[i]!)).toBeLessThan(0.01));
      }
    }
  });

  it('takes features into slots where positions are spare, and fewer keys the dearer they are', () => {
    const shape = { ...base, tokens: 4 };
    const module = tinyTransformer(shape, 7);
    const inputs = Array.from({ length: 4 }, (_, i) => ({ x: randomInput(shape, 100 + i) }));
    const ranges = nodeRanges(calibrateModule(module, inputs));
    const pack = (options: Partial<PackOptions>) => packModule(module, parameters, ranges, options);
    const products = (packed: Module): number[] => {
      const found: number[] = [];
      walkOps(packed.functions[0]!.body, ({ kind, operands: [a] }) => {
        if (kind === 'ct.mul' && a!.type.kind === 'ct') found.push(axesCount(a!.type.axes));
      });
      return found;
    };
    // Two heads of eight features and four key offsets fill 64 of 128 positions: one ciphertext for all.
    expect(Math.max(...products(pack({ featuresInSlots: 8, offsetsInSlots: 4 })))).toBe(1);
    expect(Math.max(...products(pack({})))).toBeLessThan(8);
    expect(Math.max(...products(pack({ featuresInSlots: 1 })))).toBe(8);
    const keys = (newKey: number): number => new Set(rotationSteps(pack({ newKey }))).size;
    expect(keys(100)).toBeLessThan(keys(3));
  });
});
