/**
 * What noise does to each node: runs with noise are compared with the run without, op by op, on a sample of
 * slots. Ops run in the same order in every run, so the n-th call of an observer is the same op on the same
 * iteration.
 */
import { defined, invariant } from '../../support/invariant.js';
import type { Parameters } from '../../target/parameters.js';
import type { CipherValue } from '../../ir/interpreter/cipher.js';
import { walkOps, type Module, type Op, type Value } from '../../ir/module.js';

export interface NodeError {
  /** ONNX node. */
  readonly node: string;
  readonly ops: number;
  /** Level of the node's last op, and its scale. */
  readonly level: number;
  readonly scaleBits: number;
  /** Largest slot value found, of the sample. */
  readonly magnitude: number;
  /** Largest deviation of a slot under noise, root mean square over runs, in slot values. */
  readonly noise: number;
  /** Largest deviation of a slot in any run. */
  readonly largest: number;
}

type Observer = (op: Op, values: readonly CipherValue[]) => void;

/** Elements and slots of each result that are compared: a few of every token's and head's, 2 KiB an op. */
const [sampleElements, sampleSlots] = [4, 64];

interface Row {
  ops: number;
  level: number;
  scaleBits: number;
  magnitude: number;
  largest: number;
}

export class NodeTable {
  private readonly table = new Map<string, Row>();
  /** Root mean square of each value, by id: the largest over runs and iterations. */
  private readonly magnitudes = new Map<number, number>();
  /** Samples of every observed result, run by run. */
  private readonly samples: Float64Array[][] = [];
  /** Sums of squared deviations over runs, for every observed result as in `samples`. */
  private readonly squares: Float64Array[] = [];
  /** Nodes of the same results. */
  private readonly owners: string[] = [];
  private runs = 0;

  constructor(
    module: Module,
    private readonly parameters: Parameters,
  ) {
    for (const func of module.functions) {
      if (func.models === undefined) walkOps(func.body, (op) => this.declare(op));
    }
  }

  private declare(op: Op): void {
    const type = op.results[0]?.type;
    if (type?.kind !== 'ct') return;
    const row = this.row(op.loc);
    row.ops++;
    row.level = type.level ?? row.level;
    const scale = this.parameters.scales[row.level];
    row.scaleBits = scale === undefined ? row.scaleBits : Math.log2(scale);
  }

  private row(node: string): Row {
    const row = this.table.get(node) ?? {
      ops: 0,
      level: 0,
      scaleBits: 0,
      magnitude: 0,
      noise: 0,
      largest: 0,
    };
    this.table.set(node, row);
    return row;
  }

  cleanRun(): Observer {
    const samples: Float64Array[] = [];
    this.samples.push(samples);
    return (op, values) =>
      values.forEach((value, i) => {
        const sample = sampleOf(value);
        samples.push(sample);
        const result = op.results[i];
        if (result !== undefined) {
          this.magnitudes.set(
            result.id,
            Math.max(this.magnitudes.get(result.id) ?? 0, rootMeanSquare(sample)),
          );
        }
        const row = this.row(op.loc);
        row.magnitude = sample.reduce((max, x) => Math.max(max, Math.abs(x)), row.magnitude);
      });
  }

  /** `reference`: the number of the clean run on the same input. */
  noisyRun(reference: number): Observer {
    const clean = defined(this.samples[reference], 'clean run');
    let at = 0;
    this.runs++;
    return (op, values) =>
      values.forEach((value) => {
        const wanted = defined(clean[at], 'sample of the clean run');
        const found = sampleOf(value);
        invariant(found.length === wanted.length, 'runs visit the same ops');
        this.owners[at] = op.loc;
        const squares = (this.squares[at++] ??= new Float64Array(found.length));
        const row = this.row(op.loc);
        found.forEach((x, k) => {
          const deviation = x - (wanted[k] ?? NaN);
          row.largest = Math.max(row.largest, Math.abs(deviation));
          squares[k] = (squares[k] ?? 0) + deviation ** 2;
        });
      });
  }

  /** 1 for what no clean run has made: arguments of functions. */
  magnitude(value: Value): number {
    return this.magnitudes.get(value.id) ?? 1;
  }

  rows(): NodeError[] {
    const worst = new Map<string, number>();
    this.squares.forEach((squares, at) => {
      const node = defined(this.owners[at], 'owner');
      worst.set(
        node,
        squares.reduce((max, square) => Math.max(max, square), worst.get(node) ?? 0),
      );
    });
    const noiseOf = (node: string) => Math.sqrt((worst.get(node) ?? 0) / Math.max(1, this.runs));
    return [...this.table].map(([node, row]) => ({ node, ...row, noise: noiseOf(node) }));
  }
}

/** Real parts at equal distances; the odd stride leaves no power of two unvisited. */
function sampleOf(value: CipherValue): Float64Array {
  const elements = Math.min(sampleElements, value.re.length);
  return Float64Array.from({ length: elements * sampleSlots }, (_, i) => {
    const element = Math.floor((Math.floor(i / sampleSlots) * value.re.length) / elements);
    const vector = defined(value.re[element], 'element');
    const stride = Math.max(1, Math.floor(vector.length / sampleSlots)) | 1;
    return defined(vector[((i % sampleSlots) * stride) % vector.length], 'slot');
  });
}

function rootMeanSquare(values: Float64Array): number {
  return Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / Math.max(1, values.length));
}
