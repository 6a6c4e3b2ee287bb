/** Numbers, the least first by a total order. */
import { defined } from '../../support/invariant.js';

export class Heap {
  private readonly entries: number[] = [];

  constructor(private readonly compare: (a: number, b: number) => number) {}

  get size(): number {
    return this.entries.length;
  }

  get top(): number {
    return defined(this.entries[0], 'entry of a heap');
  }

  push(value: number): void {
    const { entries } = this;
    let i = entries.push(value) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (this.compare(value, this.at(parent)) >= 0) break;
      entries[i] = this.at(parent);
      i = parent;
    }
    entries[i] = value;
  }

  pop(): number {
    const { entries } = this;
    const least = this.top;
    const last = defined(entries.pop(), 'entry of a heap');
    if (entries.length === 0) return least;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= entries.length) break;
      if (child + 1 < entries.length && this.compare(this.at(child + 1), this.at(child)) < 0) child++;
      if (this.compare(this.at(child), last) >= 0) break;
      entries[i] = this.at(child);
      i = child;
    }
    entries[i] = last;
    return least;
  }

  private at(i: number): number {
    return this.entries[i] as number;
  }
}
