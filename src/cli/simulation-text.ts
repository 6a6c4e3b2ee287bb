/** Simulations as tables for people. */
import { layerBlocks } from '../backend/plan-view.js';
import type { Simulation } from '../backend/simulate.js';
import type { DeviceProfile } from '../target/profile.js';
import type { Comparison, Row } from './compare-rows.js';
import { bold, formatBytes, formatFields, formatSeconds, formatTable, type Style } from './format.js';

const shownNodes = 8;

export function simulationText(
  path: string,
  s: Simulation,
  row: Row,
  profile: DeviceProfile,
  style: Style,
): string {
  const share = (part: number) => `${((100 * part) / (s.latencyS || 1)).toFixed(1)} %`;
  const blocks = [
    `${bold(style, path)}: ${s.strategy} on ${s.devices} x ${profile.name}`,
    formatFields([
      ['latency', formatSeconds(s.latencyS)],
      ...(row.speedup === null
        ? []
        : ([['speedup', speedupText(row.speedup, row.efficiency ?? 0)]] satisfies [string, string][])),
      ['exposed communication', `${formatSeconds(s.exposedCommS)}, ${share(s.exposedCommS)} of the latency`],
      ['memory per device', memoryText(s, profile)],
      ['kernels', profile.measured === null ? 'modelled, not measured' : 'measured'],
    ]),
    `${bold(style, 'ranks')}\n${rankTable(s)}`,
  ];
  if (s.devices > 1) blocks.push(`${bold(style, 'communication, largest rank')}\n${blockTable(s)}`);
  blocks.push(`${bold(style, 'kernels of the slowest rank')}\n${kernelTable(s)}`);
  const nodes = s.nodes
    .slice(0, shownNodes)
    .map(({ node, seconds }) => [
      `  ${node === '' ? '(no node)' : node}`,
      formatSeconds(seconds),
      share(seconds),
    ]);
  blocks.push(`${bold(style, 'nodes')}\n${formatTable(nodes, [1, 2])}`);
  return `${blocks.join('\n\n')}\n`;
}

function memoryText({ peakBytesPerDevice, fits }: Row | Simulation, profile: DeviceProfile): string {
  const limit = formatBytes(profile.memoryBytes);
  return `${formatBytes(peakBytesPerDevice)}, ${fits ? 'fits' : 'DOES NOT FIT'} ${limit}`;
}

function speedupText(speedup: number, efficiency: number): string {
  return `${speedup.toFixed(2)}x, efficiency ${(100 * efficiency).toFixed(1)} %`;
}

function rankTable({ ranks }: Simulation): string {
  const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
  return formatTable(
    [
      ['  rank', 'end', 'compute', 'communication', 'exposed', 'waits for others'],
      ...ranks.map((rank, i) => [
        `  ${i}`,
        formatSeconds(rank.seconds),
        formatSeconds(rank.computeSeconds),
        formatSeconds(sum(rank.commSeconds)),
        formatSeconds(sum(rank.exposedSeconds)),
        formatSeconds(rank.imbalanceSeconds),
      ]),
    ],
    [1, 2, 3, 4, 5],
  );
}

function blockTable({ blocks }: Simulation): string {
  const total = layerBlocks.reduce((sum, block) => sum + blocks[block].bytes, 0);
  return formatTable(
    [
      ['  block', 'received', 'share', 'collectives', 'time', 'exposed'],
      ...layerBlocks.map((name) => {
        const { bytes, collectives, commS, exposedS } = blocks[name];
        const share = `${((100 * bytes) / (total || 1)).toFixed(1)} %`;
        return [
          `  ${name}`,
          formatBytes(bytes),
          share,
          String(collectives),
          formatSeconds(commS),
          formatSeconds(exposedS),
        ];
      }),
    ],
    [1, 2, 3, 4, 5],
  );
}

function kernelTable({ opcodes }: Simulation): string {
  const rows = [...opcodes].sort(([, a], [, b]) => b.seconds - a.seconds);
  const total = rows.reduce((sum, [, { seconds }]) => sum + seconds, 0);
  return formatTable(
    rows.map(([op, { seconds, launches }]) => [
      `  ${op}`,
      `${launches} launches`,
      formatSeconds(seconds),
      `${((100 * seconds) / (total || 1)).toFixed(1)} %`,
    ]),
    [1, 2, 3],
  );
}

/** What the reference is, where that needs words. */
export function referenceText({ limitedS, unlimitedS }: Comparison, profile: DeviceProfile): string {
  const limit = formatBytes(profile.memoryBytes);
  if (limitedS === null) {
    return (
      `no one-device plan fits ${limit}: speedup and efficiency are against one device without that `
      + `limit, ${formatSeconds(unlimitedS)}`
    );
  }
  if (limitedS === unlimitedS) return `one device: ${formatSeconds(limitedS)} within ${limit}`;
  return `one device: ${formatSeconds(limitedS)} within ${limit}, ${formatSeconds(unlimitedS)} without limit`;
}

export function comparisonText(comparison: Comparison, profile: DeviceProfile, style: Style): string {
  const both = comparison.limitedS !== null && comparison.limitedS !== comparison.unlimitedS;
  const header = [
    'strategy',
    'devices',
    'latency',
    'speedup',
    'efficiency',
    ...(both ? ['without limit'] : []),
    'exposed',
    'attention',
    'FFN',
    'rest',
    'memory',
    'fits',
  ];
  const rows = comparison.rows.map((row) => [
    row.strategy,
    String(row.devices),
    formatSeconds(row.latencyS),
    row.speedup === null ? '-' : `${row.speedup.toFixed(2)}x`,
    row.efficiency === null ? '-' : `${(100 * row.efficiency).toFixed(1)} %`,
    ...(both ? [`${row.speedupUnlimited.toFixed(2)}x`] : []),
    formatSeconds(row.exposedCommS),
    formatBytes(row.commBytes.attention),
    formatBytes(row.commBytes.ffn),
    formatBytes(row.commBytes.rest),
    formatBytes(row.peakBytesPerDevice),
    row.fits ? 'yes' : 'NO',
  ]);
  return [
    bold(style, `simulated on ${profile.name}`),
    formatTable([header, ...rows], header.map((_, i) => i).slice(1)),
    referenceText(comparison, profile),
    'bytes: received by one device in one inference',
    '',
  ].join('\n');
}
