/**
 * The slot transform of CKKS as a product of butterfly stages, and its generalised diagonals. The C++ runtime
 * encodes the same recipe (`pt.dft`), so the convention is stated in full.
 *
 * Let S = N/2, zeta = exp(i*pi/N). A polynomial with coefficients m has slots z_k = m(zeta^(5^k)) for k in
 * 0..S-1, which is
 *     z_k = sum_j w_j zeta^(5^k j),   w_j = m_j + i m_(j+S)                     since zeta^(5^k N/2) = i.
 * With the w_j in bit-reversed order this is stage 1, then 2, ... log2(S) (HEAAN's special FFT). Stage s has
 * h = 2^(s-1), blocks of 2h slots, and at position j < h of each block the twiddle
 *     t(s, j) = exp(2 pi i * (5^j mod 8h) / (8h))  =  zeta^(5^j * N / (4h)):
 *     y[j] = x[j] + t x[j+h],     y[j+h] = x[j] - t x[j+h].
 * The inverse stage is the exact inverse, with its factor 1/2:
 *     x[j] = (y[j] + y[j+h]) / 2,   x[j+h] = conj(t) (y[j] - y[j+h]) / 2.
 * No stage permutes: SlotsToCoeffs (all stages) followed by CoeffsToSlots (all inverses, last stage first) is
 * the identity, and the coefficients in between are in bit-reversed order, which ModRaise does not mind.
 *
 * Diagonal d of a matrix A is the vector diagonal_d[p] = A[p][(p + d) mod S], so that
 *     (A x)[p] = sum_d diagonal_d[p] x[(p + d) mod S]:
 * the product is a sum of plaintexts times left rotations by d. A stage has the diagonals 0, h and -h.
 */
import { invariant } from '../../support/invariant.js';

export interface ComplexVector {
  readonly re: Float64Array;
  readonly im: Float64Array;
}

export interface SlotTransform {
  readonly slots: number;
  /**
   * False: stages first..first+count-1, the lowest applied first. True: their inverses, the highest applied
   * first.
   */
  readonly inverse: boolean;
  readonly first: number;
  readonly count: number;
}

/** Diagonals of the product of stages, by step in [0, slots); absent ones are zero. */
export function slotTransformDiagonals(transform: SlotTransform): Map<number, ComplexVector> {
  const { slots, inverse, first, count } = transform;
  const stages = Array.from({ length: count }, (_, i) => first + i);
  const last = first + count - 1;
  invariant(first >= 1 && 2 ** last <= slots, `stages ${first}..${last} of ${slots} slots`);
  if (inverse) stages.reverse();
  let product: Map<number, ComplexVector> | undefined;
  for (const stage of stages) {
    const next = stageDiagonals(slots, stage, inverse);
    product = product === undefined ? next : composed(next, product, slots);
  }
  return product ?? new Map();
}

/**
 * Steps in [0, slots) at which the product can have a non-zero diagonal: sums of 0, h, -h over the stages.
 */
export function slotTransformSteps(slots: number, first: number, count: number): Set<number> {
  let steps = new Set([0]);
  for (let stage = first; stage < first + count; stage++) {
    const h = 2 ** (stage - 1);
    steps = new Set([...steps].flatMap((step) => [step, (step + h) % slots, (step - h + slots) % slots]));
  }
  return steps;
}

function stageDiagonals(slots: number, stage: number, inverse: boolean): Map<number, ComplexVector> {
  const h = 2 ** (stage - 1);
  const result = new Map<number, ComplexVector>();
  const at = (step: number): ComplexVector => {
    const key = (step + slots) % slots;
    const found = result.get(key) ?? { re: new Float64Array(slots), im: new Float64Array(slots) };
    result.set(key, found);
    return found;
  };
  const [same, up, down] = [at(0), at(h), at(-h)];
  for (let j = 0, power = 1; j < h; j++, power = (power * 5) % (8 * h)) {
    const angle = (2 * Math.PI * power) / (8 * h);
    const [re, im] = [Math.cos(angle), Math.sin(angle)];
    for (let p = j; p < slots; p += 2 * h) {
      // The last stage has h = -h (mod slots): `up` and `down` are one diagonal, written at disjoint
      // positions.
      if (inverse) {
        [same.re[p], up.re[p], down.re[p + h]] = [0.5, 0.5, re / 2];
        [down.im[p + h], same.re[p + h], same.im[p + h]] = [-im / 2, -re / 2, im / 2];
      } else {
        [same.re[p], up.re[p], up.im[p]] = [1, re, im];
        [down.re[p + h], same.re[p + h], same.im[p + h]] = [1, -re, -im];
      }
    }
  }
  return result;
}

/**
 * Diagonals of `outer` times `inner`: entry p of diagonal d is the sum of outer_e[p] * inner_(d-e)[p + e].
 */
function composed(
  outer: Map<number, ComplexVector>,
  inner: Map<number, ComplexVector>,
  slots: number,
): Map<number, ComplexVector> {
  const result = new Map<number, ComplexVector>();
  for (const [e, a] of outer) {
    for (const [f, b] of inner) {
      const d = (e + f) % slots;
      const sum = result.get(d) ?? { re: new Float64Array(slots), im: new Float64Array(slots) };
      result.set(d, sum);
      for (let p = 0; p < slots; p++) {
        const q = (p + e) % slots;
        const ar = a.re[p] as number;
        const ai = a.im[p] as number;
        const br = b.re[q] as number;
        const bi = b.im[q] as number;
        sum.re[p] = (sum.re[p] as number) + ar * br - ai * bi;
        sum.im[p] = (sum.im[p] as number) + ar * bi + ai * br;
      }
    }
  }
  return result;
}
