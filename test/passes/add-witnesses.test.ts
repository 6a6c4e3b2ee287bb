import { describe, expect, it } from 'vitest';
import { runCipher } from '../../src/ir/interpreter/cipher.js';
import { isWitness } from '../../src/ir/module.js';
import { rangeViolations } from '../../src/passes/add-witnesses.js';
import { calibrateModule } from '../../src/passes/calibrate.js';
import { defaultPack, runPipeline } from '../../src/passes/pipeline.js';
import { runWithNoise } from '../../src/passes/predict-error.js';
import { defaultLiteral, makeParameters } from '../../src/target/parameters.js';
import { randomInput, tinyTransformer, type TinyShape } from './tiny-transformer.js';

const parameters = makeParameters(defaultLiteral('tiny', true));
const shape: TinyShape = { tokens: 8, width: 16, heads: 2, hidden: 32, sharpness: 1 };
const tensor = tinyTransformer(shape, 7);
const inputs = Array.from({ length: 8 }, (_, i) => ({ x: randomInput(shape, 100 + i) }));
const ranges = calibrateModule(tensor, inputs);

function compiled(witnesses: boolean) {
  const context = { parameters, ranges, pack: defaultPack, witnesses };
  return runPipeline(
    tensor,
    context,
    () => 0,
    () => undefined,
  ).module;
}

const witnessed = compiled(true);

describe('add-witnesses', () => {
  it('makes an output at level 0 for every argument, and changes nothing else', () => {
    const plain = compiled(false);
    const results = witnessed.functions.find(({ name }) => name === 'main')?.body.results ?? [];
    const names = witnessed.outputs.map(({ name }) => name.replace(/^aegis\.witness\/\d+\//, '* '));
    expect(names).toEqual(['logits', '* attention', '* attention', '* norm1', '* gelu', '* norm2', '* tanh']);
    witnessed.outputs.forEach(({ name }, i) => {
      if (isWitness(name)) expect(results[i]?.type).toMatchObject({ level: 0 });
    });
    const [input] = inputs;
    expect(runCipher(witnessed, input!).logits).toEqual(runCipher(plain, input!).logits);
  });

  it('says nothing of inputs like those of calibration, noise included', () => {
    const { outputs } = runWithNoise(witnessed, [{ x: randomInput(shape, 300) }], 3);
    expect(rangeViolations(witnessed.outputs, outputs[0]!)).toEqual([]);
  });

  it('names the first node that left its range', () => {
    const x = randomInput(shape, 300).map((value) => 4 * value);
    const violations = rangeViolations(witnessed.outputs, runCipher(witnessed, { x }));
    expect(violations[0]?.node).toBe('attention');
    expect(violations[0]?.largest).toBeGreaterThan(1.001);
  });
});
