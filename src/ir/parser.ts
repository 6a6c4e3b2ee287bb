/**
 * Reads text IR as printer.ts writes it. The text is untrusted: it gives a module, for the verifier to judge,
 * or an AegisError with line and column. I101 characters, I102 syntax, I103 limits, I104 names, I105 data,
 * I106 parameters, I107 result types of a function.
 */
import { AegisError } from '../support/diagnostics.js';
import {
  makeParameters,
  type Parameters,
  type ParametersLiteral,
  type RingName,
} from '../target/parameters.js';
import { Ids } from './builder.js';
import { Lexer } from './lexer.js';
import type {
  Approximation,
  AttrValue,
  Attrs,
  Block,
  ClientParts,
  Constant,
  Func,
  LayerBlock,
  Module,
  Op,
  Port,
  Value,
} from './module.js';
import { hostIsLittleEndian, typesEqual } from './printer.js';
import type { Phase, Type } from './types.js';
import { TypeParser } from './type-parser.js';

/** Regions within regions, lists within lists. */
const maxDepth = 32;
/** Elements of one constant or table: 2 GiB of f64. */
const maxElements = 2 ** 28;

export function parseModule(text: string): Module {
  return new ModuleParser(new Lexer(text)).module();
}

export function parseType(text: string): Type {
  const parser = new TypeParser(new Lexer(text));
  const type = parser.type();
  parser.end();
  return type;
}

const keywords = [
  'parameters',
  'input',
  'output',
  'const',
  'table',
  'client',
  'node',
  'approximation',
  'func',
] as const;
const phases: readonly Phase[] = ['tensor', 'cipher', 'poly'];

type NumericParameter = Exclude<keyof ParametersLiteral, 'ring' | 'insecure'>;

/** Bounds of what makeParameters is asked to derive, so that a hostile literal costs little time. */
const literalBounds: Readonly<Record<NumericParameter, readonly [least: number, most: number]>> = {
  logN: [4, 17],
  scaleBits: [30, 49],
  usableLevels: [1, 40],
  stcLevels: [1, 6],
  evalModLevels: [0, 16],
  ctsLevels: [0, 6],
  specials: [1, 40],
  security: [128, 256],
};
const rings: readonly RingName[] = ['tiny', 'small', 'secure'];

/** Values by their number in the text; a block sees those of the blocks around it. */
class Scope {
  private readonly own = new Map<number, Value>();
  constructor(private readonly outer: Scope | undefined) {}
  get(number: number): Value | undefined {
    return this.own.get(number) ?? this.outer?.get(number);
  }
  set(number: number, value: Value): void {
    this.own.set(number, value);
  }
}

class ModuleParser extends TypeParser {
  private readonly ids = new Ids();
  private parameters: Parameters | null = null;
  private readonly functions = new Map<string, Func>();
  private readonly constants = new Map<string, Constant>();
  private readonly tables = new Map<string, Int32Array>();
  private readonly inputs: Port[] = [];
  private readonly outputs: Port[] = [];
  private readonly blocks = new Map<string, LayerBlock>();
  private client: ClientParts | undefined;
  private readonly approximations: Approximation[] = [];

  module(): Module {
    this.expectWord('module');
    const name = this.string('a module name');
    this.expectWord('phase');
    const phase = this.oneOf(phases);
    this.expectWord('source');
    const sourceHash = this.string('a hash');
    while (this.lexer.token.kind !== 'end') this.item();
    const { parameters, constants, tables, inputs, outputs } = this;
    return {
      phase,
      name,
      sourceHash,
      parameters,
      constants,
      tables,
      inputs,
      outputs,
      functions: [...this.functions.values()],
      ...(this.client === undefined ? {} : { client: this.client }),
      ...(this.blocks.size === 0 ? {} : { blocks: this.blocks }),
      ...(this.approximations.length === 0 ? {} : { approximations: this.approximations }),
    };
  }

