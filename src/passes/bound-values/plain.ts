/** Bounds of plaintext recipes: the largest value, and the largest sum of absolute values over axes. */
import type { Module, Op } from '../../ir/module.js';
import { axesCount, axisSize, type Axis } from '../../ir/types.js';
import { defined } from '../../support/invariant.js';

export class PlainBounds {
  private readonly peaks = new Map<string, number>();
  private readonly rowSums = new Map<string, number>();

  constructor(private readonly module: Pick<Module, 'constants' | 'tables'>) {}

  /** Largest |value| in any slot of any element. */
  peak(op: Op): number {
    const factor = Math.abs((op.attrs.factor as number | undefined) ?? 1);
    switch (op.kind) {
      case 'pt.constant':
        return largest(op.attrs.values as readonly number[]);
      case 'pt.vector':
        return factor * this.constantPeak(op.attrs.constant as string);
      case 'pt.diagonals':
        return factor * this.constantPeak(op.attrs.weight as string);
      default:
        return Infinity;
    }
  }

  /**
   * Bound of sum |p| over axes, for one slot. Diagonals are summed over their inputs, giant steps included:
   * what one output gets in all.
   */
  total(op: Op, over: readonly string[]): number {
    if (op.kind === 'pt.diagonals') return this.diagonals(op);
    const axes = op.attrs.axes as unknown as readonly Axis[];
    const terms = over.reduce((product, name) => product * (axisSize(axes, name) ?? 1), 1);
    const elements = axesCount(axes);
    if (op.kind === 'pt.vector' && terms === elements && op.attrs.iterations === undefined)
      return this.vectorTotal(op, elements);
    return terms * this.peak(op);
  }

  /** A mask that covers each position once counts once. */
  private vectorTotal(op: Op, elements: number): number {
    const period = op.attrs.period as number;
    const features = defined(this.module.tables.get(op.attrs.features as string), 'features');
    let most = 0;
    for (let u = 0; u < period; u++) {
      let used = 0;
      for (let e = 0; e < elements; e++) if ((features[e * period + u] ?? -1) >= 0) used++;
      most = Math.max(most, used);
    }
    return most * this.peak(op);
  }

  private diagonals(op: Op): number {
    const { weight, columns, factor } = op.attrs as { weight: string; columns: string; factor: number };
    const key = `${weight} ${columns}`;
    const known = this.rowSums.get(key);
    if (known !== undefined) return Math.abs(factor) * known;
    const { data, shape } = defined(this.module.constants.get(weight), `constant ${weight}`);
    const [height = 0, width = 0] = shape;
    const uses = new Float64Array(width);
    for (const column of defined(this.module.tables.get(columns), 'columns')) {
      if (column >= 0) uses[column] = (uses[column] ?? 0) + 1;
    }
    let most = 0;
    for (let row = 0; row < height; row++) {
      let sum = 0;
      for (let k = 0; k < width; k++) sum += Math.abs(data[row * width + k] as number) * (uses[k] as number);
      most = Math.max(most, sum);
    }
    this.rowSums.set(key, most);
    return Math.abs(factor) * most;
  }

  private constantPeak(name: string): number {
    const known = this.peaks.get(name);
    if (known !== undefined) return known;
    const peak = largest(defined(this.module.constants.get(name), `constant ${name}`).data);
    this.peaks.set(name, peak);
    return peak;
  }
}

function largest(values: ArrayLike<number>): number {
  let most = 0;
  for (let i = 0; i < values.length; i++) most = Math.max(most, Math.abs(values[i] as number));
  return most;
}
