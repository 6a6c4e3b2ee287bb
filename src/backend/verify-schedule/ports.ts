/** The parts of ports that ranks hold, and the memory that a rank needs. */
import { peakBytes, rankMemory } from '../rank-memory.js';
import type { PlanPort, PlanProgram, PlanView, PortPart } from '../plan-view.js';
import type { ArgumentRows } from './function-memory.js';
import { natural, rising } from './collectives.js';

type Report = (fault: string) => void;

/** Inputs are read, outputs are written in full. */
export function checkPorts(plan: PlanView, program: PlanProgram, rows: ArgumentRows, report: Report): void {
  const bound = new Set<number>();
  const check = (kind: string, ports: readonly PlanPort[], parts: readonly PortPart[]): void => {
    if (parts.length !== ports.length) report(`${parts.length} parts for ${ports.length} ${kind}s`);
    parts.forEach((part, i) => {
      const port = ports[i];
      const problem = port === undefined ? undefined : partProblem(port, part, program);
      if (problem !== undefined) report(`${kind} ${i}: ${problem}`);
      if (bound.has(part.buffer)) report(`${kind} ${i}: buffer ${part.buffer} is another port's`);
      bound.add(part.buffer);
    });
  };
  check('input', plan.inputs, program.inputs);
  check('output', plan.outputs, program.outputs);
  const buffers = program.functions.at(-1)?.buffers ?? [];
  program.outputs.forEach((part, i) => {
    const runs = rows.written[part.buffer];
    const full = runs?.[0] === 0 && runs[1] === buffers[part.buffer]?.rows;
    if (!full) report(`output ${i} is not written in full`);
  });
  const inputs = new Set(program.inputs.map((part) => part.buffer));
  buffers.forEach((buffer, i) => {
    const early = buffer.argument && !inputs.has(i) && (rows.read[i]?.length ?? 0) > 0;
    if (early) report(`argument ${i} of the entry function is read before it is written`);
  });
}

function partProblem(port: PlanPort, part: PortPart, program: PlanProgram): string | undefined {
  const buffer = program.functions.at(-1)?.buffers[part.buffer];
  if (buffer?.argument !== true) return `buffer ${part.buffer} is no argument of the entry function`;
  const within = (list: readonly number[], end: number): boolean =>
    rising(list) && list.every((value) => natural(value) && value < end);
  if (!within(part.elements, port.elements)) {
    return `elements [${part.elements.join()}] of ${port.elements}`;
  }
  if (!within(part.limbs, port.level + 1)) return `limbs [${part.limbs.join()}] of level ${port.level}`;
  const elements = part.elements.length || port.elements;
  const rows = elements * 2 * (part.limbs.length || port.level + 1);
  return rows === buffer.rows ? undefined : `a part of ${rows} rows in a buffer of ${buffer.rows}`;
}

/** Every element and limb of an output is in the part of some rank. */
export function checkOutputs(plan: PlanView, report: Report): void {
  plan.outputs.forEach((port, i) => {
    const limbs = port.level + 1;
    const held = new Uint8Array(port.elements * limbs);
    for (const program of plan.programs) {
      const part = program.outputs[i];
      if (part === undefined) continue;
      const elements = part.elements.length > 0 ? part.elements : [...Array(port.elements).keys()];
      const partLimbs = part.limbs.length > 0 ? part.limbs : [...Array(limbs).keys()];
      for (const element of elements) for (const limb of partLimbs) held[element * limbs + limb] = 1;
    }
    const missing = held.indexOf(0);
    if (missing < 0) return;
    report(`output ${i}: no rank holds limb ${missing % limbs} of element ${Math.floor(missing / limbs)}`);
  });
}

/** `limitBytes`: of each rank. */
export function checkMemory(
  plan: PlanView,
  program: PlanProgram,
  limitBytes: number | undefined,
  report: Report,
): void {
  const needed = rankMemory(plan, program.functions, program.keys);
  for (const name of ['ports', 'frame', 'keys', 'plaintexts'] as const) {
    if (program.memory[name] === needed[name]) continue;
    report(`memory.${name} is ${needed[name]} bytes, not ${program.memory[name]} as predicted`);
  }
  const peak = peakBytes(needed);
  if (limitBytes !== undefined && peak > limitBytes) {
    report(`needs ${peak} bytes at its peak, above the limit of ${limitBytes}`);
  }
}
