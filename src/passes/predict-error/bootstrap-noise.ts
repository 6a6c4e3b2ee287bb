/**
 * Error of a bootstrap, by simulation: the EvalMod part of its body runs in the clear interpreter on I + eps
 * with the noise of its own ops. What comes before adds little, because SlotsToCoeffs goes first (NUMBERS
 * section 3): the last rescale of CoeffsToSlots is added to the input, the noise before it, of SlotsToCoeffs
 * and of the sparse secret stays 2^-5 below the rest.
 */
import { defined, invariant } from '../../support/invariant.js';
import { ephemeralHammingWeight } from '../../target/security.js';
import { evalModModel, messageRatio, type Parameters } from '../../target/parameters.js';
import { BlockBuilder, Ids } from '../../ir/builder.js';
import { runCipherFunction, type CipherValue } from '../../ir/interpreter/cipher.js';
import { Gaussian } from '../../ir/interpreter/gaussian.js';
import type { Func, Module, Op } from '../../ir/module.js';
import { canonicalScale } from '../../ir/scale.js';
import { qBasis, type CtType } from '../../ir/types.js';
import { erfc } from '../../support/special-functions.js';
import { evalModBound } from '../approximation/evalmod.js';
import { BootstrapBody } from '../expand-bootstrap/body.js';
import { opNoise } from './noise-model.js';

/** Deviation of slots bootstrapped with |x| <= 2^rangeLog2. */
export function bootstrapNoise(parameters: Parameters, rangeLog2: number, seed: number): number {
  const level = parameters.evalModTop;
  const scale = canonicalScale(level);
  const type: CtType = { kind: 'ct', axes: [], degree: 1, basis: qBasis, level, scale };
  const builder = new BlockBuilder(new Ids(), parameters, [type]);
  const body = new BootstrapBody(builder, parameters, rangeLog2, 'bootstrap-noise');
  const output = body.evalMod(defined(builder.args[0], 'argument'));
  const func: Func = { name: 'main', body: builder.finish([output]) };
  const module: Module = {
    phase: 'cipher',
    name: 'bootstrap-noise',
    sourceHash: '',
    parameters,
    functions: [func],
    constants: new Map(),
    tables: new Map(),
    inputs: [],
    outputs: [],
  };

  const ratio = messageRatio(parameters);
  const model = evalModModel(parameters, rangeLog2);
  const gaussian = new Gaussian(seed);
  // The distribution function makes a uniform of a normal deviate.
  const uniform = (): number => erfc(gaussian.next() * Math.SQRT1_2) / 2;
  const rescale = func.body.ops.find((op) => op.kind === 'ct.rescale');
  const stdDev = (op: Op): number =>
    opNoise(op, 0, { parameters, magnitude: () => 1, bootstrap: () => 0, modelledRange: () => undefined });
  // The first rescale is one level below the input; both scales are those of EvalMod primes.
  const inputNoise = stdDev(defined(rescale, 'rescale'));

  const { slots } = parameters;
  const x = Float64Array.from({ length: slots }, () => 2 ** rangeLog2 * (2 * uniform() - 1));
  const t = x.map((value) => {
    let integer = 0;
    for (let i = 0; i <= ephemeralHammingWeight; i++) integer += uniform() - 0.5;
    const wrapped = Math.round(integer) + value / (2 ** rangeLog2 * ratio);
    return wrapped / evalModBound + inputNoise * gaussian.next();
  });
  const input: CipherValue = { kind: 'ct', axes: [], re: [t], im: null };
  const [y] = runCipherFunction(module, func, [input], { noise: { stdDev, seed } });
  invariant(y?.kind === 'ct' && y.re[0] !== undefined, 'EvalMod has a result');
  const result = y.re[0];
  const squares = x.reduce((sum, value, i) => {
    return sum + (defined(result[i], 'slot') - model(value)) ** 2;
  }, 0);
  return Math.sqrt(squares / slots);
}
