import { formatNpz, type Tensor } from '../../data/index.js';
import { defineCommand, outputOption } from '../command.js';
import { decryptResponse, loadPlan } from '../engine.js';
import { checkInputs, checkOutputs, writeTogether } from '../files.js';
import { insecureNotice } from '../format.js';

const shownValues = 16;
/** A key is to be replaced before more results than this were shown. */
const defaultQueries = 1024;

/** Short results, to read at once. */
function preview({ data }: Tensor): string {
  return data.length > shownValues
    ? ''
    : `  ${Array.from(data, (value) => Number(value.toPrecision(5))).join(' ')}`;
}

export const decryptCommand = defineCommand({
  command: 'decrypt <plan>',
  describe: 'decrypt a response into named arrays',
  positionals: { plan: { type: 'string', demandOption: true, describe: 'plan of aegis compile' } },
  options: {
    key: { type: 'string', demandOption: true, requiresArg: true, describe: 'secret.key' },
    in: { type: 'string', demandOption: true, requiresArg: true, describe: 'response of aegis run' },
    output: { ...outputOption, describe: '.npz to write, one array per model output' },
    share: {
      type: 'boolean',
      default: false,
      describe: 'the result may be shown to others: add the noise that hides the key',
    },
    queries: {
      type: 'number',
      requiresArg: true,
      describe: `results under this key that others see, in all; ${defaultQueries} unless given`,
    },
  },
  examples: [
    ['aegis decrypt model.aegis --key keys/secret.key --in response.ct -o y.npz', 'the result in the clear'],
  ],
  check: ({ queries, share }) => {
    if (queries === undefined) return undefined;
    if (!share) return '--queries needs --share';
    return Number.isSafeInteger(queries) && queries > 0
      ? undefined
      : '--queries is not a positive whole number';
  },
  run: async (args, context) => {
    await checkInputs([args.plan, args.key, args.in]);
    await checkOutputs([args.output]);
    const plan = await loadPlan(args.plan);
    const outputs = await decryptResponse(
      plan,
      args.key,
      args.in,
      context,
      args.share ? (args.queries ?? defaultQueries) : undefined,
    );
    await writeTogether([{ path: args.output, content: formatNpz(outputs) }]);
    const { insecure } = plan.view.parameters;
    const shapes = [...outputs].map(([name, { shape }]) => ({ name, shape }));
    if (context.json) {
      context.out.write(`${JSON.stringify({ output: args.output, arrays: shapes, insecure })}\n`);
      return;
    }
    const lines = [...outputs].map(
      ([name, tensor]) => `  ${name} [${tensor.shape.join(', ')}]${preview(tensor)}\n`,
    );
    context.out.write(`${args.output}\n${lines.join('')}`);
    if (insecure) context.out.write(`${insecureNotice(context.style)}\n`);
  },
});
