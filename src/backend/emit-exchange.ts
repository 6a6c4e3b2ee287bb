/**
 * Collectives of one rank as plan commands: blocks that do not lie in one piece are packed before and
 * unpacked after,
 * by copies.
 */
import { defined } from '../support/invariant.js';
import type { Op, Value } from '../ir/module.js';
import type { Window } from '../ir/ops/poly.js';
import { axesCount, type PolyType } from '../ir/types.js';
import { isDense, packedLayout, windowLayout, type Layout, type Storage } from './layout.js';
import { emptyCommand, type Command, type View } from './plan-view.js';

/** What the function emitter lends. */
export interface ExchangeSite {
  readonly layout: (value: Value) => Layout;
  readonly bind: (value: Value, layout: Layout) => void;
  /** New memory of so many rows. */
  readonly storage: (rows: number) => Storage;
  readonly fresh: (type: PolyType) => Layout;
  readonly copy: (out: Layout, a: Layout, node: number) => void;
  readonly push: (command: Command, used: readonly Storage[]) => void;
}

interface Moves {
  readonly sends: readonly (readonly Window[])[];
  readonly receives: readonly (readonly Window[])[];
  readonly keeps: readonly (readonly [Window, Window])[];
}

/** Rows in one piece. */
interface Stretch {
  readonly storage: Storage;
  readonly offset: number;
  readonly loopStrides: readonly number[];
}

interface Flight {
  readonly used: readonly Storage[];
  readonly arrival: Stretch | undefined;
}

export class ExchangeEmitter {
  private readonly flights = new Map<number, Flight>();

  constructor(private readonly site: ExchangeSite) {}

  emit(op: Op, node: number): void {
    const { stage, hasSource, hasTarget } = op.attrs as {
      stage: string;
      hasSource: boolean;
      hasTarget: boolean;
    };
    const operands = [...op.operands];
    const flight = stage === 'wait' ? operands.shift() : undefined;
    const source = hasSource ? this.site.layout(defined(operands.shift(), 'source')) : undefined;
    const target = hasTarget ? this.site.layout(defined(operands.shift(), 'target')) : undefined;
    const exchange = { op, node, source, target, moves: op.attrs.moves as unknown as Moves };
    if (stage === 'blocking') this.blocking(exchange);
    else if (stage === 'start') this.start(exchange);
    else
      this.wait(exchange, defined(this.flights.get(defined(flight, 'flight').id), 'start of a collective'));
  }

  private blocking(x: Pending): void {
    const out = this.result(x);
    const places = this.places(x, out);
    const sent = this.pack(x);
    const direct = stretchOf(places);
    const arrival = direct ?? this.staging(places);
    this.command(x, sent, arrival, true);
    if (direct === undefined) this.unpack(x, places, arrival);
    this.finish(x, out);
  }

  private start(x: Pending): void {
    const sent = this.pack(x);
    const { axes, limbs } = x.op.attrs as unknown as PolyType;
    const shape = { axes, limbs };
    const rows = x.moves.receives.flat().reduce((sum, window) => sum + rowsIn(shape, window), 0);
    const arrival = rows === 0 ? undefined : { storage: this.site.storage(rows), offset: 0, loopStrides: [] };
    const used = this.command(x, sent, arrival, false);
    this.flights.set(defined(x.op.results[0], 'flight').id, { used, arrival });
  }

  private wait(x: Pending, flight: Flight): void {
    const command = { ...emptyCommand('wait', x.node), collective: x.op.attrs.collective as number };
    this.site.push(command, flight.used);
    const out = this.result(x);
    this.unpack(x, this.places(x, out), flight.arrival);
    this.finish(x, out);
  }

  private result(x: Pending): Layout {
    if (x.target !== undefined) return x.target;
    return this.site.fresh(defined(x.op.results[0], 'result').type as PolyType);
  }

