/** Products: MatMul, Gemm, Conv, Attention. */
import { defined } from '../../support/invariant.js';
import { matmul, matmulTransposed, softmaxRow } from '../../ir/interpreter/tensor-functions.js';
import { elementCount, isFloat } from '../model.js';
import {
  affineIndex,
  broadcastShape,
  broadcastStrides,
  stridesOf,
  take,
  type Call,
  type Kernel,
} from './call.js';

const matMul: Kernel = (call) => {
  const [aShape, bShape] = [call.input(0).shape, call.input(1).shape];
  if (aShape.length === 0 || bShape.length === 0) return call.fail('scalar operand');
  const left = aShape.length === 1 ? [1, ...aShape] : aShape;
  const right = bShape.length === 1 ? [...bShape, 1] : bShape;
  const [rows, inner] = [defined(left.at(-2), 'rows'), defined(left.at(-1), 'inner')];
  const columns = defined(right.at(-1), 'columns');
  if (right.at(-2) !== inner) return call.fail(`[${aShape.join(', ')}] times [${bShape.join(', ')}]`);
  const batch = broadcastShape(call, left.slice(0, -2), right.slice(0, -2));
  const ends = [...(aShape.length === 1 ? [] : [rows]), ...(bShape.length === 1 ? [] : [columns])];
  const result = [...batch, ...ends];
  return [
    call.floats(result, (out) => {
      const [x, y] = [call.doubles(0), call.doubles(1)];
      // One weight for the whole batch: its items are only more rows.
      const allRows = x.length / Math.max(inner, 1);
      if (y.length === inner * columns) return matmul(x, y, out, { rows: allRows, inner, columns });
      const xAt = affineIndex(batch, broadcastStrides(left.slice(0, -2), batch));
      const yAt = affineIndex(batch, broadcastStrides(right.slice(0, -2), batch));
      const item = (data: Float64Array, i: number, size: number) => data.subarray(i * size, (i + 1) * size);
      for (let i = 0; i < xAt.length; i++) {
        const [a, b] = [item(x, xAt[i] as number, rows * inner), item(y, yAt[i] as number, inner * columns)];
        matmul(a, b, item(out, i, rows * columns), { rows, inner, columns });
      }
      return undefined;
    }),
  ];
};

const gemm: Kernel = (call) => {
  const [a, b] = [call.input(0).shape, call.input(1).shape];
  if (a.length !== 2 || b.length !== 2) return call.fail('operands must be matrices');
  const [transA, transB] = [call.int('transA', 0) !== 0, call.int('transB', 0) !== 0];
  const [rows, inner] = (transA ? [a[1], a[0]] : a) as [number, number];
  const [depth, columns] = (transB ? [b[1], b[0]] : b) as [number, number];
  if (depth !== inner) return call.fail(`inner sizes ${inner} and ${depth} differ`);
  const [alpha, beta] = [call.int('alpha', 1), call.int('beta', 1)];
  if (call.has(2)) {
    const full = broadcastShape(call, call.input(2).shape, [rows, columns]);
    if (full.length !== 2 || full[0] !== rows || full[1] !== columns) {
      return call.fail('bias does not fit the result');
    }
  }
  return [
    call.floats([rows, columns], (out) => {
      const x = call.doubles(0);
      const left = transA ? (take(x, affineIndex([rows, inner], [1, rows])) as Float64Array) : x;
      const sizes = { rows, inner, columns };
      if (transB) matmulTransposed(left, call.doubles(1), out, sizes);
      else matmul(left, call.doubles(1), out, sizes);
      const c = call.has(2) ? call.numbers(2) : undefined;
      const at = affineIndex(
        [rows, columns],
        broadcastStrides(call.has(2) ? call.input(2).shape : [], [rows, columns]),
      );
      for (let i = 0; i < out.length; i++) {
        out[i] = alpha * (out[i] as number) + (c === undefined ? 0 : beta * (c[at[i] as number] as number));
      }
    }),
  ];
};

