/**
 * Bytes that a rank needs under a placement: switching keys and plaintexts, resident for the whole run, and
 * values from where they are made to their last use.
 */
import { defined } from '../../support/invariant.js';
import { digitsAt, keyClassFor, type KeyClass } from '../../target/parameters.js';
import { heldRows, rowWords } from '../../target/plain-rows.js';
import { walkOps, type Block, type Func, type Module, type Op, type Value } from '../../ir/module.js';
import { axesCount, type PtType, type Sharding } from '../../ir/types.js';
import { keyOf } from './candidates.js';
import { demands, type FunctionModel, type Node, type NodeOption } from './model.js';
import { ctOf, levelOfType, noCost, rowBytes, splitShare, type Costing } from './op-cost.js';
import type { Option } from './options.js';
import { rowsOf, viewable } from './reshard.js';

/** A key or an encoded plaintext. */
interface Resident {
  readonly id: string;
  readonly bytes: number;
}

/** Bytes of the largest part of a value. */
export function partBytes(costing: Costing, value: Value, sharding: Sharding): number {
  const { chain, special } = rowsOf(ctOf(value.type));
  const row = rowBytes(costing.parameters);
  switch (sharding.kind) {
    case 'split':
      return splitShare(sharding) * (chain + special) * row;
    case 'limbs': {
      const limbs = levelOfType(ctOf(value.type)) + 1;
      return ((chain / limbs) * Math.ceil(limbs / costing.ranks) + special) * row;
    }
    case 'at':
    case 'partial':
    case 'replicated':
      return (chain + special) * row;
  }
}

/** Mean over the ranks. */
export function meanBytes(costing: Costing, value: Value, sharding: Sharding): number {
  const { chain, special } = rowsOf(ctOf(value.type));
  const row = rowBytes(costing.parameters);
  if (sharding.kind === 'split' || sharding.kind === 'at') return ((chain + special) * row) / costing.ranks;
  return (sharding.kind === 'limbs' ? chain / costing.ranks + special : chain + special) * row;
}

/** An op of a function. */
interface Site {
  readonly func: Func;
  /** Calls of the function in the module. */
  readonly calls: number;
  readonly op: Op;
  /** Iterations of the innermost loop around it. */
  readonly trips: number;
}

/** Keys and plaintexts of an op on one rank. */
export function residents(costing: Costing, site: Site, option: Option, rank: number): Resident[] {
  const plaintexts = plaintextsOf(costing, site, option, rank);
  return [
    ...keysOf(costing, site, option, rank),
    ...plaintexts.map((one) => ({ ...one, id: `@${site.func.name} ${one.id}` })),
  ];
}

export function siteOf(func: Func, calls: number, node: Node): Site | undefined {
  if (node.op === undefined || node.kind !== 'op') return undefined;
  return { func, calls, op: node.op, trips: (node.loops.at(-1)?.attrs.tripCount as number | undefined) ?? 1 };
}

function keysOf(costing: Costing, { op, trips }: Site, option: Option, rank: number): Resident[] {
  const { parameters, ranks } = costing;
  const { part } = option;
  const first = op.operands[0];
  if (first?.type.kind !== 'ct') return [];
  const level = levelOfType(first.type);
  const key = (name: string, keyClass: KeyClass): Resident => {
    const digits = digitsAt(keyClass, level).length;
    const limbs = level + 1;
    const chain = part.kind === 'limbs' ? Math.ceil(limbs / ranks) : limbs;
    const bytes = 2 * digits * (chain + keyClass.specials) * rowBytes(parameters);
    return { id: `${keyClass.name} ${name}`, bytes };
  };
  const named = (name: string): KeyClass =>
    defined(
      parameters.keyClasses.find((one) => one.name === name),
      `key class ${name}`,
    );
  switch (op.kind) {
    case 'ct.relinearize':
      return [key('relinearize', keyClassFor(parameters, level))];
    case 'ct.conjugate':
      return [key('conjugate', keyClassFor(parameters, level))];
    case 'ct.switch_secret':
      return [key(String(op.attrs.to), named(op.attrs.to === 'sparse' ? 'sparse' : 'top'))];
    case 'ct.rotate':
    case 'ct.rotate_each': {
      const along = part.kind === 'split' && part.axis === op.attrs.axis ? part.owners : undefined;
      const own = (op.attrs.steps as readonly number[]).filter(
        (_, i) => along === undefined || along[i] === rank,
      );
      const stride = (op.attrs.loopStride as number | undefined) ?? 0;
      const times = Array.from({ length: stride === 0 ? 1 : trips }, (_, i) => i * stride);
      const slots = parameters.slots;
      const steps = own.flatMap((step) => times.map((more) => (((step + more) % slots) + slots) % slots));
      const lazy = op.attrs.lazy as string | undefined;
      const keyClass = lazy === undefined ? keyClassFor(parameters, level) : named(lazy);
      return [...new Set(steps)].filter((step) => step !== 0).map((step) => key(`rotate ${step}`, keyClass));
    }
    default:
      return [];
  }
}

