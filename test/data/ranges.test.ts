import { describe, expect, it } from 'vitest';
import { parseRanges } from '../../src/data/index.js';
import { AegisError } from '../../src/support/diagnostics.js';
import { mutate, seededRandom } from './random.js';

const interval = { min: -1, max: 2 };
const good = {
  format: 'aegis-ranges',
  version: 1,
  model: 'm',
  sourceHash: 'abc',
  shapes: { x: [1, 2] },
  nodes: [
    { op: 3, node: 'norm', kind: 'variance', interval },
    {
      op: 4,
      node: 'attention',
      kind: 'attention',
      interval,
      attention: { scores: interval, logSumExp: [interval], logSquareSum: [interval] },
    },
  ],
  values: [{ op: 3, ...interval }],
  probes: [{ x: [1, 2] }],
};

function codeOf(text: string): string {
  try {
    parseRanges(text, 'r.json');
  } catch (error) {
    if (error instanceof AegisError) return error.diagnostics[0]?.code ?? '';
    throw error;
  }
  return 'none';
}

describe('ranges file', () => {
  it('is read back as it was written', () => {
    expect(parseRanges(JSON.stringify(good), 'r.json')).toEqual(good);
  });

  it('may be older and hold no values', () => {
    const { values: _, ...older } = good;
    expect(parseRanges(JSON.stringify(older), 'r.json')).toEqual(older);
  });

  it.each([
    ['no JSON', 'hello'],
    ['another format', JSON.stringify({ ...good, format: 'x' })],
    ['another version', JSON.stringify({ ...good, version: 2 })],
    [
      'an empty interval',
      JSON.stringify({ ...good, nodes: [{ ...good.nodes[0], interval: { min: 2, max: 1 } }] }),
    ],
    [
      'an attention without its ranges',
      JSON.stringify({ ...good, nodes: [{ ...good.nodes[0], kind: 'attention' }] }),
    ],
    ['a value without its op', JSON.stringify({ ...good, values: [interval] })],
    ['a probe that is no numbers', JSON.stringify({ ...good, probes: [{ x: ['1'] }] })],
  ])('is refused by code: %s', (_what, text) => {
    expect(codeOf(text)).toBe('D106');
  });

  it('answers 2000 seeded mutations with ranges or D106', () => {
    const bytes = new TextEncoder().encode(JSON.stringify(good));
    const random = seededRandom(11);
    for (let i = 0; i < 2000; i++) {
      expect(codeOf(Buffer.from(mutate(bytes, random)).toString('utf8'))).toMatch(/^(none|D106)$/);
    }
  });
});
