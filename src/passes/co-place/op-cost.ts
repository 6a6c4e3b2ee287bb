/** Kernels and collectives of one cipher op on the rank with the largest part; follows lower-keyswitch. */
import { defined, invariant } from '../../support/invariant.js';
import { digitsAt, keyClassFor, type KeyClass, type Parameters } from '../../target/parameters.js';
import type { Op } from '../../ir/module.js';
import { axisSize, broadcastAxes, type Axis, type CtType, type Sharding, type Type } from '../../ir/types.js';
import type { CollectiveKind, KernelShape } from '../../target/kernel-cost.js';
import { expansionButterflies, heldAsCoefficients, heldRows, rowWords } from '../../target/plain-rows.js';
import type { CostModel } from './costs.js';

/** The part of an op's work that one rank does. */
export type Part =
  | { readonly kind: 'whole' }
  | { readonly kind: 'split'; readonly axis: string; readonly owners: readonly number[] }
  | { readonly kind: 'limbs'; readonly modUp: 'broadcast' | 'aggregate' };

export interface OpCost {
  /** Seconds. */
  readonly compute: number;
  /** Seconds. */
  readonly communication: number;
  /** The most that one rank receives or sends. */
  readonly bytes: number;
}

export const noCost: OpCost = { compute: 0, communication: 0, bytes: 0 };

export function ctOf(type: Type | undefined, what = 'value'): CtType {
  invariant(type?.kind === 'ct', `${what} is a ciphertext array`);
  return type;
}

export function levelOfType(type: CtType): number {
  return defined(type.level, 'level');
}

/** Ops that decompose a polynomial and multiply it by a key. */
export function switchesKeys(kind: string): boolean {
  return ['ct.relinearize', 'ct.rotate', 'ct.rotate_each', 'ct.conjugate', 'ct.switch_secret'].includes(kind);
}

export interface Costing {
  readonly parameters: Parameters;
  readonly ranks: number;
  readonly costs: CostModel;
}

export function rowBytes(parameters: Parameters): number {
  return 8 * 2 ** parameters.logN;
}

/** `reduced`: how a sum over rotations in basis qp is completed before its ModDown. */
export function opCost(costing: Costing, op: Op, part: Part, reduced?: Sharding): OpCost {
  if (!op.kind.startsWith('ct.')) return noCost;
  return new Work(costing, op, part, reduced).run();
}

class Work {
  private readonly calls: KernelShape[] = [];
  private communication = 0;
  private bytes = 0;
  private readonly a: CtType | undefined;
  private readonly result: CtType;

  constructor(
    private readonly costing: Costing,
    private readonly op: Op,
    private readonly part: Part,
    private readonly reduced: Sharding | undefined,
  ) {
    const first = op.operands[0]?.type;
    this.a = first?.kind === 'ct' ? first : undefined;
    this.result = ctOf(op.results[0]?.type, `result of ${op.kind}`);
  }

  run(): OpCost {
    this.emit();
    const compute = this.calls
      .filter((call) => call.batch > 0 && call.limbs > 0)
      .reduce((sum, call) => sum + this.costing.costs.kernel(call), 0);
    return { compute, communication: this.communication, bytes: this.bytes };
  }

  // ------------------------------------------------------------ shares

  private size(axis: Axis): number {
    const { part } = this;
    if (part.kind !== 'split' || part.axis !== axis.name) return axis.size;
    if (part.owners.length !== axis.size) return axis.size;
    return this.largest(part.owners.map(() => 1));
  }

  /** Largest sum of weights of one rank's indices. */
  private largest(weights: readonly number[]): number {
    const { part } = this;
    invariant(part.kind === 'split', 'a split has owners');
    const sums = new Map<number, number>();
    part.owners.forEach((owner, i) => sums.set(owner, (sums.get(owner) ?? 0) + (weights[i] ?? 0)));
    return Math.max(...sums.values());
  }

  private elements(axes: readonly Axis[]): number {
    return axes.reduce((product, axis) => product * this.size(axis), 1);
  }

  /** Own limbs of the first `count` of the chain. */
  private chain(count: number): number {
    return this.part.kind === 'limbs' ? Math.ceil(count / this.costing.ranks) : count;
  }

  private limbs(type: CtType): number {
    return this.chain(levelOfType(type) + 1) + (type.basis.kind === 'qp' ? type.basis.specials : 0);
  }

