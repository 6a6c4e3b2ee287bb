import { describe, expect, it } from 'vitest';
import { BlockBuilder, Ids } from '../../src/ir/builder.js';
import { runCipher } from '../../src/ir/interpreter/cipher.js';
import { runTensor } from '../../src/ir/interpreter/tensor.js';
import { walkOps, type Module, type Value } from '../../src/ir/module.js';
import { parseModule } from '../../src/ir/parser.js';
import { printModule } from '../../src/ir/printer.js';
import { verifyModule } from '../../src/ir/verifier.js';
import { calibrateModule, nodeRanges } from '../../src/passes/calibrate.js';
import { measureBounds } from '../../src/passes/measure-bounds.js';
import { mergeDuplicates } from '../../src/passes/merge-duplicates.js';
import type { PackOptions } from '../../src/passes/pack/context.js';
import { packModule } from '../../src/passes/pack/index.js';
import { planLevels } from '../../src/passes/plan-levels.js';
import { defaultLiteral, makeParameters } from '../../src/target/parameters.js';
import { random, randomInput, tinyTransformer, type TinyShape } from './tiny-transformer.js';

const parameters = makeParameters(defaultLiteral('tiny', true));
const tolerance = 0.01;

function packed(
  module: Module,
  inputs: readonly Record<string, Float64Array>[],
  options: Partial<PackOptions>,
) {
  const ranges = calibrateModule(module, inputs);
  const result = mergeDuplicates(packModule(module, parameters, nodeRanges(ranges), options));
  expect(verifyModule(result)).toEqual([]);
  return { result, ranges };
}

function agrees(stage: Module, module: Module, input: Record<string, Float64Array>): void {
  const name = module.outputs[0]!.name;
  const expected = runTensor(module, input)[name]!;
  const got = runCipher(stage, input)[name]!;
  expect(got.length).toBe(expected.length);
  got.forEach((value, i) => expect(Math.abs(value - expected[i]!)).toBeLessThan(tolerance));
}

const base: TinyShape = { tokens: 8, width: 16, heads: 2, hidden: 32, sharpness: 1 };
const cases: readonly [string, TinyShape, Partial<PackOptions>][] = [
  ['two blocks', base, { tokenBlocks: 2 }],
  ['four blocks, padded', { ...base, tokens: 5 }, { tokenBlocks: 4 }],
  ['eight blocks of a token', base, { tokenBlocks: 8 }],
  [
    'offsets in slots, looped',
    { ...base, tokens: 30 },
    { tokenBlocks: 2, offsetsInSlots: 4, offsetsInArray: 2 },
  ],
  [
    'looped over every offset',
    { ...base, tokens: 15 },
    { tokenBlocks: 2, offsetsInSlots: 1, offsetsInArray: 1 },
  ],
  [
    'queries carried by the loop',
    { ...base, tokens: 15 },
    { tokenBlocks: 2, offsetsInSlots: 1, offsetsInArray: 2, offsetKeysLimitBytes: 0 },
  ],
  [
    'queries carried one step at a time',
    { ...base, tokens: 15 },
    { tokenBlocks: 2, offsetsInSlots: 1, offsetsInArray: 2, offsetsTogether: 1, offsetKeysLimitBytes: 0 },
  ],
  [
    'queries carried two steps at a time',
    { ...base, tokens: 15 },
    { tokenBlocks: 2, offsetsInSlots: 1, offsetsInArray: 2, offsetsTogether: 2, offsetKeysLimitBytes: 0 },
  ],
  ['queries carried, one block', base, { offsetsInSlots: 2, offsetsInArray: 1, offsetKeysLimitBytes: 0 }],
  [
    'offsets spread over slots by baby and giant steps',
    { ...base, tokens: 15 },
    { tokenBlocks: 2, offsetsInSlots: 8, spreadLimitBytes: 0 },
  ],
  [
    'rounds of renormalisation, a pass for each',
    { ...base, tokens: 15, sharpness: 12 },
    { tokenBlocks: 2, offsetsInSlots: 1, offsetsInArray: 4 },
  ],
  [
    'passes with carried queries, one block',
    { ...base, tokens: 7, sharpness: 12 },
    { offsetsInSlots: 1, offsetsInArray: 2, offsetsTogether: 2, offsetKeysLimitBytes: 0 },
  ],
  ['rounds of renormalisation, padded', { ...base, tokens: 6, sharpness: 12 }, { tokenBlocks: 2 }],
  [
    'several ciphertexts per token',
    { tokens: 61, width: 24, heads: 3, hidden: 40, sharpness: 1 },
    { tokenBlocks: 2 },
  ],
];

