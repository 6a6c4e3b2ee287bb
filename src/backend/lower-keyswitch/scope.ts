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
import type { Shardings } from '../../ir/placement.js';
import { canonical, canView, onAxis, replicated, sameShardings, type Mesh } from '../../ir/sharding.js';
import type { CtType, PolyType } from '../../ir/types.js';

/**
 * A ciphertext array as a polynomial array: [axes...][component], limbs q_0..q_level, then the special
 * primes.
 */
export function polyTypeOf(type: CtType, parameters: Parameters, sharding: Shardings = []): PolyType {
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
    sharding: canonical(sharding),
  };
}

export function polyOf(value: Value): PolyType {
  invariant(isPoly(value.type), 'operand is a polynomial array');
  return value.type;
}

/** Level of an array without special limbs. */
export function levelOf(value: Value): number {
  return polyOf(value).limbs.length - 1;
}

function hasShardedLimbs(value: Value): boolean {
  return polyOf(value).sharding.some((one) => one.kind === 'limbs');
}

export class Scope {
  /** Arrays made by commands of this block: their memory may be written again once they are used up. */
  readonly fresh = new Set<number>();
  /** Values of this block under other shardings. */
  private readonly relaid = new Map<number, Value[]>();
  /**
   * Components, and coefficients, of arrays with sharded limbs: what is gathered of them serves several ops.
   */
  private readonly components = new Map<string, Value>();
  private readonly inverses = new Map<number, Value>();
  /** ONNX node of the op being lowered. */
  loc = '';

  constructor(
    readonly builder: BlockBuilder,
    readonly parameters: Parameters,
    /** Trip count of the innermost enclosing loop; 1 outside of loops. */
    readonly tripCount: number,
    private readonly outer?: Scope,
    private readonly mesh: Mesh | undefined = outer?.mesh,
  ) {
    builder.args.forEach((arg) => this.made.add(arg.id));
  }

  private readonly made = new Set<number>();

  op(kind: string, operands: readonly Value[], attrs: Attrs = {}): Value {
    const value = this.builder.op(kind, operands, attrs, this.loc);
    this.made.add(value.id);
    if (commandArity(kind) !== undefined) this.fresh.add(value.id);
    return value;
  }

  /** Values that control flow made in this block. */
  adopt(values: readonly Value[]): readonly Value[] {
    values.forEach((value) => this.made.add(value.id));
    return values;
  }

  /**
   * The value under another sharding, made once, in the block that makes the value: outside of loops if it
   * is.
   */
  lay(value: Value, shardings: Shardings): Value {
    const { sharding } = polyOf(value);
    if (sameShardings(sharding, shardings)) return value;
    const home = this.home(value);
    if (home !== this) return home.lay(value, shardings);
    const known = this.relaid.get(value.id) ?? [];
    const found = known.find((other) => sameShardings(polyOf(other).sharding, shardings));
    if (found !== undefined) return found;
    const count = Math.max(sharding.length, shardings.length);
    const full = Array.from({ length: count }, (_, m) => onAxis(shardings, m));
    const local = full.every((to, m) => canView(polyOf(value), onAxis(sharding, m), to));
    const attrs = { sharding: full as unknown as Attrs[] };
    const laid = this.op(local ? 'poly.part' : 'poly.reshard', [value], attrs);
    this.relaid.set(value.id, [...known, laid]);
    return laid;
  }

  /** All limbs on every rank: what base conversion reads. */
  allLimbs(value: Value): Value {
    const { sharding } = polyOf(value);
    return this.lay(
      value,
      sharding.map((one) => (one.kind === 'limbs' ? replicated : one)),
    );
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
    if (!hasShardedLimbs(value)) return this.index(value, componentAxis, index);
    const home = this.home(value);
    const key = `${value.id} ${index}`;
    const found = home.components.get(key) ?? home.index(value, componentAxis, index);
    home.components.set(key, found);
    return found;
  }

  /**
   * Coefficients of an array in NTT form. Where limbs are sharded they are made once, in the block that makes
   * the
   * array, so that several ops share one gather; the price is their memory from the first of these ops to the
   * last.
   */
  coefficients(value: Value): Value {
    if (!hasShardedLimbs(value)) return this.op('poly.intt', [value]);
    const home = this.home(value);
    const found = home.inverses.get(value.id) ?? home.op('poly.intt', [value]);
    home.inverses.set(value.id, found);
    return found;
  }

  /** The scope of the block that makes a value, which is this one or encloses it. */
  private home(value: Value): Scope {
    if (this.made.has(value.id) || this.outer === undefined) return this;
    this.outer.loc = this.loc;
    return this.outer.home(value);
  }

  ranksAlong(meshAxis: number): number {
    const size = this.mesh?.axes[meshAxis]?.size;
    invariant(size !== undefined, `mesh axis ${meshAxis} exists`);
    return size;
  }

  undefined(type: PolyType): Value {
    return this.op('poly.undefined', [], shapeOf(type));
  }

  /** The integer `constant` as a plaintext on `limbs`. */
  integer(limbs: readonly number[], constant: bigint): Value {
    return this.residues(limbs, () => constant);
  }

  /** A constant plaintext given by an integer for the prime of each limb. */
  residues(limbs: readonly number[], of: (prime: bigint) => bigint): Value {
    const residues = limbs.map((limb) => Number(mod(of(this.prime(limb)), this.prime(limb))));
    return this.op('poly.residues', [], { limbs, residues });
  }

  prime(limb: number): bigint {
    const prime = this.parameters.primes[limb];
    invariant(prime !== undefined, `limb ${limb} has a prime`);
    return prime;
  }
}

export function shapeOf(type: PolyType): Attrs {
  const { axes, limbs, form } = type;
  return { axes: axes.map(({ name, size }) => ({ name, size })), limbs, form, ...shardingOf(type) };
}

/** The attribute that shares work on replicated operands out as `type` lies. */
export function shardingOf({ sharding }: Pick<PolyType, 'sharding'>): Attrs {
  const trivial = sharding.every((one) => one.kind === 'replicated');
  return trivial ? {} : { sharding: sharding as unknown as Attrs[] };
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