  /** Where what arrives lies in the result. */
  private places(x: Pending, out: Layout): Layout[] {
    const window = windowLayout(out, (x.op.attrs.window ?? {}) as Window);
    return x.moves.receives.flat().map((piece) => windowLayout(window, piece));
  }

  private pack({ source, moves, node }: Pending): Stretch | undefined {
    const pieces = moves.sends.flat().map((piece) => windowLayout(defined(source, 'source'), piece));
    if (pieces.length === 0) return undefined;
    const direct = stretchOf(pieces);
    if (direct !== undefined) return direct;
    const staged = defined(this.staging(pieces), 'staging');
    this.each(pieces, staged, (packed, piece) => this.site.copy(packed, piece, node));
    return staged;
  }

  private unpack({ node }: Pending, places: readonly Layout[], arrival: Stretch | undefined): void {
    if (arrival !== undefined)
      this.each(places, arrival, (packed, place) => this.site.copy(place, packed, node));
  }

  private staging(pieces: readonly Layout[]): Stretch | undefined {
    const rows = pieces.reduce((sum, piece) => sum + layoutRows(piece), 0);
    return rows === 0 ? undefined : { storage: this.site.storage(rows), offset: 0, loopStrides: [] };
  }

  /** Visits pieces with their place in a block, one after the other. */
  private each(
    pieces: readonly Layout[],
    block: Stretch,
    visit: (packed: Layout, piece: Layout) => void,
  ): void {
    let offset = block.offset;
    for (const piece of pieces) {
      visit(packedLayout(block.storage, offset, piece.axes, piece.limbs), piece);
      offset += layoutRows(piece);
    }
  }

  private command(
    x: Pending,
    sent: Stretch | undefined,
    arrival: Stretch | undefined,
    blocking: boolean,
  ): Storage[] {
    const used = [sent, arrival].flatMap((stretch) => (stretch === undefined ? [] : [stretch.storage]));
    const collective = x.op.attrs.collective as number;
    const views = { a: viewOf(sent), out: viewOf(arrival) };
    this.site.push({ ...emptyCommand('collective', x.node), ...views, collective, blocking }, used);
    return used;
  }

  private finish({ op, node, source, moves }: Pending, out: Layout): void {
    const window = windowLayout(out, (op.attrs.window ?? {}) as Window);
    for (const [from, to] of moves.keeps) {
      this.site.copy(windowLayout(window, to), windowLayout(defined(source, 'source'), from), node);
    }
    const result = op.results[0];
    if (result !== undefined) this.site.bind(result, out);
  }
}

interface Pending {
  readonly op: Op;
  readonly node: number;
  readonly source: Layout | undefined;
  readonly target: Layout | undefined;
  readonly moves: Moves;
}

function layoutRows(layout: Layout): number {
  return axesCount(layout.axes) * layout.limbs.length;
}

function rowsIn(shape: Pick<PolyType, 'axes' | 'limbs'>, window: Window): number {
  const axes = shape.axes.map((axis) => ({ ...axis, size: window.axes?.[axis.name]?.[1] ?? axis.size }));
  return axesCount(axes) * (window.limbs ?? shape.limbs).length;
}

/** The pieces as one stretch of memory, if they follow each other without gaps. */
function stretchOf(pieces: readonly Layout[]): Stretch | undefined {
  const first = pieces[0];
  if (first === undefined) return undefined;
  let next = first.offset;
  for (const piece of pieces) {
    const follows = piece.storage === first.storage && piece.offset === next;
    if (!follows || !isDense({ ...piece, loopStrides: [] })) return undefined;
    if (piece.loopStrides.join() !== first.loopStrides.join()) return undefined;
    next += layoutRows(piece);
  }
  return { storage: first.storage, offset: first.offset, loopStrides: first.loopStrides };
}

function viewOf(stretch: Stretch | undefined): View | null {
  if (stretch === undefined) return null;
  const { storage, offset, loopStrides } = stretch;
  return { buffer: storage.id, offset, strides: [], componentStride: 0, limbStride: 1, loopStrides };
}
