/**
 * Materialises plaintext recipes (ops/plain.ts) as slot vectors of one period per array element. Elements are
 * made on demand and kept: a weight matrix of a large layer has some hundred thousand diagonals and a reader
 * may want few.
 */
import { defined, invariant } from '../../support/invariant.js';
import type { Module, Op } from '../module.js';
import { axesCount, type Axis } from '../types.js';
import { slotTransformDiagonals, type ComplexVector } from './dft.js';

export interface PlainArray {
  readonly kind: 'pt';
  readonly axes: readonly Axis[];
  readonly period: number;
  readonly complex: boolean;
  /** Real parts of element e (row-major over the axes), one period. Never written to. */
  re(element: number): Float64Array;
  /** Imaginary parts; undefined where the recipe is real. */
  im(element: number): Float64Array | undefined;
}

/** The module's part that recipes read. */
export type RecipeSource = Pick<Module, 'constants' | 'tables' | 'parameters'>;

/**
 * Slot vectors of a `pt.*` op, in an iteration of the innermost loop around it. The op must have passed the
 * verifier.
 */
export function materialise(op: Op, module: RecipeSource, iteration = 0): PlainArray {
  const axes = op.attrs.axes as unknown as readonly Axis[];
  switch (op.kind) {
    case 'pt.constant':
      return lazyArray(axes, 1, constantElement(op));
    case 'pt.vector':
      return vectorArray(op, module, axes, iteration);
    case 'pt.diagonals':
      return lazyArray(axes, op.attrs.period as number, diagonalElement(op, module));
    case 'pt.dft':
      return dftArray(op, module, axes);
    default:
      invariant(false, `${op.kind} is not a plaintext recipe`);
  }
}

function lazyArray(
  axes: readonly Axis[],
  period: number,
  make: (element: number) => Float64Array,
): PlainArray {
  const known = new Array<Float64Array | undefined>(axesCount(axes));
  const re = (element: number): Float64Array => (known[element] ??= make(element));
  return { kind: 'pt', axes, period, complex: false, re, im: () => undefined };
}

function constantElement(op: Op): (element: number) => Float64Array {
  const values = op.attrs.values as readonly number[];
  return (element) => Float64Array.of(defined(values[element], 'value of pt.constant'));
}

function vectorArray(op: Op, module: RecipeSource, axes: readonly Axis[], iteration: number): PlainArray {
  const period = op.attrs.period as number;
  const factor = op.attrs.factor as number;
  const { data } = named(module.constants, op.attrs.constant);
  const all = named(module.tables, op.attrs.features);
  const own = period * axesCount(axes);
  const features = op.attrs.iterations === undefined ? all : all.subarray(iteration * own);
  const tokens = op.attrs.tokens === undefined ? undefined : named(module.tables, op.attrs.tokens);
  const groups = tokens === undefined ? 1 : defined(module.parameters, 'parameters').slots / period;
  const blocks = (tokens?.length ?? 1) / groups;
  return lazyArray(axes, period * groups, (element) => {
    const out = new Float64Array(period * groups);
    const first = Math.floor((element * blocks) / axesCount(axes)) * groups;
    for (let t = 0; t < groups; t++) {
      const token = tokens?.[first + t] ?? 0;
      if (token < 0) continue;
      for (let u = 0; u < period; u++) {
        const feature = features[element * period + u] as number;
        if (feature >= 0) out[u + period * t] = factor * (data[feature + token] as number);
      }
    }
    return out;
  });
}

/**
 * Axes (out..., giant, in..., baby) are one row-major index over four counts; axes of size 1 do not matter.
 */
function diagonalElement(op: Op, module: RecipeSource): (element: number) => Float64Array {
  const period = op.attrs.period as number;
  const factor = op.attrs.factor as number;
  const baby = op.attrs.baby as readonly number[];
  const giant = op.attrs.giant as readonly number[];
  const { data, shape } = named(module.constants, op.attrs.weight);
  const rows = named(module.tables, op.attrs.rows);
  const columns = named(module.tables, op.attrs.columns);
  const inCount = columns.length / period;
  const width = defined(shape[1], 'columns of the weight');
  return (element) => {
    const babyStep = defined(baby[element % baby.length], 'baby step');
    let rest = Math.floor(element / baby.length);
    const inElement = rest % inCount;
    rest = Math.floor(rest / inCount);
    const giantStep = defined(giant[rest % giant.length], 'giant step');
    const outElement = Math.floor(rest / giant.length);
    const out = new Float64Array(period);
    for (let u = 0; u < period; u++) {
      const from = u + giantStep + babyStep;
      if (from < 0 || from >= period) continue;
      const row = rows[outElement * period + u] as number;
      const column = columns[inElement * period + from] as number;
      if (row < 0 || column < 0) continue;
      out[wrap(u + giantStep, period)] = factor * (data[row * width + column] as number);
    }
    return out;
  };
}

/**
 * Element (G, b) holds diagonal G + b (mod N/2) rotated right by G: at position p the diagonal's entry p - G.
 */
function dftArray(op: Op, module: RecipeSource, axes: readonly Axis[]): PlainArray {
  const slots = defined(module.parameters, 'parameters of a module with pt.dft').slots;
  const baby = op.attrs.baby as readonly number[];
  const giant = op.attrs.giant as readonly number[];
  let diagonals: Map<number, ComplexVector> | undefined;
  const known = new Array<ComplexVector | undefined>(giant.length * baby.length);
  const zero: ComplexVector = { re: new Float64Array(slots), im: new Float64Array(slots) };
  const element = (index: number): ComplexVector => {
    const ready = known[index];
    if (ready !== undefined) return ready;
    diagonals ??= slotTransformDiagonals({
      slots,
      inverse: op.attrs.inverse as boolean,
      first: op.attrs.first as number,
      count: op.attrs.count as number,
    });
    const giantStep = defined(giant[Math.floor(index / baby.length)], 'giant step');
    const babyStep = defined(baby[index % baby.length], 'baby step');
    const diagonal = diagonals.get(wrap(giantStep + babyStep, slots));
    const made = diagonal === undefined ? zero : rotated(diagonal, -giantStep, op.attrs.factor as number);
    known[index] = made;
    return made;
  };
  const [re, im] = [(e: number) => element(e).re, (e: number) => element(e).im];
  return { kind: 'pt', axes, period: slots, complex: true, re, im };
}

function rotated(vector: ComplexVector, step: number, factor: number): ComplexVector {
  const slots = vector.re.length;
  const shift = wrap(step, slots);
  const scaled = (part: Float64Array): Float64Array =>
    part.map((_, s) => factor * (part[(s + shift) % slots] as number));
  return { re: scaled(vector.re), im: scaled(vector.im) };
}

function named<T>(map: ReadonlyMap<string, T>, name: unknown): T {
  return defined(map.get(name as string), `@${String(name)}`);
}

export function wrap(index: number, modulus: number): number {
  return ((index % modulus) + modulus) % modulus;
}
