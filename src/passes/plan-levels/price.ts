/**
 * Predicted seconds of each op of a cipher module with its operands at any level, on one device: the kernels
 * that lower-keyswitch launches (co-place/op-cost.ts) at the rates of a device profile. Polynomials and
 * bootstraps count what they expand to.
 */
import { BlockBuilder, Ids } from '../../ir/builder.js';
import {
  entryName,
  walkOps,
  type Block,
  type Func,
  type Module,
  type Op,
  type Value,
} from '../../ir/module.js';
import { usesOf, type Uses } from '../../ir/rewrite.js';
import { canonicalScale } from '../../ir/scale.js';
import { axesCount, qBasis, type CtType, type Type } from '../../ir/types.js';
import { defined } from '../../support/invariant.js';
import { keyClassFor, type Parameters } from '../../target/parameters.js';
import { defaultProfile, loadProfile, type DeviceProfile } from '../../target/profile.js';
import { profileCosts } from '../co-place/costs.js';
import { opCost, type Costing } from '../co-place/op-cost.js';
import { bootstrapFunction } from '../expand-bootstrap.js';
import { ctTypeOf, emitPolynomial, levelOf } from '../expand-polynomial.js';
import { iterationsOf, lazyModDown, lazyPays, sumsOver } from '../lazy-mod-down.js';
import { polynomialDepth } from '../../ir/ops/cipher.js';

export class LevelPrices {
  private readonly costing: Costing;
  private readonly polynomials = new Map<string, number>();
  private readonly bootstraps = new Map<number, number>();
  private readonly adjustments = new Map<string, number>();

  constructor(
    readonly parameters: Parameters,
    profile: DeviceProfile,
  ) {
    this.costing = { parameters, ranks: 1, costs: profileCosts(profile, 1) };
  }

  /** Seconds of an op that is no loop and no call, its ciphertext operands at `level`. */
  op(op: Op, level: number): number {
    const result = op.results[0];
    if (result?.type.kind !== 'ct' || op.kind === 'ct.zero') return 0;
    if (op.kind === 'ct.bootstrap') return this.bootstrap(result.type);
    if (op.kind === 'ct.polynomial') return this.polynomial(op, level);
    return this.leveled(op, level);
  }

  /** Of the array down to `level`, from anywhere above. */
  adjust(type: CtType, level: number): number {
    const key = `${level} ${axesCount(type.axes)}`;
    const known = this.adjustments.get(key);
    if (known !== undefined) return known;
    const above = at(type, level + 1);
    const seconds = this.leveled(syntheticOp('ct.adjust', [above], at(type, level)), level + 1);
    this.adjustments.set(key, seconds);
    return seconds;
  }

  /** From the input level of a bootstrap to its top; batches are priced by their number of ciphertexts. */
  bootstrap(type: CtType): number {
    const count = axesCount(type.axes);
    const known = this.bootstraps.get(count);
    if (known !== undefined) return known;
    const func = bootstrapFunction(new Ids(), this.parameters, count, 0, 0);
    const bare = { phase: 'cipher', name: '', sourceHash: '', inputs: [], outputs: [] } as const;
    const maps = { constants: new Map(), tables: new Map() };
    const module = lazyModDown({ ...bare, ...maps, parameters: this.parameters, functions: [func] });
    const seconds = module.functions.reduce((sum, { body }) => sum + this.block(body), 0);
    this.bootstraps.set(count, seconds);
    return seconds;
  }

  /**
   * A rotation and what it changes in the price of its users: where lazy-mod-down keeps the special primes,
   * the users take them along and get the ModDown. All of them at `level`, each as often as it runs.
   */
  rotation(op: Op, level: number, uses: Uses, iterations: ReadonlyMap<Op, number>): number {
    const times = (one: Op): number => iterations.get(one) ?? 1;
    const eager = times(op) * this.op(op, level);
    if (!this.isLazy(op, level, uses, iterations)) return eager;
    return Math.min(eager, this.lazyRotation(op, level, uses, times));
  }

  /** A module with levels, with all that it calls; polynomials and bootstraps may be expanded or not. */
  module(module: Module): number {
    const calls = callTimes(module);
    return module.functions.reduce((sum, func) => sum + (calls.get(func.name) ?? 0) * this.once(func), 0);
  }

  /** One run of a function with levels, without what it calls. */
  once(func: Func): number {
    const [uses, iterations] = [usesOf(func), iterationsOf(func)];
    let total = 0;
    walkOps(func.body, (op) => {
      const level = levelOfOperands(op);
      if (op.kind === 'loop' || op.kind === 'call' || level === undefined) return;
      const times = iterations.get(op) ?? 1;
      const rotates = op.kind === 'ct.rotate' && op.attrs.lazy === undefined;
      if (rotates && this.isLazy(op, level, uses, iterations))
        total += this.lazyRotation(op, level, uses, (one) => iterations.get(one) ?? 1);
      else total += times * this.op(op, level);
    });
    return total;
  }

  private isLazy(op: Op, level: number, uses: Uses, iterations: ReadonlyMap<Op, number>): boolean {
    const rotated = defined(op.results[0], 'result of ct.rotate');
    const users = uses.users(rotated);
    if (users.length === 0 || uses.yielded(rotated)) return false;
    if (!users.every((user) => sumsOver(user, rotated, op))) return false;
    return lazyPays(op, users, iterations, { parameters: this.parameters, level });
  }

