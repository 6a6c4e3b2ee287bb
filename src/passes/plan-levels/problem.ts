/**
 * Levels and bootstraps of a whole module as one min-sum problem (co-place/solver): a variable per op,
 * argument and carried value whose values are (level, bootstrapped or not), one per function for the level of
 * its boundary, and one per (value, level) that several users may share an adjustment to. Its minimum is a
 * lower bound of the price of every plan, and that of the best one where no relaxation was needed. See
 * docs/passes/plan-levels.md.
 */
import { entryName, type Block, type Func, type Module, type Op, type Value } from '../../ir/module.js';
import { usesOf, type Uses } from '../../ir/rewrite.js';
import { defined, invariant } from '../../support/invariant.js';
import { ProblemBuilder, type Problem } from '../co-place/solver/graph.js';
import { ctTypeOf } from '../expand-polynomial.js';
import { iterationsOf } from '../lazy-mod-down.js';
import { callTimes, levelsTaken, type LevelPrices } from './price.js';
import { LevelFacts } from './walk.js';

/** A value of a variable. */
export interface LevelState {
  /** Of the op's operands; of an argument or carried value its own. */
  readonly level: number;
  /** At which the result is made. */
  readonly made: number;
  /** The result is bootstrapped too, and its users find it there and at the top. */
  readonly bootstrapped: boolean;
}

/** The levels that a choice of values stands for. */
export interface LevelChoice {
  /** Level of the ciphertext operands of an op that is no loop and no call. */
  readonly operandLevel: (op: Op) => number;
  /** Level of a carried value, by the argument of the loop's body. */
  readonly carriedLevel: (arg: Value) => number;
  /** Level of the arguments and results of a function. */
  readonly boundary: (name: string) => number;
}

export interface LevelProblem {
  readonly problem: Problem;
  /** Adjustments that more users share than were told apart: a relaxation. */
  readonly relaxed: number;
  readonly levelsOf: (choice: readonly number[]) => LevelChoice;
}

export interface LevelProblemOptions {
  readonly prices: LevelPrices;
  /** Whether a bootstrap of the value would have a range. */
  readonly known: (value: Value) => boolean;
  /** Users of one value whose shared adjustments are exact; more than that pay shares. */
  readonly sharers?: number;
}

/** The users of an adjustment join in one table: with more of them it gets too large. */
const defaultSharers = 3;

export function buildLevelProblem(module: Module, options: LevelProblemOptions): LevelProblem {
  return new LevelModel(module, options).build();
}

interface Made {
  readonly value: Value;
  readonly variable: number;
  /** How often the block that makes it runs. */
  readonly times: number;
  readonly canonical: boolean;
  /** Variables whose `level` a user takes the value at. */
  readonly users: Set<number>;
}

class LevelModel {
  private readonly builder = new ProblemBuilder();
  private readonly states: (readonly LevelState[])[] = [];
  private readonly made = new Map<number, Made>();
  private readonly ops = new Map<Op, number>();
  private readonly carried = new Map<number, number>();
  private readonly boundaries = new Map<string, number>();
  private relaxed = 0;

  constructor(
    private readonly module: Module,
    private readonly options: LevelProblemOptions,
  ) {}

  build(): LevelProblem {
    const calls = callTimes(this.module);
    for (const func of this.module.functions) {
      if (func.name !== entryName) this.boundaries.set(func.name, this.variable(this.boundaryStates()));
    }
    for (const func of this.module.functions) {
      new FunctionModel(this, func, calls.get(func.name) ?? 0).run();
    }
    for (const made of this.made.values()) this.edges(made);
    const of = (variable: number | undefined, choice: readonly number[]): LevelState =>
      defined(this.states[defined(variable, 'variable')]?.[defined(choice[variable ?? 0], 'value')], 'state');
    return {
      problem: this.builder.finish(),
      relaxed: this.relaxed,
      levelsOf: (choice) => ({
        operandLevel: (op) => of(this.ops.get(op), choice).level,
        carriedLevel: (arg) => of(this.carried.get(arg.id), choice).level,
        boundary: (name) => of(this.boundaries.get(name), choice).level,
      }),
    };
  }

  get prices(): LevelPrices {
    return this.options.prices;
  }

  private get top(): number {
    return this.prices.parameters.computeTop;
  }

  private get entry(): number {
    return this.prices.parameters.bootstrapInputLevel;
  }

  // ------------------------------------------------------------ variables

