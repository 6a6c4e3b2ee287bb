/** One attention whose mask is an input of the model. */
import { Chain, ints, weights, type ModelSpec } from './onnx-builder.js';

export const tokens = 6;
export const low = -1e4;

/** One attention of two heads over float tokens; `mask` makes masked scores [items, 2, T, T]. */
export function attention(
  dims: readonly number[],
  mask: (c: Chain, scores: string) => string,
  { items = 1, name = 'mask' }: { items?: number; name?: string } = {},
): ModelSpec {
  const c = new Chain();
  const [q, k, v] = [1, 2, 3].map((seed) => {
    const own = c.step('Reshape', [c.step('MatMul', ['x', weights(seed, 8, 8)]), ints(items, tokens, 2, 4)]);
    return c.step('Transpose', [own], { perm: [0, 2, 1, 3] });
  }) as [string, string, string];
  const scores = c.step('MatMul', [q, c.step('Transpose', [k], { perm: [0, 1, 3, 2] })]);
  const mixed = c.step('MatMul', [c.step('Softmax', [mask(c, scores)], { axis: -1 }), v]);
  const turned = c.step('Transpose', [mixed], { perm: [0, 2, 1, 3] });
  return c.model(
    { x: [items, tokens, 8], [name]: dims },
    c.step('Reshape', [turned, ints(items, tokens, 8)]),
  );
}

export const added = (c: Chain, s: string): string => c.step('Add', [s, 'mask']);
/** Of 0 and 1: (1 - m) * -10000. */
export const inverted = (c: Chain, s: string): string => {
  const far = c.step('Mul', [c.step('Sub', [c.scalar(1), 'mask']), c.scalar(low)]);
  return c.step('Add', [s, c.step('Reshape', [far, ints(1, 1, 1, tokens)])]);
};

export const additive = (kept: readonly number[]): number[] => kept.map((one) => (one === 1 ? 0 : low));
export const rows = (row: readonly number[], count: number): number[] =>
  Array.from({ length: count }, () => row).flat();
export const both = (kept: readonly number[], see: (query: number, key: number) => boolean): number[] =>
  rows(kept, tokens).map((one, i) => (see(Math.floor(i / tokens), i % tokens) ? one : 0));
export const causal = (query: number, key: number): boolean => key <= query;
