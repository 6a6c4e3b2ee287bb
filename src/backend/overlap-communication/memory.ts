/**
 * Rows alive while the items of a block run in some order: an estimate of the frame (lifetimes.ts, emit-
 * function.ts).
 */
import type { Graph, Item } from './graph.js';

export class MemoryModel {
  live = 0;
  private readonly left: Int32Array;
  private readonly held: Float64Array;

  constructor(private readonly graph: Graph) {
    this.left = Int32Array.from(graph.arrays, ({ readers }) => readers);
    this.held = new Float64Array(graph.arrays.length);
  }

  /** Rows that the item needs before it frees any. */
  need(item: Item): number {
    const made = item.makes < 0 ? undefined : this.graph.arrays[item.makes];
    const result =
      made === undefined || made.unwritten || this.takenOver(item, made.rows) >= 0 ? 0 : made.rows;
    return result + Math.max(0, item.staging) + item.temporary;
  }

  /** Array whose memory the result gets, or -1. */
  private takenOver(item: Item, rows: number): number {
    const fits = (array: number): boolean => this.left[array] === 1 && this.held[array] === rows;
    const array = item.takesOver.find((one) => fits(one) && this.graph.arrays[one]?.stays === false);
    return array ?? -1;
  }

  /** Runs the item; rows at its peak. */
  run(item: Item): number {
    const peak = this.live + this.need(item);
    const made = item.makes < 0 ? undefined : this.graph.arrays[item.makes];
    if (made !== undefined && !made.unwritten) {
      const from = this.takenOver(item, made.rows);
      if (from >= 0) this.release(from);
      this.live += made.rows;
      this.held[item.makes] = made.rows;
      if (made.readers === 0 && !made.stays) this.release(item.makes);
    }
    this.live += item.staging;
    for (const array of item.reads) {
      const left = (this.left[array] ?? 0) - 1;
      this.left[array] = left;
      if (left === 0 && this.graph.arrays[array]?.stays === false) this.release(array);
    }
    return Math.max(peak, this.live);
  }

  private release(array: number): void {
    this.live -= this.held[array] ?? 0;
    this.held[array] = 0;
  }
}

/** Rows alive before each item and the peak while it runs, in a given order. */
export interface MemoryProfile {
  readonly before: Float64Array;
  readonly peaks: Float64Array;
  readonly peak: number;
}

export function memoryProfile(graph: Graph, order: readonly number[]): MemoryProfile {
  const memory = new MemoryModel(graph);
  const before = new Float64Array(order.length);
  const peaks = new Float64Array(order.length);
  order.forEach((index, position) => {
    const item = graph.items[index] as Item;
    before[position] = memory.live;
    peaks[position] = memory.run(item);
  });
  return { before, peaks, peak: peaks.reduce((a, b) => Math.max(a, b), 0) };
}

/** Largest of a range of numbers in constant time. */
export class RangeMax {
  private readonly levels: Float64Array[];

  constructor(values: Float64Array) {
    this.levels = [values];
    for (let width = 2; width <= values.length; width *= 2) {
      const below = this.levels.at(-1) as Float64Array;
      const level = new Float64Array(values.length - width + 1);
      for (let i = 0; i < level.length; i++)
        level[i] = Math.max(below[i] as number, below[i + width / 2] as number);
      this.levels.push(level);
    }
  }

  /** Over first..last, both included. */
  of(first: number, last: number): number {
    const k = 31 - Math.clz32(last - first + 1);
    const level = this.levels[k] as Float64Array;
    return Math.max(level[first] as number, level[last - 2 ** k + 1] as number);
  }
}
