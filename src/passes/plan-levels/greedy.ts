/**
 * The local search that plan-levels is compared with, and its upper bound.
 *
 * A forward walk bootstraps an operand when it cannot pay for its next op (as late as possible); a local
 * search then flags values to be bootstrapped where they are made and keeps what lowers the estimated cost,
 * so that one hidden state is refreshed instead of the many values made from it. Deterministic; nothing says
 * how far it is from the best plan.
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
import { axesCount } from '../../ir/types.js';
import { AegisError } from '../../support/diagnostics.js';
import { defined, invariant } from '../../support/invariant.js';
import { bootstrapCost, keySwitchCost, keySwitchTotal, multiplyCost } from '../../target/cost.js';
import type { Parameters } from '../../target/parameters.js';
import {
  anyLevel,
  InfeasibleLevels,
  levelCarrier,
  LevelFacts,
  LevelWalk,
  type Boundaries,
  type Carrier,
} from './walk.js';
import { bootstrapRange, finalAttrs, leveled, type ValueBounds } from './attributes.js';

/** Rounds of the local search; it usually stops after three. */
const searchRounds = 6;

export function planGreedily(module: Module, bounds: ValueBounds): Module {
  const parameters = defined(module.parameters, 'parameters');
  const ids = new Ids();
  const boundaries = new Map<string, number>();
  const functions = new Map<string, Func>();
  // Callees come first.
  for (const func of module.functions) {
    const plan = func.name === entryName ? planMain : planLayer;
    const { boundary, flagged, facts } = plan(module, func, parameters, boundaries);
    const types = func.body.args.map((arg) => leveled(arg.type, boundary));
    const builder = new BlockBuilder(ids, parameters, types);
    const values = new Map<number, Value>();
    func.body.args.forEach((arg, i) => values.set(arg.id, defined(builder.args[i], 'argument')));
    const carrier = buildingCarrier(builder, { parameters, bounds, functions });
    const walk = new LevelWalk({ parameters, facts, flagged, boundaries }, carrier, values);
    const results = func.name === entryName ? walk.block(func.body) : walk.func(func.body, boundary);
    functions.set(func.name, { ...func, body: builder.finish(results) });
    boundaries.set(func.name, boundary);
  }
  return { ...module, functions: [...functions.values()] };
}

interface FunctionPlan {
  /** Level of the arguments; of the results too, unless the function is the entry. */
  readonly boundary: number;
  readonly facts: LevelFacts;
  readonly flagged: ReadonlySet<number>;
}

function planMain(
  _module: Module,
  { body }: Func,
  parameters: Parameters,
  boundaries: Boundaries,
): FunctionPlan {
  const facts = new LevelFacts(body, { boundaries });
  const task: Task = { body, parameters, facts, boundaries, entry: parameters.computeTop, exit: undefined };
  const { flagged, cost } = search(task);
  if (cost === Infinity) throw infeasible(task);
  return { boundary: parameters.computeTop, facts, flagged };
}

/**
 * A layer is planned once for all calls, so it gives its results at the level of its arguments. Every such
 * level is tried, the highest first; the price of main around the calls counts too.
 */
function planLayer(
  module: Module,
  { name, body }: Func,
  parameters: Parameters,
  boundaries: Boundaries,
): FunctionPlan {
  const main = defined(
    module.functions.find((f) => f.name === entryName),
    'main',
  ).body;
  const calls = main.ops.filter((op) => op.attrs.callee === name).length;
  const taskAt = (level: number): Task => {
    const facts = new LevelFacts(body, { boundaries, exit: level });
    return { body, parameters, facts, boundaries, entry: level, exit: level };
  };
  let best: (FunctionPlan & { readonly cost: number }) | undefined;
  for (let level = parameters.computeTop; level >= parameters.bootstrapInputLevel; level--) {
    const task = taskAt(level);
    const { flagged, cost } = search(task);
    const total = calls * cost + priceAround(main, parameters, new Map([...boundaries, [name, level]]));
    if (total < (best?.cost ?? Infinity)) {
      best = { boundary: level, facts: task.facts, flagged, cost: total };
    }
  }
  if (best === undefined) throw infeasible(taskAt(parameters.computeTop));
  return best;
}

