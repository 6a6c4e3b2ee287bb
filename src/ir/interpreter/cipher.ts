/**
 * The clear interpreter of the cipher phase: runs a module on plain slot vectors, without encryption. It
 * shows what the plan computes (layouts, approximations, the sine of the bootstrap) and, given a noise model,
 * what noise does to it. Scales and levels do not change values, so it works before and after plan-levels.
 */
import { defined, invariant } from '../../support/invariant.js';
import { entryName, type Block, type Func, type Module, type Op, type Port } from '../module.js';
import { cipherHandlers } from './cipher-ops.js';
import { Gaussian } from './gaussian.js';
import { packInput, slotCount, unpackOutput } from './ports.js';
import { materialise, type PlainArray } from './plain.js';
import type { CipherValue, RuntimeValue } from './values.js';

export { packInput, unpackOutput } from './ports.js';
export type { CipherValue, RuntimeValue } from './values.js';

/**
 * Where an op runs: the calls that led to its function, outermost first, and the iteration of its innermost
 * loop.
 */
export interface Activation {
  readonly calls: readonly Op[];
  readonly iteration: number;
}

export interface NoiseModel {
  /**
   * Standard deviation, in slot values, of the Gaussian added to every slot of one element of the op's
   * result.
   */
  stdDev(op: Op, element: number, where: Activation): number;
  readonly seed: number;
}

export interface RunOptions {
  /**
   * Sees the ciphertext results of every op, in program order, after noise. Not called for loops and plain
   * calls.
   */
  readonly observe?: (op: Op, values: readonly CipherValue[], where: Activation) => void;
  readonly noise?: NoiseModel;
}

/** Runs `main` on the model's inputs; arrays are row-major over the ports' shapes, in real values. */
export function runCipher(
  module: Module,
  inputs: Readonly<Record<string, Float64Array>>,
  options: RunOptions = {},
): Record<string, Float64Array> {
  const main = defined(
    module.functions.find((func) => func.name === entryName),
    `function @${entryName}`,
  );
  const args = module.inputs.map((port, i): CipherValue => {
    const type = defined(main.body.args[i], `argument ${i} of @${entryName}`).type;
    invariant(type.kind === 'ct', `argument ${i} of @${entryName} is not a ciphertext array`);
    const data = defined(inputs[port.name], `input ${port.name}`);
    return { kind: 'ct', axes: type.axes, re: packInput(port, data), im: null };
  });
  const results = runCipherFunction(module, main, args, options);
  return Object.fromEntries(
    module.outputs.map((port: Port, i) => {
      const value = defined(results[i], `result ${i} of @${entryName}`);
      invariant(value.kind === 'ct', `result ${i} of @${entryName} is not a ciphertext array`);
      return [port.name, unpackOutput(port, value.re)];
    }),
  );
}

/** Runs one function on slot vectors. */
export function runCipherFunction(
  module: Module,
  func: Func,
  args: readonly RuntimeValue[],
  options: RunOptions = {},
): readonly RuntimeValue[] {
  invariant(module.phase === 'cipher', `the cipher interpreter got a module of phase ${module.phase}`);
  return new Interpreter(module, options).runFunction(func, args, []);
}

interface Frame {
  readonly calls: readonly Op[];
  readonly env: Map<number, RuntimeValue>;
  /** Recipes of the loops that run, made once and not in every iteration. */
  readonly loopPlains: Map<Op, PlainArray>;
  loopDepth: number;
}

class Interpreter {
  private readonly slots: number;
  private readonly functions: ReadonlyMap<string, Func>;
  private readonly gaussian: Gaussian | undefined;
  private readonly lastUses = new WeakMap<Block, readonly (readonly number[])[]>();

  constructor(
    private readonly module: Module,
    private readonly options: RunOptions,
  ) {
    this.slots = slotCount(module);
    this.functions = new Map(module.functions.map((func) => [func.name, func]));
    this.gaussian = options.noise === undefined ? undefined : new Gaussian(options.noise.seed);
  }

  runFunction(func: Func, args: readonly RuntimeValue[], calls: readonly Op[]): readonly RuntimeValue[] {
    const frame: Frame = { calls, env: new Map(), loopPlains: new Map(), loopDepth: 0 };
    return this.runBlock(func.body, args, frame, 0);
  }

  private runBlock(
    block: Block,
    args: readonly RuntimeValue[],
    frame: Frame,
    iteration: number,
  ): RuntimeValue[] {
    const { env } = frame;
    block.args.forEach((arg, i) => env.set(arg.id, defined(args[i], `block argument ${i}`)));
    const ends = this.endsOf(block);
    block.ops.forEach((op, at) => {
      const operands = op.operands.map((value) => defined(env.get(value.id), `operand of ${op.kind}`));
      const values = this.runOp(op, operands, frame, iteration);
      op.results.forEach((result, i) => env.set(result.id, defined(values[i], `result ${i} of ${op.kind}`)));
      for (const id of ends[at] ?? []) env.delete(id);
    });
    return block.results.map((value) => defined(env.get(value.id), 'block result'));
  }

