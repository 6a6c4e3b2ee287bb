/**
 * pack: from the `tensor` phase to ciphertext arrays in the feature-fast layout, every nonlinear function
 * approximated
 * on its calibrated interval. Levels and scales stay open; plan-levels decides them.
 */
import { BlockBuilder, Ids } from '../../ir/builder.js';
import { cappedScore } from '../../ir/interpreter/tensor.js';
import type { Func, Module, Op, Port, SlotMap, Value } from '../../ir/module.js';
import { entryName } from '../../ir/module.js';
import type { CtType, TensorType } from '../../ir/types.js';
import { qBasis } from '../../ir/types.js';
import { AegisError } from '../../support/diagnostics.js';
import { defined, invariant } from '../../support/invariant.js';
import type { Parameters } from '../../target/parameters.js';
import type { NonlinearFunction } from '../approximation/index.js';
import { shorterRequests, type NodeRange, type NodeRanges, type ValueRanges } from '../ranges.js';
import { activationOf } from './activation-of.js';
import { packAttention } from './attention.js';
import { defaultPackOptions, PackContext, tokenAxes, type PackOptions } from './context.js';
import { inputSlots, slotMap, tokensOf, type PackedInput } from './ports.js';
import { blocksOf, featureAxes, plainFeatures, sameLayout, type Packed } from './layout.js';
import { addBias, applyMatrix, type Affine } from './linear.js';
import {
  activate,
  activationAt,
  approximateActivation,
  packActivation,
  packInverseSqrt,
  packNorm,
  plusVector,
  restOf,
  timesVector,
  zeroPadding,
} from './nonlinear.js';
import { mixTokens } from './mix-tokens.js';
import { concatTokens, meanTokens, selectTokens } from './tokens.js';

const plainAffine = { scale: 1, shift: 0 };

/** Ops that read a linear layer in a layout or at a scale of their own, and so apply it themselves. */
function absorbsLinear(user: Op): boolean {
  return user.kind === 'tensor.attention' || activationOf(user) !== undefined;
}

export function packModule(
  module: Module,
  parameters: Parameters,
  ranges: NodeRanges,
  given: Partial<PackOptions> = {},
  values: ValueRanges = new Map(),
): Module {
  invariant(module.phase === 'tensor', 'pack takes the tensor phase');
  const main = defined(
    module.functions.find((f) => f.name === entryName),
    'main',
  );
  const options = { ...defaultPackOptions, ...given };
  const { tokenBlocks } = options;
  const groups = groupsOf(main, tokenBlocks);
  const period = periodOf(parameters.slots, groups);
  const shape = { period, groups, tokenBlocks };
  const inputs = main.body.args.map((arg, i) => inputSlots(module, main.body, arg, i, shape));
  const builder = new BlockBuilder(
    new Ids(),
    parameters,
    inputs.map((input): CtType => ({
      kind: 'ct',
      axes: [...tokenAxes(input.slots.blocks ?? 1), ...featureAxes(input.featureCount, period)],
      degree: 1,
      basis: qBasis,
      level: null,
      scale: null,
    })),
  );
  const ctx = new PackContext(module, parameters, period, groups, ranges, options, builder);
  const packer = new Packer(ctx, main.body.ops, main.body.results, values);
  inputs.forEach((input, i) => {
    packer.values.set(input.value.id, {
      value: defined(builder.args[i], 'argument'),
      features: plainFeatures(input.featureCount, period),
      featureCount: input.featureCount,
      tokens: input.tokens,
      repeats: 'copies',
    });
  });
  main.body.ops.forEach((op, index) => packer.packOp(op, index));

  const results = main.body.results.map((value) => packer.plain(value, 'output'));
  const body = builder.finish(results.map((packed) => packed.value));
  return {
    ...module,
    phase: 'cipher',
    parameters,
    functions: [{ name: entryName, body }],
    constants: ctx.constants,
    tables: ctx.tables,
    inputs: module.inputs.map((port, i): Port => ({
      ...port,
      slots: defined(inputs[i], 'input').slots,
      bound: boundOf(ranges, i, defined(inputs[i], 'input')),
    })),
    outputs: module.outputs.map((port, i): Port => ({
      ...port,
      slots: outputSlots(defined(results[i], 'result'), ctx),
    })),
    ...(ctx.approximations.length === 0 ? {} : { approximations: ctx.approximations }),
  };
}

