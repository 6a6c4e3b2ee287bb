import { describe, expect, it } from 'vitest';
import type { Func, Module, Op, Value } from '../../src/ir/module.js';
import { parseModule } from '../../src/ir/parser.js';
import { printModule } from '../../src/ir/printer.js';
import { assertVerified, verifyModule } from '../../src/ir/verifier.js';
import { AegisError } from '../../src/support/diagnostics.js';
import {
  axis,
  ct,
  linearModule,
  loopModule,
  mainModule,
  micro,
  polyModule,
  randomValues,
  tensorModule,
} from './build.js';

const linear = (): Module =>
  linearModule({
    tokens: 4,
    inputs: 8,
    outputs: 8,
    weight: randomValues(1, 64),
    babySteps: 2,
    parameters: micro,
  });

/** The module with one piece of its text replaced. */
function altered(module: Module, from: string | RegExp, to: string): Module {
  const text = printModule(module);
  const changed = text.replace(from, to);
  expect(changed).not.toBe(text);
  return parseModule(changed);
}

const inLoop = (from: string | RegExp, to: string): Module => altered(loopModule(), from, to);
const inLinear = (from: string | RegExp, to: string): Module => altered(linear(), from, to);

/** The module with the ops of its main changed. */
function withOps(module: Module, change: (ops: readonly Op[]) => readonly Op[]): Module {
  const functions = module.functions.map((func): Func => ({
    ...func,
    body: { ...func.body, ops: change(func.body.ops) },
  }));
  return { ...module, functions };
}

function dft(steps: { baby: number[]; giant: number[] }, count = 2): Module {
  return mainModule(
    [],
    (b) => {
      const axes = [
        { name: 'g', size: steps.giant.length },
        { name: 'b', size: steps.baby.length },
      ];
      b.op('pt.dft', [], { axes, inverse: false, first: 1, count, ...steps, factor: 1 }, '');
      return [];
    },
    { parameters: micro },
  );
}

function calls(body: string, helper: string): Module {
  const head = 'module "m" phase cipher source "s"\n';
  return parseModule(
    `${head}func @main() -> () {\n %0 = ct.zero {axes=[]} : ct<level ?, scale ?>\n ${body}\n return }\n${helper}`,
  );
}

const helper = 'func @f(%0: ct<level ?, scale ?>) -> (ct<level ?, scale ?>) { return %0 }';
const type = 'ct<level ?, scale ?>';

