/** Arrays and windows of the poly phase, as its op declarations share them. */
import type { Attrs } from '../module.js';
import { canonical, onAxis, shardingProblem, windowShardingProblem } from '../sharding.js';
import { axisSize, type Axis, type PolyType, type Sharding, type Type } from '../types.js';

export interface Window {
  readonly axes?: Readonly<Record<string, readonly [start: number, size: number]>>;
  readonly limbs?: readonly number[];
}

export function isPoly(type: Type | undefined): type is PolyType {
  return type?.kind === 'poly';
}

/** What a window of `type` looks like by itself. */
export function windowType(type: PolyType, window: Window): PolyType | string {
  for (const [name, [start, size]] of Object.entries(window.axes ?? {})) {
    const full = axisSize(type.axes, name);
    if (full === undefined) return `window restricts axis ${name}, which the array lacks`;
    if (start < 0 || size < 1 || start + size > full) {
      return `window ${start}+${size} leaves axis ${name} of size ${full}`;
    }
  }
  const missing = window.limbs?.find((limb) => !type.limbs.includes(limb));
  if (missing !== undefined) return `window names limb ${missing}, which the array lacks`;
  return {
    ...type,
    axes: type.axes.map((axis) => ({ ...axis, size: window.axes?.[axis.name]?.[1] ?? axis.size })),
    limbs: window.limbs ?? type.limbs,
  };
}

/** Checks that `produced` fits the window of `into`; the result is `into`. */
export function inserted(into: Type, produced: PolyType, attrs: Attrs): PolyType | string {
  if (!isPoly(into)) return 'operand into must be a polynomial array';
  const window = (attrs.window ?? {}) as Window;
  for (let m = 0; m < Math.max(into.sharding.length, produced.sharding.length); m++) {
    const problem = windowShardingProblem(
      onAxis(into.sharding, m),
      onAxis(produced.sharding, m),
      produced,
      window,
      attrs.accumulate === true,
    );
    if (problem !== undefined) return problem;
  }
  const target = windowType(into, window);
  if (typeof target === 'string') return target;
  if (target.limbs.join() !== produced.limbs.join()) {
    return `window has limbs [${target.limbs.join()}] but the result has [${produced.limbs.join()}]`;
  }
  if (target.form !== produced.form) {
    return `into has form ${target.form} but the result has ${produced.form}`;
  }
  for (const axis of produced.axes) {
    const size = axisSize(target.axes, axis.name);
    if (size !== axis.size) {
      return `axis ${axis.name} has size ${axis.size} but the window has ${String(size)}`;
    }
  }
  return into;
}

export function resharded(a: PolyType, sharding: readonly Sharding[]): PolyType | string {
  const problem = sharding.map((one) => shardingProblem(a, one)).find((text) => text !== undefined);
  return problem ?? { ...a, sharding: canonical(sharding) };
}

export const windowAttrs = {
  window: { kind: 'json', optional: true, doc: 'part of `into` that is written: {axes, limbs}' },
} as const;
export const shapeAttrs = {
  axes: { kind: 'axes', doc: 'array axes, slowest first' },
  limbs: { kind: 'ints', doc: 'prime indices' },
  form: { kind: 'string', doc: '`ntt` or `coeff`' },
} as const;

export function shape(attrs: Attrs): PolyType {
  return {
    kind: 'poly',
    axes: attrs.axes as unknown as readonly Axis[],
    limbs: attrs.limbs as readonly number[],
    form: attrs.form as PolyType['form'],
    sharding: [],
  };
}
