/** One ONNX node under canonicalisation: its operands as symbols and the means to make canonical ops. */
import type { FrontendCode } from '../codes.js';
import { asNumbers, broadcastIndex, type Call } from '../kernels/call.js';
import { elementCount, type Node } from '../model.js';
import type { ClientGraph } from './client-graph.js';
import type { Masks } from './masks.js';
import type { Draft, Drafts } from './drafts.js';
import { arrangements, firstOfRange, isSeparable, readIndex } from './reading.js';
import { indexOf, isBijective, matrixShape, type Client, type Symbol, type View } from './symbols.js';

/** Views of more elements would need gigabytes for their indices; real ones stay far below. */
export const maxViewElements = 2 ** 27;

/** What a node may ask of the walk around it. */
export interface Surroundings {
  readonly drafts: Drafts;
  symbol(value: string): Symbol | undefined;
  /** Readers of a value, outputs of the model included. */
  uses(value: string): number;
  /** Reports without ending the node. */
  report(node: Node, code: FrontendCode, message: string, help?: string): void;
  readonly client: ClientGraph;
  readonly masks: Masks;
  /** A client value as an encrypted input. */
  encrypted(client: Client): View;
}

export class Site {
  readonly node: Node;
  readonly loc: string;
  readonly drafts: Drafts;

  constructor(
    readonly call: Call,
    private readonly around: Surroundings,
  ) {
    this.node = call.node;
    this.loc = call.node.name;
    this.drafts = around.drafts;
  }

  get client(): ClientGraph {
    return this.around.client;
  }

  get masks(): Masks {
    return this.around.masks;
  }

  /** A client value with one element for each token, as an encrypted matrix [tokens, 1]. */
  column(name: string, tokens: number): Draft {
    return this.matrix(this.around.encrypted({ kind: 'client', name, shape: [tokens, 1] }), tokens, 1);
  }

  fail(message: string, code: FrontendCode = 'F202', help?: string): never {
    return this.call.fail(message, code, help);
  }

  report(code: FrontendCode, message: string, help?: string): void {
    this.around.report(this.node, code, `${this.node.opType}: ${message}`, help);
  }

  nameOf(index: number): string {
    return this.node.inputs[index] ?? '';
  }

  /** The symbol of a private operand; undefined for constants and absent inputs. */
  symbol(index: number): Symbol | undefined {
    return this.nameOf(index) === '' ? undefined : this.around.symbol(this.nameOf(index));
  }

  isConstant(index: number): boolean {
    return this.call.inputs[index]?.data != null;
  }

  /** A constant operand in double precision. */
  constant(index: number): Float64Array {
    return Float64Array.from(asNumbers(this.call.tensor(index)));
  }

  /** Only this node reads operand `index`. */
  isOnlyUse(index: number): boolean {
    return this.around.uses(this.nameOf(index)) === 1;
  }

  /** The same value in all elements of a constant operand, if so. */
  uniform(index: number): number | undefined {
    if (!this.isConstant(index)) return undefined;
    const values = asNumbers(this.call.tensor(index));
    const [first] = values;
    return first !== undefined && values.every((value: number) => value === first) ? first : undefined;
  }

  view(index: number): View {
    const symbol = this.symbol(index);
    if (symbol === undefined) return this.fail(`input ${index} must be encrypted`);
    return this.asView(symbol);
  }

  asView(symbol: Symbol): View {
    switch (symbol.kind) {
      case 'view':
        return symbol;
      case 'scores':
        return this.fail(
          'attention scores are supported only from q k^T through scale and softmax to the product with v',
        );
      case 'never':
        return this.fail('a boolean of encrypted values');
      case 'client':
        return this.around.encrypted(symbol);
      case 'deferred':
      case 'opaque':
        return this.placeholder(symbol.shape);
      default:
        return symbol satisfies never;
    }
  }

  placeholder(shape: readonly number[]): View {
    return this.whole(this.drafts.make('unsupported', [], { ...matrixShape(shape), loc: this.loc }), shape);
  }

