/** A small BERT encoder with calibrated ranges, for tests of what happens to layers. */
import { bertModel, embeddings, type BertShape } from '../../scripts/bert-model.mjs';
import { importModel } from '../../src/frontend/index.js';
import type { Module } from '../../src/ir/module.js';
import { calibrateModule } from '../../src/passes/calibrate.js';
import type { Ranges } from '../../src/passes/ranges.js';

export const smallBert: BertShape = { layers: 3, width: 16, heads: 2, ffn: 32, seed: 1 };

export interface Bert {
  readonly bytes: Uint8Array;
  readonly module: Module;
  readonly ranges: Ranges;
  /** Inputs that calibration has not seen. */
  readonly inputs: readonly Record<string, Float64Array>[];
}

export function bert(shape: BertShape, length: number): Bert {
  const bytes = bertModel(shape);
  const { module } = importModel({ bytes }, { seqLen: length });
  const sample = (seed: number) => ({ embeddings: embeddings(length, shape.width, seed) });
  const ranges = calibrateModule(
    module,
    Array.from({ length: 8 }, (_, i) => sample(100 + i)),
  );
  return { bytes, module, ranges, inputs: [sample(200), sample(201)] };
}
