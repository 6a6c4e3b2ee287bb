/** Places functions: callees for every sharding that a call may give their arguments, each once. */
import { defined, invariant } from '../../support/invariant.js';
import { entryName, type Func, type Module, type Op, type Value } from '../../ir/module.js';
import { replicated } from '../../ir/sharding.js';
import type { OpPlacement, PlacedFunction } from '../../ir/placement.js';
import { axisSize, type Sharding } from '../../ir/types.js';
import { alone, axesOf, Candidates, keyOf } from './candidates.js';
import { buildModel, demands, type FunctionModel, type Node, type NodeOption } from './model.js';
import { callCounts, peakOf, residents, siteOf, type Peak } from './memory.js';
import type { Costing, OpCost } from './op-cost.js';
import { ctOf, noCost } from './op-cost.js';
import type { Option, Strategy } from './options.js';
import { reshard } from './reshard.js';
import { solve, type Solution, type SolverLimits } from './solver/solve.js';

export interface PlacedBody {
  readonly func: Func;
  readonly key: string;
  readonly model: FunctionModel;
  readonly solution: Solution;
  readonly args: readonly Sharding[];
  readonly results: readonly Sharding[];
  readonly cost: OpCost;
  /** Seconds and bytes by location, callees under the location of their call. */
  readonly byLocation: ReadonlyMap<string, OpCost>;
  /** Seconds that stand for memory (Penalty). */
  readonly penalty: number;
  /** No placement of the function takes fewer seconds, penalty included. */
  readonly bound: number;
}

export interface PlacerOptions extends Costing {
  readonly strategy: Strategy;
  readonly limbs: Sharding;
  readonly limits: SolverLimits;
}

/** The penalty of a function's options. */
export type Penalty = (func: Func) => (node: Node, option: NodeOption) => number;

export class Placer {
  private readonly functions: ReadonlyMap<string, Func>;
  private readonly callCounts: ReadonlyMap<string, number>;
  private readonly placed = new Map<string, PlacedBody>();

  constructor(
    module: Module,
    private readonly options: PlacerOptions,
    private readonly penalty: Penalty = () => () => 0,
  ) {
    this.functions = new Map(module.functions.map((func) => [func.name, func]));
    this.callCounts = callCounts(module);
  }

  entry(): PlacedBody {
    return this.body(this.function(entryName), undefined, undefined);
  }

  byKey(key: string): PlacedBody {
    return defined(this.placed.get(key), `placed function ${key}`);
  }

  statistics(): Solution['statistics'][] {
    return [...this.placed.values()].map(({ solution }) => solution.statistics);
  }

  private function(name: string): Func {
    return defined(this.functions.get(name), `function @${name}`);
  }

  private body(
    func: Func,
    args: readonly Sharding[] | undefined,
    results: readonly Sharding[] | undefined,
  ): PlacedBody {
    const pins = (list: readonly Sharding[] | undefined): string => list?.map(keyOf).join(',') ?? '';
    const key = `${func.name}(${pins(args)})->(${pins(results)})`;
    const known = this.placed.get(key);
    if (known !== undefined) return known;
    const candidates = new Candidates(func, this.options.ranks, args ?? []);
    const model = buildModel(func, {
      ...this.options,
      candidates,
      callOptions: (op) => this.callOptions(op, candidates),
      pinnedArgs: args,
      pinnedResults: results,
      penalty: this.penalty(func),
    });
    const solution = solve(model.problem, this.options.limits);
    invariant(solution.value < Infinity, `a placement of @${func.name} exists`);
    const body = this.describe(func, key, model, solution);
    this.placed.set(key, body);
    return body;
  }

  /** Arguments and results each replicated, on limbs, or split along one axis. */
  private callOptions(op: Op, candidates: Candidates): Option[] {
    const callee = this.function(op.attrs.callee as string);
    const leads = this.leads([...op.operands, ...op.results], candidates);
    return leads.flatMap((into) =>
      leads.map((out): Option => {
        const body = this.body(
          callee,
          callee.body.args.map(follow(into)),
          callee.body.results.map(follow(out)),
        );
        return {
          operands: op.operands.map(follow(into)),
          results: op.results.map(follow(out)),
          callee: body.key,
          cost: body.cost,
          penalty: body.penalty / this.calls(callee.name),
          part: { kind: 'whole' },
        };
      }),
    );
  }

