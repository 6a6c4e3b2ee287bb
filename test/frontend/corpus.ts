/** The corpora, found under AEGIS_CORPUS; tests skip with a printed reason where they are absent. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';

export const repository = fileURLToPath(new URL('../../', import.meta.url));
const corpus = process.env.AEGIS_CORPUS ?? join(repository, '../shared/data');

/** Paths of the files of one corpus folder that end so; [] and a line on standard error if there are none. */
export function corpusFiles(folder: string, ending: string): string[] {
  const path = join(corpus, folder);
  if (existsSync(path))
    return readdirSync(path)
      .filter((name) => name.endsWith(ending))
      .sort()
      .map((name) => join(path, name));
  process.stderr.write(`skipped: no corpus at ${path} (set AEGIS_CORPUS)\n`);
  return [];
}

export interface Samples {
  readonly inputs: Readonly<
    Record<
      string,
      {
        readonly dtype: string;
        readonly shape: readonly number[];
        readonly data: readonly (readonly number[])[];
      }
    >
  >;
  readonly logits: readonly (readonly number[])[];
}

/** The samples beside a model: `spam_hfbert.samples.json` serves `spam_hfbert_sdpa.ts17_static.onnx` too. */
export function samplesOf(model: string): Samples | undefined {
  const stem = model.replace(/(\.(ts|dyn)\d+\w*)?\.onnx$/, '');
  const path = [stem, stem.replace(/_(eager|sdpa)$/, '')]
    .map((own) => `${own}.samples.json`)
    .find((own) => existsSync(own));
  return path === undefined ? undefined : (JSON.parse(readFileSync(path, 'utf8')) as Samples);
}
