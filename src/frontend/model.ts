/**
 * The imported graph before canonicalisation: ONNX nodes over named values, with typed tensors. Element types
 * narrower than their container keep their ONNX name in `dtype`; the container is chosen by `containerOf`.
 */
import { AegisError, type Diagnostic } from '../support/diagnostics.js';

export type DType =
  | 'float16'
  | 'bfloat16'
  | 'float32'
  | 'float64'
  | 'int8'
  | 'uint8'
  | 'int16'
  | 'uint16'
  | 'int32'
  | 'uint32'
  | 'int64'
  | 'bool';

/** int64 and uint32 are exact bigints; the narrower integers share one container. */
export type Data = Float32Array | Float64Array | Int32Array | BigInt64Array | Uint8Array;

/** What is known of a value at compile time: always its shape, its data only when it is public. */
export interface Known {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly data: Data | null;
}

export interface Tensor extends Known {
  readonly data: Data;
}

export type Attribute = number | string | Tensor | readonly number[] | readonly string[];

export interface Node {
  readonly name: string;
  readonly opType: string;
  /** '' is the ONNX domain. */
  readonly domain: string;
  /** Value names; '' is an absent optional input. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: ReadonlyMap<string, Attribute>;
}

/** A graph input; a dimension is a size, or the name of a dynamic one ('?' when the file gives none). */
export interface InputDecl {
  readonly name: string;
  readonly dtype: DType;
  readonly dims: readonly (number | string)[];
}

export interface OnnxModel {
  readonly name: string;
  readonly opset: number;
  readonly inputs: readonly InputDecl[];
  readonly outputs: readonly string[];
  readonly initializers: ReadonlyMap<string, Tensor>;
  /** In topological order. */
  readonly nodes: readonly Node[];
  readonly sourceHash: string;
}

/** No tensor of a model we can run comes near this; larger ones are refused before memory is taken. */
export const maxElements = 2 ** 30;

export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

export function isFloat(dtype: DType): boolean {
  return dtype === 'float16' || dtype === 'bfloat16' || dtype === 'float32' || dtype === 'float64';
}

export function isBig(dtype: DType): boolean {
  return dtype === 'int64' || dtype === 'uint32';
}

/** Allocates zeros; floats are computed in double precision whatever their ONNX type. */
export function containerOf(dtype: DType, count: number): Data {
  if (isFloat(dtype)) return new Float64Array(count);
  if (isBig(dtype)) return new BigInt64Array(count);
  return dtype === 'bool' ? new Uint8Array(count) : new Int32Array(count);
}

export function refuse(diagnostic: Diagnostic): never {
  throw new AegisError(diagnostic);
}
