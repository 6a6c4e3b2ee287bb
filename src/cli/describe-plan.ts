/** What `inspect` says about a plan. Numbers first (the JSON), text made from the same numbers. */
import type { ClientDescription } from '../frontend/index.js';
import { digitsAt } from '../target/parameters.js';
import {
  layerBlocks,
  type Command,
  type Key,
  type PlanFunction,
  type PlanView,
} from '../backend/plan-view.js';
import type { Approximation } from '../ir/module.js';
import { peakBytes } from '../backend/rank-memory.js';
import { defined } from '../support/invariant.js';
import { describeApproximations } from './approximations.js';
import {
  bold,
  formatBytes,
  formatError,
  formatFields,
  formatTable,
  insecureNotice,
  type Style,
} from './format.js';

const wordBytes = 8;

export interface PlanDescription {
  readonly file: 'plan';
  readonly model: string;
  readonly sourceHash: string;
  readonly compilerVersion: string;
  readonly formatVersion: string;
  readonly logN: number;
  readonly logQP: number;
  readonly securityBits: number;
  readonly insecure: boolean;
  readonly levels: number;
  readonly bootstraps: number;
  readonly rotations: number;
  readonly ctMultiplications: number;
  /** In memory, both halves of every key; the file holds one half and a seed. */
  readonly keyBytes: number;
  readonly keyFileBytes: number;
  readonly planBytes: number;
  readonly weightsBytes: number;
  readonly strategy: string;
  readonly mesh: PlanView['mesh'];
  readonly inputs: readonly PortDescription[];
  readonly outputs: readonly PortDescription[];
  /** What the data owner computes in the clear. */
  readonly client: readonly ClientDescription[];
  readonly approximations: readonly Approximation[];
  readonly functions: readonly { name: string; commands: number; launches: number }[];
  /** Kernel launches of one run of rank 0 by kernel: loops times their trips, callees once per call. */
  readonly launches: Readonly<Record<string, number>>;
  readonly memory: MemoryDescription;
}

interface PortDescription {
  readonly name: string;
  readonly shape: readonly number[];
  readonly ciphertexts: number;
  readonly level: number;
  readonly bound: number | null;
  readonly predictedError: number | null;
}

export interface MemoryDescription {
  /** Intermediate ciphertexts of the entry function and all it calls, inputs and outputs included. */
  readonly frameBytes: number;
  /** Encoded weights and constants, resident. */
  readonly plaintextBytes: number;
  readonly keyBytes: number;
  /** Of `frameBytes`, those of inputs and outputs. */
  readonly portBytes: number;
  /** Beside the plan's own prediction: request and response, and weights expanded for a launch. */
  readonly scratchBytes: number;
}

/** The CPU kernels expand coefficients in pieces of this size (docs/runtime.md), one limb at least. */
const expandedBytes = 2 ** 20;

export function describePlan(
  plan: PlanView,
  planBytes: number,
  client: readonly ClientDescription[] = [],
): PlanDescription {
  const { parameters: p, summary } = plan;
  const functions = defined(plan.programs[0], 'program of rank 0').functions;
  const launches = countLaunches(functions);
  const ports = (list: PlanView['inputs']): PortDescription[] =>
    list.map((port) => ({
      name: port.name,
      shape: port.shape,
      ciphertexts: port.elements,
      level: port.level,
      bound: port.bound === 0 ? null : port.bound,
      predictedError: port.predictedError === 0 ? null : port.predictedError,
    }));
  return {
    file: 'plan',
    model: plan.modelName,
    sourceHash: plan.sourceHash,
    compilerVersion: plan.compilerVersion,
    formatVersion: `${plan.formatMajor}.${plan.formatMinor}`,
    logN: p.logN,
    logQP: p.logQP,
    securityBits: p.securityBits,
    insecure: p.insecure,
    levels: summary.levels,
    bootstraps: summary.bootstraps,
    rotations: summary.rotations,
    ctMultiplications: summary.ctMultiplications,
    keyBytes: summary.keyBytes,
    keyFileBytes: describeKeys(plan).reduce((sum, key) => sum + key.bytes, 0),
    planBytes,
    weightsBytes: summary.weightsBytes,
    strategy: plan.strategy,
    mesh: plan.mesh,
    inputs: ports(plan.inputs),
    outputs: ports(plan.outputs),
    client,
    approximations: plan.approximations,
    functions: functions.map((func, i) => ({
      name: func.name,
      commands: countCommands(func.commands),
      launches: sumOf(defined(launches[i], `launches of ${func.name}`)),
    })),
    launches: sorted(defined(launches.at(-1), 'entry function')),
    memory: memoryOf(plan),
  };
}

