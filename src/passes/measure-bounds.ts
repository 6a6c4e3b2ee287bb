/**
 * Largest |slot| of every ciphertext value of a packed module over the calibration probes, unused slots
 * included.
 */
import { runCipher } from '../ir/interpreter/cipher.js';
import type { Block, Module } from '../ir/module.js';
import { axesCount } from '../ir/types.js';
import { defined } from '../support/invariant.js';
import type { ValueBounds } from './plan-levels.js';
import type { Ranges } from './ranges.js';

/** Bounds are doubled before they are used (plan-levels), so a few probes are enough. */
const boundProbes = 4;
/** Slot values that all clear runs of one pass may compute: a few seconds of the interpreter. */
const clearRunBudget = 4e8;

/** How many clear runs of a module a pass can afford, at least one and at most `wanted`. */
export function affordableRuns(module: Module, wanted: number): number {
  const slots = defined(module.parameters, 'parameters').slots;
  let elements = 1;
  for (const func of module.functions) {
    if (func.models === undefined) elements += countElements(func.body, 1);
  }
  return Math.max(1, Math.min(wanted, Math.floor(clearRunBudget / (elements * slots))));
}

function countElements(block: Block, trips: number): number {
  return block.ops.reduce((sum, op) => {
    const inner = op.regions.reduce(
      (all, region) => all + countElements(region, op.attrs.tripCount as number),
      0,
    );
    const own = op.results.reduce(
      (all, { type }) => all + (type.kind === 'ct' ? axesCount(type.axes) : 0),
      0,
    );
    return sum + trips * (inner + own);
  }, 0);
}

/** Ops that only move slots and elements: their results are as large as their operand. */
const movements = new Set([
  'ct.rotate',
  'ct.reshape',
  'ct.index',
  'ct.slice',
  'ct.relinearize',
  'ct.rescale',
]);

export function measureBounds(module: Module, ranges: Ranges): ValueBounds {
  const bounds = new Map<number, number>();
  for (const probe of probesOf(ranges).slice(0, affordableRuns(module, boundProbes))) {
    runCipher(module, probe, {
      observe: (op, values) => {
        const source = op.operands[0];
        const moved = source !== undefined && movements.has(op.kind) ? bounds.get(source.id) : undefined;
        op.results.forEach((result, i) => {
          const bound = moved ?? largestSlot(values[i]?.re ?? []);
          bounds.set(result.id, Math.max(bound, bounds.get(result.id) ?? 0));
        });
      },
    });
  }
  for (const func of module.functions) boundLoops(func.body, bounds);
  return bounds;
}

function largestSlot(vectors: readonly Float64Array[]): number {
  let [least, most] = [0, 0];
  for (const vector of vectors) {
    for (const x of vector) {
      if (x > most) most = x;
      else if (x < least) least = x;
    }
  }
  return Math.max(most, -least);
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
