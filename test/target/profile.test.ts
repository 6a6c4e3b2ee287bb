import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { AegisError } from '../../src/support/diagnostics.js';
import { collectiveSeconds, kernelSeconds, kernelWork, operationsOf } from '../../src/target/kernel-cost.js';
import { loadProfile, parseProfile, profileNames, type DeviceProfile } from '../../src/target/profile.js';
import { measuredProfile } from './measured-profile.js';

const folder = mkdtempSync(join(tmpdir(), 'aegis-profile-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function codes(work: () => unknown): string[] {
  try {
    work();
    return [];
  } catch (error) {
    if (error instanceof AegisError) return error.diagnostics.map(({ code }) => code);
    throw error;
  }
}

describe('profiles that ship', () => {
  it('are the machines of the published figures', () => {
    expect(profileNames()).toEqual([
      'a100-40g-nvlink',
      'a6000-nvlink',
      'b200',
      'h100-80g',
      'h200',
      'rtx4090-pcie',
    ]);
  });

  it.each(profileNames())('%s is valid and states the source of every figure', (name) => {
    const profile = loadProfile(name);
    expect(profile.name).toBe(name);
    expect(profile.measured).toBeNull();
    const figures = [
      'memoryBytes',
      'memoryBandwidth',
      'modularRate',
      'efficiency',
      'launchSeconds',
      'link.bandwidth',
      'link.latencySeconds',
      'link.background',
    ];
    expect(Object.keys(profile.provenance)).toEqual(figures);
    for (const text of Object.values(profile.provenance)) {
      expect(text).toMatch(/^(published by NVIDIA|derived|assumed): /);
    }
  });
});

describe('a profile file', () => {
  const valid = measuredProfile();

  it('is read back as it was written', () => {
    const path = join(folder, 'p.json');
    writeFileSync(path, JSON.stringify(valid));
    expect(loadProfile(path)).toEqual(valid);
  });

  it('is refused with a code each', () => {
    expect(codes(() => loadProfile('no-such-profile'))).toEqual(['T101']);
    expect(codes(() => loadProfile(folder))).toEqual(['T101']);
    expect(codes(() => parseProfile('{', 'p'))).toEqual(['T102']);
    expect(codes(() => parseProfile('{"format": 2}', 'p'))).toEqual(['T104']);
    expect(codes(() => parseProfile('[]', 'p'))).toContain('T103');
  });

  it('is refused when any field is absent, of another type or out of range', () => {
    const paths = leaves(valid as unknown as Json, []);
    expect(paths.length).toBeGreaterThan(80);
    for (const path of paths) {
      for (const bad of [undefined, 'text?', -1, {}]) {
        const text = typeof bad === 'string' && typeof at(valid as unknown as Json, path) === 'string';
        if (text || (path[0] === 'provenance' && bad === undefined)) continue;
        const mutant = JSON.stringify(replaced(valid as unknown as Json, path, bad));
        const found = codes(() => parseProfile(mutant, 'p'));
        expect(found.length, `${path.join('.')} = ${String(bad)}`).toBeGreaterThan(0);
        expect(found.every((code) => code === 'T103' || code === 'T104')).toBe(true);
      }
    }
  });

  it('reports everything that is wrong at once, unknown fields included', () => {
    const text = JSON.stringify({ ...valid, efficiency: 2, memoryBytes: 0, speed: 1 });
    expect(codes(() => parseProfile(text, 'p'))).toEqual(['T103', 'T103', 'T103']);
  });
});

describe('seconds of a kernel', () => {
  const profile: DeviceProfile = {
    ...loadProfile('a100-40g-nvlink'),
    memoryBandwidth: 1e9,
    modularRate: 1e9,
    efficiency: 0.5,
    launchSeconds: 1e-6,
  };

  it('follow operations or bytes, whichever take longer', () => {
    const ntt = kernelWork({ kind: 'ntt', logN: 10, batch: 1, limbs: 1 });
    // 5120 butterflies and 1024 corrections of a quarter; 2 rows of 8 KiB.
    expect(kernelSeconds(profile, ntt, 10)).toBeCloseTo(1e-6 + (2 * 2 * 8192) / 1e9, 12);
    const fast = { ...profile, memoryBandwidth: 1e12 };
    expect(kernelSeconds(fast, ntt, 10)).toBeCloseTo(1e-6 + (2 * (5120 + 256)) / 1e9, 12);
  });

  it('count keys and plaintexts', () => {
    const product = kernelWork({ kind: 'key_product', logN: 4, batch: 3, limbs: 5, digits: 2, keys: 3 });
    expect(product).toEqual({
      kind: 'key_product',
      terms: 2 * 3 * 5 * 2 * 16,
      butterflies: 0,
      words: 2 * 3 * 5 * 16,
      bufferBytes: (3 * 5 * 2 + 2 * 3 * 5) * 16 * 8,
      staticBytes: 3 * 2 * 2 * 5 * 16 * 8,
    });
    const sum = kernelWork({ kind: 'contract', logN: 4, batch: 1, limbs: 2, summed: 8, plainWords: 16 });
    expect(sum.staticBytes).toBe(16 * 8);
  });

  it('count the butterflies that expand plaintexts, as those of a transform', () => {
    const shape = { kind: 'contract', logN: 10, batch: 2, limbs: 3, summed: 8, plainWords: 16 } as const;
    const residues = kernelWork(shape);
    const held = kernelWork({ ...shape, butterflies: 1e6 });
    expect(operationsOf(held) - operationsOf(residues)).toBe(1e6);
    const measured = measuredProfile();
    const more = kernelSeconds(measured, held, 10) - kernelSeconds(measured, residues, 10);
    expect(more).toBeCloseTo(1e6 * 0.5e-9, 12);
  });

  it("come from the table of the rank's threads where kernels were measured", () => {
    const measured = measuredProfile();
    const work = kernelWork({ kind: 'ntt', logN: 12, batch: 64, limbs: 1 });
    const butterflies = 64 * 12 * 2048;
    const oneRank = kernelSeconds(measured, work, 12) - measured.launchSeconds;
    const twoRanks = kernelSeconds(measured, work, 12, { ranks: 2 }) - measured.launchSeconds;
    expect(twoRanks).toBeCloseTo(butterflies * 1e-9, 12);
    expect(oneRank).toBeCloseTo(butterflies * 0.5e-9, 12);
  });
});

describe('seconds of a collective', () => {
  const profile: DeviceProfile = {
    ...loadProfile('a100-40g-nvlink'),
    link: { bandwidth: 100, latencySeconds: 1, background: true },
  };
  it.each([
    ['all_gather', [100, 200, 300], 2 + 6],
    ['reduce_scatter', [100, 100, 100], 2 + 2],
    ['all_reduce', [300], 4 + 4],
    ['broadcast', [100], 2 + 1],
    ['all_to_all', [0, 100, 200, 0, 0, 0, 0, 0, 0], 2 + 3],
  ] as const)('%s of %j', (kind, bytes, expected) => {
    expect(collectiveSeconds(profile, { kind, ranks: 3, bytes })).toBeCloseTo(expected, 12);
  });
});

type Json = { readonly [name: string]: unknown };

function leaves(value: unknown, path: readonly string[]): string[][] {
  if (typeof value !== 'object' || value === null) return [[...path]];
  return Object.entries(value).flatMap(([name, inner]) => leaves(inner, [...path, name]));
}

function at(value: unknown, path: readonly string[]): unknown {
  return path.reduce((inner, name) => (inner as Json)[name], value);
}

function replaced(value: unknown, [name, ...rest]: readonly string[], by: unknown): unknown {
  if (name === undefined) return by;
  if (Array.isArray(value))
    return value.map((one, i) => (String(i) === name ? replaced(one, rest, by) : one));
  const inner = value as Json;
  return { ...inner, [name]: replaced(inner[name], rest, by) };
}
