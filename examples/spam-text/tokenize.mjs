// Turns a mail into the model's token ids, as train.py does.
import { readFile, writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { formatNpz } from 'aegis-fhe';

const usage = `node examples/spam-text/tokenize.mjs MAIL.txt -o IDS.npz

  MAIL.txt         plain text; a first line "Subject: ..." is the subject; - reads standard input
  -o, --out FILE   input_ids and attention_mask, int64 [1, 64], for aegis encrypt
`;
const tokens = 64;
const subjectWords = 16;
const [pad, start, unknown, separator] = [0, 1, 2, 3];

/** Lower-case words; links, addresses and numbers become one word each. */
function words(text) {
  const plain = text
    .replace(/<[^>]*>/g, ' ')
    .toLowerCase()
    .replace(/https?:\/\/\S+|www\.\S+/g, ' link ')
    .replace(/\S+@\S+/g, ' address ')
    .replace(/[0-9][0-9.,]*/g, ' # ');
  return plain.match(/[a-z]+|[$!?%]|#/g) ?? [];
}

function split(mail) {
  const [, subject = '', body] = /^(?:Subject:(.*)\r?\n?)?([^]*)$/i.exec(mail);
  return [subject.replace(/^\s*(re|fwd?):|\[[^\]]*\]/gi, ' '), body];
}

function encode(mail, vocabulary) {
  const index = new Map(vocabulary.map((word, id) => [word, id]));
  const ids = (text) => words(text).map((word) => index.get(word) ?? unknown);
  const [subject, body] = split(mail);
  return [start, ...ids(subject).slice(0, subjectWords), separator, ...ids(body)].slice(0, tokens);
}

const { values: options, positionals } = parseArgs({
  options: { out: { type: 'string', short: 'o' }, help: { type: 'boolean' } },
  allowPositionals: true,
});
if (options.help || positionals.length !== 1 || options.out === undefined) {
  process.stderr.write(usage);
  process.exit(options.help ? 0 : 2);
}
const mail = await readFile(positionals[0] === '-' ? 0 : positionals[0], 'utf8');
const vocabulary = (await readFile(new URL('vocabulary.txt', import.meta.url), 'utf8')).trimEnd().split('\n');
const line = encode(mail, vocabulary);
const row = (value) => ({
  dtype: 'int64',
  shape: [1, tokens],
  data: Float64Array.from({ length: tokens }, (_, i) => value(i)),
});
const ids = row((i) => line[i] ?? pad);
const mask = row((i) => (i < line.length ? 1 : 0));
await writeFile(
  options.out,
  formatNpz(
    new Map([
      ['input_ids', ids],
      ['attention_mask', mask],
    ]),
  ),
);
console.log(line.map((id) => vocabulary[id]).join(' '));
