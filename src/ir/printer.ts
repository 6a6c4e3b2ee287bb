/** Text IR: what parser.ts reads. The grammar is in docs/ir.md. */
import { createHash } from 'node:crypto';
import { unreachable } from '../support/invariant.js';
import type {
  Approximation,
  AttrValue,
  Attrs,
  Block,
  Constant,
  Func,
  Module,
  Op,
  Port,
  Value,
} from './module.js';
import { printScale } from './scale.js';
import type { Axis, PolyType, Sharding, Type } from './types.js';

export interface PrintOptions {
  /** `inline` data can be read back; `hash` is for people. */
  readonly data: 'inline' | 'hash';
  /** Print the ONNX node of every op. */
  readonly locations: boolean;
}

/** What parse gives back unchanged. */
export const roundTrip: PrintOptions = { data: 'inline', locations: true };

/** Shorter tables are readable as a list. */
const inlineTableLength = 16;
const wordsThatAreNotStrings = new Set(['true', 'false', 'null', 'nan', 'inf']);

export function printModule(module: Module, options: PrintOptions = roundTrip): string {
  return [...moduleLines(module, options)].join('\n') + '\n';
}

/** The same, line by line: a model's constants may exceed the longest string. */
export function* moduleLines(module: Module, options: PrintOptions = roundTrip): Generator<string> {
  yield `module ${quoted(module.name)} phase ${module.phase} source ${quoted(module.sourceHash)}`;
  const { parameters } = module;
  if (parameters !== null) yield `parameters ${printAttrs({ ...parameters.literal })}`;
  for (const port of module.inputs) yield printPort('input', port, options);
  for (const port of module.outputs) yield printPort('output', port, options);
  for (const [name, constant] of module.constants) yield printConstant(name, constant, options);
  for (const [name, table] of module.tables) {
    yield `table @${printName(name)} = ${printTable(table, options)}`;
  }
  for (const part of ['prologue', 'epilogue'] as const) {
    const bytes = module.client?.[part];
    if (bytes != null) yield `client ${part} ${printBytes(bytes, options)}`;
  }
  for (const [node, block] of module.blocks ?? []) yield `node ${quoted(node)} ${block}`;
  for (const one of module.approximations ?? []) yield printApproximation(one);
  for (const func of module.functions) yield* functionLines(func, options);
}

function printPort(direction: 'input' | 'output', port: Port, options: PrintOptions): string {
  const attrs: Record<string, AttrValue> = { factor: port.factor };
  if (port.bound !== undefined) attrs.bound = port.bound;
  if (port.predictedError !== undefined) attrs.predictedError = port.predictedError;
  const head = `${direction} ${quoted(port.name)} : ${printShape(port.shape)} ${printAttrs(attrs)}`;
  if (port.slots === undefined) return head;
  const { period, blocks, features, tokens } = port.slots;
  const tables = `features ${printTable(features, options)} tokens ${printTable(tokens, options)}`;
  return `${head} slots ${period}${blocks === undefined ? '' : ` blocks ${blocks}`} ${tables}`;
}

function printApproximation({ node, interval, degrees, ...rest }: Approximation): string {
  return `approximation ${quoted(node)} ${printAttrs({ ...rest, ...interval, degrees: [...degrees] })}`;
}

function printConstant(name: string, { shape, data }: Constant, options: PrintOptions): string {
  const head = `const @${printName(name)} : ${printShape(shape)} = `;
  if (options.data === 'hash') return `${head}sha256 "${sha256(littleEndian(data, 8))}"`;
  // ONNX weights are single precision: half the text where nothing is lost.
  const single = Float32Array.from(data);
  const exact = data.every((value, i) => Object.is(single[i], value));
  return exact
    ? `${head}base64 f32 "${littleEndian(single, 4).toString('base64')}"`
    : `${head}base64 f64 "${littleEndian(data, 8).toString('base64')}"`;
}

