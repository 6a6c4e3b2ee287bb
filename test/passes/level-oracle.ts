/**
 * Levels and bootstraps as an integer program, written from the module and its prices alone: the oracle of
 * plan-levels. One binary per op and level, per bootstrap, per value and level of an adjustment.
 */
import { entryName, type Block, type Func, type Module, type Op, type Value } from '../../src/ir/module.js';
import { usesOf } from '../../src/ir/rewrite.js';
import { iterationsOf } from '../../src/passes/lazy-mod-down.js';
import { callTimes, levelsTaken, type LevelPrices } from '../../src/passes/plan-levels/price.js';
import { LevelFacts } from '../../src/passes/plan-levels/walk.js';

/** Solver of CPLEX LP texts. */
export type SolveLp = (problem: string) => { Status: string; ObjectiveValue: number };

/** HiGHS, to proven optimality. Its types describe the CommonJS form only. */
export async function loadSolver(): Promise<SolveLp> {
  const { default: load } = (await import('highs')) as unknown as {
    default: () => Promise<{ solve: (text: string, options: object) => ReturnType<SolveLp> }>;
  };
  const highs = await load();
  return (text) => highs.solve(text, { mip_rel_gap: 0, output_flag: false });
}

/** Microseconds keep the coefficients near 1. */
const unit = 1e6;

interface Home {
  /** Binaries of the maker by the level at which it makes the value. */
  readonly at: ReadonlyMap<number, string>;
  readonly value: Value;
  readonly times: number;
  readonly canonical: boolean;
  /** Binaries by the level at which a user takes it. */
  readonly users: ReadonlyMap<number, string>[];
}

/** Least seconds of any plan; Infinity where there is none. */
export function leastSeconds(module: Module, prices: LevelPrices, solve: SolveLp): number {
  const { Status, ObjectiveValue } = solve(new Oracle(module, prices).text());
  return Status === 'Optimal' ? ObjectiveValue / unit : Infinity;
}

class Oracle {
  private readonly objective: string[] = [];
  private readonly rows: string[] = [];
  private readonly binaries: string[] = [];
  private readonly homes = new Map<number, Home>();
  private readonly boundaries = new Map<string, ReadonlyMap<number, string>>();

  constructor(
    module: Module,
    private readonly prices: LevelPrices,
  ) {
    const calls = callTimes(module);
    const { bootstrapInputLevel: entry, computeTop: top } = prices.parameters;
    for (const func of module.functions)
      this.boundaries.set(
        func.name,
        this.choice(func.name === entryName ? top : entry, top, () => 0),
      );
    for (const func of module.functions) this.function(func, calls.get(func.name) ?? 0);
    for (const home of this.homes.values()) this.edges(home);
  }

  text(): string {
    const [sum, rows, names] = [this.objective.join(' '), this.rows.join('\n'), this.binaries.join(' ')];
    return `Minimize\n obj: ${sum}\nSubject To\n${rows}\nBinary\n ${names}\nEnd\n`;
  }

  private binary(seconds: number): string {
    const name = `x${this.binaries.length}`;
    this.binaries.push(name);
    this.objective.push(`+ ${(seconds * unit).toPrecision(15)} ${name}`);
    return name;
  }

  private row(terms: readonly string[], relation: string): void {
    this.rows.push(` r${this.rows.length}: ${terms.join(' ')} ${relation}`);
  }

  /** One level of first..last. */
  private choice(first: number, last: number, price: (level: number) => number): Map<number, string> {
    const levels = new Map<number, string>();
    for (let level = first; level <= last; level++) levels.set(level, this.binary(price(level)));
    this.row(
      [...levels.values()].map((name) => `+ ${name}`),
      '= 1',
    );
    return levels;
  }

  private home(value: Value, at: ReadonlyMap<number, string>, times: number, canonical: boolean): void {
    this.homes.set(value.id, { at, value, times, canonical, users: [] });
  }

