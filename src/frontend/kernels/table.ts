/** Every ONNX operator the evaluator knows; what is not here is refused by name. */
import type { Node } from '../model.js';
import { activationKernels } from './activation.js';
import type { Kernel } from './call.js';
import { elementwiseKernels } from './elementwise.js';
import { generateKernels } from './generate.js';
import { linearKernels } from './linear.js';
import { movementKernels } from './movement.js';
import { reduceKernels } from './reduce.js';

export const kernels: ReadonlyMap<string, Kernel> = new Map(
  Object.entries({
    ...movementKernels,
    ...elementwiseKernels,
    ...activationKernels,
    ...reduceKernels,
    ...linearKernels,
    ...generateKernels,
  }),
);

export function kernelOf(node: Node): Kernel | undefined {
  return node.domain === '' ? kernels.get(node.opType) : undefined;
}

/** Multiply-adds per element of the result, roughly; 1 for everything but products. */
export function workPerElement(node: Node, shapes: readonly (readonly number[] | undefined)[]): number {
  if (!(node.opType in linearKernels)) return 1;
  return Math.max(1, ...(shapes[0] ?? []).slice(-1), ...(shapes[1] ?? []).slice(1));
}
