import { describe, expect, it } from 'vitest';
import { runCipher } from '../../src/ir/interpreter/cipher.js';
import { runTensor } from '../../src/ir/interpreter/tensor.js';
import { verifyModule } from '../../src/ir/verifier.js';
import { calibrateModule, nodeRanges } from '../../src/passes/calibrate.js';
import { mergeDuplicates } from '../../src/passes/merge-duplicates.js';
import type { PackOptions } from '../../src/passes/pack/context.js';
import { packModule } from '../../src/passes/pack/index.js';
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
    options: { offsetsInSlots: 1, offsetsInArray: 2 },
  },
  {
    name: 'streamed and padded',
    shape: { ...base, tokens: 7 },
    options: { offsetsInSlots: 2, offsetsInArray: 1 },
  },
  { name: 'causal', shape: { ...base, causal: true } },
  { name: 'causal, padded, with rounds', shape: { ...base, tokens: 6, sharpness: 12, causal: true } },
  {
    name: 'causal and biased, streamed and padded',
    shape: { ...base, tokens: 7, causal: true, biased: true },
    options: { offsetsInSlots: 2, offsetsInArray: 1 },
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
});
