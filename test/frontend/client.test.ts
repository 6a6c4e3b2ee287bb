/** The cut: what the client computes before encryption and after decryption, against ONNX Runtime. */
import onnxProto from 'onnx-proto';
import { describe, expect, it } from 'vitest';
import { ClientProgram, importModel, requireKept } from '../../src/frontend/index.js';
import { runTensor } from '../../src/ir/interpreter/tensor.js';
import type { ClientParts, Module } from '../../src/ir/module.js';
import { parseModule } from '../../src/ir/parser.js';
import { printModule } from '../../src/ir/printer.js';
import { AegisError } from '../../src/support/diagnostics.js';
import { mutate, seededRandom } from '../data/random.js';
import {
  Chain,
  encode,
  floats,
  ints,
  kindsOf,
  maxDifference,
  refusalOf,
  runOnnxRuntime,
  weights,
  type Feed,
  type ModelSpec,
} from './onnx-builder.js';

const { onnx } = onnxProto;
const tokens = 4;

function programOf(module: Module): ClientProgram {
  return new ClientProgram(module.client, module.inputs, module.outputs);
}

/** Outputs of prologue, tensor module and epilogue against ONNX Runtime; returns the module. */
async function check(spec: ModelSpec, feed: Feed): Promise<Module> {
  const bytes = encode(spec);
  const { module } = importModel({ bytes });
  const wanted = await runOnnxRuntime(bytes, feed);
  const client = programOf(module);
  const inputs = Object.fromEntries(Object.entries(feed).map(([name, { data }]) => [name, data]));
  const outputs = client.decode(runTensor(module, client.encode(inputs)));
  expect(outputs.map(({ name }) => name)).toEqual([...spec.outputs]);
  for (const { name, data } of outputs) expect(maxDifference(data, wanted[name] ?? [])).toBeLessThan(2e-5);
  return module;
}

const ids: Feed = { i_ids: { dims: [1, tokens], data: [3, 0, 19, 7] } };

/** Embedding, positions and the first normalisation; `next` continues from the hidden state. */
function classifier(next: (c: Chain, hidden: string) => string | string[]): ModelSpec {
  const c = new Chain();
  const words = c.step('Gather', [weights(1, 20, 8), 'i_ids']);
  const hidden = c.step('LayerNormalization', [
    c.step('Add', [words, weights(2, tokens, 8)]),
    weights(3, 8),
    weights(4, 8),
  ]);
  return c.model({ i_ids: [1, tokens] }, next(c, hidden));
}

