import { describe, expect, it } from 'vitest';
import type { AttrValue, Attrs, Block, Func, Module, Op, Port, Value } from '../../src/ir/module.js';
import { Ids } from '../../src/ir/builder.js';
import { parseModule, parseType } from '../../src/ir/parser.js';
import { printModule, printType } from '../../src/ir/printer.js';
import type { Axis, Phase, Sharding, Type } from '../../src/ir/types.js';
import { verifyModule } from '../../src/ir/verifier.js';
import { AegisError } from '../../src/support/diagnostics.js';
import {
  axis,
  ct,
  linearModule,
  loopModule,
  micro,
  polyModule,
  randomSource,
  randomValues,
  tensorModule,
} from './build.js';

/** Random modules of any phase: well-formed as text, not as programs. */
class Chaos {
  private readonly random: () => number;
  private readonly ids = new Ids();
  constructor(seed: number) {
    this.random = randomSource(seed);
  }
  below(limit: number): number {
    return Math.floor(this.random() * limit);
  }
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }
  some<T>(limit: number, make: () => T): T[] {
    return Array.from({ length: this.below(limit + 1) }, make);
  }
  name(): string {
    return this.pick([
      'a',
      'j.0',
      'level',
      'true',
      'nan',
      '',
      'encoder/0:x',
      'q"uo\\te',
      'line\nbreak',
      '\u2028é',
      '_x9',
    ]);
  }
  axes(): Axis[] {
    return this.some(3, () => ({ name: this.name(), size: this.below(2000) }));
  }
  type(phase: Phase): Type {
    if (phase === 'tensor') {
      return {
        kind: 'tensor',
        dtype: this.pick(['f32', 'i64', 'bool'] as const),
        shape: this.some(3, () => this.below(70)),
      };
    }
    if (phase === 'poly') {
      return {
        kind: 'poly',
        axes: this.axes(),
        limbs: this.some(8, () => this.below(12)),
        form: this.pick(['ntt', 'coeff'] as const),
        sharding: this.some(2, () => this.sharding()),
      };
    }
    if (this.below(3) === 0) {
      return { kind: 'pt', axes: this.axes(), period: 2 ** this.below(9), complex: this.below(2) === 0 };
    }
    const exponents = () =>
      [
        [this.below(9), this.below(5) - 9],
        [9 + this.below(20), 1 + this.below(3)],
      ] as const;
    const level = this.below(2) === 0 ? null : this.below(30);
    return {
      kind: 'ct',
      axes: this.axes(),
      degree: this.pick([1, 2] as const),
      level,
      basis: this.below(2) === 0 ? { kind: 'q' } : { kind: 'qp', specials: 1 + this.below(9) },
      scale: level === null ? null : { canonical: exponents(), primes: exponents(), two: this.below(9) - 4 },
    };
  }
  sharding(): Sharding {
    return this.pick<Sharding>([
      { kind: 'replicated' },
      { kind: 'partial' },
      { kind: 'at', rank: this.below(8) },
      { kind: 'split', axis: this.name(), owners: this.some(4, () => this.below(4)) },
      { kind: 'limbs', owners: this.some(4, () => this.below(5) - 1) },
    ]);
  }
  attr(depth: number): AttrValue {
    const kind = this.below(depth > 2 ? 5 : 8);
    switch (kind) {
      case 0:
        return this.name();
      case 1:
        return this.below(2) === 0;
      case 2:
        return null;
      case 3:
        return this.pick([-0, 0, -7, 1e300, 5e-324, 0.1, Infinity, -Infinity, NaN, -(2 ** 53), 1 / 3]);
      case 4:
        return this.random() - 0.5;
      case 5:
        return this.some(3, () => ({ name: this.name(), size: this.below(9) }));
      case 6:
        return this.some(3, () => this.attr(depth + 1));
      default:
        return this.attrs(depth + 1);
    }
  }
  attrs(depth = 0): Attrs {
    return Object.fromEntries(this.some(4, () => [this.name(), this.attr(depth)]));
  }
  block(phase: Phase, visible: readonly Value[], depth: number): Block {
    const args = this.some(2, () => this.ids.fresh(this.type(phase)));
    const values = [...visible, ...args];
    const use = (): Value[] => (values.length === 0 ? [] : this.some(3, () => this.pick(values)));
    const ops = this.some(5, (): Op => {
      const operands = use();
      const regions = depth < 3 && this.below(4) === 0 ? [this.block(phase, values, depth + 1)] : [];
      const results = this.some(2, () => this.ids.fresh(this.type(phase)));
      values.push(...results);
      return {
        kind: this.pick(['ct.add', 'loop', 'x.y_9']),
        operands,
        attrs: this.attrs(),
        results,
        regions,
        loc: this.name(),
      };
    });
    return { args, ops, results: use() };
  }
  port(): Port {
    const table = () => Int32Array.from({ length: this.below(40) }, () => this.below(9) - 1);
    return {
      name: this.name(),
      shape: this.some(3, () => this.below(9)),
      factor: this.random() - 0.5,
      ...(this.below(2) === 0 ? { bound: 2 } : {}),
      ...(this.below(2) === 0 ? { predictedError: 1e-3 } : {}),
      ...(this.below(2) === 0
        ? { slots: { period: 2 ** this.below(5), features: table(), tokens: table() } }
        : {}),
    };
  }
  module(): Module {
    const phase = this.pick(['tensor', 'cipher', 'poly'] as const);
    const functions = this.some(3, (): Func => {
      const models =
        this.below(3) === 0 ? { models: { kind: 'bootstrap', rangeLog2: this.below(9) - 4 } as const } : {};
      return { name: this.name(), body: this.block(phase, [], 0), ...models };
    });
    const named = new Map(functions.map((func) => [func.name, func]));
    const constants = this.some(3, () => {
      const [rows, columns] = [this.below(5), this.below(5)];
      const values = randomValues(this.below(99), rows * columns);
      return [
        this.name(),
        {
          shape: [rows, columns],
          data: this.below(2) === 0 ? values : Float64Array.from(values, Math.fround),
        },
      ] as const;
    });
    const tables = this.some(
      3,
      () => [this.name(), Int32Array.from({ length: this.below(40) }, () => this.below(99) - 9)] as const,
    );
    return {
      phase,
      name: this.name(),
      sourceHash: this.name(),
      parameters: this.below(20) === 0 ? micro : null,
      functions: [...named.values()],
      constants: new Map(constants),
      tables: new Map(tables),
      inputs: this.some(2, () => this.port()),
      outputs: this.some(2, () => this.port()),
    };
  }
}