function printTable(table: Int32Array, options: PrintOptions): string {
  if (table.length <= inlineTableLength) return `[${table.join(', ')}]`;
  const bytes = littleEndian(table, 4);
  return options.data === 'hash' ? `sha256 "${sha256(bytes)}"` : `base64 i32 "${bytes.toString('base64')}"`;
}

function printBytes(bytes: Uint8Array, options: PrintOptions): string {
  const data = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return options.data === 'hash' ? `sha256 "${sha256(data)}"` : `base64 u8 "${data.toString('base64')}"`;
}

/** Bytes of a typed array in little-endian order on every host. */
export function littleEndian(data: Float64Array | Float32Array | Int32Array, wordBytes: 4 | 8): Buffer {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  if (hostIsLittleEndian) return bytes;
  return wordBytes === 4 ? Buffer.from(bytes).swap32() : Buffer.from(bytes).swap64();
}

export const hostIsLittleEndian = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1;

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

function* functionLines(func: Func, options: PrintOptions): Generator<string> {
  const names = nameValues(func);
  const results = func.body.results.map((value) => printType(value.type));
  const models = func.models === undefined ? '' : ` models ${func.models.kind}(${func.models.rangeLog2})`;
  yield `func @${printName(func.name)}${printArgs(func.body, names)} -> (${results.join(', ')})${models} {`;
  yield* blockLines(func.body, names, options, '  ', 'return');
  yield '}';
}

function* blockLines(
  block: Block,
  names: ReadonlyMap<number, string>,
  options: PrintOptions,
  indent: string,
  end: 'return' | 'yield',
): Generator<string> {
  for (const op of block.ops) {
    const location = options.locations && op.loc !== '' ? ` loc(${quoted(op.loc)})` : '';
    let line = `${indent}${printOp(op, names)}${location}`;
    for (const region of op.regions) {
      yield `${line} ${printArgs(region, names)} {`;
      yield* blockLines(region, names, options, `${indent}  `, 'yield');
      line = `${indent}}`;
    }
    yield line;
  }
  const results = block.results.map((value) => nameOf(value, names)).join(', ');
  yield `${indent}${end} ${results}`.trimEnd();
}

function printArgs(block: Block, names: ReadonlyMap<number, string>): string {
  return `(${block.args.map((arg) => `${nameOf(arg, names)}: ${printType(arg.type)}`).join(', ')})`;
}

/** One op without location and regions: `%1 = ct.rotate %0 {axis=b, steps=[0, 16]} : ct<...>`. */
export function printOp(op: Op, names: ReadonlyMap<number, string>): string {
  const results = op.results.map((value) => nameOf(value, names)).join(', ');
  const operands = op.operands.map((value) => ` ${nameOf(value, names)}`).join(',');
  // Without operands the braces keep the next line's values from being read as operands.
  const bare = Object.keys(op.attrs).length === 0 && operands !== '';
  const attrs = bare ? '' : ` ${printAttrs(op.attrs)}`;
  const types = op.results.map((value) => printType(value.type)).join(', ');
  const left = results === '' ? '' : `${results} = `;
  return `${left}${op.kind}${operands}${attrs}${types === '' ? '' : ` : ${types}`}`;
}

/** Values of a function numbered in the order of the text. */
export function nameValues(func: Func): Map<number, string> {
  const names = new Map<number, string>();
  const add = (values: readonly Value[]): void => {
    for (const value of values) if (!names.has(value.id)) names.set(value.id, `%${names.size}`);
  };
  const visit = (block: Block): void => {
    add(block.args);
    for (const op of block.ops) {
      add(op.results);
      op.regions.forEach(visit);
    }
  };
  visit(func.body);
  return names;
}

/** A value that nothing defines is the verifier's to report; it is named by its id. */
function nameOf(value: Value, names: ReadonlyMap<number, string>): string {
  return names.get(value.id) ?? `%undefined${value.id}`;
}

