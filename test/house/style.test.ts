import ts from 'typescript';
import { describe, expect, it } from 'vitest';
import { sourcesUnder, type SourceFile } from './sources.js';

const maxColumns = 110;
const maxFileLines = 600;
const maxFunctionLines = 70;

const typescript = [...sourcesUnder('src', ['.ts']), ...sourcesUnder('test', ['.ts'])];
const cpp = sourcesUnder('runtime', ['.cc', '.h', '.cu', '.cuh']);
const product = [...typescript.filter((file) => file.path.startsWith('src/')), ...cpp];

/** `path:line: text` of every line for which `isBad` holds. */
function linesWhere(files: readonly SourceFile[], isBad: (line: string) => boolean): string[] {
  return files.flatMap(({ path, lines }) =>
    lines.flatMap((line, i) => (isBad(line) ? [`${path}:${i + 1}: ${line.trim().slice(0, 80)}`] : [])),
  );
}

/** Without strings and comments, roughly: enough for words that are keywords elsewhere. */
function code(line: string): string {
  return line.replace(/'[^']*'|"[^"]*"|`[^`]*`/g, '').replace(/\/\/.*|^\s*\/?\*.*/, '');
}

describe('style', () => {
  it(`keeps lines within ${maxColumns} columns`, () => {
    expect(linesWhere(product, (line) => line.length > maxColumns)).toEqual([]);
  });

  it('has no tabs and no trailing blanks', () => {
    expect(linesWhere([...typescript, ...cpp], (line) => /\t|\s$/.test(line))).toEqual([]);
  });

  it(`keeps files within ${maxFileLines} lines`, () => {
    const long = product.filter((file) => file.lines.length > maxFileLines);
    expect(long.map((file) => `${file.path}: ${file.lines.length} lines`)).toEqual([]);
  });

  it(`keeps functions within ${maxFunctionLines} lines`, () => {
    expect(product.filter((file) => file.path.startsWith('src/')).flatMap(longFunctions)).toEqual([]);
  });

  it('has no any and no suppressed checks', () => {
    expect(
      linesWhere(typescript, (line) => /[:<|&,(]\s*any\b|\bas any\b|\bany\[\]/.test(code(line))),
    ).toEqual([]);
    expect(
      linesWhere(
        typescript,
        (line) =>
          /@ts-(ignore|nocheck|expect-error)|eslint-disable/.test(line) && !line.includes('linesWhere'),
      ),
    ).toEqual([]);
  });

  it('has no unfinished places', () => {
    const words = new RegExp(`\\b(${['TO' + 'DO', 'FIX' + 'ME', 'X' + 'XX', 'HA' + 'CK'].join('|')})\\b`);
    expect(linesWhere([...typescript, ...cpp], (line) => words.test(line))).toEqual([]);
  });

  it('compiles the same bytes from the same input: no clock, no unseeded randomness below the command line', () => {
    const compiler = typescript.filter((file) => /^src\/(?!cli|executor|compile)/.test(file.path));
    const impure = /\bMath\.random\b|\bDate\.now\b|\bnew Date\b|\bperformance\.now\b|\bsort\(\s*\)\s*=>/;
    expect(linesWhere(compiler, (line) => impure.test(code(line)))).toEqual([]);
  });
});

/** Functions and methods of any form, by the compiler's own reading. */
function longFunctions({ path, lines }: SourceFile): string[] {
  const source = ts.createSourceFile(path, lines.join('\n'), ts.ScriptTarget.Latest, true);
  const lineOf = (position: number) => source.getLineAndCharacterOfPosition(position).line;
  const found: string[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isFunctionLike(node)) {
      const count = lineOf(node.getEnd()) - lineOf(node.getStart()) + 1;
      const name = node.name?.getText() ?? 'function';
      if (count > maxFunctionLines)
        found.push(`${path}:${lineOf(node.getStart()) + 1}: ${name} has ${count} lines`);
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}