  /** A fresh matrix seen in an ONNX shape. */
  whole(draft: Draft, shape: readonly number[]): View {
    return { kind: 'view', draft, index: null, scale: 1, shape };
  }

  /** The view's elements, in row-major order, as a canonical matrix. */
  matrix(view: View, rows: number, columns: number): Draft {
    const { draft, index } = view;
    const count = elementCount(view.shape);
    if (rows * columns !== count) {
      return this.fail(`[${view.shape.join(', ')}] is not ${rows} tokens of ${columns} features`);
    }
    if (count === 0) return this.fail('an encrypted value without elements');
    if (count > maxViewElements) return this.fail(`${count} elements, more than ${maxViewElements}`, 'F102');
    if (draft.kind === 'input') return this.scaled(this.inputMatrix(view, rows, columns), view.scale);
    if (index === null && draft.rows === rows && draft.columns === columns) {
      return this.scaled(draft, view.scale);
    }
    const parts = this.parts(view, rows, columns);
    const spread = parts.map((part) =>
      this.drafts.spreadFeatures(part.draft, part.columns, columns, this.loc),
    );
    return this.scaled(this.total(spread), view.scale);
  }

  /**
   * The client packs an input in one arrangement: tokens times features. Others are made from it, and so is
   * what reads tokens beside each other, or beyond the ends.
   */
  private inputMatrix(view: View, rows: number, columns: number): Draft {
    const indices = indexOf(view);
    const { draft } = view;
    const make = (own: Int32Array, height: number, width: number): Draft =>
      this.drafts.make('tensor.rearrange', [draft], {
        indices: own,
        rows: height,
        columns: width,
        loc: this.loc,
      });
    if (isSeparable(indices, rows, columns)) return make(indices, rows, columns);
    const shape = this.client.known(String(draft.attrs.name)).shape;
    const readable = arrangements(shape).flatMap((base) => {
      const place = new Int32Array(draft.columns);
      base.index.forEach((from, to) => (place[from] = to));
      const index = indices.map((i) => (i < 0 ? -1 : (place[i] as number)));
      const reading = readIndex(index, rows, columns, base.columns);
      return reading.kind === 'other' ? [] : [{ base, index, mixed: reading.mixed }];
    });
    const best = readable.find(({ mixed }) => !mixed) ?? readable[0];
    if (best === undefined) return make(indices, rows, columns);
    const whole = make(best.base.index, best.base.rows, best.base.columns);
    return this.matrix({ ...view, draft: whole, index: best.index, scale: 1 }, rows, columns);
  }

  total(terms: readonly Draft[]): Draft {
    if (terms.length === 0) return this.fail('an encrypted value that is zero everywhere');
    return terms.reduce((sum, term) => this.drafts.pointwise('tensor.add', [sum, term], this.loc));
  }

  /** The columns of a [rows, columns] matrix by the tokens that they read; the factor of the view waits. */
  parts(
    view: View,
    rows: number,
    columns: number,
  ): { readonly draft: Draft; readonly columns: readonly number[] }[] {
    const { draft } = view;
    const reading = readIndex(indexOf(view), rows, columns, draft.columns);
    if (reading.kind === 'other') {
      return this.fail(
        reading.reason,
        'F202',
        'keep [batch, tokens, features]; split features only into heads',
      );
    }
    return reading.parts.map((part) => {
      const features = this.drafts.selectFeatures(draft, Int32Array.from(part.features), this.loc);
      const first = firstOfRange(part);
      const moved =
        first === undefined
          ? this.drafts.gatherTokens(features, part.tokens, this.loc)
          : this.drafts.selectTokens(features, first, rows, this.loc);
      return { draft: moved, columns: part.columns };
    });
  }

