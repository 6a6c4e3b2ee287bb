/** Who wrote which row of a function's frame and arguments: the memory of the schedule verifier. */
import { defined } from '../../support/invariant.js';
import type { Command, PlanFunction } from '../plan-view.js';
import { flaggedRuns, type RowSet } from './row-set.js';

/** Per argument, runs of rows that the function reads before writing them, and that it writes. */
export interface ArgumentRows {
  readonly read: readonly Int32Array[];
  readonly written: readonly Int32Array[];
}

const unwritten = -1;
const calleeFrame = -2;
/** minus the collective: its receive block, in flight */
const receiving = -3;

/** One for the frame and one for each argument; arguments never meet the frame. */
interface Space {
  /** Buffer that wrote the row last. */
  readonly writer: Int32Array;
  /** Command that read, or wrote, the row last. */
  readonly readStep: Int32Array;
  readonly writeStep: Int32Array;
}

/** Rows of a space that a collective in flight uses. */
interface Flight {
  readonly collective: number;
  readonly space: Space;
  readonly from: number;
  readonly to: number;
  /** Buffer, of a receive block. */
  readonly receiver: number | undefined;
}

interface Place {
  readonly space: Space;
  readonly base: number;
}

function makeSpace(rows: number): Space {
  return {
    writer: new Int32Array(rows).fill(unwritten),
    readStep: new Int32Array(rows),
    writeStep: new Int32Array(rows),
  };
}

export class FunctionMemory {
  private readonly places: readonly Place[];
  private readonly frame: Space;
  private readonly readEarly: readonly Uint8Array[];
  private flights: Flight[] = [];
  private step = 0;

  constructor(func: PlanFunction) {
    this.frame = makeSpace(func.frameRows);
    this.places = func.buffers.map(({ argument, offset, rows }) =>
      argument ? { space: makeSpace(rows), base: 0 } : { space: this.frame, base: offset },
    );
    this.readEarly = func.buffers.flatMap((buffer) => (buffer.argument ? [new Uint8Array(buffer.rows)] : []));
  }

  nextStep(): number {
    return ++this.step;
  }

  argumentRows(): ArgumentRows {
    const written = this.readEarly.map((_, i) =>
      flaggedRuns(this.place(i).space.writer.map((writer) => Number(writer !== unwritten))),
    );
    return { read: this.readEarly.map((flags) => flaggedRuns(flags)), written };
  }

  private place(buffer: number): Place {
    return defined(this.places[buffer], 'buffer');
  }

  /** Do two rows of buffers lie in the same memory? */
  sameRow(buffer: number, row: number, other: number, otherRow: number): boolean {
    const [one, two] = [this.place(buffer), this.place(other)];
    return one.space === two.space && one.base + row === two.base + otherRow;
  }

  /** Reads rows; with a step, they are remembered as inputs of that command. */
  read(buffer: number, set: RowSet, step: number): string | undefined {
    let row = -1;
    for (let i = 0; i < set.count; i++) {
      const start = set.starts[i] ?? 0;
      const wrong = this.readRun(buffer, start, start + set.run, step);
      if (row < 0) row = wrong;
    }
    return row < 0 ? undefined : this.readFault(buffer, row);
  }

  /** The first row that the buffer has not written last; -1 if there is none. */
  private readRun(buffer: number, from: number, to: number, step: number): number {
    const { space, base } = this.place(buffer);
    const { writer, readStep } = space;
    const early = this.readEarly[buffer];
    let wrong = -1;
    for (let at = base + from; at < base + to; at++) {
      if (step > 0) readStep[at] = step;
      if (writer[at] === buffer) continue;
      if (early !== undefined && writer[at] === unwritten) early[at] = 1;
      else if (wrong < 0) wrong = at - base;
    }
    return wrong;
  }

  private readFault(buffer: number, row: number): string {
    const { space, base } = this.place(buffer);
    return `reads row ${row} of buffer ${buffer}, ${describe(space.writer[base + row])}`;
  }

  /** Writes rows; `over` allows them to be rows that the same command reads. */
  write(buffer: number, set: RowSet, step: number, over: boolean): string | undefined {
    let fault: string | undefined;
    for (let i = 0; i < set.count; i++) {
      const start = set.starts[i] ?? 0;
      const wrong = this.writeRun(buffer, start, start + set.run, step, over);
      fault ??= wrong;
    }
    return fault;
  }

