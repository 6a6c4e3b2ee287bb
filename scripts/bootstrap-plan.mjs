// A plan that bootstraps one complex ciphertext and does nothing else, with its keys: what benchmarks run.
import { stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { lowerToPlan } from '../dist/backend/index.js';
import { compilerVersion } from '../dist/compile.js';
import { keygen } from '../dist/executor/index.js';
import { BlockBuilder, Ids } from '../dist/ir/builder.js';
import { canonicalScale } from '../dist/ir/scale.js';
import { assertVerified } from '../dist/ir/verifier.js';
import { expandBootstrap } from '../dist/passes/expand-bootstrap.js';
import { lazyModDown } from '../dist/passes/lazy-mod-down.js';
import { mergeDuplicates } from '../dist/passes/merge-duplicates.js';
import {
  arcsineLevels,
  defaultLiteral,
  defaultUsableLevels,
  evalModLevels,
  makeParameters,
} from '../dist/target/parameters.js';

/** `levels` usable ones, above the three of SlotsToCoeffs: 9 make a chain of 24 limbs, 1 + 9 + 3 + 8 + 3. */
export function bootstrapParameters({ ring = 'secure', levels = defaultUsableLevels, arcsine = false } = {}) {
  return makeParameters(
    defaultLiteral(ring, ring !== 'secure', {
      usableLevels: levels,
      evalModLevels: evalModLevels + (arcsine ? arcsineLevels : 0),
    }),
  );
}

/** Writes plan.aegis and its keys; `hooks`: `threads` and `signal` of keygen. The input `x` has the real parts of all slots, then the imaginary ones. */
export async function makeBootstrap(folder, parameters, hooks) {
  const module = mergeDuplicates(lazyModDown(expandBootstrap(bootstrapModule(parameters))));
  assertVerified(module, 'bench');
  const { plan, weights, summary } = lowerToPlan(module, { compilerVersion });
  const path = join(folder, 'plan.aegis');
  await writeFile(path, plan);
  await writeFile(`${path}.weights`, weights);
  const start = performance.now();
  await keygen({ plan: path, directory: folder, ...hooks });
  return {
    plan: path,
    keygenSeconds: (performance.now() - start) / 1000,
    evalKeysBytes: (await stat(join(folder, 'eval.keys'))).size,
    keyBytes: summary.keyBytes,
  };
}

function bootstrapModule(parameters) {
  const { slots } = parameters;
  const level = parameters.bootstrapInputLevel;
  const type = {
    kind: 'ct',
    axes: [{ name: 'part', size: 2 }],
    degree: 1,
    basis: { kind: 'q' },
    level,
    scale: canonicalScale(level),
  };
  const builder = new BlockBuilder(new Ids(), parameters, [type]);
  const result = builder.op('ct.bootstrap', [builder.args[0]], { rangeLog2: 0 }, 'bootstrap');
  const map = {
    period: slots,
    features: Int32Array.from({ length: 2 * slots }, (_, i) => i),
    tokens: Int32Array.of(0),
  };
  const port = { shape: [2, slots], slots: map, factor: 1 };
  return {
    phase: 'cipher',
    name: 'bootstrap',
    sourceHash: '0'.repeat(64),
    parameters,
    functions: [{ name: 'main', body: builder.finish([result]) }],
    constants: new Map(),
    tables: new Map(),
    inputs: [{ name: 'x', ...port }],
    outputs: [{ name: 'y', ...port }],
  };
}
