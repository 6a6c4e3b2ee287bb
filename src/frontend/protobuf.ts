/**
 * Decoding of ONNX tensors and attributes from protobuf messages: sizes are checked before memory is taken.
 */
import type { onnx } from 'onnx-proto';
import { defined } from '../support/invariant.js';
import {
  elementCount,
  maxElements,
  refuse,
  type Attribute,
  type Data,
  type DType,
  type Tensor,
} from './model.js';

/** Reads `length` bytes (all that follow when null) at `offset` of a file in the model's folder. */
export type ExternalReader = (location: string, offset: number, length: number, tensor: string) => Uint8Array;

/** protobufjs gives 64-bit fields as Long objects, or as numbers when the `long` package is missing. */
type Int64Field = number | { readonly low: number; readonly high: number };

function toBig(value: Int64Field): bigint {
  return typeof value === 'number'
    ? BigInt(Math.trunc(value))
    : (BigInt(value.high) << 32n) | BigInt(value.low >>> 0);
}

/** Beyond 2^53 the value saturates: such numbers are only used as "to the end". */
export function toNumber(value: Int64Field | bigint): number {
  const big = typeof value === 'bigint' ? value : toBig(value);
  if (big > BigInt(Number.MAX_SAFE_INTEGER)) return Number.MAX_SAFE_INTEGER;
  return big < BigInt(Number.MIN_SAFE_INTEGER) ? Number.MIN_SAFE_INTEGER : Number(big);
}

const elementTypes: ReadonlyMap<number, { readonly dtype: DType; readonly bytes: number }> = new Map([
  [1, { dtype: 'float32', bytes: 4 }],
  [2, { dtype: 'uint8', bytes: 1 }],
  [3, { dtype: 'int8', bytes: 1 }],
  [4, { dtype: 'uint16', bytes: 2 }],
  [5, { dtype: 'int16', bytes: 2 }],
  [6, { dtype: 'int32', bytes: 4 }],
  [7, { dtype: 'int64', bytes: 8 }],
  [9, { dtype: 'bool', bytes: 1 }],
  [10, { dtype: 'float16', bytes: 2 }],
  [11, { dtype: 'float64', bytes: 8 }],
  [12, { dtype: 'uint32', bytes: 4 }],
  [16, { dtype: 'bfloat16', bytes: 2 }],
]);

export function elementType(code: number, what: string): DType {
  const type = elementTypes.get(code);
  if (type !== undefined) return type.dtype;
  return refuse({
    code: 'F103',
    message: `${what} has element type ${code}, expected float, integer up to int64 or bool`,
    help: 'export the model in float32',
  });
}

function float16ToNumber(bits: number): number {
  const sign = (bits & 0x8000) === 0 ? 1 : -1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

function bfloat16ToNumber(bits: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, bits << 16);
  return view.getFloat32(0);
}

function half(dtype: DType, bits: number): number {
  return dtype === 'float16' ? float16ToNumber(bits) : bfloat16ToNumber(bits);
}

/** Little-endian bytes to the container of the type. */
function fromBytes(dtype: DType, bytes: Uint8Array, count: number): Data {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  // Not bytes.slice(): that of a Node Buffer is a view into its pool.
  const copy = () => new Uint8Array(bytes).buffer;
  switch (dtype) {
    case 'float32':
      return new Float32Array(copy());
    case 'float64':
      return new Float64Array(copy());
    case 'int64':
      return new BigInt64Array(copy());
    case 'int32':
      return new Int32Array(copy());
    case 'uint8':
      return Int32Array.from(bytes);
    case 'bool':
      return Uint8Array.from(bytes, (byte) => (byte === 0 ? 0 : 1));
    case 'int8':
      return Int32Array.from({ length: count }, (_, i) => view.getInt8(i));
    case 'int16':
      return Int32Array.from({ length: count }, (_, i) => view.getInt16(2 * i, true));
    case 'uint16':
      return Int32Array.from({ length: count }, (_, i) => view.getUint16(2 * i, true));
    case 'uint32':
      return BigInt64Array.from({ length: count }, (_, i) => BigInt(view.getUint32(4 * i, true)));
    case 'float16':
    case 'bfloat16':
      return Float32Array.from({ length: count }, (_, i) => half(dtype, view.getUint16(2 * i, true)));
    default:
      return dtype satisfies never;
  }
}

