/** From a cipher module built in a test to decrypted slots, by way of the plan's bytes. */
import { expect } from 'vitest';
import type { Placement } from '../../src/ir/placement.js';
import { lowerToPlan, readPlan, type LoweredPlan } from '../../src/backend/index.js';
import type { PlanView } from '../../src/backend/plan-view.js';
import { BlockBuilder, Ids } from '../../src/ir/builder.js';
import type { Constant, Func, Module, Port, Value } from '../../src/ir/module.js';
import { canonicalScale, type Scale } from '../../src/ir/scale.js';
import { axesCount, qBasis, type Axis, type CtType, type PtType, type Type } from '../../src/ir/types.js';
import { assertVerified } from '../../src/ir/verifier.js';
import type { DeviceProfile } from '../../src/target/profile.js';
import { defaultLiteral, makeParameters, type Parameters } from '../../src/target/parameters.js';
import { placementsOf } from './placements.js';
import { PlanRunner, type Slots, type Weights } from './run-plan.js';
import { Random, type Complex, type Row } from './toy-ckks.js';

/** Eight chain primes, N = 32; classes with one, two and three digits. */
export const toyParameters: Parameters = makeParameters(
  defaultLiteral('tiny', true, {
    logN: 5,
    usableLevels: 4,
    stcLevels: 1,
    evalModLevels: 1,
    ctsLevels: 1,
    specials: 3,
  }),
);
export const slotCount = toyParameters.slots;

export function ct(axes: readonly Axis[], level: number, scale: Scale = canonicalScale(level)): CtType {
  return { kind: 'ct', axes, degree: 1, basis: qBasis, level, scale };
}

export const axis = (name: string, size: number): Axis => ({ name, size });

/** Identity maps: element e, slot u holds flat index e * slots + u. */
export function port(name: string, type: CtType): Port {
  const elements = axesCount(type.axes);
  const features = Int32Array.from({ length: elements * slotCount }, (_, i) => i);
  return {
    name,
    shape: [elements, slotCount],
    slots: { period: slotCount, features, tokens: Int32Array.of(0) },
    factor: 1,
  };
}

export interface Source {
  readonly inputs: readonly CtType[];
  readonly body: (b: BlockBuilder, args: readonly Value[]) => readonly Value[];
  readonly constants?: Readonly<Record<string, Constant>>;
  readonly tables?: Readonly<Record<string, Int32Array>>;
  /** Functions besides main, by name. */
  readonly functions?: readonly FunctionSource[];
}

export interface FunctionSource {
  readonly name: string;
  readonly args: readonly (CtType | PtType)[];
  readonly body: Source['body'];
  readonly models?: Func['models'];
}

export function buildModule(source: Source, parameters = toyParameters): Module {
  const ids = new Ids();
  const build = (
    name: string,
    args: readonly Type[],
    body: Source['body'],
    models?: Func['models'],
  ): Func => {
    const builder = new BlockBuilder(ids, parameters, args);
    const block = builder.finish(body(builder, builder.args));
    return models === undefined ? { name, body: block } : { name, body: block, models };
  };
  const main = build('main', source.inputs, source.body);
  const others = (source.functions ?? []).map((f) => build(f.name, f.args, f.body, f.models));
  const module: Module = {
    phase: 'cipher',
    name: 'oracle',
    sourceHash: '0'.repeat(64),
    parameters,
    functions: [main, ...others],
    constants: new Map(Object.entries(source.constants ?? {})),
    tables: new Map(Object.entries(source.tables ?? {})),
    inputs: source.inputs.map((type, i) => port(`x${i}`, type)),
    outputs: main.body.results.map((value, i) => port(`y${i}`, value.type as CtType)),
  };
  assertVerified(module, 'test');
  return module;
}

export interface OracleRun {
  readonly lowered: LoweredPlan;
  readonly plan: PlanView;
  readonly runner: PlanRunner;
  /** Inputs as slots [input][element]. */
  readonly inputs: readonly (readonly Slots[])[];
  /** Rows [component][limb] of an element of an output. */
  readonly rows: (output: number, element: number) => Row[][];
  /** Decrypted outputs [output][element]. */
  readonly outputs: readonly (readonly Slots[])[];
}

export function lower(module: Module, placement?: Placement, profile?: DeviceProfile): LoweredPlan {
  return lowerToPlan(module, {
    compilerVersion: 'test',
    ...(placement === undefined ? {} : { placement }),
    ...(profile === undefined ? {} : { profile }),
  });
}

