/**
 * The greedy plan that plan-levels is compared with, and its upper bound: a forward walk bootstraps an
 * operand when it cannot pay for its next op, as late as possible. Linear in the module and in the levels
 * that a layer's boundary may have.
 */
import { BlockBuilder, Ids } from '../../ir/builder.js';
import { entryName, type Block, type Func, type Module, type Value } from '../../ir/module.js';
import { AegisError } from '../../support/diagnostics.js';
import { defined, invariant } from '../../support/invariant.js';
import type { Parameters } from '../../target/parameters.js';
import { ctTypeOf } from '../expand-polynomial.js';
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
import type { LevelPrices } from './price.js';

/** Error L101: no plan of bootstraps gives a node its levels. */
export function planGreedily(module: Module, bounds: ValueBounds, prices: LevelPrices): Module {
  const { parameters } = prices;
  const ids = new Ids();
  const boundaries = new Map<string, number>();
  const functions = new Map<string, Func>();
  // Callees come first.
  for (const func of module.functions) {
    const task =
      func.name === entryName
        ? mainTask(func.body, prices, boundaries)
        : layerTask(module, func, prices, boundaries);
    const { entry: boundary, facts } = task;
    const types = func.body.args.map((arg) => leveled(arg.type, boundary));
    const builder = new BlockBuilder(ids, parameters, types);
    const values = new Map<number, Value>();
    func.body.args.forEach((arg, i) => values.set(arg.id, defined(builder.args[i], 'argument')));
    const carrier = buildingCarrier(builder, { parameters, bounds, functions });
    const walk = new LevelWalk({ parameters, facts, boundaries }, carrier, values);
    const results = func.name === entryName ? walk.block(func.body) : walk.func(func.body, boundary);
    functions.set(func.name, { ...func, body: builder.finish(results) });
    boundaries.set(func.name, boundary);
  }
  return { ...module, functions: [...functions.values()] };
}

function mainTask(body: Block, prices: LevelPrices, boundaries: Boundaries): Task {
  const facts = new LevelFacts(body, { boundaries });
  const task = { body, prices, facts, boundaries, entry: prices.parameters.computeTop, exit: undefined };
  if (priceOf(task) === Infinity) throw infeasible(task);
  return task;
}

/**
 * A layer is planned once for all calls, so it gives its results at the level of its arguments. Every such
 * level is tried, the highest first; the price of main around the calls counts too.
 */
function layerTask(module: Module, { name, body }: Func, prices: LevelPrices, boundaries: Boundaries): Task {
  const { computeTop, bootstrapInputLevel } = prices.parameters;
  const main = defined(
    module.functions.find((f) => f.name === entryName),
    'main',
  ).body;
  const calls = main.ops.filter((op) => op.attrs.callee === name).length;
  const taskAt = (level: number): Task => {
    const facts = new LevelFacts(body, { boundaries, exit: level });
    return { body, prices, facts, boundaries, entry: level, exit: level };
  };
  let best: { readonly task: Task; readonly seconds: number } | undefined;
  for (let level = computeTop; level >= bootstrapInputLevel; level--) {
    const task = taskAt(level);
    const around = priceAround(main, prices, new Map([...boundaries, [name, level]]));
    const seconds = calls * priceOf(task) + around;
    if (seconds < (best?.seconds ?? Infinity)) best = { task, seconds };
  }
  if (best === undefined) throw infeasible(taskAt(computeTop));
  return best.task;
}

/** Main with one layer at its boundary; other layers that are not planned yet count as at the top. */
function priceAround(main: Block, prices: LevelPrices, known: Boundaries): number {
  const { computeTop } = prices.parameters;
  const callees = main.ops.flatMap((op) => (op.kind === 'call' ? [op.attrs.callee as string] : []));
  const open = callees.filter((name) => !known.has(name));
  const boundaries = new Map([...known, ...open.map((name): [string, number] => [name, computeTop])]);
  const facts = new LevelFacts(main, { boundaries });
  return priceOf({ body: main, prices, facts, boundaries, entry: computeTop, exit: undefined });
}

/** One function to plan. */
interface Task {
  readonly body: Block;
  readonly prices: LevelPrices;
  readonly facts: LevelFacts;
  readonly boundaries: Boundaries;
  /** Level of the arguments. */
  readonly entry: number;
  /** Level of the results; any where undefined. */
  readonly exit: number | undefined;
}

function infeasible(task: Task): AegisError {
  const { parameters } = task.prices;
  let node = '';
  try {
    walkLevels(task, levelCarrier(parameters));
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

function walkLevels(task: Task, carrier: Carrier<number>): void {
  const { body, prices, facts, boundaries, entry, exit } = task;
  const values = new Map<number, number>(body.args.map((arg) => [arg.id, entry]));
  const walk = new LevelWalk({ parameters: prices.parameters, facts, boundaries }, carrier, values);
  if (exit === undefined) walk.block(body);
  else walk.func(body, exit);
}

/** Predicted seconds without adjustments; infinite where levels run out. */
function priceOf(task: Task): number {
  const { prices } = task;
  let total = 0;
  let repeats = 1;
  const carrier = levelCarrier(
    prices.parameters,
    (op, level) => {
      if (level !== anyLevel) total += repeats * prices.op(op, level);
    },
    (value) => {
      total += repeats * prices.bootstrap(ctTypeOf(value));
    },
    (op, run) => {
      const outer = repeats;
      repeats *= op.attrs.tripCount as number;
      run();
      repeats = outer;
    },
  );
  try {
    walkLevels(task, carrier);
  } catch (error) {
    if (error instanceof InfeasibleLevels) return Infinity;
    throw error;
  }
  return total;
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
