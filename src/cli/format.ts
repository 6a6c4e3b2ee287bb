/** Numbers, tables and marks for people. Plain ASCII, readable without colour. */

export interface Style {
  readonly color: boolean;
  readonly columns: number;
}

const maxColumns = 100;
const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

export function formatBytes(bytes: number): string {
  const power = Math.min(units.length - 1, bytes < 1024 ? 0 : Math.floor(Math.log2(bytes) / 10));
  const value = bytes / 1024 ** power;
  return `${power === 0 || value >= 100 ? value.toFixed(0) : value.toFixed(1)} ${units[power]}`;
}

export function formatSeconds(seconds: number): string {
  if (seconds < 0.9995) return `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  if (seconds < 99.95) return `${seconds.toFixed(seconds < 9.995 ? 2 : 1)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

export function formatError(error: number): string {
  return error === 0 ? '0' : `${error.toExponential(1)} (2^${Math.log2(error).toFixed(1)})`;
}

/** Columns apart by two blanks; those named in `right` are flushed right. */
export function formatTable(rows: readonly (readonly string[])[], right: readonly number[] = []): string {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? '').length)),
  );
  return rows
    .map((row) =>
      row
        .map((cell, column) => {
          const width = widths[column] ?? 0;
          return right.includes(column) ? cell.padStart(width) : cell.padEnd(width);
        })
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** `name   value` lines, indented; long lists go on in the next line. */
export function formatFields(fields: readonly (readonly [string, string])[]): string {
  const width = Math.max(...fields.map(([name]) => name.length));
  const indent = ' '.repeat(width + 4);
  return fields
    .map(([name, value]) => {
      const lines = wrapList(value, maxColumns - indent.length);
      return `  ${name.padEnd(width)}  ${lines.join(`\n${indent}`)}`;
    })
    .join('\n');
}

function wrapList(text: string, columns: number): string[] {
  const lines: string[] = [];
  for (const part of text.split(/(?<=, )/)) {
    const last = lines.at(-1);
    if (last === undefined || last.length + part.trimEnd().length > columns) lines.push(part);
    else lines[lines.length - 1] = last + part;
  }
  return lines.map((line) => line.trimEnd());
}

export function bold(style: Style, text: string): string {
  return style.color ? `\u001b[1m${text}\u001b[22m` : text;
}

export function red(style: Style, text: string): string {
  return style.color ? `\u001b[31m${text}\u001b[39m` : text;
}

/** Stands in every output of an insecure plan (DESIGN section 1.4). */
export function insecureNotice(style: Style): string {
  return `${red(style, 'INSECURE')}: these parameters give no security; never use them for private data`;
}
