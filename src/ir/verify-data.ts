/** Checks of what refers to constants and tables: plaintext recipes and ports. */
import { isFunctionName } from '../support/special-functions.js';
import { slotTransformSteps } from './interpreter/dft.js';
import { visitSlots } from './interpreter/ports.js';
import type { Constant, Func, Module, Op, Port, Value } from './module.js';
import { axesCount, type Axis, type Type } from './types.js';
import type { Report } from './verify-types.js';

/** Attributes that name a constant or a table of the module. */
const constantAttrs = ['weight', 'constant', 'bias', 'gamma', 'beta', 'keep'];
const tableAttrs = ['features', 'tokens', 'rows', 'columns', 'indices'];

/** Constants and tables that an op of any phase names exist. */
export function checkReferences(op: Op, module: Module, report: Report): boolean {
  let sound = true;
  const find = <T>(what: string, names: readonly string[], data: ReadonlyMap<string, T>): void => {
    for (const attr of names) {
      const name = op.attrs[attr];
      if (typeof name !== 'string' || data.has(name)) continue;
      sound = false;
      report('V113', `no ${what} @${name}`);
    }
  };
  find('constant', constantAttrs, module.constants);
  find('table', tableAttrs, module.tables);
  return sound;
}

/** A plaintext recipe with well-typed attributes whose data exist: sizes agree, indices are in range. */
export function checkRecipe(op: Op, module: Module, report: Report): void {
  const elements = axesCount(op.attrs.axes as unknown as readonly Axis[]);
  switch (op.kind) {
    case 'pt.constant': {
      const { length } = op.attrs.values as readonly number[];
      if (length !== elements) report('V114', `${length} values for ${elements} array elements`);
      return;
    }
    case 'pt.vector':
      return checkVector(op, module, elements, report);
    case 'pt.diagonals':
      return checkDiagonals(op, module, elements, report);
    case 'pt.dft':
      return checkDft(op, module, elements, report);
  }
}

/** Constants and tables of the tensor phase have the sizes that the op's summary states. */
export function checkTensorData(op: Op, module: Module, report: Report): void {
  const sizes = (type: Type | undefined): readonly number[] => (type?.kind === 'tensor' ? type.shape : []);
  const count = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);
  const table = module.tables.get(op.attrs.indices as string);
  if (op.kind === 'tensor.rearrange' && table !== undefined) {
    const [given, wanted] = [count(sizes(op.operands[0]?.type)), count(op.attrs.shape as readonly number[])];
    if (table.length !== wanted) report('V114', `${table.length} indices for ${wanted} elements`);
    const last = greatest(table);
    if (last >= given) report('V114', `index ${last} leaves an input of ${given} elements`);
    return;
  }
  const [tokens = 0, features = 0] = sizes(op.operands[0]?.type);
  const check = (attr: string, ...allowed: readonly number[]): void => {
    const constant = module.constants.get(op.attrs[attr] as string);
    if (constant === undefined || allowed.includes(constant.data.length)) return;
    const wanted = allowed.join(' or ');
    report('V114', `@${String(op.attrs[attr])} has ${constant.data.length} values, not ${wanted}`);
  };
  const out = op.attrs.outFeatures as number;
  switch (op.kind) {
    case 'tensor.linear': {
      const shape = module.constants.get(op.attrs.weight as string)?.shape.join('x');
      if (shape !== `${out}x${features}`) report('V114', `weight has shape ${shape}, not ${out}x${features}`);
      check('bias', out);
      return;
    }
    case 'tensor.layer_norm':
      check('gamma', features);
      check('beta', features);
      return;
    case 'tensor.attention':
      return checkAttention(op, check);
    case 'tensor.rms_norm':
      return check('gamma', features);
    case 'tensor.mix_tokens':
      return check('weight', (op.attrs.count as number) * tokens);
    case 'tensor.function':
      if (!isFunctionName(op.attrs.name as string)) report('V105', `no function ${String(op.attrs.name)}`);
      return;
    case 'tensor.concat_tokens':
      check('constant', (op.attrs.count as number) * features);
      return;
    case 'tensor.add_constant':
    case 'tensor.mul_constant':
      check('constant', features, tokens * features);
      return;
  }
}

