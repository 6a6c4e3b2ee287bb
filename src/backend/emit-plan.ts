/** A poly module as a plan for one rank: functions, keys, plaintexts, ports. */
import { defined, invariant } from '../support/invariant.js';
import { ephemeralHammingWeight } from '../target/security.js';
import { digitsAt, type Parameters } from '../target/parameters.js';
import { entryName, walkOps, type Func, type Module, type Op, type Port } from '../ir/module.js';
import { axesCount } from '../ir/types.js';
import { componentAxis } from '../ir/ops/poly.js';
import { emitFunction, type EmitContext } from './emit-function.js';
import type { EmittedFunction } from './finish-function.js';
import { PlaintextPool, TablePool } from './plaintexts.js';
import {
  formatMajor,
  formatMinor,
  keyKinds,
  type Key,
  type KeyKind,
  type PlanParameters,
  type PlanPort,
  type PlanView,
} from './plan-view.js';
import type { CipherCounts } from './summary.js';
import { sha256Hex, writeWeights } from './weights.js';

export interface EmitOptions {
  readonly compilerVersion: string;
  readonly strategy: string;
  readonly counts: CipherCounts;
  /** Numeric scales of the module's inputs and outputs, which poly types no longer carry. */
  readonly inputScales: readonly number[];
  readonly outputScales: readonly number[];
}

export function emitPlan(
  poly: Module,
  options: EmitOptions,
): { readonly view: PlanView; readonly weights: Uint8Array } {
  invariant(poly.phase === 'poly', `the backend takes phase poly, not ${poly.phase}`);
  const parameters = defined(poly.parameters, 'parameters');
  const functions = reachable(poly);
  const keys = collectKeys(functions, parameters);
  const tables = new TablePool();
  const plaintexts = new PlaintextPool(poly, tables);
  const locations: string[] = [];
  const emitted = emitFunctions(functions, plaintexts, keys, locations, parameters);

  const main = defined(functions.at(-1), 'entry function');
  const ports = (
    list: readonly Port[],
    values: Func['body']['args'],
    scales: readonly number[],
    first: number,
  ): PlanPort[] => {
    invariant(list.length === values.length, 'one port per value of the entry function');
    return list.map((port, i) =>
      planPort(port, defined(values[i], 'value'), defined(scales[i], 'scale'), first + i, tables),
    );
  };
  const inputs = ports(poly.inputs, main.body.args, options.inputScales, 0);
  const outputs = ports(poly.outputs, main.body.results, options.outputScales, inputs.length);
  const weights = writeWeights(plaintexts.weights);
  const view: PlanView = {
    formatMajor,
    formatMinor,
    compilerVersion: options.compilerVersion,
    modelName: poly.name,
    sourceHash: poly.sourceHash,
    weightsHash: sha256Hex(weights),
    strategy: options.strategy,
    mesh: [{ name: 'app', size: 1 }],
    parameters: planParameters(parameters),
    keys,
    tables: tables.tables,
    plaintexts: plaintexts.plaintexts,
    programs: [{ functions: emitted.map((one) => one.func) }],
    inputs,
    outputs,
    locations,
    summary: {
      levels: parameters.maxLevel,
      ...options.counts,
      keyBytes: keys.reduce((sum, key) => sum + keyBytes(key, parameters), 0),
      weightsBytes: weights.length,
    },
  };
  return { view, weights };
}

