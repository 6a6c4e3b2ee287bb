/**
 * lazy-mod-down: rotations that are only summed with plaintext factors stay in the extended basis, and the
 * sums get the ModDown instead, where that is cheaper. It changes rounding points, so it runs before
 * lower-keyswitch, on the cipher phase, which fixes them. See docs/passes/lazy-mod-down.md.
 */
import { defined } from '../support/invariant.js';
import { keySwitchCost } from '../target/cost.js';
import { digitsAt, keyClassFor, type Parameters } from '../target/parameters.js';
import type { Block, Func, Module, Op, Value } from '../ir/module.js';
import { axesCount, broadcastAxes } from '../ir/types.js';
import { ctTypeOf, levelOf } from './expand-polynomial.js';
import { rewriteModule, usesOf, type Uses } from '../ir/rewrite.js';

/** Takes a cipher module with levels. */
export function lazyModDown(module: Module): Module {
  const parameters = defined(module.parameters, 'parameters');
  const lazy = new Set<Op>();
  for (const func of module.functions) {
    const uses = usesOf(func);
    const iterations = iterationsOf(func);
    for (const op of iterations.keys()) {
      const candidate = op.kind === 'ct.rotate' && op.attrs.lazy === undefined;
      if (candidate && gains(op, uses, iterations, parameters)) lazy.add(op);
    }
  }
  const sources = new Set([...lazy].flatMap((op) => op.results));
  return rewriteModule(module, (op, { builder, operands }) => {
    if (lazy.has(op)) {
      const keyClass = keyClassFor(parameters, levelOf(defined(operands[0], 'operand of ct.rotate')));
      return [builder.op(op.kind, operands, { ...op.attrs, lazy: keyClass.name }, op.loc)];
    }
    const first = op.operands[0];
    if (!summing.has(op.kind) || first === undefined || !sources.has(first)) return undefined;
    const product = builder.op(op.kind, operands, op.attrs, op.loc);
    return [builder.op('ct.mod_down', [product], {}, op.loc)];
  });
}

/** How often each op runs when its function runs once. */
export function iterationsOf(func: Func): Map<Op, number> {
  const result = new Map<Op, number>();
  const visit = (block: Block, times: number): void => {
    for (const op of block.ops) {
      result.set(op, times);
      const trips = op.kind === 'loop' ? (op.attrs.tripCount as number) : 1;
      op.regions.forEach((region) => visit(region, times * trips));
    }
  };
  visit(func.body, 1);
  return result;
}

/** Whether a rotation is lazy: all its users sum over it, and it pays. */
function gains(op: Op, uses: Uses, iterations: ReadonlyMap<Op, number>, parameters: Parameters): boolean {
  const rotated = defined(op.results[0], 'result of ct.rotate');
  const users = uses.users(rotated);
  if (users.length === 0 || uses.yielded(rotated)) return false;
  if (!users.every((user) => sumsOver(user, rotated, op))) return false;
  return lazyPays(op, users, iterations, { parameters, level: levelOf(rotated) });
}

/**
 * Saved: a ModDown per rotated element. Paid: a ModDown per sum, and every product with a plaintext on K more
 * limbs. A linear layer with many outputs per input is dearer lazily; SlotsToCoeffs and narrow layers gain.
 */
export function lazyPays(
  op: Op,
  users: readonly Op[],
  iterations: ReadonlyMap<Op, number>,
  { parameters, level }: { readonly parameters: Parameters; readonly level: number },
): boolean {
  const rotated = defined(op.results[0], 'result of ct.rotate');
  const cost = keySwitchCost(parameters, level);
  const keyClass = keyClassFor(parameters, level);
  // The key product is as many multiply-adds per limb as there are digits.
  const perLimb = cost.keyProduct / (digitsAt(keyClass, level).length * (level + 1 + keyClass.specials));
  const steps = op.attrs.steps as readonly number[];
  const turned = steps.filter((step) => step % parameters.slots !== 0).length;
  const times = (one: Op): number => iterations.get(one) ?? 1;
  const saved = times(op) * cost.modDown * turned * (axesCount(ctTypeOf(rotated).axes) / steps.length);
  const paid = users.reduce((sum, user) => {
    const sums = axesCount(ctTypeOf(defined(user.results[0], 'result of ct.contract')).axes);
    return sum + times(user) * (sums * cost.modDown + productsOf(user) * keyClass.specials * perLimb);
  }, 0);
  return paid < saved;
}

const summing: ReadonlySet<string> = new Set(['ct.contract', 'ct.sum']);

/** A contraction of the rotated value that sums over the rotations, or their plain sum. */
export function sumsOver(user: Op, rotated: Value, rotate: Op): boolean {
  if (user.kind === 'ct.sum') return user.attrs.axis === rotate.attrs.axis;
  return (
    user.kind === 'ct.contract'
    && user.operands[0] === rotated
    && (user.attrs.over as readonly string[]).includes(rotate.attrs.axis as string)
  );
}

/** Products of a contraction: one per index of all axes together. */
export function productsOf(op: Op): number {
  const lists = op.operands.map(({ type }) => (type.kind === 'ct' || type.kind === 'pt' ? type.axes : []));
  const axes = broadcastAxes(...lists);
  return typeof axes === 'string' ? 0 : axesCount(axes);
}
