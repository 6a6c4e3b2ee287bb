/**
 * What the programs of several ranks share: collectives numbered alike, keys and ports cut to what a rank
 * needs.
 */
import { defined, invariant } from '../support/invariant.js';
import type { Parameters } from '../target/parameters.js';
import { entryName, walkOps, type Block, type Func, type Module, type Op, type Value } from '../ir/module.js';
import { componentAxis } from '../ir/ops/poly.js';
import { coordinatesOf, groupOf, meshSize, onAxis, ownIndices, ownLimbs, type Mesh } from '../ir/sharding.js';
import { axesCount, type PolyType, type Sharding } from '../ir/types.js';
import { receivedBytes } from './collective-bytes.js';
import { planExchange } from './exchange.js';
import {
  keyKinds,
  type CollectiveInfo,
  type Key,
  type KeyKind,
  type KeyPart,
  type LayerBlock,
  type PortPart,
} from './plan-view.js';

// ---------------------------------------------------------------- collectives

export interface Collectives {
  readonly infos: readonly CollectiveInfo[];
  /** Index of the collective that the op is for this rank. */
  readonly indexOf: (op: Op, rank: number) => number;
}

export interface CollectiveSite {
  readonly mesh: Mesh;
  readonly parameters: Parameters;
  readonly nodeIndex: (loc: string) => number;
  readonly blockOf: (loc: string) => LayerBlock;
}

/**
 * Numbers the collectives of the functions, in program order, one for each group of ranks that holds a part.
 */
export function numberCollectives(functions: readonly Func[], site: CollectiveSite): Collectives {
  const infos: CollectiveInfo[] = [];
  const indices = new Map<Op, ReadonlyMap<number, number>>();
  const executions = countExecutions(functions);
  const callers = callerBlocks(functions, executions, site.blockOf);
  for (const func of functions) {
    const outer = callers.get(func.name) ?? 'rest';
    const blockOf = (loc: string): LayerBlock => (site.blockOf(loc) === 'rest' ? outer : site.blockOf(loc));
    walkOps(func.body, (op) => {
      if (op.kind !== 'poly.collective' && op.kind !== 'poly.collective_start') return;
      const own = new Map<number, number>();
      for (const group of groupsOf(site.mesh, op.attrs.meshAxis as number)) {
        const times = defined(executions.get(op), 'executions');
        const info = collectiveInfo(op, group, times, { ...site, blockOf });
        if (info === undefined) continue;
        group.forEach((rank) => own.set(rank, infos.length));
        infos.push(info);
      }
      indices.set(op, own);
    });
  }
  const indexOf = (op: Op, rank: number): number =>
    defined(indices.get(op)?.get(rank), 'number of a collective');
  return { infos, indexOf };
}

function groupsOf(mesh: Mesh, m: number): number[][] {
  const ranks = Array.from({ length: meshSize(mesh) }, (_, rank) => rank);
  return ranks.filter((rank) => groupOf(mesh, rank, m)[0] === rank).map((rank) => groupOf(mesh, rank, m));
}

function collectiveInfo(
  op: Op,
  group: readonly number[],
  executions: number,
  site: CollectiveSite,
): CollectiveInfo | undefined {
  const type = defined(op.operands[0], 'operand').type as PolyType;
  const to = op.attrs.to as unknown as Sharding;
  const rank = defined(group[0], 'rank');
  const exchange = planExchange(type, site.mesh, op.attrs.meshAxis as number, to, rank);
  if (exchange === undefined) return undefined;
  const { kind, rows, limbs, root } = exchange;
  return {
    kind,
    group,
    rows,
    limbs,
    root,
    node: site.nodeIndex(op.loc),
    block: site.blockOf(op.loc),
    executions,
    receivedBytes: receivedBytes({ kind, group, rows, root }, executions, site.parameters.logN),
  };
}

/** The block that calls each function most often: what a bootstrap communicates belongs to who needs it. */
function callerBlocks(
  functions: readonly Func[],
  executions: ReadonlyMap<Op, number>,
  blockOf: (loc: string) => LayerBlock,
): ReadonlyMap<string, LayerBlock> {
  const calls = new Map<string, Map<LayerBlock, number>>();
  for (const func of functions) {
    walkOps(func.body, (op) => {
      if (op.kind !== 'call') return;
      const counts = calls.get(op.attrs.callee as string) ?? new Map<LayerBlock, number>();
      const block = blockOf(op.loc);
      counts.set(block, (counts.get(block) ?? 0) + (executions.get(op) ?? 0));
      calls.set(op.attrs.callee as string, counts);
    });
  }
  const most = (counts: ReadonlyMap<LayerBlock, number>): LayerBlock =>
    [...counts].reduce((a, b) => (b[1] > a[1] ? b : a))[0];
  return new Map([...calls].map(([name, counts]) => [name, most(counts)]));
}

