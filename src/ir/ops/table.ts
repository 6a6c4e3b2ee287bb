import { AegisError } from '../../support/diagnostics.js';
import type { OpDef } from '../opdef.js';
import { cipherOps } from './cipher.js';
import { controlOps } from './control.js';
import { plainOps } from './plain.js';
import { polyOps } from './poly.js';
import { tensorOps } from './tensor.js';

/** Every op of every phase, each declared once. */
export const opTable: ReadonlyMap<string, OpDef> = new Map(
  [...controlOps, ...plainOps, ...cipherOps, ...polyOps, ...tensorOps].map((def) => [def.name, def]),
);

export function opDef(kind: string): OpDef {
  const def = opTable.get(kind);
  if (def === undefined) throw new AegisError({ code: 'V101', message: `unknown op ${kind}` });
  return def;
}
