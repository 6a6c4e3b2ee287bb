import { describe, expect, it } from 'vitest';
import { lowerKeyswitch } from '../../src/backend/index.js';
import { insertCollectives } from '../../src/backend/insert-collectives.js';
import { overlapCommunication } from '../../src/backend/overlap-communication.js';
import { BlockBuilder, Ids } from '../../src/ir/builder.js';
import { walkOps, type AttrValue, type Module, type Value } from '../../src/ir/module.js';
import { printModule } from '../../src/ir/printer.js';
import { dealtLimbs } from '../../src/ir/sharding.js';
import type { PolyType } from '../../src/ir/types.js';
import { loadProfile } from '../../src/target/profile.js';
import { coPlace } from '../../src/passes/co-place/index.js';
import type { DeviceProfile } from '../../src/target/profile.js';
import { axis, buildModule, ct, lower, runOracle, slowLinks, toyParameters, type Source } from './oracle.js';
import { Random } from './toy-ckks.js';

/** N = 32, rows of 256 bytes: a transform or a copy of a row takes 1 s, so does a row on the link. */
const secondPerRow: DeviceProfile = {
  ...slowLinks,
  memoryBandwidth: 512,
  modularRate: 1e9,
  launchSeconds: 0,
  link: { bandwidth: 256, latencySeconds: 0, background: true },
};
const mesh = { axes: [{ name: 'limb', size: 2 }] };
const dealt = dealtLimbs(toyParameters.maxLevel + 1, toyParameters.specials, 2);

function polyType(axes: PolyType['axes'], limbs: number): PolyType {
  const list = Array.from({ length: limbs }, (_, i) => i);
  return { kind: 'poly', axes, limbs: list, form: 'ntt', sharding: [dealt] };
}

function polyModule(
  types: readonly PolyType[],
  body: (b: BlockBuilder, args: readonly Value[]) => Value[],
): Module {
  const b = new BlockBuilder(new Ids(), toyParameters, types);
  const functions = [{ name: 'main', body: b.finish(body(b, b.args)) }];
  const empty = { constants: new Map(), tables: new Map(), inputs: [], outputs: [] };
  const names = { name: 'hand', sourceHash: '0'.repeat(64) };
  return { phase: 'poly', ...names, parameters: toyParameters, functions, ...empty };
}

const gather = (b: BlockBuilder, value: Value): Value =>
  b.op('poly.collective', [value], { meshAxis: 0, to: { kind: 'replicated' } as AttrValue }, '');

function kinds(module: Module): string[] {
  const list: string[] = [];
  module.functions.forEach((func) => walkOps(func.body, (op) => list.push(op.kind.slice('poly.'.length))));
  return list;
}

