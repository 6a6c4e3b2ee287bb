/** Functions of one variable, and sums and means of several values. */
import type { FunctionName } from '../../support/special-functions.js';
import { seluAlpha, seluGamma } from '../kernels/activation.js';
import type { DraftKind } from './drafts.js';
import { cappedScores } from './handlers-attention.js';
import { unary } from './handlers-elementwise.js';
import { divided, pairOf } from './pairs.js';
import { closedBelow } from './mask-probes.js';
import type { Site } from './site.js';
import type { Symbol } from './symbols.js';

type Handler = (site: Site, shape: readonly number[]) => Symbol;

const kind =
  (name: DraftKind): Handler =>
  (site) =>
    unary(site, name);

function tanh(site: Site): Symbol {
  const symbol = site.symbol(0);
  return symbol?.kind === 'scores' ? cappedScores(site, symbol) : unary(site, 'tensor.tanh');
}

/** A named function with constant parameters. */
function named(site: Site, name: FunctionName, alpha?: number, beta?: number): Symbol {
  const parameters = { ...(alpha === undefined ? {} : { alpha }), ...(beta === undefined ? {} : { beta }) };
  return unary(site, 'tensor.function', { name, ...parameters });
}

const plain =
  (name: FunctionName): Handler =>
  (site) =>
    named(site, name);

/** Attributes of the operator by name, with ONNX's defaults. */
const withAttributes =
  (name: FunctionName, alpha: number, beta?: readonly [attribute: string, value: number]): Handler =>
  (site) =>
    named(
      site,
      name,
      site.call.int('alpha', alpha),
      beta === undefined ? undefined : site.call.int(beta[0], beta[1]),
    );

/** x sigmoid(alpha x) = silu(alpha x) / alpha. */
function swish(site: Site): Symbol {
  const alpha = site.call.int('alpha', 1);
  const view = site.view(0);
  const x = site.settle({ ...view, scale: view.scale * alpha });
  const draft = site.drafts.pointwise('tensor.silu', [x.draft], site.loc);
  return { ...x, draft, scale: 1 / alpha };
}

/** Attributes are real numbers: no value of a model lies outside of float32. */
const largest = 3.4028234663852886e38;

/** Bounds are attributes below opset 11, then inputs. */
function clip(site: Site): Symbol {
  const bound = (attribute: string, index: number, open: number): number => {
    if (site.call.has(index)) {
      return site.isConstant(index) ? site.call.scalar(index) : site.fail('an encrypted bound');
    }
    return site.call.int(attribute, open);
  };
  const [low, high] = [bound('min', 1, -Infinity), bound('max', 2, Infinity)];
  if (low === -Infinity && high === Infinity) return site.view(0);
  return named(site, 'clip', Math.max(low, -largest), Math.min(high, largest));
}

/** Of one encrypted value and one number; a floor far below every score changes none. */
function bounded(site: Site, shape: readonly number[]): Symbol {
  const own = site.symbol(0) === undefined ? 1 : 0;
  const symbol = site.symbol(own);
  const bound = site.node.inputs.length === 2 ? site.uniform(1 - own) : undefined;
  if (symbol === undefined || bound === undefined) return site.fail('other than of a value and a number');
  const isMax = site.node.opType === 'Max';
  if (symbol.kind === 'scores' && isMax && bound <= closedBelow) return { ...symbol, shape };
  const view = site.settle(site.asView(symbol));
  const limits = isMax ? [bound, largest] : [-largest, bound];
  const [alpha = 0, beta = 0] = limits.map((limit) => Math.min(Math.max(limit, -largest), largest));
  const attrs = { name: 'clip', alpha, beta };
  return { ...view, draft: site.drafts.pointwise('tensor.function', [view.draft], site.loc, attrs), shape };
}

function sum(site: Site, shape: readonly number[]): Symbol {
  const count = site.node.inputs.length;
  let total: Symbol | undefined;
  for (let i = 0; i < count; i++) {
    const one = site.symbol(i);
    if (one === undefined) return site.fail('constant terms', 'F202', 'add constants with Add');
    total =
      total === undefined ? one : pairOf(site, 'tensor.add', site.asView(total), site.asView(one), shape);
  }
  return total ?? site.fail('no terms');
}

function mean(site: Site, shape: readonly number[]): Symbol {
  const view = site.asView(sum(site, shape));
  return { ...view, scale: view.scale / site.node.inputs.length };
}

/** 1/x on its calibrated range, which must not contain 0. */
function reciprocal(site: Site, shape: readonly number[]): Symbol {
  return divided(site, 1, site.view(0), shape);
}

export const activationHandlers: readonly (readonly [string, Handler])[] = [
  ['Relu', kind('tensor.relu')],
  ['Tanh', tanh],
  ['Sigmoid', kind('tensor.sigmoid')],
  ['Gelu', (site) => unary(site, 'tensor.gelu', { approximate: site.call.string('approximate', 'none') })],
  ['Swish', swish],
  ['Abs', plain('abs')],
  ['Cos', plain('cos')],
  ['Erf', plain('erf')],
  ['Exp', plain('exp')],
  ['HardSwish', plain('hard_swish')],
  ['Log', plain('log')],
  ['Mish', plain('mish')],
  ['Sin', plain('sin')],
  ['Softplus', plain('softplus')],
  ['Softsign', plain('softsign')],
  ['Sqrt', plain('sqrt')],
  ['Reciprocal', reciprocal],
  ['Celu', withAttributes('celu', 1)],
  ['Elu', withAttributes('elu', 1)],
  ['HardSigmoid', withAttributes('hard_sigmoid', 0.2, ['beta', 0.5])],
  ['LeakyRelu', withAttributes('leaky_relu', 0.01)],
  ['Selu', withAttributes('selu', seluAlpha, ['gamma', seluGamma])],
  ['Clip', clip],
  ['Max', bounded],
  ['Min', bounded],
  ['Sum', sum],
  ['Mean', mean],
];
