/** Models of the corpus that take float inputs, and the samples beside them. */
import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { corpusFiles, repository } from '../frontend/corpus.js';

export const example = join(repository, 'examples/digits-vit/digits_vit.onnx');

const float = /^(digits_vit_|spam_hfbert_encoder_only|berttiny_emotion_encoder)/;

/** Every export of every float model; empty, with a printed reason, where the corpus is absent. */
export const floatModels: readonly string[] = ['trained', 'reconstructed']
  .flatMap((folder) => corpusFiles(folder, '.onnx'))
  .filter((path) => float.test(basename(path)));

/** One export of each float model. */
export const oneOfEach: readonly string[] = floatModels.filter(
  (path, i) => floatModels.findIndex((other) => stem(other) === stem(path)) === i,
);

function stem(path: string): string {
  return basename(path).split('.')[0] ?? '';
}

export function samplesPath(model: string): string {
  const own = model.replace(/\.onnx$/, '.samples.json');
  return existsSync(own) ? own : join(dirname(model), `${stem(model)}.samples.json`);
}

/** The first samples calibrate, the others test. */
export const calibrated = 16;

export function argmax(values: ArrayLike<number>): number {
  return Array.from(values).indexOf(Math.max(...Array.from(values)));
}

export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return Math.max(...Array.from(a, (value, i) => Math.abs(value - (b[i] ?? NaN))));
}
