/**
 * expand-polynomial: every ct.polynomial becomes products, relinearizations and rescales, at optimal depth
 * and with canonical scales throughout. See docs/passes/expand-polynomial.md.
 *
 * Scales: both operands of a product at level l have scale D(l), so rescaling gives D(l)^2 / q(l) = D(l-1).
 * Plaintext coefficients are encoded at D(l) for the same reason. ct.adjust brings operands to a common
 * level.
 */
import { defined, invariant } from '../support/invariant.js';
import type { BlockBuilder } from '../ir/builder.js';
import type { Attrs, Module, Value } from '../ir/module.js';
import { canonicalScale, printScale, scalesEqual } from '../ir/scale.js';
import { axisSize, type CtType } from '../ir/types.js';
import { productSign, type ChebyshevBasis } from './approximation/chebyshev.js';
import { depthOfPower, planSeries, type Leaf, type SeriesNode } from './approximation/paterson-stockmeyer.js';
import { rewriteModule } from '../ir/rewrite.js';

/** Takes a cipher module with levels; leaves it without ct.polynomial. */
export function expandPolynomial(module: Module): Module {
  return rewriteModule(module, (op, { builder, operands }) => {
    if (op.kind !== 'ct.polynomial') return undefined;
    const input = defined(operands[0], 'operand of ct.polynomial');
    return [emitPolynomial(builder, input, op.attrs.coefficients as readonly number[], op.loc)];
  });
}

/**
 * Emits sum_k coefficients[k] T_k(input); the result is ceil(log2(coefficients.length)) levels below the
 * input. Basis 'imaginary': sum_k coefficients[k] i^k T_k(input / i), for inputs i times a real vector.
 */
export function emitPolynomial(
  builder: BlockBuilder,
  input: Value,
  coefficients: readonly number[],
  loc: string,
  basis: ChebyshevBasis = 'real',
): Value {
  return new SeriesEmitter(builder, input, loc, basis).series(coefficients);
}

export function ctTypeOf(value: Value): CtType {
  invariant(value.type.kind === 'ct', 'the value is a ciphertext array');
  return value.type;
}

export function levelOf(value: Value): number {
  return defined(ctTypeOf(value).level, 'level; plan-levels has run');
}

class SeriesEmitter {
  private readonly top: number;
  /** T_k at each level where it was needed. */
  private readonly powers = new Map<number, Value[]>();
  /** Powers of a leaf joined on one axis, by their list. */
  private readonly joined = new Map<string, Value>();
  private readonly axis: string;

  constructor(
    private readonly builder: BlockBuilder,
    private readonly input: Value,
    private readonly loc: string,
    private readonly basis: ChebyshevBasis,
  ) {
    const type = ctTypeOf(input);
    this.top = levelOf(input);
    const scale = defined(type.scale, 'scale');
    invariant(scalesEqual(scale, canonicalScale(this.top)), 'the scale is canonical');
    this.axis = freshAxis(type, 'power');
    this.powers.set(1, [input]);
  }

  series(coefficients: readonly number[]): Value {
    const plan = planSeries(coefficients, this.basis);
    invariant(plan.depth <= this.top, `a series of depth ${plan.depth} needs more than level ${this.top}`);
    for (const { k, a, b } of plan.steps) this.powers.set(k, [this.power(k, a, b)]);
    return this.node(plan.root);
  }

  private op(kind: string, operands: readonly Value[], attrs: Attrs = {}): Value {
    return this.builder.op(kind, operands, attrs, this.loc);
  }

  private constants(values: readonly number[], axes: Attrs[string]): Value {
    return this.op('pt.constant', [], { axes, values });
  }

  private plus(value: Value, constant: number): Value {
    return constant === 0 ? value : this.op('ct.add_plain', [value, this.constants([constant], [])]);
  }

  private at(value: Value, level: number): Value {
    return levelOf(value) === level ? value : this.op('ct.adjust', [value], { level });
  }

  /** T_k at a level: adjusted from the lowest one above it, so that a dropped prime is dropped once. */
  private powerAt(k: number, level: number): Value {
    const known = defined(this.powers.get(k), `T_${k}`);
    const found = known.find((value) => levelOf(value) === level);
    if (found !== undefined) return found;
    const value = this.at(defined(known[0], `T_${k}`), level);
    known.push(value);
    return value;
  }

  /** 2 T_a T_b -+ T_(a-b). The doubling comes before the rescale, whose rounding error it would double. */
  private power(k: number, a: number, b: number): Value {
    const level = this.top - depthOfPower(k);
    const [left, right] = [this.powerAt(a, level + 1), this.powerAt(b, level + 1)];
    const product = this.op('ct.relinearize', [this.op('ct.mul', [left, right], { over: [] })]);
    const doubled = this.op('ct.rescale', [this.op('ct.add', [product, product])]);
    const sign = productSign(this.basis, b);
    if (a === b) return this.plus(doubled, -sign);
    return this.op(sign === 1 ? 'ct.sub' : 'ct.add', [doubled, this.powerAt(a - b, level)]);
  }

  private node(node: SeriesNode): Value {
    const level = this.top - node.depth;
    const parts = node.leaves.map((leaf) => this.at(this.leaf(leaf), level));
    if (node.products.length > 0) parts.unshift(this.products(node, level));
    const [first, ...others] = parts;
    // A constant polynomial: zero of the right type and level.
    const start = first ?? this.at(this.op('ct.sub', [this.input, this.input]), level);
    return this.plus(
      others.reduce((sum, part) => this.op('ct.add', [sum, part]), start),
      node.constant,
    );
  }

  private products(node: SeriesNode, level: number): Value {
    const terms = node.products.map(({ quotient, power }) =>
      this.op('ct.mul', [this.node(quotient), this.powerAt(power, level + 1)], { over: [] }),
    );
    const sum = terms.reduce((a, b) => this.op('ct.add', [a, b]));
    return this.op('ct.rescale', [this.op('ct.relinearize', [sum])]);
  }

  /** One level below the highest power. */
  private leaf(leaf: Leaf): Value {
    const level = this.top - depthOfPower(Math.max(...leaf.powers));
    const scale = printScale(canonicalScale(level));
    const single = leaf.powers.length === 1;
    const first = defined(leaf.powers[0], 'power');
    const powers = single ? this.powerAt(first, level) : this.join(leaf.powers, level);
    const axes = single ? [] : [{ name: this.axis, size: leaf.powers.length }];
    const product = this.op('ct.contract', [powers, this.constants(leaf.coefficients, axes)], {
      over: single ? [] : [this.axis],
      scale,
    });
    return this.op('ct.rescale', [product]);
  }

  private join(powers: readonly number[], level: number): Value {
    const key = powers.join();
    const known = this.joined.get(key);
    if (known !== undefined) return known;
    // In front: the elements of one power stay together in memory.
    const parts = powers.map((k) => {
      const value = this.powerAt(k, level);
      const others = ctTypeOf(value).axes.map((axis) => ({ ...axis }));
      const axes = [{ name: this.axis, size: 1 }, ...others];
      return this.op('ct.reshape', [value], { axes });
    });
    const value = this.op('ct.concat', parts, { axis: this.axis });
    this.joined.set(key, value);
    return value;
  }
}

/** An axis name that the type does not have yet. */
function freshAxis(type: CtType, name: string): string {
  let fresh = name;
  for (let i = 2; axisSize(type.axes, fresh) !== undefined; i++) fresh = `${name}${i}`;
  return fresh;
}
