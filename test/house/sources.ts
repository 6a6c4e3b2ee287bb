import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';

export interface SourceFile {
  readonly path: string;
  readonly lines: readonly string[];
}

/** Files below `folder` whose names end in one of `extensions`, sorted; generated ones are left out. */
export function sourcesUnder(folder: string, extensions: readonly string[]): SourceFile[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((name) => join(folder, name))
    .filter((path) => extensions.some((extension) => path.endsWith(extension)) && !isGenerated(path))
    .sort()
    .map((path) => ({ path, lines: readFileSync(path, 'utf8').split('\n') }));
}

function isGenerated(path: string): boolean {
  return path.split('/').includes('generated') || path.includes('_generated');
}

export interface Import {
  readonly from: string;
  readonly to: string;
}

/**
 * Relative imports, re-exports and dynamic imports, types included: a cycle of types is a cycle for the
 * reader.
 */
export function importsOf(file: SourceFile): Import[] {
  const text = file.lines.join('\n');
  const pattern = /(?:\bfrom|\bimport)\s*\(?\s*'(\.[^']+)'/g;
  return [...text.matchAll(pattern)].map((match) => ({
    from: file.path,
    to: normalize(join(dirname(file.path), (match[1] ?? '').replace(/\.js$/, '.ts'))),
  }));
}
