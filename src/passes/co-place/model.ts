/**
 * One function as a min-sum problem: a variable per op, argument, carried value and result, whose values are
 * the ways to place it; costs of pairs are the reshards between maker and user. Where several users could
 * share a reshard, a variable of two values per (value, sharding) says whether it is made.
 */
import { defined } from '../../support/invariant.js';
import type { Block, Func, Op, Value } from '../../ir/module.js';
import { partial, replicated } from '../../ir/sharding.js';
import type { Sharding } from '../../ir/types.js';
import { keyOf } from './candidates.js';
import { ctOf, noCost } from './op-cost.js';
import { optionsOf, type Option, type OptionContext } from './options.js';
import { reshard } from './reshard.js';
import { ProblemBuilder, type Problem } from './solver/graph.js';

export interface Node {
  readonly kind: 'op' | 'argument' | 'carried' | 'result';
  /** The op; of a carried value its loop. */
  readonly op: Op | undefined;
  /** Ciphertext operands, in the order of an option's `operands` without the plaintexts. */
  readonly uses: readonly Value[];
  readonly made: readonly Value[];
  readonly options: readonly NodeOption[];
  /** How often it runs in one call of the function. */
  readonly times: number;
  /** Loops around it, outermost first. */
  readonly loops: readonly Op[];
}

export interface NodeOption {
  readonly uses: readonly Sharding[];
  readonly makes: readonly Sharding[];
  readonly option: Option;
}

export interface FunctionModel {
  readonly func: Func;
  readonly nodes: readonly Node[];
  readonly values: ReadonlyMap<number, ValueInfo>;
  readonly problem: Problem;
}

export interface ValueInfo {
  readonly value: Value;
  readonly maker: number;
  /** Which of the maker's values it is. */
  readonly index: number;
  readonly users: readonly number[];
  /** How often the block that makes it runs. */
  readonly times: number;
}

export interface ModelContext extends OptionContext {
  /** Options of a call. */
  readonly callOptions: (op: Op) => readonly Option[];
  /** Shardings that arguments and results must have; open where undefined. */
  readonly pinnedArgs: readonly Sharding[] | undefined;
  readonly pinnedResults: readonly Sharding[] | undefined;
  /** Seconds that an option counts besides its time: the price of memory. */
  readonly penalty: (node: Node, option: NodeOption) => number;
}

export function buildModel(func: Func, context: ModelContext): FunctionModel {
  const nodes = new NodeBuilder(context).run(func);
  const values = valueTable(nodes);
  return { func, nodes, values, problem: buildProblem(nodes, values, context) };
}

const free: Omit<Option, 'operands' | 'results'> = { cost: noCost, part: { kind: 'whole' } };

class NodeBuilder {
  private readonly nodes: Node[] = [];
  constructor(private readonly context: ModelContext) {}

  run(func: Func): Node[] {
    func.body.args.forEach((arg, i) => {
      if (arg.type.kind !== 'ct') return;
      const pinned = this.context.pinnedArgs?.[i];
      this.endpoint('argument', arg, pinned === undefined ? this.places(arg) : [pinned]);
    });
    this.block(func.body, 1, []);
    func.body.results.forEach((value, i) => {
      const pinned = this.context.pinnedResults?.[i];
      this.endpoint('result', value, pinned === undefined ? this.places(value) : [pinned]);
    });
    return this.nodes;
  }

  /** Shardings of a complete value. */
  private places(value: Value): Sharding[] {
    const { strategy, limbs, candidates } = this.context;
    if (strategy === 'limb') return [limbs];
    const splits = candidates.of(value).filter(({ kind }) => kind === 'split');
    return [replicated, ...splits, ...(strategy === 'coplaced' ? [limbs] : [])];
  }

  private endpoint(kind: 'argument' | 'result', value: Value, places: readonly Sharding[]): void {
    const [uses, made] = kind === 'argument' ? [[], [value]] : [[value], []];
    const options = places.map((sharding): NodeOption => {
      const [operands, results] = kind === 'argument' ? [[], [sharding]] : [[sharding], []];
      return { uses: operands, makes: results, option: { ...free, operands, results } };
    });
    this.nodes.push({ kind, op: undefined, uses, made, options, times: 1, loops: [] });
  }

  private block(block: Block, times: number, loops: readonly Op[]): void {
    for (const op of block.ops) {
      if (op.kind.startsWith('pt.')) continue;
      if (op.kind === 'loop') this.loop(op, times, loops);
      else this.op(op, times, loops);
    }
  }

  private op(op: Op, times: number, loops: readonly Op[]): void {
    const options = op.kind === 'call' ? this.context.callOptions(op) : optionsOf(op, this.context);
    const isCt = op.operands.map(({ type }) => type.kind === 'ct');
    this.nodes.push({
      kind: 'op',
      op,
      uses: op.operands.filter((_, i) => isCt[i]),
      made: op.results,
      options: options.map((option) => ({
        uses: option.operands.filter((_, i) => isCt[i]),
        makes: option.results,
        option,
      })),
      times,
      loops,
    });
  }