describe('overlapCommunication', () => {
  const ample = { mesh, profile: secondPerRow, memoryRows: 1000 };

  /** 4 s on the link; `own` rows of work of a rank that need nothing of it. */
  const besideGather = (own: number): Module =>
    polyModule([polyType([], 8), polyType([], 2 * own)], (b, [x, y]) => {
      const gathered = gather(b, x!);
      const used = b.op('poly.intt', [gathered], {}, '');
      return [used, b.op('poly.intt', [y!], {}, '')];
    });

  it.each([
    [4, 0],
    [1, 3],
    [3, 1],
  ])('hides %i s of work behind a gather of 4 s: %i s are exposed', (own, exposed) => {
    const { module, report } = overlapCommunication(besideGather(own), ample);
    expect(report.exposedBefore).toBeCloseTo(4, 9);
    expect(report.exposedAfter).toBeCloseTo(exposed, 9);
    expect(kinds(module)).toEqual(['collective_start', 'intt', 'collective_wait', 'intt']);
  });

  it('works in chunks: the link carries one while kernels transform another', () => {
    // Of each half a rank transforms 4 rows in 4 s and sends them in 4 s. The first half is on its way while
    // the
    // second one is transformed; then the first half's 8 rows are unpacked and transformed, for longer than 4
    // s.
    const chain = polyModule([polyType([axis('j', 4)], 4)], (b, [x]) => {
      const gathered = gather(b, b.op('poly.intt', [x!], {}, ''));
      return [b.op('poly.ntt', [gathered], {}, '')];
    });
    const { module, report } = overlapCommunication(chain, ample);
    expect(report.exposedBefore).toBeCloseTo(8, 9);
    expect(report.functions[0]!.chunks).toBe(2);
    expect(report.exposedAfter).toBeCloseTo(0, 9);
    expect(kinds(module).filter((kind) => kind === 'collective_start')).toHaveLength(2);
  });

  it('keeps the order of writers and readers of an array, and blocks where nothing can be hidden', () => {
    const module = polyModule([polyType([], 2)], (b, [x]) => {
      const one = b.op('poly.intt', [gather(b, x!)], {}, '');
      return [b.op('poly.ntt', [one], {}, '')];
    });
    const { module: after, report } = overlapCommunication(module, ample);
    expect(kinds(after)).toEqual(['collective', 'intt', 'ntt']);
    expect(report.exposedAfter).toBe(report.exposedBefore);
  });

  const rotations: Source = {
    inputs: [ct([axis('j', 4)], 4), ct([axis('j', 4)], 4)],
    body: (b, [p, q]) => {
      const steps = [1, 2, 5, 7];
      const turned = b.op('ct.rotate_each', [p!], { axis: 'j', steps, sum: false }, 'rot');
      return [b.op('ct.add', [turned, q!], {}, '')];
    },
  };
  const placedPoly = (): { module: Module; mesh: typeof mesh } => {
    const cipher = buildModule(rotations);
    const { placement } = coPlace(cipher, {
      strategy: 'limb',
      devices: 2,
      profile: loadProfile('a100-40g-nvlink'),
    });
    return {
      module: insertCollectives(lowerKeyswitch(cipher, placement)),
      mesh: placement.mesh as typeof mesh,
    };
  };

  it('keeps to the rows it is given, by its estimate', () => {
    const given = placedPoly();
    const run = (memoryRows?: number) =>
      overlapCommunication(given.module, {
        mesh: given.mesh,
        profile: slowLinks,
        ...(memoryRows === undefined ? {} : { memoryRows }),
      }).report.functions[0]!;
    const free = run();
    expect(free.exposedAfter).toBeLessThan(free.exposedBefore);
    expect(free.rowsAfter).toBeLessThanOrEqual(1.1 * free.rowsBefore);
    const tight = run(free.rowsBefore);
    expect(tight.rowsAfter).toBeLessThanOrEqual(free.rowsBefore);
    const roomy = run(10 * free.rowsBefore);
    expect(roomy.exposedAfter).toBeLessThanOrEqual(tight.exposedAfter);
  });

  it('needs about the same frame', () => {
    const cipher = buildModule(rotations);
    const { placement } = coPlace(cipher, {
      strategy: 'limb',
      devices: 2,
      profile: loadProfile('a100-40g-nvlink'),
    });
    const [before, after] = [lower(cipher, placement), lower(cipher, placement, slowLinks)];
    expect(after.overlap!.functions[0]!.chunks).toBeGreaterThan(1);
    expect(after.memory.frame).toBeLessThanOrEqual(1.25 * before.memory.frame);
  });

  it('makes the same module every time', () => {
    const run = (): string => {
      const given = placedPoly();
      return printModule(overlapCommunication(given.module, { mesh: given.mesh, profile: slowLinks }).module);
    };
    expect(run()).toEqual(run());
  });

  it.each([1, 2, 3])('leaves the bits of random modules as they are: seed %i', (seed) => {
    runOracle(randomSource(seed));
  });
});

/** A few rotations, sums and products on arrays of two to five elements. */
function randomSource(seed: number): Source {
  const random = new Random(seed);
  const size = 2 + random.below(4);
  const steps = (): number[] => Array.from({ length: size }, () => random.below(6) - 1);
  return {
    inputs: [ct([axis('j', size)], 4), ct([axis('j', size)], 4)],
    body: (b, args) => {
      const values = [...args];
      const pick = (): Value => values[random.below(values.length)]!;
      for (let i = 0; i < 5; i++) {
        const kind = random.below(4);
        if (kind === 0) values.push(b.op('ct.add', [pick(), pick()], {}, ''));
        if (kind === 1) values.push(b.op('ct.sub', [pick(), pick()], {}, ''));
        if (kind === 2) {
          values.push(b.op('ct.rotate_each', [pick()], { axis: 'j', steps: steps(), sum: false }, ''));
        }
        if (kind === 3) values.push(b.op('ct.conjugate', [pick()], {}, ''));
      }
      const product = b.op(
        'ct.mul',
        [pick(), values.at(-1)!],
        { over: random.below(2) === 0 ? [] : ['j'] },
        '',
      );
      const last = b.op('ct.rescale', [b.op('ct.relinearize', [product], {}, '')], {}, '');
      return [last, values.at(-1)!];
    },
  };
}
