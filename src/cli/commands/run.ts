import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import type { CheckpointReport } from '../../executor/index.js';
import { defineCommand, outputOption } from '../command.js';
import { Interrupted } from '../context.js';
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
    checkpoint: {
      type: 'string',
      requiresArg: true,
      describe: 'folder in which the run leaves its state from time to time',
    },
    'checkpoint-interval': {
      type: 'number',
      requiresArg: true,
      implies: 'checkpoint',
      describe: 'seconds between two checkpoints, at least; 60 unless given',
    },
    resume: {
      type: 'boolean',
      default: false,
      describe: 'go on from the checkpoint in that folder, if there is one',
    },
  },
  examples: [['aegis run model.aegis --keys keys/eval.keys --in request.ct -o response.ct', 'on all cores']],
  check: ({ threads, checkpoint, checkpointInterval, resume }) => {
    if (threads !== undefined && !(Number.isSafeInteger(threads) && threads > 0)) {
      return '--threads is not a positive whole number';
    }
    if (checkpointInterval !== undefined && !(checkpointInterval >= 0 && checkpointInterval <= 86400)) {
      return '--checkpoint-interval is not a number of seconds from 0 to 86400';
    }
    return resume && checkpoint === undefined ? '--resume needs --checkpoint' : undefined;
  },
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
        checkpoint: args.checkpoint,
        checkpointSeconds: args.checkpointInterval,
        resume: args.resume,
      },
      context,
    ).catch((error: unknown) => {
      throw error instanceof Interrupted ? sayHowToResume(error, args.checkpoint) : error;
    });
    const { insecure } = plan.view.parameters;
    // Processes of other ranks leave the output to the first one.
    if (!report.root) return;
    if (context.json) {
      const { outputSha256, seconds, ranks, processPeakBytes, checkpoint } = report;
      context.out.write(
        `${JSON.stringify({ outputSha256, seconds, ranks, processPeakBytes, insecure, checkpoint })}\n`,
      );
      return;
    }
    const peakBytes = Math.max(...report.ranks.map((rank) => rank.peakBytes));
    const where = args.backend === 'cuda' ? 'GPUs' : `${threads} threads`;
    const onRanks = report.ranks.length > 1 ? ` on each of ${report.ranks.length} ranks` : '';
    context.out.write(
      `${args.output}: ${formatSeconds(report.seconds)} on ${where}, `
        + `at most ${formatBytes(peakBytes)}${onRanks}\n`
        + `sha256 ${report.outputSha256}\n`
        + (report.checkpoint === undefined ? '' : checkpointLine(report.checkpoint)),
    );
    if (insecure) context.out.write(`${insecureNotice(context.style)}\n`);
  },
});

function checkpointLine({ written, bytes, seconds, resumedAt }: CheckpointReport): string {
  const sizes = written === 0 ? '' : ` of at most ${formatBytes(bytes)} in ${formatSeconds(seconds)}`;
  const resumed = resumedAt === 0 ? '' : `; ${Math.round(100 * resumedAt)} % was done before`;
  return `${written} checkpoint${written === 1 ? '' : 's'}${sizes}${resumed}\n`;
}

function sayHowToResume(error: Interrupted, folder: string | undefined): Interrupted {
  const holdsOne =
    folder !== undefined && [0, 1].some((slot) => existsSync(join(folder, `checkpoint-${slot}.aegis`)));
  if (!holdsOne) return error;
  return new Interrupted(
    error.exitCode,
    `the same command with --resume goes on from the checkpoint in ${folder}`,
  );
}
