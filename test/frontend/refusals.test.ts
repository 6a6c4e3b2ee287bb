import { mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import onnxProto from 'onnx-proto';
import { describe, expect, it } from 'vitest';
import { frontendCodes } from '../../src/frontend/codes.js';
import { importModel, readGraph } from '../../src/frontend/index.js';
import { maxElements } from '../../src/frontend/model.js';
import {
  Chain,
  encode,
  floats,
  ints,
  modelProto,
  refusalOf,
  weights,
  type ModelSpec,
} from './onnx-builder.js';

const { onnx } = onnxProto;
const seen = new Set<string>();

/** The codes of a refused model; remembers that they were tested. */
function codesOf(run: () => unknown): string[] {
  const { codes } = refusalOf(run);
  codes.forEach((code) => seen.add(code));
  return codes;
}

const importBytes = (bytes: Uint8Array) => () => importModel({ bytes });
const importSpec = (spec: ModelSpec) => importBytes(encode(spec));

function plain(): ModelSpec {
  const c = new Chain();
  return c.model({ x: [1, 4, 8] }, c.step('MatMul', ['x', weights(1, 8, 8)]));
}

type Proto = ReturnType<typeof modelProto>;

function edited(edit: (model: Proto) => void): () => unknown {
  const model = modelProto(plain());
  edit(model);
  return importBytes(onnx.ModelProto.encode(model).finish());
}

describe('malformed files', () => {
  it('F101: not ONNX, truncated, empty, missing', () => {
    const bytes = encode(plain());
    expect(codesOf(importBytes(Buffer.from('this is no protobuf at all')))).toEqual(['F101']);
    expect(codesOf(importBytes(bytes.subarray(0, bytes.length - 20)))).toEqual(['F101']);
    expect(codesOf(importBytes(new Uint8Array()))).toEqual(['F101']);
    expect(codesOf(() => importModel('/nonexistent/model.onnx'))).toEqual(['F101']);
  });

  it('F102: more elements than any model has', () => {
    const huge = onnx.TensorProto.create({
      name: 'w',
      dataType: 1,
      dims: [maxElements, 3],
      rawData: new Uint8Array(8),
    });
    expect(codesOf(edited((m) => m.graph?.initializer?.push(huge)))).toEqual(['F102']);
  });

  it('F103: unsupported element types', () => {
    const complex = onnx.TensorProto.create({
      name: 'w',
      dataType: 14,
      dims: [1],
      rawData: new Uint8Array(8),
    });
    expect(codesOf(edited((m) => m.graph?.initializer?.push(complex)))).toEqual(['F103']);
  });

  it('F104: sizes and data disagree', () => {
    const short = onnx.TensorProto.create({
      name: 'w',
      dataType: 1,
      dims: [4, 4],
      rawData: new Uint8Array(8),
    });
    const typed = onnx.TensorProto.create({ name: 'v', dataType: 7, dims: [4], int64Data: [1, 2] });
    expect(codesOf(edited((m) => m.graph?.initializer?.push(short, typed)))).toEqual(['F104', 'F104']);
  });

  it('F106: opset too old or too new', () => {
    for (const opset of [8, 99]) expect(codesOf(importSpec({ ...plain(), opset }))).toEqual(['F106']);
  });

  it('F107: outputs that nothing makes, inputs without a shape', () => {
    expect(codesOf(importSpec({ ...plain(), outputs: ['nothing'] }))).toEqual(['F107']);
    expect(
      codesOf(
        edited((m) => {
          const type = m.graph?.input?.[0]?.type?.tensorType;
          if (type) delete type.shape;
        }),
      ),
    ).toEqual(['F107']);
  });

  it('F108, F109, F110: undefined, doubly defined and circular values', () => {
    const node = (input: string, out: string) => ({ op: 'Relu', in: [input], out: [out] });
    const model = (...nodes: ReturnType<typeof node>[]): ModelSpec => ({
      inputs: { x: [1, 2] },
      outputs: ['y'],
      nodes,
    });
    expect(codesOf(importSpec(model(node('a', 'y'), node('b', 'z'))))).toEqual(['F108', 'F108']);
    expect(codesOf(importSpec(model(node('x', 'y'), node('x', 'y'))))).toEqual(['F109']);
    expect(codesOf(importSpec(model(node('b', 'a'), node('a', 'b'), node('x', 'y'))))).toEqual(['F110']);
  });

  it('sorts nodes that are out of order', () => {
    const nodes = [
      { op: 'Relu', in: ['a'], out: ['y'] },
      { op: 'Relu', in: ['x'], out: ['a'] },
    ];
    expect(() => importSpec({ inputs: { x: [1, 2] }, outputs: ['y'], nodes })()).not.toThrow();
  });

  it('F111: subgraphs, functions, sparse tensors', () => {
    const body = onnx.GraphProto.create({ name: 'body' });
    const branch = onnx.NodeProto.create({
      opType: 'If',
      input: ['x'],
      output: ['b'],
      attribute: [{ name: 'then_branch', type: 5, g: body }],
    });
    expect(codesOf(edited((m) => m.graph?.node?.push(branch)))).toEqual(['F111']);
    const call = onnx.NodeProto.create({ opType: 'Mine', domain: 'local', input: ['x'], output: ['b'] });
    expect(
      codesOf(
        edited((m) => {
          m.functions.push(onnx.FunctionProto.create({ name: 'Mine', domain: 'local' }));
          m.graph?.node?.push(call);
        }),
      ),
    ).toEqual(['F111']);
    expect(
      codesOf(
        edited((m) => {
          if (m.graph) m.graph.sparseInitializer = [{ dims: [1] }];
        }),
      ),
    ).toEqual(['F111']);
  });

  it('F113: inputs that do not fit', () => {
    const c = new Chain();
    expect(codesOf(importSpec(c.model({ x: [1, 4, 8] }, c.step('MatMul', ['x', weights(1, 9, 8)]))))).toEqual(
      ['F113'],
    );
  });

  it('F114: a folded constant too large to be one', () => {
    const c = new Chain();
    const big = c.step('Expand', [floats([1], [1]), ints(16384, 16384)]);
    expect(
      codesOf(importSpec(c.model({ x: [1, 4] }, c.step('Add', ['x', c.step('ReduceSum', [big])])))),
    ).toEqual(['F114']);
  });

  it('F115: inputs of a run', () => {
    const graph = readGraph({ bytes: encode(plain()) });
    expect(codesOf(() => graph.run({}))).toEqual(['F115']);
    expect(codesOf(() => graph.run({ x: [1, 2, 3] }))).toEqual(['F115']);
  });
});

describe('external data', () => {
  function withExternal(location: string, extra: Record<string, string> = {}): Uint8Array {
    const model = modelProto(plain());
    const [tensor] = model.graph?.initializer ?? [];
    if (!tensor) throw new Error('no initializer');
    delete tensor.rawData;
    tensor.dataLocation = 1;
    tensor.externalData = Object.entries({ location, ...extra }).map(([key, value]) => ({ key, value }));
    return onnx.ModelProto.encode(model).finish();
  }
  const data = new Uint8Array(Float32Array.from(weights(1, 8, 8).floats ?? []).buffer);

  it('gives the same module as inline data', () => {
    const bytes = withExternal('w.bin', { offset: '16', length: '256' });
    const padded = new Uint8Array(16 + 256);
    padded.set(data, 16);
    const external = importModel({
      bytes,
      externalData: (name) => (name === 'w.bin' ? padded : undefined),
    }).module;
    const inline = importModel({ bytes: encode(plain()) }).module;
    expect([...external.constants]).toEqual([...inline.constants]);
    expect(external.sourceHash).not.toBe(inline.sourceHash);
  });

  it('F105: missing, outside of the folder, short, negative', () => {
    const load = (bytes: Uint8Array) => () => importModel({ bytes, externalData: () => data });
    expect(codesOf(importBytes(withExternal('w.bin')))).toEqual(['F105']);
    for (const location of ['../w.bin', '/etc/passwd', 'a/../../w.bin', 'C:\\w.bin', '']) {
      expect(codesOf(load(withExternal(location)))).toEqual(['F105']);
    }
    expect(codesOf(load(withExternal('w.bin', { offset: '1' })))).toEqual(['F105']);
    expect(codesOf(load(withExternal('w.bin', { offset: '-1' })))).toEqual(['F105']);
    expect(codesOf(load(withExternal('w.bin', { length: '12' })))).toEqual(['F104']);
  });

  it('F105: a symbolic link out of the folder', () => {
    const folder = mkdtempSync(join(tmpdir(), 'aegis-'));
    mkdirSync(join(folder, 'model'));
    writeFileSync(join(folder, 'secret.bin'), data);
    symlinkSync(join(folder, 'secret.bin'), join(folder, 'model/w.bin'));
    const path = join(folder, 'model/m.onnx');
    writeFileSync(path, withExternal('w.bin'));
    expect(codesOf(() => importModel(path))).toEqual(['F105']);
  });
});

describe('dynamic dimensions', () => {
  function dynamic(): Uint8Array {
    const c = new Chain();
    return encode(c.model({ x: ['batch', 'tokens', 8] }, c.step('MatMul', ['x', weights(1, 8, 8)])));
  }

  it('the batch is one, the sequence needs a value', () => {
    const refused = refusalOf(importBytes(dynamic()));
    expect(codesOf(importBytes(dynamic()))).toEqual(['F112']);
    expect(refused.text).toContain('tokens');
    expect(refused.text).toContain('--dim tokens=value or --seq-len n');
    expect(importModel({ bytes: dynamic() }, { seqLen: 3 }).module.inputs[0]?.shape).toEqual([1, 3, 8]);
    expect(importModel({ bytes: dynamic() }, { dims: { tokens: 7 } }).module.inputs[0]?.shape).toEqual([
      1, 7, 8,
    ]);
    expect(codesOf(() => importModel({ bytes: dynamic() }, { seqLen: 0 }))).toEqual(['F112']);
  });
});

describe('what is not supported on encrypted values', () => {
  it('is reported completely, by node name', () => {
    const c = new Chain();
    const a = c.step('MatMul', [c.step('Softmax', ['x']), weights(3, 8, 8)]);
    const b = c.step('MatMul', [c.step('Floor', ['x']), weights(1, 8, 8)]);
    const d = c.step('Div', [weights(5, 4, 8), b]);
    const e = c.step('MatMul', [c.step('Ceil', [d]), weights(4, 8, 8)]);
    const refused = refusalOf(importSpec(c.model({ x: [1, 4, 8] }, [a, e])));
    expect(refused.codes).toEqual(['F201', 'F201', 'F202', 'F202']);
    expect(refused.nodes.sort()).toEqual(['n0_Softmax', 'n2_Floor', 'n4_Div', 'n5_Ceil']);
    refused.codes.forEach((code) => seen.add(code));
  });

  it('names fused operators of other domains', () => {
    const c = new Chain();
    const spec = c.model({ x: [1, 4, 8] }, c.step('QAttention', ['x'], {}, 1, 'com.microsoft'));
    const { codes, text } = refusalOf(importSpec(spec));
    expect(codes).toEqual(['F201']);
    expect(text).toContain('com.microsoft.QAttention is not known');
    expect(text).toContain('export with weights quantised only');
  });

  it('names what a fused operator has that its expansion has not', () => {
    const c = new Chain();
    const inputs = ['x', weights(1, 8, 24), weights(2, 24), '', weights(3, 2, 1, 2, 4, 4)];
    const out = c.step('Attention', inputs, { num_heads: 2 }, 1, 'com.microsoft');
    const { codes, text } = refusalOf(importSpec(c.model({ x: [1, 4, 8] }, out)));
    expect(codes).toEqual(['F202']);
    expect(text).toContain('input 4 is not supported');
  });

  function attention(mask: (c: Chain, scores: string) => string): ModelSpec {
    const batch = 1;
    const c = new Chain();
    const [q, k, v] = [1, 2, 3].map((seed) => {
      const own = c.step('Reshape', [c.step('MatMul', ['x', weights(seed, 8, 8)]), ints(batch, 4, 2, 4)]);
      return c.step('Transpose', [own], { perm: [0, 2, 1, 3] });
    }) as [string, string, string];
    const scores = c.step('MatMul', [q, c.step('Transpose', [k], { perm: [0, 1, 3, 2] })]);
    const mixed = c.step('MatMul', [c.step('Softmax', [mask(c, scores)], { axis: -1 }), v]);
    const flat = c.step('Reshape', [c.step('Transpose', [mixed], { perm: [0, 2, 1, 3] }), ints(batch, 4, 8)]);
    return c.model({ x: [batch, 4, 8] }, flat);
  }
  it('F203: masks that hide all keys from a query, or are no masks', () => {
    const closed = floats([4, 4], [0, 0, 0, 0, ...new Array<number>(12).fill(Number.NEGATIVE_INFINITY)]);
    expect(codesOf(importSpec(attention((c, s) => c.step('Add', [s, closed]))))).toEqual(['F203']);
    const some = { dims: [1, 1, 1, 4], bools: [true, true, true, false] };
    expect(codesOf(importSpec(attention((c, s) => c.step('Where', [some, s, c.scalar(2)]))))).toEqual([
      'F203',
    ]);
    const heads = floats([2, 1, 4], [0, 0, 0, -1e9, 0, 0, 0, 0]);
    expect(codesOf(importSpec(attention((c, s) => c.step('Add', [s, heads]))))).toEqual(['F203']);
    expect(() => importSpec(attention((_, s) => s))()).not.toThrow();
  });

  it('F205: outputs that nothing encrypted enters, or that need an input after decryption', () => {
    const c = new Chain();
    const vectors = c.step('Gather', [weights(1, 20, 8), 'i_ids']);
    const out = c.step('MatMul', [vectors, weights(2, 8, 8)]);
    expect(importSpec(c.model({ i_ids: [1, 4] }, [out, vectors]))).not.toThrow();
    const next = c.step('Add', ['i_ids', ints(1)]);
    expect(codesOf(importSpec(c.model({ i_ids: [1, 4] }, [out, next])))).toEqual(['F205']);
    const late = c.step('Mod', [c.step('ArgMax', [out], { axis: -1, keepdims: 0 }), 'i_ids']);
    expect(codesOf(importSpec(c.model({ i_ids: [1, 4] }, late)))).toEqual(['F205']);
  });

  it('F206: shapes that depend on encrypted data', () => {
    const d = new Chain();
    const ids = d.step('Cast', [d.step('Relu', ['x'])], { to: 7 });
    const moved = d.step('MatMul', [d.step('Reshape', ['x', ids]), weights(1, 4, 4)]);
    expect(codesOf(importSpec(d.model({ x: [1, 4] }, moved)))).toEqual(['F206']);
  });
});

it('every code of the frontend has been seen', () => {
  // F3xx: client.test.ts.
  const own = Object.keys(frontendCodes).filter((code) => !code.startsWith('F3'));
  expect(own.filter((code) => !seen.has(code))).toEqual([]);
});