function periodOf(slots: number, groups: number): number {
  if (groups <= slots) return slots / groups;
  throw new AegisError({
    code: 'A110',
    pass: 'pack',
    message: `${groups} tokens do not fit ${slots} slots`,
    help: 'use a larger ring, more token blocks or a shorter sequence',
  });
}

/** Token positions of a ciphertext: all tokens, padded to a power of two, cut into blocks. */
function groupsOf(main: Func, tokenBlocks: number): number {
  const tokens = Math.max(...main.body.ops.map((op) => tokensOf(resultOf(op))));
  const positions = 2 ** Math.ceil(Math.log2(tokens));
  const groups = positions / tokenBlocks;
  if (Number.isInteger(Math.log2(tokenBlocks)) && groups >= 1 && tokenBlocks >= 1) return groups;
  throw new AegisError({
    code: 'A117',
    pass: 'pack',
    message: `${tokenBlocks} token blocks cannot hold ${positions} token positions`,
    help: `use a power of two up to ${positions}`,
  });
}

/** One factor for all tokens is one over their number, or goes with it. */
function boundOf(ranges: NodeRanges, index: number, input: PackedInput): number | undefined {
  const range = ranges.get(-1 - index)?.interval;
  const margin = input.isFactor && input.tokens === 1 ? 2 * shorterRequests : 2;
  return range === undefined ? undefined : margin * Math.max(Math.abs(range.min), Math.abs(range.max));
}

function outputSlots(packed: Packed, ctx: PackContext): SlotMap {
  const blocks = blocksOf(packed.value);
  const tokens = ctx.tokenTable(blocks, 0, packed.tokens, (t) => t * packed.featureCount);
  return slotMap(ctx.period, blocks, packed.features, tokens);
}

function resultOf(op: Op): Value {
  return defined(op.results[0], `result of ${op.kind}`);
}

class Packer {
  readonly values = new Map<number, Packed>();
  private readonly producers = new Map<number, Op>();
  private readonly users = new Map<number, Op[]>();
  private readonly outputs: ReadonlySet<number>;
  /** Calibrated bounds of |value| of the tensor values. */
  private readonly bounds = new Map<number, number>();

  constructor(
    private readonly ctx: PackContext,
    ops: readonly Op[],
    results: readonly Value[],
    calibrated: ValueRanges,
  ) {
    ops.forEach((op, index) => {
      const range = calibrated.get(index);
      if (range === undefined) return;
      this.bounds.set(resultOf(op).id, Math.max(Math.abs(range.min), Math.abs(range.max)));
    });
    this.outputs = new Set(results.map((value) => value.id));
    for (const op of ops) {
      this.producers.set(resultOf(op).id, op);
      for (const operand of op.operands)
        this.users.set(operand.id, [...(this.users.get(operand.id) ?? []), op]);
    }
  }

  packOp(op: Op, index: number): void {
    if (op.kind === 'tensor.rearrange') return;
    if (op.kind === 'tensor.linear' && this.isAbsorbed(op)) return;
    const packed = this.pack(op, index);
    // A part of a weighted mean may exceed the mean, but not the values that it weighs.
    const of = packed.repeats === 'terms' ? (op.operands[2] ?? resultOf(op)) : resultOf(op);
    this.values.set(resultOf(op).id, { ...packed, value: this.bounded(packed.value, of) });
  }

  private bounded(value: Value, of: Value, { scale, shift } = plainAffine): Value {
    const bound = this.bounds.get(of.id);
    return bound === undefined ? value : this.ctx.bounded(value, Math.abs(scale) * bound + Math.abs(shift));
  }

  /** True if every user of a linear layer applies it itself. */
  private isAbsorbed(op: Op): boolean {
    const users = this.users.get(resultOf(op).id) ?? [];
    return !this.outputs.has(resultOf(op).id) && users.length > 0 && users.every(absorbsLinear);
  }