  variable(states: readonly LevelState[], cost: (state: LevelState) => number = () => 0): number {
    this.states.push(states);
    return this.builder.variable(Float64Array.from(states, cost));
  }

  boundary(name: string): number {
    return defined(this.boundaries.get(name), `boundary of @${name}`);
  }

  private boundaryStates(): LevelState[] {
    const { entry, top } = this;
    return Array.from({ length: top - entry + 1 }, (_, i) => held(top - i));
  }

  /** States of a value made `taken` levels below the op's operands, high levels first. */
  private statesOf(value: Value, taken: number, canonical: boolean): LevelState[] {
    const states: LevelState[] = [];
    const mayBootstrap = canonical && this.options.known(value);
    for (let level = this.top; level >= taken; level--) {
      const made = level - taken;
      states.push({ level, made, bootstrapped: false });
      if (mayBootstrap && made >= this.entry && made < this.top)
        states.push({ level, made, bootstrapped: true });
    }
    return states;
  }

  /** Made by an op, or held at a level from outside; `price` at the level of the operands. */
  make(value: Value, at: Site, taken: number, price: (level: number) => number): number {
    const { times, canonical } = at;
    const bootstrap = times * this.prices.bootstrap(ctTypeOf(value));
    const states = this.statesOf(value, taken, canonical);
    const variable = this.variable(
      states,
      (state) => price(state.level) + (state.bootstrapped ? bootstrap : 0),
    );
    this.made.set(value.id, { value, variable, times, canonical, users: new Set() });
    return variable;
  }

  /** The op's operands are at the level of its variable. */
  placeOp(op: Op, variable: number): void {
    this.ops.set(op, variable);
  }

  placeCarried(arg: Value, variable: number): void {
    this.carried.set(arg.id, variable);
  }

  use(value: Value, variable: number): void {
    this.made.get(value.id)?.users.add(variable);
  }

  /** Two variables with one level. */
  tie(a: number, b: number): void {
    const [left, right] = [this.statesAt(a), this.statesAt(b)];
    this.builder.pair(a, b, (i, j) => (left[i]?.level === right[j]?.level ? 0 : Infinity));
  }

  fix(variable: number, level: number): void {
    const states = this.statesAt(variable);
    this.builder.pair(variable, variable, (i) => (states[i]?.level === level ? 0 : Infinity));
  }

  private statesAt(variable: number): readonly LevelState[] {
    return defined(this.states[variable], 'states');
  }

  // ------------------------------------------------------------ pairs of maker and user

  private edges(made: Made): void {
    const { variable, canonical } = made;
    const sources = this.statesAt(variable);
    const users = [...made.users].filter((user) => user !== variable || !canonical);
    // A carried value that its loop yields as it is.
    if (!canonical) {
      for (const user of users) {
        const levels = this.statesAt(user);
        this.builder.pair(variable, user, (i, j) => (sources[i]?.made === levels[j]?.level ? 0 : Infinity));
      }
      return;
    }
    const flags = sources.some(({ bootstrapped }) => bootstrapped);
    const shared = this.sharedLevels(users, flags);
    const exact = users.length <= (this.options.sharers ?? defaultSharers);
    const prices = Array.from(
      { length: this.top },
      (_, to) => made.times * this.prices.adjust(ctTypeOf(made.value), to),
    );
    if (!exact && shared.size > 0) this.relaxed++;
    for (const user of users) {
      const levels = this.statesAt(user);
      this.builder.pair(variable, user, (i, j) => {
        const [from, to] = [at(sources, i), at(levels, j).level];
        if (to > from.made && !from.bootstrapped) return Infinity;
        if (this.isAt(from, to) || (exact && shared.has(to))) return 0;
        return at(prices, to) / (exact ? 1 : users.length);
      });
    }
    const entering = (from: LevelState): boolean => from.bootstrapped && from.made > this.entry;
    const toEntry = at(prices, this.entry);
    const alone = exact && !shared.has(this.entry);
    this.builder.pair(variable, variable, (i) => (alone && entering(at(sources, i)) ? toEntry : 0));
    if (exact) for (const level of shared) this.sharedAdjust(made, users, level);
  }

  /** The value exists at the level without an adjustment. */
  private isAt(from: LevelState, level: number): boolean {
    return level === from.made || (from.bootstrapped && level === this.top);
  }

