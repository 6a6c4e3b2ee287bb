/** Packing of model inputs into slots and reading of outputs, by the SlotMap of a port (module.ts). */
import { defined, invariant } from '../../support/invariant.js';
import type { Module, Port, SlotMap } from '../module.js';

/** N/2, from the parameters or, before they are chosen, from the ports. */
export function slotCount(module: Module): number {
  if (module.parameters !== null) return module.parameters.slots;
  const port = [...module.inputs, ...module.outputs].find((one) => one.slots !== undefined);
  return slotsOf(defined(port?.slots, 'slot map of any port of a module without parameters'));
}

function slotsOf({ period, tokens, blocks = 1 }: SlotMap): number {
  return (period * tokens.length) / blocks;
}

/** Slot vectors of the port's array elements; `data` is row-major over the port's shape, real values. */
export function packInput(port: Port, data: Float64Array): Float64Array[] {
  const map = mapOf(port);
  invariant(data.length === elementCount(port), `input ${port.name} has ${data.length} values`);
  const elements = Array.from({ length: map.features.length / map.period }, () => {
    return new Float64Array(slotsOf(map));
  });
  visitSlots(map, (element, slot, index) => {
    (elements[element] as Float64Array)[slot] = (data[index] as number) / port.factor;
  });
  return elements;
}

/** The port's tensor, row-major over its shape. Where slots repeat a value, the first one is read. */
export function unpackOutput(port: Port, elements: readonly Float64Array[]): Float64Array {
  const map = mapOf(port);
  const count = map.features.length / map.period;
  invariant(elements.length === count, `output ${port.name} has ${elements.length} elements, not ${count}`);
  const data = new Float64Array(elementCount(port));
  const seen = new Uint8Array(data.length);
  visitSlots(map, (element, slot, index) => {
    if (seen[index] === 1) return;
    seen[index] = 1;
    data[index] = ((elements[element] as Float64Array)[slot] as number) * port.factor;
  });
  return data;
}

/** Visits every used slot with the flat index of its tensor element. */
export function visitSlots(
  map: SlotMap,
  visit: (element: number, slot: number, index: number) => void,
): void {
  const { period, features, tokens, blocks = 1 } = map;
  const groups = tokens.length / blocks;
  const elements = features.length / period;
  for (let element = 0; element < elements; element++) {
    const first = Math.floor((element * blocks) / elements) * groups;
    for (let t = 0; t < groups; t++) {
      const token = tokens[first + t] as number;
      if (token < 0) continue;
      for (let u = 0; u < period; u++) {
        const feature = features[element * period + u] as number;
        if (feature >= 0) visit(element, u + period * t, feature + token);
      }
    }
  }
}

export function elementCount(port: Port): number {
  return port.shape.reduce((product, size) => product * size, 1);
}

function mapOf(port: Port): SlotMap {
  return defined(port.slots, `slot map of port ${port.name}`);
}
