/**
 * Outputs of the model as encrypted outputs. What cannot be computed encrypted and feeds outputs only is left
 * to the client, which computes it from the encrypted values at the frontier after decryption.
 */
import { AegisError, type Diagnostics } from '../../support/diagnostics.js';
import { callOf, type ShapedGraph } from '../evaluate.js';
import { elementCount, isFloat, type Node } from '../model.js';
import type { Draft } from './drafts.js';
import { Site, type Surroundings } from './site.js';
import { matrixShape, type Deferred, type Symbol } from './symbols.js';

export interface LoweredPort {
  /** ONNX name of the value. */
  readonly name: string;
  readonly draft: Draft;
}

export interface LoweredOutputs {
  readonly outputs: readonly LoweredPort[];
  readonly hasEpilogue: boolean;
}

export function lowerOutputs(
  graph: ShapedGraph,
  around: Surroundings,
  problems: Diagnostics,
): LoweredOutputs {
  return new OutputLowering(graph, around, problems).run();
}

class OutputLowering {
  private readonly ports = new Map<string, LoweredPort>();
  private readonly makers = new Map<string, Node>();
  private hasEpilogue = false;

  constructor(
    private readonly graph: ShapedGraph,
    private readonly around: Surroundings,
    private readonly problems: Diagnostics,
  ) {
    for (const node of graph.nodes) for (const output of node.outputs) this.makers.set(output, node);
  }

  run(): LoweredOutputs {
    for (const name of this.graph.model.outputs) this.output(name);
    return { outputs: [...this.ports.values()], hasEpilogue: this.hasEpilogue };
  }

  private output(name: string): void {
    const symbol = this.around.symbol(name);
    const known = this.graph.values.get(name);
    if (known === undefined) return;
    if (symbol === undefined) return this.refuse(name, 'does not depend on the inputs');
    switch (symbol.kind) {
      case 'opaque':
        return;
      case 'client':
        return isFloat(known.dtype)
          ? this.port(name, this.around.encrypted(symbol))
          : this.refuse(name, 'depends on nothing encrypted', 'F205');
      case 'deferred':
        return this.epilogue(name, symbol);
      case 'never':
        return this.refuse(name, `is ${known.dtype}, expected floating point`);
      case 'scores':
      case 'view':
        return isFloat(known.dtype)
          ? this.port(name, symbol)
          : this.refuse(name, `is ${known.dtype}, expected floating point`);
      default:
        return symbol satisfies never;
    }
  }

  private refuse(name: string, message: string, code: 'F202' | 'F205' = 'F202'): void {
    const help = 'remove it from the model';
    this.problems.report({ code, message: `output "${name}" ${message}`, help });
  }

  private port(name: string, symbol: Symbol): void {
    if (this.ports.has(name)) return;
    const node: Node = this.makers.get(name) ?? {
      name,
      opType: 'output',
      domain: '',
      inputs: [],
      outputs: [],
      attributes: new Map(),
    };
    const { model, values } = this.graph;
    const site = new Site(callOf(node, model.opset, values), this.around);
    try {
      const { rows, columns } = matrixShape(symbol.shape);
      if (symbol.kind === 'view' && this.isMovable(symbol.index) && !site.isMatrix(symbol, rows, columns)) {
        return this.moved(name, symbol, site);
      }
      this.ports.set(name, { name, draft: site.matrix(site.asView(symbol), rows, columns) });
    } catch (error) {
      if (!(error instanceof AegisError)) throw error;
      if (symbol.kind === 'view' && this.isMovable(symbol.index)) return this.moved(name, symbol, site);
      error.diagnostics.forEach((diagnostic) => this.problems.report(diagnostic));
    }
  }

  private isMovable(index: Int32Array | null): index is Int32Array {
    return index?.every((i) => i >= 0) === true;
  }

  /** An arrangement that no layout has is made from the whole matrix after decryption. */
  private moved(name: string, view: Symbol & { kind: 'view' }, site: Site): void {
    const { client } = this.around;
    const draft = site.scaled(view.draft, view.scale);
    const port = client.declare([draft.rows, draft.columns]);
    this.ports.set(port, { name: port, draft });
    const flat = client.reshape(port, [elementCount([draft.rows, draft.columns])]);
    const picked = client.apply('Gather', [flat, client.ints(...(view.index ?? []))], { axis: 0 });
    client.alias(name, client.reshape(picked, view.shape));
    this.hasEpilogue = true;
  }

  /** Makes ports of the encrypted values that an output left to the client is computed from. */
  private epilogue(name: string, symbol: Deferred): void {
    const frontier = new Map<string, Symbol>();
    const seen = new Set<string>();
    const stack = [name];
    for (let value = stack.pop(); value !== undefined; value = stack.pop()) {
      if (seen.has(value) || value === '' || this.graph.values.get(value)?.data != null) continue;
      seen.add(value);
      const own = this.around.symbol(value);
      if (own?.kind === 'deferred') stack.push(...(this.makers.get(value)?.inputs ?? []));
      else if (own?.kind === 'client' && isFloat(this.graph.values.get(value)?.dtype ?? 'int64')) {
        frontier.set(value, this.around.encrypted(own));
      } else if (own?.kind === 'client') {
        const what = `is computed after decryption from "${value}", which the client knows before encryption`;
        return this.refuse(name, what, 'F205');
      } else if (own?.kind === 'view') frontier.set(value, own);
      else return symbol.problems.forEach((problem) => this.problems.report(problem));
    }
    this.hasEpilogue = true;
    for (const [value, own] of frontier) this.port(value, own);
  }
}
