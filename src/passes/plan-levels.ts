/**
 * plan-levels: the level of every value and where to bootstrap. From `cipher` with open levels to `cipher`
 * with exact
 * levels and scales.
 *
 * A forward walk bootstraps an operand when it cannot pay for its next op (as late as possible); a local
 * search then
 * flags values to be bootstrapped where they are made and keeps what lowers the predicted cost, so that one
 * hidden
 * state is refreshed instead of the many values made from it. Deterministic; no bound on its gap is claimed.
 */
import { BlockBuilder, Ids } from '../ir/builder.js';
import {
  entryName,
  walkOps,
  type Attrs,
  type Block,
  type Module,
  type Op,
  type Value,
} from '../ir/module.js';
import { canonicalScale, printScale } from '../ir/scale.js';
import { axesCount, qBasis, type Type } from '../ir/types.js';
import { AegisError } from '../support/diagnostics.js';
import { defined, invariant } from '../support/invariant.js';
import { bootstrapCost, keySwitchCost, keySwitchTotal, multiplyCost } from '../target/cost.js';
import type { Parameters } from '../target/parameters.js';
import {
  anyLevel,
  InfeasibleLevels,
  levelCarrier,
  LevelFacts,
  LevelWalk,
  type Carrier,
} from './plan-levels/walk.js';

/** Bound of |value| over calibration inputs and slots, by value id of the packed module. */
export type ValueBounds = ReadonlyMap<number, number>;

/** A bootstrap folds values beyond its range: leave this much room over what calibration saw. */
const boundMargin = 2;
/** Below this the range gains no precision worth a function of its own. */
const smallestRangeLog2 = -8;
/** Rounds of the local search; it usually stops after three. */
const searchRounds = 6;

export function planLevels(module: Module, bounds: ValueBounds): Module {
  const parameters = defined(module.parameters, 'parameters');
  const main = defined(
    module.functions.find((f) => f.name === entryName),
    'main',
  );
  const facts = new LevelFacts(main.body);
  const flagged = search(main.body, parameters, facts);

  const builder = new BlockBuilder(
    new Ids(),
    parameters,
    main.body.args.map((arg) => leveled(arg.type, parameters)),
  );
  const values = new Map<number, Value>();
  main.body.args.forEach((arg, i) => values.set(arg.id, defined(builder.args[i], 'argument')));
  const carrier = buildingCarrier(builder, parameters, bounds);
  const results = new LevelWalk({ parameters, facts, flagged }, carrier, values).block(main.body);
  return { ...module, functions: [{ ...main, body: builder.finish(results) }] };
}

function leveled(type: Type, parameters: Parameters): Type {
  invariant(type.kind === 'ct', 'arguments are ciphertexts');
  return {
    ...type,
    basis: qBasis,
    level: parameters.computeTop,
    scale: canonicalScale(parameters.computeTop),
  };
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
function search(body: Block, parameters: Parameters, facts: LevelFacts): ReadonlySet<number> {
  const priced = (flagged: ReadonlySet<number>): Priced => ({
    flagged,
    cost: priceOf(body, parameters, facts, flagged),
  });
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
  if (best.cost < Infinity) return best.flagged;
  throw infeasible(body, parameters, facts);
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

function infeasible(body: Block, parameters: Parameters, facts: LevelFacts): AegisError {
  let node = '';
  try {
    walkLevels(body, parameters, facts, new Set(), levelCarrier(parameters));
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

function walkLevels(
  body: Block,
  parameters: Parameters,
  facts: LevelFacts,
  flagged: ReadonlySet<number>,
  carrier: Carrier<number>,
): void {
  const values = new Map<number, number>(body.args.map((arg) => [arg.id, parameters.computeTop]));
  new LevelWalk({ parameters, facts, flagged }, carrier, values).block(body);
}

/** Predicted cost in NTTs of one limb; infinite where levels run out. */
function priceOf(
  body: Block,
  parameters: Parameters,
  facts: LevelFacts,
  flagged: ReadonlySet<number>,
): number {
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
    walkLevels(body, parameters, facts, flagged, carrier);
  } catch (error) {
    if (error instanceof InfeasibleLevels) return Infinity;
    throw error;
  }
  return total;
}

function countOf(value: Value): number {
  return value.type.kind === 'ct' ? axesCount(value.type.axes) : 0;
}

function opCost(op: Op, level: number, parameters: Parameters): number {
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

function buildingCarrier(builder: BlockBuilder, parameters: Parameters, bounds: ValueBounds): Carrier<Value> {
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
      builder.op('ct.bootstrap', [handle], { rangeLog2: rangeOf(value, bounds) }, op.loc),
    emit: (op, operands, level) => builder.op(op.kind, operands, withScale(op, level), op.loc),
    loop: (op, initial, body) =>
      builder.loop(op.attrs.tripCount as number, initial, op.loc, (inner, carried) =>
        body(buildingCarrier(inner, parameters, bounds), carried),
      ),
  };
}

/** Plaintexts are encoded at D(l), so that the product's rescale lands on D(l-1) = D(l)^2 / q(l). */
function withScale(op: Op, level: number): Attrs {
  return op.kind === 'ct.contract' ? { ...op.attrs, scale: printScale(canonicalScale(level)) } : op.attrs;
}

function rangeOf(value: Value, bounds: ValueBounds): number {
  const bound = bounds.get(value.id) ?? 1;
  return Math.max(
    smallestRangeLog2,
    Math.ceil(Math.log2(Math.max(bound * boundMargin, 2 ** smallestRangeLog2))),
  );
}
