import { defineCommand, outputOption } from '../command.js';
import { generateKeys, loadPlan } from '../engine.js';
import { formatBytes, insecureNotice } from '../format.js';

export const keygenCommand = defineCommand({
  command: 'keygen <plan>',
  describe: 'make the keys that a plan needs: secret.key, public.key, eval.keys',
  positionals: { plan: { type: 'string', demandOption: true, describe: 'plan of aegis compile' } },
  options: {
    output: { ...outputOption, describe: 'folder for the keys; made if missing' },
    seed: { type: 'number', requiresArg: true, describe: 'same seed, same keys; INSECURE plans only' },
  },
  examples: [['aegis keygen model.aegis -o keys', 'secret.key stays with you, eval.keys go to the server']],
  check: ({ seed }) =>
    seed === undefined || (Number.isSafeInteger(seed) && seed >= 0)
      ? undefined
      : '--seed is not a whole number of at least 0',
  run: async (args, context) => {
    const plan = await loadPlan(args.plan);
    const keys = await generateKeys(plan, args.output, args.seed, context);
    const { insecure } = plan.view.parameters;
    if (context.json) {
      context.out.write(`${JSON.stringify({ ...keys, insecure })}\n`);
      return;
    }
    context.out.write(
      `${keys.secretKey}: decrypts; keep it to yourself\n`
        + `${keys.publicKey}: encrypts\n`
        + `${keys.evalKeys}: ${formatBytes(keys.evalKeysBytes)}, ${keys.keyCount} keys for the server\n`,
    );
    if (insecure) context.out.write(`${insecureNotice(context.style)}\n`);
  },
});