  private runOp(
    op: Op,
    operands: readonly RuntimeValue[],
    frame: Frame,
    iteration: number,
  ): readonly RuntimeValue[] {
    if (op.kind === 'loop') return this.runLoop(op, operands, frame);
    const where: Activation = { calls: frame.calls, iteration };
    if (op.kind === 'call') {
      const name = String(op.attrs.callee);
      const callee = defined(this.functions.get(name), `function @${name}`);
      if (callee.models === undefined) return this.runFunction(callee, operands, [...frame.calls, op]);
      return this.finished(op, this.modelled(op, callee.models.rangeLog2, operands), where);
    }
    if (op.kind.startsWith('pt.')) return [this.plain(op, frame, iteration)];
    const handler = defined(cipherHandlers[op.kind], `interpreter of ${op.kind}`);
    const { slots } = this;
    const { parameters } = this.module;
    return this.finished(op, [handler(op, operands, { slots, parameters, iteration })], where);
  }

  private runLoop(op: Op, initial: readonly RuntimeValue[], frame: Frame): readonly RuntimeValue[] {
    const body = defined(op.regions[0], 'loop body');
    let carried = initial;
    frame.loopDepth++;
    for (let i = 0; i < (op.attrs.tripCount as number); i++) carried = this.runBlock(body, carried, frame, i);
    if (--frame.loopDepth === 0) frame.loopPlains.clear();
    return carried;
  }

  private plain(op: Op, frame: Frame, iteration: number): PlainArray {
    if (frame.loopDepth === 0) return materialise(op, this.module);
    if (op.attrs.iterations !== undefined) return materialise(op, this.module, iteration);
    const made = frame.loopPlains.get(op) ?? materialise(op, this.module);
    frame.loopPlains.set(op, made);
    return made;
  }

  /** A function that models a bootstrap maps its i-th ciphertext argument to its i-th result. */
  private modelled(op: Op, rangeLog2: number, operands: readonly RuntimeValue[]): CipherValue[] {
    const handler = defined(cipherHandlers['ct.bootstrap'], 'interpreter of ct.bootstrap');
    const bootstrap = { ...op, kind: 'ct.bootstrap', attrs: { rangeLog2 } };
    const context = { slots: this.slots, parameters: this.module.parameters, iteration: 0 };
    return operands
      .filter((value) => value.kind === 'ct')
      .map((value, i) => {
        const type = op.results[i]?.type;
        const result = handler(bootstrap, [value], context);
        return type?.kind === 'ct' ? { ...result, axes: type.axes } : result;
      });
  }

  private finished(op: Op, values: readonly CipherValue[], where: Activation): readonly CipherValue[] {
    const noisy = values.map((value) => this.withNoise(op, value, where));
    this.options.observe?.(op, noisy, where);
    return noisy;
  }

  private withNoise(op: Op, value: CipherValue, where: Activation): CipherValue {
    const { noise } = this.options;
    if (noise === undefined || this.gaussian === undefined) return value;
    const gaussian = this.gaussian;
    const deviations = value.re.map((_, element) => noise.stdDev(op, element, where));
    if (!deviations.some((deviation) => deviation > 0)) return value;
    const add = (vector: Float64Array, element: number): Float64Array => {
      const deviation = deviations[element] as number;
      return deviation > 0 ? gaussian.added(vector, deviation) : vector;
    };
    return { ...value, re: value.re.map(add), im: value.im === null ? null : value.im.map(add) };
  }

  /**
   * Ids of the block's own values that die after each op: memory follows what is alive, not the program's
   * length.
   */
  private endsOf(block: Block): readonly (readonly number[])[] {
    const known = this.lastUses.get(block);
    if (known !== undefined) return known;
    const own = new Map<number, number>(block.args.map((arg) => [arg.id, 0]));
    const use = (op: Op, at: number): void => {
      for (const value of op.operands) if (own.has(value.id)) own.set(value.id, at);
      for (const region of op.regions) {
        for (const inner of region.ops) use(inner, at);
        for (const value of region.results) if (own.has(value.id)) own.set(value.id, at);
      }
    };
    block.ops.forEach((op, at) => {
      use(op, at);
      for (const result of op.results) own.set(result.id, at);
    });
    for (const value of block.results) own.delete(value.id);
    const ends: number[][] = block.ops.map(() => []);
    for (const [id, at] of own) ends[at]?.push(id);
    this.lastUses.set(block, ends);
    return ends;
  }
}
