/** Sums, products and quotients of encrypted values that lie in different arrangements. */
import { AegisError } from '../../support/diagnostics.js';
import { broadcastIndex } from '../kernels/call.js';
import { elementCount } from '../model.js';
import { maxViewElements, type Site } from './site.js';
import { composeIndex, indexOf, isBijective, matrixShape, sameIndex, type View } from './symbols.js';

type Shape = readonly number[];
export type PairKind = 'tensor.add' | 'tensor.sub' | 'tensor.mul';

/** A smaller operand repeated to the result's shape. */
export function stretched(site: Site, view: View, shape: Shape): View {
  if (elementCount(view.shape) === elementCount(shape)) return { ...view, shape };
  if (elementCount(shape) > maxViewElements) return site.fail('a broadcast of too many elements', 'F102');
  return { ...view, shape, index: composeIndex(broadcastIndex(view.shape, shape), view.index) };
}

/** Sum, difference or product of two encrypted values, in the arrangement of one of them where possible. */
export function pairOf(site: Site, kind: PairKind, a: View, b: View, shape: Shape): View {
  const [wideA, wideB] = [stretched(site, a, shape), stretched(site, b, shape)];
  const [x, y] = [settledOr(site, wideA), settledOr(site, wideB)];
  const alike =
    x.draft.rows === y.draft.rows && x.draft.columns === y.draft.columns && sameIndex(x.index, y.index);
  const both = isBijective(x) && isBijective(y) && x.scale === 1 && y.scale === 1;
  if (alike && both) return { ...x, draft: site.drafts.pointwise(kind, [x.draft, y.draft], site.loc) };
  // An input can be packed in any arrangement, and what is repeated need not be settled.
  const freeX = isRepeated(wideA) || wideA.draft.kind === 'input' ? wideA : x;
  const freeY = isRepeated(wideB) || wideB.draft.kind === 'input' ? wideB : y;
  const [ofY, ofX] = [movesTo(site, x, freeY), movesTo(site, y, freeX)];
  const moved = ofY <= ofX ? inArrangementOf(site, x, freeY) : undefined;
  if (moved !== undefined) return { ...x, draft: site.drafts.pointwise(kind, [x.draft, moved], site.loc) };
  const other = inArrangementOf(site, y, freeX);
  if (other !== undefined) return { ...y, draft: site.drafts.pointwise(kind, [other, y.draft], site.loc) };
  const [left, right] = [site.natural(x), site.natural(y)];
  return site.whole(site.drafts.pointwise(kind, [left, right], site.loc), shape);
}

function isRepeated(view: View): boolean {
  return elementCount(view.shape) > view.draft.rows * view.draft.columns;
}

/** Settled, or as it is where its elements cannot be a matrix by themselves. */
function settledOr(site: Site, view: View): View {
  const { rows, columns } = matrixShape(view.shape);
  const readable =
    isBijective(view) || site.isMatrix(view, rows, columns) || site.arranged(view) !== undefined;
  if (!readable) return view;
  try {
    return site.settle(view);
  } catch (error) {
    if (error instanceof AegisError) return view;
    throw error;
  }
}

/** `view` in the places where `target` holds the same elements; undefined if those are not all of a draft. */
function placedAs(target: View, view: View): View | undefined {
  if (target.draft.kind === 'input' || !isBijective(target) || target.scale !== 1) return undefined;
  const from = indexOf(view);
  const index = new Int32Array(from.length);
  indexOf(target).forEach((to, i) => (index[to] = from[i] as number));
  return { ...view, index, shape: [target.draft.rows, target.draft.columns] };
}

function movesTo(site: Site, target: View, view: View): number {
  const placed = placedAs(target, view);
  const { rows, columns } = target.draft;
  return placed === undefined ? Infinity : site.movesOf(placed, rows, columns);
}

/** What `view` holds, in the place where `target` holds the same element; undefined if no matrix does. */
function inArrangementOf(site: Site, target: View, view: View): View['draft'] | undefined {
  const placed = placedAs(target, view);
  if (placed === undefined) return undefined;
  const { rows, columns } = target.draft;
  try {
    return site.matrix(placed, rows, columns);
  } catch (error) {
    if (error instanceof AegisError) return undefined;
    throw error;
  }
}

/** number / x */
export function divided(site: Site, number: number, x: View, shape: Shape): View {
  const settled = site.settle(stretched(site, { ...x, scale: 1 }, shape));
  const { kind, attrs, operands } = settled.draft;
  const [radicand] = operands;
  const isRoot = kind === 'tensor.function' && attrs.name === 'sqrt' && radicand !== undefined;
  const draft = isRoot
    ? site.drafts.pointwise('tensor.function', [radicand], site.loc, { name: 'power', alpha: -0.5 })
    : site.drafts.pointwise('tensor.function', [settled.draft], site.loc, { name: 'reciprocal' });
  return { ...settled, draft, scale: number / x.scale };
}
