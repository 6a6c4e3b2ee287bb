/**
 * What a plan would take on devices of a profile: the commands of every rank on the clock of the cost model
 * (docs/cost-model.md). Reads the plan that would run, nothing else.
 */
import { peakBytes } from './rank-memory.js';
import { collectiveSeconds } from '../target/kernel-cost.js';
import type { DeviceProfile } from '../target/profile.js';
import { defined } from '../support/invariant.js';
import { layerBlocks, type CollectiveInfo, type LayerBlock, type PlanView } from './plan-view.js';
import { runEvents, type RankTimes } from './simulate/engine.js';
import { ProgramCosts, type OpcodeSeconds } from './simulate/items.js';
import { Tracer, type Trace } from './simulate/trace.js';

export type { Trace } from './simulate/trace.js';
export type { RankTimes } from './simulate/engine.js';

export interface SimulateOptions {
  readonly profile: DeviceProfile;
  /** Kernels this many times as fast, communication as it is. 1 unless given. */
  readonly kernelSpeed?: number;
  readonly trace?: boolean;
}

export type ByBlock = Readonly<Record<LayerBlock, number>>;

export interface BlockTimes {
  /** Largest over the ranks, one inference. */
  readonly bytes: number;
  readonly commS: number;
  readonly exposedS: number;
  readonly collectives: number;
}

export interface Simulation {
  readonly strategy: string;
  readonly devices: number;
  /** Until the last rank is done. */
  readonly latencyS: number;
  /**
   * Largest over the ranks: compute queue stopped while a collective ran. What it waited for slower ranks is
   * imbalance and not in here.
   */
  readonly exposedCommS: number;
  /** Received; largest over the ranks. */
  readonly commBytes: ByBlock;
  readonly peakBytesPerDevice: number;
  readonly fits: boolean;
  readonly ranks: readonly RankTimes[];
  readonly blocks: Readonly<Record<LayerBlock, BlockTimes>>;
  /** Kernels by ONNX node, largest over the ranks; longest first. */
  readonly nodes: readonly { readonly node: string; readonly seconds: number }[];
  /** Kernels of the slowest rank. */
  readonly opcodes: ReadonlyMap<string, OpcodeSeconds>;
  readonly trace: Trace | undefined;
}

export function simulate(plan: PlanView, options: SimulateOptions): Simulation {
  const { profile, kernelSpeed = 1 } = options;
  const rowBytes = 2 ** plan.parameters.logN * 8;
  const costs = plan.programs.map((_, rank) => new ProgramCosts(plan, rank, { profile, kernelSpeed }));
  const collectives = plan.collectives.map((info) => ({ info, seconds: secondsOf(info, rowBytes, profile) }));
  const tracer = options.trace === true ? new Tracer(plan, costs) : undefined;
  const ranks = runEvents(
    costs.map((one) => one.entryItems()),
    collectives,
    tracer,
  );
  const blocks = byBlock((block) => blockTimes(plan, ranks, block));
  const peaks = plan.programs.map(({ memory }) => peakBytes(memory));
  const largest = (values: readonly number[]): number => Math.max(0, ...values);
  const slowest = ranks.reduce(
    (worst, one, i) => (one.seconds > (ranks[worst]?.seconds ?? 0) ? i : worst),
    0,
  );
  const peakBytesPerDevice = largest(peaks);
  // Ranks of a measured machine share its memory.
  const needed = profile.measured === null ? peakBytesPerDevice : peaks.reduce((a, b) => a + b, 0);
  return {
    strategy: plan.strategy,
    devices: plan.programs.length,
    latencyS: largest(ranks.map(({ seconds }) => seconds)),
    exposedCommS: largest(ranks.map(({ exposedSeconds }) => exposedSeconds.reduce((a, b) => a + b, 0))),
    commBytes: byBlock((block) => blocks[block].bytes),
    peakBytesPerDevice,
    fits: needed <= profile.memoryBytes,
    ranks,
    blocks,
    nodes: nodeSeconds(plan, costs),
    opcodes: defined(costs[slowest], 'slowest rank').entryTotals().opcodes,
    trace: tracer?.trace(),
  };
}

function byBlock<T>(make: (block: LayerBlock) => T): Record<LayerBlock, T> {
  return Object.fromEntries(layerBlocks.map((block) => [block, make(block)])) as Record<LayerBlock, T>;
}

function secondsOf(info: CollectiveInfo, rowBytes: number, profile: DeviceProfile): number {
  const bytes = info.rows.map((rows) => rows * rowBytes);
  return collectiveSeconds(profile, { kind: info.kind, ranks: info.group.length, bytes, root: info.root });
}

function blockTimes(plan: PlanView, ranks: readonly RankTimes[], block: LayerBlock): BlockTimes {
  const index = layerBlocks.indexOf(block);
  const received = ranks.map(() => 0);
  let collectives = 0;
  for (const info of plan.collectives) {
    if (info.block !== block) continue;
    collectives += info.executions;
    info.group.forEach((rank, i) => {
      received[rank] = (received[rank] ?? 0) + (info.receivedBytes[i] ?? 0);
    });
  }
  return {
    bytes: Math.max(0, ...received),
    commS: Math.max(0, ...ranks.map((rank) => rank.commSeconds[index] ?? 0)),
    exposedS: Math.max(0, ...ranks.map((rank) => rank.exposedSeconds[index] ?? 0)),
    collectives,
  };
}

function nodeSeconds(plan: PlanView, costs: readonly ProgramCosts[]): Simulation['nodes'] {
  const worst = new Map<number, number>();
  for (const one of costs) {
    for (const [node, seconds] of one.entryTotals().nodes) {
      worst.set(node, Math.max(worst.get(node) ?? 0, seconds));
    }
  }
  return [...worst]
    .map(([node, seconds]) => ({ node: plan.locations[node] ?? '', seconds }))
    .sort((a, b) => b.seconds - a.seconds);
}
