/**
 * The backend: from the final cipher module to a plan file and its weights, and back from bytes to a readable
 * plan.
 */
import { defined, invariant } from '../support/invariant.js';
import type { DeviceProfile } from '../target/profile.js';
import { entryName, type Module, type Value } from '../ir/module.js';
import { assertVerified } from '../ir/verifier.js';
import { emitPlan } from './emit-plan.js';
import { lowerKeyswitch } from './lower-keyswitch.js';
import { numericScale } from './numeric-scale.js';
import type { Placement } from '../ir/placement.js';
import { meshSize } from '../ir/sharding.js';
import { insertCollectives } from './insert-collectives.js';
import { overlapCommunication, type OverlapReport } from './overlap-communication.js';
import type { PlanView, RankMemory } from './plan-view.js';
import { peakBytes } from './rank-memory.js';
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
  /** Where the work is done; without one, on one device. */
  readonly placement?: Placement;
  /** Costs that communication is overlapped by; without one, and on one rank, collectives stay blocking. */
  readonly profile?: DeviceProfile;
  /** False: collectives stay blocking. */
  readonly overlap?: boolean;
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
  /**
   * What a rank holds at its peak: keys, plaintexts, the frame, inputs and outputs; the largest over ranks.
   */
  readonly peakBytes: number;
}

export interface LoweredPlan {
  readonly poly: Module;
  readonly plan: Uint8Array;
  readonly weights: Uint8Array;
  readonly summary: PlanSummary;
  /** Of the rank that holds most. */
  readonly memory: RankMemory;
  /** Undefined where nothing was overlapped. */
  readonly overlap: OverlapReport | undefined;
}

/** Lowers a cipher module with concrete levels, and without ct.polynomial and ct.bootstrap, to a plan. */
export function lowerToPlan(cipher: Module, options: LowerOptions): LoweredPlan {
  const { placement } = options;
  const sharded = lowerKeyswitch(cipher, placement);
  assertVerified(sharded, 'lower-keyswitch');
  const blocking = insertCollectives(sharded);
  assertVerified(blocking, 'insert-collectives');
  const { module: poly, report: overlap } = overlapped(blocking, options);
  const body = defined(
    cipher.functions.find((func) => func.name === entryName),
    `function ${entryName}`,
  ).body;
  const scale = ({ type }: Value): number => {
    invariant(type.kind === 'ct' && type.scale !== null, 'ports are ciphertexts of known scale');
    return numericScale(type.scale, defined(cipher.parameters, 'parameters'));
  };
  const { view, weights } = emitPlan(poly, {
    compilerVersion: options.compilerVersion,
    strategy: placement?.strategy ?? 'coplaced',
    mesh: placement?.mesh ?? { axes: [{ name: 'app', size: 1 }] },
    blockOf: (loc) => cipher.blocks?.get(loc) ?? 'rest',
    counts: countCipher(cipher),
    inputScales: body.args.map(scale),
    outputScales: body.results.map(scale),
  });
  assertSchedule(view);
  const plan = writePlan(view);
  return { poly, plan, weights, overlap, ...measure(view, plan) };
}

function overlapped(
  blocking: Module,
  options: LowerOptions,
): { module: Module; report: OverlapReport | undefined } {
  const { placement, profile } = options;
  const asked = profile !== undefined && options.overlap !== false;
  if (!asked || placement === undefined || meshSize(placement.mesh) === 1)
    return { module: blocking, report: undefined };
  const { module, report } = overlapCommunication(blocking, { mesh: placement.mesh, profile });
  assertVerified(module, 'overlap-communication');
  return { module, report };
}

function measure(view: PlanView, plan: Uint8Array): Pick<LoweredPlan, 'summary' | 'memory'> {
  const { parameters: p, summary } = view;
  const peaks = view.programs.map(({ memory }) => peakBytes(memory));
  const memory = defined(view.programs[peaks.indexOf(Math.max(...peaks))], 'program').memory;
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
      peakBytes: Math.max(...peaks),
    },
  };
}
