/**
 * The command line: parses, runs one command, turns what it throws into messages and an exit code. 0 ok, 1
 * the user's error (coded diagnostics), 2 usage, 70 ours, 130 Ctrl-C. With --json standard output carries one
 * JSON document.
 */
import { createRequire } from 'node:module';
import yargs from 'yargs';
import { AegisError, renderDiagnostic, type Diagnostic } from '../support/diagnostics.js';
import type { Invoke } from './command.js';
import { calibrateCommand } from './commands/calibrate.js';
import { compareCommand } from './commands/compare.js';
import { compileCommand } from './commands/compile.js';
import { decryptCommand } from './commands/decrypt.js';
import { demoCommand } from './commands/demo.js';
import { doctorCommand } from './commands/doctor.js';
import { encryptCommand } from './commands/encrypt.js';
import { inspectCommand } from './commands/inspect.js';
import { keygenCommand } from './commands/keygen.js';
import { lowerCommand } from './commands/lower.js';
import { profileCommand } from './commands/profile.js';
import { runCommand } from './commands/run.js';
import { simulateCommand } from './commands/simulate.js';
import { verifyCommand } from './commands/verify.js';
import { Interrupted, type Context, type MakeContext } from './context.js';

export const exitCodes = { ok: 0, userError: 1, usage: 2, internal: 70 } as const;
const maxHelpColumns = 110;
const description = 'Runs ONNX Transformers on encrypted data: compiles a model into a plan over CKKS.';

/** In the order in which they are used. */
const commands = [
  demoCommand,
  doctorCommand,
  calibrateCommand,
  compileCommand,
  lowerCommand,
  inspectCommand,
  verifyCommand,
  keygenCommand,
  encryptCommand,
  runCommand,
  decryptCommand,
  simulateCommand,
  compareCommand,
  profileCommand,
];

class UsageError extends Error {}

export async function runCli(argv: readonly string[], makeContext: MakeContext): Promise<number> {
  const context = makeContext({ json: argv.includes('--json') });
  try {
    await parse(argv, context);
    return exitCodes.ok;
  } catch (error) {
    return report(error, argv, context);
  }
}

async function parse(argv: readonly string[], context: Context): Promise<void> {
  // yargs catches what handlers throw and reports it as a usage error, so the work runs after parsing.
  let work: ((context: Context) => Promise<void>) | undefined;
  const invoke: Invoke = async (given) => void (work = given);
  const parser = commands.reduce(
    (cli, make) => cli.command(make(invoke)),
    yargs()
      .scriptName('aegis')
      .usage(`$0 <command>\n\n${description}`)
      .locale('en')
      .parserConfiguration({ 'greedy-arrays': false })
      .option('json', {
        type: 'boolean',
        describe: 'print one JSON document on standard output, nothing else',
      })
      .version(packageVersion())
      .demandCommand(1, 1, 'name a command', 'name one command')
      .strict()
      .wrap(Math.min(maxHelpColumns, context.err.columns))
      .epilogue('Exit codes: 0 ok, 1 error in the input, 2 usage, 70 internal error, 130 interrupted.')
      .exitProcess(false)
      .showHelpOnFail(false)
      .fail((message, error) => {
        throw new UsageError(message ?? error.message);
      }),
  );
  let help = '';
  await parser.parseAsync([...argv], {}, (_error: Error | undefined, _args: unknown, output: string) => {
    help = output;
  });
  if (help !== '') context.out.write(`${help}\n`);
  else await work?.(context);
}

function report(error: unknown, argv: readonly string[], context: Context): number {
  if (error instanceof Interrupted) {
    const help = error.help === undefined ? 'no file was changed' : error.help;
    if (!context.json) context.err.write(`interrupted; ${help}\n`);
    return error.exitCode;
  }
  if (error instanceof AegisError) return show(error.diagnostics, exitCodes.userError, context);
  if (error instanceof UsageError) {
    const name = argv.find((word) => !word.startsWith('-')) ?? '';
    const known = commandNames().includes(name);
    const help = `aegis ${known ? `${name} ` : ''}--help shows the commands and options`;
    return show([{ code: 'C101', message: usageMessage(error.message), help }], exitCodes.usage, context);
  }
  const message = error instanceof Error ? error.message : String(error);
  const status = show(
    [
      {
        code: 'C170',
        message: message.startsWith('internal error') ? message : `internal error: ${message}`,
        help: 'this is a fault of aegis: please report it with the command line and the model',
      },
    ],
    exitCodes.internal,
    context,
  );
  if (process.env['AEGIS_DEBUG'] !== undefined && error instanceof Error) {
    context.err.write(`${error.stack}\n`);
  }
  return status;
}

function commandNames(): (string | undefined)[] {
  return commands.map(
    (make) =>
      make(async () => undefined)
        .command?.toString()
        .split(' ')[0],
  );
}

function show(diagnostics: readonly Diagnostic[], status: number, context: Context): number {
  if (context.json) {
    const errors = diagnostics.map(({ code, message, node, pass, help }) => ({
      code,
      message,
      node: node ?? null,
      pass: pass ?? null,
      help: help ?? null,
    }));
    context.out.write(`${JSON.stringify({ errors })}\n`);
  } else {
    context.err.write(diagnostics.map((one) => `${renderDiagnostic(one)}\n`).join(''));
  }
  return status;
}

/** In our form: one line, a small first letter. */
function usageMessage(message: string): string {
  const choices = /Argument: (\S+), Given: (.*), Choices: (.*)/.exec(message);
  if (choices !== null) return `--${choices[1]} is ${choices[2]}, expected one of ${choices[3]}`;
  const line = message.replace(/\s*\n\s*/g, ' ');
  return line.charAt(0).toLowerCase() + line.slice(1);
}

function packageVersion(): string {
  const read = createRequire(import.meta.url);
  return (read('../../package.json') as { version: string }).version;
}
