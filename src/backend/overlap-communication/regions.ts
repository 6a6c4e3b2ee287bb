/**
 * What can be done in chunks: from a collective outwards, ops that work element by element along an array
 * axis that no rank shares. Such a region is done chunk by chunk with the same arithmetic on every element.
 */
import { defined } from '../../support/invariant.js';
import type { Block, Op, Value } from '../../ir/module.js';
import { commandArity, componentAxis, digitAxis, isPoly, viewKinds, type Window } from '../../ir/ops/poly.js';
import { axesCount, axisSize, type Axis, type PolyType, type Sharding, type Type } from '../../ir/types.js';

export interface Region {
  readonly axis: string;
  readonly size: number;
  readonly ops: ReadonlySet<Op>;
  /** Results that are needed in one piece. */
  readonly whole: ReadonlySet<number>;
}

export interface RegionSite {
  /** Ops that make plaintexts; arguments have none. */
  readonly plainSource: (value: Value) => Op | undefined;
  readonly linkSeconds: (op: Op) => number;
}

/** The regions of a block, each op in at most one. */
export function findRegions(block: Block, site: RegionSite): Map<Op, Region> {
  const uses = new Uses(block);
  const found = new Map<Op, Region>();
  for (const op of block.ops) {
    if (op.kind !== 'poly.collective' || found.has(op)) continue;
    let best: { readonly region: Region; readonly seconds: number } | undefined;
    for (const { name, size } of (defined(op.operands[0], 'source').type as PolyType).axes) {
      if (size < 2 || !isParallel(op, name, site)) continue;
      const ops = grow(op, name, uses, found, site);
      const seconds = [...ops].reduce(
        (sum, one) => sum + (one.kind === 'poly.collective' ? site.linkSeconds(one) : 0),
        0,
      );
      const better = best === undefined || seconds > best.seconds * (1 + 1e-9);
      const wider = best !== undefined && seconds >= best.seconds * (1 - 1e-9) && size > best.region.size;
      if (better || wider) best = { region: closed(name, size, ops, uses, block), seconds };
    }
    best?.region.ops.forEach((one) => found.set(one, best.region));
  }
  return found;
}

/** Who makes and uses the values of a block. */
class Uses {
  readonly makers = new Map<number, Op>();
  private readonly users = new Map<number, Op[]>();
  /** Used by the block's end or in the body of a loop. */
  readonly beyond = new Set<number>();

  constructor(block: Block) {
    const inner = (body: Block): void => {
      for (const op of body.ops) {
        op.operands.forEach((value) => this.beyond.add(value.id));
        op.regions.forEach(inner);
      }
      body.results.forEach((value) => this.beyond.add(value.id));
    };
    for (const op of block.ops) {
      for (const operand of op.operands) {
        const list = this.users.get(operand.id);
        if (list === undefined) this.users.set(operand.id, [op]);
        else list.push(op);
      }
      op.regions.forEach(inner);
      op.results.forEach((result) => this.makers.set(result.id, op));
    }
    block.results.forEach((value) => this.beyond.add(value.id));
  }

  /** The value that a view shows a part of. */
  root(value: Value): number {
    const maker = this.makers.get(value.id);
    const shown = maker !== undefined && viewKinds.has(maker.kind) ? maker.operands[0] : undefined;
    return shown === undefined ? value.id : this.root(shown);
  }

  /** The op writes over what it reads: its chunks would read an array that earlier chunks have written. */
  readsTarget(op: Op): boolean {
    const into = intoOf(op);
    if (into === undefined) return false;
    return op.operands.some((value) => value !== into && this.root(value) === this.root(into));
  }

  of(value: Value): readonly Op[] {
    return this.users.get(value.id) ?? [];
  }
}

function grow(seed: Op, axis: string, uses: Uses, taken: ReadonlyMap<Op, Region>, site: RegionSite): Set<Op> {
  const ops = new Set<Op>([seed]);
  const open = [seed];
  const visit = (op: Op | undefined): void => {
    if (op === undefined || ops.has(op) || taken.has(op) || !isParallel(op, axis, site)) return;
    if (uses.readsTarget(op)) return;
    ops.add(op);
    open.push(op);
  };
  for (let op = open.pop(); op !== undefined; op = open.pop()) {
    for (const { id, type } of op.operands) if (hasAxis(type, axis)) visit(uses.makers.get(id));
    for (const result of op.results) uses.of(result).forEach(visit);
  }
  return ops;
}

