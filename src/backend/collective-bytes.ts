/** What the ranks of a group send and receive (runtime/plan/plan.fbs, collectives). */
import { defined } from '../support/invariant.js';
import type { CollectiveInfo } from './plan-view.js';

export type CollectiveShape = Pick<CollectiveInfo, 'kind' | 'group' | 'rows' | 'root'>;

/** Rows of the send and the receive block of a rank, by index in the group; undefined where it has none. */
export function blockRows(
  shape: CollectiveShape,
  index: number,
): { readonly send: number | undefined; readonly receive: number | undefined } {
  const { kind, group } = shape;
  switch (kind) {
    case 'all_gather':
      return { send: rowsOf(shape, index), receive: total(shape) };
    case 'reduce_scatter':
      return { send: total(shape), receive: rowsOf(shape, index) };
    case 'all_reduce':
      return { send: rowsOf(shape, 0), receive: rowsOf(shape, 0) };
    case 'all_to_all': {
      let [send, receive] = [0, 0];
      group.forEach((_, other) => {
        send += rowsOf(shape, index * group.length + other);
        receive += rowsOf(shape, other * group.length + index);
      });
      return { send, receive };
    }
    case 'broadcast':
      return index === shape.root
        ? { send: rowsOf(shape, 0), receive: undefined }
        : { send: undefined, receive: rowsOf(shape, 0) };
  }
}

/**
 * Rows that come from other ranks in one execution. A reduction of R rows gets R from each of the others; an
 * all-reduce is a reduce-scatter of R/G rows each, the first ranks one more, then an all-gather.
 */
export function receivedRows(shape: CollectiveShape, index: number): number {
  const others = shape.group.length - 1;
  switch (shape.kind) {
    case 'all_gather':
      return total(shape) - rowsOf(shape, index);
    case 'reduce_scatter':
      return others * rowsOf(shape, index);
    case 'all_reduce': {
      const rows = rowsOf(shape, 0);
      const ranks = shape.group.length;
      const segment = Math.floor(rows / ranks) + (index < rows % ranks ? 1 : 0);
      return others * segment + rows - segment;
    }
    case 'all_to_all':
      return (
        defined(blockRows(shape, index).receive, 'receive block')
        - rowsOf(shape, index * (others + 1) + index)
      );
    case 'broadcast':
      return index === shape.root ? 0 : rowsOf(shape, 0);
  }
}

/** Bytes per rank of the group, of all executions of one inference. */
export function receivedBytes(shape: CollectiveShape, executions: number, logN: number): number[] {
  const rowBytes = 2 ** logN * 8;
  return shape.group.map((_, index) => executions * receivedRows(shape, index) * rowBytes);
}

/** Entries of `rows` that a kind lists. */
export function rowsListed(shape: Pick<CollectiveShape, 'kind' | 'group'>): number {
  const ranks = shape.group.length;
  switch (shape.kind) {
    case 'all_gather':
    case 'reduce_scatter':
      return ranks;
    case 'all_to_all':
      return ranks * ranks;
    case 'all_reduce':
    case 'broadcast':
      return 1;
  }
}

function rowsOf(shape: CollectiveShape, i: number): number {
  return defined(shape.rows[i], 'rows of a collective');
}

function total(shape: CollectiveShape): number {
  return shape.rows.reduce((sum, rows) => sum + rows, 0);
}
