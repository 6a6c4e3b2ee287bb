/**
 * tap-nodes: a final cipher module whose outputs are, besides its own, the last value that every ONNX node
 * makes in `main`, as raw slots. For debugging: whoever decrypts such outputs sees what the model computes
 * inside. Values inside of functions (layers that were outlined, bootstraps) and loops are not tapped.
 */
import type { BlockBuilder } from '../ir/builder.js';
import { entryName, type Module, type Op, type Value } from '../ir/module.js';
import { canonicalScale, scalesEqual } from '../ir/scale.js';
import type { CtType } from '../ir/types.js';
import { defined } from '../support/invariant.js';
import { withRawOutputs } from './raw-outputs.js';

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
  const taps = [...last].map(([node, value]): Tap => ({ node, port: portPrefix + node, value }));
  return {
    taps,
    module: withRawOutputs(module, (builder) =>
      taps.map(({ node, port, value }) => ({ name: port, value: firstElements(builder, value, node) })),
    ),
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
