/**
 * Device profiles: what the cost model knows about one device and its links, as JSON with the source of every
 * figure (docs/cost-model.md). Those by name ship in `profiles/`; `aegis profile` measures this machine.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { AegisError, Diagnostics } from '../support/diagnostics.js';
import { defined } from '../support/invariant.js';

/** The commands of a plan that are kernels. */
export const kernelKinds = [
  'zero',
  'copy',
  'add',
  'sub',
  'add_plain',
  'contract',
  'tensor',
  'ntt',
  'intt',
  'base_convert',
  'sub_scale',
  'key_product',
  'automorphism',
  'ntt_sub_scale',
] as const;
export type KernelKind = (typeof kernelKinds)[number];

export const profileFormat = 1;

/** The device that plans are made for unless one is named. */
export const defaultProfile = 'a100-40g-nvlink';

/** Seconds, per unit of KernelWork. */
export interface MeasuredKernel {
  readonly termSeconds: number;
  readonly wordSeconds: number;
  /** What a byte of operands that comes from memory adds. */
  readonly byteSeconds: number;
}

export interface MeasuredTable {
  readonly threads: number;
  readonly kernels: Readonly<Record<KernelKind, MeasuredKernel>>;
}

export interface MeasuredKernels {
  /** Kernel table of the runtime: avx512ifma, avx2, ... */
  readonly backend: string;
  readonly cores: number;
  /** Operands of a launch below this size are found in cache. */
  readonly cacheBytes: number;
  /** Work below this stays on one thread. */
  readonly grainSeconds: number;
  /** By rising number of threads, the first one 1. */
  readonly tables: readonly MeasuredTable[];
}

export interface DeviceProfile {
  readonly format: typeof profileFormat;
  readonly name: string;
  /** Source of each figure, by field. */
  readonly provenance: Readonly<Record<string, string>>;
  readonly memoryBytes: number;
  /** Bytes per second. */
  readonly memoryBandwidth: number;
  /** Modular multiply-adds of 64-bit words per second, at peak. */
  readonly modularRate: number;
  /** Share of the peak rates that kernels reach. */
  readonly efficiency: number;
  /** From one kernel's end to the next one's start. */
  readonly launchSeconds: number;
  readonly link: {
    /** Bytes per second and direction. */
    readonly bandwidth: number;
    /** Of one step of a collective. */
    readonly latencySeconds: number;
    /** Collectives go on beside kernels; otherwise a rank moves the rows itself when it waits for them. */
    readonly background: boolean;
  };
  /** Takes the place of the rates above where present. */
  readonly measured: MeasuredKernels | null;
}

const folder = new URL('./profiles/', import.meta.url);

/** Profiles that ship, by name. */
export function profileNames(): string[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith('.json'))
    .map((name) => name.replace(/\.json$/, ''))
    .sort();
}

/** By name, or from a file. Errors: T101 neither, T102 not JSON, T103 a field, T104 another format. */
export function loadProfile(nameOrPath: string): DeviceProfile {
  const names = profileNames();
  const location = names.includes(nameOrPath) ? new URL(`${nameOrPath}.json`, folder) : nameOrPath;
  let text: string;
  try {
    text = readFileSync(location, 'utf8');
  } catch (error) {
    throw new AegisError({
      code: 'T101',
      message:
        `${nameOrPath} is neither a profile nor a file that can be read `
        + `(${(error as NodeJS.ErrnoException).code ?? 'unknown'})`,
      help: `use a file of aegis profile, or one of ${names.join(', ')}`,
    });
  }
  return parseProfile(text, nameOrPath);
}

export function parseProfile(text: string, source: string): DeviceProfile {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new AegisError({ code: 'T102', message: `${source} is not JSON: ${(error as Error).message}` });
  }
  const reader = new Reader(source);
  const root = reader.object(value, 'the profile');
  if ('format' in root && root['format'] !== profileFormat) {
    throw new AegisError({
      code: 'T104',
      message: `${source} has format ${JSON.stringify(root['format'])}, this version reads ${profileFormat}`,
      help: 'measure again with aegis profile',
    });
  }
  const profile = readProfile(reader, root);
  reader.diagnostics.throwIfAny();
  return profile;
}

/** The tables for a rank's share of the threads, for one thread, and for all ranks' threads. */
export function kernelTableFor(
  { tables, cores }: MeasuredKernels,
  ranks: number,
): { table: MeasuredTable; single: MeasuredTable; together: MeasuredTable } {
  const single = defined(tables[0], 'table of one thread');
  const upTo = (threads: number): MeasuredTable =>
    defined(tables.filter((one) => one.threads <= Math.max(1, threads)).at(-1), 'table of one thread');
  const table = upTo(Math.floor(cores / ranks));
  return { table, single, together: upTo(table.threads * ranks) };
}

type Json = Readonly<Record<string, unknown>>;

class Reader {
  readonly diagnostics = new Diagnostics();
  constructor(private readonly source: string) {}

  private fault(what: string, expected: string): void {
    this.diagnostics.report({
      code: 'T103',
      message: `${what} in profile ${this.source} is not ${expected}`,
      help: 'docs/cost-model.md lists the fields of a profile',
    });
  }

  object(value: unknown, what: string): Json {
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Json;
    this.fault(what, 'an object');
    return {};
  }

