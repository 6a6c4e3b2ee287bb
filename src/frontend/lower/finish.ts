/**
 * Drafts to a module: affine constants move forward into linear layers, the dead are dropped, names are
 * given.
 */
import { BlockBuilder, Ids } from '../../ir/builder.js';
import type { AttrValue, Constant, Module, Port, Value } from '../../ir/module.js';
import { entryName } from '../../ir/module.js';
import { defined, invariant } from '../../support/invariant.js';
import type { ShapedGraph } from '../evaluate.js';
import { refuse, type Tensor } from '../model.js';
import { openName, writeOnnx } from '../write-onnx.js';
import { constantKey, digestOf, Drafts, type Draft } from './drafts.js';
import type { ClientGraph } from './client-graph.js';
import type { Lowered } from './lower.js';
import { formTolerance, isFree } from './mask-probes.js';

/** All drafts that the outputs need, operands first. */
function reachable(outputs: readonly Draft[]): Draft[] {
  const seen = new Set<Draft>();
  const order: Draft[] = [];
  const stack = [...outputs].reverse().map((draft) => ({ draft, next: 0 }));
  while (stack.length > 0) {
    const top = defined(stack.at(-1), 'open draft');
    const operand = seen.has(top.draft) ? undefined : top.draft.operands[top.next++];
    if (operand !== undefined) {
      stack.push({ draft: operand, next: 0 });
      continue;
    }
    if (!seen.has(top.draft)) order.push(top.draft);
    seen.add(top.draft);
    stack.pop();
  }
  return order;
}

/** x * c and x + c with one value per feature, where only linear layers read the result. */
function forwardable(order: readonly Draft[], outputs: readonly Draft[]): Set<Draft> {
  const users = new Map<Draft, Draft[]>();
  for (const draft of order) {
    for (const operand of draft.operands) users.set(operand, [...(users.get(operand) ?? []), draft]);
  }
  const result = new Set<Draft>();
  for (const draft of [...order].reverse()) {
    const isAffine = draft.kind === 'tensor.mul_constant' || draft.kind === 'tensor.add_constant';
    if (!isAffine || draft.constants.constant?.shape[0] !== 1 || outputs.includes(draft)) continue;
    const all = users.get(draft) ?? [];
    if (all.every((user) => user.kind === 'tensor.linear' || result.has(user))) result.add(draft);
  }
  return result;
}

/** W (x * c) = (W c) x and W (x + c) = W x + W c. */
function absorb(
  linear: Draft,
  isForward: (draft: Draft) => boolean,
): { x: Draft; weight: Constant; bias?: Float64Array } {
  const { weight, bias } = linear.constants;
  let x = defined(linear.operands[0], 'operand');
  const { shape, data } = defined(weight, 'weight');
  let matrix = data;
  let shift = bias?.data ?? new Float64Array(linear.columns);
  while (isForward(x)) {
    const row = defined(x.constants.constant, 'constant').data;
    const width = row.length;
    if (x.kind === 'tensor.mul_constant') {
      matrix = matrix.map((value, i) => value * (row[i % width] as number));
    } else {
      const current = matrix;
      shift = shift.map((value, o) =>
        row.reduce((sum, c, i) => sum + c * (current[o * width + i] as number), value),
      );
    }
    x = defined(x.operands[0], 'operand');
  }
  return { x, weight: { shape, data: matrix }, bias: shift };
}

function foldForward(order: readonly Draft[], outputs: readonly Draft[], drafts: Drafts): Map<Draft, Draft> {
  const forward = forwardable(order, outputs);
  const rebuilt = new Map<Draft, Draft>();
  for (const draft of order) {
    const operands = draft.operands.map((operand) => defined(rebuilt.get(operand), 'rebuilt operand'));
    if (draft.kind === 'tensor.linear') {
      const { x, weight, bias } = absorb(draft, (own) => forward.has(own));
      rebuilt.set(draft, drafts.linear(defined(rebuilt.get(x), 'rebuilt operand'), weight, bias, draft.loc));
    } else rebuilt.set(draft, drafts.make(draft.kind, operands, draft));
  }
  return rebuilt;
}

/** Interned constants and tables under short names, numbered by role in order of use. */
class Names {
  readonly constants = new Map<string, Constant>();
  readonly tables = new Map<string, Int32Array>();
  private readonly known = new Map<string, string>();
  private readonly counts = new Map<string, number>();

  constant(role: string, constant: Constant): string {
    return this.name(role, constantKey(constant), (name) => this.constants.set(name, constant));
  }

  table(role: string, table: Int32Array): string {
    return this.name(role, `table ${digestOf(table)}`, (name) => this.tables.set(name, table));
  }

  private name(role: string, key: string, store: (name: string) => void): string {
    const known = this.known.get(key);
    if (known !== undefined) return known;
    const count = this.counts.get(role) ?? 0;
    this.counts.set(role, count + 1);
    const name = `${role}${count}`;
    this.known.set(key, name);
    store(name);
    return name;
  }
}

