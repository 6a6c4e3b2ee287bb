import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as ort from 'onnxruntime-node';
import { afterAll, describe, expect, it } from 'vitest';
import { parseNpz } from '../../src/data/index.js';
import { defined } from '../../src/support/invariant.js';

const example = 'examples/spam-text';
const folder = mkdtempSync(join(tmpdir(), 'aegis-spam-text-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function tokenize(mail: string): { words: string; ids: Float64Array; mask: Float64Array } {
  const out = join(folder, 'ids.npz');
  const words = execFileSync('node', [`${example}/tokenize.mjs`, mail, '-o', out], {
    encoding: 'utf8',
  }).trim();
  const arrays = parseNpz(readFileSync(out), out);
  const values = (name: string) => defined(arrays.get(name), name).data;
  return { words, ids: values('input_ids'), mask: values('attention_mask') };
}

async function logits(mail: string): Promise<number[]> {
  const { ids, mask } = tokenize(mail);
  const session = await ort.InferenceSession.create(`${example}/spam_text.onnx`);
  const row = (values: Float64Array) =>
    new ort.Tensor(
      'int64',
      BigInt64Array.from(values, (value) => BigInt(value)),
      [1, values.length],
    );
  const results = await session.run({ input_ids: row(ids), attention_mask: row(mask) });
  return Array.from(defined(results.logits, 'logits').data as Float32Array);
}

describe('tokens of a mail', () => {
  it('are its words, links, addresses and numbers, with the padding masked', () => {
    const mail = join(folder, 'mail.txt');
    const body = 'Pay $1,000 <b>NOW</b>: https://example.com/x or you@example.com! zyzzyva';
    writeFileSync(mail, `Subject: Re: [list] Free money\r\n${body}\r\n`);
    const { words, ids, mask } = tokenize(mail);
    expect(words).toBe('<class> free money <break> pay $ # now link or address <unknown>');
    expect([ids.length, ids[0], ids[3], ids[11], ids[12]]).toEqual([64, 1, 3, 2, 0]);
    expect([mask.length, mask.indexOf(0), mask.lastIndexOf(1)]).toEqual([64, 12, 11]);
  });

  it('stop at 64', () => {
    const mail = join(folder, 'long.txt');
    writeFileSync(mail, 'free money '.repeat(100));
    const { ids, mask } = tokenize(mail);
    expect(ids.length).toBe(64);
    expect(mask.every((value) => value === 1)).toBe(true);
  });
});

describe('the spam text Transformer', () => {
  it('tells an offer from a question', async () => {
    const [offer, question] = [await logits(`${example}/offer.txt`), await logits(`${example}/question.txt`)];
    expect(defined(offer[1], 'spam') - defined(offer[0], 'other')).toBeGreaterThan(4);
    expect(defined(question[0], 'other') - defined(question[1], 'spam')).toBeGreaterThan(4);
  });
});