describe('the prologue', () => {
  it('embeds and normalises in the clear; linear maps run encrypted', async () => {
    const spec = classifier((c, hidden) => c.step('MatMul', [hidden, weights(5, 8, 3)]));
    const module = await check(spec, ids);
    expect(kindsOf(module)).toEqual(['rearrange', 'linear']);
    expect(module.inputs.map(({ shape }) => shape)).toEqual([[1, tokens, 8]]);
    const [input] = programOf(module).inputs;
    expect(input).toMatchObject({ name: 'i_ids', dtype: 'int64', shape: [1, tokens], limit: 20 });
  });

  it('makes one port of a value and of its transposition', async () => {
    const spec = classifier((c, hidden) => {
      const first = c.step('Transpose', [hidden], { perm: [1, 0, 2] });
      const mixed = c.step('Transpose', [c.step('MatMul', [first, weights(5, 8, 8)])], { perm: [1, 0, 2] });
      return c.step('Add', [mixed, hidden]);
    });
    expect((await check(spec, ids)).inputs).toHaveLength(1);
  });

  it('makes a port of every value that the encrypted part reads', async () => {
    const spec = classifier((c, hidden) => {
      const other = c.step('Tanh', [hidden]);
      return c.step('Add', [c.step('MatMul', [other, weights(5, 8, 8)]), hidden]);
    });
    expect((await check(spec, ids)).inputs).toHaveLength(2);
  });

  it('encrypts a value in two arrangements twice', async () => {
    const spec = classifier((c, hidden) => {
      const crossed = c.step('Transpose', [hidden], { perm: [0, 2, 1] });
      const mixed = c.step('MatMul', [crossed, weights(5, tokens, 8)]);
      return [mixed, c.step('MatMul', [hidden, weights(6, 8, 8)])];
    });
    const module = await check(spec, ids);
    expect(new Set(module.inputs.map(({ name }) => name)).size).toBe(2);
  });

  it('computes outer products of positions', async () => {
    const c = new Chain();
    const positions = c.step('Cast', [c.step('Reshape', ['i_ids', ints(tokens, 1)])], { to: 1 });
    const angles = c.step('MatMul', [positions, weights(1, 1, 8)]);
    const out = c.step('MatMul', [c.step('Cos', [angles]), weights(2, 8, 8)]);
    expect((await check(c.model({ i_ids: [1, tokens] }, out), ids)).inputs).toHaveLength(1);
  });

  it('stands beside float inputs', async () => {
    const c = new Chain();
    const words = c.step('Gather', [weights(1, 20, 8), 'i_ids']);
    const own = c.step('MatMul', ['x', weights(2, 8, 8)]);
    const spec = c.model({ x: [1, tokens, 8], i_ids: [1, tokens] }, c.step('Add', [own, words]));
    const feed = { ...ids, x: { dims: [1, tokens, 8], data: weights(7, tokens * 8).floats ?? [] } };
    const module = await check(spec, feed);
    expect(programOf(module).inputs.map(({ name }) => name)).toEqual(['i_ids', 'x']);
  });

  it('keeps all integer types and attributes of other kinds', async () => {
    const c = new Chain();
    const mask = c.step('Cast', ['i_ids'], { to: 9 });
    const narrow = c.step('Cast', [c.step('Cast', [mask], { to: 3 })], { to: 6 });
    const filled = c.step('ConstantOfShape', [ints(1, tokens)], { value: floats([1], [0.5]) });
    const sum = c.step('Add', [c.step('Cast', [narrow], { to: 1 }), filled]);
    const steep = c.step('LeakyRelu', [c.step('Sub', [sum, c.scalar(1)])], { alpha: { float: 1 } });
    const out = c.step('MatMul', [steep, weights(2, tokens, 8)]);
    await check(c.model({ i_ids: [1, tokens] }, out), ids);
  });

  it('refuses what it was not compiled for', () => {
    const { module } = importModel({
      bytes: encode(classifier((c, hidden) => c.step('MatMul', [hidden, weights(5, 8, 3)]))),
    });
    const client = programOf(module);
    const codes = (values: Record<string, number[]>) => refusalOf(() => client.encode(values)).codes;
    expect(codes({})).toEqual(['F115']);
    expect(codes({ i_ids: [1, 2, 3] })).toEqual(['F115']);
    expect(codes({ i_ids: [1, 2, 3, 0.5] })).toEqual(['F115']);
    expect(codes({ i_ids: [1, 2, 3, 20] })).toEqual(['F302']);
  });
});

describe('the epilogue', () => {
  it('takes what cannot run encrypted after the last encrypted operator', async () => {
    const spec = classifier((c, hidden) => {
      const logits = c.step('MatMul', [hidden, weights(5, 8, 3)]);
      const softmax = c.step('Softmax', [logits], { axis: -1 });
      const best = c.step('ArgMax', [softmax], { axis: -1, keepdims: 0 });
      c.nodes.push({ op: 'Identity', in: [best], out: ['i_class'] });
      return ['i_class', softmax, logits];
    });
    const module = await check(spec, ids);
    expect(module.outputs).toHaveLength(1);
    expect(kindsOf(module)).toEqual(['rearrange', 'linear']);
  });

  it('takes arrangements that no layout has', async () => {
    const spec = classifier((c, hidden) =>
      c.step('Transpose', [c.step('MatMul', [hidden, weights(5, 8, 3)])], { perm: [0, 2, 1] }),
    );
    await check(spec, ids);
  });

  it('leaves linear maps of the body encrypted, and refuses what stands before them', () => {
    const spec = classifier((c, hidden) => {
      const floor = c.step('Floor', [c.step('MatMul', [hidden, weights(5, 8, 8)])]);
      return c.step('MatMul', [floor, weights(6, 8, 3)]);
    });
    expect(refusalOf(() => importModel({ bytes: encode(spec) })).codes).toEqual(['F201']);
  });
});

