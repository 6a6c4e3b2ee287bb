/** Static offsets of a frame: first fit, largest first, for allocations with known lifetimes. */
export interface Placed {
  readonly rows: number;
  /** Positions of the first and last command that touch it, both included. */
  readonly first: number;
  readonly last: number;
}

export interface Placement {
  readonly offsets: readonly number[];
  readonly frameRows: number;
}

/** Ties in size keep their order, so the result depends on the input alone. */
export function placeBuffers(items: readonly Placed[]): Placement {
  const order = items.map((item, index) => ({ item, index }));
  order.sort((x, y) => y.item.rows - x.item.rows || x.index - y.index);
  const offsets = new Array<number>(items.length).fill(0);
  const placed: { item: Placed; offset: number }[] = [];
  let frameRows = 0;
  for (const { item, index } of order) {
    if (item.rows === 0) continue;
    const neighbours = placed
      .filter((other) => other.item.first <= item.last && item.first <= other.item.last)
      .sort((x, y) => x.offset - y.offset);
    let offset = 0;
    for (const other of neighbours) {
      if (offset + item.rows <= other.offset) break;
      offset = Math.max(offset, other.offset + other.item.rows);
    }
    offsets[index] = offset;
    placed.push({ item, offset });
    frameRows = Math.max(frameRows, offset + item.rows);
  }
  return { offsets, frameRows };
}
