/** Rows that a view names: runs of equal length. */

export interface RowSet {
  /** First rows of the runs; entries from `count` on are left over from other sets. */
  readonly starts: Int32Array;
  readonly count: number;
  readonly run: number;
  /** Smallest row, and largest row plus 1. */
  readonly first: number;
  readonly end: number;
}

/** Builds sets in memory that the next set takes over. */
export class RowSets {
  private starts = new Int32Array(1024);
  private readonly counts: number[] = [];
  private readonly strides: number[] = [];

  begin(): void {
    this.counts.length = 0;
    this.strides.length = 0;
  }

  /** Adds a dimension, kept in the order of strides so that rows beside each other become runs. */
  dimension(count: number, stride: number): void {
    if (count === 1) return;
    let place = this.strides.length;
    while (place > 0 && Math.abs(this.strides[place - 1] ?? 0) > Math.abs(stride)) place--;
    this.strides.splice(place, 0, stride);
    this.counts.splice(place, 0, count);
  }

  /** start + sum i_d stride_d; undefined if a row is outside of 0 .. rows. */
  finish(start: number, rows: number): RowSet | undefined {
    const { counts, strides } = this;
    let [first, end] = [start, start + 1];
    for (let d = 0; d < counts.length; d++) {
      const span = ((counts[d] ?? 1) - 1) * (strides[d] ?? 0);
      if (span < 0) first += span;
      else end += span;
    }
    if (!(first >= 0 && end <= rows)) return undefined;
    let [run, inner] = [1, 0];
    while (inner < counts.length && strides[inner] === run) run *= counts[inner++] ?? 1;
    let total = 1;
    for (let d = inner; d < counts.length; d++) total *= counts[d] ?? 1;
    if (this.starts.length < total) this.starts = new Int32Array(2 * total);
    const { starts } = this;
    starts[0] = start;
    let filled = 1;
    for (let d = inner; d < counts.length; d++) {
      const [count, stride] = [counts[d] ?? 1, strides[d] ?? 0];
      for (let i = 1; i < count; i++) {
        for (let k = 0; k < filled; k++) starts[i * filled + k] = (starts[k] ?? 0) + i * stride;
      }
      filled *= count;
    }
    return { starts, count: total, run, first, end };
  }

  range(start: number, count: number, rows: number): RowSet | undefined {
    this.begin();
    this.dimension(count, 1);
    return this.finish(start, rows);
  }
}

/** Runs [start, end) of the rows with a flag, two numbers each. */
export function flaggedRuns(flags: ArrayLike<number>): Int32Array {
  const ends: number[] = [];
  for (let row = 0; row < flags.length; row++) {
    if (flags[row] === 1 && (row === 0 || flags[row - 1] !== 1)) ends.push(row);
    if (flags[row] === 1 && flags[row + 1] !== 1) ends.push(row + 1);
  }
  return Int32Array.from(ends);
}