  private writeRun(
    buffer: number,
    from: number,
    to: number,
    step: number,
    over: boolean,
  ): string | undefined {
    const { space, base } = this.place(buffer);
    const { writer, readStep, writeStep } = space;
    let [overlaps, twice] = [false, -1];
    for (let at = base + from; at < base + to; at++) {
      if (readStep[at] === step) overlaps = true;
      if (writeStep[at] === step) twice = at - base;
      writeStep[at] = step;
      writer[at] = buffer;
    }
    const inFlight = this.flights.length > 0 && this.flightFault(space, base + from, base + to, base);
    if (typeof inFlight === 'string') return inFlight;
    if (overlaps && !over) return 'overlaps an input';
    return twice < 0 ? undefined : `writes row ${twice} twice`;
  }

  // -------------------------------------------------------------- calls

  /** The callee reads and writes its arguments and may write all of its frame. */
  call(command: Command, callee: PlanFunction, rows: ArgumentRows): string[] {
    const faults: string[] = [];
    const step = this.nextStep();
    command.bindings.forEach(({ buffer, offset }, i) => {
      const runs = defined(rows.read[i], 'argument');
      for (let k = 0; k + 1 < runs.length; k += 2) {
        const row = this.readRun(buffer, offset + (runs[k] ?? 0), offset + (runs[k + 1] ?? 0), step);
        if (row >= 0) faults.push(`argument ${i} ${this.readFault(buffer, row)}`);
      }
    });
    const [first, end] = [command.frameOffset, command.frameOffset + callee.frameRows];
    const inFlight = this.flightFault(this.frame, first, end, 0);
    if (inFlight !== undefined) faults.push(`the callee frame ${inFlight}`);
    const shared = this.frame.readStep.subarray(first, end).indexOf(step);
    if (shared >= 0) faults.push(`the callee frame overlaps an argument at row ${first + shared}`);
    this.frame.writeStep.fill(step, first, end);
    this.frame.writer.fill(calleeFrame, first, end);
    command.bindings.forEach(({ buffer, offset }, i) => {
      const runs = defined(rows.written[i], 'argument');
      for (let k = 0; k + 1 < runs.length; k += 2) {
        const [from, to] = [offset + (runs[k] ?? 0), offset + (runs[k + 1] ?? 0)];
        const fault = this.writeRun(buffer, from, to, step, false);
        if (fault !== undefined) faults.push(`argument ${i} ${fault}`);
      }
    });
    return faults.slice(0, 4);
  }

  // -------------------------------------------------------------- collectives

  /** From now on the send rows are not written, and the receive rows are neither read nor written. */
  take(collective: number, buffer: number, from: number, to: number, kind: 'send' | 'receive'): void {
    const { space, base } = this.place(buffer);
    const receiver = kind === 'receive' ? buffer : undefined;
    if (kind === 'receive') space.writer.fill(receiving - collective, base + from, base + to);
    this.flights.push({ collective, space, from: base + from, to: base + to, receiver });
  }

  /** The transfer is over: what was received is written. */
  release(collective: number): void {
    for (const { space, from, to, receiver, ...flight } of this.flights) {
      if (flight.collective !== collective || receiver === undefined) continue;
      space.writer.fill(receiver, from, to);
    }
    this.flights = this.flights.filter((flight) => flight.collective !== collective);
  }

  private flightFault(space: Space, from: number, to: number, base: number): string | undefined {
    const flight = this.flights.find((one) => one.space === space && from < one.to && one.from < to);
    if (flight === undefined) return undefined;
    const row = Math.max(from, flight.from) - base;
    const block = flight.receiver === undefined ? 'send' : 'receive';
    return `writes row ${row}, in flight in the ${block} block of collective ${flight.collective}`;
  }
}

function describe(writer: number | undefined): string {
  if (writer === undefined || writer === unwritten) return 'which nothing has written';
  if (writer <= receiving) return `which collective ${receiving - writer} has in flight`;
  return writer === calleeFrame
    ? 'which a callee may have overwritten'
    : `which buffer ${writer} has overwritten`;
}
