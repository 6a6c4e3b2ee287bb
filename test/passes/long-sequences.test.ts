/**
 * Memory of a layer grows with the tokens, not with their square: scores are streamed, keys of loops are few.
 */
import { describe, expect, it } from 'vitest';
import { lowerToPlan } from '../../src/backend/index.js';
import { walkOps } from '../../src/ir/module.js';
import { calibrateModule } from '../../src/passes/calibrate.js';
import type { PackOptions } from '../../src/passes/pack/context.js';
import { defaultPack, runPipeline } from '../../src/passes/pipeline.js';
import { defaultLiteral, makeParameters } from '../../src/target/parameters.js';
import { randomInput, tinyTransformer, type TinyShape } from './tiny-transformer.js';

const parameters = makeParameters(defaultLiteral('small', true));
const timeoutMs = 120_000;

function lowered(tokens: number, pack: Partial<PackOptions>) {
  const shape: TinyShape = { tokens, width: 16, heads: 2, hidden: 32, sharpness: 1 };
  const module = tinyTransformer(shape, 7);
  const ranges = calibrateModule(module, [{ x: randomInput(shape, 1) }]);
  const { module: cipher } = runPipeline(
    module,
    { parameters, ranges, pack: { ...defaultPack, ...pack } },
    () => 0,
    () => undefined,
  );
  const { summary, memory } = lowerToPlan(cipher, { compilerVersion: 'test' });
  return { cipher, summary, memory };
}

describe('long sequences', () => {
  it.each([1, 2])(
    'take at most 2.1 times the memory at twice the tokens, %i blocks',
    (tokenBlocks) => {
      const [short, long] = [256, 512].map((tokens) => lowered(tokens, { tokenBlocks }).summary.peakBytes);
      expect(long! / short!).toBeLessThan(2.1);
    },
    timeoutMs,
  );

  it(
    'rotate by few keys where the keys of all offsets are too large',
    () => {
      const pack = { offsetsInSlots: 1, offsetsInArray: 8 };
      const many = lowered(256, pack);
      const few = lowered(256, { ...pack, offsetKeysLimitBytes: 2 ** 24 });
      const trips: number[] = [];
      walkOps(few.cipher.functions.at(-1)!.body, (op) => {
        if (op.kind === 'loop') trips.push(op.attrs.tripCount as number);
      });
      // 32 steps, eight of them together.
      expect(trips).toEqual([4]);
      expect(few.memory.keys).toBeLessThan(0.85 * many.memory.keys);
      // As many rotations: the sums are turned once for every offset in both forms.
      expect(few.summary.rotations / many.summary.rotations).toBeCloseTo(1, 1);
    },
    timeoutMs,
  );
});
