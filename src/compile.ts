/** The compiler's public functions: from an ONNX file to a plan, and from samples to calibrated ranges. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import type { PlanSummary } from './backend/index.js';
import {
  lowerPlaced,
  lowerWithin,
  place,
  type PlacedModule,
  type PlacementOptions,
} from './compile/place.js';
import { ChainChoice, type ChainReport } from './compile/chain.js';
import { withinGoal, type ErrorGoal } from './compile/error-goal.js';
import { clientOf, randomInputs, sampleInputs, seenIn } from './compile/inputs.js';
import type { Samples } from './data/index.js';
import { importModel, requireKept } from './frontend/index.js';
import { runTensor } from './ir/interpreter/tensor.js';
import type { Approximation, Module } from './ir/module.js';
import { printModule } from './ir/printer.js';
import { assertVerified } from './ir/verifier.js';
import { calibrateModule } from './passes/calibrate.js';
import { affordableRuns, probesOf } from './passes/measure-bounds.js';
import { layerBlocks } from './passes/layer-blocks.js';
import { describeLevels, type LevelReport, type ValueBounds } from './passes/plan-levels.js';
import { chainOf } from './passes/plan-levels/chain.js';
import { cipherPipeline, defaultPack, runPipeline, type PassReport } from './passes/pipeline.js';
import type { PackOptions } from './passes/pack/context.js';
import {
  defaultPredictOptions,
  predictError,
  withPredictedErrors,
  type ErrorPrediction,
} from './passes/predict-error.js';
import { shorterRequests, type Ranges } from './passes/ranges.js';
import { AegisError, type Diagnostic } from './support/diagnostics.js';
import { defined } from './support/invariant.js';
import {
  defaultLiteral,
  makeParameters,
  ringLogN,
  type Parameters,
  type RingName,
} from './target/parameters.js';
import type { SecurityBits } from './target/security.js';

export { clientOf, sampleInputs } from './compile/inputs.js';
export { compilerVersion } from './compile/place.js';

export interface ShapeOptions {
  /** Value of the sequence dimension, where the model leaves it open. */
  readonly seqLen?: number | undefined;
  /** Values of named dimensions. */
  readonly dims?: Readonly<Record<string, number>> | undefined;
  /** Requests have no padding: masks cost nothing, and the client refuses those that drop a token. */
  readonly noPadding?: boolean | undefined;
}