export function finishModule(graph: ShapedGraph, lowered: Lowered): Module {
  const targets = lowered.outputs.map((output) => output.draft);
  const needed = reachable(targets);
  const standIn = needed.find((draft) => draft.kind === 'unsupported');
  if (standIn !== undefined) {
    refuse({ code: 'F202', message: 'reads a value that cannot be followed', node: standIn.loc });
  }
  const rebuilt = foldForward(needed, targets, new Drafts());
  const roots = targets.map((draft) => defined(rebuilt.get(draft), 'output'));
  const order = reachable(roots);
  const inputs = usedInputs(lowered, rebuilt, order);
  const types = inputs.map(({ shape }) => ({ kind: 'tensor', dtype: 'f32', shape }) as const);
  const builder = new BlockBuilder(new Ids(), null, types);
  const args = new Map<Draft, Value>(
    inputs.flatMap(({ readers }, i) =>
      readers.map((reader) => [reader, defined(builder.args[i], 'argument')] as const),
    ),
  );
  const values = new Map<Draft, Value>();
  const names = new Names();
  for (const draft of order) {
    if (draft.kind === 'input') continue;
    invariant(draft.kind !== 'unsupported', `${draft.kind} is no op (at "${draft.loc}")`);
    const attrs: Record<string, AttrValue> = { ...draft.attrs };
    if (draft.indices !== undefined) {
      attrs.indices = names.table('indices', draft.indices);
      attrs.shape = [draft.rows, draft.columns];
    }
    for (const [role, constant] of Object.entries(draft.constants)) {
      attrs[role] = names.constant(role, constant);
    }
    const operands = draft.operands.map((operand) =>
      defined(operand.kind === 'input' ? args.get(draft) : values.get(operand), 'operand'),
    );
    values.set(draft, builder.op(draft.kind, operands, attrs, draft.loc));
  }
  const results = roots.map((draft) => defined(values.get(draft), 'result'));
  const ports = lowered.outputs.map(({ name, draft }): Port => ({
    name,
    shape: [draft.rows, draft.columns],
    factor: 1,
  }));
  return {
    phase: 'tensor',
    name: graph.model.name,
    sourceHash: graph.model.sourceHash,
    parameters: null,
    functions: [{ name: entryName, body: builder.finish(results) }],
    constants: names.constants,
    tables: names.tables,
    inputs: inputs.map(({ name, shape }): Port => ({ name, shape, factor: 1 })),
    outputs: ports,
    ...clientParts(graph, lowered, inputs),
  };
}

interface UsedInput {
  readonly name: string;
  readonly shape: readonly number[];
  /** ONNX value, if the client computes it. */
  readonly value: string | undefined;
  /** Drafts that read it. */
  readonly readers: readonly Draft[];
}

/** A client value that is read in several arrangements is encrypted in each of them. */
function usedInputs(
  lowered: Lowered,
  rebuilt: ReadonlyMap<Draft, Draft>,
  order: readonly Draft[],
): UsedInput[] {
  return lowered.inputs.flatMap(({ name, shape, draft, isClient }): UsedInput[] => {
    const own = rebuilt.get(draft);
    const readers = order.filter(({ operands }) => own !== undefined && operands.includes(own));
    if (readers.length === 0) return [];
    if (!isClient) return [{ name, shape, value: undefined, readers }];
    return readers.map((reader, i) => ({
      name: i === 0 ? name : `${name} (${i + 1})`,
      shape,
      value: name,
      readers: [reader],
    }));
  });
}

/** 1 where the client's input is the one that was compiled. */
function fixedCondition(client: ClientGraph, name: string, tensor: Tensor): { name: string; value: string } {
  if (!isFree(tensor)) return { name: `no padding: ${name} is 1 everywhere`, value: name };
  const known = client.float(compactConstant(client, tensor));
  const value = client.near(client.float(name), known, formTolerance);
  return { name: `no padding: ${name} closes no key`, value };
}

/** A constant, as one number where it is one. */
function compactConstant(client: ClientGraph, { dtype, shape, data }: Tensor): string {
  const [first] = data;
  if (data.length < 2 || data.some((value: number | bigint) => value !== first)) {
    return client.constant({ dtype, shape, data });
  }
  const one = client.constant({ dtype, shape: [1], data: data.slice(0, 1) });
  return client.apply('Expand', [one, client.ints(...shape)]);
}

function clientParts(
  graph: ShapedGraph,
  lowered: Lowered,
  inputs: readonly UsedInput[],
): Pick<Module, 'client'> {
  const { client, hasEpilogue, outputs } = lowered;
  const conditions = [
    ...Array.from(graph.fixed, ([name, tensor]) => fixedCondition(client, name, tensor)),
    ...Array.from(lowered.conditions, ([name, value]) => ({ name, value })),
  ];
  const computed = inputs.flatMap(({ name, value }) => (value === undefined ? [] : [{ name, value }]));
  const masks = new Map([...lowered.openMasks, ...[...graph.fixed].filter(([, mask]) => isFree(mask))]);
  const open = Array.from(masks, ([name, mask]) => ({
    name: openName(name),
    value: compactConstant(client, mask),
  }));
  const made = [...computed, ...conditions, ...open];
  if (made.length === 0 && !hasEpilogue) return {};
  const ports = outputs.map(({ name }) => name);
  const results = graph.model.outputs.map((name) => ({ name, value: client.valueOf(name) }));
  return {
    client: {
      prologue: made.length === 0 ? null : writeOnnx(client.source, lowered.given, made),
      epilogue: hasEpilogue ? writeOnnx(client.source, ports, results) : null,
    },
  };
}
