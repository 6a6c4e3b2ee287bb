/** The part of a plaintext array that a rank's work needs: the same recipe over fewer indices and limbs. */
import { defined, invariant, InvariantError } from '../support/invariant.js';
import type { AttrValue, Attrs, Op } from '../ir/module.js';
import { axesCount, type Axis } from '../ir/types.js';

/** Indices kept of some axes, and limbs. */
export interface Restriction {
  readonly axes: ReadonlyMap<string, readonly number[]>;
  readonly limbs: readonly number[] | undefined;
}

/** Makes index tables of recipes by content. */
export type AddTable = (values: Int32Array) => string;

/** Attributes of the restricted recipe. `tables`: index tables of the module; `slots` = N/2. */
export function restrictPlain(
  op: Op,
  restriction: Restriction,
  tables: ReadonlyMap<string, Int32Array>,
  addTable: AddTable,
  slots: number,
): Attrs {
  const { attrs } = op;
  if (op.kind === 'poly.monomial') return attrs;
  if (op.kind === 'poly.residues') return restrictResidues(attrs, restriction.limbs);
  const axes = attrs.axes as unknown as readonly Axis[];
  const kept = axes.map(
    ({ name, size }) => restriction.axes.get(name) ?? Array.from({ length: size }, (_, i) => i),
  );
  if (kept.every((list, i) => list.length === axes[i]?.size)) return attrs;
  const cut = axes.map(({ name }, i) => ({ name, size: defined(kept[i], 'axis').length }));
  const elements = (from: number, to: number): number[] =>
    flatIndices(axes.slice(from, to), kept.slice(from, to));
  const table = (name: string, from: number, to: number): string => {
    const values = defined(tables.get(attrs[name] as string), `table ${name}`);
    const width = values.length / axesCount(axes.slice(from, to));
    return addTable(
      Int32Array.from(elements(from, to).flatMap((e) => [...values.subarray(e * width, (e + 1) * width)])),
    );
  };
  const pick = (name: string, i: number): AttrValue =>
    defined(kept[i], 'axis').map((index) => (attrs[name] as readonly number[])[index] as number);
  const count = axes.length;
  const sized = { ...attrs, axes: cut as unknown as AttrValue };
  switch (op.kind) {
    case 'pt.constant': {
      const values = attrs.values as readonly number[];
      return { ...sized, values: elements(0, count).map((e) => values[e] as number) };
    }
    case 'pt.vector': {
      const features = restrictFeatures(op, elements(0, count), tables, addTable);
      if (attrs.tokens === undefined || count === 0) return { ...sized, features };
      const tokens = defined(tables.get(attrs.tokens as string), 'table tokens');
      const groups = slots / (attrs.period as number);
      const first = { size: defined(axes[0], 'axis').size, kept: defined(kept[0], 'axis') };
      return { ...sized, features, tokens: addTable(keptBlocks(tokens, groups, first)) };
    }
    case 'pt.dft':
      return { ...sized, giant: pick('giant', count - 2), baby: pick('baby', count - 1) };
    case 'pt.diagonals': {
      const giant = giantAxis(attrs, axes, tables);
      return {
        ...sized,
        rows: table('rows', 0, giant),
        columns: table('columns', giant + 1, count - 1),
        giant: pick('giant', giant),
        baby: pick('baby', count - 1),
      };
    }
    default:
      throw new InvariantError(`${op.kind} cannot be restricted`);
  }
}

/** Feature tables of the kept elements, of every iteration. */
function restrictFeatures(
  { attrs }: Op,
  elements: readonly number[],
  tables: ReadonlyMap<string, Int32Array>,
  addTable: AddTable,
): string {
  const values = defined(tables.get(attrs.features as string), 'table features');
  const period = attrs.period as number;
  const iterations = (attrs.iterations as number | undefined) ?? 1;
  const each = values.length / iterations / period;
  return addTable(
    Int32Array.from(
      Array.from({ length: iterations }, (_, i) => i).flatMap((i) =>
        elements.flatMap((e) => [...values.subarray((i * each + e) * period, (i * each + e + 1) * period)]),
      ),
    ),
  );
}

/**
 * Axes of pt.diagonals are (out..., giant, in..., baby): the giant axis follows as many outputs as `rows`
 * has.
 */
function giantAxis(attrs: Attrs, axes: readonly Axis[], tables: ReadonlyMap<string, Int32Array>): number {
  const rows = defined(tables.get(attrs.rows as string), 'table rows');
  const outputs = rows.length / (attrs.period as number);
  const giants = (attrs.giant as readonly number[]).length;
  const found = axes.findIndex((axis, i) => axis.size === giants && axesCount(axes.slice(0, i)) === outputs);
  invariant(found >= 0, 'pt.diagonals has a giant axis');
  return found;
}

/** The token table of the blocks that kept indices of the first axis lie in (ops/plain.ts, pt.vector). */
function keptBlocks(
  tokens: Int32Array,
  groups: number,
  first: { readonly size: number; readonly kept: readonly number[] },
): Int32Array {
  const each = (first.size * groups) / tokens.length;
  const blocks = [...new Set(first.kept.map((index) => Math.floor(index / each)))];
  invariant(blocks.length === 1 || first.kept.length === blocks.length * each, 'token blocks are kept whole');
  return Int32Array.from(blocks.flatMap((b) => [...tokens.subarray(b * groups, (b + 1) * groups)]));
}

function restrictResidues(attrs: Attrs, limbs: readonly number[] | undefined): Attrs {
  if (limbs === undefined) return attrs;
  const [all, residues] = [attrs.limbs as readonly number[], attrs.residues as readonly number[]];
  return {
    limbs,
    residues: limbs.map((limb) => defined(residues[all.indexOf(limb)], `residue of limb ${limb}`)),
  };
}

/** Row-major flat indices of a product of index lists. */
function flatIndices(axes: readonly Axis[], kept: readonly (readonly number[])[]): number[] {
  return axes.reduce<number[]>(
    (flat, axis, i) =>
      flat.flatMap((outer) => defined(kept[i], 'axis').map((index) => outer * axis.size + index)),
    [0],
  );
}