/** How often each op runs in one inference. */
export function countExecutions(functions: readonly Func[]): ReadonlyMap<Op, number> {
  const counts = new Map<Op, number>();
  const calls = new Map<string, number>([[entryName, 1]]);
  const visit = (block: Block, times: number): void => {
    for (const op of block.ops) {
      counts.set(op, times);
      const callee = op.attrs.callee as string;
      if (op.kind === 'call') calls.set(callee, (calls.get(callee) ?? 0) + times);
      for (const region of op.regions) visit(region, times * (op.attrs.tripCount as number));
    }
  };
  for (const func of [...functions].reverse()) visit(func.body, calls.get(func.name) ?? 0);
  return counts;
}

// ---------------------------------------------------------------- keys

export function keyName(kind: string, galois: number, keyClass: number): string {
  return `${kind} ${galois} ${keyClass}`;
}

/** Keys that a key product uses, as names. */
function keysOf(op: Op, parameters: Parameters): { kind: KeyKind; galois: number; keyClass: number }[] {
  const keyClass = parameters.keyClasses.findIndex((c) => c.name === op.attrs.class);
  const kind = op.attrs.key as KeyKind;
  return (op.attrs.galois as readonly number[]).map((galois) => ({ kind, galois, keyClass }));
}

/**
 * The key manifest: distinct keys by kind, class and Galois element, each at the highest level of its uses.
 */
export function collectKeys(functions: readonly Func[], parameters: Parameters): Key[] {
  const found = new Map<string, Key>();
  for (const func of functions) {
    walkOps(func.body, (op) => {
      if (op.kind !== 'poly.key_product') return;
      const { limbs } = defined(op.results[0], 'result').type as PolyType;
      const used = Math.max(...limbs.filter((limb) => limb <= parameters.maxLevel));
      for (const { kind, galois, keyClass } of keysOf(op, parameters)) {
        const name = keyName(kind, galois, keyClass);
        found.set(name, { kind, galois, keyClass, level: Math.max(used, found.get(name)?.level ?? 0) });
      }
    });
  }
  return [...found.values()].sort(
    (a, b) =>
      keyKinds.indexOf(a.kind) - keyKinds.indexOf(b.kind) || a.keyClass - b.keyClass || a.galois - b.galois,
  );
}

/** The keys that a rank's program uses, and the limbs of them that it needs. */
export function keyParts(local: readonly Func[], keys: readonly Key[], parameters: Parameters): KeyPart[] {
  const indices = new Map(keys.map((key, i) => [keyName(key.kind, key.galois, key.keyClass), i]));
  const used = new Map<number, Set<number>>();
  for (const func of local) {
    walkOps(func.body, (op) => {
      if (op.kind !== 'poly.key_product') return;
      const { limbs } = defined(op.results[0], 'result').type as PolyType;
      for (const { kind, galois, keyClass } of keysOf(op, parameters)) {
        const index = defined(indices.get(keyName(kind, galois, keyClass)), 'key');
        const set = used.get(index) ?? new Set();
        limbs.forEach((limb) => set.add(limb));
        used.set(index, set);
      }
    });
  }
  return [...used.keys()]
    .sort((a, b) => a - b)
    .map((index) => {
      const key = defined(keys[index], 'key');
      const limbs = [...defined(used.get(index), 'limbs')].sort((a, b) => a - b);
      const { specials } = defined(parameters.keyClasses[key.keyClass], 'key class');
      return { key: index, limbs: limbs.length === key.level + 1 + specials ? [] : limbs };
    });
}

// ---------------------------------------------------------------- ports

/** What a rank holds of the array of a port. */
export function portPart(value: Value, buffer: number, mesh: Mesh, rank: number): PortPart {
  const type = value.type;
  invariant(type.kind === 'poly', 'a port is a ciphertext array');
  const axes = type.axes.filter((axis) => axis.name !== componentAxis);
  let elements = Array.from({ length: axesCount(axes) }, (_, i) => i);
  let limbs: readonly number[] = type.limbs;
  coordinatesOf(mesh, rank).forEach((c, m) => {
    const sharding = onAxis(type.sharding, m);
    invariant(sharding.kind !== 'partial' && sharding.kind !== 'at', `a port is not ${sharding.kind}`);
    limbs = ownLimbs(sharding, limbs, c);
    axes.forEach((axis, i) => {
      const own = new Set(ownIndices(sharding, axis, c));
      const inner = axesCount(axes.slice(i + 1));
      elements = elements.filter((e) => own.has(Math.floor(e / inner) % axis.size));
    });
  });
  invariant(elements.length > 0 && limbs.length > 0, `rank ${rank} holds a part of every port`);
  return {
    buffer,
    elements: elements.length === axesCount(axes) ? [] : elements,
    limbs: limbs.length === type.limbs.length ? [] : limbs,
  };
}

/** Functions that the entry reaches, callees first, the entry last. */
export function reachable(module: Module): Func[] {
  const byName = new Map(module.functions.map((func) => [func.name, func]));
  const done: Func[] = [];
  const open = new Set<string>();
  const visit = (name: string): void => {
    const func = defined(byName.get(name), `function ${name}`);
    if (done.includes(func)) return;
    invariant(!open.has(name), `function ${name} does not call itself`);
    open.add(name);
    walkOps(func.body, (op) => {
      if (op.kind === 'call') visit(op.attrs.callee as string);
    });
    done.push(func);
  };
  visit(entryName);
  return done;
}