function plaintextsOf(costing: Costing, { func, calls, op }: Site, option: Option, rank: number): Resident[] {
  if (op.kind !== 'ct.contract' && op.kind !== 'ct.add_plain') return [];
  const { parameters, ranks } = costing;
  const plain = defined(op.operands[1], 'plaintext operand');
  const type = plain.type as PtType;
  const { part } = option;
  const a = ctOf(op.operands[0]?.type);
  const limbs = levelOfType(a) + 1;
  const special = a.basis.kind === 'qp' ? a.basis.specials : 0;
  const chain = part.kind === 'limbs' ? Math.ceil(limbs / ranks) : limbs;
  const split = part.kind === 'split' && type.axes.some((axis) => axis.name === part.axis) ? part : undefined;
  const share =
    split === undefined ? 1 : split.owners.filter((owner) => owner === rank).length / split.owners.length;
  const degree = 2 ** parameters.logN;
  const rows = heldRows(type, chain + special, degree);
  // Every call gives an argument weights of its own.
  const copies = func.body.args.includes(plain) ? Math.max(1, calls) : 1;
  const bytes = copies * axesCount(type.axes) * share * rows * rowWords(type, degree) * 8;
  return [{ id: `plain %${plain.id} level ${limbs - 1}`, bytes }];
}

// ---------------------------------------------------------------- values

interface Live {
  readonly value: Value;
  readonly start: number;
  readonly end: number;
}

/** Node numbers between which each value is alive, loops around a use included. */
export function lifetimes(model: FunctionModel): Live[] {
  const { nodes } = model;
  const ends = new Map<Op, number>();
  nodes.forEach(({ loops }, i) => loops.forEach((loop) => ends.set(loop, i)));
  const endOf = (maker: Node, user: Node, index: number): number => {
    const outer = user.loops.find((loop) => !maker.loops.includes(loop));
    return outer === undefined ? index : (ends.get(outer) ?? index);
  };
  return [...model.values.values()].map(({ value, maker, users }) => {
    const made = defined(nodes[maker], 'maker');
    let end = maker;
    for (const user of users) {
      const node = defined(nodes[user], 'user');
      // A yielded value is used at the end of its loop.
      const yielded = user < maker && node.op !== undefined ? (ends.get(node.op) ?? maker) : user;
      end = Math.max(end, endOf(made, node, user), yielded);
    }
    // Carried values and results of a loop are one buffer, alive while it runs.
    if (made.kind === 'carried' && made.op !== undefined) end = Math.max(end, ends.get(made.op) ?? end);
    return { value, start: maker, end };
  });
}

export interface Peak {
  readonly bytes: number;
  /** Node at which it lies. */
  readonly at: number;
}

/** `inside`: bytes of a called function's own values, by node. */
export function peakOf(
  costing: Costing,
  model: FunctionModel,
  choice: readonly number[],
  inside: (option: Option) => number,
): Peak {
  const chosen = (i: number): NodeOption =>
    defined(model.nodes[i]?.options[defined(choice[i], 'choice')], 'chosen option');
  const bytes = new Float64Array(model.nodes.length + 1);
  const add = (from: number, to: number, amount: number): void => {
    for (let i = from; i <= to; i++) bytes[i] = (bytes[i] ?? 0) + amount;
  };
  for (const { value, start, end } of lifetimes(model)) {
    const info = defined(model.values.get(value.id), 'value');
    const home = defined(chosen(start).makes[info.index], 'sharding');
    add(start, end, partBytes(costing, value, home));
    const copies = new Map<string, { sharding: Sharding; last: number }>();
    for (const user of info.users) {
      for (const to of demands(defined(model.nodes[user], 'user'), chosen(user), value)) {
        if (!viewable(home, to)) copies.set(keyOf(to), { sharding: to, last: user < start ? end : user });
      }
    }
    for (const { sharding, last } of copies.values()) add(start, last, partBytes(costing, value, sharding));
  }
  model.nodes.forEach((node, i) => {
    if (node.op?.kind === 'call') add(i, i, inside(chosen(i).option));
  });
  const at = bytes.indexOf(bytes.reduce((most, one) => Math.max(most, one), 0));
  return { bytes: bytes[at] ?? 0, at };
}

/** Call sites of each function. */
export function callCounts({ functions }: Module): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { body } of functions) {
    walkOps(body, ({ kind, attrs }) => {
      if (kind !== 'call') return;
      const callee = attrs.callee as string;
      counts.set(callee, (counts.get(callee) ?? 0) + 1);
    });
  }
  return counts;
}

/** How many ops could use each key or plaintext: a lower bound shares its bytes among them. */
export function countUsers(costing: Costing, module: Module): Map<string, number> {
  const counts = new Map<string, number>();
  const whole: Option = { operands: [], results: [], cost: noCost, part: { kind: 'whole' } };
  const calls = callCounts(module);
  const visit = (func: Func, block: Block, trips: number): void => {
    for (const op of block.ops) {
      const site = { func, calls: calls.get(func.name) ?? 0, op, trips };
      for (const { id } of residents(costing, site, whole, 0)) {
        counts.set(id, (counts.get(id) ?? 0) + 1);
      }
      op.regions.forEach((region) => visit(func, region, op.attrs.tripCount as number));
    }
  };
  module.functions.forEach((func) => visit(func, func.body, 1));
  return counts;
}
