/** A poly module as a plan: a program for every rank of the mesh, keys, plaintexts, ports. */
import { defined, invariant } from '../support/invariant.js';
import { ephemeralHammingWeight } from '../target/security.js';
import type { Parameters } from '../target/parameters.js';
import type { Func, Module, Port } from '../ir/module.js';
import { axesCount } from '../ir/types.js';
import { componentAxis } from '../ir/ops/poly.js';
import { meshSize, type Mesh } from '../ir/sharding.js';
import { emitFunction, type EmitContext } from './emit-function.js';
import type { EmittedFunction } from './finish-function.js';
import { localise } from './localise.js';
import { PlaintextPool, TablePool } from './plaintexts.js';
import {
  formatMajor,
  formatMinor,
  type Key,
  type LayerBlock,
  type PlanParameters,
  type PlanPort,
  type PlanProgram,
  type PlanView,
} from './plan-view.js';
import {
  collectKeys,
  keyName,
  keyParts,
  numberCollectives,
  portPart,
  reachable,
  type Collectives,
} from './ranks.js';
import { keyBytes, rankMemory } from './rank-memory.js';
import type { CipherCounts } from './summary.js';
import { sha256Hex, writeWeights } from './weights.js';

export interface EmitOptions {
  readonly compilerVersion: string;
  readonly strategy: string;
  readonly mesh: Mesh;
  /** Which part of a layer an ONNX node belongs to. */
  readonly blockOf: (loc: string) => LayerBlock;
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
  const pool = new PlaintextPool(tables);
  const names = new LocationTable();
  const nodeIndex = (loc: string): number => names.index(loc);
  const { mesh, blockOf } = options;
  const collectives = numberCollectives(functions, { mesh, parameters, nodeIndex, blockOf });
  const site: ProgramSite = { poly: { ...poly, functions }, mesh, keys, pool, nodeIndex, collectives };
  const emitted = Array.from({ length: meshSize(mesh) }, (_, rank) => emitProgram(site, rank));

  const main = defined(functions.at(-1), 'entry function');
  const ports = (
    list: readonly Port[],
    values: Func['body']['args'],
    scales: readonly number[],
  ): PlanPort[] => {
    invariant(list.length === values.length, 'one port per value of the entry function');
    return list.map((port, i) =>
      planPort(port, defined(values[i], 'value'), defined(scales[i], 'scale'), tables),
    );
  };
  const inputs = ports(poly.inputs, main.body.args, options.inputScales);
  const outputs = ports(poly.outputs, main.body.results, options.outputScales);
  const weights = writeWeights(pool.weights);
  const { plaintexts } = pool;
  const planned = planParameters(parameters);
  const memoryOf = { keys, plaintexts, parameters: planned };
  const view: PlanView = {
    formatMajor,
    formatMinor,
    compilerVersion: options.compilerVersion,
    modelName: poly.name,
    sourceHash: poly.sourceHash,
    weightsHash: sha256Hex(weights),
    strategy: options.strategy,
    mesh: mesh.axes,
    parameters: planned,
    keys,
    tables: tables.tables,
    plaintexts,
    programs: emitted.map((one) => ({ ...one, memory: rankMemory(memoryOf, one.functions, one.keys) })),
    inputs,
    outputs,
    locations: names.names,
    summary: {
      levels: parameters.maxLevel,
      ...options.counts,
      keyBytes: keys.reduce((sum, key) => sum + keyBytes(key, [], parameters), 0),
      weightsBytes: weights.length,
    },
    collectives: collectives.infos,
    client: poly.client,
    approximations: poly.approximations ?? [],
  };
  return { view, weights };
}

class LocationTable {
  readonly names: string[] = [];
  private readonly indices = new Map<string, number>();

  index(loc: string): number {
    const index = this.indices.get(loc) ?? this.names.length;
    if (index === this.names.length) this.names.push(loc);
    this.indices.set(loc, index);
    return index;
  }
}

interface ProgramSite {
  /** Functions callees first, the entry last. */
  readonly poly: Module;
  readonly mesh: Mesh;
  readonly keys: readonly Key[];
  readonly pool: PlaintextPool;
  readonly nodeIndex: (loc: string) => number;
  readonly collectives: Collectives;
}

function emitProgram(site: ProgramSite, rank: number): Omit<PlanProgram, 'memory'> {
  const { poly, mesh, keys, pool, nodeIndex, collectives } = site;
  const parameters = defined(poly.parameters, 'parameters');
  const local = meshSize(mesh) === 1 ? poly : localise(poly, mesh, rank, collectives.indexOf);
  const keyIndices = new Map(keys.map((key, i) => [keyName(key.kind, key.galois, key.keyClass), i]));
  const emitted: EmittedFunction[] = [];
  const context: EmitContext = {
    plaintexts: pool.of(local),
    keyIndex: (kind, galois, className) => {
      const keyClass = parameters.keyClasses.findIndex((c) => c.name === className);
      return defined(keyIndices.get(keyName(kind, galois, keyClass)), `key ${kind} ${galois} ${className}`);
    },
    nodeIndex,
    callee: (name) => {
      const index = local.functions.findIndex((func) => func.name === name);
      return { ...defined(emitted[index], `callee ${name}`), index };
    },
  };
  for (const func of local.functions) emitted.push(emitFunction(func, context));
  const { args, results } = defined(poly.functions.at(-1), 'entry function').body;
  return {
    functions: emitted.map((one) => one.func),
    keys: keyParts(local.functions, keys, parameters),
    inputs: args.map((arg, i) => portPart(arg, i, mesh, rank)),
    outputs: results.map((result, i) => portPart(result, args.length + i, mesh, rank)),
  };
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
  };
}
