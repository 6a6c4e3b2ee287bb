/**
 * Largest |slot| of every ciphertext value of a packed module over the calibration probes, unused slots
 * included.
 */
import { runCipher } from '../ir/interpreter/cipher.js';
import type { Block, Module } from '../ir/module.js';
import type { ValueBounds } from './plan-levels.js';
import type { Ranges } from './ranges.js';

export function measureBounds(module: Module, ranges: Ranges): ValueBounds {
  const bounds = new Map<number, number>();
  for (const probe of probesOf(ranges)) {
    runCipher(module, probe, {
      observe: (op, values) => {
        op.results.forEach((result, i) => {
          let bound = bounds.get(result.id) ?? 0;
          for (const vector of values[i]?.re ?? [])
            for (const x of vector) bound = Math.max(bound, Math.abs(x));
          bounds.set(result.id, bound);
        });
      },
    });
  }
  for (const func of module.functions) boundLoops(func.body, bounds);
  return bounds;
}

/** A loop's results are what its body yields; the bound covers every iteration. */
function boundLoops(block: Block, bounds: Map<number, number>): void {
  for (const op of block.ops) {
    for (const region of op.regions) {
      boundLoops(region, bounds);
      op.results.forEach((result, i) => {
        const yielded = region.results[i];
        bounds.set(result.id, yielded === undefined ? 0 : (bounds.get(yielded.id) ?? 0));
      });
    }
  }
}

export function probesOf(ranges: Ranges): Record<string, Float64Array>[] {
  return ranges.probes.map((probe) =>
    Object.fromEntries(Object.entries(probe).map(([name, values]) => [name, Float64Array.from(values)])),
  );
}
