/** Products: linear layers, and convolutions as patches. */
import type { Constant } from '../../ir/module.js';
import { defined } from '../../support/invariant.js';
import { affineIndex } from '../kernels/call.js';
import { convForm, type ConvForm } from '../kernels/linear.js';
import { elementCount } from '../model.js';
import { contract } from './contract.js';
import type { Draft } from './drafts.js';
import type { Site } from './site.js';
import { encryptedProduct } from './handlers-attention.js';
import { composeIndex, type Symbol, type View } from './symbols.js';

type Shape = readonly number[];

function transposed(values: Float64Array, rows: number, columns: number): Float64Array {
  const out = new Float64Array(values.length);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) out[c * rows + r] = values[r * columns + c] as number;
  }
  return out;
}

/** The view with its last two dimensions exchanged. */
function swapped(view: View): View {
  const [rows, columns] = [view.shape.at(-2) ?? 1, view.shape.at(-1) ?? 1];
  const shape = [...view.shape.slice(0, -2), columns, rows];
  const batch = elementCount(shape.slice(0, -2));
  const order = affineIndex([batch, columns, rows], [rows * columns, 1, columns]);
  return { ...view, shape, index: composeIndex(order, view.index) };
}

/** The weight of a constant right operand, turned into [out, in]; leading dimensions must be one. */
function rightWeight(site: Site, index: number): Constant {
  const { shape } = site.call.input(index);
  const [inner, outer] = shape.length === 1 ? [shape[0] ?? 1, 1] : [shape.at(-2) ?? 1, shape.at(-1) ?? 1];
  if (elementCount(shape) !== inner * outer) return site.fail('a batch of weights');
  return { shape: [outer, inner], data: transposed(site.constant(index), inner, outer) };
}

/** x times a constant, or a constant times x: the latter is a linear layer on the transposed view. */
export function matMul(site: Site, shape: Shape): Symbol {
  const [left, right] = [site.symbol(0), site.symbol(1)];
  if (left !== undefined && right !== undefined) return encryptedProduct(site, left, right, shape);
  if (left !== undefined) {
    return contract(site, site.view(0), rightWeight(site, 1), undefined, shape);
  }
  const own = site.call.input(0).shape;
  const shared = elementCount(own) === elementCount(own.slice(-2));
  if (right !== undefined && own.length > 2 && !shared)
    return encryptedProduct(site, undefined, right, shape);
  const view = swapped(site.view(1));
  if (own.length < 2 || elementCount(own) !== elementCount(own.slice(-2))) {
    return site.fail('a batch of weights');
  }
  const weight = { shape: own.slice(-2), data: site.constant(0) };
  return swapped(contract(site, view, weight, undefined, [...view.shape.slice(0, -1), own.at(-2) ?? 1]));
}

export function gemm(site: Site, shape: Shape): Symbol {
  const view = site.call.int('transA', 0) !== 0 ? swapped(site.view(0)) : site.view(0);
  if (!site.isConstant(1)) return site.fail('a product of two encrypted matrices outside attention');
  const { shape: own } = site.call.input(1);
  const data = site.constant(1);
  const [first, second] = [own[0] ?? 1, own[1] ?? 1];
  const weight =
    site.call.int('transB', 0) !== 0
      ? { shape: [first, second], data }
      : { shape: [second, first], data: transposed(data, first, second) };
  const alpha = site.call.int('alpha', 1);
  const scaled = alpha === 1 ? weight : { ...weight, data: weight.data.map((value) => value * alpha) };
  const product = contract(site, view, scaled, undefined, shape);
  if (!site.call.has(2)) return product;
  if (!site.isConstant(2)) return site.fail('an encrypted bias');
  const beta = site.call.int('beta', 1);
  const bias = site.constant(2).map((value) => value * beta);
  const settled = site.settle(product);
  const values = site.constantFor(bias, site.call.input(2).shape, settled);
  return { ...settled, draft: site.drafts.addConstant(settled.draft, values, true, site.loc) };
}

/**
 * Patches of the input are data movement; the kernel is then a linear layer from patches to channels, block
 * diagonal over groups. Batch items are tokens beside each other.
 */
export function conv(site: Site): Symbol {
  const view = site.view(0);
  if (!site.isConstant(1)) return site.fail('an encrypted kernel');
  const form = convForm(site.call);
  const { batch, groups, positions, patch, outputs } = form;
  const [rows, columns] = [batch * positions, groups * patch];
  if (columns * outputs > maxKernelElements) return site.fail('a kernel of too many groups', 'F102');
  const own = form.index();
  const item = elementCount(view.shape) / batch;
  // [group, position, patch] of one item to [item, position, group, patch].
  const index = new Int32Array(rows * columns);
  for (let i = 0; i < index.length; i++) {
    const [row, column] = [Math.floor(i / columns), i % columns];
    const [group, e] = [Math.floor(column / patch), column % patch];
    const at = own[(group * positions + (row % positions)) * patch + e] as number;
    index[i] = at < 0 ? -1 : Math.floor(row / positions) * item + at;
  }
  const patches: View = { ...view, index: composeIndex(index, view.index), shape: [rows, columns] };
  const weight = { shape: [outputs, columns], data: kernelMatrix(site.constant(1), form) };
  const bias = site.call.has(2) ? site.constant(2) : undefined;
  const draft = linearOnParts(site, patches, weight, bias);
  const order = affineIndex([batch, outputs, positions], [positions * outputs, 1, outputs]);
  return { kind: 'view', draft, index: order, scale: 1, shape: form.shape };
}

/** A dense kernel of a grouped convolution is mostly zeros: beyond this it is refused. */
const maxKernelElements = 2 ** 26;

/** [outputs, groups * patch], zero outside of a group. */
function kernelMatrix(data: Float64Array, { groups, patch, outputs }: ConvForm): Float64Array {
  if (groups === 1) return data;
  const matrix = new Float64Array(outputs * groups * patch);
  for (let o = 0; o < outputs; o++) {
    const group = Math.floor((o * groups) / outputs);
    matrix.set(data.subarray(o * patch, (o + 1) * patch), (o * groups + group) * patch);
  }
  return matrix;
}

/** A linear layer on a view, applied to each of its parts that read other tokens, and summed. */
function linearOnParts(site: Site, view: View, weight: Constant, bias: Float64Array | undefined): Draft {
  const [rows = 1, columns = 1] = view.shape;
  if (site.isSimple(view, rows, columns)) {
    return site.drafts.linear(site.natural(view), weight, bias, site.loc);
  }
  const outputs = defined(weight.shape[0], 'outputs');
  const terms = site.parts(view, rows, columns).map((part, n) => {
    const width = part.columns.length;
    const data = Float64Array.from(
      { length: outputs * width },
      (_, i) =>
        view.scale
        * (weight.data[
          Math.floor(i / width) * columns + defined(part.columns[i % width], 'column')
        ] as number),
    );
    const own = { shape: [outputs, width], data };
    return site.drafts.linear(part.draft, own, n === 0 ? bias : undefined, site.loc);
  });
  return site.total(terms);
}
