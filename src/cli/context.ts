/** What a command may touch of its surroundings: two streams, the terminal's width, Ctrl-C. */
import { Progress, type Stream } from './progress.js';
import type { Style } from './format.js';

export interface Context {
  /** Results. With --json exactly one JSON document is written there and nothing else. */
  readonly out: Stream;
  /** Progress, warnings and errors. */
  readonly err: Stream;
  readonly json: boolean;
  readonly progress: Progress;
  readonly style: Style;
  /**
   * Runs asynchronous work that ends early when its signal is aborted by Ctrl-C. Outside of it Ctrl-C ends
   * the process at once: compilation is synchronous, so a handler would run only after it, and nothing has
   * been written by then.
   */
  interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T>;
}

export type MakeContext = (options: { json: boolean }) => Context;

/** Ends a command with exit code 130, as shells count a process that SIGINT ended. */
export class Interrupted extends Error {
  constructor(
    readonly exitCode: number,
    /** What the user can do now. */
    readonly help?: string,
  ) {
    super('interrupted');
  }
}

export const processContext: MakeContext = ({ json }) => {
  const [out, err] = [streamOf(process.stdout), streamOf(process.stderr)];
  const color = process.env['NO_COLOR'] === undefined && process.env['TERM'] !== 'dumb';
  return {
    out,
    err,
    json,
    progress: new Progress(err),
    style: { color: color && out.isTTY && !json, columns: out.columns },
    interruptible,
  };
};

const defaultColumns = 100;

function streamOf(stream: NodeJS.WriteStream): Stream {
  return {
    write: (text) => void stream.write(text),
    isTTY: stream.isTTY === true,
    // Some terminals say 0.
    columns: (stream.isTTY === true ? stream.columns : 0) || defaultColumns,
  };
}

const signalNumbers = { SIGINT: 2, SIGTERM: 15 } as const;

async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const handlers = Object.entries(signalNumbers).map(([name, number]) => {
    const handler = () => {
      // Asked twice: do not wait for the kernel at work.
      if (controller.signal.aborted) process.exit(128 + number);
      controller.abort(new Interrupted(128 + number));
    };
    process.on(name, handler);
    return { name, handler };
  });
  try {
    return await work(controller.signal);
  } catch (error) {
    throw controller.signal.aborted ? controller.signal.reason : error;
  } finally {
    for (const { name, handler } of handlers) process.off(name, handler);
  }
}