export interface ConvForm {
  readonly batch: number;
  /** Elements of one patch: channels of a group times kernel positions. */
  readonly patch: number;
  readonly positions: number;
  readonly groups: number;
  readonly outputs: number;
  readonly shape: readonly number[];
  /** Flat index into one image, [groups][positions][patch], -1 outside. */
  readonly index: () => Int32Array;
}

/** Patches are gathered through an index of four bytes an element. */
const maxPatchElements = 2 ** 26;

/** Geometry of a convolution over any number of spatial dimensions. */
export function convForm(call: Call): ConvForm {
  const x = call.input(0).shape;
  const w = call.input(1).shape;
  const spatial = x.slice(2);
  const dims = spatial.length;
  const batch = x[0] ?? 1;
  if (dims < 1 || w.length !== x.length) return call.fail('the kernel has another rank than the input');
  const groups = call.int('group', 1);
  const [channels, outputs] = [x[1] ?? 0, w[0] ?? 0];
  if (groups < 1 || channels % groups !== 0 || outputs % groups !== 0 || w[1] !== channels / groups) {
    return call.fail(`kernel [${w.join(', ')}] does not fit ${channels} channels in ${groups} groups`);
  }
  const list = (name: string, count: number, fallback: number) => {
    const value = call.intList(name) ?? Array.from({ length: count }, () => fallback);
    return value.length === count ? value : call.fail(`${name} has ${value.length} entries`);
  };
  const [strides, dilations] = [list('strides', dims, 1), list('dilations', dims, 1)];
  const pads = list('pads', 2 * dims, 0);
  const auto = call.string('auto_pad', 'NOTSET');
  if (auto !== 'NOTSET' && auto !== 'VALID') return call.fail(`auto_pad ${auto}`);
  const kernel = w.slice(2);
  const grid = spatial.map((size, d) => {
    const reach = ((kernel[d] ?? 1) - 1) * (dilations[d] ?? 1) + 1;
    return Math.floor((size + (pads[d] ?? 0) + (pads[d + dims] ?? 0) - reach) / (strides[d] ?? 1)) + 1;
  });
  if (grid.some((size) => !(size > 0)) || strides.some((s) => s < 1)) {
    return call.fail('the kernel is larger than the input');
  }
  const per = channels / groups;
  const patch = per * elementCount(kernel);
  const positions = elementCount(grid);
  if (groups * positions * patch > maxPatchElements) {
    return call.fail(
      `patches have ${groups * positions * patch} elements, more than ${maxPatchElements}`,
      'F102',
    );
  }
  const index = () => {
    const inStrides = stridesOf(spatial);
    const out = new Int32Array(groups * positions * patch);
    const [gridStrides, kernelStrides] = [stridesOf(grid), stridesOf(kernel)];
    const area = elementCount(spatial);
    let next = 0;
    for (let g = 0; g < groups; g++) {
      for (let p = 0; p < positions; p++) {
        for (let e = 0; e < patch; e++) {
          const c = Math.floor(e / elementCount(kernel));
          let at = (g * per + c) * area;
          for (let d = 0; d < dims && at >= 0; d++) {
            const tap = Math.floor(e / (kernelStrides[d] ?? 1)) % (kernel[d] ?? 1);
            const cell = Math.floor(p / (gridStrides[d] ?? 1)) % (grid[d] ?? 1);
            const y = cell * (strides[d] ?? 1) + tap * (dilations[d] ?? 1) - (pads[d] ?? 0);
            at = y < 0 || y >= (spatial[d] ?? 0) ? -1 : at + y * (inStrides[d] ?? 1);
          }
          out[next++] = at;
        }
      }
    }
    return out;
  };
  return { batch, patch, positions, groups, outputs, shape: [batch, outputs, ...grid], index };
}