const broken: readonly (readonly [code: string, what: string, make: () => Module])[] = [
  ['V101', 'an unknown op', () => inLoop('ct.reshape', 'ct.reshapes')],
  ['V102', 'ops and types of another phase', () => inLoop('phase cipher', 'phase poly')],
  ['V103', 'a missing attribute', () => inLoop('axis=j, ', '')],
  ['V104', 'an unknown attribute', () => inLoop('{axis=j, ', '{axis=j, colour=red, ')],
  ['V105', 'a string for an integer', () => inLoop('tripCount=3', 'tripCount="3"')],
  ['V105', 'a real in a list of integers', () => inLoop('steps=[2]', 'steps=[2.5]')],
  ['V105', 'an infinite number', () => inLoop('values=[0.5]', 'values=[inf]')],
  ['V105', 'a scale that is none', () => inLinear('over=[i, b]}', 'over=[i, b], scale=E5}')],
  ['V105', 'axes without sizes', () => inLoop('axes=[one=1]', 'axes=[one]')],
  ['V106', 'a missing operand', () => inLoop('ct.add %3, %8', 'ct.add %3')],
  ['V106', 'a missing block', () => inLoop(/ \(%3: [^]*\n {2}\}\n/, '\n')],
  [
    'V106',
    'a missing result',
    () =>
      withOps(linear(), (ops) => ops.map((op) => (op.kind === 'ct.rescale' ? { ...op, results: [] } : op))),
  ],
  ['V107', 'a stored type that infer does not give', () => inLoop('one=1; level 9', 'one=1; level 8')],
  ['V107', 'operands that infer refuses', () => inLoop('axis=j, index=0', 'axis=k, index=0')],
  ['V108', 'a value used before its definition', () => withOps(linear(), (ops) => ops.toReversed())],
  ['V108', 'a value that nothing defines', () => withOps(linear(), (ops) => ops.slice(1))],
  [
    'V107',
    'attributes that infer trips over',
    () => altered(polyModule(), 'over=[j], ', 'over=[j], window={axes=7}, '),
  ],
  ['V109', 'a value defined twice', () => withOps(linear(), (ops) => [...ops, ops[0] as Op])],
  [
    'V109',
    'a value used with another type',
    () =>
      withOps(linear(), (ops) =>
        ops.map((op) => {
          const retyped = (value: Value): Value => ({ ...value, type: ct([axis('q', 2)]) });
          return op.kind === 'ct.rescale' ? { ...op, operands: op.operands.map(retyped) } : op;
        }),
      ),
  ],
  ['V110', 'no iterations', () => inLoop('tripCount=3', 'tripCount=0')],
  [
    'V110',
    'a carried value of another type',
    () => inLoop('(%3: ct<level 9, scale D9>)', '(%3: ct<level 8, scale D8>)'),
  ],
  ['V110', 'a block that yields too much', () => inLoop('yield %9', 'yield %9, %9')],
  ['V111', 'a call of no function', () => calls(`%1 = call %0 {callee=g} : ${type}`, helper)],
  ['V111', 'a call with too many arguments', () => calls(`%1 = call %0, %0 {callee=f} : ${type}`, helper)],
  [
    'V111',
    'a call with another result',
    () => calls('%1 = call %0 {callee=f} : ct<a=1; level ?, scale ?>', helper),
  ],
  [
    'V112',
    'recursion',
    () =>
      calls(
        `%1 = call %0 {callee=f} : ${type}`,
        `func @f(%0: ${type}) -> (${type}) {\n %1 = call %0 {callee=g} : ${type}\n return %1 }\n`
          + `func @g(%0: ${type}) -> (${type}) {\n %1 = call %0 {callee=f} : ${type}\n return %1 }`,
      ),
  ],
  ['V113', 'no such constant', () => inLinear('weight=w', 'weight=v')],
  ['V113', 'no such table', () => inLinear('rows=rows', 'rows=nowhere')],
  ['V114', 'rows beyond the weight', () => inLinear('rows = [0,', 'rows = [8,')],
  ['V114', 'too few columns', () => inLinear('table @columns = [0, 1, ', 'table @columns = [')],
  ['V114', 'a diagonal that two pairs of steps name', () => inLinear('baby=[0, 1]', 'baby=[0, 2]')],
  [
    'V114',
    'a tensor weight of another size',
    () => altered(tensorModule(), 'const @w : 2x3', 'const @w : 3x2'),
  ],
  ['V114', 'a tensor bias of another size', () => altered(tensorModule(), 'bias=b', 'bias=w')],
  [
    'V114',
    'a tensor index beyond the input',
    () => altered(tensorModule(), '[0, 1, 2, 3, 4, -1]', '[0, 1, 2, 3, 5, -1]'),
  ],
  ['V114', 'too few constants', () => inLoop('values=[0.5]', 'values=[]')],
  [
    'V114',
    'a vector beyond its constant',
    () => ({
      ...mainModule(
        [],
        (b) => {
          b.op(
            'pt.vector',
            [],
            { axes: [], period: 4, constant: 'c', features: 'f', tokens: 't', factor: 1 },
            '',
          );
          return [];
        },
        { parameters: micro },
      ),
      constants: new Map([['c', { shape: [6], data: new Float64Array(6) }]]),
      tables: new Map([
        ['f', Int32Array.of(0, 1, 2, -1)],
        ['t', Int32Array.of(0, 1, 2, 4)],
      ]),
    }),
  ],
  ['V115', 'a port too few', () => ({ ...linear(), inputs: [] })],
  ['V115', 'two inputs of one name', () => inLoop('input "factors"', 'input "start"')],
  ['V115', 'a port without slot map', () => inLinear(/(input .*) slots .*/, '$1')],
  ['V115', 'a period that does not fill the slots', () => inLinear('slots 4', 'slots 8')],
  ['V115', 'an index beyond the tensor', () => inLinear('input "x" : 4x8', 'input "x" : 4x7')],
  ['V115', 'an output element in no slot', () => inLinear('output "y" : 4x8', 'output "y" : 5x8')],
  ['V116', 'a level above the chain', () => inLoop(/level 9, scale D9/g, 'level 99, scale D99')],
  ['V116', 'an axis without indices', () => inLoop('one=1; level', 'one=0; level')],
  ['V116', 'a period that is no power of two', () => inLoop('pt<period 1>', 'pt<period 3>')],
  [
    'V117',
    'an unrelinearized function result',
    () => mainModule([ct([])], (b, [x]) => [b.op('ct.mul', [x as Value, x as Value], { over: [] }, '')]),
  ],
  ['V118', 'an index that leaves its axis in the last iteration', () => inLoop('index=0', 'index=1')],
  ['V118', 'a loopStride outside of loops', () => inLinear('{axis=g,', '{axis=g, loopStride=1,')],
  ['V119', 'a diagonal without a step', () => dft({ baby: [0, 1], giant: [0, 2, 14] })],
  ['V119', 'a diagonal covered twice', () => dft({ baby: [0, 1, 2], giant: [0, 2, 13] })],
  ['V119', 'more stages than the ring has', () => dft({ baby: [0, 1, 2, 3], giant: [0, 4, 8, 12] }, 5)],
  ['V120', 'no main', () => altered(loopModule(), '@main', '@other')],
  [
    'V120',
    'a function defined twice',
    () => ({ ...loopModule(), functions: [...loopModule().functions, ...loopModule().functions] }),
  ],
  [
    'V121',
    'a modelled function that drops a value',
    () => calls('', `func @f(%0: ${type}) -> () models bootstrap(0) { return }`),
  ],
];