describe('text IR', () => {
  it('reads back what it prints: 400 random modules of every phase', () => {
    for (let seed = 1; seed <= 400; seed++) {
      const module = new Chaos(seed).module();
      const text = printModule(module);
      const back = parseModule(text);
      expect(printModule(back)).toBe(text);
      expect(back.constants).toEqual(module.constants);
      expect(back.tables).toEqual(module.tables);
      expect(back.inputs).toEqual(module.inputs);
      expect(back.parameters?.primes).toEqual(module.parameters?.primes);
      const attrsOf = (m: Module) => m.functions.map((func) => func.body.ops.map((op) => op.attrs));
      expect(attrsOf(back)).toEqual(attrsOf(module));
    }
  });

  it('keeps a module that runs sound', () => {
    for (const module of [linear(), loopModule(), tensorModule()]) {
      const back = parseModule(printModule(module));
      expect(verifyModule(back)).toEqual([]);
      expect(printModule(back)).toBe(printModule(module));
    }
  });

  it('looks like this', () => {
    expect(printModule(loopModule(), { data: 'inline', locations: true })).toMatchInlineSnapshot(`
      "module "test" phase cipher source "none"
      parameters {ctsLevels=3, evalModLevels=8, insecure=true, logN=5, ring=tiny, scaleBits=40, security=128, specials=10, stcLevels=3, usableLevels=13}
      input "start" : 1x16 {factor=1} slots 16 features [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] tokens [0]
      input "factors" : 3x16 {factor=1} slots 16 features base64 i32 "AAAAAAEAAAACAAAAAwAAAAQAAAAFAAAABgAAAAcAAAAIAAAACQAAAAoAAAALAAAADAAAAA0AAAAOAAAADwAAABAAAAARAAAAEgAAABMAAAAUAAAAFQAAABYAAAAXAAAAGAAAABkAAAAaAAAAGwAAABwAAAAdAAAAHgAAAB8AAAAgAAAAIQAAACIAAAAjAAAAJAAAACUAAAAmAAAAJwAAACgAAAApAAAAKgAAACsAAAAsAAAALQAAAC4AAAAvAAAA" tokens [0]
      output "y" : 1x16 {factor=1} slots 16 features [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] tokens [0]
      func @main(%0: ct<level 9, scale D9>, %1: ct<j=3; level 9, scale D9>) -> (ct<level 9, scale D9>) {
        %2 = loop %0 {tripCount=3} : ct<level 9, scale D9> loc("encoder.0/MatMul") (%3: ct<level 9, scale D9>) {
          %4 = ct.index %1 {axis=j, index=0, loopStride=1} : ct<level 9, scale D9> loc("encoder.0/MatMul")
          %5 = pt.constant {axes=[], values=[0.5]} : pt<period 1> loc("encoder.0/MatMul")
          %6 = ct.add_plain %4, %5 : ct<level 9, scale D9> loc("encoder.0/MatMul")
          %7 = ct.reshape %6 {axes=[one=1]} : ct<one=1; level 9, scale D9> loc("encoder.0/MatMul")
          %8 = ct.rotate_each %7 {axis=one, loopStride=3, steps=[2], sum=true} : ct<level 9, scale D9> loc("encoder.0/MatMul")
          %9 = ct.add %3, %8 : ct<level 9, scale D9> loc("encoder.0/MatMul")
          yield %9
        }
        return %2
      }
      "
    `);
    expect(printModule(linear(), { data: 'hash', locations: false })).toContain('const @w : 9x8 = sha256 "');
  });

  it('prints every kind of type', () => {
    const types: Type[] = [
      { kind: 'tensor', dtype: 'f32', shape: [1, 17, 32] },
      { kind: 'tensor', dtype: 'i64', shape: [] },
      ct([axis('j', 8), axis('b', 2)], 12),
      ct([]),
      { ...ct([], 3), degree: 2, basis: { kind: 'qp', specials: 4 } },
      { kind: 'pt', axes: [axis('j', 8)], period: 64, complex: true },
      {
        kind: 'poly',
        axes: [axis('component', 2)],
        limbs: [0, 1, 2, 3, 7, 9, 10],
        form: 'ntt',
        sharding: [
          { kind: 'split', axis: 'j', owners: [0, 0, 1] },
          { kind: 'partial' },
          { kind: 'at', rank: 3 },
        ],
      },
    ];
    expect(types.map(printType)).toMatchInlineSnapshot(`
      [
        "tensor<1x17x32 f32>",
        "tensor<i64>",
        "ct<j=8, b=2; level 12, scale D12>",
        "ct<level ?, scale ?>",
        "ct<level 3, scale D3, degree 2, specials 4>",
        "pt<j=8; period 64, complex>",
        "poly<component=2; limbs [0..3, 7, 9, 10], ntt, mesh [split(j: 0, 0, 1), partial, at(3)]>",
      ]
    `);
    for (const type of types) expect(parseType(printType(type))).toEqual(type);
  });
});

