/** Functions of real rows in double precision, shared by the tensor interpreter and the ONNX evaluator. */

/**
 * erf(x) = 2/sqrt(pi) exp(-x^2) sum_n 2^n x^(2n+1) / (1*3*...*(2n+1)) (Abramowitz and Stegun 7.1.6). All
 * terms are positive, so nothing cancels: accurate to a few units in the last place.
 */
export function erf(x: number): number {
  const size = Math.abs(x);
  if (!(size < 6)) return Number.isNaN(x) ? NaN : Math.sign(x);
  let term = size;
  let sum = size;
  for (let n = 1; term > sum * 1e-17; n++) {
    term *= (2 * size * size) / (2 * n + 1);
    sum += term;
  }
  return (Math.sign(x) * 2 * Math.exp(-size * size) * sum) / Math.sqrt(Math.PI);
}

export function gelu(x: number): number {
  return 0.5 * x * (1 + erf(x * Math.SQRT1_2));
}

/** The tanh form of Hendrycks and Gimpel. */
export function geluTanh(x: number): number {
  return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x)));
}

export function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

export function silu(x: number): number {
  return x * sigmoid(x);
}

export function relu(x: number): number {
  return x > 0 ? x : 0;
}

/** Softmax of `size` elements at `offset`, in place; the row maximum is subtracted first. */
export function softmaxRow(values: Float64Array, offset: number, size: number): void {
  let max = -Infinity;
  for (let i = 0; i < size; i++) max = Math.max(max, values[offset + i] as number);
  let sum = 0;
  for (let i = 0; i < size; i++) {
    const e = Math.exp((values[offset + i] as number) - max);
    values[offset + i] = e;
    sum += e;
  }
  for (let i = 0; i < size; i++) values[offset + i] = (values[offset + i] as number) / sum;
}

/** (x - mean) / sqrt(variance + epsilon) of `size` elements, with the population variance. */
export function normalizeRow(
  x: ArrayLike<number>,
  out: Float64Array, offset: number, size: number, epsilon: number,
): void {
  let mean = 0;
  for (let i = 0; i < size; i++) mean += x[offset + i] as number;
  mean /= size;
  let variance = 0;
  for (let i = 0; i < size; i++) variance += ((x[offset + i] as number) - mean) ** 2;
  const factor = 1 / Math.sqrt(variance / size + epsilon);
  for (let i = 0; i < size; i++) out[offset + i] = ((x[offset + i] as number) - mean) * factor;
}

export interface MatmulSizes {
  readonly rows: number;
  readonly inner: number;
  readonly columns: number;
}

type Floats = Float64Array | Float32Array | Int32Array | Uint8Array;

/**
 * out[rows, columns] += a[rows, inner] b[inner, columns], with offsets into all three. Four rows of b at a
 * time keep the running sums in registers' reach.
 */
export function matmul(
  a: Floats, aOffset: number, b: Floats, bOffset: number, out: Float64Array, outOffset: number,
  sizes: MatmulSizes,
): void {
  const { rows, inner, columns } = sizes;
  const blocked = inner - (inner % 4);
  for (let i = 0; i < rows; i++) {
    const row = outOffset + i * columns;
    const aRow = aOffset + i * inner;
    for (let k = 0; k < blocked; k += 4) {
      const a0 = a[aRow + k] as number;
      const a1 = a[aRow + k + 1] as number;
      const a2 = a[aRow + k + 2] as number;
      const a3 = a[aRow + k + 3] as number;
      const b0 = bOffset + k * columns;
      const b1 = b0 + columns;
      const b2 = b1 + columns;
      const b3 = b2 + columns;
      for (let j = 0; j < columns; j++) {
        out[row + j] =
          (out[row + j] as number)
          + a0 * (b[b0 + j] as number)
          + a1 * (b[b1 + j] as number)
          + a2 * (b[b2 + j] as number)
          + a3 * (b[b3 + j] as number);
      }
    }
    for (let k = blocked; k < inner; k++) {
      const factor = a[aRow + k] as number;
      const b0 = bOffset + k * columns;
      for (let j = 0; j < columns; j++) {
        out[row + j] = (out[row + j] as number) + factor * (b[b0 + j] as number);
      }
    }
  }
}

/** out[rows, columns] = a[rows, inner] w[columns, inner]^T: both operands are read along their rows. */
export function matmulTransposed(
  a: Floats, aOffset: number, w: Floats, wOffset: number, out: Float64Array, outOffset: number,
  sizes: MatmulSizes,
): void {
  const { rows, inner, columns } = sizes;
  for (let i = 0; i < rows; i++) {
    const aRow = aOffset + i * inner;
    for (let j = 0; j < columns; j++) {
      const wRow = wOffset + j * inner;
      let even = 0;
      let odd = 0;
      let k = 0;
      for (; k + 1 < inner; k += 2) {
        even += (a[aRow + k] as number) * (w[wRow + k] as number);
        odd += (a[aRow + k + 1] as number) * (w[wRow + k + 1] as number);
      }
      if (k < inner) even += (a[aRow + k] as number) * (w[wRow + k] as number);
      out[outOffset + i * columns + j] = even + odd;
    }
  }
}