/** Masks and biases are as large as the scores of one head, biases also as those of all heads. */
function checkAttention(op: Op, check: (attr: string, ...allowed: readonly number[]) => void): void {
  const tokens = (i: number): number => {
    const type = op.operands[i]?.type;
    return type?.kind === 'tensor' ? (type.shape[0] ?? 0) : 0;
  };
  const scores = tokens(0) * tokens(1);
  check('keep', scores);
  check('bias', scores, (op.attrs.heads as number) * scores);
}

function checkVector(op: Op, module: Module, elements: number, report: Report): void {
  const period = op.attrs.period as number;
  const constant = module.constants.get(op.attrs.constant as string);
  const features = module.tables.get(op.attrs.features as string);
  const tokens = op.attrs.tokens === undefined ? undefined : module.tables.get(op.attrs.tokens as string);
  if (constant === undefined || features === undefined) return;
  const stored = elements * ((op.attrs.iterations as number | undefined) ?? 1);
  if (features.length !== stored * period) {
    report('V114', `${features.length} features for ${stored} elements of period ${period}`);
  }
  const slots = module.parameters?.slots;
  if (tokens !== undefined && slots !== undefined) {
    const blocks = (tokens.length * period) / slots;
    if (blocks < 1 || !Number.isInteger(blocks) || elements % blocks !== 0) {
      report('V114', `period ${period} times ${tokens.length} tokens is not ${slots} slots`);
    }
  }
  const last = lastIndex(features, tokens ?? Int32Array.of(0));
  if (last >= constant.data.length) {
    report('V114', `index ${last} leaves @${String(op.attrs.constant)} of ${constant.data.length} values`);
  }
}

function checkDiagonals(op: Op, module: Module, elements: number, report: Report): void {
  const period = op.attrs.period as number;
  const weight = module.constants.get(op.attrs.weight as string) as Constant;
  const rows = module.tables.get(op.attrs.rows as string) as Int32Array;
  const columns = module.tables.get(op.attrs.columns as string) as Int32Array;
  if (weight.shape.length !== 2) {
    return report('V114', `@${String(op.attrs.weight)} has rank ${weight.shape.length}, not 2`);
  }
  const [height = 0, width = 0] = weight.shape;
  const baby = op.attrs.baby as readonly number[];
  const giant = op.attrs.giant as readonly number[];
  const steps = baby.length * giant.length;
  const pairs = (rows.length / period) * (columns.length / period);
  if (rows.length % period !== 0 || columns.length % period !== 0 || pairs * steps !== elements) {
    report(
      'V114',
      `${rows.length} rows, ${columns.length} columns of period ${period} and ${steps} steps `
        + `do not make ${elements} array elements`,
    );
  }
  const diagonals = giant.flatMap((g) => baby.map((b) => g + b)).filter((step) => Math.abs(step) < period);
  const twice = diagonals.sort((x, y) => x - y).find((step, i) => step === diagonals[i - 1]);
  if (twice !== undefined) {
    report('V114', `diagonal ${twice} is named by two pairs of steps and would count twice`);
  }
  if (greatest(rows) >= height) report('V114', `row ${greatest(rows)} leaves a weight of ${height} rows`);
  if (greatest(columns) >= width) {
    report('V114', `column ${greatest(columns)} leaves a weight of ${width} columns`);
  }
}

