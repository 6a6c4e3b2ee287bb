import type { MakeContext } from '../../src/cli/context.js';
import { Progress } from '../../src/cli/progress.js';
import { runCli } from '../../src/cli/cli.js';

export interface Outcome {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}

/** Runs a command in this process, without a terminal. */
export async function aegis(...argv: string[]): Promise<Outcome> {
  let [out, err] = ['', ''];
  const makeContext: MakeContext = ({ json }) => {
    const stderr = { write: (text: string) => void (err += text), isTTY: false, columns: 100 };
    return {
      out: { write: (text) => void (out += text), isTTY: false, columns: 100 },
      err: stderr,
      json,
      progress: new Progress(stderr),
      style: { color: false, columns: 100 },
      interruptible: (work) => work(new AbortController().signal),
    };
  };
  const status = await runCli(argv, makeContext);
  return { status, out, err };
}

/** The codes of the one JSON document on standard output. */
export function codesOf({ out }: Outcome): string[] {
  const { errors } = JSON.parse(out) as { errors: { code: string; message: string }[] };
  return errors.map((error) => error.code);
}
