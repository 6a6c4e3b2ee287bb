/** Activation functions with attributes; the functions themselves are those of encrypted values. */
import { namedFunction, type FunctionName } from '../../support/special-functions.js';
import { isFloat } from '../model.js';
import type { Call, Kernel } from './call.js';

function pointwise(call: Call, f: (x: number) => number) {
  const { shape } = call.input(0);
  return [
    call.floats(shape, (out) => {
      const x = call.numbers(0);
      for (let i = 0; i < out.length; i++) out[i] = f(x[i] as number);
    }),
  ];
}

/** Attribute names with ONNX's defaults, in the order of the function's parameters. */
const named =
  (name: FunctionName, ...attributes: readonly (readonly [string, number])[]): Kernel =>
  (call) => {
    const [alpha = 0, beta = 0] = attributes.map(([attribute, value]) => call.int(attribute, value));
    return pointwise(call, namedFunction(name).make(alpha, beta));
  };

/** Slopes broadcast to the channels: the dimensions from 1 on. */
const prelu: Kernel = (call) => {
  const { dtype } = call.input(1);
  if (!isFloat(dtype)) return call.fail(`the slope is ${dtype}`);
  const { shape } = call.input(0);
  const slopes = call.input(1).shape.reduce((a, b) => a * b, 1);
  const last = call.input(1).shape.at(-1) ?? 1;
  if (slopes !== 1 && (slopes !== last || last !== (shape.at(-1) ?? 1))) {
    return call.fail('one slope, or one for each feature of the last dimension', 'F202');
  }
  return [
    call.floats(shape, (out) => {
      const [x, slope] = [call.numbers(0), call.numbers(1)];
      for (let i = 0; i < out.length; i++) {
        const own = x[i] as number;
        out[i] = own < 0 ? own * (slope[i % slopes] as number) : own;
      }
    }),
  ];
};

export const seluAlpha = 1.67326319217681884765625;
export const seluGamma = 1.05070102214813232421875;

export const activationKernels: Readonly<Record<string, Kernel>> = {
  Celu: named('celu', ['alpha', 1]),
  Elu: named('elu', ['alpha', 1]),
  HardSigmoid: named('hard_sigmoid', ['alpha', 0.2], ['beta', 0.5]),
  HardSwish: named('hard_swish'),
  LeakyRelu: named('leaky_relu', ['alpha', 0.01]),
  Mish: named('mish'),
  PRelu: prelu,
  Selu: named('selu', ['alpha', seluAlpha], ['gamma', seluGamma]),
};
