/**
 * What `inspect` says about a module: of a model (tensor phase), of a cipher text file, or lowered to polys.
 */
import { walkOps, type Approximation, type Module, type Op } from '../ir/module.js';
import { describeApproximations } from './approximations.js';
import { printType } from '../ir/printer.js';
import { bold, formatError, formatFields, formatTable, insecureNotice, type Style } from './format.js';

export interface ModuleDescription {
  readonly file: 'model' | 'cipher';
  readonly phase: Module['phase'];
  readonly model: string;
  readonly sourceHash: string;
  readonly insecure: boolean;
  readonly logN: number | null;
  readonly logQP: number | null;
  readonly securityBits: number | null;
  readonly inputs: readonly { name: string; shape: readonly number[] }[];
  readonly outputs: readonly { name: string; shape: readonly number[]; predictedError: number | null }[];
  /** Of a cipher module. */
  readonly approximations: readonly Approximation[];
  readonly functions: readonly { name: string; ops: number }[];
  /** Ops in the text, loops counted once. */
  readonly ops: Readonly<Record<string, number>>;
  readonly constantElements: number;
}

export function describeModule(module: Module, file: ModuleDescription['file']): ModuleDescription {
  const counts = new Map<string, number>();
  const functions = module.functions.map((func) => {
    let ops = 0;
    walkOps(func.body, (op) => {
      ops++;
      counts.set(op.kind, (counts.get(op.kind) ?? 0) + 1);
    });
    return { name: func.name, ops };
  });
  const { parameters } = module;
  return {
    file,
    phase: module.phase,
    model: module.name,
    sourceHash: module.sourceHash,
    insecure: parameters?.insecure ?? false,
    logN: parameters?.logN ?? null,
    logQP: parameters?.logQP ?? null,
    securityBits: parameters?.securityBits ?? null,
    inputs: module.inputs.map(({ name, shape }) => ({ name, shape })),
    outputs: module.outputs.map(({ name, shape, predictedError }) => ({
      name,
      shape,
      predictedError: predictedError ?? null,
    })),
    approximations: module.approximations ?? [],
    functions,
    ops: Object.fromEntries([...counts].sort(([a], [b]) => (a < b ? -1 : 1))),
    constantElements: [...module.constants.values()].reduce((sum, { data }) => sum + data.length, 0),
  };
}

export function moduleText(path: string, d: ModuleDescription, style: Style): string {
  const shape = (sizes: readonly number[]) => `[${sizes.join(', ')}]`;
  const rows: [string, string][] = [
    ['inputs', d.inputs.map((port) => `${port.name} ${shape(port.shape)}`).join(', ')],
    ['outputs', d.outputs.map((port) => `${port.name} ${shape(port.shape)}`).join(', ')],
    ['functions', d.functions.map((func) => `${func.name} (${func.ops} ops)`).join(', ')],
    [
      'ops',
      Object.entries(d.ops)
        .map(([kind, count]) => `${kind} ${count}`)
        .join(', '),
    ],
    ['weights', `${d.constantElements} values`],
  ];
  if (d.logN !== null) rows.unshift(['ring', `N = 2^${d.logN}, log2(QP) = ${(d.logQP ?? 0).toFixed(1)}`]);
  if (d.file === 'cipher') rows.push(['approximations', describeApproximations(d.approximations)]);
  const errors = d.outputs.filter((port) => port.predictedError !== null);
  if (errors.length > 0) {
    const texts = errors.map((port) => `${port.name} ${formatError(port.predictedError ?? 0)}`);
    rows.push(['predicted error', texts.join(', ')]);
  }
  const kind = d.file === 'model' ? 'model' : 'module';
  const head = `${bold(style, path)}: ${kind} ${d.model}, phase ${d.phase}`;
  return `${[head, ...(d.insecure ? [insecureNotice(style)] : []), formatFields(rows)].join('\n')}\n`;
}

export interface NodeOp {
  readonly function: string;
  readonly op: string;
  readonly node: string;
  readonly result: string;
}

/** Ops made for ONNX nodes whose name contains `name`. */
export function opsOfNode(module: Module, name: string): NodeOp[] {
  const found: NodeOp[] = [];
  for (const func of module.functions) {
    walkOps(func.body, (op: Op) => {
      if (!op.loc.includes(name)) return;
      found.push({
        function: func.name,
        op: op.kind,
        node: op.loc,
        result: op.results.map((value) => printType(value.type)).join(', '),
      });
    });
  }
  return found;
}

export function nodeOpsText(ops: readonly NodeOp[]): string {
  return `${formatTable([
    ['function', 'op', 'node', 'result'],
    ...ops.map((op) => [op.function, op.op, op.node, op.result]),
  ])}\n`;
}
