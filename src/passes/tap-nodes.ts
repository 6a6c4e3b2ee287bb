/**
 * tap-nodes: a final cipher module whose outputs are, besides its own, the last value that every ONNX node
 * makes in `main`, as raw slots. For debugging: whoever decrypts such outputs sees what the model computes
 * inside. Values inside of functions (layers that were outlined, bootstraps) and loops are not tapped.
 */
import { Ids, BlockBuilder } from '../ir/builder.js';
import {
  entryName,
  type Block,
  type Module,
  type Op,
  type Port,
  type SlotMap,
  type Value,
} from '../ir/module.js';
import { canonicalScale, scalesEqual } from '../ir/scale.js';
import { axesCount, type CtType } from '../ir/types.js';
import { defined } from '../support/invariant.js';

export interface Tap {
  /** ONNX node. */
  readonly node: string;
  /** Output port of the tapped module: [elements, slots], slot values as they are. */
  readonly port: string;
  /** The value in the module that was given. */
  readonly value: Value;
}

export interface TappedModule {
  readonly module: Module;
  readonly taps: readonly Tap[];
}

/** Elements of an array that are decrypted: the first ones along every axis. */
const mostElements = 4;

/** Prefix of the ports; no ONNX value of a model that exporters write begins so. */
const portPrefix = 'aegis.node/';

/** Takes a cipher module with levels and without ct.polynomial; rounding points of its ops stay. */
export function tapNodes(module: Module): TappedModule {
  const main = defined(
    module.functions.find((func) => func.name === entryName),
    'main',
  );
  const last = new Map<string, Value>();
  for (const op of main.body.ops) for (const value of tappable(op)) last.set(op.loc, value);
  const builder = new BlockBuilder(new Ids(firstFreeId(module)), module.parameters);
  const taps: Tap[] = [];
  const ports: Port[] = [];
  const results: Value[] = [];
  for (const [node, value] of last) {
    const part = firstElements(builder, value, node);
    const elements = axesCount((part.type as CtType).axes);
    const { slots } = defined(module.parameters, 'parameters');
    const port = portPrefix + node;
    taps.push({ node, port, value });
    results.push(part);
    ports.push({ name: port, shape: [elements, slots], slots: rawSlots(elements, slots), factor: 1 });
  }
  const added = builder.finish([]).ops;
  const body = {
    ...main.body,
    ops: [...main.body.ops, ...added],
    results: [...main.body.results, ...results],
  };
  return {
    taps,
    module: {
      ...module,
      functions: module.functions.map((func) => (func === main ? { ...func, body } : func)),
      outputs: [...module.outputs, ...ports],
    },
  };
}

/** Decryption wants two components over the chain's primes, at the scale that its level stands for. */
function tappable(op: Op): readonly Value[] {
  return op.results.filter(({ type }) => {
    if (type.kind !== 'ct' || type.degree !== 1 || type.level === null || type.scale === null) return false;
    return type.basis.kind === 'q' && scalesEqual(type.scale, canonicalScale(type.level));
  });
}

/** At most `mostElements` of the array. */
function firstElements(builder: BlockBuilder, value: Value, loc: string): Value {
  let [part, left] = [value, mostElements];
  for (const { name, size } of (value.type as CtType).axes) {
    const kept = Math.min(size, left);
    if (kept < size) part = builder.op('ct.slice', [part], { axis: name, start: 0, size: kept }, loc);
    left = Math.floor(left / kept);
  }
  return part;
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
