/** What a run of a cipher module costs, in counts: loops times their trips, callees once per call. */
import { defined } from '../support/invariant.js';
import type { Block, Func, Module, Op } from '../ir/module.js';
import { entryName } from '../ir/module.js';
import { axesCount, broadcastAxes, type Axis } from '../ir/types.js';

export interface CipherCounts {
  /** Ciphertexts that pass a bootstrap. */
  readonly bootstraps: number;
  /** Ciphertexts made by a rotation or a conjugation, those inside bootstraps included. */
  readonly rotations: number;
  /** Products of two ciphertexts, those inside bootstraps included. */
  readonly ctMultiplications: number;
}

const none: CipherCounts = { bootstraps: 0, rotations: 0, ctMultiplications: 0 };

export function countCipher(module: Module): CipherCounts {
  const functions = new Map(module.functions.map((func) => [func.name, func]));
  const known = new Map<string, CipherCounts>();
  const slots = defined(module.parameters, 'parameters').slots;

  const ofFunction = (name: string): CipherCounts => {
    const cached = known.get(name);
    if (cached !== undefined) return cached;
    const func: Func = defined(functions.get(name), `function ${name}`);
    const counts = ofBlock(func.body);
    known.set(name, counts);
    return counts;
  };
  const ofBlock = (block: Block): CipherCounts => block.ops.reduce((sum, op) => plus(sum, ofOp(op), 1), none);
  const ofOp = (op: Op): CipherCounts => {
    if (op.kind === 'loop') {
      return plus(none, ofBlock(defined(op.regions[0], 'loop body')), op.attrs.tripCount as number);
    }
    if (op.kind === 'call') {
      const callee = op.attrs.callee as string;
      const bootstraps = functions.get(callee)?.models?.kind === 'bootstrap' ? elementsOf(op) : 0;
      return plus({ ...none, bootstraps }, ofFunction(callee), 1);
    }
    return countOp(op, slots);
  };
  return ofFunction(entryName);
}

function plus(a: CipherCounts, b: CipherCounts, times: number): CipherCounts {
  return {
    bootstraps: a.bootstraps + times * b.bootstraps,
    rotations: a.rotations + times * b.rotations,
    ctMultiplications: a.ctMultiplications + times * b.ctMultiplications,
  };
}

function axesOf(op: Op): (readonly Axis[])[] {
  return op.operands.flatMap(({ type }) => (type.kind === 'ct' ? [type.axes] : []));
}

function elementsOf(op: Op): number {
  return axesOf(op).reduce((sum, axes) => sum + axesCount(axes), 0);
}

function countOp(op: Op, slots: number): CipherCounts {
  const steps = (op.attrs.steps ?? []) as readonly number[];
  const turned =
    op.attrs.loopStride === undefined ? steps.filter((step) => step % slots !== 0).length : steps.length;
  switch (op.kind) {
    case 'ct.rotate':
      return { ...none, rotations: elementsOf(op) * turned };
    case 'ct.rotate_each':
      return { ...none, rotations: (elementsOf(op) / steps.length) * turned };
    case 'ct.conjugate':
      return { ...none, rotations: elementsOf(op) };
    case 'ct.mul': {
      const axes = broadcastAxes(...axesOf(op));
      return { ...none, ctMultiplications: typeof axes === 'string' ? 0 : axesCount(axes) };
    }
    default:
      return none; // no other op rotates or multiplies ciphertexts
  }
}