/** Main with one layer at its boundary; other layers that are not planned yet count as at the top. */
function priceAround(main: Block, parameters: Parameters, known: Boundaries): number {
  const callees = main.ops.flatMap((op) => (op.kind === 'call' ? [op.attrs.callee as string] : []));
  const open = callees.filter((name) => !known.has(name));
  const boundaries = new Map([
    ...known,
    ...open.map((name): [string, number] => [name, parameters.computeTop]),
  ]);
  const facts = new LevelFacts(main, { boundaries });
  const task = { body: main, parameters, facts, boundaries, entry: parameters.computeTop, exit: undefined };
  return priceOf(task, new Set());
}

/** One function to plan. */
interface Task {
  readonly body: Block;
  readonly parameters: Parameters;
  readonly facts: LevelFacts;
  readonly boundaries: Boundaries;
  /** Level of the arguments. */
  readonly entry: number;
  /** Level of the results; any where undefined. */
  readonly exit: number | undefined;
}

interface Priced {
  readonly flagged: ReadonlySet<number>;
  readonly cost: number;
}

/**
 * The cheapest plan that single changes lead to. Adding a flag may make others pointless, so every addition
 * is judged
 * after the flags it makes pointless are gone. Small arrays are tried first: refreshing them is cheap.
 */
function search(task: Task): Priced {
  const { body, facts } = task;
  const priced = (flagged: ReadonlySet<number>): Priced => ({ flagged, cost: priceOf(task, flagged) });
  const candidates: Value[] = [];
  walkOps(body, (op) => {
    for (const result of op.results)
      if (facts.canonical.has(result.id) && op.kind !== 'ct.zero') candidates.push(result);
  });
  candidates.sort((a, b) => countOf(a) - countOf(b) || a.id - b.id);
  let best = priced(new Set());
  for (let round = 0; round < searchRounds; round++) {
    const before = best.cost;
    for (const { id } of candidates) {
      const trial = best.flagged.has(id)
        ? priced(without(best.flagged, id))
        : withoutPointless(priced(new Set([...best.flagged, id])), id, priced);
      if (trial.cost < best.cost) best = trial;
    }
    if (best.cost === before) break;
  }
  return best;
}

function without(set: ReadonlySet<number>, id: number): ReadonlySet<number> {
  return new Set([...set].filter((other) => other !== id));
}

function withoutPointless(
  plan: Priced,
  keep: number,
  priced: (flagged: ReadonlySet<number>) => Priced,
): Priced {
  let current = plan;
  for (const id of plan.flagged) {
    if (id === keep) continue;
    const trial = priced(without(current.flagged, id));
    if (trial.cost < current.cost) current = trial;
  }
  return current;
}

function infeasible(task: Task): AegisError {
  const { parameters } = task;
  let node = '';
  try {
    walkLevels(task, new Set(), levelCarrier(parameters));
  } catch (error) {
    if (error instanceof InfeasibleLevels) node = error.op.loc;
    else throw error;
  }
  return new AegisError({
    code: 'L101',
    node,
    pass: 'plan-levels',
    message:
      'no plan of bootstraps gives this node the levels it needs '
      + `out of ${parameters.literal.usableLevels} usable`,
    help: 'calibrate with representative samples; narrower ranges need polynomials of smaller depth',
  });
}

function walkLevels(task: Task, flagged: ReadonlySet<number>, carrier: Carrier<number>): void {
  const { body, parameters, facts, boundaries, entry, exit } = task;
  const values = new Map<number, number>(body.args.map((arg) => [arg.id, entry]));
  const walk = new LevelWalk({ parameters, facts, flagged, boundaries }, carrier, values);
  if (exit === undefined) walk.block(body);
  else walk.func(body, exit);
}