/** Links so slow that communication is worth hiding on rows of this size. */
export const slowLinks: DeviceProfile = {
  format: 1,
  name: 'slow links',
  provenance: {},
  memoryBytes: 2 ** 30,
  memoryBandwidth: 1e9,
  modularRate: 1e8,
  efficiency: 1,
  launchSeconds: 1e-7,
  link: { bandwidth: 2e8, latencySeconds: 1e-7, background: true },
  measured: null,
};

/** The same module on several ranks gives the same rows, with communication overlapped or not. */
function checkPlacements(module: Module, weights: Weights, encrypted: Row[][], expected: Row[][]): void {
  for (const placement of placementsOf(module)) {
    for (const profile of [undefined, slowLinks]) {
      const lowered = lower(module, placement, profile);
      const plan = readPlan(lowered.plan);
      const rows = new PlanRunner(plan, weights).run(encrypted);
      const overlap = profile === undefined ? '' : ', overlapped';
      const ranks = `${placement.strategy} on ${plan.programs.length} ranks${overlap}`;
      rows.forEach((output, o) =>
        output.forEach((row, i) => expect(row, `${ranks}: output ${o}, row ${i}`).toEqual(expected[o]![i])),
      );
      if (lowered.overlap !== undefined) {
        const { exposedBefore, exposedAfter } = lowered.overlap;
        expect(exposedAfter).toBeLessThanOrEqual(exposedBefore);
      }
    }
  }
}

/** Lowers, writes, reads back and runs a module on random inputs in [-1, 1]^2, or real ones. */
export function runOracle(
  source: Source,
  options: { real?: boolean; parameters?: Parameters } = {},
): OracleRun {
  const module = buildModule(source, options.parameters);
  const lowered = lower(module);
  const plan = readPlan(lowered.plan);
  const weights: Weights = Object.fromEntries(module.constants);
  const runner = new PlanRunner(plan, weights);
  const random = new Random(99);
  const part = (): number => random.below(2001) / 1000 - 1;
  const inputs = plan.inputs.map(({ elements }) =>
    Array.from({ length: elements }, () =>
      Array.from(
        { length: plan.parameters.primes.length === 0 ? 0 : 2 ** (plan.parameters.logN - 1) },
        (): Complex => ({ re: part(), im: options.real === true ? 0 : part() }),
      ),
    ),
  );
  const encrypted = inputs.map((elements, i) => {
    const { level, scale } = plan.inputs[i]!;
    return elements.flatMap((slots) =>
      runner.scheme.encrypt(runner.scheme.ring.encode(slots, scale), level).flat(),
    );
  });
  const results = runner.run(encrypted);
  checkPlacements(module, weights, encrypted, results);
  const rows = (output: number, element: number): Row[][] => {
    const limbs = plan.outputs[output]!.level + 1;
    const start = element * 2 * limbs;
    return [0, 1].map((c) => results[output]!.slice(start + c * limbs, start + (c + 1) * limbs));
  };
  const outputs = plan.outputs.map(({ elements, scale }, i) =>
    Array.from({ length: elements }, (_, e) =>
      runner.scheme.ring.decode(runner.scheme.decrypt(rows(i, e)), scale),
    ),
  );
  return { lowered, plan, runner, inputs, rows, outputs };
}

/** Largest distance of two slot vectors. */
export function distance(a: Slots, b: Slots): number {
  return Math.max(...a.map((z, i) => Math.hypot(z.re - b[i]!.re, z.im - b[i]!.im)));
}

export function rotated(slots: Slots, step: number): Slots {
  const n = slots.length;
  return slots.map((_, i) => slots[(((i + step) % n) + n) % n]!);
}

export const times = (a: Slots, b: Slots): Slots =>
  a.map((x, i) => ({ re: x.re * b[i]!.re - x.im * b[i]!.im, im: x.re * b[i]!.im + x.im * b[i]!.re }));
export const plus = (...all: readonly Slots[]): Slots =>
  all.reduce((a, b) => a.map((x, i) => ({ re: x.re + b[i]!.re, im: x.im + b[i]!.im })));
export const scaled = (a: Slots, factor: number): Slots =>
  a.map((x) => ({ re: x.re * factor, im: x.im * factor }));
