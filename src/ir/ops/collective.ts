/** Communication in the poly phase; every rank of the mesh takes part, in program order. */
import type { Attrs } from '../module.js';
import type { OpDef } from '../opdef.js';
import { onAxis } from '../sharding.js';
import type { PolyType, Sharding, Type } from '../types.js';
import { inserted, isPoly, resharded, shape, shapeAttrs, windowAttrs } from './poly-array.js';

/** A collective along one mesh axis: the kind follows from the sharding before and after. */
function collective(a: Type | undefined, attrs: Attrs): PolyType | string {
  if (!isPoly(a)) return 'operand 0 must be a polynomial array';
  const m = attrs.meshAxis as number;
  const to = attrs.to as unknown as Sharding;
  if (to.kind === 'partial' || onAxis(a.sharding, m).kind === 'replicated')
    return 'there is nothing to communicate';
  const count = Math.max(a.sharding.length, m + 1);
  const sharding = Array.from({ length: count }, (_, i) => (i === m ? to : onAxis(a.sharding, i)));
  return resharded(a, sharding);
}

const collectiveAttrs = {
  meshAxis: { kind: 'int', doc: 'index of the mesh axis along which ranks communicate' },
  to: { kind: 'json', doc: 'sharding of the result on that axis' },
} as const;

export const collectiveOps: readonly OpDef[] = [
  {
    name: 'poly.reshard',
    phase: 'poly',
    operands: ['a'],
    summary: 'the same array under another sharding; insert-collectives says how',
    attrs: { sharding: { kind: 'json', doc: 'per mesh axis' } },
    infer: ([a], attrs) => {
      if (!isPoly(a)) return 'operand 0 must be a polynomial array';
      const type = resharded(a, attrs.sharding as unknown as readonly Sharding[]);
      return typeof type === 'string' ? type : [type];
    },
  },
  {
    name: 'poly.collective',
    phase: 'poly',
    operands: ['a', 'into...'],
    summary:
      'all-gather, broadcast, all-to-all, reduce-scatter or all-reduce, as the shardings say; blocking',
    attrs: { ...collectiveAttrs, ...windowAttrs },
    infer: ([a, into], attrs) => {
      const type = collective(a, attrs);
      if (typeof type === 'string') return type;
      if (into === undefined) return attrs.window === undefined ? [type] : 'window needs the operand into';
      const whole = inserted(into, type, attrs);
      return typeof whole === 'string' ? whole : [whole];
    },
  },
  {
    name: 'poly.collective_start',
    phase: 'poly',
    operands: ['a'],
    summary: 'starts a collective; the result is in flight and only poly.collective_wait takes it',
    attrs: collectiveAttrs,
    infer: ([a], attrs) => {
      const type = collective(a, attrs);
      return typeof type === 'string' ? type : [type];
    },
  },
  {
    name: 'poly.exchange',
    phase: 'poly',
    operands: ['flight, source, target...'],
    summary: "one rank's side of a collective, in the program of that rank (backend/localise.ts)",
    attrs: {
      collective: { kind: 'int', doc: 'index of the collective' },
      stage: { kind: 'string', doc: '`blocking`, `start` or `wait`' },
      kind: { kind: 'string', doc: 'kind of the collective' },
      hasSource: { kind: 'bool', doc: 'the rank holds a part of the source' },
      hasTarget: { kind: 'bool', doc: 'the rank writes a window of an array' },
      moves: { kind: 'json', doc: 'windows: blocks sent, blocks received, parts kept' },
      window: { kind: 'json', optional: true, doc: 'part of the target that is written' },
      ...shapeAttrs,
    },
    infer: (types, attrs) => {
      const target = attrs.hasTarget === true ? types.at(-1) : undefined;
      return [target ?? shape(attrs)];
    },
  },
  {
    name: 'poly.collective_wait',
    phase: 'poly',
    operands: ['flight', 'a', 'into...'],
    summary: 'waits for a collective that was started on `a` in this block, whose memory it needs until then',
    attrs: windowAttrs,
    infer: ([flight, a, into], attrs) => {
      if (!isPoly(flight) || !isPoly(a)) return 'operands must be polynomial arrays';
      if (into === undefined) return attrs.window === undefined ? [flight] : 'window needs the operand into';
      const whole = inserted(into, flight, attrs);
      return typeof whole === 'string' ? whole : [whole];
    },
  },
];
