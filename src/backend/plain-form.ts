/**
 * In which form each use of a plaintext holds it. The choice must be known where a function is emitted,
 * before its callers: of an argument it is made from all calls.
 */
import { defined } from '../support/invariant.js';
import { heldAsCoefficients } from '../target/plain-rows.js';
import type { Block, Constant, Func, Module, Op, Value } from '../ir/module.js';

/** How one use encodes a plaintext: the limbs of its other operand, or coefficients for all limbs. */
export interface Encoding {
  /** None with `coefficients`. */
  readonly limbs: readonly number[];
  readonly scale: number;
  readonly coefficients: boolean;
}

/** Coefficients of an encoding are no larger than its slots times the scale; half of 2^63 covers rounding. */
const heldLimit = 2 ** 62;

/** Largest |value| of each constant: a model's weights are looked at once for all its ranks. */
export class Magnitudes {
  private readonly known = new Map<Constant, number>();

  of(constant: Constant): number {
    let largest = this.known.get(constant);
    if (largest === undefined) {
      largest = 0;
      for (const value of constant.data) largest = Math.max(largest, Math.abs(value));
      this.known.set(constant, largest);
    }
    return largest;
  }
}

export class PlainForms {
  /** By function and value: the largest |slot value|, of an argument over all calls. */
  private readonly largest = new Map<string, Map<number, number>>();
  private readonly functions: ReadonlyMap<string, Func>;

  constructor(
    private readonly module: Module,
    private readonly magnitudes: Magnitudes,
  ) {
    this.functions = new Map(module.functions.map((func) => [func.name, func]));
    module.functions.forEach(({ name }) => this.largest.set(name, new Map()));
    // Callers stand after what they call.
    [...module.functions].reverse().forEach(({ name, body }) => this.visit(name, body));
  }

  encoding(func: string, value: Value, limbs: readonly number[], scale: number): Encoding {
    const { type } = value;
    const degree = defined(this.module.parameters, 'parameters').slots * 2;
    const coefficients =
      type.kind === 'pt'
      && heldAsCoefficients(type, limbs.length, degree)
      && this.of(func, value) * scale < heldLimit;
    return { limbs: coefficients ? [] : limbs, scale, coefficients };
  }

  /** 0 of an argument that no call gives. */
  private of(func: string, value: Value): number {
    return this.largest.get(func)?.get(value.id) ?? 0;
  }

  private note(func: string, value: Value, magnitude: number): void {
    const known = defined(this.largest.get(func), `function ${func}`);
    known.set(value.id, Math.max(known.get(value.id) ?? 0, magnitude));
  }

  private visit(func: string, block: Block): void {
    for (const op of block.ops) {
      const [result] = op.results;
      if (op.kind === 'call') this.bind(func, op);
      else if (result?.type.kind === 'pt') this.note(func, result, this.recipe(op));
      op.regions.forEach((region) => this.visit(func, region));
    }
  }

  private bind(func: string, op: Op): void {
    const callee = op.attrs.callee as string;
    const { args } = defined(this.functions.get(callee), `callee ${callee}`).body;
    op.operands.forEach((operand, i) => {
      if (operand.type.kind === 'pt') this.note(callee, defined(args[i], 'argument'), this.of(func, operand));
    });
  }

  /** Of recipes that may be held as coefficients. */
  private recipe({ kind, attrs }: Op): number {
    if (kind !== 'pt.vector' && kind !== 'pt.diagonals') return 0;
    const name = (kind === 'pt.vector' ? attrs.constant : attrs.weight) as string;
    const constant = defined(this.module.constants.get(name), `constant ${name}`);
    return this.magnitudes.of(constant) * Math.abs(attrs.factor as number);
  }
}
