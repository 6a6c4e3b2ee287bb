/** Models of the corpus, and the samples beside them. */
import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { corpusFiles, repository } from '../frontend/corpus.js';

export const example = join(repository, 'examples/digits-vit/digits_vit.onnx');
export const textExample = join(repository, 'examples/spam-text/spam_text.onnx');

const float = /^(digits_vit_|spam_hfbert_encoder_only|berttiny_emotion_encoder)/;

/** Every export of every float model; empty, with a printed reason, where the corpus is absent. */
export const floatModels: readonly string[] = ['trained', 'reconstructed']
  .flatMap((folder) => corpusFiles(folder, '.onnx'))
  .filter((path) => float.test(basename(path)));

/** One export of each float model. */
export const oneOfEach: readonly string[] = firstExports(floatModels);

function firstExports(models: readonly string[]): string[] {
  return models.filter((path, i) => models.findIndex((other) => stem(other) === stem(path)) === i);
}

/** Every export of every model that takes token ids and a mask of padding. */
export const tokenModels: readonly string[] = corpusFiles('trained', '.onnx').filter((path) =>
  /^spam_(hfbert_(eager|sdpa)|mha)/.test(basename(path)),
);

export const oneOfEachToken: readonly string[] = firstExports(tokenModels);

/** Every export of the causal model: token ids in, a digit out at each of the last six tokens. */
export const sortModels: readonly string[] = corpusFiles('reconstructed', '.onnx').filter((path) =>
  basename(path).startsWith('gpt_nano_sort'),
);

export const oneOfEachSort: readonly string[] = firstExports(sortModels);

function stem(path: string): string {
  return basename(path).split('.')[0] ?? '';
}

export function samplesPath(model: string): string {
  const own = model.replace(/\.onnx$/, '.samples.json');
  const shared = [stem(model), stem(model).replace(/_(eager|sdpa)$/, '')];
  const names = shared.map((name) => join(dirname(model), `${name}.samples.json`));
  return [own, ...names].find((path) => existsSync(path)) ?? own;
}

/** The first samples calibrate, the others test. */
export const calibrated = 16;

/** The class of every row. */
export function classes(values: ArrayLike<number>, width: number): number[] {
  const all = Array.from(values);
  return Array.from({ length: all.length / width }, (_, row) =>
    argmax(all.slice(row * width, (row + 1) * width)),
  );
}

export function argmax(values: ArrayLike<number>): number {
  return Array.from(values).indexOf(Math.max(...Array.from(values)));
}

export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return Math.max(...Array.from(a, (value, i) => Math.abs(value - (b[i] ?? NaN))));
}
