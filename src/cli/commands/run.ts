import { availableParallelism } from 'node:os';
import { defineCommand, outputOption } from '../command.js';
import { loadPlan, runPlan } from '../engine.js';
import { checkInputs, checkOutputs } from '../files.js';
import { formatBytes, formatSeconds, insecureNotice } from '../format.js';

export const runCommand = defineCommand({
  command: 'run <plan>',
  describe: 'run a plan on an encrypted request; needs no secret',
  positionals: { plan: { type: 'string', demandOption: true, describe: 'plan of aegis compile' } },
  options: {
    keys: { type: 'string', demandOption: true, requiresArg: true, describe: 'eval.keys' },
    in: { type: 'string', demandOption: true, requiresArg: true, describe: 'request of aegis encrypt' },
    output: { ...outputOption, describe: 'response to write' },
    backend: {
      choices: ['cpu', 'cuda'],
      default: 'cpu',
      describe: 'where the kernels run: here, or on GPUs',
    },
    channel: {
      choices: ['local', 'mpi', 'nccl'],
      default: 'local',
      describe: 'ranks are threads, processes of mpirun, or exchange rows between GPUs',
    },
    threads: { type: 'number', requiresArg: true, describe: 'threads; all cores unless given' },
  },
  examples: [['aegis run model.aegis --keys keys/eval.keys --in request.ct -o response.ct', 'on all cores']],
  check: ({ threads }) =>
    threads === undefined || (Number.isSafeInteger(threads) && threads > 0)
      ? undefined
      : '--threads is not a positive whole number',
  run: async (args, context) => {
    await checkInputs([args.plan, args.keys, args.in]);
    await checkOutputs([args.output]);
    const plan = await loadPlan(args.plan);
    const threads = args.threads ?? availableParallelism();
    const report = await runPlan(
      plan,
      {
        keys: args.keys,
        request: args.in,
        response: args.output,
        threads,
        backend: args.backend,
        channel: args.channel,
      },
      context,
    );
    const { insecure } = plan.view.parameters;
    // Processes of other ranks leave the output to the first one.
    if (!report.root) return;
    if (context.json) {
      const { outputSha256, seconds, ranks, processPeakBytes } = report;
      context.out.write(`${JSON.stringify({ outputSha256, seconds, ranks, processPeakBytes, insecure })}\n`);
      return;
    }
    const peakBytes = Math.max(...report.ranks.map((rank) => rank.peakBytes));
    const where = args.backend === 'cuda' ? 'GPUs' : `${threads} threads`;
    const onRanks = report.ranks.length > 1 ? ` on each of ${report.ranks.length} ranks` : '';
    context.out.write(
      `${args.output}: ${formatSeconds(report.seconds)} on ${where}, `
        + `at most ${formatBytes(peakBytes)}${onRanks}\n`
        + `sha256 ${report.outputSha256}\n`,
    );
    if (insecure) context.out.write(`${insecureNotice(context.style)}\n`);
  },
});