export function printAttrs(attrs: Attrs): string {
  const entries = Object.entries(attrs).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([key, value]) => `${printName(key)}=${printAttr(value)}`).join(', ')}}`;
}

export function printAttr(value: AttrValue): string {
  if (value === null) return 'null';
  switch (typeof value) {
    case 'boolean':
      return String(value);
    case 'number':
      return printNumber(value);
    case 'string':
      return printName(value);
    case 'object':
      break;
    default:
      return unreachable(value);
  }
  if (!isList(value)) return printAttrs(value);
  return `[${value.map((item) => (isAxis(item) ? printAxis(item) : printAttr(item))).join(', ')}]`;
}

function isList(value: AttrValue): value is readonly AttrValue[] {
  return Array.isArray(value);
}

function isAxis(value: AttrValue): value is AttrValue & Axis {
  if (typeof value !== 'object' || value === null || isList(value)) return false;
  const { name, size } = value;
  return (
    Object.keys(value).length === 2
    && typeof name === 'string'
    && Number.isSafeInteger(size)
    && (size as number) >= 0
    && !Object.is(size, -0)
  );
}

function printNumber(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  return Object.is(value, -0) ? '-0' : String(value);
}

/** Bare where it is a word, quoted otherwise. */
export function printName(text: string): string {
  return /^[A-Za-z_][A-Za-z0-9_.]*$/.test(text) && !wordsThatAreNotStrings.has(text) ? text : quoted(text);
}

const quoted = (text: string): string => JSON.stringify(text);

const printAxis = (axis: Axis): string => `${printName(axis.name)}=${axis.size}`;

function printShape(shape: readonly number[]): string {
  return shape.length === 0 ? 'scalar' : shape.join('x');
}

export function printType(type: Type): string {
  switch (type.kind) {
    case 'tensor':
      return `tensor<${type.shape.length === 0 ? '' : `${type.shape.join('x')} `}${type.dtype}>`;
    case 'ct': {
      const { level, scale, degree, basis } = type;
      const parts = [`level ${level ?? '?'}`, `scale ${scale === null ? '?' : printScale(scale)}`];
      if (degree !== 1) parts.push(`degree ${degree}`);
      if (basis.kind !== 'q') parts.push(`specials ${basis.specials}`);
      return `ct<${withAxes(type.axes, parts)}>`;
    }
    case 'pt':
      return `pt<${withAxes(type.axes, [`period ${type.period}`, ...(type.complex ? ['complex'] : [])])}>`;
    case 'poly':
      return printPoly(type);
    default:
      return unreachable(type);
  }
}

/** Equal types print equally. */
export function typesEqual(a: Type, b: Type): boolean {
  return a === b || printType(a) === printType(b);
}

function withAxes(axes: readonly Axis[], parts: readonly string[]): string {
  const list = axes.map(printAxis).join(', ');
  return [list, parts.join(', ')].filter((part) => part !== '').join('; ');
}

function printPoly(type: PolyType): string {
  const parts = [`limbs [${printRanges(type.limbs)}]`, type.form];
  if (type.sharding.length > 0) parts.push(`mesh [${type.sharding.map(printSharding).join(', ')}]`);
  return `poly<${withAxes(type.axes, parts)}>`;
}

/** `0..12, 20, 21`: runs of three and more are ranges. */
function printRanges(indices: readonly number[]): string {
  const parts: string[] = [];
  for (let i = 0; i < indices.length;) {
    const first = indices[i] as number;
    let run = 1;
    while (indices[i + run] === first + run) run++;
    if (run >= 3) parts.push(`${first}..${first + run - 1}`);
    else for (let k = 0; k < run; k++) parts.push(String(first + k));
    i += run;
  }
  return parts.join(', ');
}

function printSharding(sharding: Sharding): string {
  switch (sharding.kind) {
    case 'replicated':
      return 'replicated';
    case 'partial':
      return 'partial';
    case 'at':
      return `at(${sharding.rank})`;
    case 'split':
      return `split(${printName(sharding.axis)}: ${sharding.owners.join(', ')})`;
    case 'limbs':
      return `limbs(${sharding.owners.join(', ')})`;
    default:
      return unreachable(sharding);
  }
}
