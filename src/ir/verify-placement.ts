/** Checks a Placement against its cipher module: every op placed, by the rules of docs/passes/co-place.md. */
import { defined } from '../support/invariant.js';
import { entryName, type Block, type Func, type Module, type Op, type Value } from './module.js';
import type { OpPlacement, PlacedFunction, Placement, Shardings } from './placement.js';
import {
  dealtLimbs,
  indexedSharding,
  onAxis,
  partial,
  replicated,
  reshapedSharding,
  sameSharding,
  sameShardings,
  slicedSharding,
  type Mesh,
} from './sharding.js';
import { axisSize, type Axis, type Sharding } from './types.js';

/** Faults, as texts; empty if lower-keyswitch can follow the placement. */
export function checkPlacement(module: Module, placement: Placement): string[] {
  const faults: string[] = [];
  const earlier = new Map<string, PlacedFunction>();
  for (const placed of placement.functions) {
    const report = (fault: string): unknown => faults.push(`@${placed.name}: ${fault}`);
    const source = module.functions.find((func) => func.name === placed.source);
    if (earlier.has(placed.name)) report('is placed twice under this name');
    if (source === undefined) report(`no function @${placed.source}`);
    else new FunctionChecker(module, placement.mesh, placed, earlier, report).run(source);
    earlier.set(placed.name, placed);
  }
  const last = placement.functions.at(-1);
  if (last?.name !== entryName || last.source !== entryName)
    faults.push(`the last function is not @${entryName}`);
  return faults;
}

class FunctionChecker {
  private readonly homes = new Map<number, Shardings>();

  constructor(
    private readonly module: Module,
    private readonly mesh: Mesh,
    private readonly placed: PlacedFunction,
    private readonly callees: ReadonlyMap<string, PlacedFunction>,
    private readonly report: (fault: string) => unknown,
  ) {}

  run(source: Func): void {
    const { args, results } = source.body;
    if (this.placed.args.length !== args.length) this.report('a sharding per argument is needed');
    if (this.placed.results.length !== results.length) this.report('a sharding per result is needed');
    args.forEach((arg, i) => this.home(arg, this.placed.args[i] ?? [], 'argument'));
    this.block(source.body);
    results.forEach((value, i) => {
      const wanted = this.placed.results[i] ?? [];
      this.use(value, wanted, 'result of the function');
      if (wanted.some(({ kind }) => kind === 'partial')) this.report('a result is a partial sum');
    });
    if (this.placed.args.flat().some(({ kind }) => kind === 'partial'))
      this.report('an argument is a partial sum');
  }

  private home(value: Value, shardings: Shardings, what: string): void {
    this.mesh.axes.forEach(({ size }, m) => {
      const problem = problemOf(value, onAxis(shardings, m), this.limbs(size), size);
      if (problem !== undefined) this.report(`${what} %${value.id}: ${problem}`);
    });
    this.homes.set(value.id, shardings);
  }

  private limbs(ranks: number): Sharding {
    const parameters = defined(this.module.parameters, 'parameters');
    return dealtLimbs(parameters.maxLevel + 1, parameters.specials, ranks);
  }

  private use(value: Value, wanted: Shardings, what: string): void {
    if (value.type.kind !== 'ct') return;
    const home = this.homes.get(value.id);
    if (home === undefined) return void this.report(`${what}: %${value.id} has no sharding`);
    this.mesh.axes.forEach(({ size }, m) => {
      const to = onAxis(wanted, m);
      const problem = problemOf(value, to, this.limbs(size), size);
      if (problem !== undefined) this.report(`${what}: ${problem}`);
      const from = onAxis(home, m);
      const possible =
        sameSharding(from, to) || (to.kind !== 'partial' && !(from.kind === 'partial' && to.kind === 'at'));
      if (!possible) this.report(`${what}: %${value.id} is ${from.kind}, not ${to.kind}`);
    });
  }

  private block(block: Block): void {
    for (const op of block.ops) {
      if (op.kind.startsWith('pt.')) continue;
      const placement = this.placed.ops.get(op);
      if (placement === undefined) this.report(`${op.kind} at "${op.loc}" is not placed`);
      else this.op(op, placement);
    }
  }

