/** What `npm run make:bert-base` writes, at a small size. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { bertModel, embeddings } from '../../scripts/bert-model.mjs';
import { readRanges } from '../../src/data/index.js';
import { readGraph } from '../../src/frontend/index.js';
import { runTensor } from '../../src/ir/interpreter/tensor.js';
import { calibrateModule } from '../../src/passes/calibrate.js';
import { carryRanges } from '../../src/passes/carry-ranges.js';
import { defined } from '../../src/support/invariant.js';
import { kindsOf, maxDifference, runOnnxRuntime } from './onnx-builder.js';

const shape = { layers: 2, width: 16, heads: 2, ffn: 32, seed: 3 };
const script = 'scripts/make-bert-base.mjs';

describe('make:bert-base', () => {
  it('writes what ONNX Runtime and the tensor phase agree on', async () => {
    const length = 6;
    const bytes = bertModel(shape);
    const data = embeddings(length, shape.width, 9);
    const feed = { embeddings: { dims: [1, length, shape.width], data: Array.from(data) } };
    const wanted = (await runOnnxRuntime(bytes, feed))['last_hidden_state'] ?? [];
    const module = readGraph({ bytes }, { seqLen: length }).lower();
    const found = runTensor(module, { embeddings: data })['last_hidden_state'] ?? [];
    expect(maxDifference(found, wanted)).toBeLessThan(2e-5);
    const kinds = kindsOf(module);
    expect(kinds.filter((kind) => kind === 'attention')).toHaveLength(2);
    expect(kinds.filter((kind) => kind === 'gelu')).toHaveLength(2);
    expect(kinds.filter((kind) => kind === 'layer_norm')).toHaveLength(4);
  });

  it('gives the same bytes for the same seed', () => {
    expect(bertModel(shape)).toEqual(bertModel(shape));
    expect(bertModel(shape)).not.toEqual(bertModel({ ...shape, seed: 4 }));
  });

  it('carries ranges to another length', () => {
    const at = (length: number) => {
      const module = readGraph({ bytes: bertModel(shape) }, { seqLen: length }).lower();
      const samples = [1, 2, 3].map((seed) => ({ embeddings: embeddings(length, shape.width, seed) }));
      return calibrateModule(module, samples);
    };
    const [short, long] = [at(16), at(128)];
    const carried = carryRanges(short, { from: 16, to: 128, shapes: long.shapes });
    expect(carried.probes).toEqual([]);
    expect(carried.shapes).toEqual(long.shapes);
    carried.nodes.forEach(({ attention }, i) => {
      const wanted = long.nodes[i]?.attention;
      attention?.logSumExp.forEach((interval, k) => {
        expect(Math.abs(interval.max - defined(wanted?.logSumExp[k], 'interval').max)).toBeLessThan(0.1);
      });
      attention?.logSquareSum.forEach((interval, k) => {
        expect(Math.abs(interval.min - defined(wanted?.logSquareSum[k], 'interval').min)).toBeLessThan(0.1);
      });
    });
  });

  it.skipIf(!existsSync('dist/frontend/index.js'))('the script: model and ranges side by side', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'aegis-bert-'));
    const small = ['--layers', '1', '--width', '16', '--heads', '2', '--ffn', '32'];
    const make = (...more: string[]) =>
      execFileSync('node', [script, '--out', join(folder, 'm.onnx'), ...small, ...more], { stdio: 'pipe' });
    try {
      make('--seq-len', '64', '--calibrate-len', '16');
      const carried = await readRanges(join(folder, 'm.ranges.json'));
      expect(carried.shapes).toEqual({ embeddings: [1, 64, 16] });
      expect(carried.probes).toHaveLength(0);
      make('--seq-len', '16', '--calibrate-len', '16');
      expect((await readRanges(join(folder, 'm.ranges.json'))).probes).toHaveLength(2);
      expect(String(execFileSync('node', [script, '--help']))).toContain('--calibrate-len');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