describe('token blocks', () => {
  it.each(cases)('%s', (_, shape, options) => {
    const module = tinyTransformer(shape, 7);
    const inputs = Array.from({ length: 6 }, (_, i) => ({ x: randomInput(shape, 100 + i) }));
    const { result, ranges } = packed(module, inputs.slice(0, 4), options);
    const planned = planLevels(result, measureBounds(result, ranges));
    expect(verifyModule(planned)).toEqual([]);
    for (const stage of [result, planned]) agrees(stage, module, inputs[5]!);
  });

  it('keep the axis p first in every array that has it', () => {
    const module = tinyTransformer({ ...base, tokens: 7 }, 7);
    const input = { x: randomInput({ ...base, tokens: 7 }, 1) };
    const { result } = packed(module, [input], { tokenBlocks: 2 });
    walkOps(result.functions[0]!.body, (op) => {
      for (const { type } of op.results) {
        const at = type.kind === 'ct' || type.kind === 'pt' ? type.axes.findIndex((a) => a.name === 'p') : -1;
        expect([-1, 0], op.kind).toContain(at);
      }
    });
  });

  it('are part of the text of a port', () => {
    const module = tinyTransformer(base, 7);
    const { result } = packed(module, [{ x: randomInput(base, 1) }], { tokenBlocks: 4 });
    expect(result.inputs[0]?.slots?.blocks).toBe(4);
    expect(parseModule(printModule(result, { data: 'inline', locations: false })).inputs).toEqual(
      result.inputs,
    );
  });

  it.each([3, 16, 0])('are refused where they do not fit: %i', (tokenBlocks) => {
    const module = tinyTransformer(base, 7);
    const run = () => packed(module, [{ x: randomInput(base, 1) }], { tokenBlocks });
    expect(run).toThrow(/A117/);
  });
});

/** Linear-free movements of tokens: [tokens, 4] in, rows out. */
function movements(tokens: number, move: (b: BlockBuilder, x: Value) => Value): Module {
  const next = random(3);
  const data = Float64Array.from({ length: 12 }, () => next());
  const b = new BlockBuilder(new Ids(), null, [{ kind: 'tensor', dtype: 'f32', shape: [tokens, 4] }]);
  const y = move(b, b.op('tensor.add', [b.args[0]!, b.args[0]!], {}, 'twice'));
  const shape = y.type.kind === 'tensor' ? y.type.shape : [];
  return {
    phase: 'tensor',
    name: 'movements',
    sourceHash: '0'.repeat(64),
    parameters: null,
    functions: [{ name: 'main', body: b.finish([y]) }],
    constants: new Map([['c', { shape: [3, 4], data }]]),
    tables: new Map(),
    inputs: [{ name: 'x', shape: [tokens, 4], factor: 1 }],
    outputs: [{ name: 'y', shape, factor: 1 }],
  };
}

const concat = (before: boolean) => (b: BlockBuilder, x: Value) =>
  b.op('tensor.concat_tokens', [x], { constant: 'c', before, count: 3 }, 'concat');
const select = (first: number, count: number) => (b: BlockBuilder, x: Value) =>
  b.op('tensor.select_tokens', [x], { first, count }, 'select');

const moves: readonly [string, number, (b: BlockBuilder, x: Value) => Value][] = [
  ['constants before, across blocks', 11, concat(true)],
  ['constants before, from one block to several', 5, concat(true)],
  ['constants after', 12, concat(false)],
  ['constants after, from one block to several', 8, concat(false)],
  ['a token of a later block', 13, select(9, 1)],
  ['tokens of two blocks in one', 13, select(2, 4)],
  ['most tokens', 16, select(1, 15)],
  ['the last tokens', 15, select(6, 9)],
  ['the mean', 13, (b, x) => b.op('tensor.mean_tokens', [x], {}, 'mean')],
];

describe('movements of tokens over blocks', () => {
  it.each(moves.flatMap((move) => [1, 2, 4].map((blocks) => [...move, blocks] as const)))(
    '%s: %i tokens %#',
    (_, tokens, move, tokenBlocks) => {
      const module = movements(tokens, move);
      const next = random(5);
      const input = { x: Float64Array.from({ length: tokens * 4 }, () => next()) };
      const { result, ranges } = packed(module, [input], { tokenBlocks });
      agrees(result, module, input);
      agrees(planLevels(result, measureBounds(result, ranges)), module, input);
    },
  );
});
