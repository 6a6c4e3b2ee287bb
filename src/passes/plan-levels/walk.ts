/**
 * One walk over a function on two carriers: levels only (to price a plan) or a builder (to make the module).
 * Both see
 * the same decisions, so what was priced is what is built.
 *
 * A value is canonical if its scale is that of its level; products and contractions are not, until their
 * rescale. Only
 * canonical values are adjusted or bootstrapped.
 */
import type { Block, Op, Value } from '../../ir/module.js';
import { polynomialDepth } from '../../ir/ops/cipher.js';
import { defined, invariant } from '../../support/invariant.js';
import type { Parameters } from '../../target/parameters.js';

/** A ciphertext array whose level is still free: sums start from it. */
export const anyLevel = Infinity;

export interface Carrier<H> {
  level(handle: H): number;
  adjust(handle: H, level: number, op: Op): H;
  bootstrap(handle: H, value: Value, op: Op): H;
  /** Emits an op whose ciphertext operands are at one level. */
  emit(op: Op, operands: readonly H[], level: number): H;
  /** A call: arguments and results are ciphertexts at the callee's boundary level. */
  call(op: Op, operands: readonly H[], boundary: number): readonly H[];
  loop(
    op: Op,
    initial: readonly H[],
    body: (carrier: Carrier<H>, carried: readonly H[]) => readonly H[],
  ): readonly H[];
  /** Same level, no effects: for working out the carried levels of a loop. */
  probe(handle: H): number;
}

/** Levels an op consumes, its rescale included where it makes a product. */
function consumedLevels(op: Op): number {
  switch (op.kind) {
    case 'ct.mul':
    case 'ct.contract':
      return 1;
    case 'ct.polynomial':
      return polynomialDepth((op.attrs.coefficients as readonly number[]).length - 1);
    default:
      return 0;
  }
}

function isCt(value: Value): boolean {
  return value.type.kind === 'ct';
}

/** Level at which the ciphertext arguments and results of a function are, by its name. */
export type Boundaries = ReadonlyMap<string, number>;

export interface FactsOptions {
  readonly boundaries?: Boundaries;
  /** Level that the function's results must reach. */
  readonly exit?: number;
}

/** What the walk knows about a function before it starts. */
export class LevelFacts {
  readonly canonical = new Set<number>();
  /** Most levels consumed on a path from an op to the function's results. */
  private readonly remaining = new Map<Op, number>();

  constructor(
    body: Block,
    private readonly options: FactsOptions = {},
  ) {
    this.findCanonical(body);
    const exit = options.exit ?? 0;
    this.findRemaining(body, new Map(body.results.map((value) => [value.id, exit])));
  }

  remainingLevels(op: Op): number {
    return defined(this.remaining.get(op), `remaining levels of ${op.kind}`);
  }

  private findCanonical(block: Block): void {
    for (const arg of block.args) this.canonical.add(arg.id);
    for (const op of block.ops) {
      op.regions.forEach((region) => this.findCanonical(region));
      const product = op.kind === 'ct.mul' || op.kind === 'ct.contract';
      const inherits = op.operands.filter(isCt).every((value) => this.canonical.has(value.id));
      const fresh = op.kind === 'ct.rescale' || op.kind === 'loop' || op.kind === 'call';
      const canonical = fresh || (!product && inherits);
      for (const result of op.results) if (canonical && isCt(result)) this.canonical.add(result.id);
    }
  }

  /** Walks backwards; `need` holds the levels that the users of a value still consume. */
  private findRemaining(block: Block, need: Map<number, number>): void {
    for (const op of [...block.ops].reverse()) {
      const after = Math.max(0, ...op.results.map((result) => need.get(result.id) ?? 0));
      for (const region of op.regions) {
        region.results.forEach((value) => need.set(value.id, Math.max(need.get(value.id) ?? 0, after)));
        this.findRemaining(region, need);
      }
      const boundary =
        op.kind === 'call' ? this.options.boundaries?.get(op.attrs.callee as string) : undefined;
      const total = boundary ?? after + consumedLevels(op);
      this.remaining.set(op, total);
      for (const operand of op.operands) need.set(operand.id, Math.max(need.get(operand.id) ?? 0, total));
    }
  }
}

export interface WalkOptions {
  readonly parameters: Parameters;
  readonly facts: LevelFacts;
  readonly boundaries?: Boundaries;
}

export class InfeasibleLevels extends Error {
  constructor(
    readonly op: Op,
    readonly level: number,
  ) {
    super(`${op.kind} at level ${level}`);
  }
}

export class LevelWalk<H> {
  constructor(
    private readonly options: WalkOptions,
    private readonly carrier: Carrier<H>,
    private readonly values: Map<number, H>,
  ) {}

  /** A function whose results are at level `exit`, bootstrapped where they have fallen below. */
  func(body: Block, exit: number): readonly H[] {
    this.block(body);
    return body.results.map((value) => {
      const last = body.ops.at(-1);
      return last === undefined ? this.handle(value) : this.exactly(last, value, exit);
    });
  }

  block(block: Block): readonly H[] {
    for (const op of block.ops) {
      const results = op.kind === 'loop' ? this.loop(op) : op.kind === 'call' ? this.call(op) : [this.op(op)];
      op.results.forEach((result, i) => this.values.set(result.id, defined(results[i], 'result')));
    }
    return block.results.map((value) => this.handle(value));
  }

  private handle(value: Value): H {
    return defined(this.values.get(value.id), `handle of %${value.id}`);
  }

