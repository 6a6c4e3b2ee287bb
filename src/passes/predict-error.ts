/**
 * predict-error: how far decrypted outputs will be from the model's. Two parts (DESIGN section 5):
 * - noise: 6 standard deviations, from runs of the clear interpreter in which every op adds the Gaussian
 *   noise of its analytic model; so sensitivities are those of the module on real inputs, not worst cases;
 * - approximation: the differences between the cipher module without noise and the reference, root mean
 *   square over inputs, times a margin.
 */
import { defined, invariant } from '../support/invariant.js';
import type { Parameters } from '../target/parameters.js';
import {
  packInput,
  runCipherFunction,
  unpackOutput,
  type CipherValue,
  type NoiseModel,
  type RunOptions,
} from '../ir/interpreter/cipher.js';
import { Gaussian } from '../ir/interpreter/gaussian.js';
import { entryName, isWitness, type Func, type Module, type Port } from '../ir/module.js';
import { bootstrapNoise } from './predict-error/bootstrap-noise.js';
import { NodeTable, type NodeError } from './predict-error/node-table.js';
import { freshNoise, opNoise, type NoiseSources } from './predict-error/noise-model.js';

export type { NodeError } from './predict-error/node-table.js';

export interface PredictOptions {
  readonly seed: number;
  /** Runs with noise; run i takes calibration input i modulo their number. */
  readonly runs: number;
}

/**
 * Two degrees of freedom per output element, and hundreds of elements: the largest deviation is found to 2
 * bits.
 */
export const defaultPredictOptions: PredictOptions = { seed: 1, runs: 2 };
export const sigmas = 6;
/**
 * Calibration inputs are a few of all inputs: on held-out ones of our models the largest approximation error
 * is 0.8 to 3.2 times the root mean square over calibration inputs of the error of each, whether 8 inputs are
 * held out or 48. Their maximum tells less: it is 0.3 to 3 times (docs/measurements.md).
 */
export const approximationMargin = 5;

export interface OutputError {
  readonly predictedError: number;
  /** 6 sigma of the worst element. */
  readonly noise: number;
  /** Difference from the reference, root mean square over the calibration inputs, times the margin. */
  readonly approximation: number;
}

export interface ErrorPrediction {
  /** Predicted error by output name. */
  readonly outputs: Readonly<Record<string, number>>;
  readonly parts: Readonly<Record<string, OutputError>>;
  /** One row per ONNX node, in program order. */
  readonly nodes: readonly NodeError[];
}

type Tensors = Readonly<Record<string, Float64Array>>;

/**
 * `inputs` are calibration inputs, `references` what the model makes of them (tensor interpreter or ONNX
 * Runtime), both by port name. The module has levels and no ct.polynomial. Same arguments, same result.
 */
export function predictError(
  module: Module,
  inputs: readonly Tensors[],
  references: readonly Tensors[],
  options: Partial<PredictOptions> = {},
): ErrorPrediction {
  const { seed, runs } = { ...defaultPredictOptions, ...options };
  invariant(inputs.length > 0 && inputs.length === references.length, 'calibration inputs have references');
  const parameters = defined(module.parameters, 'parameters');
  const runner = new Runner(module, parameters, seed);
  const table = new NodeTable(module, parameters);

  const clean = inputs.map((input) => runner.clean(input, table));
  const squares = module.outputs.map((port) => new Float64Array(clean[0]?.[port.name]?.length ?? 0));
  for (let run = 0; run < runs; run++) {
    const at = run % inputs.length;
    const noisy = runner.noisy(defined(inputs[at], 'input'), run, at, table);
    module.outputs.forEach(({ name }, o) => {
      addSquares(defined(squares[o], 'sums'), noisy[name], clean[at]?.[name]);
    });
  }
  const parts = Object.fromEntries(
    module.outputs.map((port, o) => {
      const worst = defined(squares[o], 'sums').reduce((max, square) => Math.max(max, square), 0);
      const noise = sigmas * Math.sqrt(worst / Math.max(1, runs));
      const approximation =
        approximationMargin
        * rootMeanSquare(
          clean.map((result, i) => {
            // A witness has no reference: it is what it is.
            const wanted = isWitness(port.name) ? result[port.name] : references[i]?.[port.name];
            return largestDifference(result[port.name], wanted);
          }),
        );
      return [port.name, { predictedError: noise + approximation, noise, approximation }];
    }),
  );
  const totals = Object.entries(parts).map(([name, part]) => [name, part.predictedError] as const);
  return { outputs: Object.fromEntries(totals), parts, nodes: table.rows() };
}

export interface NoisyRuns {
  /** Outputs by name, input by input. */
  readonly outputs: readonly Readonly<Record<string, Float64Array>>[];
  /** What noise did to every node in these runs: `largest` is measured. */
  readonly nodes: readonly NodeError[];
}

