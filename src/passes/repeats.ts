/**
 * Finds isomorphic stretches of a block: encoder layers, which differ in their weights only. Ops without
 * operands (plaintext recipes, zeros) are not part of a stretch: they belong to the ops that read them.
 */
import type { Block, Op, Value } from '../ir/module.js';
import { walkOps } from '../ir/module.js';
import { printType, typesEqual } from '../ir/printer.js';
import { defined } from '../support/invariant.js';

/** What the stretches read from outside and give to the outside, by their place in a stretch. */
export interface Repeat {
  /** Ops of each stretch, in program order; op j of one corresponds to op j of every other. */
  readonly stretches: readonly (readonly Op[])[];
  /** Values from outside, per argument one of each stretch. */
  readonly inputs: readonly (readonly Value[])[];
  /** Ops without operands that differ between stretches, per argument one of each stretch. */
  readonly recipes: readonly (readonly Op[])[];
  /** Values that something outside reads, per result one of each stretch. */
  readonly outputs: readonly (readonly Value[])[];
}

export interface RepeatOptions {
  readonly minCount: number;
  readonly minOps: number;
  /** Equal for ops that may correspond; must cover everything but operands and the ops of regions. */
  readonly keyOf: (op: Op) => string;
  /** Whether two ops without operands that correspond are the same and need not be arguments. */
  readonly sameRecipe: (a: Op, b: Op) => boolean;
  /** Refuses cuts for reasons of the caller. */
  readonly accepts: (repeat: Repeat) => boolean;
}

interface Candidate {
  readonly start: number;
  readonly period: number;
  readonly count: number;
}

export const isNullary = (op: Op): boolean => op.operands.length === 0 && op.regions.length === 0;

/**
 * The repeat that covers the most ops; among equal ones that with the shortest period, the fewest values
 * across its borders and the earliest start.
 */
export function findRepeat(block: Block, options: RepeatOptions): Repeat | undefined {
  const ops = block.ops.filter((op) => !isNullary(op));
  const keys = internKeys(ops, options.keyOf);
  const groups = new Map<string, Candidate[]>();
  for (const candidate of candidates(keys, options)) {
    const group = `${candidate.count * candidate.period} ${candidate.period}`;
    groups.set(group, [...(groups.get(group) ?? []), candidate]);
  }
  const ordered = [...groups.values()].sort(([a], [b]) => {
    const [x, y] = [defined(a, 'candidate'), defined(b, 'candidate')];
    return y.count * y.period - x.count * x.period || x.period - y.period;
  });
  const outside = new OutsideUses(block);
  for (const group of ordered) {
    const found = group
      .map((candidate) => compare(ops, candidate, options, outside))
      .filter((repeat) => repeat !== undefined)
      .filter(options.accepts)
      .map((repeat, i) => ({ repeat, i, border: repeat.inputs.length + repeat.outputs.length }))
      .sort((a, b) => a.border - b.border || a.i - b.i);
    if (found[0] !== undefined) return found[0].repeat;
  }
  return undefined;
}

/** Small integers, equal for equal ops: key, result types and the ops of regions. */
function internKeys(ops: readonly Op[], keyOf: (op: Op) => string): number[] {
  const known = new Map<string, number>();
  return ops.map((op) => {
    const parts = [keyOf(op), ...op.results.map(({ type }) => printType(type))];
    for (const region of op.regions) {
      parts.push(`${region.args.length} ${region.results.length}`);
      walkOps(region, (inner) => {
        if (!isNullary(inner)) parts.push(keyOf(inner));
      });
    }
    const text = parts.join('\n');
    const key = known.get(text) ?? known.size;
    known.set(text, key);
    return key;
  });
}

/** Maximal runs with keys[i] = keys[i + period], and every start that leaves the full count. */
function* candidates(keys: readonly number[], { minCount, minOps }: RepeatOptions): Generator<Candidate> {
  for (let period = minOps; period * minCount <= keys.length; period++) {
    let first = 0;
    for (let i = 0; i + period <= keys.length; i++) {
      if (i + period < keys.length && keys[i] === keys[i + period]) continue;
      const count = Math.floor((i - first) / period) + 1;
      const last = i - (count - 1) * period;
      if (count >= minCount) for (let start = first; start <= last; start++) yield { start, period, count };
      first = i + 1;
    }
  }
}

/** Which ops outside a set read a value; uses inside regions count for the op of the block. */
class OutsideUses {
  private readonly users = new Map<number, Op[]>();
  private readonly yielded: ReadonlySet<number>;
  readonly makers: ReadonlyMap<number, Op>;

