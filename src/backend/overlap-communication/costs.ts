/**
 * What ops of a poly module cost: seconds of the most loaded rank, seconds of collectives, rows of memory.
 * The same model as of simulate.ts (docs/cost-model.md), on global ops.
 */
import { defined } from '../../support/invariant.js';
import type { Parameters } from '../../target/parameters.js';
import {
  collectiveSeconds,
  kernelSeconds,
  kernelWork,
  type KernelKind,
  type KernelShape,
} from '../../target/kernel-cost.js';
import type { DeviceProfile } from '../../target/profile.js';
import type { Op, Value } from '../../ir/module.js';
import { commandArity, componentAxis, digitAxis, isPoly, type Window } from '../../ir/ops/poly.js';
import { coordinatesOf, everyRank, meshSize, onAxis, slicedSharding, type Mesh } from '../../ir/sharding.js';
import { axesCount, axisSize, type Axis, type PolyType, type Sharding } from '../../ir/types.js';
import { planExchange, windowRows, type Exchange } from '../exchange.js';

export interface CollectiveCost {
  /** On the link. */
  readonly seconds: number;
  /** Copies into the send block and out of the receive block. */
  readonly packSeconds: number;
  readonly unpackSeconds: number;
  /** Rows of memory while it is in flight. */
  readonly stagingRows: number;
}

/** A rank's share of an op: owners of the limbs and of array axes. */
type Leads = readonly Sharding[];

export class Costs {
  private readonly coordinates: readonly (readonly number[])[];
  private readonly copies = new Map<number, number>();
  /** Ops are asked about again and again, in several orders. */
  private readonly secondsOf = new Map<Op, number>();
  private readonly collectives = new Map<Op, CollectiveCost>();
  private readonly rowsOf = new Map<Value, number>();

  constructor(
    private readonly mesh: Mesh,
    private readonly parameters: Parameters,
    readonly profile: DeviceProfile,
  ) {
    this.coordinates = Array.from({ length: meshSize(mesh) }, (_, rank) => coordinatesOf(mesh, rank));
  }

  /** Rows that the most loaded rank holds. */
  rows(value: Value): number {
    return remembered(this.rowsOf, value, () => this.countRows(value));
  }

  private countRows(value: Value): number {
    if (!isPoly(value.type)) return 0;
    const { axes, limbs, sharding } = value.type;
    let most = 0;
    for (const coordinates of this.coordinates) {
      most = Math.max(
        most,
        axesCount(share(axes, sharding, coordinates)) * limbsOf(limbs, sharding, coordinates),
      );
    }
    return most;
  }

  /** Seconds of a command on the most loaded rank; views and plaintexts take none. */
  seconds(op: Op): number {
    if (commandArity(op.kind) === undefined) return 0;
    return remembered(this.secondsOf, op, () => this.commandSeconds(op));
  }

  private commandSeconds(op: Op): number {
    const leads = leadsOf(op);
    const shape = shapeOf(op);
    let most = 0;
    let last = '';
    for (const coordinates of this.coordinates) {
      const local = localShape(shape, leads, coordinates, this.parameters.logN);
      const { batch, limbs, summed, digits, keys } = local;
      const key = `${batch} ${limbs} ${summed} ${digits} ${keys}`;
      if (key === last || batch * limbs * (summed ?? 1) === 0) continue;
      last = key;
      most = Math.max(most, this.launch(local));
    }
    return most;
  }

  private launch(shape: KernelShape): number {
    const { logN } = this.parameters;
    return kernelSeconds(this.profile, kernelWork(shape), logN, { ranks: this.coordinates.length });
  }

  private copySeconds(rows: number): number {
    if (rows === 0) return 0;
    const known = this.copies.get(rows);
    if (known !== undefined) return known;
    const seconds = this.launch({ kind: 'copy', logN: this.parameters.logN, batch: 1, limbs: rows });
    this.copies.set(rows, seconds);
    return seconds;
  }

  collective(op: Op): CollectiveCost {
    return remembered(this.collectives, op, () => this.collectiveCost(op));
  }

  private collectiveCost(op: Op): CollectiveCost {
    const type = defined(op.operands[0], 'operand').type as PolyType;
    const m = op.attrs.meshAxis as number;
    const to = op.attrs.to as unknown as Sharding;
    const rowBytes = 2 ** this.parameters.logN * 8;
    let [seconds, sent, received] = [0, 0, 0];
    this.coordinates.forEach((coordinates, rank) => {
      // The first ranks of a group have most; a root receives nothing, so two of them are looked at.
      if (defined(coordinates[m], 'coordinate') > 1) return;
      const exchange = planExchange(type, this.mesh, m, to, rank);
      if (exchange === undefined) return;
      const rows = {
        sends: movedRows(exchange.sends, exchange.source),
        receives: movedRows(exchange.receives, exchange.result),
      };
      [sent, received] = [Math.max(sent, rows.sends.packed), Math.max(received, rows.receives.rows)];
      if (coordinates[m] !== 0) return;
      const { kind, group, root } = exchange;
      const bytes = exchange.rows.map((count) => count * rowBytes);
      seconds = Math.max(
        seconds,
        collectiveSeconds(this.profile, { kind, ranks: group.length, bytes, root }),
      );
    });
    return {
      seconds,
      packSeconds: this.copySeconds(sent),
      unpackSeconds: this.copySeconds(received),
      stagingRows: sent + received,
    };
  }
}

