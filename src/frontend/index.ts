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
import { lowerGraph } from './lower/lower.js';
import { refuse, type Tensor } from './model.js';
import { maxModelBytes, readOnnx } from './onnx.js';

export type { DimensionOptions } from './bind.js';
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

  /** Inputs that are masks and nothing else. */
  maskInputs(): string[] {
    const { maskSources } = lowerGraph(this.graph, this.problems);
    return this.inputs
      .filter((input) => maskSources.has(input.name) && withLimit(this.graph, input).limit === undefined)
      .map(({ name }) => name);
  }

  /** The canonical module; throws one AegisError with all that is not supported. */
  lower(): Module {
    return finishModule(this.graph, lowerGraph(this.graph, this.problems));
  }
}

/**
 * Reads, checks and shapes a model; operators that are not known are reported by `run` and `lower`. Without
 * padding, integer inputs that masks are made from, and that choose no rows of a table, are 1 everywhere.
 */
export function readGraph(source: ModelSource, options: DimensionOptions = {}): RawGraph {
  const model =
    typeof source === 'string'
      ? readOnnx(readModelFile(source), folderLoader(source))
      : readOnnx(source.bytes, source.externalData ?? (() => undefined));
  const inputs = bindInputs(model, options);
  const shaped = (ones: readonly string[]): RawGraph => {
    const problems = new Diagnostics();
    return new RawGraph(shapeGraph(model, inputs, problems, ones), problems.list);
  };
  const graph = shaped([]);
  return options.noPadding === true ? shaped(graph.maskInputs()) : graph;
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
