/**
 * The compiler in one readable list: every pass from the `tensor` phase to the final `cipher` module, with
 * its reason.
 */
import { assertVerified } from '../ir/verifier.js';
import { walkOps, type Module } from '../ir/module.js';
import type { Phase } from '../ir/types.js';
import { defined } from '../support/invariant.js';
import type { Parameters } from '../target/parameters.js';
import type { DeviceProfile } from '../target/profile.js';
import { addWitnesses } from './add-witnesses.js';
import { dropLevelsWhereCheaper } from './drop-levels.js';
import { expandBootstrap } from './expand-bootstrap.js';
import { expandPolynomial } from './expand-polynomial.js';
import { lazyModDown } from './lazy-mod-down.js';
import { measureBounds } from './measure-bounds.js';
import { mergeDuplicates } from './merge-duplicates.js';
import { nodeRanges, valueRanges } from './calibrate.js';
import { defaultOutline, outlineLayers } from './outline-layers.js';
import { defaultPackOptions, savesKeys, type PackOptions } from './pack/context.js';
import { packModule } from './pack/index.js';
import { pricesFor } from './plan-levels/price.js';
import { planLevels, type LevelReport, type ValueBounds } from './plan-levels.js';
import type { Ranges } from './ranges.js';
import { unifyRanges } from './unify-ranges.js';

export interface PassContext {
  readonly parameters: Parameters;
  readonly ranges: Ranges;
  readonly pack: PackOptions;
  /** Isomorphic layers from which on they are compiled once; 0 for never. */
  readonly outline?: number | undefined;
  /** The device that levels are planned for. */
  readonly profile?: DeviceProfile | undefined;
  /** Seconds, for reports. */
  readonly now?: (() => number) | undefined;
  readonly onLevels?: ((report: LevelReport) => void) | undefined;
  /** The prime chain for a packed module; its own unless given. */
  readonly chain?: ((module: Module, bounds: ValueBounds) => Parameters) | undefined;
  /** Arguments of polynomials are outputs too. */
  readonly witnesses?: boolean | undefined;
}

export interface Pass {
  readonly name: string;
  readonly summary: string;
  readonly from: Phase;
  readonly to: Phase;
  readonly run: (module: Module, context: PassContext) => Module;
}

/** Every rotation step of a packed module. */
export function rotationSteps(module: Module): number[] {
  const steps = new Set<number>();
  for (const { body } of module.functions) {
    walkOps(body, (op) => {
      for (const step of (op.attrs.steps ?? []) as readonly number[]) steps.add(step);
    });
  }
  return [...steps];
}

export const cipherPipeline: readonly Pass[] = [
  {
    name: 'pack',
    from: 'tensor',
    to: 'cipher',
    summary: 'feature-fast layouts, attention over key offsets, approximations on calibrated intervals',
    run: (module, { parameters, ranges, pack, outline = defaultOutline }) => {
      const measured = { nodes: nodeRanges(ranges), values: valueRanges(ranges) };
      const { nodes, values } = outline === 0 ? measured : unifyRanges(module, measured, outline);
      const packed = packModule(module, parameters, nodes, pack, values);
      // The first layer pays for its keys, the others find them there: once more, with all keys at hand.
      if (nodes === measured.nodes) return packed;
      return packModule(module, parameters, nodes, { ...pack, steps: rotationSteps(packed) }, values);
    },
  },
  {
    name: 'merge-duplicates',
    from: 'cipher',
    to: 'cipher',
    summary: 'Q, K and V read the same rotations of the hidden state',
    run: (module) => mergeDuplicates(module),
  },
  {
    name: 'outline-layers',
    from: 'cipher',
    to: 'cipher',
    summary: 'isomorphic layers become calls of one function, so that what follows sees one layer',
    run: (module, { outline = defaultOutline }) => (outline === 0 ? module : outlineLayers(module, outline)),
  },
  {
    name: 'plan-levels',
    from: 'cipher',
    to: 'cipher',
    summary: 'the prime chain, the level of every value and where to bootstrap, at the least predicted time',
    run: (module, { ranges, profile, now, onLevels, chain }) => {
      const bounds = measureBounds(module, ranges);
      const parameters = chain?.(module, bounds) ?? module.parameters;
      return planLevels({ ...module, parameters }, bounds, { profile, now, onReport: onLevels });
    },
  },
  {
    name: 'add-witnesses',
    from: 'cipher',
    to: 'cipher',
    summary:
      'on request, arguments of polynomials become outputs, so that the client sees what left its range',
    run: (module, { witnesses = false }) => (witnesses ? addWitnesses(module) : module),
  },
  {
    name: 'expand-polynomial',
    from: 'cipher',
    to: 'cipher',
    summary:
      'Chebyshev series become products, by Paterson-Stockmeyer at optimal depth; levels are known now',
    run: (module) => expandPolynomial(module),
  },
  {
    name: 'expand-bootstrap',
    from: 'cipher',
    to: 'cipher',
    summary: 'bootstraps become calls of functions: SlotsToCoeffs, ModRaise, CoeffsToSlots, EvalMod',
    // A bootstrap is called about ten times: its keys serve more rotations than others.
    run: (module, { pack }) => expandBootstrap(module, { keyCost: savesKeys(pack) ? pack.newKey / 10 : 0 }),
  },
  {
    name: 'drop-levels',
    from: 'cipher',
    to: 'cipher',
    summary:
      'where it is cheaper, values are made at the lowest level that their users take, not adjusted in loops',
    run: (module, { profile }) =>
      dropLevelsWhereCheaper(module, pricesFor(defined(module.parameters, 'parameters'), profile)),
  },
  {
    name: 'lazy-mod-down',
    from: 'cipher',
    to: 'cipher',
    summary: 'rotations that are only summed keep their special primes until the sum',
    run: (module) => lazyModDown(module),
  },
  {
    name: 'merge-duplicates',
    from: 'cipher',
    to: 'cipher',
    summary: 'equal adjustments and constants of the expansions become one',
    run: (module) => mergeDuplicates(module),
  },
];

export const defaultPack = defaultPackOptions;

export interface PassReport {
  readonly name: string;
  readonly seconds: number;
}

/** Runs the pipeline; the verifier runs after every pass, always. `onPass` sees each module. */
export function runPipeline(
  module: Module,
  context: PassContext,
  now: () => number,
  onPass: (pass: Pass, result: Module, index: number) => void,
): { module: Module; reports: PassReport[] } {
  const reports: PassReport[] = [];
  let current = module;
  cipherPipeline.forEach((pass, index) => {
    const start = now();
    current = pass.run(current, context);
    assertVerified(current, pass.name);
    reports.push({ name: pass.name, seconds: now() - start });
    onPass(pass, current, index);
  });
  return { module: current, reports };
}
