/**
 * The form in which each op is declared once; builder, printer, parser, verifier and docs read the same
 * table.
 */
import type { Parameters } from '../target/parameters.js';
import type { Attrs } from './module.js';
import type { Phase, Type } from './types.js';

export type AttrKind =
  'int' | 'real' | 'bool' | 'string' | 'ints' | 'reals' | 'strings' | 'scale' | 'axes' | 'json';

export interface AttrDef {
  readonly kind: AttrKind;
  readonly optional?: boolean;
  readonly doc: string;
}

export interface InferContext {
  /** Null before a pass has chosen them. */
  readonly parameters: Parameters | null;
}

export interface OpDef {
  readonly name: string;
  /** `any`: control flow, allowed in every phase. */
  readonly phase: Phase | 'any';
  readonly summary: string;
  /** Operand names, for messages and docs; a trailing `...` name takes the rest, `?` may be absent. */
  readonly operands: readonly string[];
  readonly attrs: Readonly<Record<string, AttrDef>>;
  readonly regions?: number;
  /** Result types, or what is wrong with the operands, as the text of a diagnostic. */
  readonly infer: (
    operands: readonly Type[],
    attrs: Attrs,
    context: InferContext,
  ) => readonly Type[] | string;
}

/** Ops that own regions or call functions get their result types from the builder's caller. */
export const declaredByCaller = 'results are declared';