  private kernel(
    kind: KernelShape['kind'],
    batch: number,
    limbs: number,
    more: Partial<KernelShape> = {},
  ): void {
    this.calls.push({ kind, logN: this.costing.parameters.logN, batch, limbs, ...more });
  }

  /** `rows` of N words received by one rank. */
  private collective(kind: CollectiveKind, rows: number): void {
    const { costing } = this;
    const bytes = rows * rowBytes(costing.parameters);
    if (costing.ranks === 1 || bytes === 0) return;
    this.bytes += bytes;
    this.communication += costing.costs.collective(kind, bytes);
  }

  // ------------------------------------------------------------ parts of a key switch

  /** Decomposition of `count` polynomials. */
  private modUp(count: number, keyClass: KeyClass, level: number): void {
    const digits = digitsAt(keyClass, level);
    const own = this.chain(level + 1);
    this.kernel('intt', count, own);
    if (this.part.kind === 'limbs') {
      this.collective('all_gather', count * (level + 1 - Math.floor((level + 1) / this.costing.ranks)));
    }
    for (const digit of digits) {
      const kept = this.part.kind === 'limbs' ? Math.floor(digit.count / this.costing.ranks) : digit.count;
      const others = Math.max(0, own - kept) + keyClass.specials;
      this.kernel('copy', count, kept);
      this.kernel('base_convert', count, others, { sources: digit.count });
      this.kernel('ntt', count, others);
    }
  }

  private modDown(polynomials: number, specials: number, level: number): void {
    this.divide(polynomials, specials, this.chain(level + 1));
  }

  private divide(polynomials: number, divided: number, limbs: number): void {
    this.kernel('intt', polynomials, divided);
    this.kernel('base_convert', polynomials, limbs, { sources: divided });
    this.kernel('ntt_sub_scale', polynomials, limbs);
  }

  /** Rescale of an array at `level`: the owner of the dropped limb sends it. */
  private rescale(polynomials: number, level: number): void {
    if (this.part.kind === 'limbs') this.collective('broadcast', polynomials);
    this.divide(polynomials, 1, this.chain(level));
  }

  /** `inputs`: decomposed polynomials, read by several products where rotations are hoisted. */
  private keyProduct(count: number, keyClass: KeyClass, level: number, keys: number, inputs: number): void {
    const digits = digitsAt(keyClass, level).length;
    const limbs = this.chain(level + 1) + keyClass.specials;
    this.kernel('key_product', count, limbs, { digits, keys, readRows: inputs * digits * limbs });
  }

  private keySwitch(count: number, keyClass: KeyClass, level: number): void {
    this.modUp(count, keyClass, level);
    this.keyProduct(count, keyClass, level, 1, count);
    this.modDown(2 * count, keyClass.specials, level);
  }

  // ------------------------------------------------------------ ops

  private emit(): void {
    const { op, result } = this;
    const components = result.degree + 1;
    const out = this.elements(result.axes);
    const limbs = this.limbs(result);
    switch (op.kind) {
      case 'ct.add':
      case 'ct.sub':
        return this.kernel('add', out * components, limbs);
      case 'ct.add_plain':
        this.kernel('copy', out * (components - 1), limbs);
        return this.kernel('add_plain', out, limbs, this.plain(limbs));
      case 'ct.contract':
        return this.contract(out * components, limbs);
      case 'ct.mul':
        return this.kernel('tensor', out, limbs, {
          summed: this.summed(),
          readRows: this.operandRows(limbs),
        });
      case 'ct.mul_i':
        return this.kernel('contract', out * components, limbs);
      case 'ct.sum':
        return this.kernel('copy', out * components, limbs, { summed: this.summed() });
      case 'ct.concat':
        return this.kernel('copy', out * components, limbs);
      case 'ct.zero':
        return this.kernel('zero', out * components, limbs);
      case 'ct.index':
      case 'ct.slice':
      case 'ct.reshape':
      case 'ct.reinterpret':
        return;
      default:
        return this.emitSwitch(out, components);
    }
  }

