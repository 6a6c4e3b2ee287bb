/**
 * NumPy's .npy format, versions 1 to 3 (numpy.lib.format). Errors: D123 damaged header or size, D124 element
 * type that is not read, D125 value that a model input cannot hold.
 */
import { AegisError } from '../support/diagnostics.js';
import { unreachable } from '../support/invariant.js';
import { elementCount, type DType, type Tensor } from './types.js';

const magic = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59];
const maxHeaderBytes = 1 << 16;
const maxRank = 16;
const headerAlignment = 64;

interface Element {
  readonly dtype: DType;
  readonly bytes: number;
  readonly read: (view: DataView, offset: number, little: boolean) => number;
}

/** By NumPy's kind and size. Small types widen to the model's: float16 to float32, int8 to int32. */
const elements: Readonly<Record<string, Element>> = {
  f2: { dtype: 'float32', bytes: 2, read: (v, o, l) => halfToNumber(v.getUint16(o, l)) },
  f4: { dtype: 'float32', bytes: 4, read: (v, o, l) => v.getFloat32(o, l) },
  f8: { dtype: 'float64', bytes: 8, read: (v, o, l) => v.getFloat64(o, l) },
  i1: { dtype: 'int32', bytes: 1, read: (v, o) => v.getInt8(o) },
  i2: { dtype: 'int32', bytes: 2, read: (v, o, l) => v.getInt16(o, l) },
  i4: { dtype: 'int32', bytes: 4, read: (v, o, l) => v.getInt32(o, l) },
  i8: { dtype: 'int64', bytes: 8, read: (v, o, l) => Number(v.getBigInt64(o, l)) },
  u1: { dtype: 'int32', bytes: 1, read: (v, o) => v.getUint8(o) },
  u2: { dtype: 'int32', bytes: 2, read: (v, o, l) => v.getUint16(o, l) },
  u4: { dtype: 'int64', bytes: 4, read: (v, o, l) => v.getUint32(o, l) },
  u8: { dtype: 'int64', bytes: 8, read: (v, o, l) => Number(v.getBigUint64(o, l)) },
  b1: { dtype: 'bool', bytes: 1, read: (v, o) => (v.getUint8(o) === 0 ? 0 : 1) },
};

/** `source` names the array in messages. */
export function readNpy(bytes: Uint8Array, source: string): Tensor {
  const { header, dataOffset } = readHeader(bytes, source);
  const descr = /'descr'\s*:\s*'([^']*)'/.exec(header)?.[1];
  const order = /'fortran_order'\s*:\s*(True|False)/.exec(header)?.[1];
  const shapeText = /'shape'\s*:\s*\(([\d,\s]*)\)/.exec(header)?.[1];
  if (shapeText === undefined || order === undefined) {
    throw damaged(source, 'its header has no shape or order');
  }
  const element = descr === undefined ? undefined : elements[descr.replace(/^[<>|=]/, '')];
  if (element === undefined) {
    throw new AegisError({
      code: 'D124',
      message: `${source} has elements of type ${descr ?? 'record'}, which no model input takes`,
      help: 'convert it with .astype(numpy.float32) or .astype(numpy.int64)',
    });
  }
  const shape = shapeText
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
    .map(Number);
  const count = elementCount(shape);
  if (shape.length > maxRank || !Number.isSafeInteger(count)) {
    throw damaged(source, `its shape is [${shape.join(', ')}]`);
  }
  if (dataOffset + count * element.bytes !== bytes.length) {
    throw damaged(
      source,
      `shape [${shape.join(', ')}] needs ${count * element.bytes} bytes of data, `
        + `the file has ${bytes.length - dataOffset}`,
    );
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset + dataOffset, bytes.length - dataOffset);
  const little = !(descr ?? '').startsWith('>');
  const data = new Float64Array(count);
  for (let i = 0; i < count; i++) data[i] = element.read(view, i * element.bytes, little);
  checkValues(data, element.dtype, source);
  return { dtype: element.dtype, shape, data: order === 'True' ? fromColumnMajor(data, shape) : data };
}