  /** Call sites of a function in the module. */
  calls(name: string): number {
    return this.callCounts.get(name) ?? 0;
  }

  private leads(values: readonly Value[], candidates: Candidates): Sharding[] {
    const { strategy, limbs } = this.options;
    if (strategy === 'limb') return [limbs];
    const splits = new Map<string, Sharding>();
    for (const value of values) {
      for (const split of candidates.of(value))
        if (split.kind === 'split' && !alone(split)) splits.set(keyOf(split), split);
    }
    if (strategy === 'replicate') return splits.size > 0 ? [...splits.values()] : [replicated];
    return [replicated, ...splits.values(), ...(strategy === 'coplaced' ? [limbs] : [])];
  }

  /** Options of calls are priced by what was found, not by what is possible: the most that this hides. */
  private calleeGaps(model: FunctionModel): number {
    return model.nodes.reduce((sum, node) => {
      const gaps = node.options.flatMap(({ option }) =>
        option.callee === undefined ? [] : [gapOf(this.byKey(option.callee))],
      );
      return sum + node.times * Math.max(0, ...gaps);
    }, 0);
  }

  private describe(func: Func, key: string, model: FunctionModel, solution: Solution): PlacedBody {
    const chosen = (node: Node, i: number): NodeOption =>
      defined(node.options[defined(solution.choice[i], 'choice')], 'chosen option');
    const byLocation = new Map<string, OpCost>();
    const add = (loc: string, cost: OpCost, times: number): void => {
      const old = byLocation.get(loc) ?? noCost;
      byLocation.set(loc, plus(old, cost, times));
    };
    model.nodes.forEach((node, i) => {
      if (node.op !== undefined) add(node.op.loc, chosen(node, i).option.cost, node.times);
    });
    for (const info of model.values.values()) {
      const home = defined(
        chosen(defined(model.nodes[info.maker], 'maker'), info.maker).makes[info.index],
        'sharding',
      );
      const done = new Set<string>();
      for (const user of info.users) {
        const node = defined(model.nodes[user], 'user');
        for (const to of demands(node, chosen(node, user), info.value)) {
          if (done.has(keyOf(to))) continue;
          done.add(keyOf(to));
          const transfer = defined(reshard(this.options, ctOf(info.value.type), home, to), 'reshard');
          const cost = { compute: 0, communication: transfer.seconds, bytes: transfer.bytes };
          add(node.op?.loc ?? '', cost, info.times);
        }
      }
    }
    const of = (values: readonly Value[]): Sharding[] =>
      values.map((value) => {
        const info = model.values.get(value.id);
        if (info === undefined) return replicated;
        return defined(
          chosen(defined(model.nodes[info.maker], 'maker'), info.maker).makes[info.index],
          'sharding',
        );
      });
    const results = model.nodes.flatMap((node, i) => (node.kind === 'result' ? chosen(node, i).uses : []));
    const cost = [...byLocation.values()].reduce((sum, one) => plus(sum, one, 1), noCost);
    const penalty = solution.value - cost.compute - cost.communication;
    const bound = solution.bound - this.calleeGaps(model);
    return {
      func,
      key,
      model,
      solution,
      args: of(func.body.args),
      results,
      cost,
      byLocation,
      penalty,
      bound,
    };
  }
}

function plus(a: OpCost, b: OpCost, times: number): OpCost {
  return {
    compute: a.compute + times * b.compute,
    communication: a.communication + times * b.communication,
    bytes: a.bytes + times * b.bytes,
  };
}

function gapOf({ solution, bound }: PlacedBody): number {
  return Math.max(0, solution.value - bound);
}

/** A value with the axis is split along it, another one replicated. */
function follow(lead: Sharding): (value: Value) => Sharding {
  return (value) => {
    if (value.type.kind !== 'ct') return replicated;
    if (lead.kind !== 'split') return lead;
    return axisSize(axesOf(value), lead.axis) === lead.owners.length ? lead : replicated;
  };
}