  constructor(block: Block) {
    this.makers = nullaryMakers(block);
    this.yielded = new Set(block.results.map((value) => value.id));
    for (const op of block.ops) {
      const use = (value: Value): void => {
        const known = this.users.get(value.id);
        if (known === undefined) this.users.set(value.id, [op]);
        else known.push(op);
      };
      op.operands.forEach(use);
      for (const region of op.regions) {
        region.results.forEach(use);
        walkOps(region, (inner) => {
          for (const value of inner.operands) use(value);
          for (const deep of inner.regions) deep.results.forEach(use);
        });
      }
    }
  }

  outside(value: Value, inside: ReadonlySet<Op>): boolean {
    return this.yielded.has(value.id) || (this.users.get(value.id) ?? []).some((user) => !inside.has(user));
  }
}

/** Where an operand comes from, seen from its stretch. */
type Place =
  | { readonly kind: 'inside'; readonly index: number }
  | { readonly kind: 'recipe'; readonly op: Op }
  | { readonly kind: 'outside'; readonly value: Value };

/** The places of all operands and yields of a stretch, in program order. */
function placesOf(stretch: readonly Op[], makers: ReadonlyMap<number, Op>): Place[] {
  const own = new Map<number, number>();
  const define = (value: Value): unknown => own.set(value.id, own.size);
  const places: Place[] = [];
  const use = (value: Value): void => {
    const index = own.get(value.id);
    const op = makers.get(value.id);
    if (op !== undefined) places.push({ kind: 'recipe', op });
    else places.push(index === undefined ? { kind: 'outside', value } : { kind: 'inside', index });
  };
  const visit = (op: Op): void => {
    if (isNullary(op)) return;
    op.operands.forEach(use);
    for (const region of op.regions) {
      region.args.forEach(define);
      region.ops.forEach(visit);
      region.results.forEach(use);
    }
    op.results.forEach(define);
  };
  stretch.forEach(visit);
  return places;
}

/** Ops without operands by the value they make, those of regions included. */
export function nullaryMakers(block: Block): Map<number, Op> {
  const makers = new Map<number, Op>();
  walkOps(block, (op) => {
    if (isNullary(op)) op.results.forEach((value) => makers.set(value.id, op));
  });
  return makers;
}

/** Checks that the stretches have one data flow; undefined if not. */
function compare(
  ops: readonly Op[],
  { start, period, count }: Candidate,
  options: RepeatOptions,
  uses: OutsideUses,
): Repeat | undefined {
  const stretches = Array.from({ length: count }, (_, n) =>
    ops.slice(start + n * period, start + (n + 1) * period),
  );
  const flows = stretches.map((stretch) => placesOf(stretch, uses.makers));
  const first = defined(flows[0], 'stretch');
  if (!flows.every((places) => places.length === first.length)) return undefined;
  const inputs = new Map<string, readonly Value[]>();
  const recipes = new Map<string, readonly Op[]>();
  for (let i = 0; i < first.length; i++) {
    const places = flows.map((flow) => defined(flow[i], 'place'));
    const inside = places.flatMap((place) => (place.kind === 'inside' ? [place.index] : []));
    const values = places.flatMap((place) => (place.kind === 'outside' ? [place.value] : []));
    const makers = places.flatMap((place) => (place.kind === 'recipe' ? [place.op] : []));
    if (inside.length === count) {
      if (inside.some((index) => index !== inside[0])) return undefined;
    } else if (values.length === count) inputs.set(values.map((value) => value.id).join(), values);
    else if (makers.length === count) {
      const [one] = makers;
      if (one === undefined || makers.some((op) => !comparable(one, op))) return undefined;
      if (makers.every((op) => options.sameRecipe(one, op))) continue;
      recipes.set(makers.map((op) => op.results[0]?.id).join(), makers);
    } else return undefined;
  }
  const outputs = outputsOf(stretches, uses);
  return { stretches, inputs: [...inputs.values()], recipes: [...recipes.values()], outputs };
}

/** One kind and one type of result. */
function comparable(a: Op, b: Op): boolean {
  const [x, y] = [a.results[0], b.results[0]];
  return a.kind === b.kind && x !== undefined && y !== undefined && typesEqual(x.type, y.type);
}

function outputsOf(stretches: readonly (readonly Op[])[], uses: OutsideUses): Value[][] {
  const sets = stretches.map((stretch) => new Set(stretch));
  const results = stretches.map((stretch) => stretch.flatMap((op) => op.results));
  const first = defined(results[0], 'stretch');
  return first.flatMap((_, i) => {
    const values = results.map((list) => defined(list[i], 'result'));
    const read = values.some((value, n) => uses.outside(value, defined(sets[n], 'set')));
    return read ? [values] : [];
  });
}
