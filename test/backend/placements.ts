/** Placements of test modules: the strategies of co-place, and limbs dealt to ranks for every op. */
import type { Block, Module, Op } from '../../src/ir/module.js';
import type { OpPlacement, PlacedFunction, Placement, Shardings } from '../../src/ir/placement.js';
import { dealtLimbs, type Mesh } from '../../src/ir/sharding.js';
import type { Sharding, Type } from '../../src/ir/types.js';
import { coPlace, strategies } from '../../src/passes/co-place/index.js';
import { loadProfile } from '../../src/target/profile.js';

type ModUpForm = 'broadcast' | 'aggregate';

/** Every value where its type says, every key switch in one form. */
export function uniformPlacement(
  module: Module,
  mesh: Mesh,
  lay: (type: Type) => Shardings,
  modUp: ModUpForm = 'broadcast',
): Placement {
  const list = (values: readonly { readonly type: Type }[]) => values.map(({ type }) => lay(type));
  const functions = [...module.functions].reverse().map((func): PlacedFunction => {
    const ops = new Map<Op, OpPlacement>();
    const visit = (block: Block): void => {
      for (const op of block.ops) {
        const placed = { operands: list(op.operands), results: list(op.results), modUp };
        ops.set(op, op.kind === 'call' ? { ...placed, callee: op.attrs.callee as string } : placed);
        op.regions.forEach(visit);
      }
    };
    visit(func.body);
    const { args, results } = func.body;
    return { name: func.name, source: func.name, args: list(args), results: list(results), ops };
  });
  const ranks = mesh.axes.map(({ name, size }) => `${name}=${size}`).join();
  return { mesh, strategy: `${ranks} ${modUp}`, functions };
}

/** Limbs dealt round-robin. */
export function limbsOf(module: Module, ranks: number): Sharding {
  const { maxLevel, specials } = module.parameters!;
  return dealtLimbs(maxLevel + 1, specials, ranks);
}

/** Every value with limbs dealt round-robin. */
export function limbPlacement(module: Module, ranks: number, modUp: ModUpForm = 'broadcast'): Placement {
  const limbs = [limbsOf(module, ranks)];
  return uniformPlacement(module, { axes: [{ name: 'limb', size: ranks }] }, () => limbs, modUp);
}

/**
 * What every test module is lowered with: all strategies, on two or three ranks, and both forms of the key
 * switch.
 */
export function placementsOf(module: Module): Placement[] {
  const profile = loadProfile('a100-40g-nvlink');
  const optimised = strategies.map(
    (strategy, i) => coPlace(module, { strategy, devices: 2 + (i % 2), profile }).placement,
  );
  return [...optimised, limbPlacement(module, 3, 'broadcast'), limbPlacement(module, 2, 'aggregate')];
}
