/** Einsum of one or two operands as transposition, one matrix product and transposition. */
import { elementCount } from '../model.js';
import { int64s, type ExpansionBuilder } from './builder.js';

interface Term {
  readonly value: string;
  readonly labels: readonly string[];
}

export function einsum(b: ExpansionBuilder): void {
  b.allow('equation');
  const count = b.node.inputs.length;
  const [left = '', right] = b.text('equation', '').replace(/\s/g, '').split('->');
  const parts = left.split(',');
  if (parts.length !== count || count < 1 || count > 2) return b.fail(`${count} operands`);
  const ranks = parts.map((part, i) => b.shape(i).length - part.replace('...', '').length);
  const spread = Math.max(0, ...parts.map((part, i) => (part.includes('...') ? (ranks[i] ?? 0) : 0)));
  const sizes = new Map<string, number>();
  const terms = parts.map((part, i): Term => {
    const labels = labelsOf(b, part, ranks[i] ?? 0, spread);
    const shape = b.shape(i);
    if (labels.length !== shape.length || new Set(labels).size < labels.length) {
      return b.fail(`"${part}" for an operand of ${shape.length} dimensions`);
    }
    labels.forEach((label, d) => {
      const known = sizes.get(label) ?? shape[d] ?? 1;
      if (known !== shape[d]) b.fail(`sizes ${known} and ${shape[d] ?? 1} of "${label}" differ`);
      sizes.set(label, known);
    });
    return { value: b.input(i), labels };
  });
  const wanted =
    right === undefined
      ? implicit(parts, spread)
      : labelsOf(b, right, right.includes('...') ? spread : 0, spread);
  const sound = wanted.every((label) => sizes.has(label)) && new Set(wanted).size === wanted.length;
  if (!sound) return b.fail('labels of the result');
  const [first, second] = terms.map((term, i) =>
    summed(b, term, [...wanted, ...(terms[1 - i]?.labels ?? [])]),
  );
  if (first === undefined) return b.fail('no operand');
  const result = second === undefined ? first : product(b, first, second, wanted, sizes);
  b.result(0, ordered(b, result, wanted));
}

/** Dimensions of an ellipsis are named from the last one: "...0" is the innermost. */
function labelsOf(b: ExpansionBuilder, part: string, own: number, spread: number): string[] {
  const [before = '', after, more] = part.split('...');
  if (more !== undefined || own > spread || own < 0) return b.fail(`"${part}"`);
  const dots = Array.from({ length: own }, (_, d) => `...${own - 1 - d}`);
  return after === undefined ? [...before] : [...before, ...dots, ...after];
}

/** Without "->": the dimensions of the ellipsis, then labels that occur once, in alphabetical order. */
function implicit(parts: readonly string[], spread: number): string[] {
  const all = [...parts.join('').replaceAll('.', '')];
  const once = all.filter((label) => all.indexOf(label) === all.lastIndexOf(label)).sort();
  return [...Array.from({ length: spread }, (_, d) => `...${spread - 1 - d}`), ...once];
}

/** Labels that nothing else has are summed away. */
function summed(b: ExpansionBuilder, { value, labels }: Term, others: readonly string[]): Term {
  const axes = labels.flatMap((label, d) => (others.includes(label) ? [] : [d]));
  if (axes.length === 0) return { value, labels };
  const sum = b.step('ReduceSum', [value, int64s(...axes)], { keepdims: 0 });
  return { value: sum, labels: labels.filter((_, d) => !axes.includes(d)) };
}

function ordered(b: ExpansionBuilder, { value, labels }: Term, wanted: readonly string[]): string {
  const perm = wanted.map((label) => labels.indexOf(label));
  return perm.every((from, to) => from === to) ? value : b.step('Transpose', [value], { perm });
}

/** [shared, own of a, contracted] times [shared, contracted, own of b]. */
function product(
  b: ExpansionBuilder,
  x: Term,
  y: Term,
  wanted: readonly string[],
  sizes: ReadonlyMap<string, number>,
): Term {
  const both = x.labels.filter((label) => y.labels.includes(label));
  const shared = wanted.filter((label) => both.includes(label));
  const inner = both.filter((label) => !wanted.includes(label));
  const rows = wanted.filter((label) => x.labels.includes(label) && !both.includes(label));
  const columns = wanted.filter((label) => y.labels.includes(label) && !both.includes(label));
  const size = (labels: readonly string[]) => labels.map((label) => sizes.get(label) ?? 1);
  const shaped = (term: Term, groups: readonly (readonly string[])[]): string => {
    const turned = ordered(b, term, [...shared, ...groups.flat()]);
    if (groups.every((group) => group.length === 1)) return turned;
    const shape = [...size(shared), ...groups.map((group) => elementCount(size(group)))];
    return b.step('Reshape', [turned, int64s(...shape)]);
  };
  const value = b.step('MatMul', [shaped(x, [rows, inner]), shaped(y, [inner, columns])]);
  const labels = [...shared, ...rows, ...columns];
  const isShaped = rows.length === 1 && columns.length === 1;
  return { value: isShaped ? value : b.step('Reshape', [value, int64s(...size(labels))]), labels };
}