  private item(): void {
    const keyword = this.oneOf(keywords);
    switch (keyword) {
      case 'parameters':
        this.parameters = this.parseParameters();
        break;
      case 'input':
        this.inputs.push(this.port());
        break;
      case 'output':
        this.outputs.push(this.port());
        break;
      case 'const':
        this.declare(this.constants, this.symbol(), () => this.constant());
        break;
      case 'table':
        this.declare(this.tables, this.symbol(), () => this.table());
        break;
      case 'client': {
        const part = this.oneOf(['prologue', 'epilogue'] as const);
        if (this.client?.[part] != null) this.lexer.fail('I104', `client ${part} is declared twice`);
        this.client = { prologue: null, epilogue: null, ...this.client, [part]: this.bytes() };
        break;
      }
      case 'node':
        this.blocks.set(this.string('a node name'), this.oneOf(['attention', 'ffn', 'rest'] as const));
        break;
      case 'approximation':
        this.approximations.push(this.approximation());
        break;
      case 'func': {
        const name = this.symbol();
        this.declare(this.functions, name, () => this.func(name));
        break;
      }
      default:
        keyword satisfies never;
    }
  }

  private declare<T>(map: Map<string, T>, name: string, make: () => T): void {
    if (map.has(name)) this.lexer.fail('I104', `@${name} is declared twice`);
    map.set(name, make());
  }

  private symbol(): string {
    this.expect('@');
    return this.name();
  }

  private parseParameters(): Parameters {
    const attrs = this.attrs(0);
    const fail = (message: string): never => this.lexer.fail('I106', message);
    const keys = ['ring', 'insecure', ...Object.keys(literalBounds)];
    const unknown = Object.keys(attrs).find((key) => !keys.includes(key));
    if (unknown !== undefined) fail(`unknown parameter ${unknown}`);
    for (const [key, [least, most]] of Object.entries(literalBounds)) {
      const value = attrs[key];
      const sound = typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most;
      if (!sound) fail(`parameter ${key} must be an integer in ${least}..${most}`);
    }
    if (!rings.includes(attrs.ring as RingName)) fail(`parameter ring must be one of ${rings.join(', ')}`);
    if (typeof attrs.insecure !== 'boolean') fail('parameter insecure must be true or false');
    if (![128, 192, 256].includes(attrs.security as number)) fail('parameter security is 128, 192 or 256');
    try {
      return makeParameters(attrs as unknown as ParametersLiteral);
    } catch (error) {
      if (error instanceof AegisError) throw error;
      return fail('no prime chain for these parameters');
    }
  }

  private approximation(): Approximation {
    const node = this.string('a node name');
    const { function: name, min, max, degrees, steps, levels, error, relative, ...rest } = this.attrs(0);
    const unknown = Object.keys(rest)[0];
    if (unknown !== undefined) this.lexer.fail('I102', `unknown attribute ${unknown} of an approximation`);
    const wrong = (): never =>
      this.lexer.fail('I102', 'an approximation with missing or malformed attributes');
    const real = (value: AttrValue | undefined): number => (typeof value === 'number' ? value : wrong());
    const count = (value: AttrValue | undefined): number => {
      return Number.isSafeInteger(value) && real(value) >= 0 ? real(value) : wrong();
    };
    return {
      node,
      function: typeof name === 'string' ? name : wrong(),
      interval: { min: real(min), max: real(max) },
      degrees: Array.isArray(degrees) ? degrees.map(count) : wrong(),
      steps: count(steps),
      levels: count(levels),
      error: real(error),
      relative: typeof relative === 'boolean' ? relative : wrong(),
    };
  }

  private port(): Port {
    const name = this.string('a port name');
    this.expect(':');
    const shape = this.shape();
    const { factor, bound, predictedError, ...rest } = this.attrs(0);
    const unknown = Object.keys(rest)[0];
    if (unknown !== undefined) this.lexer.fail('I102', `unknown port attribute ${unknown}`);
    const real = (value: AttrValue | undefined): number =>
      typeof value === 'number' ? value : this.lexer.fail('I102', 'expected a number');
    const port: Port = {
      name,
      shape,
      factor: real(factor),
      ...(bound === undefined ? {} : { bound: real(bound) }),
      ...(predictedError === undefined ? {} : { predictedError: real(predictedError) }),
    };
    if (!this.takeWord('slots')) return port;
    const period = this.integer();
    const blocks = this.takeWord('blocks') ? { blocks: this.integer() } : {};
    this.expectWord('features');
    const features = this.indices();
    this.expectWord('tokens');
    return { ...port, slots: { period, ...blocks, features, tokens: this.indices() } };
  }