  private emitSwitch(out: number, components: number): void {
    const { op, result } = this;
    const { parameters } = this.costing;
    const a = defined(this.a, `operand of ${op.kind}`);
    const level = levelOfType(a);
    switch (op.kind) {
      case 'ct.relinearize':
        this.keySwitch(out, keyClassFor(parameters, level), level);
        return this.kernel('add', 2 * out, this.chain(level + 1));
      case 'ct.rescale':
        return this.rescale(out * components, level);
      case 'ct.adjust': {
        const target = levelOfType(result);
        this.kernel('contract', out * components, this.chain(target + 2));
        return this.rescale(out * components, target + 1);
      }
      case 'ct.mod_down':
        return this.modDown(out * components, a.basis.kind === 'qp' ? a.basis.specials : 0, level);
      case 'ct.conjugate':
        return this.rotations(out, out, 1, keyClassFor(parameters, level), level);
      case 'ct.rotate':
        return this.rotate(a, level);
      case 'ct.rotate_each':
        return this.rotateEach(a, level);
      case 'ct.mod_raise': {
        if (this.part.kind === 'limbs') this.collective('broadcast', out * components);
        const raised = this.chain(levelOfType(result) + 1);
        this.kernel('intt', out * components, 1);
        this.kernel('base_convert', out * components, raised, { sources: 1 });
        return this.kernel('ntt', out * components, raised);
      }
      case 'ct.switch_secret': {
        const name = op.attrs.to === 'sparse' ? 'sparse' : 'top';
        const keyClass = parameters.keyClasses.find((one) => one.name === name);
        this.keySwitch(out, defined(keyClass, `key class ${name}`), level);
        return this.kernel('add', out, this.chain(level + 1));
      }
      default:
        invariant(false, `${op.kind} must be expanded before co-place`);
    }
  }

  /** ModUp of `inputs`, then `turned` rotated copies with ModDown each. */
  private rotations(inputs: number, turned: number, keys: number, keyClass: KeyClass, level: number): void {
    if (turned === 0) return;
    this.modUp(inputs, keyClass, level);
    this.products(inputs, turned, keys, keyClass, level);
    this.modDown(2 * turned, keyClass.specials, level);
    this.kernel('automorphism', 2 * turned, this.chain(level + 1));
  }

  private products(inputs: number, turned: number, keys: number, keyClass: KeyClass, level: number): void {
    this.keyProduct(turned, keyClass, level, keys, inputs);
    this.kernel('contract', turned, this.chain(level + 1), { accumulate: true });
  }

  private rotate(a: CtType, level: number): void {
    const { parameters } = this.costing;
    const { axis, lazy } = this.op.attrs as { axis: string; lazy?: string };
    const named = parameters.keyClasses.find((one) => one.name === lazy);
    const keyClass = named ?? keyClassFor(parameters, level);
    const inputs = this.elements(a.axes);
    const weights = (this.op.attrs.steps as readonly number[]).map((step) => (this.turns(step) ? 1 : 0));
    const along = this.part.kind === 'split' && this.part.axis === axis;
    const total = (list: readonly number[]): number =>
      along ? this.largest(list) : list.reduce((sum, one) => sum + one, 0);
    const turned = total(weights);
    const resting = Math.max(0, total(weights.map(() => 1)) - turned);
    if (named === undefined) {
      this.rotations(inputs, inputs * turned, turned, keyClass, level);
      return this.kernel('copy', 2 * inputs * resting, this.chain(level + 1));
    }
    if (turned > 0) this.modUp(inputs, keyClass, level);
    this.products(inputs, inputs * turned, turned, keyClass, level);
    const extended = this.chain(level + 1) + keyClass.specials;
    this.kernel('automorphism', 2 * inputs * turned, extended);
    this.kernel('contract', 2 * inputs * resting, this.chain(level + 1));
  }

  private turns(step: number): boolean {
    return step % this.costing.parameters.slots !== 0 || this.op.attrs.loopStride !== undefined;
  }

