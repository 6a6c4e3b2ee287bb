/** Masks that are inputs of the model, added to scores or chosen by, against ONNX Runtime. */
import { describe, expect, it } from 'vitest';
import { ClientProgram, importModel, type DimensionOptions } from '../../src/frontend/index.js';
import { runTensor } from '../../src/ir/interpreter/tensor.js';
import type { Module } from '../../src/ir/module.js';
import { defined } from '../../src/support/invariant.js';
import {
  Chain,
  encode,
  floats,
  ints,
  maxDifference,
  refusalOf,
  runOnnxRuntime,
  weights,
  type ModelSpec,
} from './onnx-builder.js';
import { added, additive, attention, both, causal, inverted, low, rows, tokens } from './masked-attention.js';

const prefix = [1, 1, 1, 1, 0, 0];
const holes = [1, 0, 0, 1, 0, 1];
const all = [1, 1, 1, 1, 1, 1];

function open(module: Module): ClientProgram {
  return new ClientProgram(module.client, module.inputs, module.outputs);
}

async function check(
  spec: ModelSpec,
  masks: readonly (readonly number[])[],
  options: DimensionOptions = {},
): Promise<Module> {
  const bytes = encode(spec);
  const { module } = importModel({ bytes }, options);
  const client = open(module);
  const [name = ''] = Object.keys(spec.inputs).filter((one) => one !== 'x');
  const dims = (spec.inputs[name] ?? []).map(Number);
  const shape = (spec.inputs['x'] ?? []).map(Number);
  const x = weights(9, ...shape).floats ?? [];
  for (const data of masks) {
    const feed = { x: { dims: shape, data: x }, [name]: { dims, data } };
    const wanted = Object.values(await runOnnxRuntime(bytes, feed))[0] ?? [];
    const [output] = client.decode(runTensor(module, client.encode({ x, [name]: data })));
    expect(maxDifference(output?.data ?? [], wanted)).toBeLessThan(2e-5);
  }
  return module;
}

const refused = (module: Module, mask: readonly number[]): string => {
  const x = new Float64Array(tokens * 8);
  const { codes, text } = refusalOf(() => open(module).encode({ x, mask }));
  expect(codes).toEqual(['F302']);
  return text;
};

