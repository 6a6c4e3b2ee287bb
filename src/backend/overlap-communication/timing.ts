/**
 * Two queues on one clock: kernels in the order given, collectives one after the other from when they are
 * issued. What the kernels wait for is exposed.
 */
import type { Graph, Item } from './graph.js';

export interface Timing {
  readonly seconds: number;
  readonly exposed: number;
}

/** The same order with every collective blocking has all its link time exposed. */
export function timeOrder(graph: Graph, order: readonly number[]): Timing {
  const arrival = new Map<Item['op'], number>();
  let [now, link, exposed] = [0, 0, 0];
  for (const index of order) {
    const item = graph.items[index] as Item;
    const until = item.usesLink ? link : item.role === 'wait' ? (arrival.get(item.op) ?? 0) : 0;
    const stall = Math.max(0, until - now);
    exposed += stall;
    now += stall;
    now += item.seconds;
    if (item.role !== 'start') continue;
    link = Math.max(link, now) + item.linkSeconds;
    arrival.set(item.op, link);
  }
  return { seconds: now, exposed };
}
