/**
 * The body of a bootstrap of `count` real ciphertexts, SlotsToCoeffs first (docs/passes/expand-bootstrap.md).
 * Exported in its parts, because the clear interpreter can run each part but not ModRaise between them.
 *
 * Values, with R = 2^rangeLog2, D_l the canonical scales and x the slot value, |x| <= R:
 *   SlotsToCoeffs   coefficients m = S x / R at level 0, scale S = D_0, with the arcsine step 4 D_0: slots
 *                   become coefficients as they are
 *   ModRaise        m + q_0 I; at scale 16 q_0 this is t / 16, t = I + eps, eps = S x / (R q_0), |t| < 16
 *   CoeffsToSlots   slots t / 16, real and imaginary parts apart, at level evalModTop, scale canonical
 *   EvalMod         y = slope sin(2 pi t) / (2 pi) at level computeTop, scale E = D^2 / q of the level above
 *   reinterpret     E y / D_computeTop = x, which fixes slope = R (q_0 / S) (D_computeTop / E), and the gain
 */
import { defined, invariant } from '../../support/invariant.js';
import { messageRatio, raisedScaleLog2, sineGain, type Parameters } from '../../target/parameters.js';
import type { BlockBuilder } from '../../ir/builder.js';
import type { Attrs, Value } from '../../ir/module.js';
import {
  canonicalScale,
  divScale,
  mulScale,
  powerOfTwoScale,
  primeScale,
  printScale,
  type Scale,
} from '../../ir/scale.js';
import { axisSize } from '../../ir/types.js';
import { arcsineStep, doubleAngles, evalMod, evalModBound } from '../approximation/evalmod.js';
import { ctTypeOf, emitPolynomial, levelOf } from '../expand-polynomial.js';
import { emitStageGroup, stageGroups, type LinearMapStage } from './linear-maps.js';

/** Axes: `b` the real ciphertexts, `p` the pairs real + i imaginary, `part` the two of a pair. */
const [realAxis, pairAxis, partAxis] = ['b', 'p', 'part'];
const boundLog2 = Math.log2(evalModBound);

export class BootstrapBody {
  constructor(
    private readonly builder: BlockBuilder,
    private readonly parameters: Parameters,
    private readonly rangeLog2: number,
    private readonly loc: string,
    /** What a key counts beside lazy rotations, 0 where keys are plenty (linear-maps.ts). */
    private readonly keyCost = 0,
  ) {}

  /** Level bootstrapInputLevel to computeTop, axes b=count. */
  run(input: Value): Value {
    const count = defined(axisSize(ctTypeOf(input).axes, realAxis), `axis ${realAxis}`);
    const raised = this.modRaise(this.slotsToCoeffs(this.pair(input, count)));
    return this.evalMod(this.separate(this.coeffsToSlots(raised), count));
  }

  /** b=count to p=ceil(count/2): elements 2i + i * element 2i+1, an odd last one alone. */
  pair(input: Value, count: number): Value {
    const pairs = Math.floor(count / 2);
    const parts: Value[] = [];
    if (pairs > 0) {
      const even = 2 * pairs === count ? input : this.slice(input, realAxis, 0, 2 * pairs);
      const split = this.reshape(even, [
        [pairAxis, pairs],
        [partAxis, 2],
      ]);
      const imaginary = this.op('ct.mul_i', [this.op('ct.index', [split], { axis: partAxis, index: 1 })]);
      parts.push(this.op('ct.add', [this.op('ct.index', [split], { axis: partAxis, index: 0 }), imaginary]));
    }
    if (2 * pairs < count) {
      const last = count === 1 ? input : this.slice(input, realAxis, count - 1, 1);
      parts.push(this.reshape(last, [[pairAxis, 1]]));
    }
    return this.concat(parts, pairAxis);
  }

  /**
   * The inverse of `pair` on twice the value: w + conj w, i (conj w - w), then the rescale of CoeffsToSlots,
   * whose error the sum would double. CoeffsToSlots has halved w.
   */
  separate(w: Value, count: number): Value {
    const pairs = Math.floor(count / 2);
    const odd = 2 * pairs < count;
    const conjugated = this.op('ct.conjugate', [w]);
    const real = this.op('ct.add', [w, conjugated]);
    const parts: Value[] = [];
    if (pairs > 0) {
      const paired = (value: Value): Value => (odd ? this.slice(value, pairAxis, 0, pairs) : value);
      const imaginary = this.op('ct.mul_i', [this.op('ct.sub', [paired(conjugated), paired(w)])]);
      const column = (value: Value): Value =>
        this.reshape(value, [
          [pairAxis, pairs],
          [partAxis, 1],
        ]);
      const columns = [column(paired(real)), column(imaginary)];
      parts.push(this.reshape(this.concat(columns, partAxis), [[realAxis, 2 * pairs]]));
    }
    if (odd) {
      const last = count === 1 ? real : this.slice(real, pairAxis, pairs, 1);
      parts.push(this.reshape(last, [[realAxis, 1]]));
    }
    return this.op('ct.rescale', [this.concat(parts, realAxis)]);
  }

