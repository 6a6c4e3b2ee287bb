/**
 * The schedule verifier (DESIGN section 6): runs a plan's commands on row numbers instead of rows. Every row
 * that is read was written before through the same buffer of the same rank, and by nothing else since (so
 * buffers that are live at the same time do not overlap); views stay inside their buffers; outputs overlap
 * inputs only where the kernel allows it; what a collective has in flight is left alone. Ranks issue the
 * collectives of a group in the same order and never all wait; keys, ports, traffic and memory are as the
 * plan says, and the memory within the limit.
 */
import { invariant } from '../support/invariant.js';
import type { PlanFunction, PlanProgram, PlanView } from './plan-view.js';
import { checkAcrossRanks } from './verify-schedule/across-ranks.js';
import { soundCollectives } from './verify-schedule/collectives.js';
import { FunctionChecker, type CheckedFunction } from './verify-schedule/function-checker.js';
import { keyLimbs } from './verify-schedule/keys.js';
import { checkMemory, checkOutputs, checkPorts } from './verify-schedule/ports.js';

export interface VerifyScheduleOptions {
  /** Bytes that each rank may hold at its peak; any if absent. */
  readonly memoryLimit?: number;
}

/** All faults found, at most a few for each command. */
export function verifySchedule(plan: PlanView, options: VerifyScheduleOptions = {}): string[] {
  const faults: string[] = [];
  const report = (fault: string): void => {
    faults.push(fault);
  };
  const sound = soundCollectives(plan, report);
  plan.programs.forEach((program, rank) => {
    checkProgram(plan, program, rank, { sound, memoryLimit: options.memoryLimit, report });
  });
  checkOutputs(plan, report);
  checkAcrossRanks(plan, sound, report);
  return faults;
}

/** The backend's own door: a fault is our bug. */
export function assertSchedule(plan: PlanView, options: VerifyScheduleOptions = {}): void {
  const faults = verifySchedule(plan, options);
  invariant(faults.length === 0, `the schedule is wrong:\n  ${faults.slice(0, 8).join('\n  ')}`);
}

interface ProgramContext {
  readonly sound: ReadonlySet<number>;
  readonly memoryLimit: number | undefined;
  readonly report: (fault: string) => void;
}

function checkProgram(plan: PlanView, program: PlanProgram, rank: number, context: ProgramContext): void {
  const { functions } = program;
  const report = (fault: string): void => context.report(`program ${rank}, ${fault}`);
  const shared = { plan, rank, functions, keyLimbs: keyLimbs(plan, program, report), sound: context.sound };
  const checked: CheckedFunction[] = [];
  for (const [index, func] of functions.entries()) {
    const reportHere = (fault: string): void => report(`function ${index} (${func.name}), ${fault}`);
    if (!memoryFits(func, reportHere)) return;
    checked.push(new FunctionChecker(shared, func, checked, reportHere).run());
  }
  const entry = checked.at(-1);
  if (entry === undefined) return report('no functions');
  checkPorts(plan, program, entry.rows, report);
  const known =
    program.keys.every(({ key }) => key < plan.keys.length)
    && functions.every((func) =>
      func.plaintexts.every((slot) => slot.plaintext < plan.plaintexts.length || slot.argument),
    );
  if (known) checkMemory(plan, program, context.memoryLimit, report);
  else report('names keys or plaintexts that the plan does not have');
}

/** Buffers inside of the frame, arguments first. */
function memoryFits(func: PlanFunction, report: (fault: string) => void): boolean {
  let sound = true;
  func.buffers.forEach((buffer, i) => {
    const { argument, offset, rows } = buffer;
    const late = argument && i > 0 && func.buffers[i - 1]?.argument === false;
    const inside = argument || (offset >= 0 && offset + rows <= func.frameRows);
    if (rows < 1) report(`buffer ${i} has no rows`);
    if (late) report(`argument ${i} comes after local buffers`);
    if (!inside) report(`buffer ${i} lies outside of the frame of ${func.frameRows} rows`);
    if (rows < 1 || late || !inside) sound = false;
  });
  return sound;
}
