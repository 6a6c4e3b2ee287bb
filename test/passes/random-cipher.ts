/** Random packed cipher modules with open levels: what plan-levels takes. All values stay within [-1, 1]. */
import { BlockBuilder, Ids } from '../../src/ir/builder.js';
import { walkOps, type Func, type Module, type Value } from '../../src/ir/module.js';
import { qBasis, type CtType } from '../../src/ir/types.js';
import type { Parameters } from '../../src/target/parameters.js';
import { random } from './tiny-transformer.js';

export interface RandomShape {
  readonly ops: number;
  readonly loops?: boolean;
  /** Calls of one layer function; main holds all ops where there are none. */
  readonly calls?: number;
}

const open: CtType = { kind: 'ct', axes: [], degree: 1, basis: qBasis, level: null, scale: null };

export function randomModule(parameters: Parameters, shape: RandomShape, seed: number): Module {
  const next = random(seed);
  const pick = (n: number): number => Math.min(n - 1, Math.floor(((next() + 1) / 2) * n));
  const ids = new Ids();
  const builder = new BlockBuilder(ids, parameters, [open]);
  const functions: Func[] = [];
  let value = builder.args[0] as Value;
  if (shape.calls === undefined) value = new Body(builder, shape, pick).run(value);
  else {
    const layer = new BlockBuilder(ids, parameters, [open]);
    const result = new Body(layer, shape, pick).run(layer.args[0] as Value);
    functions.push({ name: 'layer', body: layer.finish([result]) });
    for (let i = 0; i < shape.calls; i++)
      value = builder.call('layer', [value], [open], `call ${i}`)[0] as Value;
  }
  functions.push({ name: 'main', body: builder.finish([value]) });
  const { slots } = parameters;
  const features = Int32Array.from({ length: slots }, (_, i) => i);
  const map = { period: slots, features, tokens: Int32Array.of(0) };
  const port = { shape: [slots], slots: map, factor: 1 };
  return {
    phase: 'cipher',
    name: 'random',
    sourceHash: '0'.repeat(64),
    parameters,
    functions,
    constants: new Map(),
    tables: new Map(),
    inputs: [{ ...port, name: 'x' }],
    outputs: [{ ...port, name: 'y' }],
  };
}

/** 1 for every value. */
export function unitBounds(module: Module): Map<number, number> {
  const bounds = new Map<number, number>();
  for (const { body } of module.functions) {
    body.args.forEach(({ id }) => bounds.set(id, 1));
    walkOps(body, (op) => {
      for (const { id } of [...op.results, ...op.regions.flatMap(({ args }) => args)]) bounds.set(id, 1);
    });
  }
  return bounds;
}

class Body {
  private count = 0;

  constructor(
    private readonly builder: BlockBuilder,
    private readonly shape: RandomShape,
    private readonly pick: (n: number) => number,
  ) {}

  run(input: Value): Value {
    const { builder, shape, pick } = this;
    const pool = [input];
    // Mostly the last ones: a deep graph with residual connections.
    const recent = (): Value => pool[Math.max(0, pool.length - 1 - pick(4))] as Value;
    for (let i = 0; i < shape.ops; i++) {
      this.count = i;
      const kind = pick(shape.loops === true ? 6 : 5);
      if (kind === 0) pool.push(this.product(builder, recent(), recent()));
      else if (kind === 1) pool.push(this.mean(builder, recent(), recent()));
      else if (kind === 2) pool.push(this.series(builder, recent(), 3));
      else if (kind === 3) pool.push(this.series(builder, recent(), 7));
      else if (kind === 4) pool.push(this.rotations(builder, recent()));
      else pool.push(this.loop(recent(), recent()));
    }
    // Nothing is unused.
    return pool.slice(1).reduce((sum, value) => this.mean(builder, sum, value));
  }

  private op(b: BlockBuilder, kind: string, operands: readonly Value[], attrs = {}): Value {
    return b.op(kind, operands, attrs, `node ${this.count}`);
  }

  private times(b: BlockBuilder, a: Value, factor: number): Value {
    const constant = this.op(b, 'pt.constant', [], { axes: [], values: [factor] });
    return this.op(b, 'ct.rescale', [this.op(b, 'ct.contract', [a, constant], { over: [] })]);
  }

  private product(b: BlockBuilder, x: Value, y: Value): Value {
    const product = this.op(b, 'ct.mul', [x, y], { over: [] });
    return this.op(b, 'ct.rescale', [this.op(b, 'ct.relinearize', [product])]);
  }

  private mean(b: BlockBuilder, x: Value, y: Value): Value {
    return this.times(b, this.op(b, 'ct.add', [x, y]), 0.5);
  }

  private series(b: BlockBuilder, x: Value, degree: number): Value {
    const coefficients = Array.from({ length: degree + 1 }, (_, k) => (k % 2 === 1 ? 1 / (degree + 1) : 0));
    return this.op(b, 'ct.polynomial', [x], { coefficients });
  }

  private rotations(b: BlockBuilder, x: Value): Value {
    const rotated = this.op(b, 'ct.rotate', [x], { axis: 'r', steps: [0, 1, 2, 4] });
    return this.times(b, this.op(b, 'ct.sum', [rotated], { axis: 'r' }), 0.25);
  }

  /** The mean of three products with a value from outside, carried from zero. */
  private loop(x: Value, y: Value): Value {
    const zero = this.op(this.builder, 'ct.zero', [], { axes: [] });
    const [sum] = this.builder.loop(3, [zero, y], `node ${this.count}`, (inner, [carried, other]) => {
      const term = this.times(inner, this.product(inner, x, other as Value), 1 / 3);
      return [this.op(inner, 'ct.add', [carried as Value, term]), other as Value];
    });
    return sum as Value;
  }
}