export interface CompileOptions extends ShapeOptions, PlacementOptions {
  readonly ring: RingName;
  readonly security?: SecurityBits | undefined;
  /** Usable levels between bootstraps; those of the fastest chain unless given. */
  readonly levels?: number | undefined;
  /** Accept parameters below the security level; the plan and all made from it say INSECURE. */
  readonly insecure?: boolean | undefined;
  /** Calibrated ranges; or samples to calibrate on; without either, seeded random inputs and a warning. */
  readonly ranges?: Ranges | undefined;
  readonly samples?: Samples | undefined;
  /** Folder for the IR after every pass. */
  readonly dumpIr?: string | undefined;
  /** Largest predicted error that the outputs may have; without one, every node has a fixed tolerance. */
  readonly maxError?: ErrorGoal | undefined;
  readonly pack?: Partial<PackOptions> | undefined;
  /** Bytes of evaluation keys in memory: more rotations take the place of keys until they fit. */
  readonly keyMemory?: number | undefined;
  /** Isomorphic layers from which on they are compiled once; 0 for never, by default three. */
  readonly outline?: number | undefined;
  /** Arguments of polynomials are outputs too, so that `decrypt` sees what left its range. */
  readonly witnesses?: boolean | undefined;
  readonly onProgress?: ((pass: string, fraction: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface CompileSummary extends PlanSummary {
  readonly passes: readonly PassReport[];
  /** Of plan-levels. */
  readonly levelPlan: LevelReport;
  /** Nonlinear functions by node, in program order. */
  readonly approximations: readonly Approximation[];
  /** Prime chains that were tried, the first one to be taken first; empty with `levels`. */
  readonly chains: readonly ChainReport[];
}

export interface CompileResult {
  readonly tensor: Module;
  readonly cipher: Module;
  readonly poly: Module;
  readonly plan: Uint8Array;
  readonly weights: Uint8Array;
  readonly summary: CompileSummary;
  readonly warnings: readonly Diagnostic[];
}

/** What a new key counts in key switches, tried in this order where keys have a limit. */
const keyPrices = [defaultPack.newKey, 10, 30, 60, 200, 1000];

/** Blocks that DESIGN section 4 allows. */
const maxTokenBlocks = 8;

/** Share of the passes that are over once levels are planned. */
const levelsProgress = 0.4;

const seconds = () => performance.now() / 1000;

/** Compiles a model. Errors: AegisError with every diagnostic that could be collected. */
export async function compile(modelPath: string, options: CompileOptions): Promise<CompileResult> {
  const reports: PassReport[] = [];
  const warnings: Diagnostic[] = [];
  const total = cipherPipeline.length + 4;
  const step = async <T>(name: string, work: () => T): Promise<T> => {
    options.onProgress?.(name, reports.length / total);
    // Lets a caller's Ctrl-C and progress display in between passes.
    await new Promise((resolve) => setImmediate(resolve));
    options.signal?.throwIfAborted();
    const start = seconds();
    const result = work();
    reports.push({ name, seconds: seconds() - start });
    return result;
  };

  const dump = makeDump(options.dumpIr);
  const { module: imported } = await step('import', () =>
    importModel(modelPath, { ...options, ...seenIn(options) }),
  );
  assertVerified(imported, 'import');
  dump('import', imported);
  const ranges =
    options.ranges
    ?? (await step('calibrate', () => calibrateOn(imported, options.samples, warnings, options)));
  checkRanges(ranges, imported, options);
  const tensor = withShortest(imported, ranges);

  const parameters = parametersFor(options, tensor);
  const chain = new ChainChoice(options.levels !== undefined, options.profile);
  const { module, passes, dumped, levelPlan } = await step('passes', () =>
    withinBudget({ tensor, ranges, parameters, chain }, options),
  );
  const tried = defined(reports.pop(), 'report of all passes').seconds;
  const others = tried - passes.reduce((sum, one) => sum + one.seconds, 0);
  reports.push(...passes);
  if (blockCounts(options).length > 1) reports.push({ name: 'other token blocks', seconds: others });
  for (const [name, one] of dumped) dump(name, one);
  const cipher = await step('predict-error', () => predicted(module.cipher, tensor, ranges, warnings));
  dump('predict-error', cipher);
  const lowered = await step('lower', () => lowerWithin({ ...module, cipher }, options));
  dump('lower-keyswitch', lowered.poly);
  return {
    tensor,
    cipher,
    poly: lowered.poly,
    plan: lowered.plan,
    weights: lowered.weights,
    summary: {
      ...lowered.summary,
      passes: reports,
      levelPlan,
      approximations: cipher.approximations ?? [],
      chains: chain.report,
    },
    warnings,
  };
}

/** With an error budget, the fastest module that keeps it. */
function withinBudget(source: Source, options: CompileOptions): Candidate {
  const { maxError } = options;
  if (maxError === undefined) return fastestWithKeys(source, options);
  const { tensor, ranges } = source;
  return withinGoal(maxError, tensor, ranges, (budgeted) => {
    const candidate = fastestWithKeys({ ...source, ranges: budgeted }, options);
    const { cipher, report } = candidate.module;
    const prediction = predictionOf(cipher, tensor, ranges);
    if (prediction === undefined) throw new AegisError(unpredicted(ranges));
    return { candidate, parts: prediction.parts, seconds: report?.seconds ?? Infinity };
  });
}

interface Candidate {
  readonly module: PlacedModule;
  readonly levelPlan: LevelReport;
  readonly passes: readonly PassReport[];
  readonly dumped: readonly (readonly [string, Module])[];
}

/**
 * The fastest module whose keys, and on one device all of whose memory, are within their limits, found by
 * taking prime chains with smaller keys and by pricing keys higher and higher. The smallest one where only
 * memory exceeds its limit. Error B112 where the fewest keys are too large.
 */
function fastestWithKeys(source: Source, options: CompileOptions): Candidate {
  const { keyMemory = Infinity, memoryLimit = Infinity, devices = 1 } = options;
  if (keyMemory === Infinity && memoryLimit === Infinity) return fastest(source, options);
  const prices = keyMemory === Infinity && devices > 1 ? [defaultPack.newKey] : keyPrices;
  let smallest: { candidate: Candidate; keyBytes: number; peakBytes: number } | undefined;
  for (const newKey of prices) {
    let onlyRest = false;
    // Higher prices keep the chain with the smallest keys.
    do {
      const candidate = fastest(source, { ...options, pack: { ...options.pack, newKey } });
      const { keyBytes, peakBytes } = sizesOf(candidate, options);
      if (keyBytes <= keyMemory && peakBytes <= memoryLimit) return candidate;
      if (peakBytes < (smallest?.peakBytes ?? Infinity)) smallest = { candidate, keyBytes, peakBytes };
      onlyRest = keyBytes <= keyMemory && peakBytes - keyBytes > memoryLimit;
    } while (source.chain.lighter());
    // Fewer keys do not help where the rest is too large.
    if (onlyRest) break;
  }
  const { candidate, keyBytes } = defined(smallest, 'candidate');
  if (keyBytes <= keyMemory) return candidate;
  throw new AegisError({
    code: 'B112',
    message: `evaluation keys take ${keyBytes} bytes at least but the limit allows ${keyMemory}`,
    help: 'raise --key-memory',
  });
}

/** Of one rank; on several devices of the placement that keeps the memory limit, if there is one. */
function sizesOf({ module }: Candidate, options: CompileOptions): { keyBytes: number; peakBytes: number } {
  const { devices = 1, memoryLimit = Infinity } = options;
  const lowered = lowerPlaced(module, options).summary;
  if (devices === 1 || lowered.peakBytes <= memoryLimit) return lowered;
  try {
    return lowerWithin(module, options).summary;
  } catch (error) {
    if (error instanceof AegisError && error.diagnostics.every(({ code }) => code === 'B110')) return lowered;
    throw error;
  }
}

/**
 * Among the ways to cut tokens into blocks the placed module that is predicted to be fastest within the
 * memory limit; the smallest one if none is.
 */
function fastest(source: Source, options: CompileOptions): Candidate {
  const made = packedModules(source, options, blockCounts(options)).map(
    ({ cipher, passes, dumped, levelPlan }): Candidate => {
      const start = seconds();
      const module = place(cipher, options);
      return {
        module,
        dumped,
        levelPlan,
        passes: [...passes, { name: 'co-place', seconds: seconds() - start }],
      };
    },
  );
  return chooseWithin(options.memoryLimit, made, options);
}

/** Estimates of memory would not do: plans are lowered until one fits. */
function chooseWithin(
  limit: number | undefined,
  made: readonly Candidate[],
  options: CompileOptions,
): Candidate {
  const secondsOf = ({ module }: Candidate): number => module.report?.seconds ?? Infinity;
  const sorted = [...made].sort((a, b) => secondsOf(a) - secondsOf(b));
  const fastest = defined(sorted[0], 'candidate');
  if (limit === undefined || sorted.length === 1) return fastest;
  let smallest = { candidate: fastest, peakBytes: Infinity };
  for (const candidate of sorted) {
    const { peakBytes } = lowerPlaced(candidate.module, options).summary;
    if (peakBytes <= limit) return candidate;
    if (peakBytes < smallest.peakBytes) smallest = { candidate, peakBytes };
  }
  return smallest.candidate;
}

interface Source {
  readonly tensor: Module;
  readonly ranges: Ranges;
  /** That packing counts with. */
  readonly parameters: Parameters;
  readonly chain: ChainChoice;
}

interface PackedModule {
  readonly tokenBlocks: number;
  readonly cipher: Module;
  readonly passes: readonly PassReport[];
  readonly levelPlan: LevelReport;
  readonly dumped: readonly (readonly [string, Module])[];
}

/** The cipher module for each number of token blocks; numbers that the tokens do not allow are left out. */
function packedModules(source: Source, options: CompileOptions, counts: readonly number[]): PackedModule[] {
  const { tensor, ranges, parameters } = source;
  const chain = (module: Module, bounds: ValueBounds): Parameters =>
    source.chain.parametersFor(module, bounds);
  const blocks = layerBlocks(tensor);
  return counts.flatMap((tokenBlocks) => {
    const pack = { ...defaultPack, ...options.pack, tokenBlocks };
    let levelPlan: LevelReport | undefined;
    const onLevels = (report: LevelReport): void => {
      levelPlan = report;
      options.onProgress?.(`plan-levels: ${describeLevels(report)}`, levelsProgress);
    };
    const { outline, profile, witnesses } = options;
    const reports = { now: seconds, onLevels };
    const context = { parameters, ranges, pack, outline, profile, witnesses, chain, ...reports };
    const dumped: [string, Module][] = [];
    try {
      const run = runPipeline(tensor, context, seconds, (pass, module) => dumped.push([pass.name, module]));
      const levels = defined(levelPlan, 'report of plan-levels');
      const cipher = { ...run.module, blocks };
      return [{ tokenBlocks, cipher, passes: run.reports, dumped, levelPlan: levels }];
    } catch (error) {
      if (tokenBlocks > 1 && counts.length > 1 && error instanceof AegisError) return [];
      throw error;
    }
  });
}

/**
 * Cipher modules of a model, one for each number of token blocks, without predicted errors: what compare
 * places and
 * simulates.
 */
export async function packVariants(
  modelPath: string,
  options: CompileOptions,
  counts: readonly number[],
): Promise<readonly PackedModule[]> {
  const { module: tensor } = importModel(modelPath, { ...options, ...seenIn(options) });
  await new Promise((resolve) => setImmediate(resolve));
  const ranges = options.ranges ?? calibrateOn(tensor, options.samples, [], options);
  checkRanges(ranges, tensor, options);
  const parameters = parametersFor(options, tensor);
  const chain = new ChainChoice(options.levels !== undefined, options.profile);
  return packedModules({ tensor, ranges, parameters, chain }, options, counts);
}

/** Ways to cut tokens into blocks that are tried. */
function blockCounts(options: CompileOptions): number[] {
  const { devices = 1, strategy = 'coplaced', pack, memoryLimit } = options;
  if (pack?.tokenBlocks !== undefined) return [pack.tokenBlocks];
  if (strategy !== 'coplaced' && strategy !== 'app') return [1];
  const counts = tokenBlockCounts(devices);
  // Fewer blocks take less memory.
  return memoryLimit === undefined ? counts : powersOfTwo(Math.max(...counts));
}

function powersOfTwo(largest: number): number[] {
  return Array.from({ length: Math.log2(largest) + 1 }, (_, i) => 2 ** i);
}

/** One block, or one for each device. */
export function tokenBlockCounts(devices: number): number[] {
  const least = 2 ** Math.ceil(Math.log2(devices));
  return least > 1 && least <= maxTokenBlocks ? [1, least] : [1];
}

/** Runs a model in the clear on samples and returns what compile needs to choose approximations. */
export async function calibrate(
  modelPath: string,
  samples: Samples,
  options: ShapeOptions & { onProgress?: (fraction: number) => void } = {},
): Promise<Ranges> {
  const { module } = importModel(modelPath, { ...options, ...seenIn({ samples }) });
  await new Promise((resolve) => setImmediate(resolve));
  return calibrateOn(module, samples, [], options, (done) => options.onProgress?.(done / samples.count));
}

/**
 * Parameters of a ring by name; `small` grows by one where a ciphertext would hold less than one block of
 * tokens.
 */
export function parametersFor(
  options: Pick<CompileOptions, 'ring' | 'security' | 'insecure' | 'levels'>,
  tensor: Module,
): Parameters {
  const { ring, security = 128, insecure = false, levels } = options;
  if (ring !== 'secure' && !insecure) {
    throw new AegisError({
      code: 'S102',
      message: `ring ${ring} is for tests and gives no security`,
      help: 'add --insecure, or use --ring secure',
    });
  }
  const tokens = Math.max(
    ...tensor.functions
      .flatMap((f) => f.body.ops)
      .map((op) => {
        const type = op.results[0]?.type;
        return type?.kind === 'tensor' ? (type.shape[0] ?? 1) : 1;
      }),
  );
  const logTokens = Math.ceil(Math.log2(tokens));
  const logN = ring === 'small' && logTokens > ringLogN.small - 5 ? ringLogN.small + 1 : ringLogN[ring];
  const literal = defaultLiteral(ring, insecure, { security, logN });
  return levels === undefined ? makeParameters(literal) : chainOf(literal, levels);
}

function checkRanges(ranges: Ranges, tensor: Module, { noPadding = false }: ShapeOptions): void {
  const otherFile = ranges.sourceHash !== tensor.sourceHash;
  const otherShape = tensor.inputs.find((port) => ranges.shapes[port.name]?.join() !== port.shape.join());
  const otherMasks = (ranges.noPadding ?? false) !== noPadding;
  if (!otherFile && otherShape === undefined && !otherMasks) return;
  throw new AegisError({
    code: 'A103',
    message: otherFile
      ? 'the ranges were calibrated on another model file'
      : otherMasks
        ? `the ranges were calibrated ${noPadding ? 'without' : 'with'} --no-padding`
        : `the ranges were calibrated at another shape of input "${otherShape?.name ?? ''}"`,
    help: 'calibrate this model: aegis calibrate MODEL --samples F -o RANGES.json',
  });
}

/** Ranges carry the shapes of the model's inputs too, which give dynamic dimensions their sizes. */
function calibrateOn(
  tensor: Module,
  samples: Samples | undefined,
  warnings: Diagnostic[],
  { noPadding }: ShapeOptions,
  onSample?: (done: number) => void,
): Ranges {
  if (samples === undefined) {
    warnings.push({
      code: 'A104',
      message: 'no ranges and no samples were given: ranges come from seeded random inputs',
      help: 'give --samples or --ranges; real inputs may leave these ranges',
    });
  }
  const values = samples === undefined ? randomInputs(tensor) : sampleInputs(tensor, samples);
  const ranges = calibrateModule(tensor, values, onSample);
  const { inputs } = clientOf(tensor);
  const shapes = Object.fromEntries(inputs.map(({ name, shape }) => [name, shape]));
  const masks = noPadding === true ? { noPadding } : {};
  const open = Object.fromEntries(
    inputs.flatMap(({ name, open }) => (open === undefined ? [] : [[name, Array.from(open)]])),
  );
  const shown = Object.keys(open).length === 0 ? {} : { masks: open };
  return { ...ranges, ...masks, ...shown, shapes: { ...shapes, ...ranges.shapes } };
}

/** The client refuses requests that keep fewer tokens than the denominators' intervals allow. */
function withShortest(tensor: Module, { nodes }: Ranges): Module {
  const { args, ops } = defined(tensor.functions[0], 'main').body;
  let { client } = tensor;
  const seen = new Set<string>();
  for (const node of nodes) {
    const [, , , mask] = ops[node.op]?.operands ?? [];
    const maker = ops.find(({ results }) => mask !== undefined && results.includes(mask));
    const port = tensor.inputs[args.findIndex((arg) => arg === maker?.operands[0])];
    const seenLeast = node.attention?.keys?.min;
    if (port === undefined || seenLeast === undefined || seen.has(port.name)) continue;
    seen.add(port.name);
    const least = Math.ceil(seenLeast / shorterRequests);
    const why = `the shortest sample of the calibration has ${seenLeast}`;
    client = requireKept(client, port.name, least, `at least ${least} tokens that are no padding, as ${why}`);
  }
  return { ...tensor, client };
}

/** The module with predicted errors, unless there is no input to run it on or a run takes minutes. */
function predicted(cipher: Module, tensor: Module, ranges: Ranges, warnings: Diagnostic[]): Module {
  const prediction = predictionOf(cipher, tensor, ranges);
  if (prediction !== undefined) return withPredictedErrors(cipher, prediction);
  warnings.push(unpredicted(ranges));
  return cipher;
}

function unpredicted({ probes }: Ranges): Diagnostic {
  return {
    code: 'A105',
    message:
      probes.length === 0
        ? 'the ranges hold no calibration inputs: the output error is not predicted'
        : 'a clear run of this plan takes minutes: the output error is not predicted',
    help: 'compile the model at a shorter length, with samples, to see its error',
  };
}

function predictionOf(cipher: Module, tensor: Module, ranges: Ranges): ErrorPrediction | undefined {
  const all = probesOf(ranges);
  const runs = affordableRuns(cipher, all.length + defaultPredictOptions.runs);
  if (all.length === 0 || runs === 0) return undefined;
  const noisyRuns = Math.min(defaultPredictOptions.runs, Math.max(1, runs - 1));
  const probes = all.slice(0, Math.max(1, runs - noisyRuns));
  const references = probes.map((probe) => runTensor(tensor, probe));
  return predictError(cipher, probes, references, { runs: noisyRuns });
}

/** One file per pass, in the order of the pipeline. */
function makeDump(folder: string | undefined): (name: string, module: Module) => void {
  let index = 0;
  return (name, module) => {
    if (folder === undefined) return;
    mkdirSync(folder, { recursive: true });
    const file = `${String(index++).padStart(2, '0')}-${name}.aegis-ir`;
    writeFileSync(join(folder, file), printModule(module, { data: 'hash', locations: true }));
  };
}
