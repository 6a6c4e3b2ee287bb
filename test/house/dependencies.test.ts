import { existsSync } from 'node:fs';
import * as graphlib from 'graphlib';
import { describe, expect, it } from 'vitest';
import { importsOf, sourcesUnder } from './sources.js';

/**
 * Rooms from the ground up: a file imports from its own room and from lower floors only (DESIGN section 2).
 */
const floors: Readonly<Record<string, number>> = {
  support: 0,
  target: 1,
  ir: 2,
  frontend: 3,
  passes: 3,
  backend: 3,
  data: 4,
  executor: 5,
  compile: 6,
  index: 7,
  cli: 8,
};

const files = sourcesUnder('src', ['.ts']);
const imports = files.flatMap(importsOf);

function roomOf(path: string): string {
  return (path.split('/')[1] ?? '').replace(/\.ts$/, '');
}

describe('the house', () => {
  it('has known rooms only', () => {
    expect([...new Set(files.map((file) => roomOf(file.path)))].filter((room) => !(room in floors))).toEqual(
      [],
    );
  });

  it('imports existing files, by their .js name', () => {
    expect(imports.filter((one) => !existsSync(one.to)).map((one) => `${one.from} -> ${one.to}`)).toEqual([]);
  });

  it('imports downwards; rooms of one floor do not know each other', () => {
    const wrong = imports.filter(({ from, to }) => {
      const [upper, lower] = [roomOf(from), roomOf(to)];
      return upper !== lower && (floors[upper] ?? 0) <= (floors[lower] ?? 0);
    });
    expect(wrong.map((one) => `${one.from} -> ${one.to}`)).toEqual([]);
  });

  it('has no cycles between files', () => {
    const graph = new graphlib.Graph();
    for (const { from, to } of imports) graph.setEdge(from, to);
    expect(graphlib.alg.findCycles(graph)).toEqual([]);
  });
});
