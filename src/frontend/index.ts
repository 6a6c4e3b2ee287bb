/** ONNX bytes to a shaped graph that can be run in the clear, and to the canonical tensor phase. */
import { AegisError, Diagnostics, type Diagnostic } from '../support/diagnostics.js';
import type { Module } from '../ir/module.js';
import { bindInputs, type DimensionOptions } from './bind.js';
import { withLimit } from './client.js';
import {
  runGraph,
  shapeGraph,
  toTensor,
  type GraphInput,
  type InputData,
  type ShapedGraph,
} from './evaluate.js';
import { folderLoader, readBounded, type ExternalLoader } from './external.js';
import { finishModule } from './lower/finish.js';
import { lowerGraph, type Lowered } from './lower/lower.js';
import type { MaskSamples } from './lower/mask-probes.js';
import { containerOf, elementCount, refuse, type Tensor } from './model.js';
import { maxModelBytes, readOnnx } from './onnx.js';

export type { DimensionOptions } from './bind.js';
export type { MaskSamples } from './lower/mask-probes.js';
export type { ExternalLoader } from './external.js';
export type { GraphInput, InputData } from './evaluate.js';
export { requireKept } from './write-onnx.js';
export { ClientProgram, type ClientDescription, type ClientInput, type ClientOutput } from './client.js';

/** A file, or bytes with a loader for external data. */
export type ModelSource = string | { readonly bytes: Uint8Array; readonly externalData?: ExternalLoader };

/** The imported graph at fixed shapes, as ONNX means it, in double precision. */
export class RawGraph {
  constructor(
    private readonly graph: ShapedGraph,
    private readonly problems: readonly Diagnostic[],
    private readonly samples: MaskSamples,
  ) {}

  get inputs(): readonly GraphInput[] {
    return this.graph.inputs;
  }

  get outputs(): readonly string[] {
    return this.graph.model.outputs;
  }

  get sourceHash(): string {
    return this.graph.model.sourceHash;
  }

  /** Evaluates the whole graph: values by input name, row-major; results by output name. */
  run(inputs: Readonly<Record<string, InputData>>): Record<string, Tensor> {
    if (this.problems.length > 0) throw new AegisError(this.problems);
    const given = new Map(this.inputs.map((input) => [input.name, toTensor(input, inputs[input.name])]));
    return Object.fromEntries(runGraph(this.graph, given));
  }

  /** Inputs that are masks and nothing else, with values that drop no token. */
  openMasks(): Map<string, Tensor> {
    const { maskSources, openMasks } = this.lowered();
    return new Map(
      this.inputs
        .filter((input) => maskSources.has(input.name) && withLimit(this.graph, input).limit === undefined)
        .map((input) => [input.name, openMasks.get(input.name) ?? oneEverywhere(input)]),
    );
  }

  /** The canonical module; throws one AegisError with all that is not supported. */
  lower(): Module {
    return finishModule(this.graph, this.lowered());
  }

  private lowered(): Lowered {
    return lowerGraph(this.graph, this.problems, this.samples);
  }
}

/**
 * Reads, checks and shapes a model; operators that are not known are reported by `run` and `lower`. Without
 * padding, inputs that masks are made from, and that choose no rows of a table, drop no token.
 */
export function readGraph(source: ModelSource, options: DimensionOptions = {}): RawGraph {
  const model =
    typeof source === 'string'
      ? readOnnx(readModelFile(source), folderLoader(source))
      : readOnnx(source.bytes, source.externalData ?? (() => undefined));
  const inputs = bindInputs(model, options);
  const shaped = (fixed?: ReadonlyMap<string, Tensor>): RawGraph => {
    const problems = new Diagnostics();
    const graph = shapeGraph(model, inputs, problems, fixed);
    return new RawGraph(graph, problems.list, options.masks ?? {});
  };
  const graph = shaped();
  return options.noPadding === true ? shaped(graph.openMasks()) : graph;
}

function oneEverywhere({ dtype, shape }: GraphInput): Tensor {
  const data = containerOf(dtype, elementCount(shape));
  return { dtype, shape, data: data instanceof BigInt64Array ? data.fill(1n) : data.fill(1) };
}

function readModelFile(path: string): Uint8Array {
  return readBounded(path, maxModelBytes) ?? refuse({ code: 'F101', message: `cannot read "${path}"` });
}

export interface ImportedModel {
  readonly module: Module;
  readonly graph: RawGraph;
}

/** The whole frontend: file to canonical module, with the raw graph as an oracle beside it. */
export function importModel(source: ModelSource, options: DimensionOptions = {}): ImportedModel {
  const graph = readGraph(source, options);
  return { module: graph.lower(), graph };
}
