/**
 * The module: functions of blocks of ops over SSA values, with constants and index tables beside them.
 * Everything is
 * readonly; the builder (builder.ts) makes ops, passes return new modules. Ops may use values of enclosing
 * blocks.
 */
import type { Parameters } from '../target/parameters.js';
import type { Phase, Type } from './types.js';

export type AttrValue =
  null | boolean | number | string | readonly AttrValue[] | { readonly [key: string]: AttrValue };
export type Attrs = Readonly<Record<string, AttrValue>>;

export interface Value {
  readonly id: number;
  readonly type: Type;
}

export interface Op {
  /** Key into the op table (ops/table.ts). */
  readonly kind: string;
  readonly operands: readonly Value[];
  readonly attrs: Attrs;
  readonly results: readonly Value[];
  readonly regions: readonly Block[];
  /** ONNX node this op was made for. */
  readonly loc: string;
}

export interface Block {
  readonly args: readonly Value[];
  readonly ops: readonly Op[];
  /** What the block yields: loop-carried values, or a function's results. */
  readonly results: readonly Value[];
}

export interface Func {
  readonly name: string;
  readonly body: Block;
  /** What the function does to plain slot values; the clear interpreter uses it instead of the body. */
  readonly models?: { readonly kind: 'bootstrap'; readonly rangeLog2: number } | undefined;
}

/** A dense real constant, row-major. */
export interface Constant {
  readonly shape: readonly number[];
  readonly data: Float64Array;
}

/**
 * Where the elements of a logical tensor lie: slot u + period * t of array element e (row-major over the
 * value's axes)
 * holds flat index `features[e * period + u] + tokens[t]`; a negative entry in either means zero. A
 * ciphertext has G = N/2 / period tokens. With token blocks the slowest axis is the block p, and `tokens`
 * holds a part of G entries for each: element e reads entry p * G + t.
 */
export interface SlotMap {
  readonly period: number;
  /** Token blocks; one if undefined. period * tokens.length = blocks * N/2. */
  readonly blocks?: number | undefined;
  readonly features: Int32Array;
  readonly tokens: Int32Array;
}

/** One input or output of the model, as the client packs or reads it. */
export interface Port {
  readonly name: string;
  readonly shape: readonly number[];
  /** Axes of the ciphertext array; undefined in the tensor phase. */
  readonly slots?: SlotMap | undefined;
  /** Real value = factor * slot value. */
  readonly factor: number;
  /** Calibrated bound of |value|, what the client checks before it encrypts. */
  readonly bound?: number | undefined;
  /** Predicted error (6 sigma, DESIGN section 5), outputs only; undefined until predict-error has run. */
  readonly predictedError?: number | undefined;
}

/**
 * What the data owner computes in the clear, as ONNX files without external data. The prologue's inputs are
 * inputs of the model, its outputs input ports; an output that is no port must be 1 everywhere, or the
 * request is refused under its name. The epilogue's inputs are the output ports, its outputs those of the
 * model.
 */
export interface ClientParts {
  readonly prologue: Uint8Array | null;
  readonly epilogue: Uint8Array | null;
}

/** How pack computes a nonlinear function of a node. */
export interface Approximation {
  /** Of the ONNX model. */
  readonly node: string;
  /** `gelu`, `exp`, `inverse`, `inverse square root`, ... */
  readonly function: string;
  /** Of the argument: what calibration saw, widened. */
  readonly interval: { readonly min: number; readonly max: number };
  /** Of Chebyshev series that are applied one after another. */
  readonly degrees: readonly number[];
  /** After the series: cubic steps of an inverse square root, squarings of a softmax. */
  readonly steps: number;
  /** That the series and the cubic steps take; squarings of a softmax come with its inverses. */
  readonly levels: number;
  /** Largest error on the interval; relative to the result where `relative`. */
  readonly error: number;
  readonly relative: boolean;
}

/** The part of an encoder layer that a node belongs to. */
export type LayerBlock = 'rest' | 'attention' | 'ffn';

export interface Module {
  readonly phase: Phase;
  /** Name of the model, for people. */
  readonly name: string;
  /** SHA-256 of the ONNX file and its external data. */
  readonly sourceHash: string;
  readonly parameters: Parameters | null;
  readonly functions: readonly Func[];
  readonly constants: ReadonlyMap<string, Constant>;
  /** Index tables of recipes, referenced from attributes by name. */
  readonly tables: ReadonlyMap<string, Int32Array>;
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
  /** Absent where the ports are the model's inputs and outputs. */
  readonly client?: ClientParts | undefined;
  /** By ONNX node; nodes that are not listed belong to the rest. */
  readonly blocks?: ReadonlyMap<string, LayerBlock> | undefined;
  /** In the order of the nodes; absent before pack. */
  readonly approximations?: readonly Approximation[] | undefined;
}

export const entryName = 'main';

/** Output ports that are no outputs of the model: arguments of polynomials (add-witnesses). */
export const witnessPrefix = 'aegis.witness/';

export function isWitness(port: string): boolean {
  return port.startsWith(witnessPrefix);
}

/** Calls `visit` on every op, in program order, outer before inner. */
export function walkOps(block: Block, visit: (op: Op, block: Block) => void): void {
  for (const op of block.ops) {
    visit(op, block);
    for (const region of op.regions) walkOps(region, visit);
  }
}
