/**
 * insert-collectives: every change of sharding becomes blocking collectives, one mesh axis after the other,
 * where the
 * value is first needed. Correct and simple; overlap-communication moves them apart afterwards.
 */
import { defined } from '../support/invariant.js';
import type { BlockBuilder } from '../ir/builder.js';
import type { Attrs, Module, Op, Value } from '../ir/module.js';
import { rewriteModule } from '../ir/rewrite.js';
import { canView, everyRank, onAxis, sameSharding } from '../ir/sharding.js';
import type { PolyType, Sharding } from '../ir/types.js';

export function insertCollectives(module: Module): Module {
  return rewriteModule(module, (op, { builder, operands }) => {
    if (op.kind !== 'poly.reshard') return undefined;
    const to = op.attrs.sharding as unknown as readonly Sharding[];
    return [
      to.reduce((value, target, m) => along(builder, value, m, target, op), defined(operands[0], 'operand')),
    ];
  });
}

function along(builder: BlockBuilder, value: Value, m: number, to: Sharding, op: Op): Value {
  const type = value.type as PolyType;
  const from = onAxis(type.sharding, m);
  if (sameSharding(from, to)) return value;
  if (canView(type, from, to))
    return builder.op('poly.part', [value], { sharding: withAxis(type, m, to) }, op.loc);
  if (from.kind === 'partial' && to.kind === 'limbs') return reducedLimbs(builder, value, m, to, op);
  return builder.op('poly.collective', [value], collective(m, to), op.loc);
}

/** Limbs with one owner are reduce-scattered, limbs on every rank all-reduced. */
function reducedLimbs(builder: BlockBuilder, value: Value, m: number, to: Sharding, op: Op): Value {
  const type = value.type as PolyType;
  const owners = to.kind === 'limbs' ? to.owners : [];
  const shared = type.limbs.filter((limb) => owners[limb] === everyRank);
  const own = type.limbs.filter((limb) => owners[limb] !== everyRank);
  if (shared.length === 0) return builder.op('poly.collective', [value], collective(m, to), op.loc);
  const { axes, limbs, form } = type;
  const shape = { axes: axes.map(({ name, size }) => ({ name, size })), limbs, form };
  let out = builder.op('poly.undefined', [], { ...shape, sharding: withAxis(type, m, to) }, op.loc);
  const parts = [
    [own, to],
    [shared, { kind: 'replicated' }],
  ] as const;
  for (const [part, target] of parts) {
    if (part.length === 0) continue;
    const view = builder.op('poly.limbs', [value], { limbs: part }, op.loc);
    out = builder.op(
      'poly.collective',
      [view, out],
      { ...collective(m, target), window: { limbs: part } },
      op.loc,
    );
  }
  return out;
}

function collective(m: number, to: Sharding): Attrs {
  return { meshAxis: m, to: to as unknown as Attrs };
}

function withAxis(type: PolyType, m: number, to: Sharding): Attrs[] {
  const count = Math.max(type.sharding.length, m + 1);
  return Array.from({ length: count }, (_, i) =>
    i === m ? to : onAxis(type.sharding, i),
  ) as unknown as Attrs[];
}
