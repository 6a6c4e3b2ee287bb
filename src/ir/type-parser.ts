/** The part of the parser that reads types, with the small words all of it is made of. */
import { everyRank } from './sharding.js';
import type { Lexer } from './lexer.js';
import { parseScale, type Scale } from './scale.js';
import { qBasis, type Axis, type Sharding, type Type } from './types.js';

/** Ranges of limbs are the one place where text is shorter than what it stands for. */
const maxLimbs = 4096;
const maxScaleIndex = 2 ** 16;

export class TypeParser {
  constructor(protected readonly lexer: Lexer) {}

  type(): Type {
    const kind = this.oneOf(['tensor', 'ct', 'pt', 'poly'] as const);
    this.expect('<');
    const type = this.typeOf(kind);
    this.expect('>');
    return type;
  }

  private typeOf(kind: Type['kind']): Type {
    switch (kind) {
      case 'tensor':
        return this.tensor();
      case 'ct':
        return this.ct();
      case 'pt':
        return this.pt();
      case 'poly':
        return this.poly();
      default:
        return kind satisfies never;
    }
  }

  end(): void {
    if (this.lexer.token.kind !== 'end') this.lexer.fail('I102', 'expected the end of the text');
  }

  private tensor(): Type {
    const { kind } = this.lexer.token;
    const shape = kind === 'shape' || kind === 'number' ? this.shape() : [];
    return { kind: 'tensor', shape, dtype: this.oneOf(['f32', 'i64', 'bool'] as const) };
  }

  private ct(): Type {
    const axes = this.axes();
    this.expectWord('level');
    const level = this.take('?') ? null : this.integer();
    this.expect(',');
    const scale = this.scale();
    let degree: 1 | 2 = 1;
    let basis: { kind: 'q' } | { kind: 'qp'; specials: number } = { ...qBasis } as { kind: 'q' };
    while (this.take(',')) {
      const part = this.oneOf(['degree', 'specials'] as const);
      const value = this.integer();
      if (part === 'specials') basis = { kind: 'qp', specials: value };
      else if (value === 1 || value === 2) degree = value;
      else this.lexer.fail('I102', 'degree is 1 or 2');
    }
    return { kind: 'ct', axes, degree, basis, level, scale };
  }

  private scale(): Scale | null {
    const { token } = this.lexer;
    if (token.kind !== 'word' || token.text !== 'scale') return this.lexer.fail('I102', 'expected scale');
    const text = this.lexer.nextScale();
    if (text === '?') return null;
    const scale = parseScale(text) ?? this.lexer.fail('I102', `${text.slice(0, 40)} is not a scale`);
    const bounded = [...scale.canonical, ...scale.primes, [0, scale.two] as const].every(
      ([index, exponent]) => index <= maxScaleIndex && Math.abs(exponent) <= maxScaleIndex,
    );
    return bounded ? scale : this.lexer.fail('I103', 'scale out of range');
  }

  private pt(): Type {
    const axes = this.axes();
    this.expectWord('period');
    const period = this.integer();
    let complex = false;
    if (this.take(',')) {
      this.expectWord('complex');
      complex = true;
    }
    return { kind: 'pt', axes, period, complex };
  }

  private poly(): Type {
    const axes = this.axes();
    this.expectWord('limbs');
    const limbs: number[] = [];
    this.list('[', ']', () => this.limbRange(limbs));
    this.expect(',');
    const form = this.oneOf(['ntt', 'coeff'] as const);
    let sharding: Sharding[] = [];
    if (this.take(',')) {
      this.expectWord('mesh');
      sharding = this.list('[', ']', () => this.sharding());
    }
    return { kind: 'poly', axes, limbs, form, sharding };
  }

  private limbRange(limbs: number[]): void {
    const first = this.integer();
    const last = this.take('..') ? this.integer() : first;
    if (last < first || last - first + limbs.length >= maxLimbs) {
      this.lexer.fail('I103', `limbs ${first}..${last} out of range`);
    }
    for (let limb = first; limb <= last; limb++) limbs.push(limb);
  }