/** Predicted cost in NTTs of one limb; infinite where levels run out. */
function priceOf(task: Task, flagged: ReadonlySet<number>): number {
  const { parameters } = task;
  let total = 0;
  let repeats = 1;
  const carrier = levelCarrier(
    parameters,
    (op, level) => {
      total += repeats * opCost(op, level, parameters);
    },
    (value) => {
      total += repeats * bootstrapCost(parameters, countOf(value));
    },
    (op, run) => {
      const outer = repeats;
      repeats *= op.attrs.tripCount as number;
      run();
      repeats = outer;
    },
  );
  try {
    walkLevels(task, flagged, carrier);
  } catch (error) {
    if (error instanceof InfeasibleLevels) return Infinity;
    throw error;
  }
  return total;
}

function countOf(value: Value): number {
  return value.type.kind === 'ct' ? axesCount(value.type.axes) : 0;
}

/** The search prices the same ops at the same levels many thousand times. */
const knownCosts = new WeakMap<Parameters, WeakMap<Op, Map<number, number>>>();

function opCost(op: Op, level: number, parameters: Parameters): number {
  const ofOps = knownCosts.get(parameters) ?? new WeakMap<Op, Map<number, number>>();
  const ofLevels = ofOps.get(op) ?? new Map<number, number>();
  const cost = ofLevels.get(level) ?? costOf(op, level, parameters);
  knownCosts.set(parameters, ofOps.set(op, ofLevels.set(level, cost)));
  return cost;
}

function costOf(op: Op, level: number, parameters: Parameters): number {
  if (level === anyLevel) return 0;
  const count = countOf(defined(op.results[0], 'result'));
  const input = countOf(op.operands[0] ?? defined(op.results[0], 'result'));
  switch (op.kind) {
    case 'ct.rotate': {
      const cost = keySwitchCost(parameters, level);
      return input * cost.modUp + count * (cost.keyProduct + cost.modDown);
    }
    case 'ct.rotate_each':
    case 'ct.relinearize':
    case 'ct.conjugate':
      return input * keySwitchTotal(keySwitchCost(parameters, level));
    case 'ct.rescale':
      return count * 2 * (level + 1);
    case 'ct.polynomial': {
      const degree = (op.attrs.coefficients as readonly number[]).length - 1;
      return (
        count * Math.ceil(Math.sqrt(2 * degree) + Math.log2(degree + 1)) * multiplyCost(parameters, level, 1)
      );
    }
    default:
      return count * (level + 1) * 0.1;
  }
}

interface BuildContext {
  readonly parameters: Parameters;
  readonly bounds: ValueBounds;
  /** Functions that are planned already. */
  readonly functions: ReadonlyMap<string, Func>;
}

function buildingCarrier(builder: BlockBuilder, context: BuildContext): Carrier<Value> {
  const levelOf = (value: Value) => (value.type.kind === 'ct' ? (value.type.level ?? anyLevel) : anyLevel);
  return {
    level: levelOf,
    probe: levelOf,
    adjust: (value, level, op) => {
      invariant(value.type.kind === 'ct', 'only ciphertexts have levels');
      if (value.type.level === null)
        return builder.op('ct.zero', [], { axes: value.type.axes as never, level }, op.loc);
      return builder.op('ct.adjust', [value], { level }, op.loc);
    },
    bootstrap: (handle, value, op) =>
      builder.op(
        'ct.bootstrap',
        [handle],
        { rangeLog2: bootstrapRange(value, op.loc, context.bounds) },
        op.loc,
      ),
    emit: (op, operands, level) => builder.op(op.kind, operands, finalAttrs(op, level), op.loc),
    call: (op, operands) => {
      const callee = op.attrs.callee as string;
      const { results } = defined(context.functions.get(callee), `function @${callee}`).body;
      return builder.call(
        callee,
        operands,
        results.map((value) => value.type),
        op.loc,
      );
    },
    loop: (op, initial, body) =>
      builder.loop(op.attrs.tripCount as number, initial, op.loc, (inner, carried) =>
        body(buildingCarrier(inner, context), carried),
      ),
  };
}