describe('faulty text IR', () => {
  const head = 'module "m" phase cipher source "s"\n';
  const nested = (open: string, close: string, times: number) => open.repeat(times) + close.repeat(times);
  const cases: readonly (readonly [string, string, string])[] = [
    ['I101', 'a strange character', `${head}$`],
    ['I101', 'an open string', `${head}input "x`],
    ['I101', 'a string across lines', `${head}input "x\n" : 1`],
    ['I101', 'a bad escape', `${head}input "\\q" : 1`],
    ['I101', 'a huge number', `${head}input "x" : 1 {factor=1e999}`],
    ['I102', 'another phase', 'module "m" phase cypher source "s"'],
    ['I102', 'an approximation without degrees', `${head}approximation "n" {function=exp}`],
    ['I102', 'an approximation of another kind', `${head}approximation "n" {colour=red}`],
    ['I102', 'an unknown item', `${head}functor @main`],
    ['I102', 'a missing type', `${head}func @main() -> () {\n %0 = ct.zero {}\n return }`],
    ['I102', 'a scale that is none', `${head}func @main(%0: ct<level 1, scale D1^^2>) -> () {\n return }`],
    ['I102', 'degree 3', `${head}func @main(%0: ct<level 1, scale D1, degree 3>) -> () {\n return }`],
    ['I102', 'a negative axis', `${head}func @main(%0: ct<j=-1; level 1, scale D1>) -> () {\n return }`],
    ['I103', 'deep lists', `${head}parameters {a=${nested('[', ']', 5000)}}`],
    ['I103', 'deep blocks', `${head}func @main() -> () {${'loop {} () {'.repeat(5000)}`],
    ['I103', 'a wide range of limbs', `${head}func @f(%0: poly<limbs [0..999999999], ntt>) -> () { return }`],
    ['I103', 'a large constant', `${head}const @w : 999999x999999 = base64 f64 ""`],
    ['I104', 'an undefined value', `${head}func @main() -> () {\n return %7 }`],
    [
      'I104',
      'a value of an inner block',
      `${head}func @main() -> () {\n x {} () {\n %0 = y {} : pt<period 1>\n yield }\n return %0 }`,
    ],
    [
      'I104',
      'a value defined twice',
      `${head}func @main(%0: pt<period 1>, %0: pt<period 1>) -> () { return }`,
    ],
    ['I104', 'a table declared twice', `${head}table @t = []\ntable @t = []`],
    ['I104', 'an attribute given twice', `${head}func @f() -> () { x {a=1, a=2} return }`],
    ['I105', 'data of another length', `${head}const @w : 2 = base64 f64 "AAAA"`],
    ['I105', 'data that are not base64', `${head}table @t = base64 i32 "!!!!!!=="`],
    ['I105', 'a hash in place of data', `${head}const @w : 2 = sha256 "00"`],
    ['I105', 'a large index', `${head}table @t = [3000000000]`],
    ['I106', 'parameters without a chain', `${head}parameters {ring=tiny}`],
    ['I106', 'unknown parameters', `${head}parameters {rung=tiny}`],
    ['I107', 'results of another type', `${head}func @f(%0: pt<period 1>) -> (pt<period 2>) { return %0 }`],
  ];
  for (const [code, what, text] of cases) {
    it(`${code}: ${what}`, () => {
      let found: unknown;
      try {
        parseModule(text);
      } catch (error) {
        found = error;
      }
      expect(found).toBeInstanceOf(AegisError);
      expect((found as AegisError).diagnostics[0]?.code).toBe(code);
      expect((found as AegisError).message).toMatch(/line \d+, column \d+/);
    });
  }

  it('is refused or read, never a crash: 2000 mutations', () => {
    const texts = [
      linear(),
      loopModule(),
      tensorModule(),
      polyModule(),
      ...[3, 14, 15].map((seed) => new Chaos(seed).module()),
    ].map((m) => printModule(m));
    const random = randomSource(7);
    const below = (limit: number) => Math.floor(random() * limit);
    const marks = '{}[]()<>,;:=%@"\\ \n-?.x0159eD^*'.split('');
    let refused = 0;
    for (let i = 0; i < 2000; i++) {
      let text = texts[i % texts.length] as string;
      for (let k = 0; k <= below(3); k++) {
        const at = below(text.length);
        const piece = text.slice(at, at + below(40));
        switch (below(5)) {
          case 0:
            text = text.slice(0, at);
            break;
          case 1:
            text = text.slice(0, at) + text.slice(at + 1 + below(20));
            break;
          case 2:
            text = text.slice(0, at) + (marks[below(marks.length)] as string) + text.slice(at + below(2));
            break;
          case 3:
            text = text.slice(0, at) + piece + text.slice(at);
            break;
          default:
            text = text.slice(0, at) + String(10 ** below(20)) + text.slice(at + 1);
        }
      }
      try {
        verifyModule(parseModule(text));
      } catch (error) {
        if (!(error instanceof AegisError))
          throw new Error(`mutation ${i}: ${String(error)}`, { cause: error });
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(1000);
  });
});

function linear(): Module {
  return linearModule({
    tokens: 4,
    inputs: 8,
    outputs: 9,
    weight: randomValues(1, 72),
    babySteps: 2,
    parameters: micro,
  });
}