  private sharding(): Sharding {
    const kind = this.oneOf(['replicated', 'partial', 'at', 'split', 'limbs'] as const);
    switch (kind) {
      case 'replicated':
      case 'partial':
        return { kind };
      case 'at': {
        this.expect('(');
        const rank = this.integer();
        this.expect(')');
        return { kind, rank };
      }
      case 'split': {
        this.expect('(');
        const axis = this.name();
        this.expect(':');
        return { kind, axis, owners: this.owners() };
      }
      case 'limbs': {
        this.expect('(');
        return { kind, owners: this.owners() };
      }
      default:
        return kind satisfies never;
    }
  }

  private owners(): number[] {
    const owners = this.at(')') ? [] : [this.owner()];
    while (this.take(',')) owners.push(this.owner());
    this.expect(')');
    return owners;
  }

  /** A rank, or -1. */
  private owner(): number {
    if (this.lexer.token.kind === 'number' && this.lexer.token.value < 0) {
      const owner = this.signedInteger();
      return owner === everyRank ? owner : this.lexer.fail('I102', 'expected a rank or -1');
    }
    return this.integer();
  }

  /** `j=8, b=2;` or nothing. */
  private axes(): Axis[] {
    const axes: Axis[] = [];
    if (!this.lexer.followedBy('=')) return axes;
    do axes.push(this.axis());
    while (this.take(','));
    this.expect(';');
    return axes;
  }

  protected axis(): Axis {
    const name = this.name();
    this.expect('=');
    return { name, size: this.integer() };
  }

  protected shape(): readonly number[] {
    const { token } = this.lexer;
    if (token.kind === 'shape') {
      this.lexer.next();
      const sound = token.dims.every(Number.isSafeInteger);
      return sound ? token.dims : this.lexer.fail('I103', 'dimension out of range');
    }
    return this.takeWord('scalar') ? [] : [this.integer()];
  }

  /** Items between two marks, separated by commas. */
  protected list<T>(open: string, close: string, item: () => T): T[] {
    this.expect(open);
    const items: T[] = [];
    if (this.take(close)) return items;
    do items.push(item());
    while (this.take(','));
    this.expect(close);
    return items;
  }

  protected at(mark: string): boolean {
    const { token } = this.lexer;
    return token.kind === 'mark' && token.text === mark;
  }

  protected take(mark: string): boolean {
    const found = this.at(mark);
    if (found) this.lexer.next();
    return found;
  }

  protected expect(mark: string): void {
    if (!this.take(mark)) this.lexer.fail('I102', `expected ${mark}`);
  }

  protected takeWord(text: string): boolean {
    const { token } = this.lexer;
    const found = token.kind === 'word' && token.text === text;
    if (found) this.lexer.next();
    return found;
  }

  protected expectWord(text: string): void {
    if (!this.takeWord(text)) this.lexer.fail('I102', `expected ${text}`);
  }

  protected word(what: string): string {
    const { token } = this.lexer;
    if (token.kind !== 'word') return this.lexer.fail('I102', `expected ${what}`);
    this.lexer.next();
    return token.text;
  }

  protected string(what: string): string {
    const { token } = this.lexer;
    if (token.kind !== 'string') return this.lexer.fail('I102', `expected ${what} in quotes`);
    this.lexer.next();
    return token.text;
  }

  /** A word or a quoted string. */
  protected name(): string {
    const { token } = this.lexer;
    if (token.kind !== 'word' && token.kind !== 'string') return this.lexer.fail('I102', 'expected a name');
    this.lexer.next();
    return token.text;
  }

  protected oneOf<T extends string>(words: readonly T[]): T {
    const { token } = this.lexer;
    const found = token.kind === 'word' ? words.find((text) => text === token.text) : undefined;
    if (found === undefined) return this.lexer.fail('I102', `expected ${words.join(' or ')}`);
    this.lexer.next();
    return found;
  }

  /** A count or index: not negative. */
  protected integer(): number {
    const { token } = this.lexer;
    const sound = token.kind === 'number' && token.value >= 0 && !Object.is(token.value, -0);
    return sound ? this.signedInteger() : this.lexer.fail('I102', 'expected an integer, not negative');
  }

  protected signedInteger(): number {
    const { token } = this.lexer;
    if (token.kind !== 'number' || !Number.isSafeInteger(token.value)) {
      return this.lexer.fail('I102', 'expected an integer');
    }
    this.lexer.next();
    return token.value;
  }
}
