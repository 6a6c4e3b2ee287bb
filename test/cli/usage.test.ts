import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { aegis, codesOf } from './fake-context.js';

const folder = mkdtempSync(join(tmpdir(), 'aegis-usage-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const commands = [
  'calibrate',
  'compile',
  'lower',
  'inspect',
  'keygen',
  'encrypt',
  'run',
  'decrypt',
  'verify',
  'simulate',
  'compare',
  'profile',
  'demo',
  'doctor',
];
const model = 'examples/digits-vit/digits_vit.onnx';

describe('help', () => {
  it('lists every command, on standard output, with status 0', async () => {
    const { status, out, err } = await aegis('--help');
    expect({ status, err }).toEqual({ status: 0, err: '' });
    for (const name of commands) expect(out).toMatch(new RegExp(`^ +aegis ${name}\\b`, 'm'));
    expect(out).toContain('Exit codes: 0 ok, 1 error in the input, 2 usage, 70 internal error');
  });

  it.each(commands)('of %s has a description and examples', async (name) => {
    const { status, out } = await aegis(name, '--help');
    expect(status).toBe(0);
    expect(out).toContain('Examples:');
    expect(out).toMatch(new RegExp(`Examples:\\n {2}aegis ${name}\\b`));
  });

  it('prints the version', async () => {
    expect((await aegis('--version')).out).toMatch(/^\d+\.\d+\.\d+\n$/);
  });
});

describe('usage errors', () => {
  it.each([
    [[]],
    [['frobnicate']],
    [['compile']],
    [['compile', model]],
    [['compile', model, '-o', 'x', '--unknown']],
    [['compile', model, '-o', 'x', '--ring', 'huge']],
    [['compile', model, '-o', 'x', '--security', '100']],
    [['compile', model, '-o', 'x', '-o', 'y']],
    [['compile', model, '-o', 'x', '--seq-len', '0']],
    [['compile', model, '-o', 'x', '--dim', 'batch']],
    [['compile', model, '-o', 'x', '--take', '0:1']],
    [['compile', model, '-o', 'x', '--ranges', 'a', '--samples', 'b']],
    [['compile', model, '-o', 'x', '--memory-limit', 'lots']],
    [['compile', model, 'extra', '-o', 'x']],
    [['run', 'p', '--keys', 'k', '--in', 'i', '-o', 'o', '--threads', '0']],
    [['run', 'p', '--keys', 'k', '--in', 'i', '-o', 'o', '--threads', 'two']],
    [['keygen', 'p', '-o', 'd', '--seed', '-1']],
    [['simulate', 'p']],
    [['simulate', 'p', '--profile', 'h200', '--kernel-speed', '0']],
    [['compare', model, '--profile', 'h200']],
    [['compare', model, '--profile', 'h200', '--devices', '1,two']],
    [['compare', model, '--profile', 'h200', '--devices', '0']],
    [['compare', model, '--profile', 'h200', '--devices', '1', '--strategy', 'best']],
    [['profile']],
    [['verify', 'p']],
    [['verify', 'p', '--random', '2']],
    [['verify', 'p', '--samples', 's', '--random', '2']],
  ])('%j ends with 2 and says what is wrong', async (argv) => {
    const plain = await aegis(...argv);
    expect(plain.status).toBe(2);
    expect(plain.out).toBe('');
    expect(plain.err).toMatch(/^error\[C101\]: [^A-Z\n].*[^.\n]\n {2}help: aegis .*--help/);
    const json = await aegis(...argv, '--json');
    expect(json.status).toBe(2);
    expect(codesOf(json)).toEqual(['C101']);
    expect(json.err).toBe('');
  });
});

describe('errors in the input', () => {
  it('end with 1 and name every missing file at once', async () => {
    const argv = ['run', 'no.aegis', '--keys', 'no.keys', '--in', 'no.ct', '-o', join(folder, 'response.ct')];
    const { status, out, err } = await aegis(...argv);
    expect(status).toBe(1);
    expect(out).toBe('');
    expect(err).toBe(
      'error[C103]: no.aegis does not exist\nerror[C103]: no.keys does not exist\n'
        + 'error[C103]: no.ct does not exist\n',
    );
    expect(codesOf(await aegis(...argv, '--json'))).toEqual(['C103', 'C103', 'C103']);
  });

  it('have all five fields in JSON', async () => {
    const { out } = await aegis('inspect', 'no.aegis', '--json');
    expect(JSON.parse(out)).toEqual({
      errors: [{ code: 'C103', message: 'no.aegis does not exist', node: null, pass: null, help: null }],
    });
  });

  it('are found before long work: outputs that cannot be written', async () => {
    const file = join(folder, 'a-file');
    writeFileSync(file, '');
    for (const parent of [join(folder, 'missing'), file]) {
      const { status, err } = await aegis('compile', model, '-o', join(parent, 'x.aegis'));
      expect(status).toBe(1);
      expect(err).toContain(`error[C102]: ${join(parent, 'x.aegis')} cannot be written: ${parent} is`);
    }
  });

  it('have a code each: take, samples, kind of file, ranges', async () => {
    const output = ['-o', join(folder, 'out.json')];
    const samples = 'examples/digits-vit/digits_vit.samples.json';
    expect(
      codesOf(await aegis('calibrate', model, '--samples', samples, '--take', '5:5', ...output, '--json')),
    ).toEqual(['D105']);
    expect(codesOf(await aegis('calibrate', model, '--samples', model, ...output, '--json'))).toEqual([
      'D102',
    ]);
    const text = join(folder, 'notes.txt');
    writeFileSync(text, 'hello');
    expect(codesOf(await aegis('inspect', text, '--json'))).toEqual(['C110']);
    expect(
      codesOf(
        await aegis('compile', model, '--ranges', text, ...output, '--ring', 'small', '--insecure', '--json'),
      ),
    ).toEqual(['D106']);
  });
});
