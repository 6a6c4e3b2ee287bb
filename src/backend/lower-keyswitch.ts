/**
 * lower-keyswitch: cipher phase to poly phase. Every cipher op becomes plan commands on arrays of RNS
 * polynomials; each ModUp, ModDown, rescale and automorphism is explicit from here on. Rules:
 * docs/passes/lower-keyswitch.md.
 */
import { defined, invariant } from '../support/invariant.js';
import type { Parameters } from '../target/parameters.js';
import { BlockBuilder, Ids } from '../ir/builder.js';
import { entryName, type Block, type Func, type Module, type Op, type Value } from '../ir/module.js';
import { componentAxis } from '../ir/ops/poly.js';
import type { OpPlacement, PlacedFunction, Placement, Shardings } from '../ir/placement.js';
import { printType } from '../ir/printer.js';
import {
  coordinatesOf,
  localType,
  meshSize,
  onAxis,
  replicated,
  sameShardings,
  type Mesh,
} from '../ir/sharding.js';
import { canonicalScale, divScale, mulScale, parseScale, primeScale } from '../ir/scale.js';
import { axisSize, type Axis, type CtType, type PolyType, type Type } from '../ir/types.js';
import {
  adjust,
  conjugate,
  divideTwice,
  modDown,
  modRaise,
  relinearize,
  relinearizeUndivided,
  rescale,
  rotate,
  rotateEach,
  rotateEachUndivided,
  switchSecret,
  type Undivided,
} from './lower-keyswitch/keyswitch.js';
import type { SwitchForm } from './lower-keyswitch/decompose.js';
import { mergedDivisions, type MergedDivisions } from './lower-keyswitch/merged-divisions.js';
import { polyOf, polyTypeOf, Scope, shapeOf, shardingOf } from './lower-keyswitch/scope.js';
import { numericScale } from './numeric-scale.js';

/**
 * Takes a cipher module with all levels and without ct.polynomial and ct.bootstrap; returns a poly module
 * whose
 * values lie on the mesh as the placement says. Without a placement there is one rank.
 */
export function lowerKeyswitch(module: Module, placement?: Placement): Module {
  invariant(module.phase === 'cipher', `lower-keyswitch takes phase cipher, not ${module.phase}`);
  const parameters = defined(module.parameters, 'parameters');
  const ids = new Ids();
  if (placement === undefined) {
    const functions = module.functions.map((func) => new FunctionLowering(func, parameters, ids).run());
    return { ...module, phase: 'poly', functions };
  }
  const placed = new Map(placement.functions.map((one) => [one.name, one]));
  const functions = placement.functions.map((one) => {
    const source = defined(
      module.functions.find((func) => func.name === one.source),
      `function ${one.source}`,
    );
    return new FunctionLowering(source, parameters, ids, {
      mesh: placement.mesh,
      own: one,
      callees: placed,
    }).run();
  });
  return { ...module, phase: 'poly', functions };
}

interface Placed {
  readonly mesh: Mesh;
  readonly own: PlacedFunction;
  readonly callees: ReadonlyMap<string, PlacedFunction>;
}

class FunctionLowering {
  private readonly values = new Map<number, Value>();
  private readonly uses = new Map<number, number>();
  /** By op that leaves its ModDown to a rescale. */
  private readonly undivided = new Map<Op, Undivided>();
  private readonly merged: MergedDivisions | undefined;

  constructor(
    private readonly func: Func,
    private readonly parameters: Parameters,
    private readonly ids: Ids,
    private readonly placed?: Placed,
  ) {
    this.countUses(func.body);
    // Where ranks share limbs, both divisions gather what they convert.
    if (placed === undefined) this.merged = mergedDivisions(func, parameters.slots);
  }

  run(): Func {
    const { args } = this.func.body;
    const placed = this.placed?.own;
    const types = args.map((arg, i) => this.lowerType(arg.type, placed?.args[i]));
    const builder = new BlockBuilder(
      this.ids,
      this.parameters,
      types.map((type) => this.portType(type)),
    );
    const scope = new Scope(builder, this.parameters, 1, undefined, this.placed?.mesh);
    args.forEach((arg, i) => {
      const value = defined(builder.args[i], 'argument');
      const type = types[i];
      this.values.set(arg.id, type?.kind === 'poly' ? scope.lay(value, type.sharding) : value);
    });
    const results = this.block(this.func.body, scope).map((value, i) => {
      const sharding = placed?.results[i] ?? polyOf(value).sharding;
      return scope.lay(value, (this.portType({ ...polyOf(value), sharding }) as PolyType).sharding);
    });
    // `models` speaks of slot values, which poly arrays no longer have.
    return { name: placed?.name ?? this.func.name, body: builder.finish(results) };
  }

