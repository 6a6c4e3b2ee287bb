import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { printSchedule, readPlan } from '../../src/backend/index.js';
import { placeBuffers } from '../../src/backend/place-buffers.js';
import { writePlan } from '../../src/backend/write-plan.js';
import { writeWeights } from '../../src/backend/weights.js';
import { canonicalScale, printScale } from '../../src/ir/scale.js';
import { AegisError } from '../../src/support/diagnostics.js';
import { axis, buildModule, ct, lower, slotCount, toyParameters } from './oracle.js';

const scale = printScale(canonicalScale(7));

/** Every recipe once. */
function sample() {
  const row = Int32Array.from({ length: 8 }, (_, i) => i);
  return buildModule({
    inputs: [ct([axis('i', 2)], 7)],
    constants: {
      w: { shape: [8, 8], data: Float64Array.from({ length: 64 }, (_, i) => i / 4) },
      fine: { shape: [16], data: Float64Array.from({ length: 16 }, (_, i) => i / 3) },
    },
    tables: {
      rows: row.slice(),
      columns: row.slice(),
      features: Int32Array.from([0, 1, 2, -1]),
      tokens: Int32Array.from([0, 4, 8, 12]),
    },
    body: (b, [x]) => {
      const rotated = b.op('ct.rotate', [x!], { axis: 'r', steps: [0, 1] }, 'enc/MatMul');
      const diagonals = b.op(
        'pt.diagonals',
        [],
        {
          axes: [axis('o', 2), axis('g', 1), axis('i', 2), axis('r', 2)] as never,
          period: 4,
          weight: 'w',
          rows: 'rows',
          columns: 'columns',
          baby: [0, 1],
          giant: [0],
          factor: 1,
        },
        'enc/MatMul',
      );
      const sum = b.op('ct.contract', [rotated, diagonals], { over: ['i', 'r'], scale }, 'enc/MatMul');
      const vector = b.op(
        'pt.vector',
        [],
        { axes: [], period: 4, constant: 'fine', features: 'features', tokens: 'tokens', factor: 2 },
        'enc/Add',
      );
      const dft = b.op(
        'pt.dft',
        [],
        {
          axes: [axis('gg', 1), axis('bb', 3)] as never,
          inverse: false,
          first: 1,
          count: 1,
          baby: [-1, 0, 1],
          giant: [0],
          factor: 1,
        },
        'boot',
      );
      const moved = b.op('ct.contract', [x!, dft], { over: ['bb', 'gg', 'i'], scale }, 'boot');
      return [
        b.op(
          'ct.rescale',
          [b.op('ct.mul_i', [b.op('ct.add_plain', [sum, vector], {}, 'enc/Add')], {}, '')],
          {},
          '',
        ),
        moved,
      ];
    },
  });
}