  private op(op: Op, placement: OpPlacement): void {
    const what = `${op.kind} at "${op.loc}"`;
    op.operands.forEach((value, i) => this.use(value, placement.operands[i] ?? [], `${what}, operand ${i}`));
    op.results.forEach((value, i) => this.home(value, placement.results[i] ?? [], what));
    if (op.kind === 'loop') return this.loop(op, placement, what);
    if (op.kind === 'call') return this.call(op, placement, what);
    this.mesh.axes.forEach((_, m) => {
      const operands = op.operands.flatMap(({ type }, i) =>
        type.kind === 'ct' ? [onAxis(placement.operands[i] ?? [], m)] : [],
      );
      const result = onAxis(placement.results[0] ?? [], m);
      const problem = opProblem(op, operands, result, placement.modUp);
      if (problem !== undefined) this.report(`${what}: ${problem}`);
    });
  }

  private loop(op: Op, placement: OpPlacement, what: string): void {
    const body = defined(op.regions[0], 'body of a loop');
    op.operands.forEach((_, i) => {
      const [given, yielded] = [placement.operands[i] ?? [], placement.results[i] ?? []];
      if (!sameShardings(given, yielded)) this.report(`${what}: carried value ${i} changes its sharding`);
      this.home(defined(body.args[i], 'carried value'), given, what);
    });
    this.block(body);
    body.results.forEach((value, i) =>
      this.use(value, placement.results[i] ?? [], `${what}, yielded value ${i}`),
    );
  }

  private call(op: Op, placement: OpPlacement, what: string): void {
    const callee = this.callees.get(placement.callee ?? '');
    if (callee === undefined)
      return void this.report(`${what}: @${placement.callee} is not placed before it`);
    if (callee.source !== op.attrs.callee)
      this.report(`${what}: @${callee.name} is placed from @${callee.source}`);
    const agree = (mine: readonly Shardings[], theirs: readonly Shardings[]): boolean =>
      mine.length === theirs.length && mine.every((one, i) => sameShardings(one, theirs[i] ?? []));
    if (!agree(placement.operands, callee.args))
      this.report(`${what}: @${callee.name} takes other shardings`);
    if (!agree(placement.results, callee.results))
      this.report(`${what}: @${callee.name} gives other shardings`);
  }
}

function problemOf(value: Value, sharding: Sharding, limbs: Sharding, ranks: number): string | undefined {
  const owners = sharding.kind === 'split' ? sharding.owners : sharding.kind === 'at' ? [sharding.rank] : [];
  if (owners.some((owner) => !Number.isSafeInteger(owner) || owner < 0 || owner >= ranks))
    return 'an owner is no rank';
  const dealt = sameSharding(sharding, limbs) && sameSharding(limbs, sharding);
  if (sharding.kind === 'limbs' && !dealt) return 'limbs are dealt otherwise';
  if (sharding.kind !== 'split') return undefined;
  const size = axisSize(axesOf(value), sharding.axis);
  return size === owners.length
    ? undefined
    : `axis ${sharding.axis} has ${size} indices but ${owners.length} owners`;
}

function axesOf(value: Value | undefined): readonly Axis[] {
  return value?.type.kind === 'ct' || value?.type.kind === 'pt' ? value.type.axes : [];
}

/** What ct.reshape, ct.index, ct.slice and ct.reinterpret show of a sharded value; a text if nothing. */
export function viewedSharding(op: Op, sharding: Sharding): Sharding | string {
  const axis = op.attrs.axis as string;
  switch (op.kind) {
    case 'ct.reshape':
      return reshapedSharding(sharding, axesOf(op.operands[0]), axesOf(op.results[0]));
    case 'ct.index':
      return indexedSharding(sharding, axis, op.attrs.index as number, op.attrs.loopStride !== undefined);
    case 'ct.slice':
      return slicedSharding(sharding, axis, op.attrs.start as number, op.attrs.size as number);
    default:
      return sharding;
  }
}

const linearOps = [
  'ct.add',
  'ct.sub',
  'ct.sum',
  'ct.contract',
  'ct.index',
  'ct.slice',
  'ct.reshape',
  'ct.concat',
];
const summingOps = ['ct.mul', 'ct.contract', 'ct.sum'];
const views = ['ct.reshape', 'ct.index', 'ct.slice', 'ct.reinterpret'];
const keySwitches = ['ct.relinearize', 'ct.rotate', 'ct.rotate_each', 'ct.conjugate', 'ct.switch_secret'];

