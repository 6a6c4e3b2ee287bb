import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { countCipher } from '../../src/backend/summary.js';
import { compile } from '../../src/compile.js';
import { decrypt, encrypt, keygen, run } from '../../src/executor/index.js';
import { runCipher } from '../../src/ir/interpreter/cipher.js';
import { runTensor } from '../../src/ir/interpreter/tensor.js';
import type { Module, Op } from '../../src/ir/module.js';
import { parseModule } from '../../src/ir/parser.js';
import { printModule } from '../../src/ir/printer.js';
import { nodeRanges } from '../../src/passes/calibrate.js';
import { mergeDuplicates } from '../../src/passes/merge-duplicates.js';
import { outlineLayers } from '../../src/passes/outline-layers.js';
import { packModule } from '../../src/passes/pack/index.js';
import { cipherPipeline, defaultPack, rotationSteps, runPipeline } from '../../src/passes/pipeline.js';
import { unifyRanges } from '../../src/passes/unify-ranges.js';
import { defaultLiteral, makeParameters } from '../../src/target/parameters.js';
import { defined } from '../../src/support/invariant.js';
import { bert, smallBert, type Bert } from './bert.js';

const parameters = makeParameters(defaultLiteral('tiny', true));
const length = 8;

/** The module after every pass, by name; a name that occurs twice holds the last. */
function stages({ module, ranges }: Bert, outline?: number): Map<string, Module> {
  const found = new Map<string, Module>();
  const context = { parameters, ranges, pack: defaultPack, outline };
  runPipeline(
    module,
    context,
    () => 0,
    (pass, result) => found.set(found.has(pass.name) ? `${pass.name} 2` : pass.name, result),
  );
  return found;
}

const layerCalls = (module: Module): readonly Op[] =>
  defined(module.functions.at(-1), 'main').body.ops.filter((op) => op.attrs.callee === 'layer');

const outputOf = (module: Module, input: Record<string, Float64Array>): Float64Array =>
  defined(runCipher(module, input)['last_hidden_state'], 'output');

describe('outline-layers', () => {
  const three = bert(smallBert, length);
  const passes = stages(three);

  it('makes one function of three layers and leaves the values as they are', () => {
    const outlined = defined(passes.get('outline-layers'), 'outlined');
    expect(outlined.functions.map((func) => func.name)).toEqual(['layer', 'main']);
    expect(layerCalls(outlined)).toHaveLength(3);
    const merged = defined(passes.get('merge-duplicates'), 'merged');
    for (const input of three.inputs) expect(outputOf(outlined, input)).toEqual(outputOf(merged, input));
  });

  it('prints and parses', () => {
    const text = printModule(defined(passes.get('outline-layers'), 'outlined'));
    expect(printModule(parseModule(text))).toBe(text);
  });

  it('keeps the node of the first layer, and of every layer on its call', () => {
    const outlined = defined(passes.get('outline-layers'), 'outlined');
    const [layer, main] = outlined.functions;
    expect(layer?.body.ops.every((op) => !op.loc.includes('layer.1'))).toBe(true);
    const calls = main?.body.ops.filter((op) => op.kind === 'call').map((op) => op.loc);
    expect(calls?.map((loc) => /layer\.\d/.exec(loc)?.[0])).toEqual(['layer.0', 'layer.1', 'layer.2']);
  });

  it('plans the layer with one level at its border, and the plan computes the model', () => {
    const planned = defined(passes.get('plan-levels'), 'planned');
    const layer = defined(planned.functions[0], 'layer').body;
    const levels = [layer.args[0], layer.results[0]].map((value) =>
      value?.type.kind === 'ct' ? value.type.level : undefined,
    );
    expect(levels[0]).toBe(levels[1]);
    const final = defined(passes.get('merge-duplicates 2'), 'final');
    for (const input of three.inputs) {
      const wanted = defined(runTensor(three.module, input)['last_hidden_state'], 'reference');
      outputOf(final, input).forEach((value, i) => {
        expect(Math.abs(value - (wanted[i] ?? NaN))).toBeLessThan(0.02);
      });
    }
  });

  it('counts what runs, not what is written', () => {
    const final = defined(passes.get('merge-duplicates 2'), 'final');
    const counts = countCipher(final);
    const once = countCipher({
      ...final,
      functions: final.functions.map((func) =>
        func.name === 'main' ? { ...func, body: { ...func.body, ops: layerCalls(final).slice(0, 1) } } : func,
      ),
    });
    expect(once.bootstraps).toBeGreaterThan(0);
    expect(counts).toEqual({
      bootstraps: 3 * once.bootstraps,
      rotations: 3 * once.rotations,
      ctMultiplications: 3 * once.ctMultiplications,
    });
  });

  it('leaves two layers alone unless it is asked to', () => {
    const two = bert({ ...smallBert, layers: 2 }, length);
    const unified = unifyRanges(two.module, { nodes: nodeRanges(two.ranges), values: new Map() }, 2);
    const once = packModule(two.module, parameters, unified.nodes);
    // As the pipeline does: the second layer must not choose by the keys of the first.
    const packed = mergeDuplicates(
      packModule(two.module, parameters, unified.nodes, { steps: rotationSteps(once) }),
    );
    expect(outlineLayers(packed).functions).toHaveLength(1);
    expect(layerCalls(outlineLayers(packed, 2))).toHaveLength(2);
  });

  it('stands before plan-levels', () => {
    const names = cipherPipeline.map((pass) => pass.name);
    expect(names.indexOf('plan-levels')).toBe(names.indexOf('outline-layers') + 1);
  });
});

describe('outlined layers, encrypted', () => {
  const folder = mkdtempSync(join(tmpdir(), 'aegis-layers-'));
  const at = (name: string): string => join(folder, name);
  const model = bert(smallBert, length);
  beforeAll(() => writeFileSync(at('bert.onnx'), model.bytes));
  afterAll(() => rmSync(folder, { recursive: true }));

  it.each([3, 0])(
    'outline %i: within the predicted error of the model',
    async (outline) => {
      const { plan, weights, cipher, tensor } = await compile(at('bert.onnx'), {
        ring: 'small',
        insecure: true,
        ranges: model.ranges,
        outline,
      });
      expect(cipher.functions.some((func) => func.name === 'layer')).toBe(outline === 3);
      const predicted = defined(cipher.outputs[0]?.predictedError, 'predicted error');
      expect(predicted).toBeLessThan(0.05);
      writeFileSync(at('plan.aegis'), plan);
      writeFileSync(at('plan.aegis.weights'), weights);
      await keygen({ plan: at('plan.aegis'), directory: folder, seed: 1 });
      const input = defined(model.inputs[0], 'input');
      const files = { plan: at('plan.aegis'), in: at('request.ct'), out: at('response.ct') };
      await encrypt({ plan: files.plan, key: at('public.key'), inputs: input, out: files.in });
      await run({ ...files, keys: at('eval.keys') });
      const { outputs } = await decrypt({ plan: files.plan, key: at('secret.key'), in: files.out });
      const wanted = defined(runTensor(tensor, input)['last_hidden_state'], 'reference');
      const found = defined(outputs['last_hidden_state'], 'output');
      const worst = wanted.reduce((max, x, i) => Math.max(max, Math.abs(x - (found[i] ?? NaN))), 0);
      expect(worst).toBeLessThan(predicted);
    },
    600_000,
  );
});