  private constant(): Constant {
    this.expect(':');
    const shape = this.shape();
    const count = shape.reduce((product, size) => product * size, 1);
    if (count > maxElements) this.lexer.fail('I103', `${count} elements, more than ${maxElements}`);
    this.expect('=');
    this.expectData();
    const kind = this.oneOf(['f64', 'f32'] as const);
    const words =
      kind === 'f64'
        ? new Float64Array(this.wordCount(8, count))
        : new Float32Array(this.wordCount(4, count));
    this.base64(words);
    return { shape, data: words instanceof Float64Array ? words : Float64Array.from(words) };
  }

  private table(): Int32Array {
    this.expect('=');
    return this.indices();
  }

  /** `[1, 2, 3]` or `base64 i32 "..."`. */
  private indices(): Int32Array {
    if (this.lexer.token.kind === 'mark') {
      return Int32Array.from(this.list('[', ']', () => this.int32()));
    }
    this.expectData();
    this.oneOf(['i32'] as const);
    const words = new Int32Array(this.wordCount(4));
    this.base64(words);
    return words;
  }

  private bytes(): Uint8Array {
    this.expectData();
    this.oneOf(['u8'] as const);
    const bytes = new Uint8Array(this.wordCount(1));
    this.base64(bytes);
    return bytes;
  }

  private expectData(): void {
    if (this.oneOf(['base64', 'sha256'] as const) === 'base64') return;
    this.lexer.fail('I105', 'a hash stands for the data: print the module with inline data');
  }

  private int32(): number {
    const value = this.signedInteger();
    return value === (value | 0) ? value : this.lexer.fail('I105', 'index does not fit 32 bits');
  }

  /** Words in the base64 string that comes next, checked before memory is taken. */
  private wordCount(wordBytes: number, wanted?: number): number {
    const { token } = this.lexer;
    if (token.kind !== 'string') return this.lexer.fail('I102', 'expected a base64 string');
    const padding = token.text.endsWith('==') ? 2 : token.text.endsWith('=') ? 1 : 0;
    const bytes = (token.text.length / 4) * 3 - padding;
    const count = bytes / wordBytes;
    if (!Number.isInteger(count) || (wanted !== undefined && count !== wanted)) {
      const words = `${wanted ?? 'whole'} words of ${wordBytes} bytes`;
      this.lexer.fail('I105', `data of ${bytes} bytes are not ${words}`);
    }
    return count > maxElements ? this.lexer.fail('I103', `${count} words, more than ${maxElements}`) : count;
  }

  private base64(words: Float64Array | Float32Array | Int32Array | Uint8Array): void {
    const { token } = this.lexer;
    const bytes = Buffer.from(words.buffer);
    const written = token.kind === 'string' ? bytes.write(token.text, 'base64') : 0;
    if (written !== bytes.length) this.lexer.fail('I105', 'data are not base64');
    if (!hostIsLittleEndian && words.BYTES_PER_ELEMENT > 1) {
      void (words.BYTES_PER_ELEMENT === 4 ? bytes.swap32() : bytes.swap64());
    }
    this.lexer.next();
  }

  private func(name: string): Func {
    const scope = new Scope(undefined);
    const args = this.blockArgs(scope);
    this.expect('->');
    const declared = this.list('(', ')', () => this.type());
    let models: Func['models'];
    if (this.takeWord('models')) {
      this.expectWord('bootstrap');
      this.expect('(');
      models = { kind: 'bootstrap', rangeLog2: this.signedInteger() };
      this.expect(')');
    }
    const body = this.block(args, scope, 'return', 0);
    const same =
      declared.length === body.results.length
      && declared.every((type, i) => typesEqual(type, (body.results[i] as Value).type));
    if (!same) this.lexer.fail('I107', `results of @${name} differ from its declaration`);
    return models === undefined ? { name, body } : { name, body, models };
  }

  private blockArgs(scope: Scope): Value[] {
    return this.list('(', ')', () => {
      const number = this.newNumber(scope);
      this.expect(':');
      const value = this.ids.fresh(this.type());
      scope.set(number, value);
      return value;
    });
  }

