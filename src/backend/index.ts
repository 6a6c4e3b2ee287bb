/**
 * The backend: from the final cipher module to a plan file and its weights, and back from bytes to a readable
 * plan.
 */
import { defined, invariant } from '../support/invariant.js';
import { entryName, type Module, type Value } from '../ir/module.js';
import { assertVerified } from '../ir/verifier.js';
import { emitPlan } from './emit-plan.js';
import { lowerKeyswitch } from './lower-keyswitch.js';
import { numericScale } from './numeric-scale.js';
import type { PlanView } from './plan-view.js';
import { countCipher } from './summary.js';
import { assertSchedule } from './verify-schedule.js';
import { writePlan } from './write-plan.js';

export { lowerKeyswitch } from './lower-keyswitch.js';
export { numericScale } from './numeric-scale.js';
export type { PlanView } from './plan-view.js';
export { printSchedule } from './print-schedule.js';
export { readPlan } from './read-plan.js';
export { verifySchedule } from './verify-schedule.js';

export interface LowerOptions {
  readonly compilerVersion: string;
  /** The placement; one device needs none. */
  readonly strategy: 'coplaced';
}

/** What `aegis compile --json` prints, passes aside (CONTRACT). */
export interface PlanSummary {
  readonly logN: number;
  readonly logQP: number;
  readonly securityBits: number;
  readonly insecure: boolean;
  /** Index of the highest prime of the chain. */
  readonly levels: number;
  readonly bootstraps: number;
  readonly rotations: number;
  readonly ctMultiplications: number;
  /** Evaluation keys in memory, both halves. */
  readonly keyBytes: number;
  readonly planBytes: number;
  readonly weightsBytes: number;
  /** What a run holds at its peak: keys, plaintexts, the frame, inputs and outputs. */
  readonly peakBytes: number;
}

export interface PlanMemory {
  readonly framePeakBytes: number;
  readonly keyBytes: number;
  readonly plaintextBytes: number;
}

export interface LoweredPlan {
  readonly poly: Module;
  readonly plan: Uint8Array;
  readonly weights: Uint8Array;
  readonly summary: PlanSummary;
  readonly memory: PlanMemory;
}

/**
 * Lowers a cipher module with concrete levels, and without ct.polynomial and ct.bootstrap, to a plan for one
 * rank.
 */
export function lowerToPlan(cipher: Module, options: LowerOptions): LoweredPlan {
  const poly = lowerKeyswitch(cipher);
  assertVerified(poly, 'lower-keyswitch');
  const body = defined(
    cipher.functions.find((func) => func.name === entryName),
    `function ${entryName}`,
  ).body;
  const scale = ({ type }: Value): number => {
    invariant(type.kind === 'ct' && type.scale !== null, 'ports are ciphertexts of known scale');
    return numericScale(type.scale, defined(cipher.parameters, 'parameters'));
  };
  const { view, weights } = emitPlan(poly, {
    ...options,
    counts: countCipher(cipher),
    inputScales: body.args.map(scale),
    outputScales: body.results.map(scale),
  });
  assertSchedule(view);
  const plan = writePlan(view);
  return { poly, plan, weights, ...measure(view, plan) };
}

function measure(view: PlanView, plan: Uint8Array): Pick<LoweredPlan, 'summary' | 'memory'> {
  const { parameters: p, summary } = view;
  const rowBytes = 2 ** p.logN * 8;
  const entry = defined(view.programs[0]?.functions.at(-1), 'entry function');
  const argumentRows = entry.buffers.reduce((sum, buffer) => sum + (buffer.argument ? buffer.rows : 0), 0);
  const plaintextBytes = view.plaintexts.reduce(
    (sum, one) => sum + one.elements * one.limbs.length * one.rowWords * 8,
    0,
  );
  const memory = { framePeakBytes: entry.frameRows * rowBytes, keyBytes: summary.keyBytes, plaintextBytes };
  return {
    memory,
    summary: {
      logN: p.logN,
      logQP: p.logQP,
      securityBits: p.securityBits,
      insecure: p.insecure,
      levels: summary.levels,
      bootstraps: summary.bootstraps,
      rotations: summary.rotations,
      ctMultiplications: summary.ctMultiplications,
      keyBytes: summary.keyBytes,
      planBytes: plan.length,
      weightsBytes: summary.weightsBytes,
      peakBytes: memory.framePeakBytes + argumentRows * rowBytes + memory.keyBytes + plaintextBytes,
    },
  };
}
