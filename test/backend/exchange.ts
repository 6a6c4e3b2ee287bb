/** Collectives among ranks that run in lockstep, on big integers, as runtime/plan/plan.fbs states them. */
import { expect } from 'vitest';
import type { CollectiveInfo, PlanView } from '../../src/backend/plan-view.js';
import { mod, type Row } from './toy-ckks.js';

/** The n-th collective that a group issues. */
interface Round {
  readonly collective: number;
  /** Send block of each index of the group that has started. */
  readonly sent: Map<number, readonly Row[]>;
}

export interface Receipt {
  readonly ready: () => boolean;
  /** The receive block, once ready. */
  readonly rows: () => Row[];
  /** For messages. */
  readonly what: string;
}

const sum = (list: readonly number[]): number => list.reduce((a, b) => a + b, 0);
const partOf = (rows: readonly Row[], sizes: readonly number[], k: number): readonly Row[] => {
  const start = sum(sizes.slice(0, k));
  return rows.slice(start, start + sizes[k]!);
};

/** Rows that the rank of an index sends and receives in one execution. */
export function blockRows(info: CollectiveInfo, index: number): { send: number; receive: number } {
  const { rows } = info;
  const size = info.group.length;
  const to = (d: number): number[] => info.group.map((_, s) => rows[s * size + d]!);
  switch (info.kind) {
    case 'all_gather':
      return { send: rows[index]!, receive: sum(rows) };
    case 'reduce_scatter':
      return { send: sum(rows), receive: rows[index]! };
    case 'all_reduce':
      return { send: rows[0]!, receive: rows[0]! };
    case 'all_to_all':
      return { send: sum(rows.slice(index * size, (index + 1) * size)), receive: sum(to(index)) };
    case 'broadcast':
      return index === info.root ? { send: rows[0]!, receive: 0 } : { send: 0, receive: rows[0]! };
  }
}

export class Exchange {
  private readonly rounds = new Map<string, Round[]>();
  /** Rounds that a rank has issued in a group. */
  private readonly issued = new Map<string, number>();

  constructor(private readonly plan: PlanView) {}

  start(rank: number, collective: number, send: readonly Row[]): Receipt {
    const info = this.plan.collectives[collective]!;
    const index = info.group.indexOf(rank);
    expect(index, `rank ${rank} is in the group of collective ${collective}`).toBeGreaterThanOrEqual(0);
    const group = info.group.join();
    const place = `${rank}: ${group}`;
    const number = this.issued.get(place) ?? 0;
    this.issued.set(place, number + 1);
    const rounds = this.rounds.get(group) ?? [];
    this.rounds.set(group, rounds);
    const round: Round = rounds[number] ?? { collective, sent: new Map() };
    rounds[number] = round;
    expect(collective, `collective ${number} of group ${group} on rank ${rank}`).toBe(round.collective);
    round.sent.set(index, send);
    return {
      ready: () => round.sent.size === info.group.length,
      rows: () => this.receive(info, index, round),
      what: `rank ${rank} waits for collective ${collective} of group ${group}`,
    };
  }

  private receive(info: CollectiveInfo, index: number, round: Round): Row[] {
    const { rows } = info;
    const blocks = info.group.map((_, s) => round.sent.get(s)!);
    const size = blocks.length;
    switch (info.kind) {
      case 'all_gather':
        return blocks.flat();
      case 'reduce_scatter':
        return this.sum(
          blocks.map((block) => partOf(block, rows, index)),
          info.limbs[index]!,
        );
      case 'all_reduce':
        return this.sum(blocks, info.limbs[0]!);
      case 'all_to_all':
        return blocks.flatMap((block, s) => partOf(block, rows.slice(s * size, (s + 1) * size), index));
      case 'broadcast':
        return index === info.root ? [] : [...blocks[info.root]!];
    }
  }

  private sum(blocks: readonly (readonly Row[])[], limbs: readonly number[]): Row[] {
    return blocks[0]!.map((first, i) => {
      const q = this.plan.parameters.primes[limbs[i % limbs.length]!]!;
      return first.map((_, k) =>
        mod(
          blocks.reduce((total, block) => total + block[i]![k]!, 0n),
          q,
        ),
      );
    });
  }
}
