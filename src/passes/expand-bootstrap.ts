/**
 * expand-bootstrap: every ct.bootstrap becomes a call of a function that bootstraps so many ciphertexts of
 * such a range, two real ones as one complex one. The clear interpreter runs the call by what the function
 * `models`.
 */
import { defined } from '../support/invariant.js';
import { BlockBuilder, type Ids } from '../ir/builder.js';
import type { Func, Module } from '../ir/module.js';
import { canonicalScale } from '../ir/scale.js';
import { axesCount, qBasis, type CtType } from '../ir/types.js';
import type { Parameters } from '../target/parameters.js';
import { BootstrapBody } from './expand-bootstrap/body.js';
import { ctTypeOf } from './expand-polynomial.js';
import { rewriteModule } from '../ir/rewrite.js';

export interface ExpandBootstrapOptions {
  /** What a key of the linear maps counts, in lazy rotations; 0 where keys are plenty. */
  readonly keyCost?: number;
}

/** Takes a cipher module with levels; leaves it without ct.bootstrap, the new functions in front. */
export function expandBootstrap(module: Module, { keyCost = 0 }: ExpandBootstrapOptions = {}): Module {
  const parameters = defined(module.parameters, 'parameters');
  const functions = new Map<string, Func>();
  const rewritten = rewriteModule(module, (op, { builder, operands }) => {
    if (op.kind !== 'ct.bootstrap') return undefined;
    const input = defined(operands[0], 'operand of ct.bootstrap');
    const { axes } = ctTypeOf(input);
    const rangeLog2 = op.attrs.rangeLog2 as number;
    const count = axesCount(axes);
    const name = bootstrapName(count, rangeLog2);
    const func = functions.get(name) ?? bootstrapFunction(builder.ids, parameters, count, rangeLog2, keyCost);
    functions.set(name, func);
    const batch = builder.op('ct.reshape', [input], { axes: [{ name: 'b', size: count }] }, op.loc);
    const types = func.body.results.map((value) => value.type);
    const result = defined(builder.call(name, [batch], types, op.loc)[0], 'result of the bootstrap');
    return [builder.op('ct.reshape', [result], { axes: axes.map((axis) => ({ ...axis })) }, op.loc)];
  });
  return { ...rewritten, functions: [...functions.values(), ...rewritten.functions] };
}

/** `bootstrap_48_r3`; a negative range is written `rm1`. */
export function bootstrapName(count: number, rangeLog2: number): string {
  return `bootstrap_${count}_r${rangeLog2 < 0 ? 'm' : ''}${Math.abs(rangeLog2)}`;
}

export function bootstrapFunction(
  ids: Ids,
  parameters: Parameters,
  count: number,
  rangeLog2: number,
  keyCost: number,
): Func {
  const level = parameters.bootstrapInputLevel;
  const axes = [{ name: 'b', size: count }];
  const type: CtType = { kind: 'ct', axes, degree: 1, basis: qBasis, level, scale: canonicalScale(level) };
  const builder = new BlockBuilder(ids, parameters, [type]);
  const name = bootstrapName(count, rangeLog2);
  const body = new BootstrapBody(builder, parameters, rangeLog2, name, keyCost);
  const result = body.run(defined(builder.args[0], 'argument'));
  return { name, body: builder.finish([result]), models: { kind: 'bootstrap', rangeLog2 } };
}
