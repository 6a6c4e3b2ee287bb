/** What the lowering rules share: a builder of poly ops with the parameters and the place at hand. */
import { invariant } from '../../support/invariant.js';
import type { Parameters } from '../../target/parameters.js';
import type { BlockBuilder } from '../../ir/builder.js';
import type { Attrs, Value } from '../../ir/module.js';
import {
  commandArity,
  componentAxis,
  isPoly,
  limbRange,
  specialLimbs,
  type Window,
} from '../../ir/ops/poly.js';
import type { CtType, PolyType } from '../../ir/types.js';

/**
 * A ciphertext array as a polynomial array: [axes...][component], limbs q_0..q_level, then the special
 * primes.
 */
export function polyTypeOf(type: CtType, parameters: Parameters): PolyType {
  invariant(
    type.level !== null && type.scale !== null,
    'lower-keyswitch runs after plan-levels: a level is missing',
  );
  const specials = type.basis.kind === 'qp' ? type.basis.specials : 0;
  return {
    kind: 'poly',
    axes: [...type.axes, { name: componentAxis, size: type.degree + 1 }],
    limbs: [...limbRange(0, type.level + 1), ...specialLimbs(parameters, specials)],
    form: 'ntt',
    sharding: [],
  };
}

export function polyOf(value: Value): PolyType {
  invariant(isPoly(value.type), 'operand is a polynomial array');
  return value.type;
}

export class Scope {
  /** Arrays made by commands of this block: their memory may be written again once they are used up. */
  readonly fresh = new Set<number>();
  /** ONNX node of the op being lowered. */
  loc = '';

  constructor(
    readonly builder: BlockBuilder,
    readonly parameters: Parameters,
    /** Trip count of the innermost enclosing loop; 1 outside of loops. */
    readonly tripCount: number,
  ) {}

  op(kind: string, operands: readonly Value[], attrs: Attrs = {}): Value {
    const value = this.builder.op(kind, operands, attrs, this.loc);
    if (commandArity(kind) !== undefined) this.fresh.add(value.id);
    return value;
  }

  /** Writes a window of `target`, which nothing may read afterwards. */
  into(kind: string, operands: readonly Value[], target: Value, window: Window, attrs: Attrs = {}): Value {
    return this.op(kind, [...operands, target], { ...attrs, window: window as Attrs });
  }

  limbs(value: Value, limbs: readonly number[]): Value {
    return polyOf(value).limbs.join() === limbs.join() ? value : this.op('poly.limbs', [value], { limbs });
  }

  index(value: Value, axis: string, index: number): Value {
    return this.op('poly.index', [value], { axis, index });
  }

  slice(value: Value, axis: string, start: number, size: number): Value {
    const full = polyOf(value).axes.find((other) => other.name === axis)?.size;
    return start === 0 && size === full ? value : this.op('poly.slice', [value], { axis, start, size });
  }

  component(value: Value, index: number): Value {
    return this.index(value, componentAxis, index);
  }

  undefined(type: PolyType): Value {
    return this.op('poly.undefined', [], shapeOf(type));
  }

  /** The integer `constant` as a plaintext on `limbs`. */
  integer(limbs: readonly number[], constant: bigint): Value {
    const residues = limbs.map((limb) => Number(mod(constant, this.prime(limb))));
    return this.op('poly.residues', [], { limbs, residues });
  }

  prime(limb: number): bigint {
    const prime = this.parameters.primes[limb];
    invariant(prime !== undefined, `limb ${limb} has a prime`);
    return prime;
  }
}

export function shapeOf(type: PolyType): Attrs {
  return { axes: type.axes.map(({ name, size }) => ({ name, size })), limbs: type.limbs, form: type.form };
}

export function mod(a: bigint, q: bigint): bigint {
  const r = a % q;
  return r < 0n ? r + q : r;
}

/** Inverse modulo a prime by Fermat. */
export function inverseMod(a: bigint, q: bigint): bigint {
  let [result, base] = [1n, mod(a, q)];
  invariant(base !== 0n, 'zero has no inverse');
  for (let e = q - 2n; e > 0n; e >>= 1n) {
    if (e & 1n) result = (result * base) % q;
    base = (base * base) % q;
  }
  return result;
}
