/**
 * Canonical ops under construction. Equal drafts are made once; constants are folded into neighbours as they
 * come: bias and factors into linear layers, gamma and beta into normalisations.
 */
import { createHash } from 'node:crypto';
import type { Constant } from '../../ir/module.js';
import { defined } from '../../support/invariant.js';

export type DraftKind =
  | 'input'
  | 'tensor.rearrange'
  | 'tensor.linear'
  | 'tensor.add'
  | 'tensor.sub'
  | 'tensor.mul'
  | 'tensor.scale_tokens'
  | 'tensor.add_constant'
  | 'tensor.mul_constant'
  | 'tensor.layer_norm'
  | 'tensor.rms_norm'
  | 'tensor.gelu'
  | 'tensor.relu'
  | 'tensor.tanh'
  | 'tensor.sigmoid'
  | 'tensor.silu'
  | 'tensor.function'
  | 'tensor.attention'
  | 'tensor.concat_tokens'
  | 'tensor.select_tokens'
  | 'tensor.mean_tokens'
  | 'tensor.mix_tokens'
  /** Stands for the result of something unsupported, so that what follows is still checked. */
  | 'unsupported';

export type Roles = 'weight' | 'bias' | 'constant' | 'gamma' | 'beta' | 'keep';

export interface Draft {
  readonly id: number;
  readonly kind: DraftKind;
  readonly operands: readonly Draft[];
  readonly attrs: Readonly<Record<string, string | number | boolean>>;
  readonly constants: Readonly<Partial<Record<Roles, Constant>>>;
  /** Of tensor.rearrange. */
  readonly indices?: Int32Array | undefined;
  readonly rows: number;
  readonly columns: number;
  readonly loc: string;
}

export type DraftParts = Partial<Pick<Draft, 'attrs' | 'constants' | 'indices'>>
  & Pick<Draft, 'rows' | 'columns' | 'loc'>;

const digests = new WeakMap<object, string>();

/** Content of a table or constant as a short key; computed once per array. */
export function digestOf(data: Float64Array | Int32Array): string {
  const known = digests.get(data);
  if (known !== undefined) return known;
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  const digest = createHash('sha256').update(bytes).digest('base64');
  digests.set(data, digest);
  return digest;
}

export function constantKey(constant: Constant): string {
  return `${constant.shape.join('x')}:${digestOf(constant.data)}`;
}

/** One value per feature if all rows are equal. */
function uniformRow(values: Float64Array, columns: number): Float64Array | undefined {
  for (let i = columns; i < values.length; i++) if (values[i] !== values[i - columns]) return undefined;
  return values.slice(0, columns);
}

const at = (values: Float64Array, i: number): number => defined(values[i], 'value');

/** Sums of mixes of linear layers: features are chosen in the weights. */
function isMixOfLinear(x: Draft): boolean {
  if (x.kind === 'tensor.add') return x.operands.every(isMixOfLinear);
  return x.kind === 'tensor.mix_tokens' && x.operands[0]?.kind === 'tensor.linear';
}

function isZero(x: Draft): boolean {
  if (x.kind === 'tensor.mix_tokens') return x.operands.every(isZero);
  const { weight, bias } = x.constants;
  return x.kind === 'tensor.linear' && bias === undefined && weight?.data.every((w) => w === 0) === true;
}

export class Drafts {
  private readonly known = new Map<string, Draft>();
  private next = 0;

  make(kind: DraftKind, operands: readonly Draft[], parts: DraftParts): Draft {
    const { attrs = {}, constants = {}, indices } = parts;
    const key = [
      kind,
      operands.map((operand) => operand.id).join(),
      JSON.stringify(attrs),
      `${parts.rows}x${parts.columns}`,
      ...Object.entries(constants).map(([role, constant]) => `${role}=${constantKey(constant)}`),
      indices === undefined ? '' : digestOf(indices),
    ].join('|');
    const same = this.known.get(key);
    if (same !== undefined && kind !== 'unsupported') return same;
    const draft = { ...parts, id: this.next++, kind, operands, attrs, constants, indices };
    this.known.set(key, draft);
    return draft;
  }

