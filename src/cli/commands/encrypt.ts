import { readNpz } from '../../data/index.js';
import { defineCommand, outputOption } from '../command.js';
import { clientOf, encryptRequest, loadPlan, portInputs } from '../engine.js';
import { checkInputs, checkOutputs } from '../files.js';
import { formatBytes, insecureNotice } from '../format.js';

export const encryptCommand = defineCommand({
  command: 'encrypt <plan>',
  describe: 'encrypt one input of the model into a request',
  positionals: { plan: { type: 'string', demandOption: true, describe: 'plan of aegis compile' } },
  options: {
    key: { type: 'string', demandOption: true, requiresArg: true, describe: 'public.key or secret.key' },
    in: {
      type: 'string',
      demandOption: true,
      requiresArg: true,
      describe: '.npz with one array per input of the model (token ids, masks, ...)',
    },
    output: { ...outputOption, describe: 'request to write' },
  },
  examples: [
    ['aegis encrypt model.aegis --key keys/public.key --in x.npz -o request.ct', 'a request for the server'],
  ],
  run: async (args, context) => {
    await checkInputs([args.plan, args.key, args.in]);
    await checkOutputs([args.output]);
    const plan = await loadPlan(args.plan);
    const inputs = portInputs(await clientOf(plan), await readNpz(args.in), args.in);
    const { bytes } = await encryptRequest(plan, args.key, inputs, args.output, context);
    const { insecure } = plan.view.parameters;
    if (context.json) {
      context.out.write(`${JSON.stringify({ request: args.output, bytes, insecure })}\n`);
      return;
    }
    context.out.write(`${args.output}: ${formatBytes(bytes)}\n`);
    if (insecure) context.out.write(`${insecureNotice(context.style)}\n`);
  },
});