  private loop(op: Op, times: number, loops: readonly Op[]): void {
    const body = defined(op.regions[0], 'body of a loop');
    op.operands.forEach((initial, i) => {
      const of = (list: readonly Value[]): Value => defined(list[i], 'carried value');
      const sums = this.context.strategy === 'app' || this.context.strategy === 'coplaced';
      const places = [...this.places(of(op.results)), ...(sums ? [partial] : [])];
      const options = places.map((sharding): NodeOption => {
        const twice = [sharding, sharding];
        return { uses: twice, makes: twice, option: { ...free, operands: [sharding], results: [sharding] } };
      });
      const uses = [initial, of(body.results)];
      this.nodes.push({
        kind: 'carried',
        op,
        uses,
        made: [of(body.args), of(op.results)],
        options,
        times,
        loops,
      });
    });
    this.block(body, times * (op.attrs.tripCount as number), [...loops, op]);
  }
}

function valueTable(nodes: readonly Node[]): Map<number, ValueInfo> {
  const table = new Map<number, ValueInfo & { users: number[] }>();
  nodes.forEach((node, maker) =>
    node.made.forEach((value, index) => {
      const inside = node.kind === 'carried' && index === 0;
      const times = node.times * (inside ? (node.op?.attrs.tripCount as number) : 1);
      table.set(value.id, { value, maker, index, users: [], times });
    }),
  );
  nodes.forEach((node, user) =>
    node.uses.forEach((value) => {
      const { users } = defined(table.get(value.id), `maker of %${value.id}`);
      if (!users.includes(user)) users.push(user);
    }),
  );
  return table;
}

/** Distinct shardings in which an option uses a value. */
export function demands(node: Node, option: NodeOption, value: Value): Sharding[] {
  const found = new Map<string, Sharding>();
  node.uses.forEach((used, i) => {
    const sharding = option.uses[i];
    if (used === value && sharding !== undefined) found.set(keyOf(sharding), sharding);
  });
  return [...found.values()];
}

function buildProblem(
  nodes: readonly Node[],
  values: ReadonlyMap<number, ValueInfo>,
  context: ModelContext,
): Problem {
  const builder = new ProblemBuilder();
  for (const node of nodes) {
    const own = node.options.map((one) => {
      const { compute, communication } = one.option.cost;
      return node.times * (compute + communication) + (one.option.penalty ?? 0) + context.penalty(node, one);
    });
    builder.variable(Float64Array.from(own));
  }
  for (const info of values.values()) addReshards(builder, nodes, info, context);
  return builder.finish();
}

/** Seconds of a reshard by the maker's option; Infinity where impossible. */
type SecondsFrom = (makerOption: number, to: Sharding) => number;

function addReshards(
  builder: ProblemBuilder,
  nodes: readonly Node[],
  info: ValueInfo,
  context: ModelContext,
): void {
  const maker = defined(nodes[info.maker], 'maker');
  const from = maker.options.map((option) => defined(option.makes[info.index], 'sharding of a result'));
  const type = ctOf(info.value.type);
  const memo = new Map<string, number>();
  const seconds: SecondsFrom = (i, to) => {
    const home = defined(from[i], 'option of the maker');
    const key = `${keyOf(home)}>${keyOf(to)}`;
    const known = memo.get(key) ?? (reshard(context, type, home, to)?.seconds ?? Infinity) * info.times;
    memo.set(key, known);
    return known;
  };
  const users = info.users.map((index) => {
    const node = defined(nodes[index], 'user');
    return { index, needs: node.options.map((option) => demands(node, option, info.value)) };
  });
  const shared = sharedTargets(users, from, seconds);
  for (const [key, to] of shared) {
    const made = builder.variable(new Float64Array(2));
    builder.pair(info.maker, made, (i, yes) => (yes === 1 ? finite(seconds(i, to)) : 0));
    for (const { index, needs } of users) {
      const wanted = needs.map((list) => list.some((sharding) => keyOf(sharding) === key));
      if (wanted.some(Boolean))
        builder.pair(index, made, (i, yes) => (wanted[i] === true && yes === 0 ? Infinity : 0));
    }
  }
  for (const { index, needs } of users) {
    builder.pair(info.maker, index, (i, j) => {
      let sum = 0;
      for (const to of needs[j] ?? []) {
        const cost = seconds(i, to);
        sum += shared.has(keyOf(to)) && cost < Infinity ? 0 : cost;
      }
      return sum;
    });
  }
}

/** Impossible reshards are forbidden on the pair of maker and user. */
function finite(seconds: number): number {
  return seconds === Infinity ? 0 : seconds;
}

/** Shardings that two users or more may need at a cost. */
function sharedTargets(
  users: readonly { needs: readonly (readonly Sharding[])[] }[],
  from: readonly Sharding[],
  seconds: SecondsFrom,
): Map<string, Sharding> {
  const counts = new Map<string, number>();
  const targets = new Map<string, Sharding>();
  for (const { needs } of users) {
    const own = new Map(needs.flat().map((sharding) => [keyOf(sharding), sharding]));
    for (const [key, sharding] of own) {
      counts.set(key, (counts.get(key) ?? 0) + 1);
      targets.set(key, sharding);
    }
  }
  return new Map(
    [...targets].filter(([key, to]) => {
      const costs = from.map((_, i) => seconds(i, to));
      return (counts.get(key) ?? 0) > 1 && costs.some((cost) => cost > 0 && cost < Infinity);
    }),
  );
}