  private lazyRotation(op: Op, level: number, uses: Uses, times: (op: Op) => number): number {
    const rotated = defined(op.results[0], 'result of ct.rotate');
    const { name, specials } = keyClassFor(this.parameters, level);
    const extended = (value: Value): Value => ({ ...value, type: inBasis(value.type, specials) });
    const attrs = { ...op.attrs, lazy: name };
    const own = this.leveled({ ...op, attrs, results: op.results.map(extended) }, level);
    return uses.users(rotated).reduce(
      (sum, user) => {
        const swapped = {
          ...user,
          operands: user.operands.map((value) => (value === rotated ? extended(value) : value)),
          results: user.results.map(extended),
        };
        const down = { ...syntheticOp('ct.mod_down', [swapped.results[0]?.type], user.results[0]?.type) };
        const change = this.leveled(swapped, level) + this.leveled(down, level) - this.leveled(user, level);
        return sum + times(user) * change;
      },
      times(op) * own,
    );
  }

  private leveled(op: Op, level: number): number {
    const operands = op.operands.map((value) => withLevel(value, level));
    const after = op.kind === 'ct.rescale' || op.kind === 'ct.adjust' ? level - 1 : level;
    const results = op.results.map((value) => withLevel(value, after));
    return opCost(this.costing, { ...op, operands, results }, { kind: 'whole' }).compute;
  }

  private polynomial(op: Op, level: number): number {
    const coefficients = op.attrs.coefficients as readonly number[];
    const type = ctTypeOf(defined(op.operands[0], 'operand of ct.polynomial'));
    const zeros = coefficients.map((one) => (one === 0 ? '0' : '1')).join('');
    const key = `${level} ${axesCount(type.axes)} ${zeros}`;
    const known = this.polynomials.get(key);
    if (known !== undefined) return known;
    const builder = new BlockBuilder(new Ids(), this.parameters, [at(type, level)]);
    const result = emitPolynomial(builder, defined(builder.args[0], 'argument'), coefficients, '');
    const seconds = this.block(builder.finish([result]));
    this.polynomials.set(key, seconds);
    return seconds;
  }

  private block(body: Block): number {
    return body.ops.reduce((sum, op) => {
      if (op.results[0]?.type.kind !== 'ct') return sum;
      return sum + opCost(this.costing, op, { kind: 'whole' }).compute;
    }, 0);
  }
}

const knownPrices = new WeakMap<Parameters, WeakMap<DeviceProfile, LevelPrices>>();
let usualProfile: DeviceProfile | undefined;

/** Shared by all modules of one compilation, which have the same bootstraps and many of the same series. */
export function pricesFor(parameters: Parameters, profile: DeviceProfile | undefined): LevelPrices {
  usualProfile ??= loadProfile(defaultProfile);
  const device = profile ?? usualProfile;
  const ofDevices = knownPrices.get(parameters) ?? new WeakMap<DeviceProfile, LevelPrices>();
  const prices = ofDevices.get(device) ?? new LevelPrices(parameters, device);
  knownPrices.set(parameters, ofDevices.set(device, prices));
  return prices;
}

/** Levels that an op takes from its operands to its result. */
export function levelsTaken(op: Op): number {
  if (op.kind === 'ct.rescale') return 1;
  if (op.kind !== 'ct.polynomial') return 0;
  return polynomialDepth((op.attrs.coefficients as readonly number[]).length - 1);
}

/** How often each function runs in one run of the entry. */
export function callTimes(module: Module): Map<string, number> {
  const times = new Map([[entryName, 1]]);
  // Callers come after their callees.
  for (const func of [...module.functions].reverse()) {
    const own = times.get(func.name) ?? 0;
    for (const [op, iterations] of iterationsOf(func)) {
      if (op.kind !== 'call') continue;
      const callee = op.attrs.callee as string;
      times.set(callee, (times.get(callee) ?? 0) + own * iterations);
    }
  }
  return times;
}

function levelOfOperands(op: Op): number | undefined {
  const operand = op.operands.find(({ type }) => type.kind === 'ct') ?? op.results[0];
  if (operand?.type.kind !== 'ct' || op.kind === 'ct.zero') return undefined;
  // The price of ct.adjust is that of its target.
  if (op.kind === 'ct.adjust') return levelOf(defined(op.results[0], 'result')) + 1;
  return levelOf(operand);
}

function at(type: CtType, level: number): CtType {
  return { ...type, degree: 1, basis: qBasis, level, scale: canonicalScale(level) };
}

function withLevel(value: Value, level: number): Value {
  return value.type.kind === 'ct' ? { ...value, type: { ...value.type, level } } : value;
}

function inBasis(type: Type, specials: number): Type {
  return type.kind === 'ct' ? { ...type, basis: { kind: 'qp', specials } } : type;
}

/** For its price only: the values have no makers. */
function syntheticOp(kind: string, operands: readonly (Type | undefined)[], result: Type | undefined): Op {
  const value = (type: Type | undefined): Value => ({ id: -1, type: defined(type, 'type') });
  return { kind, operands: operands.map(value), attrs: {}, results: [value(result)], regions: [], loc: '' };
}
