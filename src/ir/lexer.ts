/**
 * Tokens of text IR. The text is untrusted: every token is bounded by the text and nothing is looked at
 * twice.
 */
import { AegisError } from '../support/diagnostics.js';

export type Token =
  | { readonly kind: 'word'; readonly text: string }
  | { readonly kind: 'string'; readonly text: string }
  | { readonly kind: 'number'; readonly value: number }
  /** Two and more dimensions: 16x32. */
  | { readonly kind: 'shape'; readonly dims: readonly number[] }
  /** %12 */
  | { readonly kind: 'value'; readonly number: number }
  | { readonly kind: 'mark'; readonly text: string }
  | { readonly kind: 'end' };

/** Sticky patterns without nested repetition: linear time on any input. */
const blank = /[ \t\r\n]*/y;
const word = /[A-Za-z_][A-Za-z0-9_.]*/y;
const shape = /\d+(?:x\d+)+/y;
const number = /-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const value = /%\d+/y;
const mark = /->|\.\.|-inf|[{}[\]()<>,;:=@?]/y;
const scaleText = /[Dq0-9^*?-]+/y;

/** Characters of the faulty line that a message shows. */
const excerptChars = 120;

export class Lexer {
  /** The token to be read next. */
  token: Token;
  private start = 0;
  private end = 0;

  constructor(private readonly text: string) {
    this.token = this.scan();
  }

  /** Takes the current token. */
  next(): Token {
    const { token } = this;
    this.token = this.scan();
    return token;
  }

  /** True if the character after the current token is `char`. */
  followedBy(char: string): boolean {
    return this.text[this.skipBlank(this.end)] === char;
  }

  /** Takes the current token and the scale that follows it: D12^2*q3^-1 or ?. */
  nextScale(): string {
    this.start = this.skipBlank(this.end);
    const text = this.match(scaleText) ?? this.fail('I102', 'expected a scale');
    this.token = this.scan();
    return text;
  }

  fail(code: string, message: string): never {
    const lineStart = this.text.lastIndexOf('\n', this.start - 1) + 1;
    const column = this.start - lineStart + 1;
    let line = 1;
    const lineEndAfter = (from: number): number => this.text.indexOf('\n', from);
    for (let at = lineEndAfter(0); at >= 0 && at < this.start; at = lineEndAfter(at + 1)) line++;
    const shown = Math.max(lineStart, this.start - excerptChars / 2);
    const lineEnd = this.text.indexOf('\n', this.start);
    const excerpt = this.text.slice(shown, Math.min(lineEnd < 0 ? Infinity : lineEnd, shown + excerptChars));
    throw new AegisError({ code, message: `line ${line}, column ${column}: ${message}`, excerpt });
  }

  private scan(): Token {
    this.start = this.skipBlank(this.end);
    this.end = this.start;
    if (this.start >= this.text.length) return { kind: 'end' };
    if (this.text[this.start] === '"') return { kind: 'string', text: this.string() };
    let found = this.match(word);
    if (found !== undefined) return { kind: 'word', text: found };
    found = this.match(shape);
    if (found !== undefined) {
      return { kind: 'shape', dims: found.split('x').map((part) => this.finite(part)) };
    }
    found = this.match(number);
    if (found !== undefined) return { kind: 'number', value: this.finite(found) };
    found = this.match(value);
    if (found !== undefined) return { kind: 'value', number: this.finite(found.slice(1)) };
    found = this.match(mark);
    if (found !== undefined) return { kind: 'mark', text: found };
    return this.fail('I101', `unexpected character ${JSON.stringify(this.text[this.start])}`);
  }

  private finite(digits: string): number {
    const result = Number(digits);
    return Number.isFinite(result) ? result : this.fail('I101', 'number out of range');
  }

  private match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.start;
    const found = pattern.exec(this.text)?.[0];
    if (found !== undefined) this.end = this.start + found.length;
    return found;
  }

  /** Past white space and comments. */
  private skipBlank(from: number): number {
    let at = from;
    for (;;) {
      blank.lastIndex = at;
      at += blank.exec(this.text)?.[0].length ?? 0;
      if (!this.text.startsWith('//', at)) return at;
      const lineEnd = this.text.indexOf('\n', at);
      at = lineEnd < 0 ? this.text.length : lineEnd;
    }
  }

  /** A JSON string on one line. Not by a pattern: base64 data may have hundreds of megabytes. */
  private string(): string {
    let close = this.text.indexOf('"', this.start + 1);
    while (close > 0 && this.escapedAt(close)) close = this.text.indexOf('"', close + 1);
    if (close < 0) return this.fail('I101', 'string without end');
    this.end = close + 1;
    const raw = this.text.slice(this.start + 1, close);
    if (raw.includes('\n')) return this.fail('I101', 'string across a line end');
    if (!raw.includes('\\')) return raw;
    try {
      return JSON.parse(`"${raw}"`) as string;
    } catch {
      return this.fail('I101', 'string with a bad escape');
    }
  }

  /** A quote after an odd number of backslashes. */
  private escapedAt(quote: number): boolean {
    let at = quote;
    while (at - 1 > this.start && this.text[at - 1] === '\\') at--;
    return (quote - at) % 2 === 1;
  }
}
