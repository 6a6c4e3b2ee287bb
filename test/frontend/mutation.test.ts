import onnxProto from 'onnx-proto';
import { expect, it } from 'vitest';
import { importModel, readGraph } from '../../src/frontend/index.js';
import { kernels } from '../../src/frontend/kernels/table.js';
import { verifyModule } from '../../src/ir/verifier.js';
import { AegisError } from '../../src/support/diagnostics.js';
import { mutate, seededRandom } from '../data/random.js';
import { Chain, encode, ints, weights } from './onnx-builder.js';

const mutationCount = 2000;
const maxMillis = 2000;

/** One attention layer with a folded shape chain: short, but with every kind of field. */
function victim(): Uint8Array {
  const c = new Chain();
  const heads = (seed: number) => {
    const own = c.step('MatMul', ['x', weights(seed, 4, 4)]);
    const sizes = c.step('Concat', [c.step('Shape', ['x']), ints(2)], { axis: 0 });
    const shape = c.step('Where', [c.step('Equal', [sizes, ints(4)]), ints(2), sizes]);
    return c.step('Transpose', [c.step('Reshape', [c.step('Add', [own, weights(9, 4)]), shape])], {
      perm: [0, 2, 1, 3],
    });
  };
  const [q, k, v] = [heads(1), heads(2), heads(3)];
  const scores = c.step('MatMul', [q, c.step('Transpose', [k], { perm: [0, 1, 3, 2] })]);
  const mixed = c.step('MatMul', [c.step('Softmax', [scores], { axis: -1 }), v]);
  const flat = c.step('Reshape', [c.step('Transpose', [mixed], { perm: [0, 2, 1, 3] }), ints(1, 3, 4)]);
  const normal = c.step('LayerNormalization', [c.step('Add', [flat, 'x']), weights(4, 4), weights(5, 4)]);
  const token = c.step('Slice', [normal, ints(0), ints(1), ints(1)]);
  return encode(c.model({ x: [1, 3, 4] }, c.step('Gelu', [token]), 20));
}

/** True for a module; a coded refusal is fine too, anything else is not. */
function outcome(bytes: Uint8Array, what: string): boolean {
  const start = process.hrtime.bigint();
  let accepted = false;
  try {
    const graph = readGraph({ bytes }, { seqLen: 3 });
    expect(
      verifyModule(graph.lower()).map((d) => d.message),
      what,
    ).toEqual([]);
    accepted = true;
  } catch (error) {
    if (!(error instanceof AegisError)) throw new Error(`${what}: ${String((error as Error).stack)}`);
    expect(
      error.diagnostics.every((d) => /^F[12]\d\d$/.test(d.code)),
      `${what}: ${error.message}`,
    ).toBe(true);
  }
  expect(Number(process.hrtime.bigint() - start) / 1e6, `milliseconds of ${what}`).toBeLessThan(maxMillis);
  return accepted;
}

it(`${mutationCount} mutated files give a verified module or a coded refusal, quickly`, () => {
  const bytes = victim();
  expect(verifyModule(importModel({ bytes }).module)).toEqual([]);
  const random = seededRandom(Number(process.env.AEGIS_SEED ?? 20240601));
  const before = process.memoryUsage().arrayBuffers;
  let accepted = 0;
  for (let i = 0; i < mutationCount; i++) accepted += outcome(mutate(bytes, random), `mutant ${i}`) ? 1 : 0;
  expect(accepted).toBeGreaterThan(20);
  expect(accepted).toBeLessThan(mutationCount - 200);
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 ** 30);
});

const { onnx } = onnxProto;

/** Edits that keep the protobuf sound: other operators, inputs, attributes and small numbers. */
function editGraph(bytes: Uint8Array, random: (below: number) => number): Uint8Array {
  const model = onnx.ModelProto.decode(bytes);
  const nodes = model.graph?.node ?? [];
  const tensors = model.graph?.initializer ?? [];
  const names = [
    ...tensors.map((tensor) => tensor.name ?? ''),
    ...nodes.flatMap((node) => node.output ?? []),
    'x',
    '',
  ];
  const pick = <T>(list: readonly T[]): T => list[random(list.length)] as T;
  const small = () => pick([-2, -1, 0, 1, 2, 3, 4, 7, 1 << 20, 2 ** 40]);
  for (let edits = 1 + random(3); edits > 0; edits--) {
    const node = pick(nodes);
    switch (random(5)) {
      case 0:
        node.opType = pick([...kernels.keys()]);
        break;
      case 1:
        if (node.input && node.input.length > 0) node.input[random(node.input.length)] = pick(names);
        break;
      case 2:
        node.input?.push(pick(names));
        break;
      case 3: {
        const name = pick([
          'axis',
          'to',
          'keepdims',
          'is_causal',
          'group',
          'transA',
          'value_int',
          'epsilon',
          'perm',
          'pads',
        ]);
        const list = Array.from({ length: random(5) }, small);
        node.attribute?.push(random(2) === 0 ? { name, type: 2, i: small() } : { name, type: 7, ints: list });
        break;
      }
      default: {
        const tensor = pick(tensors);
        if (tensor.dataType !== 7 || !tensor.rawData || tensor.rawData.length === 0) break;
        const raw = new Uint8Array(tensor.rawData);
        new DataView(raw.buffer).setBigInt64(8 * random(raw.length / 8), BigInt(small()), true);
        tensor.rawData = raw;
      }
    }
  }
  return onnx.ModelProto.encode(model).finish();
}

it(`${mutationCount} edited graphs give a verified module or a coded refusal, quickly`, () => {
  const bytes = victim();
  const random = seededRandom(Number(process.env.AEGIS_SEED ?? 7));
  let accepted = 0;
  for (let i = 0; i < mutationCount; i++)
    accepted += outcome(editGraph(bytes, random), `mutant ${i}`) ? 1 : 0;
  expect(accepted).toBeGreaterThan(20);
});
