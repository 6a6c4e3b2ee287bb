/**
 * The level at which each value of a function is needed: a fixed point backwards from results, calls and
 * adjustments. Sums and products that wait for their rescale cannot be adjusted, so all that meet in one op
 * stay at one level.
 */
import { walkOps, type Block, type Func, type Op, type Value } from '../../ir/module.js';
import { usesOf, type Uses } from '../../ir/rewrite.js';
import { canonicalScale, printScale, scalesEqual } from '../../ir/scale.js';
import { axesCount } from '../../ir/types.js';
import { defined, invariant } from '../../support/invariant.js';
import { ctTypeOf, levelOf } from '../expand-polynomial.js';

/** Ops that give the same values at any level that their operands have. */
const movable: ReadonlySet<string> = new Set([
  'ct.add',
  'ct.sub',
  'ct.add_plain',
  'ct.contract',
  'ct.mul',
  'ct.relinearize',
  'ct.rescale',
  'ct.rotate',
  'ct.rotate_each',
  'ct.conjugate',
  'ct.mul_i',
  'ct.sum',
  'ct.index',
  'ct.slice',
  'ct.concat',
  'ct.reshape',
  'ct.zero',
]);

export class LevelNeeds {
  private readonly needs = new Map<number, number>();
  /** Ops that stay at the level they have. */
  private readonly fixed = new Set<Op>();
  private readonly uses: Uses;
  private changed = false;

  constructor(func: Func) {
    const { body } = func;
    this.uses = usesOf(func);
    walkOps(body, (op) => {
      if (func.models !== undefined || !canMove(op)) this.fixed.add(op);
    });
    [...body.args, ...body.results].forEach((value) => this.keep(value));
    do {
      do {
        this.changed = false;
        this.block(body);
      } while (this.changed);
    } while (this.fixDear(body));
  }

  /** Level of a ciphertext; undefined for plaintexts. */
  level(value: Value): number | undefined {
    return value.type.kind === 'ct' ? (this.needs.get(value.id) ?? levelOf(value)) : undefined;
  }

  /** Level of the ciphertext operands of an op; of the result where there is none. */
  operandLevel(op: Op): number | undefined {
    const result = defined(op.results[0], `result of ${op.kind}`);
    if (result.type.kind !== 'ct') return undefined;
    const first = op.operands.find((value) => value.type.kind === 'ct');
    if (first === undefined) return this.level(result);
    return levelOf(first) - levelOf(result) + defined(this.level(result), 'level');
  }

  moved(op: Op): boolean {
    return !this.fixed.has(op);
  }

  private raise(value: Value, level: number): void {
    if (value.type.kind !== 'ct') return;
    invariant(
      level <= levelOf(value),
      `%${value.id} is needed at level ${level}, planned at ${levelOf(value)}`,
    );
    if (level <= (this.needs.get(value.id) ?? -1)) return;
    this.needs.set(value.id, level);
    this.changed = true;
  }

  private keep(value: Value): void {
    if (value.type.kind === 'ct') this.raise(value, levelOf(value));
  }

  private block({ ops }: Block): void {
    for (const op of [...ops].reverse()) {
      if (op.kind === 'loop') this.loop(op);
      else if (op.kind === 'ct.adjust') this.adjust(op);
      else if (this.fixed.has(op)) [...op.operands, ...op.results].forEach((value) => this.keep(value));
      else this.operands(op);
    }
  }

  private adjust(op: Op): void {
    const [from, to] = [defined(op.operands[0], 'operand'), defined(op.results[0], 'result')];
    this.raise(from, this.needs.get(to.id) ?? 0);
  }

  private operands(op: Op): void {
    const result = defined(op.results[0], 'result');
    const down = defined(this.operandLevel(op), 'level') - defined(this.level(result), 'level');
    const open = op.operands.filter((value) => value.type.kind === 'ct' && !canonical(value));
    const level = Math.max(
      this.needs.get(result.id) ?? 0,
      ...open.map((v) => (this.needs.get(v.id) ?? 0) - down),
    );
    this.raise(result, level);
    op.operands.forEach((value) => this.raise(value, level + down));
  }

  /** A carried value has one level: before, in and after the loop. */
  private loop(op: Op): void {
    const region = defined(op.regions[0], 'body of a loop');
    const share = (): void =>
      region.args.forEach((arg, i) => {
        const same = [op.operands[i], arg, region.results[i], op.results[i]].map((v) =>
          defined(v, 'carried'),
        );
        const level = Math.max(...[arg, same[3] ?? arg].map((value) => this.needs.get(value.id) ?? 0));
        same.forEach((value) => this.raise(value, level));
      });
    share();
    this.block(region);
    share();
  }

  /** Ciphertexts to adjust behind a value: its own, or those that come of it after the next rescale. */
  private adjustable(value: Value): number {
    if (canonical(value)) return count(value);
    return this.uses
      .users(value)
      .flatMap((user) => user.results)
      .reduce((sum, result) => sum + this.adjustable(result), 0);
  }

  /**
   * Fixes ops that would need more ciphertexts adjusted before them than after them: the rotated hidden state
   * that Q, K and V share is not adjusted for V alone. False if there was none.
   */
  private fixDear(body: Block): boolean {
    const dear: Op[] = [];
    walkOps(body, (op) => {
      if (this.fixed.has(op) || op.kind === 'loop' || op.kind === 'ct.adjust') return;
      const level = this.operandLevel(op) ?? 0;
      const high = new Map(
        op.operands
          .filter((value) => value.type.kind === 'ct' && (this.level(value) ?? 0) > level)
          .map((value) => [value.id, count(value)]),
      );
      const adjusted = [...high.values()].reduce((sum, one) => sum + one, 0);
      if (adjusted > this.adjustable(defined(op.results[0], 'result'))) dear.push(op);
    });
    dear.forEach((op) => this.fixed.add(op));
    return dear.length > 0;
  }
}

function canMove(op: Op): boolean {
  if (op.kind === 'loop' || op.kind === 'ct.adjust') return true;
  if (!movable.has(op.kind) || op.attrs.lazy !== undefined) return false;
  if (op.results.some((value) => value.type.kind !== 'ct')) return false;
  const level = op.operands
    .map(({ type }) => (type.kind === 'ct' ? type.level : null))
    .find((l) => l !== null);
  return op.kind !== 'ct.contract' || op.attrs.scale === printScale(canonicalScale(level ?? 0));
}

function count(value: Value): number {
  return axesCount(ctTypeOf(value).axes);
}

/** At the scale of its level: it can be adjusted. */
function canonical(value: Value): boolean {
  const { degree, basis, scale } = ctTypeOf(value);
  return (
    degree === 1 && basis.kind === 'q' && scale !== null && scalesEqual(scale, canonicalScale(levelOf(value)))
  );
}