  private pack(op: Op, index: number): Packed {
    const { ctx } = this;
    const { loc, attrs } = op;
    const operand = (i: number) => defined(op.operands[i], `operand ${i} of ${op.kind}`);
    const activation = activationOf(op);
    if (activation !== undefined) return this.packActivationOp(op, operand(0), activation, index);
    const x = () => this.plain(operand(0), loc);
    switch (op.kind) {
      case 'tensor.linear':
        return this.linear(op, plainAffine);
      case 'tensor.add':
      case 'tensor.sub':
      case 'tensor.mul':
        return this.binary(op.kind.slice('tensor.'.length), x(), this.plain(operand(1), loc), loc);
      case 'tensor.add_constant':
        return plusVector(ctx, x(), attrs.constant as string, loc);
      case 'tensor.mul_constant':
        return timesVector(ctx, x(), attrs.constant as string, loc);
      case 'tensor.scale_tokens': {
        const scaled = this.values.get(operand(0).id) ?? x();
        return { ...scaled, value: ctx.multiply(scaled.value, this.factorOf(operand(1), loc), [], loc) };
      }
      case 'tensor.layer_norm':
      case 'tensor.rms_norm': {
        const spec = {
          centred: op.kind === 'tensor.layer_norm',
          gamma: attrs.gamma as string | undefined,
          beta: attrs.beta as string | undefined,
          epsilon: attrs.epsilon as number,
          range: this.rangeOf(op, index, 'variance').interval,
          tolerance: this.rangeOf(op, index, 'variance').tolerance,
        };
        return packNorm(ctx, x(), spec, loc);
      }
      case 'tensor.mix_tokens':
        return mixTokens(ctx, x(), attrs.weight as string, loc);
      case 'tensor.attention':
        return this.attention(op, index);
      case 'tensor.concat_tokens':
        return concatTokens(ctx, x(), attrs.constant as string, attrs.before as boolean, loc);
      case 'tensor.select_tokens':
        return selectTokens(ctx, x(), attrs.first as number, attrs.count as number, 1, loc);
      case 'tensor.mean_tokens':
        return meanTokens(ctx, x(), loc);
      default:
        throw new AegisError({
          code: 'A114',
          node: loc,
          pass: 'pack',
          message: `${op.kind} has no packed form here`,
          help: 'report the model; the operator is understood but not yet packed',
        });
    }
  }

  /** A value in plain feature order with one position per feature, applying the identity where it is not. */
  plain(value: Value, loc: string): Packed {
    const producer = this.producers.get(value.id);
    const packed =
      this.values.get(value.id)
      ?? (producer?.kind === 'tensor.linear' ? this.linear(producer, plainAffine) : undefined);
    const found = defined(packed, `packed form of %${value.id}`);
    const features = plainFeatures(found.featureCount, this.ctx.period);
    const target = { ...found, features, repeats: 'copies' as const };
    if (sameLayout(found, target)) return found;
    const size = found.featureCount;
    const identity = new Float64Array(size * size);
    for (let i = 0; i < size; i++) identity[i * size + i] = 1;
    const weight = this.ctx.addConstant(`identity ${size}`, [size, size], identity);
    const axes = featureAxes(size, this.ctx.period);
    return {
      ...target,
      value: applyMatrix(this.ctx, found, { weight, rows: features, outAxes: axes, factor: 1 }, loc),
    };
  }

  /** A linear layer in plain layout, its result mapped by scale * y + shift. */
  private linear(op: Op, affine: Affine): Packed {
    const weight = this.ctx.constantOf(op.attrs.weight);
    const size = defined(weight.shape[0], 'output features');
    const features = plainFeatures(size, this.ctx.period);
    const axes = featureAxes(size, this.ctx.period);
    const value = this.linearInto(op, features, axes, affine);
    return { value, features, featureCount: size, tokens: tokensOf(resultOf(op)), repeats: 'copies' };
  }

  private linearInto(
    op: Op,
    rows: Int32Array,
    axes: readonly { name: string; size: number }[],
    affine: Affine,
  ): Value {
    const input = defined(op.operands[0], 'operand of a linear layer');
    const x = this.values.get(input.id) ?? this.plain(input, op.loc);
    const weight = this.ctx.keep(op.attrs.weight as string);
    const product = applyMatrix(this.ctx, x, { weight, rows, outAxes: axes, factor: affine.scale }, op.loc);
    const bias = typeof op.attrs.bias === 'string' ? this.ctx.constantOf(op.attrs.bias).data : undefined;
    const value = addBias(this.ctx, product, rows, axes, bias, affine, tokensOf(resultOf(op)), op.loc);
    return this.bounded(value, resultOf(op), affine);
  }