describe('the verifier', () => {
  it('accepts sound modules', () => {
    for (const module of [
      linear(),
      loopModule(),
      tensorModule(),
      calls(`%1 = call %0 {callee=f} : ${type}`, helper),
    ]) {
      expect(verifyModule(module)).toEqual([]);
    }
    expect(verifyModule(polyModule()).filter(({ code }) => code !== 'V115')).toEqual([]);
    expect(verifyModule(dft({ baby: [0, 1, 2, 3], giant: [0, 12] }))).toEqual([]);
  });

  for (const [code, what, make] of broken) {
    it(`${code}: ${what}`, () => {
      expect(verifyModule(make()).map((diagnostic) => diagnostic.code)).toContain(code);
    });
  }

  it('has a test for every code', () => {
    const codes = Array.from({ length: 21 }, (_, i) => `V${101 + i}`);
    expect([...new Set(broken.map(([code]) => code))].sort()).toEqual(codes);
  });

  it('shows the op, its node and the pass', () => {
    const module = inLoop('ct.add %3, %8', 'ct.add %3');
    let message = '';
    try {
      assertVerified(module, 'pack');
    } catch (error) {
      expect(error).toBeInstanceOf(AegisError);
      message = (error as AegisError).message;
    }
    expect(message).toMatchInlineSnapshot(`
      "error[V106]: ct.add takes 2 operands but has 1
        at node "encoder.0/MatMul", pass pack
        | %9 = ct.add %3 : ct<level 9, scale D9>"
    `);
  });

  it('reports all faults of a module in one run', () => {
    const module = altered(inLoop('ct.reshape', 'ct.reshapes'), 'values=[0.5]', 'values=[]');
    expect(verifyModule(module).map((diagnostic) => diagnostic.code)).toEqual(['V114', 'V101']);
  });
});
