/** Output files that appear whole or not at all. */
import { randomBytes } from 'node:crypto';
import { access, constants, open, rename, stat, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { AegisError, Diagnostics } from '../support/diagnostics.js';

export interface Output {
  readonly path: string;
  readonly content: Uint8Array | string;
}

/** Errors, before long work starts: C102 output folder missing or not writable, or the path is a folder. */
export async function checkOutputs(paths: readonly string[]): Promise<void> {
  const diagnostics = new Diagnostics();
  for (const path of paths) {
    const folder = dirname(path);
    const found = await stat(path).catch(() => undefined);
    if (found?.isDirectory() === true) diagnostics.report({ code: 'C102', message: `${path} is a folder` });
    const problem = await folderProblem(folder);
    if (problem !== undefined) {
      diagnostics.report({ code: 'C102', message: `${path} cannot be written: ${folder} is ${problem}` });
    }
  }
  diagnostics.throwIfAny();
}

async function folderProblem(folder: string): Promise<string | undefined> {
  const found = await stat(folder).catch(() => undefined);
  if (found?.isDirectory() === false) return 'no folder';
  return access(folder, constants.W_OK).then(
    () => undefined,
    () => 'missing or not writable',
  );
}

/** Error C103: input files that are missing, all of them. */
export async function checkInputs(paths: readonly string[]): Promise<void> {
  const diagnostics = new Diagnostics();
  for (const path of paths) {
    const found = await stat(path).catch(() => undefined);
    if (found === undefined) diagnostics.report({ code: 'C103', message: `${path} does not exist` });
    else if (found.isDirectory()) {
      diagnostics.report({ code: 'C103', message: `${path} is a folder, expected a file` });
    }
  }
  diagnostics.throwIfAny();
}

/**
 * Writes all files beside their places first and renames them then, so that an interruption or a full disk
 * leaves what was there before. Error: C102.
 */
export async function writeTogether(outputs: readonly Output[]): Promise<void> {
  const pending = outputs.map((output) => ({ ...output, temporary: temporaryBeside(output.path) }));
  try {
    for (const { temporary, content } of pending) {
      const file = await open(temporary, 'wx');
      try {
        await file.writeFile(content);
        await file.sync();
      } finally {
        await file.close();
      }
    }
    for (const { temporary, path } of pending) await rename(temporary, path);
  } catch (error) {
    for (const { temporary } of pending) await unlink(temporary).catch(() => undefined);
    const reason = (error as NodeJS.ErrnoException).code ?? String(error);
    const paths = outputs.map((output) => output.path).join(', ');
    throw new AegisError({ code: 'C102', message: `${paths} cannot be written: ${reason}` });
  }
}

function temporaryBeside(path: string): string {
  return join(dirname(path), `.${basename(path)}.${randomBytes(6).toString('hex')}.tmp`);
}
