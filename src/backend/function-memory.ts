/** Who wrote which row of a function's frame and arguments: the memory of the schedule verifier. */
import { defined } from '../support/invariant.js';
import type { Command, PlanFunction } from './plan-view.js';

/** Per argument and row, 1 where the function reads it before writing it, and where it writes it. */
export interface ArgumentRows {
  readonly read: readonly Uint8Array[];
  readonly written: readonly Uint8Array[];
}

const unwritten = -1;
const calleeFrame = -2;

interface Space {
  /** Buffer that wrote the row last. */
  readonly writer: Int32Array;
  /** Command that read, or wrote, the row last. */
  readonly readStep: Int32Array;
  readonly writeStep: Int32Array;
}

function makeSpace(rows: number): Space {
  return {
    writer: new Int32Array(rows).fill(unwritten),
    readStep: new Int32Array(rows),
    writeStep: new Int32Array(rows),
  };
}

export class FunctionMemory {
  private readonly frame: Space;
  private readonly argumentSpaces: readonly Space[];
  private readonly readEarly: readonly Uint8Array[];
  private step = 0;

  constructor(private readonly func: PlanFunction) {
    this.frame = makeSpace(func.frameRows);
    const args = func.buffers.filter((buffer) => buffer.argument);
    this.argumentSpaces = args.map((buffer) => makeSpace(buffer.rows));
    this.readEarly = args.map((buffer) => new Uint8Array(buffer.rows));
  }

  nextStep(): number {
    return ++this.step;
  }

  argumentRows(): ArgumentRows {
    const written = this.argumentSpaces.map((space) =>
      Uint8Array.from(space.writer, (writer) => Number(writer !== unwritten)),
    );
    return { read: this.readEarly, written };
  }

  /** One number for a row of any buffer; arguments never meet the frame. */
  address(buffer: number, row: number): number {
    const { argument, offset } = defined(this.func.buffers[buffer], 'buffer');
    return argument ? (buffer + 1) * 2 ** 40 + row : offset + row;
  }

  private space(buffer: number): { space: Space; base: number } {
    const { argument, offset } = defined(this.func.buffers[buffer], 'buffer');
    return argument
      ? { space: defined(this.argumentSpaces[buffer], 'argument'), base: 0 }
      : { space: this.frame, base: offset };
  }

  /** Reads rows; with a step, they are remembered as inputs of that command. */
  read(buffer: number, rows: Int32Array, step: number | undefined): string | undefined {
    const { space, base } = this.space(buffer);
    const early = this.readEarly[buffer];
    let fault: string | undefined;
    for (const row of rows) {
      const at = base + row;
      const writer = space.writer[at];
      if (step !== undefined) space.readStep[at] = step;
      if (writer === buffer) continue;
      if (early !== undefined && writer === unwritten) early[row] = 1;
      else fault ??= `reads row ${row} of buffer ${buffer}, ${describe(writer)}`;
    }
    return fault;
  }

  /** Writes rows; `over` allows them to be rows that the same command reads. */
  write(buffer: number, rows: Int32Array, step: number, over: boolean): string | undefined {
    const { space, base } = this.space(buffer);
    let fault: string | undefined;
    for (const row of rows) {
      const at = base + row;
      if (!over && space.readStep[at] === step) fault ??= 'overlaps an input';
      if (space.writeStep[at] === step) fault ??= `writes row ${row} twice`;
      space.writeStep[at] = step;
      space.writer[at] = buffer;
    }
    return fault;
  }

  /** The callee reads and writes its arguments and may write all of its frame. */
  call(command: Command, callee: PlanFunction, rows: ArgumentRows): string[] {
    const faults: string[] = [];
    const step = this.nextStep();
    const bound = (
      flags: readonly Uint8Array[],
      visit: (buffer: number, list: Int32Array, argument: number) => void,
    ): void => {
      command.bindings.forEach(({ buffer, offset }, i) => {
        const own = defined(flags[i], 'argument');
        const rows = [...own.keys()].filter((row) => own[row] === 1);
        visit(
          buffer,
          Int32Array.from(rows, (row) => offset + row),
          i,
        );
      });
    };
    bound(rows.read, (buffer, list, i) => {
      const fault = this.read(buffer, list, step);
      if (fault !== undefined) faults.push(`argument ${i} ${fault}`);
    });
    const first = command.frameOffset;
    for (let row = first; row < first + callee.frameRows; row++) {
      if (this.frame.readStep[row] === step) {
        faults.push(`the callee frame overlaps an argument at row ${row}`);
      }
      this.frame.writeStep[row] = step;
      this.frame.writer[row] = calleeFrame;
    }
    bound(rows.written, (buffer, list, i) => {
      const fault = this.write(buffer, list, step, false);
      if (fault !== undefined) faults.push(`argument ${i} ${fault}`);
    });
    return faults.slice(0, 4);
  }
}

function describe(writer: number | undefined): string {
  if (writer === undefined || writer === unwritten) return 'which nothing has written';
  return writer === calleeFrame
    ? 'which a callee may have overwritten'
    : `which buffer ${writer} has overwritten`;
}
