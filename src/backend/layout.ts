/** Memory of arrays: storages, and strided views on them. All sizes and strides are rows of N words. */
import { defined, invariant } from '../support/invariant.js';
import { axesCount, type Axis, type PolyType } from '../ir/types.js';
import type { Window } from '../ir/ops/poly.js';

/** One allocation of a function. */
export interface Storage {
  readonly id: number;
  readonly rows: number;
  /** `input`: read only; `local` may become a `result` when the function returns it. */
  kind: 'input' | 'result' | 'local';
  /** Number of enclosing loops where it was made. */
  readonly depth: number;
  /** Positions of the first and last command that touch it. */
  first: number;
  last: number;
}

/**
 * Row of element (i...) and limb j: offset + sum i_d strides[d] + j limbStride + sum iteration_k
 * loopStrides[k].
 */
export interface Layout {
  readonly storage: Storage;
  readonly offset: number;
  readonly axes: readonly Axis[];
  readonly strides: readonly number[];
  readonly limbs: readonly number[];
  readonly limbStride: number;
  readonly loopStrides: readonly number[];
}

export function rowsOf(type: PolyType): number {
  return axesCount(type.axes) * type.limbs.length;
}

function denseStrides(axes: readonly Axis[], unit: number): number[] {
  const strides = new Array<number>(axes.length).fill(0);
  let stride = unit;
  for (let i = axes.length - 1; i >= 0; i--) {
    strides[i] = stride;
    stride *= defined(axes[i], 'axis').size;
  }
  return strides;
}

/** Row-major over the axes, limbs innermost, at the start of the storage. */
export function denseLayout(storage: Storage, type: PolyType): Layout {
  return packedLayout(storage, 0, type.axes, type.limbs);
}

/** Row-major over the axes, limbs innermost, from row `offset` on. */
export function packedLayout(
  storage: Storage,
  offset: number,
  axes: readonly Axis[],
  limbs: readonly number[],
): Layout {
  return {
    storage,
    offset,
    axes,
    strides: denseStrides(axes, limbs.length),
    limbs,
    limbStride: 1,
    loopStrides: [],
  };
}

/** True if the rows lie row-major without gaps, the same in every iteration. */
export function isDense(layout: Layout): boolean {
  const wanted = denseStrides(layout.axes, layout.limbs.length);
  return (
    (layout.limbs.length === 1 || layout.limbStride === 1)
    && layout.loopStrides.every((stride) => stride === 0)
    && layout.axes.every((axis, i) => axis.size === 1 || layout.strides[i] === wanted[i])
  );
}

/** True if the layout is the whole storage in dense order. */
export function isWhole(layout: Layout): boolean {
  return (
    layout.offset === 0
    && axesCount(layout.axes) * layout.limbs.length === layout.storage.rows
    && isDense(layout)
  );
}

export function strideOf(layout: Layout, axis: string): number {
  const i = layout.axes.findIndex((other) => other.name === axis);
  return i < 0 ? 0 : defined(layout.strides[i], 'stride');
}

/** `depth`: enclosing loops at the op, of which the innermost advances the index. */
export function indexLayout(
  layout: Layout,
  axis: string,
  index: number,
  loopStride: number,
  depth: number,
): Layout {
  const stride = strideOf(layout, axis);
  const keep = layout.axes.map((other) => other.name !== axis);
  const loopStrides = [...layout.loopStrides];
  if (loopStride !== 0) {
    invariant(depth > 0, 'loopStride needs an enclosing loop');
    while (loopStrides.length < depth) loopStrides.push(0);
    loopStrides[depth - 1] = (loopStrides[depth - 1] ?? 0) + loopStride * stride;
  }
  return {
    ...layout,
    offset: layout.offset + index * stride,
    loopStrides,
    axes: layout.axes.filter((_, i) => keep[i]),
    strides: layout.strides.filter((_, i) => keep[i]),
  };
}

/** The part of a layout that a window names. */
export function windowLayout(layout: Layout, window: Window): Layout {
  let { offset, limbStride } = layout;
  for (const [name, [start]] of Object.entries(window.axes ?? {})) offset += start * strideOf(layout, name);
  const limbs = window.limbs ?? layout.limbs;
  const [first, second] = limbs.map((limb) => layout.limbs.indexOf(limb));
  if (first !== undefined) {
    const step = second === undefined ? 1 : second - first;
    limbs.forEach((limb, i) =>
      invariant(layout.limbs[first + i * step] === limb, 'limbs of a window are evenly spaced'),
    );
    offset += first * limbStride;
    limbStride *= step;
  }
  const axes = layout.axes.map((axis) => ({ ...axis, size: window.axes?.[axis.name]?.[1] ?? axis.size }));
  return { ...layout, offset, limbStride, limbs, axes };
}

/** The same elements under other axes, or undefined if strides do not allow it. */
export function reshapedLayout(layout: Layout, axes: readonly Axis[]): Layout | undefined {
  const old = layout.axes
    .map((axis, i) => ({ size: axis.size, stride: layout.strides[i] ?? 0 }))
    .filter((d) => d.size > 1);
  const strides = new Array<number>(axes.length).fill(0);
  let next = 0;
  for (let i = 0; i < axes.length;) {
    if (axes[i]?.size === 1) {
      i++;
      continue;
    }
    // The smallest groups of old and new axes with equal element counts: the old one must be one dimension in
    // memory.
    const [firstOld, firstNew] = [next, i];
    let [oldCount, newCount] = [1, 1];
    do {
      if (newCount <= oldCount) newCount *= defined(axes[i++], 'new axis').size;
      else oldCount *= defined(old[next++], 'old axis').size;
    } while (oldCount !== newCount);
    const group = old.slice(firstOld, next);
    const contiguous = group.every((d, k) => {
      const inner = group[k + 1];
      return inner === undefined || d.stride === inner.stride * inner.size;
    });
    if (!contiguous) return undefined;
    let stride = defined(group.at(-1), 'group').stride;
    for (let k = i - 1; k >= firstNew; k--) {
      strides[k] = stride;
      stride *= defined(axes[k], 'axis').size;
    }
  }
  return { ...layout, axes, strides };
}