  private bootstrapped(value: Value, handle: H, op: Op): H {
    const entry = this.options.parameters.bootstrapInputLevel;
    const level = this.carrier.level(handle);
    if (level < entry || level === anyLevel) throw new InfeasibleLevels(op, level);
    return this.carrier.bootstrap(level > entry ? this.carrier.adjust(handle, entry, op) : handle, value, op);
  }

  private op(op: Op): H {
    const cts = op.operands.filter(isCt);
    if (cts.length === 0)
      return this.carrier.emit(
        op,
        op.operands.map((value) => this.handle(value)),
        anyLevel,
      );
    for (const value of cts) this.raiseIfNeeded(op, value);
    const level = Math.min(...cts.map((value) => this.carrier.level(this.handle(value))));
    const operands = op.operands.map((value) => {
      const handle = this.handle(value);
      return isCt(value) && this.carrier.level(handle) > level
        ? this.carrier.adjust(handle, level, op)
        : handle;
    });
    return this.carrier.emit(op, operands, level);
  }

  /** Bootstraps an operand that cannot pay for the op; every later user sees the bootstrapped value. */
  private raiseIfNeeded(op: Op, value: Value): void {
    const { facts, parameters } = this.options;
    if (!facts.canonical.has(value.id)) return;
    const floor = consumedLevels(op) + parameters.bootstrapInputLevel;
    this.raiseTo(Math.min(facts.remainingLevels(op), floor), op, value);
  }

  private raiseTo(floor: number, op: Op, value: Value): void {
    const handle = this.handle(value);
    if (this.carrier.level(handle) >= floor) return;
    this.values.set(value.id, this.bootstrapped(value, handle, op));
  }

  /** The value at one level, whatever it is at. */
  private exactly(op: Op, value: Value, level: number): H {
    this.raiseTo(level, op, value);
    const handle = this.handle(value);
    return this.carrier.level(handle) > level ? this.carrier.adjust(handle, level, op) : handle;
  }

  private call(op: Op): readonly H[] {
    const callee = op.attrs.callee as string;
    const boundary = defined(this.options.boundaries?.get(callee), `boundary level of @${callee}`);
    const operands = op.operands.map((value) =>
      isCt(value) ? this.exactly(op, value, boundary) : this.handle(value),
    );
    return this.carrier.call(op, operands, boundary);
  }

  private loop(op: Op): readonly H[] {
    const region = defined(op.regions[0], 'loop body');
    const initial = op.operands.map((value) => this.handle(value));
    const levels = this.carriedLevels(op, region, initial);
    const carried = initial.map((handle, i) => {
      const level = defined(levels[i], 'carried level');
      return this.carrier.level(handle) > level ? this.carrier.adjust(handle, level, op) : handle;
    });
    return this.carrier.loop(op, carried, (carrier, args) => {
      const values = new Map(this.values);
      region.args.forEach((arg, i) => values.set(arg.id, defined(args[i], 'carried value')));
      const results = new LevelWalk(this.options, carrier, values).block(region);
      return results.map((handle, i) => {
        const level = defined(levels[i], 'carried level');
        return carrier.level(handle) > level ? carrier.adjust(handle, level, op) : handle;
      });
    });
  }

  /** Highest levels at which the body yields what it carries; falls until it is stable. */
  private carriedLevels(op: Op, region: Block, initial: readonly H[]): number[] {
    const top = this.options.parameters.computeTop;
    const outer = new Map([...this.values].map(([id, handle]) => [id, this.carrier.probe(handle)]));
    let levels = initial.map((handle) => Math.min(top, this.carrier.level(handle)));
    for (let round = 0; round <= top; round++) {
      const values = new Map(outer);
      region.args.forEach((arg, i) => values.set(arg.id, defined(levels[i], 'level')));
      const yielded = new LevelWalk(this.options, levelCarrier(this.options.parameters), values).block(
        region,
      );
      const next = levels.map((level, i) => Math.min(level, defined(yielded[i], 'yielded level')));
      if (next.every((level, i) => level === levels[i])) return levels;
      levels = next;
    }
    throw new InfeasibleLevels(op, Math.min(...levels));
  }
}

/** Level after an op: rescale and polynomials go down, everything else stays. */
function levelAfter(op: Op, level: number): number {
  if (op.kind === 'ct.rescale') return level - 1;
  return op.kind === 'ct.polynomial' ? level - consumedLevels(op) : level;
}

/** A carrier whose handles are levels. `onCost` hears what is emitted. */
export function levelCarrier(
  parameters: Parameters,
  onEmit: (op: Op, level: number) => void = () => undefined,
  onBootstrap: (value: Value) => void = () => undefined,
  onLoop: (op: Op, run: () => void) => void = (_, run) => run(),
): Carrier<number> {
  const carrier: Carrier<number> = {
    level: (handle) => handle,
    probe: (handle) => handle,
    adjust: (_handle, level) => level,
    bootstrap: (_handle, value) => {
      onBootstrap(value);
      return parameters.computeTop;
    },
    emit: (op, _operands, level) => {
      const after = levelAfter(op, level);
      if (after < 0) throw new InfeasibleLevels(op, level);
      onEmit(op, level);
      return after;
    },
    call: (op, _operands, boundary) => op.results.map(() => boundary),
    loop: (op, initial, body) => {
      let results: readonly number[] = [];
      onLoop(op, () => {
        results = body(carrier, initial);
      });
      invariant(
        results.every((level, i) => level === initial[i]),
        'carried levels are stable',
      );
      return results;
    },
  };
  return carrier;
}