function checkDft(op: Op, module: Module, elements: number, report: Report): void {
  const slots = module.parameters?.slots;
  if (slots === undefined) return;
  const { first, count } = op.attrs as { first: number; count: number };
  const baby = op.attrs.baby as readonly number[];
  const giant = op.attrs.giant as readonly number[];
  if (baby.length * giant.length !== elements) {
    const steps = `${giant.length} giant and ${baby.length} baby steps`;
    return report('V119', `${steps} for ${elements} array elements`);
  }
  if (first < 1 || count < 1 || first + count - 1 > Math.log2(slots)) {
    return report('V119', `stages ${first}..${first + count - 1} are not in 1..${Math.log2(slots)}`);
  }
  const uses = new Map<number, number>();
  for (const step of giant.flatMap((g) => baby.map((b) => (((g + b) % slots) + slots) % slots))) {
    uses.set(step, (uses.get(step) ?? 0) + 1);
  }
  for (const step of slotTransformSteps(slots, first, count)) {
    const times = uses.get(step) ?? 0;
    if (times === 1) continue;
    return report('V119', `the baby and giant steps cover diagonal ${step} ${times} times, not once`);
  }
}

/** Greatest sum of a feature and a token index that occurs, -1 if none does. */
function lastIndex(features: Int32Array, tokens: Int32Array): number {
  const [feature, token] = [greatest(features), greatest(tokens)];
  return feature < 0 || token < 0 ? -1 : feature + token;
}

/** -1 for an empty table and for a table without any index. */
function greatest(table: Int32Array): number {
  return table.reduce((max, value) => Math.max(max, value), -1);
}

/** Ports against the arguments and results of `main`. */
export function checkPorts(module: Module, main: Func, report: Report): void {
  const check = (direction: 'input' | 'output', ports: readonly Port[], values: readonly Value[]): void => {
    if (ports.length !== values.length) {
      report('V115', `${ports.length} ${direction}s of the model but @${main.name} has ${values.length}`);
      return;
    }
    ports.forEach((port, i) => {
      const type = values[i]?.type;
      const first = ports.findIndex((other) => other.name === port.name);
      if (first < i) report('V115', `two ${direction}s ${port.name}`);
      const place = `${direction} ${port.name}`;
      if (type?.kind === 'tensor' && type.shape.join() !== port.shape.join()) {
        const shapes = [port.shape, type.shape].map((shape) => shape.join('x'));
        report('V115', `${place} has shape ${shapes[0]} but the value has ${shapes[1]}`);
      }
      if (type?.kind === 'ct') checkSlotMap(module, port, direction, axesCount(type.axes), report);
    });
  };
  check('input', module.inputs, main.body.args);
  check('output', module.outputs, main.body.results);
}

/** Larger maps are not searched for missing elements; real ones have some millions of slots. */
const coverageLimit = 2 ** 27;

function checkSlotMap(
  module: Module,
  port: Port,
  direction: 'input' | 'output',
  elements: number,
  report: Report,
): void {
  const fail = (message: string): void => report('V115', `${direction} ${port.name}: ${message}`);
  if (port.slots === undefined) return fail('no slot map');
  if (!Number.isFinite(port.factor) || port.factor === 0) fail(`factor ${port.factor} is not usable`);
  const { period, blocks = 1, features, tokens } = port.slots;
  const slots = module.parameters?.slots;
  if (!Number.isInteger(blocks) || blocks < 1 || elements % blocks !== 0) {
    return fail(`${blocks} token blocks of ${elements} elements`);
  }
  const groups = tokens.length / blocks;
  if (period < 1 || !Number.isSafeInteger(Math.log2(period * groups))) {
    return fail(`period ${period} times ${groups} tokens is not a power of two`);
  }
  if (slots !== undefined && period * groups !== slots) {
    return fail(`period ${period} times ${groups} tokens is not ${slots} slots`);
  }
  if (features.length !== elements * period) {
    return fail(`${features.length} features for ${elements} elements of period ${period}`);
  }
  const count = port.shape.reduce((product, size) => product * size, 1);
  const last = lastIndex(features, tokens);
  if (last >= count) return fail(`index ${last} leaves a tensor of ${count} elements`);
  if (direction === 'input') return;
  if (features.length * tokens.length > coverageLimit || count > coverageLimit) return;
  const seen = new Uint8Array(count);
  visitSlots(port.slots, (_element, _slot, index) => (seen[index] = 1));
  const missing = seen.indexOf(0);
  if (missing >= 0) fail(`tensor element ${missing} is in no slot`);
}