/** Drops views that are needed in one piece, and finds what else is. */
function closed(axis: string, size: number, grown: Set<Op>, uses: Uses, block: Block): Region {
  const ops = new Set(grown);
  const escapes = (value: Value): boolean =>
    uses.beyond.has(value.id) || uses.of(value).some((op) => !ops.has(op));
  for (let i = block.ops.length - 1; i >= 0; i--) {
    const op = defined(block.ops[i], 'op');
    if (ops.has(op) && viewKinds.has(op.kind) && op.results.some(escapes)) ops.delete(op);
  }
  // Versions of one array, first to last, are whole or in chunks together.
  const arrays = new Map<number, { whole: boolean; readonly values: number[] }>();
  for (const op of block.ops) {
    const result = op.results[0];
    if (!ops.has(op) || result === undefined) continue;
    const into = intoOf(op);
    const array =
      into === undefined
        ? { whole: false, values: [] }
        : (arrays.get(into.id) ?? { whole: true, values: [] });
    array.values.push(result.id);
    if (escapes(result)) array.whole = true;
    arrays.set(result.id, array);
  }
  const whole = [...arrays.values()].flatMap((array) => (array.whole ? array.values : []));
  return { axis, size, ops, whole: new Set(whole) };
}

/** The array whose window an op writes. */
export function intoOf(op: Op): Value | undefined {
  if (op.kind === 'poly.collective') return op.operands[1];
  const arity = commandArity(op.kind);
  return arity === undefined ? undefined : op.operands[arity];
}

export function hasAxis(type: Type, axis: string): boolean {
  return isPoly(type) && axisSize(type.axes, axis) !== undefined;
}

const splits = (shardings: readonly Sharding[], axis: string): boolean =>
  shardings.some((one) => one.kind === 'split' && one.axis === axis);

/** Every element along the axis is made from the same elements of the operands, on every rank. */
function isParallel(op: Op, axis: string, site: RegionSite): boolean {
  const result = op.results[0]?.type;
  const { attrs } = op;
  if (result === undefined || !isPoly(result) || !hasAxis(result, axis) || op.regions.length > 0)
    return false;
  const polys = op.operands.flatMap(({ type }) => (isPoly(type) ? [type] : []));
  if ([result, ...polys].some(({ sharding }) => splits(sharding, axis))) return false;
  if (splits((attrs.sharding ?? []) as unknown as readonly Sharding[], axis)) return false;
  if (((attrs.window ?? {}) as Window).axes?.[axis] !== undefined) return false;
  if (op.kind === 'poly.undefined') return true;
  if (op.kind === 'poly.collective') {
    return hasAxis(defined(polys[0], 'source'), axis) && !splits([attrs.to as unknown as Sharding], axis);
  }
  if (viewKinds.has(op.kind)) return isParallelView(op, defined(polys[0], 'operand'), axis);
  return commandArity(op.kind) !== undefined && isParallelCommand(op, axis, site);
}

function isParallelView({ kind, attrs }: Op, from: PolyType, axis: string): boolean {
  if (!hasAxis(from, axis)) return false;
  if (kind === 'poly.index' || kind === 'poly.slice') return attrs.axis !== axis;
  if (kind !== 'poly.reshape') return true;
  // Row-major order keeps the axis in its place if as many elements come before it.
  const place = (axes: readonly Axis[]): string => {
    const i = axes.findIndex(({ name }) => name === axis);
    return `${axesCount(axes.slice(0, i))} ${axes[i]?.size}`;
  };
  return place(from.axes) === place(attrs.axes as unknown as readonly Axis[]);
}

function isParallelCommand(op: Op, axis: string, site: RegionSite): boolean {
  const { kind, attrs } = op;
  if (((attrs.over ?? []) as readonly string[]).includes(axis) || axis === digitAxis) return false;
  if ((kind === 'poly.tensor' || kind === 'poly.key_product') && axis === componentAxis) return false;
  const own = op.operands.slice(0, commandArity(kind));
  const plain = own.filter(({ type }) => type.kind === 'pt' && axisSize(type.axes, axis) !== undefined);
  if (plain.some((value) => site.plainSource(value) === undefined)) return false;
  // Work that all elements share would be done once for every chunk.
  const made =
    own.some(({ type }) => hasAxis(type, axis))
    || plain.length > 0
    || (kind === 'poly.key_product' && attrs.axis === axis);
  return made || kind === 'poly.zero';
}
