/**
 * The memory limit as a price: time + price * (bytes - limit), the price found by bisection (Lagrange). The
 * priced bytes never exceed the estimated ones, so every price gives a lower bound of the time within the
 * limit.
 */
import { defined } from '../../support/invariant.js';
import { entryName, type Module } from '../../ir/module.js';
import { callCounts, countUsers, lifetimes, meanBytes, residents, siteOf } from './memory.js';
import {
  estimateMemory,
  Placer,
  type MemoryEstimate,
  type Penalty,
  type PlacedBody,
  type PlacerOptions,
} from './place.js';

export interface Found {
  readonly placer: Placer;
  readonly entry: PlacedBody;
  readonly memory: MemoryEstimate;
  /** No placement within the limit takes fewer seconds. */
  readonly bound: number;
  readonly fits: boolean;
}

/** Prices tried upwards, and between the last two. */
const raises = 6;
const bisections = 4;
const raise = 8;
/** A price that saves a smaller share of memory than this is the last one. */
const progress = 0.01;

export function placeWithin(module: Module, limit: number, options: PlacerOptions): Found {
  const run = (price: number, previous: Found | undefined): Found => {
    const penalty =
      previous === undefined || price === 0 ? undefined : pricing(module, options, price, previous);
    const placer = new Placer(module, options, penalty);
    const entry = placer.entry();
    const memory = estimateMemory(options, placer, entry);
    const bound = entry.bound - (price === 0 ? 0 : price * limit);
    return { placer, entry, memory, bound, fits: bytesOf(memory) <= limit };
  };
  const first = run(0, undefined);
  if (first.fits) return first;
  let bound = first.bound;
  let [low, high] = [
    0,
    (first.entry.cost.compute + first.entry.cost.communication) / bytesOf(first.memory) / raise,
  ];
  let best: Found | undefined;
  let least = first;
  let stuck = false;
  const tryPrice = (price: number): boolean => {
    const found = run(price, first);
    bound = Math.max(bound, found.bound);
    stuck = bytesOf(found.memory) >= bytesOf(least.memory) * (1 - progress);
    if (bytesOf(found.memory) < bytesOf(least.memory)) least = found;
    if (found.fits && (best === undefined || secondsOf(found) < secondsOf(best))) best = found;
    return found.fits;
  };
  let fits = false;
  for (let i = 0; i < raises && !fits; i++) {
    fits = tryPrice(high);
    if (!fits && stuck && i > 1) break;
    if (!fits) [low, high] = [high, high * raise];
  }
  for (let i = 0; i < bisections && fits; i++) {
    const middle = low === 0 ? high / raise : Math.sqrt(low * high);
    if (tryPrice(middle)) high = middle;
    else low = middle;
  }
  return { ...(best ?? least), bound };
}

function bytesOf(memory: MemoryEstimate): number {
  return memory.residentBytes + memory.valueBytes;
}

function secondsOf({ entry }: Found): number {
  return entry.cost.compute + entry.cost.communication;
}

/** Means over the ranks; values that are alive at the peak of an earlier placement; shares of shared keys. */
function pricing(module: Module, options: PlacerOptions, price: number, previous: Found): Penalty {
  const users = countUsers(options, module);
  const calls = callCounts(module);
  const { entry, memory } = previous;
  const alive = new Set(
    lifetimes(entry.model)
      .filter(({ start, end }) => start <= memory.peakAt && memory.peakAt <= end)
      .map(({ value }) => value.id),
  );
  const ranks = Array.from({ length: options.ranks }, (_, rank) => rank);
  return (func) => (node, one) => {
    const site = siteOf(func, calls.get(func.name) ?? 0, node);
    let bytes = 0;
    if (site !== undefined) {
      for (const rank of ranks) {
        for (const resident of residents(options, site, one.option, rank)) {
          bytes += resident.bytes / defined(users.get(resident.id), 'users') / ranks.length;
        }
      }
    }
    if (func.name === entryName) {
      node.made.forEach((value, i) => {
        if (alive.has(value.id)) bytes += meanBytes(options, value, defined(one.makes[i], 'sharding'));
      });
    }
    return price * bytes;
  };
}