/** On one mesh axis; `operands` are those of the ciphertexts. */
function opProblem(
  op: Op,
  operands: readonly Sharding[],
  result: Sharding,
  modUp: OpPlacement['modUp'],
): string | undefined {
  if (op.kind === 'ct.zero') return undefined;
  const kinds = new Set([...operands, result].map(({ kind }) => kind));
  if (kinds.has('limbs')) {
    if (kinds.size > 1) return `limbs meet ${[...kinds].join(', ')}`;
    const said = modUp !== undefined || !keySwitches.includes(op.kind);
    return said ? undefined : 'the variant of ModUp is not said';
  }
  if (modUp !== undefined) return 'a variant of ModUp without limbs';
  if (views.includes(op.kind)) return viewProblem(op, operands[0] ?? replicated, result);
  if (operands.some(({ kind }) => kind === 'partial')) {
    if (!linearOps.includes(op.kind)) return 'a partial sum must be reduced before this op';
    const all = [...operands, result].every(({ kind }) => kind === 'partial');
    return all ? undefined : 'a partial sum meets a complete value';
  }
  if (op.kind === 'ct.concat') return concatProblem(op, operands, result);
  if (kinds.has('at')) return atProblem(operands, result);
  return splitProblem(op, operands, result);
}

function viewProblem(op: Op, operand: Sharding, result: Sharding): string | undefined {
  if (operand.kind === 'partial' && op.kind === 'ct.reinterpret')
    return 'a partial sum must be reduced before this op';
  const shown = viewedSharding(op, operand);
  if (typeof shown === 'string') return shown;
  return sameSharding(shown, result) ? undefined : `the view is ${shown.kind}, not ${result.kind}`;
}

function atProblem(operands: readonly Sharding[], result: Sharding): string | undefined {
  const fits =
    result.kind === 'at' && operands.every((one) => one.kind === 'replicated' || sameSharding(one, result));
  return fits ? undefined : 'all operands of one rank and the result must be there';
}

function concatProblem(op: Op, operands: readonly Sharding[], result: Sharding): string | undefined {
  const along = op.attrs.axis as string;
  if (result.kind !== 'split' || result.axis !== along) {
    return operands.every((one) => sameSharding(one, result))
      ? undefined
      : 'parts and result lie differently';
  }
  const owners = operands.map((one, i) => {
    const size = axisSize(axesOf(op.operands[i]), along) ?? 0;
    if (one.kind === 'at') return Array.from({ length: size }, () => one.rank);
    return one.kind === 'split' && one.axis === along ? one.owners : [];
  });
  return sameSharding({ ...result, owners: owners.flat() }, result)
    ? undefined
    : 'owners of the parts differ';
}

/** Everything whole, or split along one axis of the op's iteration space. */
function splitProblem(op: Op, operands: readonly Sharding[], result: Sharding): string | undefined {
  const split = [...operands, result].find((one) => one.kind === 'split');
  if (split?.kind !== 'split') {
    return result.kind === 'replicated' ? undefined : `whole operands do not make a ${result.kind} result`;
  }
  const values = op.operands.filter(({ type }) => type.kind === 'ct');
  const wrong = operands.findIndex((one, i) => {
    const has = axisSize(axesOf(values[i]), split.axis) !== undefined;
    return !sameSharding(one, has ? split : replicated);
  });
  if (wrong >= 0) return `operand ${wrong} is not split along ${split.axis} as the others are`;
  if (axisSize(axesOf(op.results[0]), split.axis) !== undefined) {
    return sameSharding(result, split) ? undefined : `the result is not split along ${split.axis}`;
  }
  if (summingOps.includes(op.kind)) return sameSharding(result, partial) ? undefined : 'this sum is partial';
  if (op.kind !== 'ct.rotate_each') return `axis ${split.axis} is gone`;
  // Reduced inside the op.
  const reduced = result.kind === 'replicated' || result.kind === 'split';
  return reduced ? undefined : `a sum of rotations cannot be ${result.kind}`;
}