  private block(args: readonly Value[], scope: Scope, end: 'return' | 'yield', depth: number): Block {
    this.expect('{');
    const ops: Op[] = [];
    while (!this.takeWord(end)) ops.push(this.op(scope, depth));
    const results = this.values(scope);
    this.expect('}');
    return { args, ops, results };
  }

  private op(scope: Scope, depth: number): Op {
    const numbers: number[] = [];
    if (this.lexer.token.kind === 'value') {
      do numbers.push(this.newNumber(scope));
      while (this.take(','));
      this.expect('=');
    }
    if (new Set(numbers).size !== numbers.length) this.lexer.fail('I104', 'a result is listed twice');
    const kind = this.word('an op');
    const operands = this.values(scope);
    const attrs = this.at('{') ? this.attrs(depth) : {};
    const types: Type[] = [];
    if (this.take(':')) {
      do types.push(this.type());
      while (this.take(','));
    }
    if (types.length !== numbers.length) {
      this.lexer.fail('I102', `${numbers.length} results have ${types.length} types`);
    }
    const loc = this.takeWord('loc') ? this.location() : '';
    const regions: Block[] = [];
    while (this.at('(')) regions.push(this.region(scope, depth + 1));
    const results = types.map((type) => this.ids.fresh(type));
    results.forEach((value, i) => scope.set(numbers[i] as number, value));
    return { kind, operands, attrs, results, regions, loc };
  }

  private location(): string {
    this.expect('(');
    const loc = this.string('an ONNX node name');
    this.expect(')');
    return loc;
  }

  /** A block sees the values around it; what it defines ends with it. */
  private region(outer: Scope, depth: number): Block {
    if (depth > maxDepth) this.lexer.fail('I103', `blocks nested more than ${maxDepth} deep`);
    const scope = new Scope(outer);
    return this.block(this.blockArgs(scope), scope, 'yield', depth);
  }

  private newNumber(scope: Scope): number {
    const token = this.lexer.token;
    if (token.kind !== 'value') return this.lexer.fail('I102', 'expected a value such as %1');
    if (scope.get(token.number) !== undefined) this.lexer.fail('I104', `%${token.number} is defined twice`);
    this.lexer.next();
    return token.number;
  }

  private values(scope: Scope): Value[] {
    const values: Value[] = [];
    if (this.lexer.token.kind !== 'value') return values;
    do {
      const token = this.lexer.token;
      if (token.kind !== 'value') return this.lexer.fail('I102', 'expected a value such as %1');
      values.push(scope.get(token.number) ?? this.lexer.fail('I104', `%${token.number} is not defined here`));
      this.lexer.next();
    } while (this.take(','));
    return values;
  }

  private attrs(depth: number): Attrs {
    const entries = new Map<string, AttrValue>();
    this.list('{', '}', () => {
      const key = this.name();
      if (entries.has(key)) this.lexer.fail('I104', `attribute ${key} is given twice`);
      this.expect('=');
      entries.set(key, this.attr(depth + 1));
    });
    return Object.fromEntries(entries);
  }

  private attr(depth: number): AttrValue {
    if (depth > maxDepth) this.lexer.fail('I103', `attributes nested more than ${maxDepth} deep`);
    if (this.at('{')) return this.attrs(depth);
    if (this.at('[')) return this.list('[', ']', () => this.listItem(depth));
    if (this.take('-inf')) return -Infinity;
    const token = this.lexer.token;
    if (token.kind === 'number') {
      this.lexer.next();
      return token.value;
    }
    const bare = token.kind === 'word';
    const text = this.name();
    if (!bare) return text;
    switch (text) {
      case 'true':
        return true;
      case 'false':
        return false;
      case 'null':
        return null;
      case 'nan':
        return NaN;
      case 'inf':
        return Infinity;
      default:
        return text;
    }
  }

  /** Within lists, name=size is an axis. */
  private listItem(depth: number): AttrValue {
    const { kind } = this.lexer.token;
    if ((kind !== 'word' && kind !== 'string') || !this.lexer.followedBy('=')) return this.attr(depth + 1);
    return { ...this.axis() };
  }
}
