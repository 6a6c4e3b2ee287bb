import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { CompileSummary } from '../../src/compile.js';
import { aegis, codesOf, type Outcome } from './fake-context.js';

const folder = mkdtempSync(join(tmpdir(), 'aegis-compile-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const model = 'examples/digits-vit/digits_vit.onnx';
const samples = 'examples/digits-vit/digits_vit.samples.json';
const small = ['--ring', 'small', '--insecure'];
const file = (name: string) => join(folder, name);
const sha256 = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex');

describe('compile', () => {
  let first: Outcome;
  beforeAll(async () => {
    first = await aegis(
      'compile',
      model,
      '--samples',
      samples,
      '--take',
      '0:16',
      ...small,
      '-o',
      file('a.aegis'),
      '--emit-cipher',
      file('copy.cipher'),
      '--json',
    );
  });

  it('prints one JSON document of the promised shape', () => {
    expect(first).toMatchObject({ status: 0 });
    const summary = JSON.parse(first.out) as Record<string, unknown>;
    for (const key of [
      'logN',
      'logQP',
      'securityBits',
      'levels',
      'bootstraps',
      'rotations',
      'ctMultiplications',
      'keyBytes',
      'planBytes',
      'weightsBytes',
    ])
      expect(summary[key], key).toBeTypeOf('number');
    expect(summary).toMatchObject({ insecure: true, logN: 12 });
    for (const pass of summary['passes'] as unknown[]) {
      expect(pass).toEqual({ name: expect.any(String), seconds: expect.any(Number) });
    }
  });

  it('says how every nonlinear function is computed', () => {
    const { approximations } = JSON.parse(first.out) as Pick<CompileSummary, 'approximations'>;
    const names = approximations.map((one) => one.function).sort();
    const [twice, fourTimes] = [['exp', 'gelu', 'inverse'], 'inverse square root'];
    expect(names).toEqual([...twice.flatMap((name) => [name, name]), ...Array<string>(4).fill(fourTimes)]);
    for (const { node, interval, degrees, levels, steps, error } of approximations) {
      expect(node).toMatch(/^node_(gelu|layer_norm|scaled_dot_product_attention)/);
      expect(interval.min).toBeLessThan(interval.max);
      expect(steps).toBe(0);
      expect(levels).toBe(Math.ceil(Math.log2((degrees[0] ?? NaN) + 1)));
      expect(error).toBeGreaterThan(0);
      expect(error).toBeLessThan(1e-4);
    }
  });

  it('keeps that in the cipher module and in the plan, for inspect', async () => {
    const { approximations } = JSON.parse(first.out) as CompileSummary;
    for (const name of ['a.aegis', 'a.aegis.cipher']) {
      const { out } = await aegis('inspect', file(name), '--json');
      expect((JSON.parse(out) as CompileSummary).approximations, name).toEqual(approximations);
      const { out: text } = await aegis('inspect', file(name));
      expect(text, name).toMatch(/approximations +2 exp of degree/);
    }
  });

  it('writes plan, weights and cipher module, and no other file', () => {
    expect(
      readdirSync(folder)
        .filter((name) => /^(a\.|copy|\.)/.test(name))
        .sort(),
    ).toEqual(['a.aegis', 'a.aegis.cipher', 'a.aegis.weights', 'copy.cipher']);
    expect(sha256(file('copy.cipher'))).toBe(sha256(file('a.aegis.cipher')));
    expect((JSON.parse(first.out) as { planBytes: number }).planBytes).toBe(
      readFileSync(file('a.aegis')).length,
    );
  });

  it('gives the same bytes again, from calibrated ranges', async () => {
    const ranges = file('ranges.json');
    expect(
      (await aegis('calibrate', model, '--samples', samples, '--take', '0:16', '-o', ranges)).status,
    ).toBe(0);
    const again = await aegis('compile', model, '--ranges', ranges, ...small, '-o', file('b.aegis'));
    expect(again.status).toBe(0);
    expect(again.out).toContain('INSECURE');
    for (const suffix of ['', '.weights', '.cipher']) {
      expect(sha256(file(`b.aegis${suffix}`))).toBe(sha256(file(`a.aegis${suffix}`)));
    }
  });

  it('warns when it had to guess ranges', async () => {
    const { status, err } = await aegis('compile', model, ...small, '-o', file('guess.aegis'));
    expect(status).toBe(0);
    expect(err).toContain('warning[A104]');
  });

  it('makes do with fewer keys where they have a limit', async () => {
    const { keyBytes, rotations } = JSON.parse(first.out) as { keyBytes: number; rotations: number };
    const compileWith = (limit: number) =>
      aegis(
        ...['compile', model, '--samples', samples, '--take', '0:16', ...small],
        ...['--key-memory', String(limit), '-o', file('keys.aegis'), '--json'],
      );
    const limit = Math.floor(0.8 * keyBytes);
    const fewer = JSON.parse((await compileWith(limit)).out) as { keyBytes: number; rotations: number };
    expect(fewer.keyBytes).toBeLessThanOrEqual(limit);
    expect(fewer.rotations).toBeGreaterThan(0.9 * rotations);
    for (const suffix of ['', '.weights', '.cipher']) rmSync(file(`keys.aegis${suffix}`));
    expect(codesOf(await compileWith(1000))).toEqual(['B112']);
    expect((await aegis('compile', model, '--key-memory', 'much', '-o', file('keys.aegis'))).status).toBe(2);
    expect((await aegis('compile', model, '--levels', '1.5', '-o', file('keys.aegis'))).status).toBe(2);
  }, 300_000);

  it('refuses by code, and writes nothing then', async () => {
    const before = readdirSync(folder).sort();
    const refuse = async (...argv: string[]) =>
      codesOf(await aegis('compile', model, '--samples', samples, ...argv, '-o', file('no.aegis'), '--json'));
    expect(await refuse('--ring', 'small')).toEqual(['S102']);
    expect(await refuse(...small, '--memory-limit', '1MiB')).toEqual(['B110']);
    writeFileSync(file('bad.onnx'), 'not a model');
    expect(
      codesOf(await aegis('compile', file('bad.onnx'), ...small, '-o', file('no.aegis'), '--json')),
    ).toEqual([expect.stringMatching(/^F1/)]);
    rmSync(file('bad.onnx'));
    expect(readdirSync(folder).sort()).toEqual(before);
  });

  it('is inspected: module, node, phases', async () => {
    const cipher = file('a.aegis.cipher');
    expect((await aegis('inspect', cipher)).out).toContain('INSECURE');
    const description = JSON.parse((await aegis('inspect', cipher, '--json')).out) as Record<string, unknown>;
    expect(description).toMatchObject({ file: 'cipher', phase: 'cipher', insecure: true, logN: 12 });
    expect((await aegis('inspect', cipher, '--phase', 'poly')).out).toContain('poly.key_product');
    expect((await aegis('inspect', cipher, '--phase', 'schedule')).out).toContain('program 0');
    expect((await aegis('inspect', cipher, '--node', 'node_linear')).out).toContain('ct.contract');
    expect(codesOf(await aegis('inspect', cipher, '--node', 'no such node', '--json'))).toEqual(['C112']);
    expect(codesOf(await aegis('inspect', cipher, '--keys', '--json'))).toEqual(['C111']);
  });

  it('says of a model what needs ranges first', async () => {
    expect((await aegis('inspect', model)).out).toContain('phase tensor');
    expect((await aegis('inspect', model, '--phase', 'tensor')).out).toContain('tensor.attention');
    const { status, err } = await aegis('inspect', model, '--phase', 'cipher');
    expect(status).toBe(1);
    expect(err).toContain('ranges');
  });
});
