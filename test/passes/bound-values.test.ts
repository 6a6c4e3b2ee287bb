import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { compile } from '../../src/compile.js';
import { runCipher } from '../../src/ir/interpreter/cipher.js';
import { runTensor } from '../../src/ir/interpreter/tensor.js';
import { walkOps } from '../../src/ir/module.js';
import { boundValues } from '../../src/passes/bound-values.js';
import { nodeRanges, valueRanges } from '../../src/passes/calibrate.js';
import { measureBounds } from '../../src/passes/measure-bounds.js';
import { mergeDuplicates } from '../../src/passes/merge-duplicates.js';
import { outlineLayers } from '../../src/passes/outline-layers.js';
import { packModule } from '../../src/passes/pack/index.js';
import { planLevels } from '../../src/passes/plan-levels.js';
import { defined } from '../../src/support/invariant.js';
import { defaultLiteral, makeParameters } from '../../src/target/parameters.js';
import { bert, smallBert } from './bert.js';

/** Measured values have passed polynomials; calibrated ones have not. */
const approximation = 0.01;
const parameters = makeParameters(defaultLiteral('tiny', true));

describe('bounds without probes', () => {
  it.each([
    ['all positions used', 8, undefined],
    ['padded tokens', 6, undefined],
    ['offsets in slots', 8, { offsetsInSlots: 4, offsetsInArray: 0 }],
    ['streamed', 8, { offsetsInSlots: 1, offsetsInArray: 2 }],
  ] as const)('cover what the probes show: %s', (_, length, options) => {
    const { module, ranges } = bert(smallBert, length);
    const packed = outlineLayers(
      mergeDuplicates(packModule(module, parameters, nodeRanges(ranges), options, valueRanges(ranges))),
    );
    const measured = measureBounds(packed, ranges);
    const derived = boundValues(packed);
    for (const func of packed.functions) {
      walkOps(func.body, (op) => {
        for (const { id, type } of op.results) {
          if (type.kind !== 'ct') continue;
          const [least, bound] = [measured.get(id) ?? 0, derived.get(id) ?? 0];
          expect(bound, `${op.kind} of ${op.loc}`).toBeGreaterThanOrEqual(least * (1 - approximation));
          expect(bound, `${op.kind} of ${op.loc}`).toBeLessThan(Infinity);
        }
      });
    }
  });

  it('compile without probes: a warning, an unknown error, and a plan that computes the model', async () => {
    const { bytes, ranges, inputs } = bert(smallBert, 8);
    const folder = mkdtempSync(join(tmpdir(), 'aegis-bounds-'));
    try {
      writeFileSync(join(folder, 'bert.onnx'), bytes);
      const { cipher, tensor, warnings } = await compile(join(folder, 'bert.onnx'), {
        ring: 'small',
        insecure: true,
        ranges: { ...ranges, probes: [] },
      });
      expect(warnings.map((warning) => warning.code)).toEqual(['A105']);
      expect(cipher.outputs[0]?.predictedError).toBeUndefined();
      const input = defined(inputs[0], 'input');
      const wanted = defined(runTensor(tensor, input)['last_hidden_state'], 'reference');
      const found = defined(runCipher(cipher, input)['last_hidden_state'], 'output');
      wanted.forEach((x, i) => expect(Math.abs(x - (found[i] ?? NaN))).toBeLessThan(0.02));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('refuses a bootstrap of a value of unknown range', () => {
    const { module, ranges } = bert({ ...smallBert, layers: 1 }, 8);
    const packed = mergeDuplicates(packModule(module, parameters, nodeRanges(ranges)));
    expect(() => planLevels(packed, new Map())).toThrow('range of its value is not known');
  });
});
