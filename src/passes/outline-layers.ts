/**
 * outline-layers: isomorphic layers of `main` become one function that is called once per layer, so that what
 * follows plans, expands and lowers one layer. Ciphertexts from outside and plaintexts that differ are its
 * arguments. From packed `cipher` to the same. See docs/passes/outline-layers.md.
 */
import { BlockBuilder, Ids } from '../ir/builder.js';
import { entryName, type Block, type Func, type Module, type Op, type Value } from '../ir/module.js';
import { defined, invariant } from '../support/invariant.js';
import { removeUnused } from './merge-duplicates.js';
import { LevelFacts } from './plan-levels/walk.js';
import { findRepeat, isNullary, nullaryMakers, type Repeat } from './repeats.js';

/** Layers of this number and more are outlined; two are planned better with all of their surroundings. */
export const defaultOutline = 3;
/** Fewer ops are no layer: a call has a boundary to pay for. */
const minLayerOps = 20;

export function outlineLayers(module: Module, minCount = defaultOutline): Module {
  let current = module;
  for (let n = 1; ; n++) {
    const main = defined(
      current.functions.find((f) => f.name === entryName),
      'main',
    );
    const { canonical } = new LevelFacts(main.body);
    const repeat = findRepeat(main.body, {
      minCount,
      minOps: minLayerOps,
      keyOf: (op) => `${op.kind} ${JSON.stringify(op.attrs)}`,
      sameRecipe: (a, b) => a === b || JSON.stringify(a.attrs) === JSON.stringify(b.attrs),
      accepts: (found) => isCallable(found, canonical),
    });
    if (repeat === undefined) return current === module ? module : removeUnused(current);
    current = outlined(current, main, repeat, n === 1 ? 'layer' : `layer${n}`);
  }
}

/** Only canonical ciphertexts cross the border, and only plaintexts differ. */
function isCallable(repeat: Repeat, canonical: ReadonlySet<number>): boolean {
  const crossing = [...repeat.inputs, ...repeat.outputs].flat();
  return (
    crossing.every((value) => value.type.kind === 'ct' && canonical.has(value.id))
    && repeat.recipes.flat().every((op) => op.kind.startsWith('pt.') && op.attrs.iterations === undefined)
  );
}

type Values = Map<number, Value>;

function outlined(module: Module, main: Func, repeat: Repeat, name: string): Module {
  const ids = new Ids();
  const copier = new Copier(nullaryMakers(main.body));
  const others = module.functions
    .filter((func) => func !== main)
    .map((func) => copier.func(func, ids, module));
  const layer = layerFunction(module, repeat, name, ids, copier);

  const builder = new BlockBuilder(
    ids,
    module.parameters,
    main.body.args.map((arg) => arg.type),
  );
  const values: Values = new Map();
  main.body.args.forEach((arg, i) => values.set(arg.id, defined(builder.args[i], 'argument')));
  const starts = new Map(repeat.stretches.map((stretch, n) => [stretch[0], n]));
  const inside = new Set(repeat.stretches.flat());
  const types = layer.body.results.map((value) => value.type);
  for (const op of main.body.ops) {
    const n = starts.get(op);
    if (n !== undefined) {
      const at = <T>(list: readonly T[]): T => defined(list[n], 'value of the layer');
      const operands = [
        ...repeat.inputs.map((list) => copier.value(at(list), builder, values)),
        ...repeat.recipes.map((list) =>
          copier.value(defined(at(list).results[0], 'recipe'), builder, values),
        ),
      ];
      const results = builder.call(name, operands, types, op.loc);
      repeat.outputs.forEach((list, i) => values.set(at(list).id, defined(results[i], 'result')));
    } else if (!inside.has(op)) copier.op(op, builder, values);
  }
  const results = main.body.results.map((value) => copier.value(value, builder, values));
  const entry: Func = { ...main, body: builder.finish(results) };
  return { ...module, functions: [...others, layer, entry] };
}

function layerFunction(module: Module, repeat: Repeat, name: string, ids: Ids, copier: Copier): Func {
  const first = <T>(list: readonly T[]): T => defined(list[0], 'value of the first layer');
  const args = [
    ...repeat.inputs.map(first),
    ...repeat.recipes.map((list) => defined(first(list).results[0], 'recipe')),
  ];
  const builder = new BlockBuilder(
    ids,
    module.parameters,
    args.map((arg) => arg.type),
  );
  const values: Values = new Map();
  args.forEach((arg, i) => values.set(arg.id, defined(builder.args[i], 'argument')));
  for (const op of first(repeat.stretches)) copier.op(op, builder, values);
  return {
    name,
    body: builder.finish(repeat.outputs.map((list) => copier.value(first(list), builder, values))),
  };
}

/** Copies ops; ops without operands are made where they are first read. */
class Copier {
  constructor(private readonly makers: ReadonlyMap<number, Op>) {}

  func(func: Func, ids: Ids, { parameters }: Module): Func {
    const copier = new Copier(nullaryMakers(func.body));
    const { args, ops, results } = func.body;
    const builder = new BlockBuilder(
      ids,
      parameters,
      args.map((arg) => arg.type),
    );
    const values: Values = new Map();
    args.forEach((arg, i) => values.set(arg.id, defined(builder.args[i], 'argument')));
    for (const op of ops) copier.op(op, builder, values);
    return { ...func, body: builder.finish(results.map((value) => copier.value(value, builder, values))) };
  }

  value(value: Value, builder: BlockBuilder, values: Values): Value {
    const known = values.get(value.id);
    if (known !== undefined) return known;
    const maker = defined(this.makers.get(value.id), `new value of %${value.id}`);
    const made = builder.op(maker.kind, [], maker.attrs, maker.loc);
    values.set(value.id, made);
    return made;
  }

  op(op: Op, builder: BlockBuilder, values: Values): void {
    if (isNullary(op)) return;
    const operands = op.operands.map((value) => this.value(value, builder, values));
    const results = this.results(op, operands, builder, values);
    op.results.forEach((result, i) => values.set(result.id, defined(results[i], 'result')));
  }

  private results(
    op: Op,
    operands: readonly Value[],
    builder: BlockBuilder,
    values: Values,
  ): readonly Value[] {
    if (op.kind === 'call') {
      const types = op.results.map((value) => value.type);
      return builder.call(op.attrs.callee as string, operands, types, op.loc);
    }
    if (op.kind !== 'loop') return [builder.op(op.kind, operands, op.attrs, op.loc)];
    const region: Block = defined(op.regions[0], 'loop body');
    invariant(op.regions.length === 1, 'a loop has one region');
    return builder.loop(op.attrs.tripCount as number, operands, op.loc, (inner, carried) => {
      // What the body makes ends with it.
      const own: Values = new Map(values);
      region.args.forEach((arg, i) => own.set(arg.id, defined(carried[i], 'carried value')));
      for (const nested of region.ops) this.op(nested, inner, own);
      return region.results.map((value) => this.value(value, inner, own));
    });
  }
}