function clientFields({ client }: PlanDescription): [string, string][] {
  return client.map(({ part, inputs, outputs, operators, constants }) => {
    const given = inputs.map(({ name, dtype, shape }) => `${name} ${dtype} [${shape.join(', ')}]`);
    const nodes = Object.entries(operators).map(([name, count]) => `${name} ${count}`);
    return [
      part,
      `${given.join(', ')} to ${outputs.join(', ')}: ${nodes.join(', ')}; tables of ${constants} values`,
    ];
  });
}

function sorted(counts: ReadonlyMap<string, number>): Record<string, number> {
  return Object.fromEntries([...counts].sort(([a], [b]) => (a < b ? -1 : 1)));
}

function sumOf(counts: ReadonlyMap<string, number>): number {
  return [...counts.values()].reduce((a, b) => a + b, 0);
}

function countCommands(commands: readonly Command[]): number {
  return commands.reduce((sum, command) => sum + 1 + countCommands(command.body), 0);
}

/** By function, in order: callees come before callers. */
function countLaunches(functions: readonly PlanFunction[]): Map<string, number>[] {
  const known: Map<string, number>[] = [];
  const add = (counts: Map<string, number>, commands: readonly Command[], times: number) => {
    for (const command of commands) {
      if (command.op === 'loop') add(counts, command.body, times * command.tripCount);
      else if (command.op === 'call') {
        for (const [op, count] of known[command.callee] ?? []) {
          counts.set(op, (counts.get(op) ?? 0) + times * count);
        }
      } else counts.set(command.op, (counts.get(command.op) ?? 0) + times);
    }
  };
  for (const func of functions) {
    const counts = new Map<string, number>();
    add(counts, func.commands, 1);
    known.push(counts);
  }
  return known;
}

/** Of the rank that holds most. */
function memoryOf({ programs, plaintexts }: PlanView): MemoryDescription {
  const expanded = plaintexts.map(({ coefficients, elements, rowWords }) =>
    coefficients ? elements * rowWords * wordBytes : 0,
  );
  const { memory } = programs.reduce((a, b) => (peakBytes(b.memory) > peakBytes(a.memory) ? b : a));
  return {
    frameBytes: memory.frame + memory.ports,
    plaintextBytes: memory.plaintexts,
    keyBytes: memory.keys,
    portBytes: memory.ports,
    scratchBytes: memory.ports + expanded.reduce((most, bytes) => Math.max(most, bytes), expandedBytes),
  };
}

export interface KeyDescription {
  readonly kind: Key['kind'];
  readonly galois: number;
  /** Slots that the rotation shifts by; null where the key is not of a rotation. */
  readonly rotation: number | null;
  readonly keyClass: string;
  readonly level: number;
  readonly digits: number;
  readonly bytes: number;
}

/** Half of a switching key is expanded from a seed: one polynomial a digit is stored. */
export function describeKeys(plan: PlanView): KeyDescription[] {
  const { logN, keyClasses } = plan.parameters;
  const steps = rotationSteps(logN);
  return plan.keys.map((key) => {
    const shape = defined(keyClasses[key.keyClass], 'key class');
    const digits = digitsAt(shape, key.level).length;
    const rows = digits * (key.level + 1 + shape.specials);
    return {
      kind: key.kind,
      galois: key.galois,
      rotation: key.kind === 'galois' ? (steps.get(key.galois) ?? null) : null,
      keyClass: shape.name,
      level: key.level,
      digits,
      bytes: rows * 2 ** logN * wordBytes,
    };
  });
}

/** A rotation by r slots is X -> X^(5^r mod 2N). */
function rotationSteps(logN: number): Map<number, number> {
  const steps = new Map<number, number>();
  for (let step = 0, galois = 1; step < 2 ** (logN - 1); step++, galois = (galois * 5) % 2 ** (logN + 1)) {
    steps.set(galois, step);
  }
  return steps;
}

