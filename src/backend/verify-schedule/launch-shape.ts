/** What kernels.h states about the commands, and what a launch must look like whatever the rows. */
import { maxRank } from '../launch.js';
import type { Command, Opcode, Plaintext, View } from '../plan-view.js';

export interface OpTraits {
  /** Operands besides the output. */
  readonly reads: readonly ('a' | 'b')[];
  readonly plain?: true;
  /** Operands that the output may be. */
  readonly over?: readonly ('a' | 'b')[];
  /** May sum dimensions and accumulate. */
  readonly sums?: true;
  /** Polynomials at componentStride, of the output and of the operands; `digits`: digitCount. */
  readonly components?: readonly [number, number | 'digits'];
}

export type Kernel = Exclude<Opcode, 'loop' | 'call' | 'collective' | 'wait'>;

export const traits: Readonly<Record<Kernel, OpTraits>> = {
  zero: { reads: [] },
  copy: { reads: ['a'], sums: true },
  add: { reads: ['a', 'b'], over: ['a', 'b'] },
  sub: { reads: ['a', 'b'], over: ['a', 'b'] },
  add_plain: { reads: ['a'], plain: true, over: ['a'] },
  contract: { reads: ['a'], plain: true, sums: true },
  tensor: { reads: ['a', 'b'], sums: true, components: [3, 2] },
  ntt: { reads: ['a'], over: ['a'] },
  intt: { reads: ['a'], over: ['a'] },
  base_convert: { reads: ['a'] },
  sub_scale: { reads: ['a', 'b'], over: ['a', 'b'] },
  key_product: { reads: ['a'], sums: true, components: [2, 'digits'] },
  automorphism: { reads: ['a'], sums: true },
  ntt_sub_scale: { reads: ['a', 'b'], over: ['b'] },
};

export function shapeProblem(command: Command, trait: OpTraits, primes: number): string | undefined {
  const { dims, reduceRank, limbs, out } = command;
  if (dims.length > maxRank) return `${dims.length} batch dimensions`;
  if (dims.some((size) => size < 1) || reduceRank > dims.length) {
    return `dimensions [${dims.join()}], ${reduceRank} summed`;
  }
  if (trait.sums !== true && (reduceRank > 0 || command.accumulate)) {
    return 'this command neither sums nor accumulates';
  }
  if (limbs.length === 0 || limbs.some((limb) => limb >= primes)) {
    return `limbs [${limbs.join()}] of ${primes} primes`;
  }
  if (out !== null && out.strides.slice(dims.length - reduceRank).some((stride) => stride !== 0)) {
    return 'the output moves along a summed dimension';
  }
  const scales = command.op === 'sub_scale' || command.op === 'ntt_sub_scale';
  if (scales && command.scalars.length !== limbs.length) {
    return 'not one scalar for each limb';
  }
  return undefined;
}

/** `trips` of the innermost loop. */
export function turnProblem(command: Command, trips: number): string | undefined {
  const product = command.op === 'key_product';
  const dim = product ? command.keyDim : command.galoisDim;
  const entries = product ? command.keys : command.galois;
  const perIteration = product ? command.keysPerIteration : command.galoisPerIteration;
  if (dim >= command.dims.length) return `keys or rotations along dimension ${dim}`;
  const needed = (command.dims[dim] ?? 1) + (trips - 1) * perIteration;
  return entries.length < needed ? `${entries.length} keys or rotations, not ${needed}` : undefined;
}

/**
 * Is every row of the operand `plain` one of the plaintext, of the launch's limb or for all limbs? `trips` of
 * the loops around the command, outermost first.
 */
export function plainFits(
  command: Command,
  plain: View,
  plaintext: Plaintext,
  trips: readonly number[],
): boolean {
  const { limbs, coefficients } = plaintext;
  const count = coefficients ? 1 : limbs.length;
  const rows = plaintext.elements * count;
  let starts = [plain.offset];
  const moves = [
    ...command.dims.map((size, d) => ({ size, stride: plain.strides[d] ?? 0 })),
    ...trips.map((size, k) => ({ size, stride: plain.loopStrides[k] ?? 0 })),
  ];
  moves.forEach(({ size, stride }) => {
    if (stride === 0) return;
    starts = Array.from({ length: size * starts.length }, (_, i) => {
      const k = i % starts.length;
      return (starts[k] ?? 0) + ((i - k) / starts.length) * stride;
    });
  });
  return starts.every((start) =>
    command.limbs.every((limb, j) => {
      const row = start + j * plain.limbStride;
      return row >= 0 && row < rows && (coefficients ? plain.limbStride === 0 : limbs[row % count] === limb);
    }),
  );
}

export function sameNumbers(x: readonly number[], y: readonly number[]): boolean {
  return x.length === y.length && x.every((value, i) => value === y[i]);
}