describe('masks that are float inputs', () => {
  it('[1, 1, 1, S], added: encrypted as ones and zeros for each key', async () => {
    const module = await check(attention([1, 1, 1, tokens], added), [prefix, holes, all].map(additive));
    expect(module.inputs.map(({ shape }) => shape)).toEqual([
      [1, tokens, 8],
      [1, 1, 1, tokens],
    ]);
    expect(
      defined(
        open(module).inputs.find(({ name }) => name === 'mask'),
        'mask',
      ).open,
    ).toEqual(new Float64Array(tokens));
  });

  it('minus infinity drops a key', async () => {
    await check(attention([1, 1, 1, tokens], added), [prefix.map((one) => (one === 1 ? 0 : -Infinity))]);
  });

  it('[1, S] of ones and zeros', async () => {
    const module = await check(attention([1, tokens], inverted), [prefix, holes, all]);
    expect(refused(module, [1, 1, 1, 1, 0.97, 1])).toContain('for all queries alike');
  });

  it('[1, 1, S, S], the same for all queries', async () => {
    const spec = attention([1, 1, tokens, tokens], added);
    const module = await check(spec, [additive(rows(prefix, tokens)), additive(rows(all, tokens))]);
    expect(refused(module, additive(both(all, causal)))).toContain('for all queries alike');
  });

  it('[S, S]', async () => {
    await check(attention([tokens, tokens], added), [additive(rows(holes, tokens))]);
  });

  it('[2, 1, S, S]: items of a batch with masks of their own', async () => {
    const spec = attention([2, 1, tokens, tokens], added, { items: 2 });
    await check(spec, [[...additive(rows(prefix, tokens)), ...additive(rows(holes, tokens))]]);
  });

  it('[1, 1, S, S] causal, as samples show', async () => {
    const spec = attention([1, 1, tokens, tokens], added);
    const shown = { masks: { mask: [additive(both(prefix, causal)), additive(both(all, causal))] } };
    const padded = [prefix, all, [1, 0, 1, 1, 0, 1]].map((kept) => additive(both(kept, causal)));
    const module = await check(spec, padded, shown);
    expect(refused(module, additive(rows(prefix, tokens)))).toContain('what the samples show');
    expect(refused(module, additive(both([0, 1, 1, 1, 1, 1], causal)))).toContain('first token');
    // What a plan keeps of the samples makes the same module again.
    const seen = defined(open(module).inputs.find(({ name }) => name === 'mask')?.open, 'open mask');
    const again = importModel({ bytes: encode(spec) }, { masks: { mask: [seen] } }).module;
    expect(again.client?.prologue).toEqual(module.client?.prologue);
  });

  it('[1, 2, S, S] with position biases by head, as samples show', async () => {
    const spec = attention([1, 2, tokens, tokens], added);
    const biases = (kept: readonly number[]): number[] =>
      Array.from({ length: 2 * tokens * tokens }, (_, i) => {
        const [head, query] = [Math.floor(i / tokens ** 2), Math.floor(i / tokens) % tokens];
        return kept[i % tokens] === 1 ? -Math.abs(query - (i % tokens)) / 2 ** (head + 1) : low;
      });
    const module = await check(spec, [biases(prefix), biases(all)], { masks: { mask: [biases(all)] } });
    expect(
      refused(
        module,
        biases(all).map((one) => 2 * one),
      ),
    ).toContain('what the samples show');
  });

  it('masked pooling with the same input', async () => {
    const spec = attention([1, tokens], inverted);
    const c = new Chain();
    c.nodes.push(...spec.nodes);
    Object.assign(c.constants, spec.constants);
    const column = c.step('Reshape', ['mask', ints(1, tokens, 1)]);
    const kept = c.step('Mul', [spec.outputs[0] ?? '', column]);
    const sum = c.step('ReduceSum', [kept, ints(1)], { keepdims: 0 });
    const count = c.step('ReduceSum', ['mask', ints(1)], { keepdims: 1 });
    const module = await check(
      { ...spec, outputs: [c.step('Div', [sum, count])], nodes: c.nodes, constants: c.constants },
      [prefix, holes],
    );
    // One for the mask, one for 1 / count.
    expect(module.inputs).toHaveLength(3);
    expect(refused(module, [1, 1, 1, 1, 1, 0.5])).toContain('factors of tokens');
  });

  it('without padding they cost nothing', async () => {
    const spec = attention([1, 1, 1, tokens], added);
    const module = await check(spec, [additive(all)], { noPadding: true });
    expect(module.inputs.map(({ name }) => name)).toEqual(['x']);
    expect(refused(module, additive(prefix))).toContain('closes no key');
  });

  it('F203: what is added is no mask', () => {
    const spec = attention([1, 1, 1, tokens], (c, s) =>
      c.step('Add', [
        s,
        c.step('Mul', [
          'mask',
          floats(
            [tokens],
            [1, 2, 3, 4, 5, 6].map((i) => i / 1e5),
          ),
        ]),
      ]),
    );
    expect(refusalOf(() => importModel({ bytes: encode(spec) })).codes).toEqual(['F203']);
  });
});

describe('masks that are integer inputs of four dimensions', () => {
  it('[1, 1, S, S] causal, as samples show', async () => {
    const spec = attention(
      [1, 1, tokens, tokens],
      (c, s) => c.step('Where', [c.step('Cast', ['i_mask'], { to: 9 }), s, c.scalar(-Infinity)]),
      { name: 'i_mask' },
    );
    const shown = { masks: { i_mask: [both(all, causal)] } };
    const module = await check(spec, [both(prefix, causal), both(all, causal)], shown);
    const x = new Float64Array(tokens * 8);
    expect(refusalOf(() => open(module).encode({ x, i_mask: rows(all, tokens) })).codes).toEqual(['F302']);
  });
});
