/** Functions of real rows in double precision, shared by the tensor interpreter and the ONNX evaluator. */

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
  out: Float64Array,
  offset: number,
  size: number,
  epsilon: number,
): void {
  let mean = 0;
  for (let i = 0; i < size; i++) mean += x[offset + i] as number;
  mean /= size;
  let variance = 0;
  for (let i = 0; i < size; i++) variance += ((x[offset + i] as number) - mean) ** 2;
  const factor = 1 / Math.sqrt(variance / size + epsilon);
  for (let i = 0; i < size; i++) out[offset + i] = ((x[offset + i] as number) - mean) * factor;
}

/** x / sqrt(mean of x^2 + epsilon) of `size` elements. */
export function rootMeanSquareRow(
  x: ArrayLike<number>,
  out: Float64Array,
  offset: number,
  size: number,
  epsilon: number,
): void {
  let square = 0;
  for (let i = 0; i < size; i++) square += (x[offset + i] as number) ** 2;
  const factor = 1 / Math.sqrt(square / size + epsilon);
  for (let i = 0; i < size; i++) out[offset + i] = (x[offset + i] as number) * factor;
}

export interface MatmulSizes {
  readonly rows: number;
  readonly inner: number;
  readonly columns: number;
}

function dot(a: Float64Array, aOffset: number, b: Float64Array, bOffset: number, count: number): number {
  let sum = 0;
  for (let k = 0; k < count; k++) sum += (a[aOffset + k] as number) * (b[bOffset + k] as number);
  return sum;
}

/**
 * out[rows, columns] = a[rows, inner] w[columns, inner]^T: both operands are read along their rows. Blocks of
 * two rows by four columns keep eight sums in registers, and four rows of w in the cache for all rows of a.
 */
export function matmulTransposed(
  a: Float64Array,
  w: Float64Array,
  out: Float64Array,
  sizes: MatmulSizes,
): void {
  const { rows, inner, columns } = sizes;
  const [evenRows, fullColumns] = [rows - (rows % 2), columns - (columns % 4)];
  for (let j = 0; j < fullColumns; j += 4) {
    const w0 = j * inner;
    const [w1, w2, w3] = [w0 + inner, w0 + 2 * inner, w0 + 3 * inner];
    for (let i = 0; i < evenRows; i += 2) {
      const [a0, a1] = [i * inner, (i + 1) * inner];
      let [s00, s01, s02, s03, s10, s11, s12, s13] = [0, 0, 0, 0, 0, 0, 0, 0];
      for (let k = 0; k < inner; k++) {
        const x0 = a[a0 + k] as number;
        const x1 = a[a1 + k] as number;
        const y0 = w[w0 + k] as number;
        const y1 = w[w1 + k] as number;
        const y2 = w[w2 + k] as number;
        const y3 = w[w3 + k] as number;
        s00 += x0 * y0;
        s01 += x0 * y1;
        s02 += x0 * y2;
        s03 += x0 * y3;
        s10 += x1 * y0;
        s11 += x1 * y1;
        s12 += x1 * y2;
        s13 += x1 * y3;
      }
      const [o0, o1] = [i * columns + j, (i + 1) * columns + j];
      out[o0] = s00;
      out[o0 + 1] = s01;
      out[o0 + 2] = s02;
      out[o0 + 3] = s03;
      out[o1] = s10;
      out[o1 + 1] = s11;
      out[o1 + 2] = s12;
      out[o1 + 3] = s13;
    }
  }
  for (let i = 0; i < rows; i++) {
    // What the blocks leave over: the last columns of every row, and all columns of an odd last row.
    for (let j = i < evenRows ? fullColumns : 0; j < columns; j++) {
      out[i * columns + j] = dot(a, i * inner, w, j * inner, inner);
    }
  }
}

/**
 * out[rows, columns] = a[rows, inner] b[inner, columns]; b is transposed first, so that its rows are read.
 */
export function matmul(a: Float64Array, b: Float64Array, out: Float64Array, sizes: MatmulSizes): void {
  const { inner, columns } = sizes;
  const transposed = new Float64Array(inner * columns);
  for (let k = 0; k < inner; k++) {
    for (let j = 0; j < columns; j++) transposed[j * inner + k] = b[k * columns + j] as number;
  }
  matmulTransposed(a, transposed, out, sizes);
}