export interface MemoryEstimate {
  /** Keys and plaintexts of the rank that holds most. */
  readonly residentBytes: number;
  /** Values, where most are alive. */
  readonly valueBytes: number;
  /** Node of the entry function at which that is. */
  readonly peakAt: number;
}

export function estimateMemory(costing: Costing, placer: Placer, entry: PlacedBody): MemoryEstimate {
  const bodies = new Map<string, PlacedBody>();
  const collect = (body: PlacedBody): void => {
    if (bodies.has(body.key)) return;
    bodies.set(body.key, body);
    for (const { option } of chosenOptions(body))
      if (option.callee !== undefined) collect(placer.byKey(option.callee));
  };
  collect(entry);
  const ranks = Array.from({ length: costing.ranks }, (_, rank) => {
    const held = new Map<string, number>();
    for (const body of bodies.values()) {
      const options = chosenOptions(body);
      body.model.nodes.forEach((node, i) => {
        const site = siteOf(body.func, placer.calls(body.func.name), node);
        if (site === undefined) return;
        for (const { id, bytes } of residents(costing, site, defined(options[i], 'option').option, rank)) {
          held.set(id, Math.max(held.get(id) ?? 0, bytes));
        }
      });
    }
    return [...held.values()].reduce((sum, bytes) => sum + bytes, 0);
  });
  const peaks = new Map<string, Peak>();
  const peak = (body: PlacedBody): Peak => {
    const known = peaks.get(body.key);
    if (known !== undefined) return known;
    const inside = ({ callee }: Option): number =>
      callee === undefined ? 0 : peak(placer.byKey(callee)).bytes;
    const found = peakOf(costing, body.model, body.solution.choice, inside);
    peaks.set(body.key, found);
    return found;
  };
  const { bytes, at } = peak(entry);
  return { residentBytes: Math.max(...ranks), valueBytes: bytes, peakAt: at };
}

function chosenOptions({ model, solution }: PlacedBody): NodeOption[] {
  return model.nodes.map((node, i) => defined(node.options[defined(solution.choice[i], 'choice')], 'option'));
}

/** The functions that a placed entry needs, callees first, under names of their own. */
export function placedFunctions(placer: Placer, entry: PlacedBody): PlacedFunction[] {
  const done = new Map<string, PlacedFunction>();
  const counts = new Map<string, number>();
  const visit = (body: PlacedBody): string => {
    const known = done.get(body.key);
    if (known !== undefined) return known.name;
    const ops = new Map<Op, OpPlacement>();
    body.model.nodes.forEach((node, i) => placeNode(node, i, body, ops, (key) => visit(placer.byKey(key))));
    const number = (counts.get(body.func.name) ?? 0) + 1;
    counts.set(body.func.name, number);
    const name = number === 1 ? body.func.name : `${body.func.name}.${number}`;
    const wrap = (list: readonly Sharding[]): Sharding[][] => list.map((sharding) => [sharding]);
    done.set(body.key, {
      name,
      source: body.func.name,
      args: wrap(body.args),
      results: wrap(body.results),
      ops,
    });
    return name;
  };
  visit(entry);
  return [...done.values()];
}

function placeNode(
  node: Node,
  index: number,
  body: PlacedBody,
  ops: Map<Op, OpPlacement>,
  nameOf: (key: string) => string,
): void {
  if (node.op === undefined) return;
  const { option } = defined(node.options[defined(body.solution.choice[index], 'choice')], 'chosen option');
  const wrap = (list: readonly Sharding[]): Sharding[][] => list.map((sharding) => [sharding]);
  const own = { operands: wrap(option.operands), results: wrap(option.results) };
  if (node.kind === 'carried') {
    // One node per carried value, in order.
    const before = ops.get(node.op) ?? { operands: [], results: [] };
    ops.set(node.op, {
      operands: [...before.operands, ...own.operands],
      results: [...before.results, ...own.results],
    });
    return;
  }
  ops.set(node.op, {
    ...own,
    ...(option.modUp === undefined ? {} : { modUp: option.modUp }),
    ...(option.callee === undefined ? {} : { callee: nameOf(option.callee) }),
  });
}