  /**
   * Every rank holds a part of every input and output of the model: all of those that are too small to share.
   */
  private portType(type: Type): Type {
    const mesh = this.placed?.mesh;
    if (type.kind !== 'poly' || mesh === undefined || this.func.name !== entryName) return type;
    const ranks = Array.from({ length: meshSize(mesh) }, (_, rank) => coordinatesOf(mesh, rank));
    const shared =
      type.sharding.every((one) => one.kind !== 'partial')
      && ranks.every((coordinates) => localType(type, coordinates) !== undefined);
    return shared ? type : { ...type, sharding: type.sharding.map(() => replicated) };
  }

  private placement(op: Op): OpPlacement | undefined {
    return this.placed === undefined
      ? undefined
      : defined(this.placed.own.ops.get(op), `placement of ${op.kind}`);
  }

  private countUses(block: Block): void {
    const use = (value: Value): unknown => this.uses.set(value.id, (this.uses.get(value.id) ?? 0) + 1);
    for (const op of block.ops) {
      op.operands.forEach(use);
      op.regions.forEach((region) => this.countUses(region));
    }
    block.results.forEach(use);
  }

  private lowerType(type: Type, sharding?: Shardings): Type {
    return type.kind === 'ct' ? polyTypeOf(type, this.parameters, sharding) : type;
  }

  private block(block: Block, s: Scope): readonly Value[] {
    for (const op of block.ops) {
      s.loc = op.loc;
      if (this.leavesDivision(op, s)) continue;
      const results = this.op(op, s);
      op.results.forEach((result, i) =>
        this.values.set(result.id, defined(results[i], `result of ${op.kind}`)),
      );
    }
    return block.results.map((value) => this.value(value));
  }

  /** Lowers an op whose result exists undivided only. */
  private leavesDivision(op: Op, s: Scope): boolean {
    if (this.merged?.doublings.has(op) === true) return true;
    if (this.merged?.sources.has(op) !== true) return false;
    const a = this.value(defined(op.operands[0], 'operand 0'));
    this.undivided.set(op, this.beforeModDown(op, a, s));
    return true;
  }

  private beforeModDown(op: Op, a: Value, s: Scope): Undivided {
    const form: SwitchForm = { modUp: 'broadcast' };
    if (op.kind === 'ct.mod_down') return { sum: a, specials: specialsOf(op) };
    if (op.kind === 'ct.relinearize') return relinearizeUndivided(s, a, form);
    return rotateEachUndivided(
      s,
      op,
      a,
      this.lowerType(defined(op.results[0], 'result').type) as PolyType,
      form,
    );
  }

  private rescale(op: Op, a: () => Value, s: Scope): Value {
    const merged = this.merged?.rescales.get(op);
    if (merged === undefined) return rescale(s, a());
    return divideTwice(s, defined(this.undivided.get(merged.source), 'undivided value'), merged.factor);
  }

  private value(value: Value): Value {
    return defined(this.values.get(value.id), 'lowered value');
  }

  private op(op: Op, s: Scope): readonly Value[] {
    if (op.kind.startsWith('pt.')) return [s.op(op.kind, [], op.attrs)];
    const placed = this.placement(op);
    const made = this.merged?.rescales.has(op) === true ? [] : op.operands;
    const operands = made.map((value, i) => {
      const lowered = this.value(value);
      const sharding = placed?.operands[i];
      return sharding === undefined || lowered.type.kind !== 'poly' ? lowered : s.lay(lowered, sharding);
    });
    if (op.kind === 'call') return this.call(op, operands, placed, s);
    if (op.kind === 'loop') return this.loop(op, operands, s);
    const wanted = this.lowerType(defined(op.results[0], 'result').type, placed?.results[0]) as PolyType;
    const form: SwitchForm = {
      modUp: placed?.modUp ?? 'broadcast',
      digitGroups: op.attrs.digitGroups as number | undefined,
    };
    const result = this.cipher(op, operands, s, wanted, form);
    const given = polyOf(result);
    invariant(
      wanted.limbs.join() === given.limbs.join()
        && sameAxes(wanted.axes, given.axes)
        && sameShardings(wanted.sharding, given.sharding),
      `${op.kind} is lowered to the type it has: ${printType(wanted)}, not ${printType(given)}`,
    );
    return [result];
  }