  /** Reads every row from one token: no sums of parts. */
  isSimple(view: View, rows: number, columns: number): boolean {
    if (view.draft.kind === 'input') return true;
    const reading = readIndex(indexOf(view), rows, columns, view.draft.columns);
    return reading.kind === 'parts' && reading.parts.length === 1;
  }

  /** Token movements that the view takes as a [rows, columns] matrix; infinite if features become tokens. */
  movesOf(view: View, rows: number, columns: number): number {
    if (view.draft.kind === 'input') return 0;
    const reading = readIndex(indexOf(view), rows, columns, view.draft.columns);
    return reading.kind === 'other' || reading.mixed ? Infinity : reading.parts.length;
  }

  /** Every column of the [rows, columns] matrix reads one feature. */
  isMatrix(view: View, rows: number, columns: number): boolean {
    return Number.isFinite(this.movesOf(view, rows, columns));
  }

  /** A part of a matrix, some tokens and some features, as a matrix of its own; undefined if it is none. */
  arranged(view: View): View | undefined {
    const { draft } = view;
    const index = indexOf(view);
    if (draft.kind === 'input' || index.some((i) => i < 0)) return undefined;
    const sorted = (values: Int32Array) => [...new Set(values)].sort((a, b) => a - b);
    const tokens = sorted(index.map((i) => Math.floor(i / draft.columns)));
    const features = sorted(index.map((i) => i % draft.columns));
    if (tokens.length * features.length !== index.length) return undefined;
    const places = (list: readonly number[]) => new Map(list.map((one, i) => [one, i]));
    const [rowOf, columnOf] = [places(tokens), places(features)];
    const own = index.map((i) => {
      const row = rowOf.get(Math.floor(i / draft.columns)) ?? 0;
      return row * features.length + (columnOf.get(i % draft.columns) ?? 0);
    });
    const narrow = this.drafts.selectFeatures(draft, Int32Array.from(features), this.loc);
    const first = tokens[0] ?? 0;
    const part =
      tokens.at(-1) === first + tokens.length - 1
        ? this.drafts.selectTokens(narrow, first, tokens.length, this.loc)
        : this.drafts.gatherTokens(narrow, Int32Array.from(tokens), this.loc);
    const result: View = { ...view, draft: part, index: own };
    return isBijective(result) ? result : undefined;
  }

  /** The matrix of a view whose last dimension is the features. */
  natural(view: View): Draft {
    const { rows, columns } = matrixShape(view.shape);
    return this.matrix(view, rows, columns);
  }

  /**
   * The same value with no pending factor, every element of its draft once: elementwise ops then work on the
   * draft.
   */
  settle(view: View): View {
    const factor = view.scale;
    if (view.draft.kind !== 'input' && !isBijective(view)) {
      const part = this.arranged(view);
      if (part !== undefined) return this.settle(part);
    }
    if (view.draft.kind === 'input' || !isBijective(view)) return this.whole(this.natural(view), view.shape);
    return factor === 1 ? view : { ...view, draft: this.scaled(view.draft, factor), scale: 1 };
  }

  scaled(draft: Draft, factor: number): Draft {
    if (factor === 1) return draft;
    const values = new Float64Array(draft.columns * draft.rows).fill(factor);
    return this.drafts.mulConstant(draft, values, true, this.loc);
  }

  /**
   * A constant operand spread over the ONNX shape of a settled view and carried to its draft's coordinates.
   */
  constantFor(values: Float64Array, shape: readonly number[], view: View): Float64Array {
    const out = new Float64Array(elementCount(view.shape));
    const width = view.shape.at(-1) ?? 1;
    if (view.index === null && shape.at(-1) === width && values.length === width) {
      // One value per feature, as in every bias.
      for (let at = 0; at < out.length; at += width) out.set(values, at);
      return out;
    }
    const spread = broadcastIndex(shape, view.shape);
    for (let i = 0; i < out.length; i++) {
      const to = view.index === null ? i : (view.index[i] as number);
      out[to] = values[spread === null ? i : (spread[i] as number)] as number;
    }
    return out;
  }
}
