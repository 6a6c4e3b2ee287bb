/**
 * Largest |slot| of every ciphertext value of a packed module over the calibration probes, unused slots
 * included.
 */
import { runCipher } from '../ir/interpreter/cipher.js';
import { entryName, walkOps, type Block, type Func, type Module, type Value } from '../ir/module.js';
import { axesCount } from '../ir/types.js';
import { defined } from '../support/invariant.js';
import { boundValues } from './bound-values.js';
import { productsOf } from './lazy-mod-down.js';
import type { ValueBounds } from './plan-levels.js';
import type { Ranges } from './ranges.js';

/** Bounds are doubled before they are used (plan-levels), so a few probes are enough. */
const boundProbes = 4;
/** Slot values that all clear runs of one pass may compute: a few seconds of the interpreter. */
const clearRunBudget = 4e8;

/** Slot values and products beyond which one run takes minutes: there are bounds without it. */
const longestClearRun = 1e10;

/** How many clear runs of a module a pass can afford, at most `wanted`: none where one would take minutes. */
export function affordableRuns(module: Module, wanted: number): number {
  const slots = defined(module.parameters, 'parameters').slots;
  const functions = new Map(module.functions.map((func) => [func.name, func]));
  const main = defined(functions.get(entryName), 'main');
  const { elements, products } = countWork(main.body, 1, functions);
  if ((elements + products) * slots > longestClearRun) return 0;
  const total = (1 + elements) * slots;
  return Math.max(1, Math.min(wanted, Math.floor(clearRunBudget / total)));
}

interface Work {
  /** Array elements that are made. */
  readonly elements: number;
  /** Products with plaintexts, which most of the time of large layers goes into. */
  readonly products: number;
}

function countWork(block: Block, trips: number, functions: ReadonlyMap<string, Func>): Work {
  let [elements, products] = [0, 0];
  for (const op of block.ops) {
    const callee = op.kind === 'call' ? functions.get(op.attrs.callee as string) : undefined;
    const called = callee !== undefined && callee.models === undefined ? [callee.body] : [];
    for (const body of [...op.regions, ...called]) {
      const inner = countWork(body, (op.attrs.tripCount as number | undefined) ?? 1, functions);
      elements += trips * inner.elements;
      products += trips * inner.products;
    }
    for (const { type } of op.results) if (type.kind === 'ct') elements += trips * axesCount(type.axes);
    if (op.kind === 'ct.contract') products += trips * productsOf(op);
  }
  return { elements, products };
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

/**
 * On probes, or from calibrated intervals where there are no probes or a clear run takes too long. A file
 * without intervals leaves only the run.
 */
export function measureBounds(module: Module, ranges: Ranges): ValueBounds {
  const runs = affordableRuns(module, boundProbes);
  const probes = probesOf(ranges).slice(0, ranges.values === undefined ? Math.max(1, runs) : runs);
  if (probes.length === 0) return boundValues(module);
  const bounds = new Map<number, number>();
  module.inputs.forEach((port, i) => {
    const arg = mainOf(module).body.args[i];
    // A port's bound is twice what calibration saw (pack).
    if (port.bound !== undefined && arg !== undefined) bounds.set(arg.id, port.bound / 2);
  });
  for (const probe of probes) {
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
  boundCalls(module, bounds);
  return bounds;
}

function mainOf(module: Module): Func {
  return defined(
    module.functions.find((func) => func.name === entryName),
    'main',
  );
}

/** Arguments and results of functions: the largest over all calls. Callers come after their callees. */
function boundCalls(module: Module, bounds: Map<number, number>): void {
  const functions = new Map(module.functions.map((func) => [func.name, func]));
  const raise = (to: Value | undefined, from: Value | undefined): void => {
    const bound = from === undefined ? undefined : bounds.get(from.id);
    if (to === undefined || bound === undefined) return;
    bounds.set(to.id, Math.max(bound, bounds.get(to.id) ?? 0));
  };
  for (const func of module.functions) {
    walkOps(func.body, (op) => {
      const body = op.kind === 'call' ? functions.get(op.attrs.callee as string)?.body : undefined;
      op.results.forEach((result, i) => raise(result, body?.results[i]));
      op.operands.forEach((operand, i) => raise(body?.args[i], operand));
    });
  }
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

/** What a loop carries is what its body yields; the bound covers every iteration. */
function boundLoops(block: Block, bounds: Map<number, number>): void {
  for (const op of block.ops) {
    for (const region of op.regions) {
      boundLoops(region, bounds);
      op.results.forEach((result, i) => {
        const yielded = region.results[i];
        const bound = yielded === undefined ? 0 : (bounds.get(yielded.id) ?? 0);
        bounds.set(result.id, bound);
        const [arg, initial] = [region.args[i], op.operands[i]];
        if (arg !== undefined) bounds.set(arg.id, Math.max(bound, bounds.get(initial?.id ?? -1) ?? 0));
      });
    }
  }
}

export function probesOf(ranges: Ranges): Record<string, Float64Array>[] {
  return ranges.probes.map((probe) =>
    Object.fromEntries(Object.entries(probe).map(([name, values]) => [name, Float64Array.from(values)])),
  );
}