function readHeader(bytes: Uint8Array, source: string): { header: string; dataOffset: number } {
  if (magic.some((byte, i) => bytes[i] !== byte)) {
    throw damaged(source, 'it does not start with the .npy signature');
  }
  const major = bytes[6] ?? 0;
  if (major < 1 || major > 3) {
    throw damaged(source, `its format version is ${major}, versions 1 to 3 are read`);
  }
  const lengthBytes = major === 1 ? 2 : 4;
  const headerStart = 8 + lengthBytes;
  if (bytes.length < headerStart) throw damaged(source, 'it ends inside its header');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const headerBytes = major === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  if (headerBytes > maxHeaderBytes || headerStart + headerBytes > bytes.length) {
    throw damaged(source, `its header claims ${headerBytes} bytes`);
  }
  const dataOffset = headerStart + headerBytes;
  return { header: Buffer.from(bytes.subarray(headerStart, dataOffset)).toString('latin1'), dataOffset };
}

/** Sums over NaN say nothing, and integers above 2^53 are not exact as doubles. */
function checkValues(data: Float64Array, dtype: DType, source: string): void {
  const whole = dtype === 'int64';
  const bad = data.findIndex((value) => (whole ? !Number.isSafeInteger(value) : !Number.isFinite(value)));
  if (bad < 0) return;
  throw new AegisError({
    code: 'D125',
    message:
      `${source} holds ${data[bad]} at flat index ${bad}, expected finite values`
      + (whole ? ' below 2^53' : ''),
  });
}

function fromColumnMajor(data: Float64Array, shape: readonly number[]): Float64Array {
  const result = new Float64Array(data.length);
  const index = shape.map(() => 0);
  const strides = shape.map((_, axis) => elementCount(shape.slice(0, axis)));
  for (let flat = 0; flat < result.length; flat++) {
    result[flat] = data[index.reduce((sum, at, axis) => sum + at * (strides[axis] ?? 0), 0)] ?? 0;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      const next = (index[axis] ?? 0) + 1;
      index[axis] = next === shape[axis] ? 0 : next;
      if (index[axis] !== 0) break;
    }
  }
  return result;
}

/** IEEE 754 binary16. */
function halfToNumber(half: number): number {
  const sign = (half & 0x8000) === 0 ? 1 : -1;
  const exponent = (half >> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : NaN;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

export function writeNpy(tensor: Tensor): Uint8Array {
  const { descr, bytes } = writeElements(tensor);
  const comma = tensor.shape.length === 1 ? ',' : '';
  const shape = `(${tensor.shape.join(', ')}${comma})`;
  const fields = `{'descr': '${descr}', 'fortran_order': False, 'shape': ${shape}, }`;
  const padding = (headerAlignment - ((10 + fields.length + 1) % headerAlignment)) % headerAlignment;
  const header = `${fields}${' '.repeat(padding)}\n`;
  const prefix = Uint8Array.from([...magic, 1, 0, header.length & 0xff, header.length >> 8]);
  return Buffer.concat([prefix, Buffer.from(header, 'latin1'), bytes]);
}

function writeElements({ dtype, data }: Tensor): { descr: string; bytes: Uint8Array } {
  type Set = (view: DataView, offset: number, value: number) => void;
  const make = (descr: string, size: number, set: Set) => {
    const view = new DataView(new ArrayBuffer(data.length * size));
    data.forEach((value, i) => set(view, i * size, value));
    return { descr, bytes: new Uint8Array(view.buffer) };
  };
  switch (dtype) {
    case 'float32':
      return make('<f4', 4, (view, offset, value) => view.setFloat32(offset, value, true));
    case 'float64':
      return make('<f8', 8, (view, offset, value) => view.setFloat64(offset, value, true));
    case 'int32':
      return make('<i4', 4, (view, offset, value) => view.setInt32(offset, value, true));
    case 'int64':
      return make('<i8', 8, (view, offset, value) => view.setBigInt64(offset, BigInt(value), true));
    case 'bool':
      return make('|b1', 1, (view, offset, value) => view.setUint8(offset, value === 0 ? 0 : 1));
    default:
      return unreachable(dtype);
  }
}

function damaged(source: string, what: string): AegisError {
  return new AegisError({ code: 'D123', message: `${source} is damaged: ${what}` });
}
