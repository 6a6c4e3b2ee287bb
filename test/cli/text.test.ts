import { describe, expect, it } from 'vitest';
import { parseByteCount, parseDims } from '../../src/cli/command.js';
import { drawDigit, timeTable } from '../../src/cli/demo-text.js';
import { formatBytes, formatError, formatFields, formatSeconds, formatTable } from '../../src/cli/format.js';
import { agreementOf, argmax, largestDifference } from '../../src/cli/measure.js';
import { Progress } from '../../src/cli/progress.js';

describe('numbers', () => {
  it('are short and carry a unit', () => {
    expect([0, 1023, 1024, 1536, 150 * 1024, 2 ** 30].map(formatBytes)).toEqual([
      '0 B',
      '1023 B',
      '1.0 KiB',
      '1.5 KiB',
      '150 KiB',
      '1.0 GiB',
    ]);
    expect([0.0012, 0.5, 1.234, 12.34, 130].map(formatSeconds)).toEqual([
      '1.2 ms',
      '500 ms',
      '1.23 s',
      '12.3 s',
      '2 min 10 s',
    ]);
    expect([0, 2 ** -10].map(formatError)).toEqual(['0', '9.8e-4 (2^-10.0)']);
  });

  it('are read with units', () => {
    expect(['1024', '4GiB', '2M', '1.5K'].map(parseByteCount)).toEqual([1024, 2 ** 32, 2 ** 21, 1536]);
    expect(['', 'lots', '-1', '0'].map(parseByteCount)).toEqual([undefined, undefined, undefined, undefined]);
    expect(parseDims(['batch=1', 'a=b=2'.replace('a=b', 'ab')])).toEqual({ batch: 1, ab: 2 });
  });
});

describe('tables', () => {
  it('align their columns', () => {
    expect(
      formatTable(
        [
          ['a', 'n'],
          ['long', '1'],
        ],
        [1],
      ),
    ).toBe('a     n\nlong  1');
    expect(
      formatFields([
        ['a', 'x'],
        ['long', 'y'],
      ]),
    ).toBe('  a     x\n  long  y');
  });

  it('break long lists between items', () => {
    const text = formatFields([['ops', Array.from({ length: 30 }, (_, i) => `op${i} 100`).join(', ')]]);
    expect(text.split('\n').length).toBeGreaterThan(2);
    for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
  });

  it('draw a digit and sum up small shares', () => {
    expect(drawDigit(Float64Array.of(0, 1, 0.5, 0), 2)).toBe(
      '    +----+\n    |  @@|\n    |++  |\n    +----+',
    );
    const shares = [3, 2, 1].map((seconds, i) => ({ name: `n${i}`, seconds, detail: '' }));
    expect(timeTable('node', shares, 1)).toMatch(/n0 .*50\.0 %.*\n.*2 more .*50\.0 %/);
  });
});

describe('agreement', () => {
  const row = (...values: number[]) => Float64Array.from(values);

  it('counts rows, labels and the worst sample', () => {
    expect(
      agreementOf(
        [
          { measured: row(1, 2), reference: row(1, 2.5), rowLength: 2, label: 1 },
          { measured: row(3, 2), reference: row(2, 3), rowLength: 2, label: 1 },
        ],
        16,
      ),
    ).toEqual({ samples: 2, maxAbsError: 1, worstSample: 17, argmaxAgreement: 0.5, accuracy: 0.5 });
  });

  it('does not lose what is not a number', () => {
    expect(largestDifference(row(NaN, 1), row(0, 1))).toBe(Infinity);
    expect(largestDifference(row(1), row(1, 2))).toBe(Infinity);
    expect(argmax(row(-3, -1, -2))).toBe(1);
  });
});

describe('progress', () => {
  it('is silent for short work, a line now and then for long work', () => {
    let [text, now] = ['', 0];
    const stream = { write: (more: string) => void (text += more), isTTY: false, columns: 100 };
    const task = new Progress(stream, () => now).start('run');
    task.update(0.1);
    expect(text).toBe('');
    for (now = 2000; now < 14_000; now += 100) task.update(0.5, 'layer');
    task.finish();
    expect(text).toBe('run:  50 % after 2.00 s, layer\nrun:  50 % after 12.0 s, layer\n');
  });

  it('is a bar on a terminal, wiped at the end', () => {
    let [text, now] = ['', 0];
    const stream = { write: (more: string) => void (text += more), isTTY: true, columns: 60 };
    const task = new Progress(stream, () => now).start('run');
    now = 3000;
    task.update(0.5, 'a node with a name that does not fit into the line any more');
    expect(text).toMatch(/^\rrun \[#{12}\.{12}\] {2}50 % 3\.00 s a node/);
    expect(text.length).toBeLessThanOrEqual(60);
    task.finish();
    expect(text.endsWith(`${' '.repeat(59)}\r`)).toBe(true);
  });
});