/** Functions that the entry reaches, callees first, the entry last. */
function reachable(module: Module): Func[] {
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

function emitFunctions(
  functions: readonly Func[],
  plaintexts: PlaintextPool,
  keys: readonly Key[],
  locations: string[],
  parameters: Parameters,
): EmittedFunction[] {
  const emitted: EmittedFunction[] = [];
  const keyIndices = new Map(keys.map((key, i) => [keyName(key.kind, key.galois, key.keyClass), i]));
  const nodes = new Map<string, number>();
  const context: EmitContext = {
    plaintexts,
    keyIndex: (kind, galois, className) => {
      const keyClass = parameters.keyClasses.findIndex((c) => c.name === className);
      return defined(keyIndices.get(keyName(kind, galois, keyClass)), `key ${kind} ${galois} ${className}`);
    },
    nodeIndex: (loc) => {
      const index = nodes.get(loc) ?? nodes.size;
      if (index === nodes.size) locations.push(loc);
      nodes.set(loc, index);
      return index;
    },
    callee: (name) => {
      const index = functions.findIndex((func) => func.name === name);
      return { ...defined(emitted[index], `callee ${name}`), index };
    },
  };
  for (const func of functions) emitted.push(emitFunction(func, context));
  return emitted;
}

// ---------------------------------------------------------------- keys

function keyName(kind: string, galois: number, keyClass: number): string {
  return `${kind} ${galois} ${keyClass}`;
}

/** Highest chain prime among the limbs of a key product. */
function levelOf(op: Op, parameters: Parameters): number {
  const type = defined(op.results[0], 'result of a key product').type;
  invariant(type.kind === 'poly', 'a key product is a poly value');
  return Math.max(...type.limbs.filter((limb) => limb <= parameters.maxLevel));
}

/**
 * The key manifest: distinct keys by kind, class and Galois element, each at the highest level of its uses.
 */
function collectKeys(functions: readonly Func[], parameters: Parameters): Key[] {
  const found = new Map<string, Key>();
  for (const func of functions) {
    walkOps(func.body, (op) => {
      if (op.kind !== 'poly.key_product') return;
      const kind = op.attrs.key as KeyKind;
      const keyClass = parameters.keyClasses.findIndex((c) => c.name === op.attrs.class);
      const used = levelOf(op, parameters);
      for (const galois of op.attrs.galois as readonly number[]) {
        const name = keyName(kind, galois, keyClass);
        const level = Math.max(used, found.get(name)?.level ?? 0);
        found.set(name, { kind, galois, keyClass, level });
      }
    });
  }
  return [...found.values()].sort(
    (a, b) =>
      keyKinds.indexOf(a.kind) - keyKinds.indexOf(b.kind) || a.keyClass - b.keyClass || a.galois - b.galois,
  );
}

/**
 * Memory of a key: both halves, [digit][component][limb][N] words; the file holds one half and the seed of
 * the other.
 */
function keyBytes(key: Key, parameters: Parameters): number {
  const keyClass = defined(parameters.keyClasses[key.keyClass], 'key class');
  const rows = digitsAt(keyClass, key.level).length * 2 * (key.level + 1 + keyClass.specials);
  return rows * 2 ** parameters.logN * 8;
}

// ---------------------------------------------------------------- parameters and ports

function planParameters(p: Parameters): PlanParameters {
  return {
    logN: p.logN,
    primes: p.primes,
    maxLevel: p.maxLevel,
    specials: p.specials,
    scales: p.scales,
    keyClasses: p.keyClasses.map(({ name, level, specials, digits }) => ({ name, level, specials, digits })),
    ephemeralWeight: ephemeralHammingWeight,
    logQP: p.logQP,
    securityBits: p.securityBits,
    insecure: p.insecure,
  };
}

function planPort(
  port: Port,
  value: Func['body']['args'][number],
  scale: number,
  buffer: number,
  tables: TablePool,
): PlanPort {
  const slots = defined(port.slots, `slot map of port ${port.name}`);
  invariant(value.type.kind === 'poly', `port ${port.name} is a ciphertext array`);
  const elements = axesCount(value.type.axes.filter((axis) => axis.name !== componentAxis));
  invariant(slots.features.length === elements * slots.period, `port ${port.name} maps every element`);
  return {
    name: port.name,
    shape: port.shape,
    elements,
    period: slots.period,
    features: tables.add(`port.${port.name}.features`, slots.features),
    tokens: tables.add(`port.${port.name}.tokens`, slots.tokens),
    level: value.type.limbs.length - 1,
    scale,
    factor: port.factor,
    bound: port.bound ?? 0,
    predictedError: port.predictedError ?? 0,
    buffer,
  };
}
