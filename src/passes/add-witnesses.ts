/**
 * add-witnesses: the argument of every polynomial in `main` becomes an output too, at level 0. An argument
 * lies in [-1, 1] as long as its node keeps to the range that it was approximated on; the client sees after
 * decryption which node left it. No products and no keys: an adjustment and a longer response. See
 * docs/passes/add-witnesses.md.
 */
import { entryName, isWitness, witnessPrefix, type Module, type Value } from '../ir/module.js';
import { defined } from '../support/invariant.js';
import { withRawOutputs } from './raw-outputs.js';

/** Takes levels, and polynomials that are not expanded yet. Loops and functions are left out. */
export function addWitnesses(module: Module): Module {
  const main = defined(
    module.functions.find((func) => func.name === entryName),
    'main',
  );
  const series = main.body.ops.filter((op) => op.kind === 'ct.polynomial');
  const made = new Set(series.flatMap(({ results }) => results.map(({ id }) => id)));
  const seen = new Map<number, { node: string; value: Value }>();
  for (const { operands, loc } of series) {
    const value = defined(operands[0], 'argument');
    // Later parts of a composite keep to their intervals if the first one does.
    if (!made.has(value.id) && !seen.has(value.id)) seen.set(value.id, { node: loc, value });
  }
  const counts = new Map<string, number>();
  return withRawOutputs(module, (builder) =>
    [...seen.values()].map(({ node, value }) => {
      const count = (counts.get(node) ?? 0) + 1;
      counts.set(node, count);
      const high = value.type.kind === 'ct' && value.type.level !== 0;
      return {
        name: `${witnessPrefix}${count}/${node}`,
        value: high ? builder.op('ct.adjust', [value], { level: 0 }, node) : value,
      };
    }),
  );
}

/** A node whose argument left the interval of its polynomial. */
export interface RangeViolation {
  readonly node: string;
  /** Largest |argument|; the interval is [-1, 1]. */
  readonly largest: number;
}

/** Noise is no violation. */
const slack = 1e-3;

/** `ports`: those of the plan, in program order. The first node is the cause, others may follow from it. */
export function rangeViolations(
  ports: readonly { readonly name: string }[],
  outputs: Readonly<Record<string, Float64Array>>,
): RangeViolation[] {
  return ports.flatMap(({ name }) => {
    if (!isWitness(name)) return [];
    const largest = defined(outputs[name], 'witness').reduce((max, x) => Math.max(max, Math.abs(x)), 0);
    const node = name.slice(name.indexOf('/', witnessPrefix.length) + 1);
    return largest <= 1 + slack ? [] : [{ node, largest }];
  });
}
