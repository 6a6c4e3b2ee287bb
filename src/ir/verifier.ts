/**
 * The verifier: what must hold of every module, on both sides of every pass. Reports everything it finds:
 * V101 unknown op                  V102 op or type of another phase    V103 attribute missing
 * V104 attribute unknown           V105 attribute ill-typed            V106 operand, result, block counts
 * V107 types against infer         V108 value out of scope             V109 value defined twice or retyped
 * V110 loop-carried types          V111 call                           V112 recursion
 * V113 no such constant or table   V114 sizes, indices of data         V115 ports
 * V116 type out of bounds          V117 boundary not degree 1, basis q V118 index or loopStride
 * V119 pt.dft steps                V120 function names                 V121 modelled function
 */
import { AegisError, type Diagnostic } from '../support/diagnostics.js';
import { entryName, walkOps, type Block, type Func, type Module, type Op, type Value } from './module.js';
import { declaredByCaller, type OpDef } from './opdef.js';
import { opTable } from './ops/table.js';
import { nameValues, printOp, printType, typesEqual } from './printer.js';
import { axisSize, type Phase, type Type } from './types.js';
import { checkPorts, checkRecipe, checkReferences, checkTensorData } from './verify-data.js';
import { attrProblem, phaseProblem, typeProblem, type Report } from './verify-types.js';

/** All faults of a module; empty if it is sound. */
export function verifyModule(module: Module, passName?: string): readonly Diagnostic[] {
  return new Verifier(module, passName).run();
}

/** Throws an AegisError with every fault: `passName` is the pass that made the module. */
export function assertVerified(module: Module, passName: string): void {
  const list = verifyModule(module, passName);
  if (list.length > 0) throw new AegisError(list);
}

/** Longer ops, with thousands of coefficients, say no more about the fault. */
const excerptChars = 240;

interface Scope {
  readonly func: Func;
  readonly names: ReadonlyMap<number, string>;
  /** Values that can be used here. */
  readonly visible: Map<number, Type>;
  /** Every value defined so far in the function. */
  readonly defined: Set<number>;
  /** Trip counts of the enclosing loops, innermost last. */
  readonly tripCounts: number[];
}

class Verifier {
  private readonly list: Diagnostic[] = [];
  private readonly functions = new Map<string, Func>();

  constructor(
    private readonly module: Module,
    private readonly pass: string | undefined,
  ) {}

  run(): readonly Diagnostic[] {
    for (const func of this.module.functions) {
      if (this.functions.has(func.name)) this.report('V120', `function @${func.name} is defined twice`);
      this.functions.set(func.name, func);
    }
    const main = this.functions.get(entryName);
    if (main === undefined) this.report('V120', `no function @${entryName}`);
    else checkPorts(this.module, main, (code, message, help) => this.report(code, message, help));
    for (const func of this.module.functions) this.checkFunction(func);
    this.checkRecursion();
    return this.list;
  }

  private report(
    code: string,
    message: string,
    help?: string,
    op?: Op,
    names?: ReadonlyMap<number, string>,
  ): void {
    const text = op === undefined ? undefined : printOp(op, names ?? new Map());
    const long = text !== undefined && text.length > excerptChars;
    const excerpt = long ? `${text.slice(0, excerptChars)}...` : text;
    const node = op === undefined || op.loc === '' ? undefined : op.loc;
    this.list.push({ code, message, node, pass: this.pass, help, excerpt });
  }

  private checkFunction(func: Func): void {
    const scope: Scope = {
      func,
      names: nameValues(func),
      visible: new Map(),
      defined: new Set(),
      tripCounts: [],
    };
    const report: Report = (code, message, help) => {
      this.report(code, `function @${func.name}: ${message}`, help);
    };
    this.enterBlock(func.body, scope, report);
    for (const value of [...func.body.args, ...func.body.results]) {
      this.checkBoundary(value, 'a value that crosses a function boundary', report);
    }
    if (func.models !== undefined) checkModel(func, report);
  }

  private enterBlock(block: Block, scope: Scope, report: Report): void {
    const before = new Set(scope.visible.keys());
    for (const arg of block.args) this.define(arg, scope, report);
    for (const op of block.ops) this.checkOp(op, scope);
    for (const value of block.results) this.checkUse(value, scope, report);
    for (const id of scope.visible.keys()) if (!before.has(id)) scope.visible.delete(id);
  }

  private define(value: Value, scope: Scope, report: Report): void {
    if (scope.defined.has(value.id)) report('V109', `value ${nameIn(scope, value)} is defined twice`);
    const problem = phaseProblem(value.type, this.module.phase);
    if (problem !== undefined) report('V102', problem);
    const bounds = typeProblem(value.type, this.module.parameters);
    if (bounds !== undefined) report('V116', `value ${nameIn(scope, value)}: ${bounds}`);
    scope.defined.add(value.id);
    scope.visible.set(value.id, value.type);
  }

