/**
 * Coded diagnostics for users. A message is lower case, without a final period, and says what was found and
 * what
 * was expected; `help` says what to do. Codes: F1xx ONNX file, F2xx unsupported operator or form, I1xx IR
 * text,
 * V1xx verifier, A1xx approximation, L1xx levels and bootstraps, S1xx security, B1xx plan, D1xx samples and
 * data,
 * X1xx executor, T1xx device profiles, C1xx command line; the runtime has R1xx-R5xx (docs/runtime.md).
 */
export interface Diagnostic {
  readonly code: string;
  readonly message: string;
  /** ONNX node name, if one is at fault. */
  readonly node?: string | undefined;
  /** Name of the pass or reader that noticed. */
  readonly pass?: string | undefined;
  readonly help?: string | undefined;
  /** The op or line at fault, as text. */
  readonly excerpt?: string | undefined;
}

/** One or many diagnostics that end a command with exit code 1. */
export class AegisError extends Error {
  readonly diagnostics: readonly Diagnostic[];
  constructor(diagnostics: Diagnostic | readonly Diagnostic[]) {
    const list = Array.isArray(diagnostics)
      ? (diagnostics as readonly Diagnostic[])
      : [diagnostics as Diagnostic];
    super(list.map(renderDiagnostic).join('\n'));
    this.name = 'AegisError';
    this.diagnostics = list;
  }
}

/** Collects what can be collected, so that one run reports everything. */
export class Diagnostics {
  readonly list: Diagnostic[] = [];
  report(diagnostic: Diagnostic): void {
    this.list.push(diagnostic);
  }
  get failed(): boolean {
    return this.list.length > 0;
  }
  throwIfAny(): void {
    if (this.list.length > 0) throw new AegisError(this.list);
  }
}

export function renderDiagnostic(d: Diagnostic): string {
  const lines = [`error[${d.code}]: ${d.message}`];
  const where = [
    d.node === undefined ? '' : `at node "${d.node}"`,
    d.pass === undefined ? '' : `pass ${d.pass}`,
  ];
  const place = where.filter((part) => part !== '').join(', ');
  if (place !== '') lines.push(`  ${place}`);
  if (d.excerpt !== undefined) lines.push(`  | ${d.excerpt}`);
  if (d.help !== undefined) lines.push(`  help: ${d.help}`);
  return lines.join('\n');
}
