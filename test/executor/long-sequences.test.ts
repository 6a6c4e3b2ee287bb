/** A layer at long sequences, encrypted on two ranks: correct, and memory that grows with the tokens. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';

/** What scripts/long-sequences.mjs prints for a length. */
interface Row {
  readonly tokens: number;
  readonly logN: number;
  readonly peakBytes: readonly number[];
  readonly measuredPeakBytes: readonly number[];
  readonly error: number;
  readonly predictedError: number;
  readonly sameAsOneRank: boolean;
}

const devices = 2;
const lengths = process.env.AEGIS_TEST_FULL === undefined ? [256] : [256, 512, 1024];
const growthLimit = 2.1;
const timeoutMs = 900_000;

const built = existsSync('dist/compile.js');
if (!built) console.log('skipped: long sequences need dist; npm run build makes it');

describe.skipIf(!built)('one layer on two ranks', () => {
  let rows: readonly Row[] = [];

  beforeAll(async () => {
    const shape = ['--width', '16', '--heads', '2', '--ffn', '32'];
    const options = ['--tokens', lengths.join(), '--devices', String(devices), '--one-rank', '--json'];
    const script = ['scripts/long-sequences.mjs', ...shape, ...options];
    const { stdout } = await promisify(execFile)(process.execPath, script);
    rows = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Row);
  }, timeoutMs);

  const row = (tokens: number): Row => {
    const found = rows.find((one) => one.tokens === tokens);
    if (found === undefined) throw new Error(`no row for ${tokens} tokens`);
    return found;
  };

  it.each(lengths)('%i tokens: the model within its predicted error, the bits of one rank', (tokens) => {
    const { error, predictedError, sameAsOneRank } = row(tokens);
    // Outputs of a LayerNorm are about 1.
    expect(predictedError).toBeGreaterThan(0);
    expect(predictedError).toBeLessThan(0.05);
    expect(error).toBeLessThan(predictedError);
    expect(sameAsOneRank).toBe(true);
  });

  it.each(lengths)('%i tokens: the memory that was predicted', (tokens) => {
    const { peakBytes, measuredPeakBytes } = row(tokens);
    expect(measuredPeakBytes).toHaveLength(devices);
    expect(measuredPeakBytes).toEqual(peakBytes);
  });

  it.runIf(lengths.length > 1)('takes at most 2.1 times the memory at twice the tokens', () => {
    const peaks = lengths.map((tokens) => Math.max(...row(tokens).measuredPeakBytes));
    // One ring, or more memory would be the ring's.
    expect(new Set(lengths.map((tokens) => row(tokens).logN)).size).toBe(1);
    peaks.slice(1).forEach((peak, i) => expect(peak / peaks[i]!).toBeLessThan(growthLimit));
  });
});