/** The typed fields of TensorProto, used when raw_data is absent. */
function fromFields(dtype: DType, proto: onnx.ITensorProto): Data {
  const int32 = proto.int32Data ?? [];
  switch (dtype) {
    case 'float32':
      return Float32Array.from(proto.floatData ?? []);
    case 'float64':
      return Float64Array.from(proto.doubleData ?? []);
    case 'int64':
      return BigInt64Array.from((proto.int64Data ?? []) as Int64Field[], toBig);
    case 'uint32':
      return BigInt64Array.from((proto.uint64Data ?? []) as Int64Field[], toBig);
    case 'float16':
    case 'bfloat16':
      return Float32Array.from(int32, (bits) => half(dtype, bits & 0xffff));
    case 'bool':
      return Uint8Array.from(int32, (value) => (value === 0 ? 0 : 1));
    case 'int8':
    case 'uint8':
    case 'int16':
    case 'uint16':
    case 'int32':
      return Int32Array.from(int32);
    default:
      return dtype satisfies never;
  }
}

function externalBytes(
  proto: onnx.ITensorProto,
  what: string,
  byteCount: number,
  read: ExternalReader,
): Uint8Array {
  const entries = new Map((proto.externalData ?? []).map((entry) => [entry.key ?? '', entry.value ?? '']));
  const location = entries.get('location') ?? '';
  const number = (key: string, fallback: number) => {
    const text = entries.get(key);
    if (text === undefined || text === '') return fallback;
    const value = /^\d{1,15}$/.test(text) ? Number(text) : NaN;
    if (Number.isNaN(value)) refuse({ code: 'F105', message: `${what} has external ${key} "${text}"` });
    return value;
  };
  const length = number('length', byteCount);
  if (length !== byteCount) {
    refuse({ code: 'F104', message: `${what} needs ${byteCount} bytes but its external data has ${length}` });
  }
  return read(location, number('offset', 0), byteCount, what);
}

export function decodeTensor(proto: onnx.ITensorProto, what: string, read: ExternalReader): Tensor {
  const dtype = elementType(proto.dataType ?? 0, what);
  const shape = ((proto.dims ?? []) as Int64Field[]).map(toNumber);
  if (shape.length > 16 || shape.some((size) => size < 0)) {
    refuse({ code: 'F104', message: `${what} has shape [${shape.join(', ')}]` });
  }
  const count = elementCount(shape);
  if (count > maxElements) {
    refuse({ code: 'F102', message: `${what} has ${count} elements, more than ${maxElements}` });
  }
  const byteCount = count * defined(elementTypes.get(proto.dataType ?? 0), 'element type').bytes;
  if (proto.dataLocation === 1) {
    return { dtype, shape, data: fromBytes(dtype, externalBytes(proto, what, byteCount, read), count) };
  }
  const raw = proto.rawData;
  if (raw !== null && raw !== undefined && raw.length > 0) {
    if (raw.length !== byteCount) {
      refuse({ code: 'F104', message: `${what} needs ${byteCount} bytes but has ${raw.length}` });
    }
    return { dtype, shape, data: fromBytes(dtype, raw, count) };
  }
  const data = fromFields(dtype, proto);
  if (data.length !== count) {
    refuse({ code: 'F104', message: `${what} needs ${count} elements but has ${data.length}` });
  }
  return { dtype, shape, data };
}

const utf8 = new TextDecoder();

export function decodeAttribute(proto: onnx.IAttributeProto, node: string, read: ExternalReader): Attribute {
  const name = proto.name ?? '';
  if ((proto.refAttrName ?? '') !== '') {
    refuse({ code: 'F111', message: `attribute ${name} refers to a function's attribute`, node });
  }
  switch (proto.type) {
    case 1:
      return proto.f ?? 0;
    case 2:
      return toNumber((proto.i ?? 0) as Int64Field);
    case 3:
      return utf8.decode(proto.s ?? new Uint8Array());
    case 4:
      return decodeTensor(proto.t ?? {}, `attribute ${name} of node "${node}"`, read);
    case 6:
      return proto.floats ?? [];
    case 7:
      return ((proto.ints ?? []) as Int64Field[]).map(toNumber);
    case 8:
      return (proto.strings ?? []).map((text) => utf8.decode(text));
    case 5:
    case 10:
      return refuse({
        code: 'F111',
        message: `attribute ${name} holds a subgraph`,
        node,
        help: 'export without control flow (If, Loop, Scan)',
      });
    default:
      return refuse({
        code: 'F107',
        message: `attribute ${name} has unknown type ${String(proto.type)}`,
        node,
      });
  }
}