  private call(
    op: Op,
    operands: readonly Value[],
    placed: OpPlacement | undefined,
    s: Scope,
  ): readonly Value[] {
    const callee = placed?.callee ?? (op.attrs.callee as string);
    const results = this.placed?.callees.get(callee)?.results;
    const types = op.results.map((result, i) => this.lowerType(result.type, results?.[i]));
    return s.adopt(s.builder.call(callee, operands, types, op.loc));
  }

  private loop(op: Op, operands: readonly Value[], s: Scope): readonly Value[] {
    const body = defined(op.regions[0], 'loop body');
    const tripCount = op.attrs.tripCount as number;
    const results = s.builder.loop(tripCount, operands, op.loc, (inner, carried) => {
      body.args.forEach((arg, i) => this.values.set(arg.id, defined(carried[i], 'carried value')));
      const scope = new Scope(inner, this.parameters, tripCount, s);
      return this.block(body, scope).map((value, i) =>
        this.placed === undefined
          ? value
          : scope.lay(value, polyOf(defined(carried[i], 'carried value')).sharding),
      );
    });
    return s.adopt(results);
  }

  private cipher(op: Op, operands: readonly Value[], s: Scope, wanted: PolyType, form: SwitchForm): Value {
    const { attrs } = op;
    const a = (): Value => defined(operands[0], 'operand 0');
    const b = (): Value => defined(operands[1], 'operand 1');
    switch (op.kind) {
      case 'ct.add':
        return elementwise(s, 'poly.add', a(), b());
      case 'ct.sub':
        return elementwise(s, 'poly.sub', a(), b());
      case 'ct.add_plain':
        return this.addPlain(op, a(), b(), s, wanted);
      case 'ct.contract':
        return this.contract(op, a(), b(), s, wanted);
      case 'ct.mul':
        return s.op('poly.tensor', [a(), b()], { over: defined(attrs.over, 'over') });
      case 'ct.relinearize':
        return relinearize(s, a(), form);
      case 'ct.rescale':
        return this.rescale(op, a, s);
      case 'ct.adjust':
        return adjust(s, a(), attrs.level as number, this.adjustFactor(op));
      case 'ct.rotate':
        return rotate(s, op, a(), wanted, form);
      case 'ct.rotate_each':
        return rotateEach(s, op, a(), wanted, form);
      case 'ct.conjugate':
        return conjugate(s, a(), form);
      case 'ct.mul_i':
        return s.op('poly.contract', [a(), s.op('poly.monomial', [], { power: this.parameters.slots })], {
          over: [],
          scale: 1,
        });
      case 'ct.sum':
        return s.op('poly.copy', [a()], { over: [attrs.axis as string] });
      case 'ct.mod_down':
        return modDown(s, a(), specialsOf(op));
      case 'ct.index':
        return s.op('poly.index', [a()], attrs);
      case 'ct.slice':
        return s.op('poly.slice', [a()], attrs);
      case 'ct.concat':
        return concat(s, operands, attrs.axis as string, wanted);
      case 'ct.reshape':
        return reshape(s, a(), wanted);
      case 'ct.mod_raise':
        return modRaise(s, a());
      case 'ct.switch_secret':
        return switchSecret(s, a(), attrs.to as string, form);
      case 'ct.reinterpret':
        s.fresh.delete(a().id); // two cipher values share this array from here on
        return a();
      case 'ct.zero':
        return s.op('poly.zero', [], shapeOf(wanted));
      default:
        invariant(false, `${op.kind} must be expanded before lower-keyswitch`);
    }
  }