  private rotateEach(a: CtType, level: number): void {
    const keyClass = keyClassFor(this.costing.parameters, level);
    const axis = this.op.attrs.axis as string;
    const steps = this.op.attrs.steps as readonly number[];
    const weights: number[] = steps.map((step) => (this.turns(step) ? 1 : 0));
    const along = this.part.kind === 'split' && this.part.axis === axis;
    const turned = along ? this.largest(weights) : weights.reduce((sum, one) => sum + one, 0);
    const others = this.elements(a.axes.filter((one) => one.name !== axis));
    if (this.op.attrs.sum !== true)
      return this.rotations(others * turned, others * turned, turned, keyClass, level);
    const extended = this.chain(level + 1) + keyClass.specials;
    if (this.part.kind === 'limbs' && this.part.modUp === 'aggregate') {
      return this.aggregate(others, turned, keyClass, level);
    }
    if (turned > 0) this.modUp(others * turned, keyClass, level);
    this.products(others * turned, others * turned, turned, keyClass, level);
    this.kernel('automorphism', 2 * others, extended, { summed: Math.max(1, turned) });
    if (along) this.reduceSum(others, level + 1 + keyClass.specials);
    const down = along && this.reduced?.kind === 'split' ? others * splitShare(this.reduced) : others;
    this.modDown(2 * down, keyClass.specials, level);
  }

  /** Sum over ranks of both components in basis qp. */
  private reduceSum(outputs: number, limbs: number): void {
    const { ranks } = this.costing;
    const rows = 2 * outputs * limbs;
    if (this.reduced?.kind === 'split') {
      this.collective('reduce_scatter', rows * splitShare(this.reduced) * (ranks - 1));
    } else this.collective('all_reduce', (2 * rows * (ranks - 1)) / ranks);
  }

  /** Whole digits on each rank, the sum over rotations reduced by limbs (NUMBERS section 5). */
  private aggregate(outputs: number, turned: number, keyClass: KeyClass, level: number): void {
    const { ranks } = this.costing;
    const digits = digitsAt(keyClass, level);
    const own = Math.ceil(digits.length / ranks);
    const limbs = level + 1 + keyClass.specials;
    const away = (ranks - 1) / ranks;
    const inputs = outputs * turned;
    const largest = Math.max(...digits.map((digit) => digit.count));
    this.collective('all_to_all', inputs * own * largest * away);
    this.kernel('intt', inputs, own * largest);
    this.kernel('base_convert', inputs * own, limbs - largest, { sources: largest });
    this.kernel('ntt', inputs * own, limbs - largest);
    this.kernel('key_product', inputs, limbs, { digits: own, keys: turned });
    this.kernel('automorphism', 2 * outputs, limbs, { summed: Math.max(1, turned) });
    this.collective('reduce_scatter', (2 * (level + 1) + 4 * keyClass.specials) * outputs * away);
    this.modDown(2 * outputs, keyClass.specials, level);
  }

  /** Terms of each output of a product or sum. */
  private summed(): number {
    const lists = this.op.operands.map(({ type }) =>
      type.kind === 'ct' || type.kind === 'pt' ? type.axes : [],
    );
    const all = broadcastAxes(...lists);
    invariant(typeof all !== 'string', `axes of ${this.op.kind} agree`);
    return this.elements(all.filter(({ name }) => axisSize(this.result.axes, name) === undefined));
  }

  private contract(rows: number, limbs: number): void {
    const readRows = this.operandRows(limbs);
    this.kernel('contract', rows, limbs, { summed: this.summed(), readRows, ...this.plain(limbs) });
  }

  /** Rows of the ciphertext operands; products read them again from cache. */
  private operandRows(limbs: number): number {
    return this.op.operands
      .flatMap(({ type }) => (type.kind === 'ct' ? [this.elements(type.axes) * (type.degree + 1)] : []))
      .reduce((sum, polynomials) => sum + polynomials * limbs, 0);
  }

  private plain(limbs: number): Pick<KernelShape, 'plainWords' | 'butterflies'> {
    const type = this.op.operands[1]?.type;
    if (type?.kind !== 'pt') return { plainWords: 0 };
    const elements = this.elements(type.axes);
    const degree = 2 ** this.costing.parameters.logN;
    const words = rowWords(type, degree);
    return {
      plainWords: elements * heldRows(type, limbs, degree) * words,
      butterflies: heldAsCoefficients(type, limbs, degree)
        ? elements * limbs * expansionButterflies(words)
        : 0,
    };
  }
}

/** The largest share of a rank. */
export function splitShare(sharding: Sharding): number {
  if (sharding.kind !== 'split') return 1;
  const counts = new Map<number, number>();
  for (const owner of sharding.owners) counts.set(owner, (counts.get(owner) ?? 0) + 1);
  return Math.max(...counts.values()) / sharding.owners.length;
}
