/** Splits that each value of a function may have: blocks along each axis, and what views make of them. */
import { defined } from '../../support/invariant.js';
import type { Block, Func, Op, Value } from '../../ir/module.js';
import { blockOwners, reshapedSharding } from '../../ir/sharding.js';
import { axisSize, type Axis, type Sharding } from '../../ir/types.js';
import { viewedSharding } from '../../ir/verify-placement.js';

/** Owner maps per axis of a value; further ones are left out. */
const maxOwnerMaps = 3;

export type Split = Extract<Sharding, { kind: 'split' | 'at' }>;

export function keyOf(sharding: Sharding): string {
  switch (sharding.kind) {
    case 'split':
      return `split ${sharding.axis} ${sharding.owners.join()}`;
    case 'at':
      return `at ${sharding.rank}`;
    case 'limbs':
    case 'partial':
    case 'replicated':
      return sharding.kind;
  }
}

export class Candidates {
  private readonly sets = new Map<number, Map<string, Split>>();
  private changed = false;

  constructor(
    func: Func,
    private readonly ranks: number,
    /** Shardings that arguments come with. */
    pinned: readonly Sharding[],
  ) {
    func.body.args.forEach((arg, i) => {
      const sharding = pinned[i];
      if (sharding?.kind === 'split' || sharding?.kind === 'at') this.add(arg, sharding);
    });
    this.seed(func.body);
    do {
      this.changed = false;
      this.block(func.body);
    } while (this.changed);
  }

  /** Splits, in a fixed order. */
  of(value: Value): readonly Split[] {
    return [...(this.sets.get(value.id)?.values() ?? [])];
  }

  private seed(block: Block): void {
    const seedValue = (value: Value): void => {
      if (value.type.kind !== 'ct') return;
      for (const { name, size } of value.type.axes) {
        if (size > 1 && this.ranks > 1)
          this.add(value, { kind: 'split', axis: name, owners: blockOwners(size, this.ranks) });
      }
    };
    block.args.forEach(seedValue);
    for (const op of block.ops) {
      op.results.forEach(seedValue);
      op.regions.forEach((region) => this.seed(region));
    }
  }

  private add(value: Value, sharding: Sharding | string): void {
    if (typeof sharding === 'string' || (sharding.kind !== 'split' && sharding.kind !== 'at')) return;
    if (value.type.kind !== 'ct') return;
    const set = this.sets.get(value.id) ?? new Map<string, Split>();
    this.sets.set(value.id, set);
    const key = keyOf(sharding);
    const alike = [...set.values()].filter((one) => axisOf(one) === axisOf(sharding)).length;
    if (set.has(key) || alike >= (sharding.kind === 'at' ? this.ranks : maxOwnerMaps)) return;
    set.set(key, sharding);
    this.changed = true;
  }

  private block(block: Block): void {
    for (const op of block.ops) {
      this.op(op);
      const [region] = op.regions;
      if (region === undefined) continue;
      this.block(region);
      region.args.forEach((arg, i) => {
        const same = [arg, op.operands[i], region.results[i], op.results[i]].map((v) =>
          defined(v, 'carried value'),
        );
        for (const one of same)
          for (const split of this.of(one)) same.forEach((other) => this.share(other, split));
      });
    }
  }

  /** The same split of another value, where it has the axis. */
  private share(value: Value, split: Split): void {
    if (split.kind === 'split' && value.type.kind === 'ct') {
      if (axisSize(value.type.axes, split.axis) === split.owners.length) this.add(value, split);
    }
  }

  private op(op: Op): void {
    const first = op.operands[0];
    const result = op.results[0];
    if (result === undefined || op.kind.startsWith('pt.') || op.kind === 'loop') return;
    if (op.kind === 'ct.concat') return this.concat(op, result);
    if (first !== undefined && ['ct.reshape', 'ct.index', 'ct.slice'].includes(op.kind)) {
      for (const split of this.of(first)) this.add(result, viewedSharding(op, split));
      if (op.kind === 'ct.reshape') {
        for (const split of this.of(result)) {
          this.add(first, reshapedSharding(split, axesOf(result), axesOf(first)));
        }
      } else for (const split of this.of(result)) this.share(first, split);
      return;
    }
    const values = [...op.operands, ...op.results];
    for (const value of values) {
      for (const split of this.of(value)) {
        // A single index is a whole value on one rank.
        if (alone(split) && !passesAt(op.kind)) continue;
        values.forEach((other) => this.share(other, split));
      }
    }
    if (passesAt(op.kind)) {
      for (const operand of op.operands) {
        for (const split of this.of(operand)) if (split.kind === 'at') this.add(result, split);
      }
    }
  }

  private concat(op: Op, result: Value): void {
    const axis = op.attrs.axis as string;
    for (const value of [...op.operands, result]) {
      for (const split of this.of(value)) {
        if (split.kind === 'split' && split.axis !== axis)
          [...op.operands, result].forEach((v) => this.share(v, split));
      }
    }
    const parts = op.operands.map((part) =>
      this.of(part).find((split) => split.kind === 'at' || split.axis === axis),
    );
    if (parts.every((part) => part !== undefined)) {
      const owners = parts.flatMap((part, i) =>
        part?.kind === 'split'
          ? part.owners
          : Array.from({ length: partSize(op, i) }, () => (part?.kind === 'at' ? part.rank : 0)),
      );
      this.add(result, { kind: 'split', axis, owners });
    }
    for (const split of this.of(result)) {
      if (split.kind !== 'split' || split.axis !== axis) continue;
      concatParts(op, split.owners).forEach((owners, i) =>
        this.add(defined(op.operands[i], 'part'), { kind: 'split', axis, owners }),
      );
    }
  }
}

/** Says of a single index where it is. */
export function alone(split: Sharding): boolean {
  return split.kind === 'split' && split.owners.length === 1;
}

function axisOf(split: Split): string | undefined {
  return split.kind === 'split' ? split.axis : undefined;
}

export function axesOf(value: Value | undefined): readonly Axis[] {
  return value?.type.kind === 'ct' || value?.type.kind === 'pt' ? value.type.axes : [];
}

function partSize(op: Op, part: number): number {
  return defined(axisSize(axesOf(op.operands[part]), op.attrs.axis as string), 'axis of a part');
}

/** Owners of each part of a concatenation along the split axis. */
export function concatParts(op: Op, owners: readonly number[]): number[][] {
  let start = 0;
  return op.operands.map((_, i) => {
    const size = partSize(op, i);
    start += size;
    return owners.slice(start - size, start);
  });
}

/** Ops that may run where a value is that one rank alone has: cheap ones only. */
export function passesAt(kind: string): boolean {
  return ['ct.add', 'ct.sub', 'ct.add_plain', 'ct.mul_i', 'ct.reinterpret'].includes(kind);
}
