/** The plan's encoded plaintexts, index tables and weights: each distinct one once, in order of first use. */
import { defined, invariant } from '../support/invariant.js';
import type { Constant, Module, Op, Value } from '../ir/module.js';
import { axesCount } from '../ir/types.js';
import { rowWords } from '../target/plain-rows.js';
import { Magnitudes, PlainForms, type Encoding } from './plain-form.js';
import type { IntTable, Plaintext, Recipe } from './plan-view.js';

/** Index tables with equal content are stored once, under the first name. */
export class TablePool {
  readonly tables: IntTable[] = [];
  private readonly indices = new Map<string, number>();
  /** Most uses bring the same array again; its content need not be looked at twice. */
  private readonly seen = new Map<Int32Array, number>();

  add(name: string, values: Int32Array): number {
    const index = this.seen.get(values) ?? this.find(name, values);
    this.seen.set(values, index);
    return index;
  }

  private find(name: string, values: Int32Array): number {
    const content = values.join();
    const known = this.indices.get(content);
    if (known !== undefined) return known;
    this.indices.set(content, this.tables.length);
    this.tables.push({ name, values });
    return this.tables.length - 1;
  }
}

export class PlaintextPool {
  readonly plaintexts: Plaintext[] = [];
  /** Constants that recipes read. */
  readonly weights = new Map<string, Constant>();
  private readonly indices = new Map<string, number>();
  private readonly magnitudes = new Magnitudes();

  constructor(private readonly tables: TablePool) {}

  /** The pool as one module's functions use it. */
  of(module: Module): PlaintextUser {
    const forms = new PlainForms(module, this.magnitudes);
    return {
      encoding: (func, value, limbs, scale) => forms.encoding(func, value, limbs, scale),
      add: (op, encoding) => this.add(new RecipeReader(module, this.tables, this.weights), op, encoding),
    };
  }

  /** Index of the plaintext array that the recipe op gives under the encoding. */
  private add(reader: RecipeReader, op: Op, encoding: Encoding): number {
    const { type } = defined(op.results[0], 'recipe');
    invariant(type.kind === 'pt', `${op.kind} gives plaintexts`);
    const recipe = reader.recipe(op);
    const exact = recipe.kind === 'residue' || recipe.kind === 'monomial';
    const vector = recipe.kind === 'vector' || recipe.kind === 'diagonals';
    invariant(vector || !encoding.coefficients, `${op.kind} is not held as coefficients`);
    if (op.kind === 'poly.residues') {
      const limbs = op.attrs.limbs as readonly number[];
      invariant(limbs.join() === encoding.limbs.join(), 'residues are used on the limbs they are given for');
    }
    const plaintext: Plaintext = {
      recipe,
      elements: axesCount(type.axes) * ((op.attrs.iterations as number | undefined) ?? 1),
      period: type.period,
      rowWords: rowWords(type, reader.degree),
      limbs: encoding.limbs,
      scale: exact ? 1 : encoding.scale,
      coefficients: encoding.coefficients,
    };
    const key = JSON.stringify(plaintext);
    const known = this.indices.get(key);
    if (known !== undefined) return known;
    this.indices.set(key, this.plaintexts.length);
    this.plaintexts.push(plaintext);
    return this.plaintexts.length - 1;
  }
}

/** Gives plaintexts of recipe ops their index in the plan. */
export interface PlaintextUser {
  /** How a function's use of a plaintext on `limbs` encodes it. */
  readonly encoding: (func: string, value: Value, limbs: readonly number[], scale: number) => Encoding;
  readonly add: (op: Op, encoding: Encoding) => number;
}

/** Recipe ops of a module as recipes of the plan. */
class RecipeReader {
  constructor(
    private readonly module: Module,
    private readonly tables: TablePool,
    private readonly weights: Map<string, Constant>,
  ) {}

  get degree(): number {
    return defined(this.module.parameters, 'parameters').slots * 2;
  }

  recipe(op: Op): Recipe {
    const { attrs } = op;
    const ints = (name: string): readonly number[] => attrs[name] as readonly number[];
    switch (op.kind) {
      case 'pt.constant':
        return { kind: 'constant', values: attrs.values as readonly number[] };
      case 'pt.vector':
        return {
          kind: 'vector',
          weight: this.weight(attrs.constant as string),
          features: this.table(attrs.features as string),
          tokens: attrs.tokens === undefined ? -1 : this.table(attrs.tokens as string),
          factor: attrs.factor as number,
        };
      case 'pt.diagonals':
        return {
          kind: 'diagonals',
          weight: this.weight(attrs.weight as string),
          rows: this.table(attrs.rows as string),
          columns: this.table(attrs.columns as string),
          baby: ints('baby'),
          giant: ints('giant'),
          factor: attrs.factor as number,
        };
      case 'pt.dft':
        return {
          kind: 'dft',
          inverse: attrs.inverse as boolean,
          first: attrs.first as number,
          count: attrs.count as number,
          baby: ints('baby'),
          giant: ints('giant'),
          factor: attrs.factor as number,
        };
      case 'poly.residues':
        return { kind: 'residue', residues: ints('residues') };
      case 'poly.monomial':
        return { kind: 'monomial', power: attrs.power as number };
      default:
        invariant(false, `${op.kind} is not a plaintext recipe`);
    }
  }

  private weight(name: string): string {
    this.weights.set(name, defined(this.module.constants.get(name), `constant ${name}`));
    return name;
  }

  private table(name: string): number {
    return this.tables.add(name, defined(this.module.tables.get(name), `table ${name}`));
  }
}
