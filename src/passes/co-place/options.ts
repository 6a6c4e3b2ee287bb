/** The ways in which an op can be placed on one mesh axis, by strategy (docs/passes/co-place.md). */
import { defined, invariant } from '../../support/invariant.js';
import type { Op, Value } from '../../ir/module.js';
import { partial, replicated } from '../../ir/sharding.js';
import { axisSize, type Axis, type Sharding } from '../../ir/types.js';
import { viewedSharding } from '../../ir/verify-placement.js';
import { axesOf, concatParts, keyOf, passesAt, type Candidates } from './candidates.js';
import { noCost, opCost, switchesKeys, type Costing, type OpCost, type Part } from './op-cost.js';

export const strategies = ['limb', 'app', 'replicate', 'coplaced'] as const;
export type Strategy = (typeof strategies)[number];

export interface Option {
  /** By operand of the op; plaintexts count as replicated. */
  readonly operands: readonly Sharding[];
  readonly results: readonly Sharding[];
  readonly modUp?: 'broadcast' | 'aggregate';
  readonly callee?: string;
  /** Seconds that stand for the memory of a callee. */
  readonly penalty?: number;
  readonly cost: OpCost;
  /** Part of the work that the largest rank does. */
  readonly part: Part;
}

export interface OptionContext extends Costing {
  readonly strategy: Strategy;
  readonly limbs: Sharding;
  readonly candidates: Candidates;
}

type Split = Extract<Sharding, { kind: 'split' }>;

/** Options of an op that is no loop and no call. */
export function optionsOf(op: Op, context: OptionContext): Option[] {
  const found = new Map<string, Option>();
  for (const option of generate(op, context)) {
    const key = [...option.operands, ...option.results].map(keyOf).join(';') + (option.modUp ?? '');
    if (!found.has(key)) found.set(key, option);
  }
  return [...found.values()];
}

function generate(op: Op, context: OptionContext): Option[] {
  const { strategy } = context;
  if (strategy === 'limb') return limbOptions(op, context);
  const splits = applicationOptions(op, context);
  if (strategy === 'replicate') {
    const own = splits.filter((option) => outputsOnly(op, option));
    return own.some((option) => option.part.kind === 'split') && switchesKeys(op.kind)
      ? own.filter((option) => option.part.kind === 'split')
      : own;
  }
  return strategy === 'app' ? splits : [...splits, ...limbOptions(op, context)];
}

/** replicate: no sums over a sharded axis; key switches split along their largest axis, old or made here. */
function outputsOnly(op: Op, option: Option): boolean {
  const [result] = option.results;
  if ([...option.operands, ...option.results].some(({ kind }) => kind === 'partial' || kind === 'at'))
    return false;
  if (!switchesKeys(op.kind) || option.part.kind !== 'split') return true;
  if (result?.kind !== 'split') return false;
  const out = axesOf(op.results[0]);
  const old = out.filter(({ name }) => axisSize(axesOf(op.operands[0]), name) !== undefined);
  return [largest(out), largest(old)].includes(result.axis);
}

function largest(axes: readonly Axis[]): string | undefined {
  const size = Math.max(...axes.map((axis) => axis.size));
  return size > 1 ? axes.find((axis) => axis.size === size)?.name : undefined;
}

function uniform(op: Op, sharding: Sharding, part: Part, cost: OpCost): Option {
  const operands = op.operands.map(({ type }) => (type.kind === 'ct' ? sharding : replicated));
  return { operands, results: op.results.map(() => sharding), part, cost };
}

function limbOptions(op: Op, context: OptionContext): Option[] {
  const make = (modUp: 'broadcast' | 'aggregate'): Option => {
    const part = { kind: 'limbs', modUp } as const;
    const option = uniform(op, context.limbs, part, opCost(context, op, part));
    return switchesKeys(op.kind) ? { ...option, modUp } : option;
  };
  const summed = op.kind === 'ct.rotate_each' && op.attrs.sum === true;
  return summed ? [make('broadcast'), make('aggregate')] : [make('broadcast')];
}

/** Whole values, splits along array axes, partial sums and single ranks. */
function applicationOptions(op: Op, context: OptionContext): Option[] {
  const whole: Part = { kind: 'whole' };
  const everywhere = uniform(op, replicated, whole, opCost(context, op, whole));
  switch (op.kind) {
    case 'ct.zero':
      return [everywhere, ...zeroOptions(op, context)];
    case 'ct.reshape':
    case 'ct.index':
    case 'ct.slice':
      return [everywhere, ...viewOptions(op, context)];
    case 'ct.concat':
      return [everywhere, ...concatOptions(op, context)];
    default:
      return [
        everywhere,
        ...splitOptions(op, context),
        ...partialOptions(op, context),
        ...atOptions(op, context),
      ];
  }
}

