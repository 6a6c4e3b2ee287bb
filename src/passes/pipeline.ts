/**
 * The compiler in one readable list: every pass from the `tensor` phase to the final `cipher` module, with
 * its reason.
 */
import { assertVerified } from '../ir/verifier.js';
import type { Module } from '../ir/module.js';
import type { Phase } from '../ir/types.js';
import type { Parameters } from '../target/parameters.js';
import { expandBootstrap } from './expand-bootstrap.js';
import { expandPolynomial } from './expand-polynomial.js';
import { lazyModDown } from './lazy-mod-down.js';
import { measureBounds } from './measure-bounds.js';
import { mergeDuplicates } from './merge-duplicates.js';
import { nodeRanges } from './calibrate.js';
import { defaultPackOptions, type PackOptions } from './pack/context.js';
import { packModule } from './pack/index.js';
import { planLevels } from './plan-levels.js';
import type { Ranges } from './ranges.js';

export interface PassContext {
  readonly parameters: Parameters;
  readonly ranges: Ranges;
  readonly pack: PackOptions;
}

export interface Pass {
  readonly name: string;
  readonly summary: string;
  readonly from: Phase;
  readonly to: Phase;
  readonly run: (module: Module, context: PassContext) => Module;
}

export const cipherPipeline: readonly Pass[] = [
  {
    name: 'pack',
    from: 'tensor',
    to: 'cipher',
    summary: 'feature-fast layouts, attention over key offsets, approximations on calibrated intervals',
    run: (module, { parameters, ranges, pack }) => packModule(module, parameters, nodeRanges(ranges), pack),
  },
  {
    name: 'merge-duplicates',
    from: 'cipher',
    to: 'cipher',
    summary: 'Q, K and V read the same rotations of the hidden state',
    run: (module) => mergeDuplicates(module),
  },
  {
    name: 'plan-levels',
    from: 'cipher',
    to: 'cipher',
    summary: 'the level of every value and where to bootstrap',
    run: (module, { ranges }) => planLevels(module, measureBounds(module, ranges)),
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
    run: (module) => expandBootstrap(module),
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
