/** Padding of a length that only the client knows: an encrypted key mask, and masked mean pooling. */
import { describe, expect, it } from 'vitest';
import { runCipher } from '../../src/ir/interpreter/cipher.js';
import { runTensor } from '../../src/ir/interpreter/tensor.js';
import { walkOps } from '../../src/ir/module.js';
import { verifyModule } from '../../src/ir/verifier.js';
import { calibrateModule, nodeRanges } from '../../src/passes/calibrate.js';
import { carryRanges } from '../../src/passes/carry-ranges.js';
import { measureBounds } from '../../src/passes/measure-bounds.js';
import { mergeDuplicates } from '../../src/passes/merge-duplicates.js';
import type { PackOptions } from '../../src/passes/pack/context.js';
import { packModule } from '../../src/passes/pack/index.js';
import { planLevels } from '../../src/passes/plan-levels.js';
import { defaultLiteral, makeParameters } from '../../src/target/parameters.js';
import { random, randomInput, tinyTransformer, type TinyShape } from './tiny-transformer.js';

const parameters = makeParameters(defaultLiteral('tiny', true));
const tolerance = 0.01;

type Inputs = Record<string, Float64Array>;

/** Full length, prefixes, suffixes and masks with holes; padded tokens hold values as large as the others. */
function inputsOf(shape: TinyShape, count: number): Inputs[] {
  const { tokens } = shape;
  // Causal queries need the first key.
  const first = shape.causal === true ? 0 : 1;
  return Array.from({ length: count }, (_, i) => {
    const next = random(900 + i);
    const kept = tokens - Math.floor((i * tokens) / (2 * count));
    const keeps = [(t: number) => t < kept, (t: number) => t >= tokens - kept, () => next() > -0.5][i % 3]!;
    const mask = Float64Array.from({ length: tokens }, (_, t) => (t === first || keeps(t) ? 1 : 0));
    const share = Float64Array.of(tokens / mask.reduce((a, b) => a + b, 0));
    return { x: randomInput(shape, 100 + i), mask, share };
  });
}

const base: TinyShape = { tokens: 8, width: 16, heads: 2, hidden: 32, sharpness: 1, masked: 'mean' };
const cases: readonly [string, TinyShape, Partial<PackOptions>][] = [
  ['all offsets at once', base, {}],
  ['tokens that fill no power of two', { ...base, tokens: 13 }, {}],
  ['rounds of renormalisation', { ...base, tokens: 6, sharpness: 12 }, {}],
  ['streamed', base, { featuresInSlots: 1, offsetsInSlots: 1, offsetsInArray: 2 }],
  ['features in slots', base, { featuresInSlots: 4, offsetsInSlots: 8 }],
  [
    'features in slots with rounds, several offsets in the array',
    { ...base, tokens: 6, sharpness: 12 },
    { featuresInSlots: 8, offsetsInSlots: 2 },
  ],
  ['streamed with rounds', { ...base, sharpness: 12 }, { offsetsInSlots: 1, offsetsInArray: 2 }],
  ['carried', base, { offsetsInSlots: 2, offsetsInArray: 1, offsetKeysLimitBytes: 0 }],
  ['two token blocks', { ...base, tokens: 15 }, { tokenBlocks: 2 }],
  ['causal', { ...base, causal: true }, {}],
  ['causal, with rounds', { ...base, tokens: 6, sharpness: 12, causal: true, biased: true }, {}],
  [
    'causal, carried',
    { ...base, causal: true },
    { offsetsInSlots: 2, offsetsInArray: 1, offsetKeysLimitBytes: 0 },
  ],
  ['causal, two token blocks', { ...base, tokens: 15, causal: true }, { tokenBlocks: 2 }],
  ['four token blocks, streamed', { ...base, tokens: 15 }, { tokenBlocks: 4, offsetsInArray: 1 }],
];

describe('a key mask', () => {
  it.each(cases)('%s', (_, shape, options) => {
    const module = tinyTransformer(shape, 7);
    expect(verifyModule(module)).toEqual([]);
    const inputs = inputsOf(shape, 12);
    const ranges = calibrateModule(module, inputs.slice(0, 9));
    const packed = mergeDuplicates(packModule(module, parameters, nodeRanges(ranges), options));
    expect(verifyModule(packed)).toEqual([]);
    const planned = planLevels(packed, measureBounds(packed, ranges));
    expect(verifyModule(planned)).toEqual([]);
    for (const input of inputs) {
      const expected = runTensor(module, input).logits!;
      for (const stage of [packed, planned]) {
        const got = runCipher(stage, input).logits!;
        got.forEach((value, i) => expect(Math.abs(value - expected[i]!)).toBeLessThan(tolerance));
      }
    }
  });

  it('drops what padded tokens hold', () => {
    const module = tinyTransformer(base, 7);
    const [, , input] = inputsOf(base, 3) as [Inputs, Inputs, Inputs];
    const other = {
      ...input,
      x: input.x!.map((x, i) => (input.mask![Math.floor(i / base.width)] === 1 ? x : -x)),
    };
    expect(input.mask!.includes(0)).toBe(true);
    expect(runTensor(module, other).logits).toEqual(runTensor(module, input).logits);
  });

  it('costs the bootstrap of one ciphertext at most', () => {
    const bootstraps = (shape: TinyShape): number => {
      const module = tinyTransformer(shape, 7);
      const ranges = calibrateModule(module, inputsOf(shape, 6));
      const packed = mergeDuplicates(packModule(module, parameters, nodeRanges(ranges)));
      let count = 0;
      for (const { body } of planLevels(packed, measureBounds(packed, ranges)).functions) {
        walkOps(body, (op) => (count += op.kind === 'ct.bootstrap' ? 1 : 0));
      }
      return count;
    };
    const { masked: _, ...open } = base;
    expect(bootstraps(open)).toBeGreaterThan(0);
    expect(bootstraps({ ...base, masked: 'keys' })).toBeLessThanOrEqual(bootstraps(open) + 1);
  });

  it('is carried to other lengths with the number of kept keys', () => {
    const ranges = calibrateModule(tinyTransformer(base, 7), inputsOf(base, 6));
    const keys = (all: typeof ranges) =>
      all.nodes.find(({ attention }) => attention !== undefined)!.attention!.keys!;
    const carried = carryRanges(ranges, { from: 8, to: 16, shapes: {} });
    expect(keys(carried)).toEqual({ min: 2 * keys(ranges).min, max: 2 * keys(ranges).max });
    expect(keys(ranges).max).toBe(8);
    expect(keys(ranges).min).toBeLessThan(8);
  });
});