  private checkUse(value: Value, scope: Scope, report: Report): void {
    const type = scope.visible.get(value.id);
    if (type === undefined) {
      report(
        'V108',
        scope.names.has(value.id)
          ? `value ${nameIn(scope, value)} is used before its definition or out of its block`
          : `value ${nameIn(scope, value)} is used but never defined`,
      );
    } else if (!typesEqual(type, value.type)) {
      const [own, used] = [printType(type), printType(value.type)];
      report('V109', `value ${nameIn(scope, value)} has type ${own} but is used as ${used}`);
    }
  }

  private checkBoundary({ type }: Value, what: string, report: Report): void {
    if (type.kind !== 'ct' || (type.degree === 1 && type.basis.kind === 'q')) return;
    report(
      'V117',
      `${what} must have degree 1 and basis q but is ${printType(type)}`,
      'insert ct.relinearize or ct.mod_down before it',
    );
  }

  private checkOp(op: Op, scope: Scope): void {
    const report: Report = (code, message, help) => this.report(code, message, help, op, scope.names);
    const def = opTable.get(op.kind);
    for (const value of op.operands) this.checkUse(value, scope, report);
    if (def === undefined) report('V101', `unknown op ${op.kind}`);
    else {
      if (!belongs(def, this.module.phase)) {
        report('V102', `${op.kind} is of phase ${def.phase} but the module of phase ${this.module.phase}`);
      }
      const shaped = checkCounts(op, def, report);
      if (checkAttrs(op, def, report) && shaped) this.checkMeaning(op, def, scope, report);
    }
    const trips = op.kind === 'loop' && typeof op.attrs.tripCount === 'number' ? op.attrs.tripCount : 1;
    scope.tripCounts.push(trips);
    for (const region of op.regions) this.enterBlock(region, scope, report);
    scope.tripCounts.pop();
    for (const value of op.results) this.define(value, scope, report);
  }

  /** What can be said once attributes are well-typed and counts are right. */
  private checkMeaning(op: Op, def: OpDef, scope: Scope, report: Report): void {
    this.checkInferred(op, def, report);
    if (op.kind === 'loop') this.checkLoop(op, report);
    if (op.kind === 'call') this.checkCall(op, report);
    const found = checkReferences(op, this.module, report);
    if (found && op.kind.startsWith('pt.')) checkRecipe(op, this.module, report);
    if (found && op.kind.startsWith('tensor.')) checkTensorData(op, this.module, report);
    this.checkStride(op, scope, report);
  }

  private checkInferred(op: Op, def: OpDef, report: Report): void {
    let types: readonly Type[] | string;
    try {
      const { parameters } = this.module;
      types = def.infer(
        op.operands.map((value) => value.type),
        op.attrs,
        { parameters },
      );
    } catch (error) {
      // Attributes of kind json and odd type combinations come from untrusted text: no infer foresees all of
      // them.
      const why = error instanceof Error ? error.message : '';
      types = `${op.kind} cannot take these operands and attributes: ${why}`;
    }
    if (types === declaredByCaller) return;
    if (typeof types === 'string') return report('V107', types);
    if (types.length !== op.results.length) {
      return report('V106', `${op.kind} has ${types.length} results but ${op.results.length} are stored`);
    }
    types.forEach((type, i) => {
      const stored = op.results[i]?.type;
      if (stored === undefined || typesEqual(type, stored)) return;
      report('V107', `result ${i} is stored as ${printType(stored)} but ${op.kind} gives ${printType(type)}`);
    });
  }

  private checkLoop(op: Op, report: Report): void {
    const body = op.regions[0];
    if (body === undefined) return;
    const trips = op.attrs.tripCount as number;
    if (trips < 1) report('V110', `tripCount is ${trips}, not at least 1`);
    const lists: readonly (readonly [string, readonly Value[]])[] = [
      ['block arguments', body.args],
      ['yields', body.results],
      ['results', op.results],
    ];
    for (const [what, values] of lists) {
      if (values.length !== op.operands.length) {
        report('V110', `loop carries ${op.operands.length} values but has ${values.length} ${what}`);
        continue;
      }
      values.forEach((value, i) => {
        const initial = op.operands[i];
        if (initial === undefined || typesEqual(initial.type, value.type)) return;
        const [first, later] = [printType(initial.type), printType(value.type)];
        report(
          'V110',
          `carried value ${i} starts as ${first} but its ${what.slice(0, -1)} is ${later}`,
          'carried values keep one level, scale and shape: adjust or bootstrap in the body',
        );
      });
    }
    for (const value of op.operands) this.checkBoundary(value, 'a loop-carried value', report);
  }