  input(name: string, count: number): Draft {
    return this.make('input', [], { attrs: { name }, rows: 1, columns: count, loc: name });
  }

  /** x weight^T + bias; an all-zero bias is none. */
  linear(x: Draft, weight: Constant, bias: Float64Array | undefined, loc: string): Draft {
    const columns = defined(weight.shape[0], 'output features');
    const zero = bias === undefined || bias.every((value) => value === 0);
    const constants = zero ? { weight } : { weight, bias: { shape: [columns], data: bias } };
    return this.make('tensor.linear', [x], {
      attrs: { outFeatures: columns },
      constants,
      rows: x.rows,
      columns,
      loc,
    });
  }

  /** Elementwise op on operands of one shape. */
  pointwise(kind: DraftKind, operands: readonly Draft[], loc: string, attrs: Draft['attrs'] = {}): Draft {
    const { rows, columns } = defined(operands[0], 'operand');
    return this.make(kind, operands, { attrs, rows, columns, loc });
  }

  /** `fold`: x has no other use, so the constant may be taken into it. */
  addConstant(x: Draft, values: Float64Array, fold: boolean, loc: string): Draft {
    if (values.every((value) => value === 0)) return x;
    const row = uniformRow(values, x.columns);
    const [source] = x.operands;
    if (fold && row !== undefined && source !== undefined) {
      const plus = (old: Constant | undefined) =>
        row.map((value, i) => value + (old === undefined ? 0 : at(old.data, i)));
      if (x.kind === 'tensor.linear') {
        return this.linear(source, defined(x.constants.weight, 'weight'), plus(x.constants.bias), loc);
      }
      if (x.kind === 'tensor.layer_norm') {
        const beta = { shape: [x.columns], data: plus(x.constants.beta) };
        return this.make(x.kind, x.operands, { ...x, constants: { ...x.constants, beta }, loc });
      }
    }
    return this.withConstant('tensor.add_constant', x, values, row, loc);
  }

  mulConstant(x: Draft, values: Float64Array, fold: boolean, loc: string): Draft {
    if (values.every((value) => value === 1)) return x;
    const row = uniformRow(values, x.columns);
    const [source] = x.operands;
    if (fold && row !== undefined && source !== undefined) {
      const times = (old: Constant | undefined) =>
        row.map((value, i) => value * (old === undefined ? 1 : at(old.data, i)));
      if (x.kind === 'tensor.linear') {
        const weight = defined(x.constants.weight, 'weight');
        const bias = x.constants.bias === undefined ? undefined : times(x.constants.bias);
        const data = weight.data.map((value, i) => value * at(row, Math.floor(i / source.columns)));
        return this.linear(source, { shape: weight.shape, data }, bias, loc);
      }
      if (x.kind === 'tensor.rms_norm') {
        const gamma = { shape: [x.columns], data: times(x.constants.gamma) };
        return this.make(x.kind, x.operands, { ...x, constants: { gamma }, loc });
      }
      if (x.kind === 'tensor.layer_norm') {
        const gamma = { shape: [x.columns], data: times(x.constants.gamma) };
        const beta =
          x.constants.beta === undefined
            ? {}
            : { beta: { shape: [x.columns], data: times(x.constants.beta) } };
        return this.make(x.kind, x.operands, { ...x, constants: { gamma, ...beta }, loc });
      }
    }
    return this.withConstant('tensor.mul_constant', x, values, row, loc);
  }

  private withConstant(
    kind: DraftKind,
    x: Draft,
    values: Float64Array,
    row: Float64Array | undefined,
    loc: string,
  ): Draft {
    const constant =
      row === undefined ? { shape: [x.rows, x.columns], data: values } : { shape: [1, x.columns], data: row };
    return this.make(kind, [x], { constants: { constant }, rows: x.rows, columns: x.columns, loc });
  }