  private use(value: Value, levels: ReadonlyMap<number, string>): void {
    this.homes.get(value.id)?.users.push(levels);
  }

  private function(func: Func, calls: number): void {
    const { body, name } = func;
    const boundary = this.boundaries.get(name) ?? new Map<number, string>();
    body.args.forEach((arg) => this.home(arg, boundary, calls, true));
    const facts = new LevelFacts(body);
    const uses = usesOf(func);
    const iterations = iterationsOf(func);
    const visit = (block: Block, times: number): void => {
      for (const op of block.ops) {
        if (op.kind === 'loop') this.loop(op, times, visit);
        else if (op.kind === 'call') this.call(op, times);
        else if (op.operands.some(isCt)) {
          const taken = levelsTaken(op);
          const levels = this.choice(taken, this.prices.parameters.computeTop, (level) =>
            op.kind === 'ct.rotate'
              ? calls * this.prices.rotation(op, level, uses, iterations)
              : times * this.prices.op(op, level),
          );
          const made = new Map([...levels].map(([level, binary]) => [level - taken, binary]));
          const result = op.results[0] as Value;
          this.home(result, made, times, facts.canonical.has(result.id));
          for (const operand of new Set(op.operands.filter(isCt))) this.use(operand, levels);
        }
      }
    };
    visit(body, calls);
    if (name !== entryName) body.results.forEach((value) => this.use(value, boundary));
  }

  private call(op: Op, times: number): void {
    const boundary = this.boundaries.get(op.attrs.callee as string) ?? new Map<number, string>();
    op.operands.forEach((value) => this.use(value, boundary));
    op.results.forEach((value) => this.home(value, boundary, times, true));
  }

  private loop(op: Op, times: number, visit: (block: Block, times: number) => void): void {
    const region = op.regions[0] as Block;
    const trips = times * (op.attrs.tripCount as number);
    region.args.forEach((arg, i) => {
      const levels = this.choice(0, this.prices.parameters.computeTop, () => 0);
      this.home(arg, levels, trips, true);
      this.home(op.results[i] as Value, levels, times, true);
      this.use(op.operands[i] as Value, levels);
    });
    visit(region, trips);
    region.results.forEach((value, i) => {
      const arg = region.args[i] as Value;
      this.use(value, this.homes.get(arg.id)?.at ?? new Map<number, string>());
    });
  }

  private edges({ value, at, times, canonical, users }: Home): void {
    const { bootstrapInputLevel: entry, computeTop: top } = this.prices.parameters;
    if (value.type.kind !== 'ct') return;
    const made = (least: number): string[] =>
      [...at].flatMap(([level, binary]) => (level >= least ? [`- ${binary}`] : []));
    if (!canonical) {
      for (const user of users)
        for (const [level, taken] of user) this.row([`+ ${taken}`, ...exact(at, level)], '<= 0');
      return;
    }
    const bootstrap = this.binary(times * this.prices.bootstrap(value.type));
    this.row([`+ ${bootstrap}`, ...made(entry)], '<= 0');
    for (let level = 0; level <= top; level++) {
      const adjusted = this.binary(times * this.prices.adjust(value.type, level));
      this.row([`+ ${adjusted}`, ...made(level + 1), ...(level < top ? [`- ${bootstrap}`] : [])], '<= 0');
      const there = [...exact(at, level), `- ${adjusted}`];
      if (level === entry) this.row([`+ ${bootstrap}`, ...there], '<= 0');
      for (const user of users) {
        const taken = user.get(level);
        if (taken !== undefined)
          this.row([`+ ${taken}`, ...there, ...(level === top ? [`- ${bootstrap}`] : [])], '<= 0');
      }
    }
  }
}

function exact(at: ReadonlyMap<number, string>, level: number): string[] {
  const binary = at.get(level);
  return binary === undefined ? [] : [`- ${binary}`];
}

function isCt(value: Value): boolean {
  return value.type.kind === 'ct';
}