function resultOf(op: Op): Value {
  return defined(op.results[0], `result of ${op.kind}`);
}

function zeroOptions(op: Op, context: OptionContext): Option[] {
  const result = resultOf(op);
  const kinds: Sharding[] = [...context.candidates.of(result), partial];
  return kinds.map((sharding) => {
    const part: Part = sharding.kind === 'split' ? sharding : { kind: 'whole' };
    return uniform(op, sharding, part, opCost(context, op, part));
  });
}

function viewOptions(op: Op, context: OptionContext): Option[] {
  const operand = defined(op.operands[0], 'operand of a view');
  return [...context.candidates.of(operand), partial].flatMap((sharding) => {
    const shown = viewedSharding(op, sharding);
    if (typeof shown === 'string') return [];
    const part: Part = sharding.kind === 'split' ? sharding : { kind: 'whole' };
    return [{ operands: [sharding], results: [shown], part, cost: noCost }];
  });
}

function concatOptions(op: Op, context: OptionContext): Option[] {
  const axis = op.attrs.axis as string;
  const whole: Part = { kind: 'whole' };
  const options = [uniform(op, partial, whole, opCost(context, op, whole))];
  for (const split of context.candidates.of(resultOf(op))) {
    if (split.kind === 'at') continue;
    const cost = opCost(context, op, split);
    if (split.axis !== axis) {
      options.push(uniform(op, split, split, cost));
      continue;
    }
    const parts = concatParts(op, split.owners);
    const results = [split];
    options.push({ operands: parts.map((owners) => ({ ...split, owners })), results, part: split, cost });
    // A part of one rank may be there as a whole.
    const single = parts.map((owners, i): Sharding => {
      const rank = defined(owners[0], 'owner');
      const held = context.candidates
        .of(defined(op.operands[i], 'part'))
        .some((s) => s.kind === 'at' && s.rank === rank);
      return held && owners.every((owner) => owner === rank) ? { kind: 'at', rank } : { ...split, owners };
    });
    options.push({ operands: single, results, part: split, cost });
  }
  return options;
}

/** Splits along every axis of the op's iteration space. */
function splitOptions(op: Op, context: OptionContext): Option[] {
  const splits = new Map<string, Split>();
  for (const value of [...op.operands, ...op.results]) {
    for (const split of context.candidates.of(value)) {
      if (split.kind === 'split') splits.set(keyOf(split), split);
    }
  }
  return [...splits.values()].flatMap((split) => splitOption(op, context, split));
}

function splitOption(op: Op, context: OptionContext, split: Split): Option[] {
  const has = (value: Value): boolean => axisSize(axesOf(value), split.axis) === split.owners.length;
  const operands = op.operands.map((value) => (value.type.kind === 'ct' && has(value) ? split : replicated));
  const result = resultOf(op);
  if (has(result)) return [{ operands, results: [split], part: split, cost: opCost(context, op, split) }];
  if (op.kind === 'ct.rotate_each') return summedRotation(op, context, split, operands);
  const sums = ['ct.mul', 'ct.contract', 'ct.sum'].includes(op.kind);
  const used = operands.some((sharding) => sharding.kind === 'split');
  if (!sums || !used) return [];
  return [{ operands, results: [partial], part: split, cost: opCost(context, op, split) }];
}

/** Each rank rotates its own elements; the sum is reduced in basis qp, before its ModDown. */
function summedRotation(op: Op, context: OptionContext, split: Split, operands: Sharding[]): Option[] {
  invariant(op.attrs.sum === true, 'a rotation that keeps its axes has no sum');
  const targets: Sharding[] = [
    replicated,
    ...context.candidates.of(resultOf(op)).filter(({ kind }) => kind === 'split'),
  ];
  return targets.map((to) => ({
    operands,
    results: [to],
    part: split,
    cost: opCost(context, op, split, to),
  }));
}

/** Linear ops of partial sums. */
function partialOptions(op: Op, context: OptionContext): Option[] {
  if (!['ct.add', 'ct.sub', 'ct.sum', 'ct.contract'].includes(op.kind)) return [];
  const whole: Part = { kind: 'whole' };
  return [uniform(op, partial, whole, opCost(context, op, whole))];
}

function atOptions(op: Op, context: OptionContext): Option[] {
  if (!passesAt(op.kind)) return [];
  const whole: Part = { kind: 'whole' };
  const cost = opCost(context, op, whole);
  const ranks = context.candidates.of(resultOf(op)).filter(({ kind }) => kind === 'at');
  return ranks.map((sharding) => uniform(op, sharding, whole, cost));
}