const conv: Kernel = (call) => {
  const form = convForm(call);
  if (call.has(2) && elementCount(call.input(2).shape) !== form.outputs) {
    return call.fail('bias does not fit');
  }
  return [
    call.floats(form.shape, (out) => {
      const index = form.index();
      const [x, w] = [call.doubles(0), call.doubles(1)];
      const per = form.outputs / form.groups;
      const sizes = { rows: per, inner: form.patch, columns: form.positions };
      for (let b = 0; b < form.batch; b++) {
        const image = x.subarray((b * x.length) / form.batch, ((b + 1) * x.length) / form.batch);
        const patches = take(image, index) as Float64Array;
        for (let g = 0; g < form.groups; g++) {
          const kernel = w.subarray(g * per * form.patch, (g + 1) * per * form.patch);
          const own = patches.subarray(
            g * form.positions * form.patch,
            (g + 1) * form.positions * form.patch,
          );
          const first = (b * form.outputs + g * per) * form.positions;
          matmulTransposed(kernel, own, out.subarray(first, first + per * form.positions), sizes);
        }
      }
      const bias = call.has(2) ? call.numbers(2) : undefined;
      if (bias === undefined) return;
      for (let i = 0; i < out.length; i++) {
        out[i] = (out[i] as number) + (bias[Math.floor(i / form.positions) % form.outputs] as number);
      }
    }),
  ];
};

export interface AttentionForm {
  readonly batch: number;
  readonly heads: number;
  readonly keyHeads: number;
  readonly queries: number;
  readonly keys: number;
  readonly size: number;
  readonly valueSize: number;
  readonly scale: number;
  readonly causal: boolean;
  readonly softcap: number;
  /** [head, token, feature] strides into one batch item of query, key and value. */
  readonly strides: (which: 0 | 1 | 2) => readonly number[];
  readonly shape: readonly number[];
  readonly resultStrides: readonly number[];
}

/** Later opsets add windows and more; an attribute that is not here would change the meaning unnoticed. */
const attentionAttributes = new Set([
  'is_causal',
  'kv_num_heads',
  'q_num_heads',
  'qk_matmul_output_mode',
  'scale',
  'softcap',
  'softmax_precision',
]);

/** Operator Attention of opset 23, without key and value caches. */
export function attentionForm(call: Call): AttentionForm {
  const unknown = [...call.node.attributes.keys()].find((name) => !attentionAttributes.has(name));
  if (unknown !== undefined) return call.fail(`attribute ${unknown} is not known`, 'F202');
  const [q, k, v] = [call.input(0).shape, call.input(1).shape, call.input(2).shape];
  if ([4, 5, 6].some((i) => call.has(i)) || call.node.outputs.length > 1) {
    return call.fail('key and value caches are not supported', 'F202');
  }
  const flat = q.length === 3;
  const batch = q[0] ?? 0;
  if (
    k[0] !== batch
    || v[0] !== batch
    || k.length !== q.length
    || v.length !== q.length
    || (!flat && q.length !== 4)
  ) {
    return call.fail(`query [${q.join(', ')}], key [${k.join(', ')}], value [${v.join(', ')}] do not fit`);
  }
  const heads = flat ? call.int('q_num_heads', 0) : (q[1] ?? 0);
  const keyHeads = flat ? call.int('kv_num_heads', 0) : (k[1] ?? 0);
  const width = (shape: readonly number[], count: number) =>
    flat ? (shape[2] ?? 0) / count : (shape[3] ?? 0);
  const [queries, keys] = [q.at(-2) ?? 0, k.at(-2) ?? 0];
  const [size, valueSize] = [width(q, heads), width(v, keyHeads)];
  const fits =
    Number.isInteger(size)
    && Number.isInteger(valueSize)
    && heads % keyHeads === 0
    && width(k, keyHeads) === size
    && v.at(-2) === keys
    && (flat || v[1] === keyHeads);
  if (!fits) {
    return call.fail(`query [${q.join(', ')}], key [${k.join(', ')}], value [${v.join(', ')}] do not fit`);
  }
  const split = (count: number, tokens: number, features: number) =>
    flat ? [features, count * features, 1] : [tokens * features, features, 1];
  return {
    batch,
    heads,
    keyHeads,
    queries,
    keys,
    size,
    valueSize,
    scale: call.int('scale') ?? 1 / Math.sqrt(size),
    causal: call.int('is_causal', 0) !== 0,
    softcap: call.int('softcap', 0),
    strides: (which) =>
      [split(heads, queries, size), split(keyHeads, keys, size), split(keyHeads, keys, valueSize)][which]
      ?? [],
    shape: flat ? [batch, queries, heads * valueSize] : [batch, heads, queries, valueSize],
    resultStrides: split(heads, queries, valueSize),
  };
}

