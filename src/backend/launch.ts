/**
 * One poly command as plan commands: batch dimensions from named axes, merged where strides allow, unrolled
 * where more than six are left (the kernels' limit).
 */
import { defined, invariant } from '../support/invariant.js';
import type { Axis } from '../ir/types.js';
import { strideOf, type Layout } from './layout.js';
import { emptyCommand, type Command, type Opcode, type View } from './plan-view.js';

/** kMaxRank of runtime/hal/kernels.h. */
export const maxRank = 6;

/** Strides of an encoded plaintext array in its own rows: [elements][limbs]; [elements] of coefficients. */
export interface PlainLayout {
  readonly slot: number;
  readonly axes: readonly Axis[];
  /** Of an element. */
  readonly rows: number;
  readonly limbStride: number;
  /** Outermost loop first; missing entries are 0. */
  readonly loopStrides: readonly number[];
}

export interface Launch {
  readonly op: Opcode;
  readonly node: number;
  readonly out: Layout;
  readonly a?: Layout | undefined;
  readonly b?: Layout | undefined;
  readonly plain?: PlainLayout | undefined;
  /** Axes that are summed. */
  readonly over: readonly Axis[];
  readonly accumulate: boolean;
  /** Axes that the kernel reaches through componentStride. */
  readonly componentAxes: { readonly out?: string; readonly a?: string; readonly b?: string };
  /** Axis along which keys or Galois elements change. */
  readonly turnAxis?: string | undefined;
  /** Key indices and Galois elements: entry i + iteration * (size of turnAxis). */
  readonly keys?: readonly number[];
  readonly galois?: readonly number[];
  readonly digitCount?: number;
  readonly firstDigit?: number;
  readonly sourceLimbs?: readonly number[];
  readonly scalars?: readonly number[];
}

type Role = 'out' | 'a' | 'b' | 'plain';
const roles: readonly Role[] = ['out', 'a', 'b', 'plain'];

interface Dim {
  readonly size: number;
  readonly reduced: boolean;
  readonly turn: boolean;
  readonly strides: Readonly<Record<Role, number>>;
}

export function launchCommands(launch: Launch): Command[] {
  const components = Object.values(launch.componentAxes);
  const batch = launch.out.axes.filter((axis) => !components.includes(axis.name));
  const dims = [
    ...batch.map((axis) => dimOf(launch, axis, false)),
    ...launch.over.map((axis) => dimOf(launch, axis, true)),
  ];
  return unrolled(launch, coalesce(dims), { out: 0, a: 0, b: 0, plain: 0 });
}

function dimOf(launch: Launch, axis: Axis, reduced: boolean): Dim {
  const stride = (layout: Layout | undefined): number =>
    layout === undefined ? 0 : strideOf(layout, axis.name);
  const { plain } = launch;
  return {
    size: axis.size,
    reduced,
    turn: axis.name === launch.turnAxis,
    strides: {
      out: reduced ? 0 : stride(launch.out),
      a: stride(launch.a),
      b: stride(launch.b),
      plain: plain === undefined ? 0 : plainStride(plain, axis.name),
    },
  };
}

function plainStride(plain: PlainLayout, axis: string): number {
  const i = plain.axes.findIndex((other) => other.name === axis);
  if (i < 0) return 0;
  return plain.axes.slice(i + 1).reduce((product, other) => product * other.size, plain.rows);
}

/** Drops dimensions of size 1 and merges neighbours that are one dimension in every operand. */
function coalesce(dims: readonly Dim[]): Dim[] {
  const result: Dim[] = [];
  for (const dim of dims) {
    if (dim.size === 1) continue;
    const outer = result.at(-1);
    const merge =
      outer !== undefined
      && outer.reduced === dim.reduced
      && !outer.turn
      && !dim.turn
      && roles.every((role) => outer.strides[role] === dim.strides[role] * dim.size);
    if (merge) result[result.length - 1] = { ...dim, size: outer.size * dim.size };
    else result.push(dim);
  }
  return result;
}

type Offsets = Readonly<Record<Role, number>>;

function unrolled(launch: Launch, dims: readonly Dim[], offsets: Offsets): Command[] {
  if (dims.length <= maxRank) return [commandOf(launch, dims, offsets)];
  const which = dims.findIndex((dim) => !dim.reduced && !dim.turn);
  invariant(which >= 0, 'a launch with more than six dimensions has one that can be unrolled');
  const dim = defined(dims[which], 'dimension');
  const rest = dims.filter((_, i) => i !== which);
  return Array.from({ length: dim.size }, (_, i) => {
    const at = (role: Role): number => offsets[role] + i * dim.strides[role];
    return unrolled(launch, rest, { out: at('out'), a: at('a'), b: at('b'), plain: at('plain') });
  }).flat();
}

function commandOf(launch: Launch, dims: readonly Dim[], offsets: Offsets): Command {
  const view = (role: 'out' | 'a' | 'b'): View | null => {
    const layout = launch[role];
    if (layout === undefined) return null;
    const component = launch.componentAxes[role];
    return {
      buffer: layout.storage.id,
      offset: layout.offset + offsets[role],
      strides: dims.map((dim) => dim.strides[role]),
      componentStride: component === undefined ? 0 : strideOf(layout, component),
      limbStride: layout.limbStride,
      loopStrides: layout.loopStrides,
    };
  };
  const plain =
    launch.plain === undefined
      ? null
      : {
          buffer: launch.plain.slot,
          offset: offsets.plain,
          strides: dims.map((dim) => dim.strides.plain),
          componentStride: 0,
          limbStride: launch.plain.limbStride,
          loopStrides: launch.plain.loopStrides,
        };
  const turnDim = dims.findIndex((dim) => dim.turn);
  const perIteration = turnDim < 0 ? 1 : defined(dims[turnDim], 'dimension').size;
  const advance = (entries: readonly number[]): number => (entries.length > perIteration ? perIteration : 0);
  const { keys = [], galois = [] } = launch;
  return {
    ...emptyCommand(launch.op, launch.node),
    dims: dims.map((dim) => dim.size),
    reduceRank: dims.filter((dim) => dim.reduced).length,
    accumulate: launch.accumulate,
    limbs: launch.out.limbs,
    out: view('out'),
    a: view('a'),
    b: view('b'),
    plain,
    sourceLimbs: launch.sourceLimbs ?? [],
    scalars: launch.scalars ?? [],
    keys,
    keyDim: keys.length === 0 ? -1 : turnDim,
    keysPerIteration: advance(keys),
    digitCount: launch.digitCount ?? 0,
    firstDigit: launch.firstDigit ?? 0,
    galois,
    galoisDim: galois.length === 0 ? -1 : turnDim,
    galoisPerIteration: advance(galois),
  };
}