describe('the plan file', () => {
  it('is the same bytes from the same module, and reads back as it was written', () => {
    const [first, second] = [lower(sample()), lower(sample())];
    expect(Buffer.from(first.plan).equals(Buffer.from(second.plan))).toBe(true);
    expect(Buffer.from(first.weights).equals(Buffer.from(second.weights))).toBe(true);
    const view = readPlan(first.plan);
    expect(Buffer.from(writePlan(view)).equals(Buffer.from(first.plan))).toBe(true);
  });

  it('holds parameters, ports, keys, recipes and locations', () => {
    const { plan, weights, summary } = lower(sample());
    const view = readPlan(plan);
    expect(view.parameters).toMatchObject({
      logN: 5,
      maxLevel: 7,
      specials: 3,
      insecure: true,
      ephemeralWeight: 32,
    });
    expect(view.parameters.primes).toEqual(toyParameters.primes);
    expect(view.weightsHash).toBe(createHash('sha256').update(weights).digest('hex'));
    expect(view.inputs).toMatchObject([{ name: 'x0', elements: 2, period: slotCount, level: 7, factor: 1 }]);
    expect(view.outputs.map((port) => port.level)).toEqual([6, 7]);
    expect(view.programs[0]!.outputs.map((part) => part.buffer)).toEqual([1, 2]);
    const top = toyParameters.keyClasses.findIndex(({ name }) => name === 'top');
    expect(view.keys).toEqual([{ kind: 'galois', galois: 5, keyClass: top, level: 7 }]);
    expect(view.plaintexts.map((p) => [p.recipe.kind, p.elements, p.rowWords])).toEqual([
      ['residue', 1, 1],
      ['diagonals', 8, 8],
      ['dft', 3, 4],
      ['vector', 1, 32],
      ['monomial', 1, 2],
    ]);
    expect(view.locations).toContain('enc/MatMul');
    expect(summary).toMatchObject({
      levels: 7,
      rotations: 2,
      planBytes: plan.length,
      weightsBytes: weights.length,
    });
    expect(printSchedule(view)).toMatch(/key_product\(.*; enc\/MatMul/);
  });

  it('shares index tables of equal content', () => {
    const view = readPlan(lower(sample()).plan);
    const names = view.tables.map((table) => table.name);
    expect(names).toContain('rows');
    expect(names).not.toContain('columns');
  });

  it('takes bytes at any place in memory, and refuses other files', () => {
    const { plan } = lower(sample());
    const shifted = new Uint8Array(plan.length + 3);
    shifted.set(plan, 3);
    expect(readPlan(shifted.subarray(3))).toEqual(readPlan(plan));
    expect(() => readPlan(new Uint8Array(64))).toThrow(AegisError);
    const view = readPlan(plan);
    expect(() => readPlan(writePlan({ ...view, formatMajor: 9 }))).toThrow(/B102.*format 9/);
  });
});

describe('the weights file', () => {
  it('is safetensors with sorted keys, floats where they are exact', () => {
    const file = writeWeights(
      new Map([
        ['b', { shape: [2], data: Float64Array.of(0.5, -3) }],
        ['a', { shape: [1, 1], data: Float64Array.of(0.1) }],
      ]),
    );
    const headerBytes = Number(new DataView(file.buffer).getBigUint64(0, true));
    expect(headerBytes % 8).toBe(0);
    const header: unknown = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + headerBytes)));
    expect(header).toEqual({
      __metadata__: { format: 'aegis-weights', version: '1' },
      a: { dtype: 'F64', shape: [1, 1], data_offsets: [0, 8] },
      b: { dtype: 'F32', shape: [2], data_offsets: [8, 16] },
    });
    const view = new DataView(file.buffer, 8 + headerBytes);
    expect([view.getFloat64(0, true), view.getFloat32(8, true), view.getFloat32(12, true)]).toEqual([
      0.1, 0.5, -3,
    ]);
  });
});

describe('placeBuffers', () => {
  it('never lets buffers that live at the same time overlap, and reuses the rest', () => {
    let state = 11;
    const next = (limit: number): number => {
      state = (state * 48271) % 2147483647;
      return state % limit;
    };
    for (let round = 0; round < 50; round++) {
      const items = Array.from({ length: 30 }, () => {
        const first = next(40);
        return { rows: 1 + next(20), first, last: first + next(10) };
      });
      const { offsets, frameRows } = placeBuffers(items);
      items.forEach((a, i) =>
        items.slice(0, i).forEach((b, j) => {
          const together = a.first <= b.last && b.first <= a.last;
          const apart = offsets[i]! + a.rows <= offsets[j]! || offsets[j]! + b.rows <= offsets[i]!;
          expect(!together || apart).toBe(true);
        }),
      );
      const live = Array.from({ length: 60 }, (_, t) =>
        items.reduce((sum, item) => sum + (item.first <= t && t <= item.last ? item.rows : 0), 0),
      );
      expect(frameRows).toBeGreaterThanOrEqual(Math.max(...live));
      expect(frameRows).toBeLessThanOrEqual(2 * Math.max(...live));
    }
  });
});

const hasFlatc = spawnSync('flatc', ['--version']).stdout?.toString().includes('2.0.8') === true;

describe('the generated schema', () => {
  it.skipIf(!hasFlatc)('is what flatc makes of plan.fbs', () => {
    const folder = mkdtempSync(join(tmpdir(), 'aegis-schema-'));
    try {
      execFileSync('bash', ['scripts/generate-plan-schema.sh', folder]);
      const files = (root: string) =>
        readdirSync(root, { recursive: true, encoding: 'utf8' })
          .filter((f) => f.endsWith('.ts'))
          .sort();
      expect(files('src/backend/generated')).toEqual(files(folder));
      for (const file of files(folder)) {
        expect(readFileSync(join('src/backend/generated', file), 'utf8')).toBe(
          readFileSync(join(folder, file), 'utf8'),
        );
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
