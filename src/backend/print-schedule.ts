/** The schedule of a plan as text, for `aegis inspect --phase schedule`. */
import { defined } from '../support/invariant.js';
import type { Command, Plaintext, PlanFunction, PlanView, View } from './plan-view.js';

export function printSchedule(plan: PlanView): string {
  const lines: string[] = [];
  plan.programs.forEach((program, rank) => {
    lines.push(`program ${rank}`);
    program.functions.forEach((func, index) => printFunction(plan, program.functions, func, index, lines));
  });
  return `${lines.join('\n')}\n`;
}

function printFunction(
  plan: PlanView,
  functions: readonly PlanFunction[],
  func: PlanFunction,
  index: number,
  lines: string[],
): void {
  lines.push(`  function ${index} @${func.name}: frame ${func.frameRows} rows`);
  func.buffers.forEach((buffer, i) => {
    lines.push(`    b${i}: ${buffer.rows} rows ${buffer.argument ? 'argument' : `at ${buffer.offset}`}`);
  });
  func.plaintexts.forEach((slot, i) => {
    const p = slot.argument ? undefined : plan.plaintexts[slot.plaintext];
    const shape = p === undefined ? '' : plaintextShape(p);
    lines.push(`    p${i}: ${p === undefined ? 'argument' : `${p.recipe.kind} ${shape}, scale ${p.scale}`}`);
  });
  const print = (command: Command, indent: string): void => {
    const place = defined(plan.locations[command.node], 'location');
    const note = place === '' ? '' : `  ; ${place}`;
    if (command.op === 'loop') {
      lines.push(`${indent}loop ${command.tripCount} {${note}`);
      command.body.forEach((inner) => print(inner, `${indent}  `));
      lines.push(`${indent}}`);
    } else {
      const text = command.op === 'call' ? callText(command, functions) : commandText(plan, command);
      lines.push(`${indent}${text}${note}`);
    }
  };
  func.commands.forEach((command) => print(command, '    '));
}

function plaintextShape({ elements, limbs, rowWords, coefficients }: Plaintext): string {
  if (coefficients) return `${elements} x ${rowWords} coefficients`;
  return `${elements} x ${limbText(limbs)} x ${rowWords} words`;
}

function callText(command: Command, functions: readonly PlanFunction[]): string {
  const bindings = command.bindings.map(({ buffer, offset }) => `b${buffer}+${offset}`);
  const plaintexts = command.plainBindings.map((slot) => `p${slot}`);
  const name = functions[command.callee]?.name ?? String(command.callee);
  return `call @${name}(${[...bindings, ...plaintexts].join(', ')}) frame +${command.frameOffset}`;
}

function commandText(plan: PlanView, command: Command): string {
  const { op, collective, blocking, a, out } = command;
  if (op === 'wait') return `wait for collective ${collective}`;
  if (op !== 'collective') return launchText(command);
  const { kind, rows } = defined(plan.collectives[collective], 'collective');
  const blocks = [viewText('b', a) || '-', viewText('b', out) || '-'].join(' -> ');
  return `${blocking ? '' : 'start '}collective ${collective} ${kind}(${blocks}) rows [${excerpt(rows)}]`;
}

function launchText(command: Command): string {
  const { dims, reduceRank, accumulate } = command;
  const kept = dims.slice(0, dims.length - reduceRank).join('x');
  const summed = reduceRank === 0 ? '' : ` sum ${dims.slice(dims.length - reduceRank).join('x')}`;
  const operands = [viewText('b', command.a), viewText('b', command.b), viewText('p', command.plain)].filter(
    (t) => t !== '',
  );
  const turned =
    command.op === 'key_product'
      ? ` keys [${excerpt(command.keys)}], ${command.digitCount} digits`
      : command.op === 'automorphism'
        ? ` galois [${excerpt(command.galois)}]`
        : '';
  const source = command.sourceLimbs.length === 0 ? '' : ` from ${limbText(command.sourceLimbs)}`;
  return (
    `${viewText('b', command.out)} ${accumulate ? '+=' : '='} ${command.op}(${operands.join(', ')})`
    + ` [${kept}]${summed} limbs ${limbText(command.limbs)}${source}${turned}`
  );
}

function viewText(prefix: string, view: View | null): string {
  if (view === null) return '';
  const strides = view.strides.length === 0 ? '' : `<${view.strides.join(',')}>`;
  const loops = view.loopStrides.some((stride) => stride !== 0) ? `+i*<${view.loopStrides.join(',')}>` : '';
  return `${prefix}${view.buffer}+${view.offset}${loops}${strides}`;
}

const excerptLength = 8;

function excerpt(values: readonly number[]): string {
  const head = values.slice(0, excerptLength).join(' ');
  return values.length > excerptLength ? `${head} ... (${values.length})` : head;
}

/** `0..4`, `0..4,7`: runs of neighbours. */
function limbText(limbs: readonly number[]): string {
  const runs: [number, number][] = [];
  for (const limb of limbs) {
    const last = runs.at(-1);
    if (last !== undefined && last[1] + 1 === limb) last[1] = limb;
    else runs.push([limb, limb]);
  }
  return runs.map(([first, last]) => (first === last ? String(first) : `${first}..${last}`)).join(',');
}
