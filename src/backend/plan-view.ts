/**
 * A plan as plain readonly records, field by field what runtime/plan/plan.fbs says (units and meaning are
 * stated there). The backend builds one, verifies it, and writes it; `readPlan` gives the same records back.
 */
import type { Approximation, ClientParts, LayerBlock } from '../ir/module.js';
import { kernelKinds, type KernelKind } from '../target/profile.js';

export type { LayerBlock };

export const formatMajor = 2;
export const formatMinor = 3;

export type Opcode = KernelKind | 'loop' | 'call' | 'collective' | 'wait';

/** In the order of the schema's enum, which only grows at its end. */
export const opcodes: readonly Opcode[] = [
  ...kernelKinds.filter((kind) => kind !== 'ntt_sub_scale'),
  'loop',
  'call',
  'collective',
  'wait',
  'ntt_sub_scale',
];

/** In the order of the schema's enums. */
export const collectiveKinds = [
  'all_gather',
  'reduce_scatter',
  'all_reduce',
  'all_to_all',
  'broadcast',
] as const;
export type CollectiveKind = (typeof collectiveKinds)[number];

export const layerBlocks: readonly LayerBlock[] = ['rest', 'attention', 'ffn'];

export const keyKinds = ['relinearize', 'galois', 'to_sparse', 'to_dense'] as const;
export type KeyKind = (typeof keyKinds)[number];

export interface View {
  readonly buffer: number;
  readonly offset: number;
  readonly strides: readonly number[];
  readonly componentStride: number;
  readonly limbStride: number;
  readonly loopStrides: readonly number[];
}

export interface Command {
  readonly op: Opcode;
  readonly dims: readonly number[];
  readonly reduceRank: number;
  readonly accumulate: boolean;
  readonly limbs: readonly number[];
  readonly out: View | null;
  readonly a: View | null;
  readonly b: View | null;
  readonly plain: View | null;
  readonly sourceLimbs: readonly number[];
  readonly scalars: readonly number[];
  readonly keys: readonly number[];
  /** -1: one key for all. */
  readonly keyDim: number;
  readonly keysPerIteration: number;
  readonly digitCount: number;
  /** Digit of the key that the first digit of the operand meets. */
  readonly firstDigit: number;
  readonly galois: readonly number[];
  readonly galoisDim: number;
  readonly galoisPerIteration: number;
  readonly tripCount: number;
  readonly body: readonly Command[];
  readonly callee: number;
  readonly bindings: readonly { readonly buffer: number; readonly offset: number }[];
  readonly plainBindings: readonly number[];
  readonly frameOffset: number;
  readonly node: number;
  readonly collective: number;
  readonly blocking: boolean;
}

/** A command with every field at the schema's default. */
export function emptyCommand(op: Opcode, node: number): Command {
  return {
    op,
    dims: [],
    reduceRank: 0,
    accumulate: false,
    limbs: [],
    out: null,
    a: null,
    b: null,
    plain: null,
    sourceLimbs: [],
    scalars: [],
    keys: [],
    keyDim: -1,
    keysPerIteration: 0,
    digitCount: 0,
    firstDigit: 0,
    galois: [],
    galoisDim: -1,
    galoisPerIteration: 0,
    tripCount: 0,
    body: [],
    callee: 0,
    bindings: [],
    plainBindings: [],
    frameOffset: 0,
    node,
    collective: 0,
    blocking: true,
  };
}

export interface Buffer {
  readonly argument: boolean;
  readonly offset: number;
  readonly rows: number;
}

export interface PlaintextSlot {
  readonly argument: boolean;
  readonly plaintext: number;
}

export interface PlanFunction {
  readonly name: string;
  readonly frameRows: number;
  /** Arguments first: inputs, then results. */
  readonly buffers: readonly Buffer[];
  /** Arguments first. */
  readonly plaintexts: readonly PlaintextSlot[];
  readonly commands: readonly Command[];
}

