import { lowerWithin, place, type PlacementOptions } from '../../compile/place.js';
import type { LoweredPlan } from '../../backend/index.js';
import type { Module } from '../../ir/module.js';
import { AegisError } from '../../support/diagnostics.js';
import {
  checkPlacementOptions,
  defineCommand,
  outputOption,
  placementOf,
  placementOptions,
} from '../command.js';
import { readCipher } from '../engine.js';
import { checkInputs, checkOutputs, writeTogether } from '../files.js';
import { formatBytes, insecureNotice } from '../format.js';

export const lowerCommand = defineCommand({
  command: 'lower <cipher>',
  describe: 'lower a cipher module to a plan for some devices; ciphertexts stay the same bit for bit',
  positionals: { cipher: { type: 'string', demandOption: true, describe: 'cipher module of compile' } },
  options: {
    output: { ...outputOption, describe: 'plan to write; PLAN.weights goes beside it' },
    ...placementOptions,
  },
  examples: [
    ['aegis lower model.aegis.cipher -o model4.aegis --devices 4', 'the same computation on four devices'],
  ],
  check: checkPlacementOptions,
  run: async (args, context) => {
    await checkInputs([args.cipher]);
    await checkOutputs([args.output, `${args.output}.weights`]);
    const cipher = await readCipher(args.cipher);
    const { summary, plan, weights } = await context.progress.during('lower', async (task) => {
      task.update(0, 'co-place');
      await new Promise((resolve) => setImmediate(resolve));
      return lowerModule(cipher, placementOf(args));
    });
    await writeTogether([
      { path: `${args.output}.weights`, content: weights },
      { path: args.output, content: plan },
    ]);
    if (context.json) return void context.out.write(`${JSON.stringify({ ...summary, passes: [] })}\n`);
    context.out.write(
      `${args.output}: ${args.devices} devices, ${args.strategy}, ${formatBytes(summary.planBytes)}, `
        + `at most ${formatBytes(summary.peakBytes)} on a device\n`,
    );
    if (summary.insecure) context.out.write(`${insecureNotice(context.style)}\n`);
  },
});

function lowerModule(cipher: Module, options: PlacementOptions): LoweredPlan {
  if (cipher.phase !== 'cipher') {
    throw new AegisError({
      code: 'C113',
      message: `lower takes a cipher module, not one of phase ${cipher.phase}`,
      help: 'give PLAN.cipher, or what compile --emit-cipher wrote',
    });
  }
  return lowerWithin(place(cipher, options), options);
}