export function planText(path: string, plan: PlanView, d: PlanDescription, style: Style): string {
  const { parameters: p } = plan;
  const blocks = [
    `${bold(style, path)}: plan of ${d.model}, format ${d.formatVersion}, by ${d.compilerVersion}`,
    ...(d.insecure ? [insecureNotice(style)] : []),
    `${bold(style, 'parameters')}\n${formatFields([
      ['ring', `N = 2^${d.logN}, log2(QP) = ${d.logQP.toFixed(1)}`],
      ['security', d.insecure ? 'INSECURE' : `${d.securityBits} bits`],
      ['primes', `${p.maxLevel + 1} of Q (${chainText(plan)}), ${p.specials} special`],
      ['secret', `uniform ternary; bootstraps under a sparse one of weight ${p.ephemeralWeight}`],
    ])}`,
    `${bold(style, 'model')}\n${formatTable(
      [
        ['  ', 'name', 'shape', 'ciphertexts', 'level', 'bound', 'predicted error'],
        ...d.inputs.map((port) => portRow('  input', port)),
        ...d.outputs.map((port) => portRow('  output', port)),
      ],
      [3, 4],
    )}`,
    ...(d.client.length > 0 ? [`${bold(style, 'client')}\n${formatFields(clientFields(d))}`] : []),
    `${bold(style, 'work')}\n${formatFields([
      [
        'ciphertexts',
        `${d.bootstraps} bootstraps, ${d.rotations} rotations, ` + `${d.ctMultiplications} products`,
      ],
      ['approximations', describeApproximations(d.approximations)],
      ['commands', d.functions.map((func) => `${func.name} ${func.commands}`).join(', ')],
      [
        'launches',
        Object.entries(d.launches)
          .map(([name, count]) => `${name} ${count}`)
          .join(', '),
      ],
    ])}`,
    ...(plan.programs.length > 1 ? [`${bold(style, 'ranks')}\n${formatFields(rankFields(plan))}`] : []),
    `${bold(style, 'bytes')}\n${formatFields([
      ['plan', formatBytes(d.planBytes)],
      ['weights', formatBytes(d.weightsBytes)],
      ['eval.keys', `${formatBytes(d.keyFileBytes)}, ${plan.keys.length} keys`],
    ])}`,
    `${bold(style, memoryTitle(plan))}\n${formatFields(memoryFields(d.memory))}`,
  ];
  return `${blocks.join('\n\n')}\n`;
}

function memoryTitle({ programs }: PlanView): string {
  return programs.length > 1 ? 'memory of the largest rank' : 'memory of a run';
}

function rankFields({ programs, strategy, collectives }: PlanView): [string, string][] {
  const received = (block: string): number =>
    collectives.reduce((sum, one) => sum + (one.block === block ? Math.max(...one.receivedBytes) : 0), 0);
  const peaks = programs.map((program) => formatBytes(peakBytes(program.memory)));
  return [
    ['placement', `${programs.length} ranks, ${strategy}`],
    ['memory', peaks.join(', ')],
    [
      'received',
      layerBlocks.map((block) => `${block} ${formatBytes(received(block))}`).join(', ') + ' at most, a rank',
    ],
    [
      'collectives',
      `${collectives.length}, run ${collectives.reduce((sum, one) => sum + one.executions, 0)} times`,
    ],
  ];
}

/** Every line of `inspect --memory`; their sum is what a run of that rank takes. */
export function allMemoryFields(memory: MemoryDescription): [string, string][] {
  const { keyBytes, plaintextBytes, frameBytes, portBytes, scratchBytes } = memory;
  return [
    ['keys', formatBytes(keyBytes)],
    ['encoded weights', formatBytes(plaintextBytes)],
    ['activations', formatBytes(frameBytes - portBytes)],
    ['inputs and outputs', formatBytes(portBytes)],
    ['scratch', `${formatBytes(scratchBytes)}: request and response, weights expanded for a launch`],
    ['in all', formatBytes(keyBytes + plaintextBytes + frameBytes + scratchBytes)],
  ];
}

export function memoryFields(memory: MemoryDescription): [string, string][] {
  return [
    ['buffers', formatBytes(memory.frameBytes)],
    ['encoded weights', formatBytes(memory.plaintextBytes)],
    ['keys', formatBytes(memory.keyBytes)],
  ];
}

function portRow(direction: string, port: PortDescription): string[] {
  return [
    direction,
    port.name,
    `[${port.shape.join(', ')}]`,
    String(port.ciphertexts),
    String(port.level),
    port.bound === null ? '-' : `+-${Number(port.bound.toPrecision(3))}`,
    port.predictedError === null ? '-' : formatError(port.predictedError),
  ];
}

/** Runs of primes of equal size, from level 0 up: `1 x 50, 16 x 40, 11 x 50 bits`. */
function chainText({ parameters: p }: PlanView): string {
  const runs: { bits: number; count: number }[] = [];
  for (const prime of p.primes.slice(0, p.maxLevel + 1)) {
    const bits = Math.round(Math.log2(Number(prime)));
    const last = runs.at(-1);
    if (last?.bits === bits) last.count++;
    else runs.push({ bits, count: 1 });
  }
  return `${runs.map((run) => `${run.count} x ${run.bits}`).join(', ')} bits`;
}

export function keysText(keys: readonly KeyDescription[]): string {
  return `${formatTable(
    [
      ['kind', 'galois', 'rotation', 'class', 'level', 'digits', 'bytes'],
      ...keys.map((key) => [
        key.kind,
        key.kind === 'galois' ? String(key.galois) : '-',
        rotationText(key),
        key.keyClass,
        String(key.level),
        String(key.digits),
        formatBytes(key.bytes),
      ]),
    ],
    [1, 2, 4, 5, 6],
  )}\n${keys.length} keys, ${formatBytes(keys.reduce((sum, key) => sum + key.bytes, 0))}\n`;
}

function rotationText({ kind, rotation }: KeyDescription): string {
  if (kind !== 'galois') return '-';
  return rotation === null ? 'conjugate' : String(rotation);
}