export type Recipe =
  | { readonly kind: 'constant'; readonly values: readonly number[] }
  | {
      readonly kind: 'vector';
      readonly weight: string;
      readonly features: number;
      readonly tokens: number;
      readonly factor: number;
    }
  | {
      readonly kind: 'diagonals';
      readonly weight: string;
      readonly rows: number;
      readonly columns: number;
      readonly baby: readonly number[];
      readonly giant: readonly number[];
      readonly factor: number;
    }
  | {
      readonly kind: 'dft';
      readonly inverse: boolean;
      readonly first: number;
      readonly count: number;
      readonly baby: readonly number[];
      readonly giant: readonly number[];
      readonly factor: number;
    }
  | { readonly kind: 'residue'; readonly residues: readonly number[] }
  | { readonly kind: 'monomial'; readonly power: number };

export interface Plaintext {
  readonly recipe: Recipe;
  readonly elements: number;
  readonly period: number;
  readonly rowWords: number;
  readonly limbs: readonly number[];
  readonly scale: number;
  readonly coefficients: boolean;
}

export interface Key {
  readonly kind: KeyKind;
  readonly galois: number;
  readonly keyClass: number;
  /** Highest level at which the plan uses the key. */
  readonly level: number;
}

export interface IntTable {
  readonly name: string;
  readonly values: Int32Array;
}

export interface PlanPort {
  readonly name: string;
  readonly shape: readonly number[];
  readonly elements: number;
  readonly period: number;
  readonly features: number;
  readonly tokens: number;
  readonly level: number;
  readonly scale: number;
  readonly factor: number;
  readonly bound: number;
  readonly predictedError: number;
}

export interface CollectiveInfo {
  readonly kind: CollectiveKind;
  readonly group: readonly number[];
  readonly rows: readonly number[];
  /** Reductions: primes of the rows of each segment, repeated cyclically. */
  readonly limbs: readonly (readonly number[])[];
  readonly root: number;
  readonly node: number;
  readonly block: LayerBlock;
  readonly executions: number;
  /** Per rank of the group, all executions of one inference. */
  readonly receivedBytes: readonly number[];
}

export interface KeyPart {
  readonly key: number;
  /** Empty: all. */
  readonly limbs: readonly number[];
}

export interface PortPart {
  readonly buffer: number;
  /** Empty: all. */
  readonly elements: readonly number[];
  readonly limbs: readonly number[];
}

/** Bytes. */
export interface RankMemory {
  readonly ports: number;
  readonly frame: number;
  readonly keys: number;
  readonly plaintexts: number;
}

export interface PlanProgram {
  /** Callees before callers, the entry last. */
  readonly functions: readonly PlanFunction[];
  readonly keys: readonly KeyPart[];
  readonly inputs: readonly PortPart[];
  readonly outputs: readonly PortPart[];
  readonly memory: RankMemory;
}

export interface PlanParameters {
  readonly logN: number;
  readonly primes: readonly bigint[];
  readonly maxLevel: number;
  readonly specials: number;
  readonly scales: readonly number[];
  readonly keyClasses: readonly {
    readonly name: string;
    readonly level: number;
    readonly specials: number;
    readonly digits: readonly { readonly first: number; readonly count: number }[];
  }[];
  readonly ephemeralWeight: number;
  readonly logQP: number;
  readonly securityBits: number;
  readonly insecure: boolean;
}

export interface SummaryCounts {
  readonly levels: number;
  readonly bootstraps: number;
  readonly rotations: number;
  readonly ctMultiplications: number;
  readonly keyBytes: number;
  readonly weightsBytes: number;
}

export interface PlanView {
  readonly formatMajor: number;
  readonly formatMinor: number;
  readonly compilerVersion: string;
  readonly modelName: string;
  readonly sourceHash: string;
  readonly weightsHash: string;
  readonly strategy: string;
  readonly mesh: readonly { readonly name: string; readonly size: number }[];
  readonly parameters: PlanParameters;
  readonly keys: readonly Key[];
  readonly tables: readonly IntTable[];
  readonly plaintexts: readonly Plaintext[];
  /** One per rank. */
  readonly programs: readonly PlanProgram[];
  readonly inputs: readonly PlanPort[];
  readonly outputs: readonly PlanPort[];
  readonly locations: readonly string[];
  readonly summary: SummaryCounts;
  readonly collectives: readonly CollectiveInfo[];
  readonly client?: ClientParts | undefined;
  readonly approximations: readonly Approximation[];
}