  private binary(name: string, a: Packed, b: Packed, loc: string): Packed {
    invariant(sameLayout(a, b), `operands of ${name} at "${loc}" have different layouts`);
    if (name === 'mul') return { ...a, value: this.ctx.multiply(a.value, b.value, [], loc) };
    return { ...a, value: this.ctx.builder.op(`ct.${name}`, [a.value, b.value], {}, loc) };
  }

  private packActivationOp(op: Op, input: Value, fn: NonlinearFunction, index: number): Packed {
    const { interval, tolerance } = this.rangeOf(op, index, 'input');
    if (fn.kind === 'named' && fn.name === 'power' && fn.alpha === -0.5 && interval.min > 0) {
      return packInverseSqrt(this.ctx, this.plain(input, op.loc), { range: interval, tolerance }, op.loc);
    }
    const activation = approximateActivation(fn, interval, tolerance);
    const producer = this.producers.get(input.id);
    const rest = restOf(activation);
    const atRest = activationAt(activation, rest);
    if (producer?.kind !== 'tensor.linear' || this.outputs.has(input.id)) {
      const direct = packActivation(this.ctx, this.plain(input, op.loc), activation, op.loc);
      return zeroPadding(this.ctx, direct, atRest, op.loc);
    }
    const t = this.linear(producer, { ...activation.argument, rest });
    const value = activate(this.ctx, t.value, activation, op.loc);
    return zeroPadding(this.ctx, { ...t, value }, atRest, op.loc);
  }

  private attention(op: Op, index: number): Packed {
    const [q, k, v] = op.operands;
    const values = [defined(q, 'q'), defined(k, 'k'), defined(v, 'v')] as const;
    const heads = op.attrs.heads as number;
    const widthOf = (value: Value): number => (value.type as TensorType).shape.at(-1) ?? 0;
    const optional = (attr: string): Float64Array | undefined =>
      op.attrs[attr] === undefined ? undefined : this.ctx.constantOf(op.attrs[attr]).data;
    const { attention, tolerance } = this.rangeOf(op, index, 'attention');
    const ranges = defined(attention, 'attention ranges');
    const mask = op.operands[3];
    const spec = {
      heads,
      headSize: widthOf(values[0]) / heads,
      valueSize: widthOf(values[2]) / heads,
      scale: op.attrs.scale as number,
      tokens: tokensOf(values[1]),
      tokenBlocks: this.ctx.blocksFor(tokensOf(values[1])),
      ranges,
      tolerance,
      keep: optional('keep'),
      bias: optional('bias'),
      capped: cappedScore(op),
      mask: mask === undefined ? undefined : this.factorOf(mask, op.loc),
      loc: op.loc,
    };
    return packAttention(this.ctx, spec, (which, rows, headSize, factor) => {
      const value = values[which];
      const axes = [{ name: 'j', size: headSize }];
      const producer = this.producers.get(value.id);
      if (producer?.kind === 'tensor.linear')
        return this.linearInto(producer, rows, axes, { scale: factor, shift: 0 });
      const x = this.plain(value, op.loc);
      const identity = new Float64Array(x.featureCount ** 2);
      for (let i = 0; i < x.featureCount; i++) identity[i * x.featureCount + i] = 1;
      const weight = this.ctx.addConstant(
        `identity ${x.featureCount}`,
        [x.featureCount, x.featureCount],
        identity,
      );
      return applyMatrix(this.ctx, x, { weight, rows, outAxes: axes, factor }, op.loc);
    });
  }

  /** A factor of tokens (ports.ts), without an axis of features. */
  private factorOf(value: Value, loc: string): Value {
    const packed = defined(this.values.get(value.id), 'factors of tokens');
    return this.ctx.reshape(packed.value, tokenAxes(blocksOf(packed.value)), loc);
  }

  private rangeOf(op: Op, index: number, kind: NodeRange['kind']): NodeRange {
    const range = this.ctx.ranges.get(index);
    if (range?.kind === kind) return range;
    throw new AegisError({
      code: 'A102',
      node: op.loc,
      pass: 'pack',
      message: `the ranges hold no ${kind} range of this node`,
      help: 'calibrate this model at these shapes again: aegis calibrate MODEL --samples F -o RANGES.json',
    });
  }
}