/** True when an additive or boolean mask lets every key through. */
export function maskIsOpen(call: Call, index: number): boolean {
  if (!call.has(index)) return true;
  const known = call.input(index);
  if (known.data === null) return false;
  const open = isFloat(known.dtype) ? 0 : 1;
  return known.data.every((value: number | bigint) => Number(value) === open);
}

/** Scores of one head become probabilities, in place: scale, soft cap, mask, softmax. */
function finishScores(
  form: AttentionForm,
  scores: Float64Array,
  mask: (row: number, column: number) => number,
): void {
  const { keys, queries, softcap } = form;
  for (let i = 0; i < scores.length; i++) {
    const [row, column] = [Math.floor(i / keys), i % keys];
    const scaled = (scores[i] as number) * form.scale;
    const capped = softcap > 0 ? softcap * Math.tanh(scaled / softcap) : scaled;
    scores[i] = form.causal && column > row ? -Infinity : capped + mask(row, column);
  }
  for (let row = 0; row < queries; row++) {
    const own = scores.subarray(row * keys, (row + 1) * keys);
    // A query that may see no key gets zeros, not NaN (ONNX 1.19, nan_robustness tests).
    if (own.every((score) => score === -Infinity)) own.fill(0);
    else softmaxRow(own, 0, keys);
  }
}

const attention: Kernel = (call) => {
  const form = attentionForm(call);
  const { batch, heads, keyHeads, queries, keys, size, valueSize } = form;
  const full = [batch, heads, queries, keys];
  if (call.has(3) && elementCount(broadcastShape(call, call.input(3).shape, full)) !== elementCount(full)) {
    return call.fail('the mask does not fit');
  }
  const maskStrides = broadcastStrides(call.has(3) ? call.input(3).shape : [], full);
  return [
    call.floats(form.shape, (out) => {
      const parts = [call.doubles(0), call.doubles(1), call.doubles(2)];
      const head = (which: 0 | 1 | 2, b: number, h: number, shape: readonly number[]) => {
        const [first = 0, ...rest] = form.strides(which);
        const x = defined(parts[which], 'operand');
        return take(x, affineIndex(shape, rest, (b * x.length) / batch + h * first)) as Float64Array;
      };
      const mask = call.has(3) ? call.numbers(3) : undefined;
      const boolean = call.has(3) && !isFloat(call.input(3).dtype);
      const [mb = 0, mh = 0, mq = 0, mk = 0] = maskStrides;
      for (let bh = 0; bh < batch * heads; bh++) {
        const [b, h] = [Math.floor(bh / heads), bh % heads];
        const shared = Math.floor((h * keyHeads) / heads);
        const scores = new Float64Array(queries * keys);
        const sizes = { rows: queries, inner: size, columns: keys };
        matmulTransposed(head(0, b, h, [queries, size]), head(1, b, shared, [keys, size]), scores, sizes);
        finishScores(form, scores, (row, column) => {
          const extra = mask?.[b * mb + h * mh + row * mq + column * mk] ?? 0;
          return boolean ? (extra === 0 ? -Infinity : 0) : extra;
        });
        const part = new Float64Array(queries * valueSize);
        const values = head(2, b, shared, [keys, valueSize]);
        matmul(scores, values, part, { rows: queries, inner: keys, columns: valueSize });
        const [first = 0, ...rest] = form.resultStrides;
        const at = affineIndex([queries, valueSize], rest, (b * out.length) / batch + h * first);
        part.forEach((value, i) => (out[at[i] as number] = value));
      }
    }),
  ];
};

export const linearKernels: Readonly<Record<string, Kernel>> = {
  MatMul: matMul,
  Gemm: gemm,
  Conv: conv,
  Attention: attention,
};