function remembered<K, V>(known: Map<K, V>, key: K, make: () => V): V {
  const old = known.get(key);
  if (old !== undefined) return old;
  const made = make();
  known.set(key, made);
  return made;
}

/** Rows of blocks; those that are packed first, unless the block is the whole array. */
function movedRows(blocks: Exchange['sends'], type: PolyType | undefined): { rows: number; packed: number } {
  if (type === undefined) return { rows: 0, packed: 0 };
  const pieces = blocks.flat();
  const rows = pieces.reduce((sum, piece) => sum + windowRows(type, piece), 0);
  const whole = pieces.length === 1 && rows === axesCount(type.axes) * type.limbs.length;
  return { rows, packed: whole ? 0 : rows };
}

function count(owners: readonly number[], c: number): number {
  let own = 0;
  for (const owner of owners) if (owner === c) own++;
  return own;
}

function share(
  axes: readonly Axis[],
  sharding: readonly Sharding[],
  coordinates: readonly number[],
): readonly Axis[] {
  let own = axes;
  for (const [m, c] of coordinates.entries()) {
    const one = onAxis(sharding, m);
    if (one.kind === 'at' && one.rank !== c) return [{ name: '', size: 0 }];
    if (one.kind !== 'split') continue;
    own = own.map((axis) => (axis.name === one.axis ? { ...axis, size: count(one.owners, c) } : axis));
  }
  return own;
}

function limbsOf(
  limbs: readonly number[],
  sharding: readonly Sharding[],
  coordinates: readonly number[],
): number {
  const owners = coordinates.flatMap((c, m) => {
    const one = onAxis(sharding, m);
    return one.kind === 'limbs' ? [{ c, owners: one.owners }] : [];
  });
  if (owners.length === 0) return limbs.length;
  return limbs.filter((limb) => owners.every((o) => o.owners[limb] === o.c || o.owners[limb] === everyRank))
    .length;
}

/** How ranks share the work of a command: as localise.ts decides it. */
function leadsOf(op: Op): Leads {
  const arity = defined(commandArity(op.kind), 'command');
  const polys = op.operands.slice(0, arity).flatMap(({ type }) => (isPoly(type) ? [type] : []));
  const into = op.operands[arity]?.type as PolyType | undefined;
  const asked = (op.attrs.sharding ?? []) as unknown as readonly Sharding[];
  const window = (op.attrs.window ?? {}) as Window;
  const axes = Math.max(
    asked.length,
    into?.sharding.length ?? 0,
    ...polys.map(({ sharding }) => sharding.length),
  );
  return Array.from({ length: axes }, (_, m) => {
    const candidates = [...polys.map((type) => onAxis(type.sharding, m)), onAxis(asked, m)];
    if (into !== undefined) candidates.push(windowed(onAxis(into.sharding, m), window));
    const lead = candidates.find(({ kind }) => kind === 'split' || kind === 'limbs' || kind === 'at');
    return lead ?? { kind: 'replicated' };
  });
}

function windowed(sharding: Sharding, window: Window): Sharding {
  const range = sharding.kind === 'split' ? window.axes?.[sharding.axis] : undefined;
  return sharding.kind === 'split' && range !== undefined
    ? slicedSharding(sharding, sharding.axis, ...range)
    : sharding;
}

interface GlobalShape {
  readonly op: Op;
  /** Outputs; the component axis only where the kernel has it in its batch. */
  readonly batch: readonly Axis[];
  readonly summed: readonly Axis[];
  readonly limbs: readonly number[];
}

function shapeOf(op: Op): GlobalShape {
  const result = defined(op.results[0], 'result').type as PolyType;
  const window = (op.attrs.window ?? {}) as Window;
  const over = (op.attrs.over ?? []) as readonly string[];
  const tripled = op.kind === 'poly.tensor' || op.kind === 'poly.key_product';
  const batch = result.axes
    .map((axis) => ({ ...axis, size: window.axes?.[axis.name]?.[1] ?? axis.size }))
    .filter((axis) => !(tripled && axis.name === componentAxis));
  const sizes = op.operands.flatMap(({ type }) => ('axes' in type ? type.axes : []));
  const entries = ((op.attrs.galois ?? []) as readonly number[]).length;
  const summed = over.map((name) => ({ name, size: axisSize(sizes, name) ?? entries }));
  return { op, batch, summed, limbs: window.limbs ?? result.limbs };
}

function localShape(
  shape: GlobalShape,
  leads: Leads,
  coordinates: readonly number[],
  logN: number,
): KernelShape {
  const { op, limbs } = shape;
  const first = op.operands[0]?.type;
  const source = isPoly(first) ? first : undefined;
  const digits = source === undefined ? 1 : (axisSize(source.axes, digitAxis) ?? 1);
  const own = (axes: readonly Axis[]): number => axesCount(share(axes, leads, coordinates));
  const turn = [...shape.batch, ...shape.summed].filter((axis) => axis.name === op.attrs.axis);
  return {
    kind: op.kind.slice('poly.'.length) as KernelKind,
    logN,
    batch: own(shape.batch),
    summed: own(shape.summed),
    limbs: limbsOf(limbs, leads, coordinates),
    accumulate: op.attrs.accumulate === true,
    ...(op.kind === 'poly.base_convert' ? { sources: source?.limbs.length ?? 1 } : {}),
    ...(op.kind === 'poly.key_product'
      ? { digits: own([{ name: digitAxis, size: digits }]), keys: own(turn) }
      : {}),
  };
}