  /** Features of x in another order or number; into the weights where x comes from a linear layer. */
  selectFeatures(x: Draft, features: Int32Array, loc: string): Draft {
    if (features.length === x.columns && features.every((feature, i) => feature === i)) return x;
    const [source] = x.operands;
    if (x.kind === 'tensor.linear' && source !== undefined) {
      const pick = (values: Float64Array, width: number) => {
        const out = new Float64Array(features.length * width);
        features.forEach((f, i) => out.set(values.subarray(f * width, (f + 1) * width), i * width));
        return out;
      };
      const weight = pick(defined(x.constants.weight, 'weight').data, source.columns);
      const bias = x.constants.bias === undefined ? undefined : pick(x.constants.bias.data, 1);
      return this.linear(source, { shape: [features.length, source.columns], data: weight }, bias, x.loc);
    }
    if ((x.kind === 'tensor.add_constant' || x.kind === 'tensor.mul_constant') && source !== undefined) {
      const { shape, data } = defined(x.constants.constant, 'constant');
      const rows = defined(shape[0], 'rows');
      const picked = Float64Array.from({ length: x.rows * features.length }, (_, i) => {
        const row = rows === 1 ? 0 : Math.floor(i / features.length);
        return at(data, row * x.columns + defined(features[i % features.length], 'feature'));
      });
      const inner = this.selectFeatures(source, features, loc);
      return x.kind === 'tensor.add_constant'
        ? this.addConstant(inner, picked, false, x.loc)
        : this.mulConstant(inner, picked, false, x.loc);
    }
    if (isMixOfLinear(x)) {
      const own = x.operands.map((operand) => this.selectFeatures(operand, features, loc));
      const [first, second] = own;
      if (x.kind === 'tensor.mix_tokens' || first === undefined || second === undefined) {
        return this.mixTokens(
          defined(first, 'operand'),
          defined(x.constants.weight, 'weight').data,
          x.rows,
          x.loc,
        );
      }
      // Terms without any of these features.
      if (isZero(first)) return second;
      return isZero(second) ? first : this.pointwise(x.kind, own, x.loc);
    }
    const data = new Float64Array(features.length * x.columns);
    features.forEach((feature, i) => (data[i * x.columns + feature] = 1));
    return this.linear(x, { shape: [features.length, x.columns], data }, undefined, loc);
  }

  /** Token r of the result is token tokens[r] of x, zero where that is -1. */
  gatherTokens(x: Draft, tokens: Int32Array, loc: string): Draft {
    const data = new Float64Array(tokens.length * x.rows);
    tokens.forEach((token, r) => {
      if (token >= 0) data[r * x.rows + token] = 1;
    });
    return this.mixTokens(x, data, tokens.length, loc);
  }

  /** weight x, with weight [count, tokens]. */
  mixTokens(x: Draft, weight: Float64Array, count: number, loc: string): Draft {
    return this.make('tensor.mix_tokens', [x], {
      attrs: { count },
      constants: { weight: { shape: [count, x.rows], data: weight } },
      rows: count,
      columns: x.columns,
      loc,
    });
  }

  /** The features of x at the given columns of a wider matrix, zero elsewhere. */
  spreadFeatures(x: Draft, columns: readonly number[], width: number, loc: string): Draft {
    if (columns.length === width && columns.every((column, i) => column === i)) return x;
    const data = new Float64Array(width * x.columns);
    columns.forEach((column, i) => (data[column * x.columns + i] = 1));
    const [source] = x.operands;
    if (x.kind !== 'tensor.linear' || source === undefined) {
      return this.linear(x, { shape: [width, x.columns], data }, undefined, loc);
    }
    const weight = new Float64Array(width * source.columns);
    const own = defined(x.constants.weight, 'weight').data;
    const bias = new Float64Array(width);
    columns.forEach((column, i) => {
      weight.set(own.subarray(i * source.columns, (i + 1) * source.columns), column * source.columns);
      bias[column] = x.constants.bias?.data[i] ?? 0;
    });
    return this.linear(source, { shape: [width, source.columns], data: weight }, bias, x.loc);
  }

  selectTokens(x: Draft, first: number, count: number, loc: string): Draft {
    if (first === 0 && count === x.rows) return x;
    return this.make('tensor.select_tokens', [x], {
      attrs: { first, count },
      rows: count,
      columns: x.columns,
      loc,
    });
  }
}