  /**
   * Level bootstrapInputLevel to 0. The range is divided out in equal shares, the last group sets the scale
   * of ModRaise.
   */
  slotsToCoeffs(input: Value): Value {
    const groups = stageGroups(this.parameters.logN - 1, this.parameters.literal.stcLevels);
    const share = (g: number): number => Math.round((g * this.rangeLog2) / groups.length);
    return groups.reduce((value, group, g) => {
      const level = levelOf(value);
      const last = g === groups.length - 1;
      const current = defined(ctTypeOf(value).scale, 'scale');
      const plainScale = last
        ? divScale(mulScale(this.raisedScale(), primeScale(level)), current)
        : primeScale(level);
      const factor = 2 ** (share(g) - share(g + 1));
      return this.group(value, { ...group, inverse: false, factor, plainScale, rescaled: true });
    }, input);
  }

  private raisedScale(): Scale {
    return mulScale(canonicalScale(0), powerOfTwoScale(raisedScaleLog2(this.parameters)));
  }

  /** Level 0 to maxLevel; from m / S to t / 16. */
  modRaise(input: Value): Value {
    const sparse = this.op('ct.switch_secret', [input], { to: 'sparse' });
    const raised = this.op('ct.switch_secret', [this.op('ct.mod_raise', [sparse])], { to: 'dense' });
    const scale = mulScale(primeScale(0), powerOfTwoScale(boundLog2));
    const factor = 1 / (messageRatio(this.parameters) * evalModBound);
    return this.op('ct.reinterpret', [raised], { scale: printScale(scale), factor });
  }

  /**
   * Level maxLevel to evalModTop + 1, before the last rescale: half the inverse transform; the factor 16 of
   * the scale goes in equal shares.
   */
  coeffsToSlots(input: Value): Value {
    const groups = stageGroups(this.parameters.logN - 1, this.parameters.literal.ctsLevels).reverse();
    const target = canonicalScale(this.parameters.evalModTop);
    return groups.reduce((value, group, g) => {
      const level = levelOf(value);
      const last = g === groups.length - 1;
      const current = defined(ctTypeOf(value).scale, 'scale');
      const plainScale = last
        ? divScale(mulScale(target, primeScale(level)), current)
        : mulScale(primeScale(level), powerOfTwoScale(-Math.round(boundLog2 / groups.length)));
      return this.group(value, {
        ...group,
        inverse: true,
        factor: last ? 0.5 : 1,
        plainScale,
        rescaled: !last,
      });
    }, input);
  }

  /** Level evalModTop to computeTop: t / 16 to x. With the arcsine step the sine becomes s + s^3/6. */
  evalMod(input: Value): Value {
    const { parameters } = this;
    const scaleOf = (level: number): number => defined(parameters.scales[level], 'canonical scale');
    const top = parameters.computeTop;
    const endScale = scaleOf(top + 1) * (scaleOf(top + 1) / Number(parameters.primes[top + 1]));
    const factor = endScale / scaleOf(top);
    const ratio = messageRatio(parameters);
    const slope = (2 ** this.rangeLog2 * ratio * sineGain(parameters)) / factor;
    const arcsine = parameters.arcsine ? arcsineStep(slope) : undefined;
    const coefficients = evalMod(arcsine?.slope ?? slope, ratio);
    const turned = this.op('ct.mul_i', [input]);
    const sine = this.squarings(emitPolynomial(this.builder, turned, coefficients, this.loc, 'imaginary'));
    const result = arcsine === undefined ? sine : this.arcsine(sine, arcsine.constant);
    invariant(levelOf(result) === top, `EvalMod ends at level ${levelOf(result)}, not ${top}`);
    return this.op('ct.reinterpret', [result], { scale: printScale(canonicalScale(top)), factor });
  }

  /** v (v^2 + constant), two levels below v. */
  private arcsine(v: Value, constant: number): Value {
    const square = this.product(v, v);
    const sum = this.op('ct.add_plain', [
      square,
      this.op('pt.constant', [], { axes: [], values: [constant] }),
    ]);
    return this.product(this.op('ct.adjust', [v], { level: levelOf(sum) }), sum);
  }

  private product(a: Value, b: Value): Value {
    return this.op('ct.rescale', [this.relinearized(a, b)]);
  }

  private relinearized(a: Value, b: Value): Value {
    return this.op('ct.relinearize', [this.op('ct.mul', [a, b], { over: [] })]);
  }

  /** 2 Im z^8; the imaginary part is taken before the last rescale, whose error it would double. */
  private squarings(z: Value): Value {
    let power = z;
    for (let i = 1; i < doubleAngles; i++) power = this.product(power, power);
    const last = this.relinearized(power, power);
    const twice = this.op('ct.sub', [this.op('ct.conjugate', [last]), last]);
    return this.op('ct.rescale', [this.op('ct.mul_i', [twice])]);
  }

  private group(value: Value, stage: LinearMapStage): Value {
    return emitStageGroup(this.builder, this.parameters, value, stage, this.keyCost, this.loc);
  }

  private op(kind: string, operands: readonly Value[], attrs: Attrs = {}): Value {
    return this.builder.op(kind, operands, attrs, this.loc);
  }

  private slice(value: Value, axis: string, start: number, size: number): Value {
    return this.op('ct.slice', [value], { axis, start, size });
  }

  private reshape(value: Value, axes: readonly (readonly [name: string, size: number])[]): Value {
    return this.op('ct.reshape', [value], { axes: axes.map(([name, size]) => ({ name, size })) });
  }

  private concat(parts: readonly Value[], axis: string): Value {
    const [first, second] = parts;
    return second === undefined ? defined(first, 'part') : this.op('ct.concat', parts, { axis });
  }
}