/** The module on each input in the clear, once, with the noise that every op adds. */
export function runWithNoise(
  module: Module,
  inputs: readonly Tensors[],
  seed: number,
  onInput: (done: number) => void = () => undefined,
): NoisyRuns {
  const parameters = defined(module.parameters, 'parameters');
  const runner = new Runner(module, parameters, seed);
  const rows = new Map<string, NodeError>();
  const outputs = inputs.map((input, i) => {
    onInput(i);
    // A table holds samples of every op: one for each input would take memory.
    const table = new NodeTable(module, parameters);
    runner.clean(input, table);
    const noisy = runner.noisy(input, i, 0, table);
    for (const row of table.rows()) rows.set(row.node, worseOf(row, rows.get(row.node)));
    return noisy;
  });
  return { outputs, nodes: [...rows.values()] };
}

function worseOf(a: NodeError, b: NodeError | undefined): NodeError {
  if (b === undefined) return a;
  const worse = (key: 'magnitude' | 'noise' | 'largest'): number => Math.max(a[key], b[key]);
  return { ...a, magnitude: worse('magnitude'), noise: worse('noise'), largest: worse('largest') };
}

type Tensor = Float64Array | undefined;

function addSquares(sums: Float64Array, noisy: Tensor, clean: Tensor): void {
  for (let i = 0; i < sums.length; i++) {
    sums[i] = (sums[i] ?? 0) + ((noisy?.[i] ?? NaN) - (clean?.[i] ?? NaN)) ** 2;
  }
}

function rootMeanSquare(values: readonly number[]): number {
  return Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length);
}

function largestDifference(found: Tensor, wanted: Tensor): number {
  const [a, b] = [defined(found, 'output'), defined(wanted, 'reference')];
  invariant(a.length === b.length, 'the reference of an output has its size');
  return a.reduce((max, value, i) => Math.max(max, Math.abs(value - (b[i] ?? NaN))), 0);
}

/** Runs `main` on one input, without and with noise. */
class Runner {
  private readonly bootstraps = new Map<number, number>();
  private readonly ranges: ReadonlyMap<string, number>;

  private readonly main: Func;

  constructor(
    private readonly module: Module,
    private readonly parameters: Parameters,
    private readonly seed: number,
  ) {
    this.main = defined(
      module.functions.find((func) => func.name === entryName),
      `function @${entryName}`,
    );
    this.ranges = new Map(
      module.functions.flatMap(({ name, models }) =>
        models === undefined ? [] : [[name, models.rangeLog2]],
      ),
    );
  }

  clean(input: Tensors, table: NodeTable): Record<string, Float64Array> {
    const visit = table.cleanRun();
    return this.run(this.pack(input, undefined), { observe: (op, values) => visit(op, values) });
  }

  /** `reference` is the number of the clean run on the same input. */
  noisy(input: Tensors, run: number, reference: number, table: NodeTable): Record<string, Float64Array> {
    const seed = this.seed + 1000 * (run + 1);
    const sources: NoiseSources = {
      parameters: this.parameters,
      magnitude: (value) => table.magnitude(value),
      bootstrap: (rangeLog2) => this.bootstrap(rangeLog2),
      modelledRange: (callee) => this.ranges.get(callee),
    };
    const noise: NoiseModel = { seed, stdDev: (op, element) => opNoise(op, element, sources) };
    const visit = table.noisyRun(reference);
    const args = this.pack(input, new Gaussian(seed + 1));
    return this.run(args, { noise, observe: (op, values) => visit(op, values) });
  }

  private run(args: readonly CipherValue[], options: RunOptions): Record<string, Float64Array> {
    const results = runCipherFunction(this.module, this.main, args, options);
    return Object.fromEntries(
      this.module.outputs.map((port: Port, i) => {
        const value = defined(results[i], `result ${i}`);
        invariant(value.kind === 'ct', 'an output is a ciphertext array');
        return [port.name, unpackOutput(port, value.re)];
      }),
    );
  }

  /** With a generator, the noise of fresh encryptions is added in every slot, used or not. */
  private pack(input: Tensors, gaussian: Gaussian | undefined): CipherValue[] {
    return this.module.inputs.map((port, i) => {
      const type = defined(this.main.body.args[i], 'argument').type;
      invariant(type.kind === 'ct', 'an input is a ciphertext array');
      const re = packInput(port, defined(input[port.name], `input ${port.name}`));
      const deviation = freshNoise(this.parameters, type);
      return {
        kind: 'ct',
        axes: type.axes,
        im: null,
        re: gaussian === undefined ? re : re.map((vector) => gaussian.added(vector, deviation)),
      };
    });
  }

  private bootstrap(rangeLog2: number): number {
    const known = this.bootstraps.get(rangeLog2) ?? bootstrapNoise(this.parameters, rangeLog2, this.seed);
    this.bootstraps.set(rangeLog2, known);
    return known;
  }
}

/** The module with predicted errors on its outputs. */
export function withPredictedErrors(module: Module, prediction: ErrorPrediction): Module {
  return {
    ...module,
    outputs: module.outputs.map((port) => ({ ...port, predictedError: prediction.outputs[port.name] })),
  };
}
