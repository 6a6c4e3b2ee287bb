/**
 * Tokens that integer inputs choose, as the last one that is not padding: a product with encrypted ones and
 * zeros.
 */
import { elementCount } from '../model.js';
import type { Draft } from './drafts.js';
import type { Site } from './site.js';
import type { Symbol } from './symbols.js';

/** Each chosen row takes a product and a sum over the tokens. */
const maxChosen = 16;

/** Gather and GatherND whose indices the client knows: row r is the sum over t of (t is chosen by r) x[t]. */
export function chosenTokens(site: Site, shape: readonly number[]): Symbol {
  const view = site.view(0);
  const { client, drafts } = site;
  const index = site.symbol(1);
  const depth = chosenDimensions(site, view.shape.length);
  if (index?.kind !== 'client' || depth === undefined) {
    return site.fail('the position in a table depends on encrypted data', 'F206');
  }
  const lead = view.shape.slice(0, depth);
  const [rows, columns] = [elementCount(lead), elementCount(view.shape.slice(depth))];
  const x = site.matrix(view, rows, columns);
  const positions = client.constant({
    dtype: 'int64',
    shape: lead,
    data: BigInt64Array.from({ length: rows }, (_, i) => BigInt(i)),
  });
  const attributes = Object.fromEntries(site.node.attributes);
  const chosen = client.apply(site.node.opType, [positions, index.name], attributes);
  const count = elementCount(client.known(chosen).shape);
  if (count > maxChosen || count === 0) return site.fail(`${count} rows by integer inputs`, 'F206');
  const equal = client.apply('Equal', [
    client.reshape(chosen, [count, 1]),
    client.reshape(positions, [1, rows]),
  ]);
  const isChosen = client.apply('Cast', [equal], { to: 1 });
  const picked = (r: number): Draft => {
    const row = count === 1 ? isChosen : client.apply('Gather', [isChosen, client.ints(r)], { axis: 0 });
    const operands = [x, site.column(client.reshape(row, [rows]), rows)];
    return drafts.make('tensor.scale_tokens', operands, { rows, columns, loc: site.loc });
  };
  if (count === 1) {
    const mean = drafts.make('tensor.mean_tokens', [picked(0)], { rows: 1, columns, loc: site.loc });
    return { ...site.whole(mean, shape), scale: rows };
  }
  const terms = Array.from({ length: count }, (_, r) => {
    const weight = new Float64Array(count * rows).fill(1, r * rows, (r + 1) * rows);
    return drafts.mixTokens(picked(r), weight, count, site.loc);
  });
  return site.whole(site.total(terms), shape);
}

/** Leading dimensions of the data that the operator's indices choose among. */
function chosenDimensions(site: Site, rank: number): number | undefined {
  const { opType } = site.node;
  if (opType === 'Gather') return site.call.axis(site.call.int('axis', 0), rank) + 1;
  if (opType !== 'GatherND') return undefined;
  return site.call.int('batch_dims', 0) + (site.call.input(1).shape.at(-1) ?? 0);
}
