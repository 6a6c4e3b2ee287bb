/** Small ONNX models, encoded with onnx-proto, and a seeded source of weights. */
import onnxProto from 'onnx-proto';
import * as ort from 'onnxruntime-node';
import { ClientProgram, readGraph, type ModelSource } from '../../src/frontend/index.js';
import { runTensor } from '../../src/ir/interpreter/tensor.js';
import type { Module } from '../../src/ir/module.js';
import { verifyModule } from '../../src/ir/verifier.js';
import { expect } from 'vitest';
import { seededRandom } from '../data/random.js';

const { onnx } = onnxProto;

export interface TensorSpec {
  readonly dims: readonly number[];
  readonly floats?: readonly number[];
  readonly ints?: readonly number[];
  readonly bools?: readonly boolean[];
}

type AttributeSpec = number | string | readonly number[] | TensorSpec | { readonly float: number };

export interface NodeSpec {
  readonly op: string;
  readonly in: readonly string[];
  readonly out: readonly string[];
  readonly attrs?: Readonly<Record<string, AttributeSpec>>;
  readonly name?: string;
  readonly domain?: string;
}

export interface ModelSpec {
  readonly opset?: number;
  /** Sizes, or names of dynamic dimensions; int64 when the name starts with `i_`. */
  readonly inputs: Readonly<Record<string, readonly (number | string)[]>>;
  readonly outputs: readonly string[];
  readonly nodes: readonly NodeSpec[];
  readonly constants?: Readonly<Record<string, TensorSpec>>;
}

export function floats(dims: readonly number[], values: readonly number[]): TensorSpec {
  return { dims, floats: values };
}

export function ints(...values: number[]): TensorSpec {
  return { dims: [values.length], ints: values };
}

/** Weights of about unit norm a row, the same on every run. */
export function weights(seed: number, ...dims: number[]): TensorSpec {
  const random = seededRandom(seed * 7919 + 17);
  const count = dims.reduce((a, b) => a * b, 1);
  const scale = 1.5 / Math.sqrt(dims.at(-1) ?? 1);
  return floats(
    dims,
    Array.from({ length: count }, () => Math.fround(scale * (random(20001) / 10000 - 1))),
  );
}

export function tensorProto(name: string, spec: TensorSpec): InstanceType<typeof onnx.TensorProto> {
  const dims = [...spec.dims];
  if (spec.floats !== undefined) {
    const rawData = new Uint8Array(Float32Array.from(spec.floats).buffer);
    return onnx.TensorProto.create({ name, dims, dataType: 1, rawData });
  }
  if (spec.bools !== undefined) {
    return onnx.TensorProto.create({ name, dims, dataType: 9, int32Data: spec.bools.map(Number) });
  }
  const rawData = new Uint8Array(BigInt64Array.from(spec.ints ?? [], BigInt).buffer);
  return onnx.TensorProto.create({ name, dims, dataType: 7, rawData });
}

function attribute(name: string, value: AttributeSpec): InstanceType<typeof onnx.AttributeProto> {
  if (typeof value === 'number') return onnx.AttributeProto.create({ name, type: 2, i: value });
  if (typeof value === 'string') return onnx.AttributeProto.create({ name, type: 3, s: Buffer.from(value) });
  if ('float' in value) return onnx.AttributeProto.create({ name, type: 1, f: value.float });
  if ('dims' in value) return onnx.AttributeProto.create({ name, type: 4, t: tensorProto('', value) });
  return onnx.AttributeProto.create({ name, type: 7, ints: [...value] });
}

export function modelProto(spec: ModelSpec): InstanceType<typeof onnx.ModelProto> {
  const value = (name: string, dims: readonly (number | string)[] | undefined) => ({
    name,
    type: {
      tensorType: {
        elemType: name.startsWith('i_') ? 7 : 1,
        ...(dims === undefined
          ? {}
          : {
              shape: {
                dim: dims.map((dim) => (typeof dim === 'string' ? { dimParam: dim } : { dimValue: dim })),
              },
            }),
      },
    },
  });
  return onnx.ModelProto.create({
    irVersion: 8,
    opsetImport: [
      { domain: '', version: spec.opset ?? 17 },
      ...[...new Set(spec.nodes.map(({ domain }) => domain ?? ''))]
        .filter((domain) => domain !== '')
        .map((domain) => ({ domain, version: 1 })),
    ],
    graph: {
      name: 'fixture',
      input: Object.entries(spec.inputs).map(([name, dims]) => value(name, dims)),
      output: spec.outputs.map((name) => value(name, undefined)),
      initializer: Object.entries(spec.constants ?? {}).map(([name, tensor]) => tensorProto(name, tensor)),
      node: spec.nodes.map((node, i) => ({
        name: node.name ?? `n${i}_${node.op}`,
        opType: node.op,
        domain: node.domain ?? '',
        input: [...node.in],
        output: [...node.out],
        attribute: Object.entries(node.attrs ?? {}).map(([name, own]) => attribute(name, own)),
      })),
    },
  });
}

export function encode(spec: ModelSpec): Uint8Array {
  return onnx.ModelProto.encode(modelProto(spec)).finish();
}