  private checkCall(op: Op, report: Report): void {
    const callee = this.functions.get(op.attrs.callee as string);
    if (callee === undefined) return report('V111', `no function @${String(op.attrs.callee)}`);
    const compare = (what: string, given: readonly Value[], declared: readonly Value[]): void => {
      if (given.length !== declared.length) {
        const wanted = `${declared.length} ${what}s`;
        return report('V111', `@${callee.name} has ${wanted} but the call has ${given.length}`);
      }
      given.forEach((value, i) => {
        const wanted = declared[i];
        if (wanted === undefined || typesEqual(value.type, wanted.type)) return;
        const types = `${printType(wanted.type)} but the call has ${printType(value.type)}`;
        report('V111', `${what} ${i} of @${callee.name} is ${types}`);
      });
    };
    compare('argument', op.operands, callee.body.args);
    compare('result', op.results, callee.body.results);
  }

  private checkStride(op: Op, scope: Scope, report: Report): void {
    const stride = op.attrs.loopStride;
    const trips = scope.tripCounts.at(-1);
    if (typeof stride === 'number' && trips === undefined) {
      report('V118', 'loopStride needs an enclosing loop');
    }
    const iterations = op.attrs.iterations;
    if (typeof iterations === 'number' && iterations !== trips) {
      report('V118', `${iterations} iterations in a loop of ${trips ?? 'none'}`);
    }
    if (op.kind !== 'ct.index' && op.kind !== 'poly.index') return;
    const type = op.operands[0]?.type;
    if (type?.kind !== 'ct' && type?.kind !== 'poly') return;
    const size = axisSize(type.axes, op.attrs.axis as string);
    const first = op.attrs.index as number;
    const last = first + (typeof stride === 'number' ? stride : 0) * ((trips ?? 1) - 1);
    if (size !== undefined && (Math.min(first, last) < 0 || Math.max(first, last) >= size)) {
      report('V118', `indices ${first}..${last} leave axis ${String(op.attrs.axis)} of size ${size}`);
    }
  }

  private checkRecursion(): void {
    const state = new Map<string, 'open' | 'done'>();
    const visit = (func: Func): void => {
      state.set(func.name, 'open');
      walkOps(func.body, (op) => {
        const callee = op.kind === 'call' ? this.functions.get(String(op.attrs.callee)) : undefined;
        if (callee === undefined) return;
        const known = state.get(callee.name);
        if (known === 'open') {
          this.report('V112', `function @${callee.name} calls itself through @${func.name}`, undefined, op);
        } else if (known === undefined) visit(callee);
      });
      state.set(func.name, 'done');
    };
    for (const func of this.functions.values()) if (!state.has(func.name)) visit(func);
  }
}

/** Plaintext recipes are declared for the cipher phase and live on in the poly phase. */
function belongs(def: OpDef, phase: Phase): boolean {
  return def.phase === 'any' || def.phase === phase || (phase === 'poly' && def.name.startsWith('pt.'));
}

function nameIn(scope: Scope, value: Value): string {
  return scope.names.get(value.id) ?? `%undefined${value.id}`;
}

/** The clear interpreter maps argument i of a modelled function to result i. */
function checkModel(func: Func, report: Report): void {
  const count = func.body.args.filter((arg) => arg.type.kind === 'ct').length;
  if (count !== func.body.results.length) {
    const results = func.body.results.length;
    report('V121', `${count} ciphertext arguments but ${results} results in a modelled function`);
  }
}

function checkCounts(op: Op, def: OpDef, report: Report): boolean {
  const variadic = def.operands.at(-1)?.endsWith('...') === true;
  const most = variadic ? Infinity : def.operands.length;
  const least = def.operands.filter((name) => !/(\.\.\.|\?)$/.test(name)).length;
  const count = op.operands.length;
  const fits = count >= least && count <= most;
  const wanted = `${least}${variadic ? ' or more' : most > least ? ` to ${most}` : ''} operands`;
  if (!fits) report('V106', `${op.kind} takes ${wanted} but has ${count}`);
  const regions = def.regions ?? 0;
  const given = op.regions.length;
  if (given !== regions) report('V106', `${op.kind} has ${regions} regions but ${given} are given`);
  return fits && given === regions;
}

function checkAttrs(op: Op, def: OpDef, report: Report): boolean {
  let sound = true;
  const fail = (code: string, message: string): void => {
    sound = false;
    report(code, message);
  };
  for (const [name, attr] of Object.entries(def.attrs)) {
    const value = op.attrs[name];
    if (value === undefined) {
      if (attr.optional !== true) fail('V103', `${op.kind} needs attribute ${name}`);
      continue;
    }
    const problem = attrProblem(value, attr.kind);
    if (problem !== undefined) fail('V105', `attribute ${name} must be ${problem}`);
  }
  for (const name of Object.keys(op.attrs)) {
    if (!Object.hasOwn(def.attrs, name)) fail('V104', `${op.kind} has no attribute ${name}`);
  }
  return sound;
}
