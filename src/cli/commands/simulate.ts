import { simulate } from '../../backend/simulate.js';
import { AegisError } from '../../support/diagnostics.js';
import { loadProfile } from '../../target/profile.js';
import { defineCommand, kernelSpeedOption, profileOption, checkKernelSpeed } from '../command.js';
import { rowOf } from '../compare-rows.js';
import { loadPlan } from '../engine.js';
import { checkOutputs, writeTogether } from '../files.js';
import { insecureNotice } from '../format.js';
import { simulationText } from '../simulation-text.js';

export const simulateCommand = defineCommand({
  command: 'simulate <plan>',
  describe: 'predict the time of a plan on other devices',
  positionals: { plan: { type: 'string', demandOption: true, describe: 'plan of aegis compile' } },
  options: {
    profile: profileOption,
    reference: {
      type: 'string',
      requiresArg: true,
      describe: 'one-device plan of the same model, for speedup',
    },
    trace: { type: 'string', requiresArg: true, describe: 'write a trace there, for Perfetto or Chrome' },
    'kernel-speed': kernelSpeedOption,
  },
  examples: [
    ['aegis simulate model.aegis --profile a100-40g-nvlink', 'latency, communication and memory'],
    ['aegis simulate model.aegis --profile here.json --trace t.json', 'open t.json in ui.perfetto.dev'],
  ],
  check: checkKernelSpeed,
  run: async (args, context) => {
    if (args.trace !== undefined) await checkOutputs([args.trace]);
    const profile = loadProfile(args.profile);
    const { view } = await loadPlan(args.plan);
    const options = { profile, kernelSpeed: args.kernelSpeed };
    const result = simulate(view, { ...options, trace: args.trace !== undefined });
    const row = rowOf(
      result,
      args.reference === undefined ? undefined : await referenceSeconds(args.reference),
    );
    if (args.trace !== undefined) {
      await writeTogether([{ path: args.trace, content: `${JSON.stringify(result.trace)}\n` }]);
    }
    if (context.json) {
      context.out.write(`${JSON.stringify(row)}\n`);
      return;
    }
    context.out.write(simulationText(args.plan, result, row, profile, context.style));
    if (view.parameters.insecure) context.out.write(`${insecureNotice(context.style)}\n`);

    async function referenceSeconds(path: string): Promise<number> {
      const reference = (await loadPlan(path)).view;
      if (reference.sourceHash !== view.sourceHash || reference.programs.length !== 1) {
        throw new AegisError({
          code: 'C131',
          message: `${path} is not a one-device plan of the model of ${args.plan}`,
          help: 'compile the same model without --devices',
        });
      }
      return simulate(reference, options).latencyS;
    }
  },
});