  /** Levels that two users or more may take the value at; its bootstrap is a user at the entry level. */
  private sharedLevels(users: readonly number[], flags: boolean): Set<number> {
    const counts = new Map<number, number>(flags ? [[this.entry, 1]] : []);
    for (const user of users) {
      const own = new Set(this.statesAt(user).map(({ level }) => level));
      for (const level of own) counts.set(level, (counts.get(level) ?? 0) + 1);
    }
    return new Set([...counts].flatMap(([level, count]) => (count > 1 ? [level] : [])));
  }

  private sharedAdjust(made: Made, users: readonly number[], level: number): void {
    const sources = this.statesAt(made.variable);
    const cost = made.times * this.prices.adjust(ctTypeOf(made.value), level);
    const adjusted = this.variable([held(0), held(1)]);
    this.builder.pair(made.variable, adjusted, (i, yes) => {
      const from = at(sources, i);
      if (yes === 1) return this.isAt(from, level) ? 0 : cost;
      return level === this.entry && from.bootstrapped && from.made > level ? Infinity : 0;
    });
    for (const user of users) {
      const levels = this.statesAt(user);
      if (!levels.some((state) => state.level === level)) continue;
      this.builder.pair(user, adjusted, (j, yes) =>
        at(levels, j).level === level && yes === 0 ? Infinity : 0,
      );
    }
  }
}

interface Site {
  readonly times: number;
  readonly canonical: boolean;
}

function held(level: number): LevelState {
  return { level, made: level, bootstrapped: false };
}

function at<T>(list: readonly T[], index: number): T {
  return list[index] as T;
}

/** Adds the variables and uses of one function. */
class FunctionModel {
  private readonly facts: LevelFacts;
  private readonly uses: Uses;
  private readonly iterations: ReadonlyMap<Op, number>;

  constructor(
    private readonly model: LevelModel,
    private readonly func: Func,
    private readonly calls: number,
  ) {
    this.facts = new LevelFacts(func.body);
    this.uses = usesOf(func);
    this.iterations = iterationsOf(func);
  }

  run(): void {
    const { model, func } = this;
    const { name, body } = func;
    for (const arg of body.args.filter(isCt)) {
      const variable = this.hold(arg, this.calls);
      if (name === entryName) model.fix(variable, model.prices.parameters.computeTop);
      else model.tie(variable, model.boundary(name));
    }
    this.block(body, this.calls);
    if (name !== entryName) for (const value of body.results) model.use(value, model.boundary(name));
  }

  private hold(value: Value, times: number): number {
    return this.model.make(value, { times, canonical: true }, 0, () => 0);
  }

  private block(block: Block, times: number): void {
    for (const op of block.ops) {
      if (op.kind === 'loop') this.loop(op, times);
      else if (op.kind === 'call') this.call(op, times);
      else this.op(op, times);
    }
  }

  private op(op: Op, times: number): void {
    const { model, calls } = this;
    const result = defined(op.results[0], `result of ${op.kind}`);
    if (!isCt(result) || !op.operands.some(isCt)) return;
    const { prices } = model;
    const price =
      op.kind === 'ct.rotate'
        ? (level: number) => calls * prices.rotation(op, level, this.uses, this.iterations)
        : (level: number) => times * prices.op(op, level);
    const site = { times, canonical: this.facts.canonical.has(result.id) };
    const variable = model.make(result, site, levelsTaken(op), price);
    model.placeOp(op, variable);
    for (const operand of op.operands.filter(isCt)) model.use(operand, variable);
  }

  private call(op: Op, times: number): void {
    const boundary = this.model.boundary(op.attrs.callee as string);
    for (const operand of op.operands.filter(isCt)) this.model.use(operand, boundary);
    for (const result of op.results) this.model.tie(this.hold(result, times), boundary);
  }

  /** A carried value has one level: before, in and after the loop. */
  private loop(op: Op, times: number): void {
    const { model } = this;
    const region = defined(op.regions[0], 'body of a loop');
    const trips = times * (op.attrs.tripCount as number);
    const carried = region.args.map((arg, i) => {
      const variable = this.hold(arg, trips);
      model.tie(variable, this.hold(defined(op.results[i], 'result'), times));
      model.use(defined(op.operands[i], 'initial value'), variable);
      model.placeCarried(arg, variable);
      return variable;
    });
    this.block(region, trips);
    region.results.forEach((value, i) => {
      invariant(this.facts.canonical.has(value.id), 'a loop carries values at canonical scales');
      model.use(value, defined(carried[i], 'carried value'));
    });
  }
}

function isCt(value: Value): boolean {
  return value.type.kind === 'ct';
}
