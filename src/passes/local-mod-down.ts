/**
 * local-mod-down: sums of rotations get the rounding points of the published output aggregation (Cinnamon,
 * Cerium), where each device divides its partial sum by P before the reduction. It is a baseline: another
 * cipher
 * module, whose bits are not those of the exact one. See docs/passes/local-mod-down.md.
 */
import { defined, invariant } from '../support/invariant.js';
import { digitGroupsAt, digitsAt, keyClassFor, type Parameters } from '../target/parameters.js';
import type { Module, Op } from '../ir/module.js';
import { rewriteModule } from '../ir/rewrite.js';
import { levelOf } from './expand-polynomial.js';

/** Takes a cipher module with levels. `groups`: devices that will share the digits. */
export function localModDown(module: Module, groups: number): Module {
  invariant(Number.isSafeInteger(groups) && groups >= 1, `${groups} groups of digits`);
  const parameters = defined(module.parameters, 'parameters');
  return rewriteModule(module, (op, { builder, operands }) => {
    const summed = op.kind === 'ct.rotate_each' && op.attrs.sum === true;
    if (!summed || !gains(op, groups, parameters)) return undefined;
    return [builder.op(op.kind, operands, { ...op.attrs, digitGroups: groups }, op.loc)];
  });
}

/**
 * Limbs that come to a device, limbs dealt round-robin: with input broadcast all l of every rotated element;
 * else its
 * digits of every element, and both components of its limbs of the sum from all others.
 */
function gains(op: Op, groups: number, parameters: Parameters): boolean {
  const level = levelOf(defined(op.operands[0], 'operand of ct.rotate_each'));
  const steps = op.attrs.steps as readonly number[];
  const turns = (step: number): boolean => step % parameters.slots !== 0 || op.attrs.loopStride !== undefined;
  const elements = steps.filter(turns).length;
  const limbs = level + 1;
  const broadcast = elements * (limbs - Math.floor(limbs / groups));
  const digits = ownDigits(level, groups, parameters);
  return elements * digits + 2 * (groups - 1) * Math.ceil(limbs / groups) < broadcast;
}

/** The most limbs of a device's digits that are dealt to others. */
function ownDigits(level: number, groups: number, parameters: Parameters): number {
  const keyClass = keyClassFor(parameters, level);
  const groupOf = digitGroupsAt(keyClass, level, groups);
  const missing = new Array<number>(groups).fill(0);
  digitsAt(keyClass, level).forEach(({ first, count }, digit) => {
    const group = defined(groupOf[digit], 'group of a digit');
    for (let limb = first; limb < first + count; limb++) {
      if (limb % groups !== group) missing[group] = (missing[group] ?? 0) + 1;
    }
  });
  return Math.max(...missing);
}