  /** Plaintexts may bring axes of their own, along which ranks share work on a replicated operand. */
  private contract(op: Op, a: Value, p: Value, s: Scope, wanted: PolyType): Value {
    const scale = defined(parseScale(op.attrs.scale as string), 'plaintext scale');
    const { sharding } = polyOf(a);
    const shared = wanted.sharding.map((to, m) =>
      onAxis(sharding, m).kind === 'replicated' ? to : onAxis(sharding, m),
    );
    return s.op('poly.contract', [a, p], {
      over: defined(op.attrs.over, 'over'),
      scale: numericScale(scale, this.parameters),
      ...shardingOf({ ...wanted, sharding: shared }),
    });
  }

  /** D(t) q(t+1) / scale of the operand: after the rescale by q(t+1) the scale is D(t). */
  private adjustFactor(op: Op): number {
    const type = ctOf(op);
    const level = op.attrs.level as number;
    const factor = divScale(
      mulScale(canonicalScale(level), primeScale(level + 1)),
      defined(type.scale, 'scale'),
    );
    return numericScale(factor, this.parameters);
  }

  private addPlain(op: Op, a: Value, p: Value, s: Scope, result: PolyType): Value {
    const scale = numericScale(defined(ctOf(op).scale, 'scale'), this.parameters);
    const window = { axes: { [componentAxis]: [0, 1] as const } };
    const add = (target: Value): Value =>
      s.into('poly.add_plain', [s.component(a, 0), p], target, window, { scale });
    const type = polyOf(a);
    const usedUp = this.uses.get(defined(op.operands[0], 'operand').id) === 1 && s.fresh.has(a.id);
    const alike = sameAxes(type.axes, result.axes) && sameShardings(type.sharding, result.sharding);
    if (usedUp && alike) return add(a);
    const others = defined(axisSize(type.axes, componentAxis), 'components') - 1;
    const copied = s.into(
      'poly.copy',
      [s.slice(a, componentAxis, 1, others)],
      s.undefined(result),
      { axes: { [componentAxis]: [1, others] } },
      { over: [] },
    );
    return add(copied);
  }
}

function ctOf(op: Op): CtType {
  const type = defined(op.operands[0], 'operand 0').type;
  invariant(type.kind === 'ct', `operand of ${op.kind} is a ciphertext array`);
  return type;
}

function specialsOf(op: Op): number {
  const { basis } = ctOf(op);
  invariant(basis.kind === 'qp', 'ct.mod_down takes basis qp');
  return basis.specials;
}

function sameAxes(a: readonly Axis[], b: readonly Axis[]): boolean {
  return a.length === b.length && a.every((axis, i) => axis.name === b[i]?.name && axis.size === b[i]?.size);
}

/** a + b or a - b; an operand of two components counts as one with a zero third component. */
function elementwise(s: Scope, kind: 'poly.add' | 'poly.sub', a: Value, b: Value): Value {
  const components = (value: Value): number =>
    defined(axisSize(polyOf(value).axes, componentAxis), 'components');
  const wanted = Math.max(components(a), components(b));
  const extended = (value: Value): Value => {
    const type = polyOf(value);
    const own = components(value);
    if (own === wanted) return value;
    const axes = type.axes.map((axis) => (axis.name === componentAxis ? { ...axis, size: wanted } : axis));
    const copied = s.into(
      'poly.copy',
      [value],
      s.undefined({ ...type, axes }),
      { axes: { [componentAxis]: [0, own] } },
      { over: [] },
    );
    const nothing = shapeOf({ ...type, axes: [], sharding: [] });
    return s.into('poly.zero', [], copied, { axes: { [componentAxis]: [own, wanted - own] } }, nothing);
  };
  return s.op(kind, [extended(a), extended(b)]);
}

function concat(s: Scope, parts: readonly Value[], axis: string, result: PolyType): Value {
  let out = s.undefined(result);
  let start = 0;
  for (const part of parts) {
    const size = defined(axisSize(polyOf(part).axes, axis), `axis ${axis}`);
    out = s.into('poly.copy', [part], out, { axes: { [axis]: [start, size] } }, { over: [] });
    start += size;
  }
  return out;
}

function reshape(s: Scope, a: Value, result: PolyType): Value {
  return s.op('poly.reshape', [a], { axes: result.axes.map(({ name, size }) => ({ name, size })) });
}