describe('the shortest request', () => {
  it('is asked for by name', () => {
    const c = new Chain();
    const mask = c.step('Unsqueeze', [c.step('Cast', ['i_ids'], { to: 1 }), ints(2)]);
    const hidden = c.step('MatMul', ['x', weights(1, 8, 8)]);
    const { module } = importModel({
      bytes: encode(c.model({ x: [1, tokens, 8], i_ids: [1, tokens] }, c.step('Mul', [hidden, mask]))),
    });
    const port = module.inputs.find(({ name }) => name !== 'x')?.name ?? '';
    const client = requireKept(module.client, port, 3, 'at least 3 tokens');
    const program = programOf({ ...module, client });
    const x = weights(7, tokens * 8).floats ?? [];
    expect([...(program.encode({ x, i_ids: [1, 1, 1, 0] })[port] ?? [])]).toEqual([1, 1, 1, 0]);
    const refused = refusalOf(() => program.encode({ x, i_ids: [1, 1, 0, 0] }));
    expect(refused.codes).toEqual(['F302']);
    expect(refused.text).toContain('at least 3 tokens');
  });
});

/** A module with both parts. */
function victim(): Module {
  const spec = classifier((c, hidden) => {
    const logits = c.step('MatMul', [hidden, weights(5, 8, 3)]);
    return c.step('ArgMax', [logits], { axis: -1 });
  });
  return importModel({ bytes: encode(spec) }).module;
}

describe('client parts as files', () => {
  it('are ONNX files that ONNX Runtime runs', async () => {
    const module = victim();
    const prologue = module.client?.prologue ?? new Uint8Array();
    const made = await runOnnxRuntime(prologue, ids);
    const encoded = programOf(module).encode({ i_ids: ids.i_ids?.data ?? [] });
    for (const { name } of module.inputs) {
      expect(maxDifference(encoded[name] ?? [], made[name] ?? [])).toBeLessThan(1e-5);
    }
  });

  it('survive the text of the module', () => {
    const module = victim();
    const back = parseModule(printModule(module));
    expect(back.client).toEqual(module.client);
    expect(printModule(module, { data: 'hash', locations: false })).toContain('client prologue sha256');
  });

  it('F301: parts that do not fit the ports', () => {
    const module = victim();
    const { client, inputs, outputs } = module;
    const wrong = (parts: ClientParts | undefined, shape: readonly number[]) =>
      refusalOf(
        () =>
          new ClientProgram(
            parts,
            inputs.map((port) => ({ ...port, shape })),
            outputs,
          ),
      ).codes;
    expect(wrong(client, [1, tokens, 7])).toEqual(['F301']);
    const swapped = { prologue: client?.epilogue ?? null, epilogue: client?.prologue ?? null };
    expect(wrong(swapped, [1, tokens, 8])).toEqual(['F301']);
    expect(wrong({ prologue: new Uint8Array(), epilogue: null }, [1, tokens, 8])).toEqual(['F301']);
    const vast = onnx.ModelProto.decode(client?.prologue ?? new Uint8Array());
    for (const input of vast.graph?.input ?? []) {
      const dims = input.type?.tensorType?.shape?.dim ?? [];
      for (const dim of dims) dim.dimValue = 2 ** 15;
    }
    const bytes = onnx.ModelProto.encode(vast).finish();
    expect(wrong({ prologue: bytes, epilogue: null }, [1, tokens, 8])).toEqual(['F301']);
  });

  it('mutated, are refused by code or run', () => {
    const module = victim();
    const random = seededRandom(Number(process.env.AEGIS_SEED ?? 20261123));
    const values = { i_ids: ids.i_ids?.data ?? [] };
    let refused = 0;
    for (let i = 0; i < 600; i++) {
      const part = i % 2 === 0 ? 'prologue' : 'epilogue';
      const bytes = mutate(module.client?.[part] ?? new Uint8Array(), random);
      const parts = { prologue: null, epilogue: null, ...module.client, [part]: bytes };
      try {
        const client = new ClientProgram(parts, module.inputs, module.outputs);
        client.decode(runTensor(module, client.encode(values)));
      } catch (error) {
        if (!(error instanceof AegisError)) throw error;
        expect(error.diagnostics.every(({ code }) => ['F115', 'F301', 'F302'].includes(code))).toBe(true);
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(100);
    expect(refused).toBeLessThan(600);
  });
});
