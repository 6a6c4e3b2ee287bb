/** Further outputs that show slots as they are: of nodes (tap-nodes), of ranges (add-witnesses). */
import { BlockBuilder, Ids } from '../ir/builder.js';
import { entryName, type Block, type Module, type Port, type SlotMap, type Value } from '../ir/module.js';
import { axesCount } from '../ir/types.js';
import { defined, invariant } from '../support/invariant.js';

export interface RawOutput {
  readonly name: string;
  readonly value: Value;
}

/** Ops that `make` builds go to the end of `main`; its values become outputs of shape [elements, slots]. */
export function withRawOutputs(
  module: Module,
  make: (builder: BlockBuilder) => readonly RawOutput[],
): Module {
  const builder = new BlockBuilder(new Ids(firstFreeId(module)), module.parameters);
  const outputs = make(builder);
  const { ops } = builder.finish([]);
  const { slots } = defined(module.parameters, 'parameters');
  const ports = outputs.map(({ name, value }): Port => {
    invariant(value.type.kind === 'ct', 'an output is a ciphertext array');
    const elements = axesCount(value.type.axes);
    return { name, shape: [elements, slots], slots: rawSlots(elements, slots), factor: 1 };
  });
  return {
    ...module,
    functions: module.functions.map((func) => {
      if (func.name !== entryName) return func;
      const results = [...func.body.results, ...outputs.map(({ value }) => value)];
      return { ...func, body: { ...func.body, ops: [...func.body.ops, ...ops], results } };
    }),
    outputs: [...module.outputs, ...ports],
  };
}

/** Slot u of element e is value e * slots + u. */
function rawSlots(elements: number, slots: number): SlotMap {
  return {
    period: slots,
    features: Int32Array.from({ length: elements * slots }, (_, i) => i),
    tokens: Int32Array.of(0),
  };
}

function firstFreeId({ functions }: Module): number {
  let next = 0;
  const block = ({ args, ops }: Block): void => {
    for (const { id } of args) next = Math.max(next, id + 1);
    for (const op of ops) {
      for (const { id } of op.results) next = Math.max(next, id + 1);
      op.regions.forEach(block);
    }
  };
  functions.forEach(({ body }) => block(body));
  return next;
}