  /** Strangers are mistakes in spelling. */
  only(value: Json, what: string, fields: readonly string[]): void {
    for (const name of Object.keys(value)) {
      if (!fields.includes(name)) this.fault(`${what}${name}`, `a known field (${fields.join(', ')})`);
    }
  }

  text(value: unknown, what: string): string {
    if (typeof value === 'string' && value !== '') return value;
    this.fault(what, 'a text');
    return '';
  }

  number(value: unknown, what: string, { least = 0, above = false, whole = false } = {}): number {
    const inRange = typeof value === 'number' && (above ? value > least : value >= least);
    if (inRange && Number.isFinite(value) && (!whole || Number.isSafeInteger(value))) return value;
    this.fault(what, `a ${whole ? 'whole ' : ''}number ${above ? 'above' : 'of at least'} ${least}`);
    return 1;
  }

  flag(value: unknown, what: string): boolean {
    if (typeof value === 'boolean') return value;
    this.fault(what, 'true or false');
    return false;
  }

  list(value: unknown, what: string): readonly unknown[] {
    if (Array.isArray(value) && value.length > 0) return value as readonly unknown[];
    this.fault(what, 'a list with entries');
    return [];
  }

  refuse(what: string, expected: string): void {
    this.fault(what, expected);
  }
}

const positive = { above: true };

function readProfile(r: Reader, root: Json): DeviceProfile {
  const fields = [
    'format',
    'name',
    'provenance',
    'memoryBytes',
    'memoryBandwidth',
    'modularRate',
    'efficiency',
    'launchSeconds',
    'link',
    'measured',
  ];
  r.only(root, '', fields);
  const link = r.object(root['link'], 'link');
  r.only(link, 'link.', ['bandwidth', 'latencySeconds', 'background']);
  const provenance = Object.entries(r.object(root['provenance'], 'provenance'));
  const efficiency = r.number(root['efficiency'], 'efficiency', positive);
  if (efficiency > 1) r.refuse('efficiency', 'at most 1');
  if (root['format'] !== profileFormat) r.refuse('format', String(profileFormat));
  return {
    format: profileFormat,
    name: r.text(root['name'], 'name'),
    provenance: Object.fromEntries(
      provenance.map(([name, value]) => [name, r.text(value, `provenance.${name}`)]),
    ),
    memoryBytes: r.number(root['memoryBytes'], 'memoryBytes', { least: 1, whole: true }),
    memoryBandwidth: r.number(root['memoryBandwidth'], 'memoryBandwidth', positive),
    modularRate: r.number(root['modularRate'], 'modularRate', positive),
    efficiency,
    launchSeconds: r.number(root['launchSeconds'], 'launchSeconds'),
    link: {
      bandwidth: r.number(link['bandwidth'], 'link.bandwidth', positive),
      latencySeconds: r.number(link['latencySeconds'], 'link.latencySeconds'),
      background: r.flag(link['background'], 'link.background'),
    },
    measured: root['measured'] === null ? null : readMeasured(r, r.object(root['measured'], 'measured')),
  };
}

function readMeasured(r: Reader, value: Json): MeasuredKernels {
  r.only(value, 'measured.', ['backend', 'cores', 'cacheBytes', 'grainSeconds', 'tables']);
  const tables = r.list(value['tables'], 'measured.tables').map((one, i) => readTable(r, one, i));
  if (tables.some(({ threads }, i) => (i === 0 ? threads !== 1 : threads <= (tables[i - 1]?.threads ?? 0)))) {
    r.refuse('measured.tables', 'a list by rising threads, from 1');
  }
  return {
    backend: r.text(value['backend'], 'measured.backend'),
    cores: r.number(value['cores'], 'measured.cores', { least: 1, whole: true }),
    cacheBytes: r.number(value['cacheBytes'], 'measured.cacheBytes'),
    grainSeconds: r.number(value['grainSeconds'], 'measured.grainSeconds'),
    tables,
  };
}

/** ntt_sub_scale in profiles that were measured before it was a kernel: the sum of its parts. */
function fusedOf(transform: MeasuredKernel, scaling: MeasuredKernel): MeasuredKernel {
  return { ...transform, wordSeconds: transform.wordSeconds + scaling.wordSeconds };
}

function readTable(r: Reader, value: unknown, index: number): MeasuredTable {
  const what = `measured.tables[${index}].`;
  const table = r.object(value, what.slice(0, -1));
  r.only(table, what, ['threads', 'kernels']);
  const kernels = r.object(table['kernels'], `${what}kernels`);
  r.only(kernels, `${what}kernels.`, kernelKinds);
  const read = (kind: KernelKind): [KernelKind, MeasuredKernel] => {
    if (kind === 'ntt_sub_scale' && kernels[kind] === undefined)
      return [kind, fusedOf(read('ntt')[1], read('sub_scale')[1])];
    const where = `${what}kernels.${kind}`;
    const one = r.object(kernels[kind], where);
    r.only(one, `${where}.`, ['termSeconds', 'wordSeconds', 'byteSeconds']);
    return [
      kind,
      {
        termSeconds: r.number(one['termSeconds'], `${where}.termSeconds`),
        wordSeconds: r.number(one['wordSeconds'], `${where}.wordSeconds`),
        byteSeconds: r.number(one['byteSeconds'], `${where}.byteSeconds`),
      },
    ];
  };
  return {
    threads: r.number(table['threads'], `${what}threads`, { least: 1, whole: true }),
    kernels: Object.fromEntries(kernelKinds.map(read)) as Record<KernelKind, MeasuredKernel>,
  };
}
