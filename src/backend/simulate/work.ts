/** Work of a plan command: its launch in the cost model's terms. */
import { defined } from '../../support/invariant.js';
import { expansionButterflies } from '../../target/plain-rows.js';
import { kernelWork, type KernelKind, type KernelWork } from '../../target/kernel-cost.js';
import type { Command, Opcode, PlanFunction, PlanView, View } from '../plan-view.js';

export type KernelOp = Exclude<Opcode, 'loop' | 'call' | 'collective' | 'wait'>;

/** Words of a row of each plaintext slot of a function; a callee's argument slots follow from the call. */
export type RowWords = readonly number[];

export function rowWordsOf(plan: PlanView, func: PlanFunction, given: RowWords): RowWords {
  return func.plaintexts.map((slot, i) =>
    slot.argument
      ? defined(given[i], 'plaintext argument')
      : defined(plan.plaintexts[slot.plaintext], 'plaintext').rowWords,
  );
}

export function workOf(command: Command, kind: KernelKind, logN: number, rowWords: RowWords): KernelWork {
  const { dims, reduceRank, plain } = command;
  const product = (sizes: readonly number[]): number => sizes.reduce((a, b) => a * b, 1);
  const limbs = command.limbs.length;
  const words = plain === null ? 0 : defined(rowWords[plain.buffer], 'plaintext slot');
  const plainElements = plain === null ? 0 : elements(plain, dims);
  // One row for all limbs: coefficients.
  const held = plain?.limbStride === 0;
  return kernelWork({
    kind,
    logN,
    batch: product(dims.slice(0, dims.length - reduceRank)),
    summed: product(dims.slice(dims.length - reduceRank)),
    limbs,
    accumulate: command.accumulate,
    sources: command.sourceLimbs.length,
    digits: command.digitCount,
    keys: command.keyDim < 0 ? 1 : (dims[command.keyDim] ?? 1),
    readRows: readRows(command),
    plainWords: plainElements * (held ? Math.min(1, limbs) : limbs) * words,
    butterflies: held ? plainElements * limbs * expansionButterflies(words) : 0,
  });
}

/** Elements that a view names: a dimension of stride 0 broadcasts. */
function elements(view: View, dims: readonly number[]): number {
  return dims.reduce((count, size, d) => count * (view.strides[d] === 0 ? 1 : size), 1);
}

function readRows(command: Command): number {
  const { op, a, b, dims } = command;
  const limbs = op === 'base_convert' ? command.sourceLimbs.length : command.limbs.length;
  const components = op === 'tensor' ? 2 : op === 'key_product' ? command.digitCount : 1;
  const rows = (view: View | null): number =>
    view === null
      ? 0
      : elements(view, dims) * (view.limbStride === 0 ? Math.min(1, limbs) : limbs) * components;
  return rows(a) + (sameView(a, b) ? 0 : rows(b));
}

function sameView(a: View | null, b: View | null): boolean {
  return a !== null && b !== null && JSON.stringify(a) === JSON.stringify(b);
}
