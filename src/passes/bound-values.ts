/**
 * Bounds of |slot| without a clear run, for modules that are too large to run and ranges without probes:
 * calibrated intervals, where packing noted them (attribute `bound`), and what follows from them through the
 * ops between. Arguments of polynomials lie in [-1, 1] by construction.
 */
import { boundAttr } from '../ir/ops/cipher.js';
import { entryName, type Block, type Func, type Module, type Op, type Value } from '../ir/module.js';
import { axisSize, type Axis } from '../ir/types.js';
import { defined } from '../support/invariant.js';
import { evaluateChebyshev } from './approximation/index.js';
import { PlainBounds } from './bound-values/plain.js';

/** Points at which a polynomial is evaluated for its maximum. */
const polynomialPoints = 512;
/** Growth of what a loop carries counts as linear up to this. */
const linearTolerance = 1e-9;

/** A ciphertext's bound, or the recipe of a plaintext. */
type Known = number | Op;
type Env = Map<number, Known>;

/** Takes a packed module; bounds by value id, Infinity where nothing is known. */
export function boundValues(module: Module): Map<number, number> {
  const walk = new BoundWalk(module);
  const main = defined(
    module.functions.find((func) => func.name === entryName),
    'main',
  );
  // A port's bound is twice what calibration saw (pack).
  const args = module.inputs.map((port) => (port.bound === undefined ? Infinity : port.bound / 2));
  walk.func(main, args);
  return walk.bounds;
}

class BoundWalk {
  readonly bounds = new Map<number, number>();
  private readonly plain: PlainBounds;
  private readonly functions: ReadonlyMap<string, Func>;
  private readonly peaks = new Map<string, number>();
  /** Sums over this axis keep the bound: it splits the terms of one sum. */
  private readonly split = new Map<number, string>();

  constructor(module: Module) {
    this.plain = new PlainBounds(module);
    this.functions = new Map(module.functions.map((func) => [func.name, func]));
  }

  func({ body }: Func, args: readonly Known[]): readonly Known[] {
    const env: Env = new Map();
    body.args.forEach((arg, i) => this.define(arg, defined(args[i], 'argument'), env));
    return this.block(body, env);
  }

  private define(value: Value, known: Known, env: Env): void {
    env.set(value.id, known);
    if (typeof known === 'number') this.bounds.set(value.id, Math.max(known, this.bounds.get(value.id) ?? 0));
  }

  private block(block: Block, env: Env): readonly Known[] {
    for (const op of block.ops) {
      if (op.kind.startsWith('pt.')) for (const result of op.results) env.set(result.id, op);
    }
    const caps = this.capsOf(block, env);
    for (const op of block.ops) {
      if (op.kind.startsWith('pt.')) continue;
      const results = this.results(op, env);
      op.results.forEach((result, i) => {
        const noted = op.attrs[boundAttr];
        const cap = Math.min(caps.get(result.id) ?? Infinity, typeof noted === 'number' ? noted : Infinity);
        const known = defined(results[i], 'result');
        this.define(result, typeof known === 'number' ? Math.min(known, cap) : known, env);
      });
    }
    return block.results.map((value) => defined(env.get(value.id), 'result of a block'));
  }

  /** |t| <= 1 before a polynomial, so |t - shift| <= 1 + |shift| before the shift. */
  private capsOf(block: Block, env: Env): Map<number, number> {
    const caps = new Map<number, number>();
    const cap = (value: Value | undefined, bound: number): void => {
      if (value !== undefined) caps.set(value.id, Math.min(bound, caps.get(value.id) ?? Infinity));
    };
    for (const op of [...block.ops].reverse()) {
      const [a, p] = op.operands;
      const after = caps.get(op.results[0]?.id ?? -1);
      if (op.kind === 'ct.polynomial') cap(a, 1);
      if (after === undefined) continue;
      if (movements.has(op.kind)) cap(a, after);
      const recipe = p === undefined ? undefined : env.get(p.id);
      if (op.kind === 'ct.add_plain' && typeof recipe === 'object') cap(a, after + this.plain.peak(recipe));
    }
    return caps;
  }