/** A chain of nodes: `step` appends one and returns the name of its value. */
export class Chain {
  readonly nodes: NodeSpec[] = [];
  readonly constants: Record<string, TensorSpec> = {};

  step(
    op: string,
    inputs: readonly (string | TensorSpec)[],
    attrs: NodeSpec['attrs'] = {},
    outputs = 1,
    domain = '',
  ): string {
    const names = inputs.map((input) => (typeof input === 'string' ? input : this.constant(input)));
    const out = Array.from({ length: outputs }, (_, i) => `v${this.nodes.length}${i === 0 ? '' : `_${i}`}`);
    this.nodes.push({ op, in: names, out, attrs, domain });
    return out[0] ?? '';
  }

  constant(spec: TensorSpec): string {
    const name = `c${Object.keys(this.constants).length}`;
    this.constants[name] = spec;
    return name;
  }

  scalar(value: number): TensorSpec {
    return floats([], [value]);
  }

  model(inputs: ModelSpec['inputs'], output: string | readonly string[], opset = 17): ModelSpec {
    const outputs = typeof output === 'string' ? [output] : output;
    return { opset, inputs, outputs, nodes: this.nodes, constants: this.constants };
  }
}

export type Feed = Readonly<
  Record<string, { readonly dims: readonly number[]; readonly data: readonly number[] }>
>;

export async function runOnnxRuntime(
  source: string | Uint8Array,
  feed: Feed,
  dtypes: Readonly<Record<string, string>> = {},
): Promise<Record<string, readonly number[]>> {
  const options = { logSeverityLevel: 4 as const };
  const session =
    typeof source === 'string'
      ? await ort.InferenceSession.create(source, options)
      : await ort.InferenceSession.create(source, options);
  const tensors = Object.fromEntries(
    Object.entries(feed)
      .filter(([name]) => session.inputNames.includes(name))
      .map(([name, { dims, data }]) => [
        name,
        (dtypes[name] ?? (name.startsWith('i_') ? 'int64' : 'float32')) === 'int64'
          ? new ort.Tensor('int64', BigInt64Array.from(data, BigInt), dims)
          : new ort.Tensor('float32', Float32Array.from(data), dims),
      ]),
  );
  const results = await session.run(tensors);
  return Object.fromEntries(
    session.outputNames.map((name) => [
      name,
      Array.from(results[name]?.data as ArrayLike<number | bigint>, Number),
    ]),
  );
}

export function maxDifference(a: ArrayLike<number | bigint>, b: ArrayLike<number | bigint>): number {
  expect(a.length).toBe(b.length);
  let worst = 0;
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [Number(a[i]), Number(b[i])];
    if (Object.is(x, y) || (Number.isNaN(x) && Number.isNaN(y))) continue;
    const difference = Math.abs(x - y);
    worst = Math.max(worst, Number.isNaN(difference) ? Infinity : difference);
  }
  return worst;
}

/** Raw evaluator and canonical module against ONNX Runtime on one input; returns the module. */
export async function checkAgainstOnnxRuntime(spec: ModelSpec, tolerance = 2e-5): Promise<Module> {
  const bytes = encode(spec);
  const graph = readGraph({ bytes });
  const feed: Feed = Object.fromEntries(
    graph.inputs.map(({ name, shape }, i) => [
      name,
      { dims: shape, data: (weights(100 + i, ...shape).floats ?? []).map((x) => x * 2) },
    ]),
  );
  const wanted = await runOnnxRuntime(bytes, feed);
  const inputs = Object.fromEntries(Object.entries(feed).map(([name, { data }]) => [name, data]));
  const raw = graph.run(inputs);
  const module = graph.lower();
  expect(verifyModule(module)).toEqual([]);
  const client = new ClientProgram(module.client, module.inputs, module.outputs);
  const decoded = client.decode(runTensor(module, inputs));
  const results = Object.fromEntries(decoded.map(({ name, data }) => [name, data]));
  for (const name of spec.outputs) {
    expect(maxDifference(raw[name]?.data ?? [], wanted[name] ?? []), `raw ${name}`).toBeLessThan(tolerance);
    expect(maxDifference(results[name] ?? [], wanted[name] ?? []), `tensor ${name}`).toBeLessThan(tolerance);
  }
  return module;
}

export function kindsOf(module: Module): string[] {
  return (module.functions[0]?.body.ops ?? []).map((op) => op.kind.replace('tensor.', ''));
}

/** Codes of a refusal, sorted; fails if there is none. */
export function refusalOf(run: () => unknown): {
  codes: string[];
  text: string;
  nodes: (string | undefined)[];
} {
  try {
    run();
  } catch (error) {
    const { diagnostics } = error as { diagnostics?: readonly { code: string; node?: string }[] };
    if (diagnostics === undefined) throw error;
    return {
      codes: diagnostics.map((d) => d.code).sort(),
      text: (error as Error).message,
      nodes: diagnostics.map((d) => d.node),
    };
  }
  throw new Error('nothing was refused');
}

export const fromBytes = (bytes: Uint8Array): ModelSource => ({ bytes });
