/**
 * The static memory of an emitted function: order of buffers and plaintext slots, offsets of locals and
 * callee frames.
 */
import { defined } from '../support/invariant.js';
import type { Storage } from './layout.js';
import { placeBuffers, type Placed } from './place-buffers.js';
import type { Encoding } from './plain-form.js';
import type { Command, PlanFunction, View } from './plan-view.js';

export interface EmittedFunction {
  readonly func: PlanFunction;
  /** Plaintext arguments in the order of their slots: which argument of the function, encoded how. */
  readonly plainArguments: readonly { readonly argument: number; readonly encoding: Encoding }[];
}

export type PlainUse =
  { readonly argument: number; readonly encoding: Encoding } | { readonly plaintext: number };

/** A function whose views name storages and draft slots by number. */
export interface Draft {
  readonly commands: readonly Command[];
  readonly storages: readonly Storage[];
  readonly returned: readonly Storage[];
  readonly callFrames: readonly (Placed & { readonly command: Command })[];
  readonly plainUses: readonly PlainUse[];
}

/**
 * Orders buffers (inputs, results, locals) and plaintext slots (arguments first), places locals and callee
 * frames.
 */
export function finish(name: string, draft: Draft): EmittedFunction {
  const touched = draft.storages.filter((storage) => storage.kind === 'local' && storage.last >= 0);
  const ordered = [
    ...draft.storages.filter((storage) => storage.kind === 'input'),
    ...draft.returned,
    ...touched,
  ];
  const bufferIndex = new Map(ordered.map((storage, i) => [storage.id, i]));
  const { offsets, frameRows } = placeBuffers([...touched, ...draft.callFrames]);
  const localOffset = new Map(touched.map((storage, i) => [storage.id, offsets[i] ?? 0]));
  const frameOffset = new Map(
    draft.callFrames.map((frame, i) => [frame.command, offsets[touched.length + i] ?? 0]),
  );

  const slotOrder = draft.plainUses
    .map((use, i) => ({ use, i }))
    .sort((x, y) => Number('plaintext' in x.use) - Number('plaintext' in y.use) || x.i - y.i);
  const slotIndex = new Map(slotOrder.map(({ i }, index) => [i, index]));
  const slot = (i: number): number => defined(slotIndex.get(i), 'plaintext slot');

  const view = (v: View | null): View | null =>
    v === null ? null : { ...v, buffer: defined(bufferIndex.get(v.buffer), 'buffer') };
  const resolve = (command: Command): Command => ({
    ...command,
    out: view(command.out),
    a: view(command.a),
    b: view(command.b),
    plain: command.plain === null ? null : { ...command.plain, buffer: slot(command.plain.buffer) },
    body: command.body.map(resolve),
    plainBindings: command.plainBindings.map(slot),
    bindings: command.bindings.map((b) => ({ ...b, buffer: defined(bufferIndex.get(b.buffer), 'buffer') })),
    frameOffset: frameOffset.get(command) ?? 0,
  });
  const func: PlanFunction = {
    name,
    frameRows,
    buffers: ordered.map(({ id, kind, rows }) => ({
      argument: kind !== 'local',
      offset: localOffset.get(id) ?? 0,
      rows,
    })),
    plaintexts: slotOrder.map(({ use }) =>
      'plaintext' in use ? { argument: false, plaintext: use.plaintext } : { argument: true, plaintext: 0 },
    ),
    commands: draft.commands.map(resolve),
  };
  const plainArguments = slotOrder.flatMap(({ use }) => ('plaintext' in use ? [] : [use]));
  return { func, plainArguments };
}