  private results(op: Op, env: Env): readonly Known[] {
    const operands = op.operands.map((value) => defined(env.get(value.id), `operand of ${op.kind}`));
    if (op.kind === 'loop') return this.loop(op, operands as number[], env);
    if (op.kind === 'call') {
      const callee = op.attrs.callee as string;
      return this.func(defined(this.functions.get(callee), `function @${callee}`), operands);
    }
    return [this.op(op, operands)];
  }

  private op(op: Op, operands: readonly Known[]): number {
    const bounds = operands.filter((known) => typeof known === 'number');
    const recipe = operands.find((known) => typeof known === 'object');
    const [a = 0, b = 0] = bounds;
    const sizeOf = (name: unknown): number => axisSize(axesOf(op.operands[0]), String(name)) ?? 1;
    switch (op.kind) {
      case 'ct.add':
      case 'ct.sub':
        return a + b;
      case 'ct.add_plain':
        return a + this.plain.peak(defined(recipe, 'recipe'));
      case 'ct.contract':
        if (recipe?.kind === 'pt.diagonals') this.splitGiants(op);
        return times(a, this.plain.total(defined(recipe, 'recipe'), op.attrs.over as readonly string[]));
      case 'ct.mul': {
        const axes = [...axesOf(op.operands[0]), ...axesOf(op.operands[1])];
        const terms = (op.attrs.over as readonly string[]).reduce(
          (product, name) => product * (axisSize(axes, name) ?? 1),
          1,
        );
        return times(terms, times(a, b));
      }
      case 'ct.rotate_each': {
        const whole = op.attrs.sum !== true || this.split.get(op.operands[0]?.id ?? -1) === op.attrs.axis;
        return whole ? a : times(a, sizeOf(op.attrs.axis));
      }
      case 'ct.sum':
        return times(a, sizeOf(op.attrs.axis));
      case 'ct.concat':
        return Math.max(...bounds);
      case 'ct.polynomial':
        return this.peakOf(op.attrs.coefficients as readonly number[]);
      case 'ct.zero':
        return 0;
      default:
        return movements.has(op.kind) ? a : Infinity;
    }
  }

  /** The giant steps of a linear layer split each sum over its inputs. */
  private splitGiants(op: Op): void {
    const result = defined(op.results[0], 'result');
    const giants = axesOf(op.operands[1]).find(
      ({ name }) => name === 'g' && !(op.attrs.over as readonly string[]).includes(name),
    );
    if (giants !== undefined) this.split.set(result.id, giants.name);
  }

  /** What is added in every iteration is added `tripCount` times; any other growth has no bound. */
  private loop(op: Op, initial: readonly number[], outer: Env): readonly number[] {
    const body = defined(op.regions[0], 'loop body');
    const run = (carried: readonly number[]): number[] => {
      const env: Env = new Map(outer);
      body.args.forEach((arg, i) => this.define(arg, defined(carried[i], 'carried'), env));
      return this.block(body, env) as number[];
    };
    const once = run(initial);
    const twice = run(once);
    const trips = op.attrs.tripCount as number;
    const final = initial.map((start, i) => {
      const [first, second] = [once[i] ?? Infinity, twice[i] ?? Infinity];
      if (first <= start && second <= start) return start;
      const linear = second - first <= (first - start) * (1 + linearTolerance);
      return linear ? start + trips * (first - start) : Infinity;
    });
    run(final);
    return final;
  }

  private peakOf(coefficients: readonly number[]): number {
    const key = coefficients.join();
    const known = this.peaks.get(key);
    if (known !== undefined) return known;
    const values = Array.from({ length: polynomialPoints + 1 }, (_, i) =>
      Math.abs(evaluateChebyshev(coefficients, (2 * i) / polynomialPoints - 1)),
    );
    const peak = Math.max(...values);
    this.peaks.set(key, peak);
    return peak;
  }
}

/** Ops that only move slots, elements and residues: their results are as large as their operand. */
const movements = new Set([
  'ct.rotate',
  'ct.reshape',
  'ct.index',
  'ct.slice',
  'ct.relinearize',
  'ct.rescale',
  'ct.adjust',
  'ct.mod_down',
  'ct.conjugate',
  'ct.mul_i',
]);

function axesOf(value: Value | undefined): readonly Axis[] {
  const type = value?.type;
  return type?.kind === 'ct' || type?.kind === 'pt' ? type.axes : [];
}

/** 0 times anything is 0. */
function times(a: number, b: number): number {
  return a === 0 || b === 0 ? 0 : a * b;
}
