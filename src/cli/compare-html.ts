/** `compare` as one self-contained page: no script, no other file. */
import { layerBlocks } from '../backend/plan-view.js';
import type { Simulation } from '../backend/simulate.js';
import type { DeviceProfile } from '../target/profile.js';
import type { Comparison } from './compare-rows.js';
import { formatBytes, formatSeconds } from './format.js';
import { referenceText } from './simulation-text.js';

export interface PageOptions {
  readonly profile: DeviceProfile;
  readonly model: string;
  readonly seqLen: number | undefined;
  readonly insecure: boolean;
}

interface Part {
  readonly name: string;
  /** Class of its colour. */
  readonly color: string;
  readonly value: number;
}

interface Bar {
  readonly label: string;
  readonly parts: readonly Part[];
  /** Beside the end of the bar. */
  readonly note: string;
}

interface Chart {
  readonly title: string;
  readonly about: string;
  readonly bars: readonly Bar[];
  readonly format: (value: number) => string;
  /** A line across all bars. */
  readonly limit?: { readonly value: number; readonly name: string };
}

export function comparePage(comparison: Comparison, options: PageOptions): string {
  const { profile, model, seqLen, insecure } = options;
  const tokens = seqLen === undefined ? '' : `, ${seqLen} tokens`;
  const charts = [latencyChart(comparison), bytesChart(comparison), memoryChart(comparison, profile)];
  const measured = profile.measured === null ? 'modelled from published figures' : 'measured';
  const about = `${referenceText(comparison, profile)}. Simulated from the plans; kernels ${measured}.`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(`${model} on ${profile.name}`)}</title>
<style>${style}</style>
</head>
<body>
<h1>${escape(model)}${escape(tokens)} on ${escape(profile.name)}</h1>
<p>${escape(headline(comparison))}</p>
<p class="quiet">${escape(about)}</p>
${insecure ? '<p class="warn">INSECURE: these parameters give no security.</p>' : ''}
${charts.map(chartSection).join('\n')}
<section><h2>Figures</h2>
<div class="scroll">${table(comparison)}</div></section>
<section><h2>The device</h2>
<div class="scroll">${profileTable(profile)}</div></section>
</body>
</html>
`;
}

function headline({ rows }: Comparison): string {
  const fitting = rows.filter((row) => row.fits);
  const best = fitting.reduce<(typeof rows)[number] | undefined>(
    (least, row) => (least === undefined || row.latencyS < least.latencyS ? row : least),
    undefined,
  );
  if (best === undefined) return 'No plan fits the memory of a device.';
  const speedup = best.speedup === null ? '' : `, ${best.speedup.toFixed(2)}x the one-device plan`;
  return (
    `Fastest that fits: ${best.strategy} on ${best.devices} `
    + `${best.devices === 1 ? 'device' : 'devices'}, ${formatSeconds(best.latencyS)}${speedup}.`
  );
}

function labelOf({ strategy, devices }: { strategy: string; devices: number }): string {
  return devices === 1 ? '1 device' : `${devices} x ${strategy}`;
}

/** Parts of the rank that ends last; what its communication queue still does at the end is exposed too. */
function latencyChart({ simulations, rows }: Comparison): Chart {
  return {
    title: 'Latency',
    about: 'Seconds of one inference, on the slowest device.',
    format: formatSeconds,
    bars: simulations.map((s, i) => {
      const rank = slowestRank(s);
      const speedup = rows[i]?.speedup;
      return {
        label: labelOf(s),
        note: `${formatSeconds(s.latencyS)}${speedup == null ? '' : `, ${speedup.toFixed(2)}x`}`,
        parts: [
          { name: 'compute', color: 'a', value: rank.computeSeconds },
          { name: 'waiting for other devices', color: 'b', value: rank.imbalanceSeconds },
          {
            name: 'exposed communication',
            color: 'c',
            value: Math.max(0, s.latencyS - rank.computeSeconds - rank.imbalanceSeconds),
          },
        ],
      };
    }),
  };
}

function slowestRank(s: Simulation): Simulation['ranks'][number] {
  return s.ranks.reduce((worst, rank) => (rank.seconds > worst.seconds ? rank : worst));
}

function bytesChart({ simulations }: Comparison): Chart {
  const names = { rest: 'rest', attention: 'attention', ffn: 'feed-forward' };
  const colors = { rest: 'c', attention: 'a', ffn: 'b' };
  const order = [...layerBlocks].sort((x, y) => (colors[x] < colors[y] ? -1 : 1));
  return {
    title: 'Communication',
    about: 'Bytes that one device receives in one inference, by the block that consumes them.',
    format: formatBytes,
    bars: simulations.map((s) => ({
      label: labelOf(s),
      note: formatBytes(order.reduce((sum, block) => sum + s.commBytes[block], 0)),
      parts: order.map((block) => ({ name: names[block], color: colors[block], value: s.commBytes[block] })),
    })),
  };
}

function memoryChart({ simulations }: Comparison, profile: DeviceProfile): Chart {
  return {
    title: 'Memory',
    about: 'Peak of one device: keys, weights, buffers, inputs and outputs.',
    format: formatBytes,
    limit: { value: profile.memoryBytes, name: `${formatBytes(profile.memoryBytes)} per device` },
    bars: simulations.map((s) => ({
      label: labelOf(s),
      note: `${formatBytes(s.peakBytesPerDevice)}${s.fits ? '' : ', does not fit'}`,
      parts: [{ name: 'memory', color: s.fits ? 'a' : 'd', value: s.peakBytesPerDevice }],
    })),
  };
}

const labelWidth = 150;
const barsWidth = 560;
const noteWidth = 190;
const barHeight = 22;
const step = 34;
const top = 22;

function chartSection(chart: Chart): string {
  const total = ({ parts }: Bar): number => parts.reduce((sum, part) => sum + part.value, 0);
  const largest = Math.max(...chart.bars.map(total), 0);
  const limit = chart.limit;
  // A limit far beyond every bar would hide them.
  const shown = limit !== undefined && limit.value <= 4 * largest ? limit : undefined;
  const scale = barsWidth / (Math.max(largest, shown?.value ?? 0) || 1);
  const height = top + chart.bars.length * step + 4;
  const bars = chart.bars.map((bar, i) => barSvg(bar, top + i * step, scale, chart.format));
  const line = shown === undefined ? '' : limitSvg(shown, labelWidth + shown.value * scale, height);
  const legend = new Map(chart.bars.flatMap(({ parts }) => parts.map((part) => [part.name, part.color])));
  const keys = [...legend].map(([name, color]) => `<span><i class="${color}"></i>${escape(name)}</span>`);
  const width = labelWidth + barsWidth + noteWidth;
  return `<section><h2>${escape(chart.title)}</h2>
<p class="quiet">${escape(chart.about)}</p>
${legend.size > 1 ? `<p class="legend">${keys.join('')}</p>` : ''}
<div class="scroll"><svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${escape(chart.title)}">
${[...bars, line].join('\n')}
</svg></div></section>`;
}

function barSvg(bar: Bar, y: number, scale: number, format: (value: number) => string): string {
  const middle = y + barHeight / 2 + 4;
  let x = labelWidth;
  const rects = bar.parts.map(({ name, color, value }) => {
    const width = value * scale;
    const title = `<title>${escape(`${bar.label}, ${name}: ${format(value)}`)}</title>`;
    const rect =
      `<rect class="${color}" x="${x.toFixed(2)}" y="${y}" width="${width.toFixed(2)}" `
      + `height="${barHeight}">${title}</rect>`;
    x += width;
    return width > 0 ? rect : '';
  });
  return (
    `<text class="label" x="${labelWidth - 10}" y="${middle}">${escape(bar.label)}</text>`
    + `${rects.join('')}<text x="${(x + 8).toFixed(2)}" y="${middle}">${escape(bar.note)}</text>`
  );
}

function limitSvg({ name }: { name: string }, x: number, height: number): string {
  const at = x.toFixed(2);
  return (
    `<line x1="${at}" x2="${at}" y1="16" y2="${height}"/>`
    + `<text class="limit" x="${at}" y="12">${escape(name)}</text>`
  );
}

function table({ rows }: Comparison): string {
  const header = ['strategy', 'devices', 'latency', 'speedup', 'efficiency', 'exposed', 'attention', 'FFN'];
  const percent = (value: number | null) => (value === null ? '-' : `${(100 * value).toFixed(1)} %`);
  return htmlTable(
    [...header, 'rest', 'memory', 'fits'],
    rows.map((row) => [
      row.strategy,
      String(row.devices),
      formatSeconds(row.latencyS),
      row.speedup === null ? '-' : `${row.speedup.toFixed(2)}x`,
      percent(row.efficiency),
      formatSeconds(row.exposedCommS),
      formatBytes(row.commBytes.attention),
      formatBytes(row.commBytes.ffn),
      formatBytes(row.commBytes.rest),
      formatBytes(row.peakBytesPerDevice),
      row.fits ? 'yes' : 'no',
    ]),
  );
}

function profileTable({ provenance }: DeviceProfile): string {
  return htmlTable(['figure', 'source'], Object.entries(provenance));
}

function htmlTable(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (tag: string, cells: readonly string[]) =>
    `<tr>${cells.map((cell) => `<${tag}>${escape(cell)}</${tag}>`).join('')}</tr>`;
  return `<table>${line('th', header)}\n${rows.map((row) => line('td', row)).join('\n')}</table>`;
}

function escape(text: string): string {
  const names: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
  return text.replace(/[&<>"]/g, (character) => names[character] ?? character);
}

const style = `
:root { color-scheme: light dark; --text: #1c1c1e; --quiet: #66666b; --line: #d9d9de; --back: #ffffff;
  --a: #3b6fb6; --b: #c9a227; --c: #b5483a; --d: #b5483a; }
@media (prefers-color-scheme: dark) { :root { --text: #ececee; --quiet: #a0a0a6; --line: #3a3a3e;
  --back: #17171a; --a: #6d9ee0; --b: #dbbb4d; --c: #e0796b; --d: #e0796b; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back);
  max-width: 920px; margin: 40px auto; padding: 0 20px; }
h1 { font-size: 24px; line-height: 1.25; } h2 { font-size: 17px; margin: 36px 0 0; }
p { margin: 6px 0; } .quiet { color: var(--quiet); } .warn { color: var(--c); font-weight: 600; }
.legend span { margin-right: 18px; } .legend i { display: inline-block; width: 11px; height: 11px;
  margin-right: 6px; }
.scroll { overflow-x: auto; } svg { width: 100%; min-width: 640px; margin-top: 6px; }
svg text { font-size: 13px; fill: var(--text); } svg .label { text-anchor: end; }
svg .limit { text-anchor: middle; fill: var(--quiet); font-size: 12px; }
svg line { stroke: var(--quiet); stroke-dasharray: 4 3; }
rect.a { fill: var(--a); } rect.b { fill: var(--b); } rect.c { fill: var(--c); } rect.d { fill: var(--d); }
i.a { background: var(--a); } i.b { background: var(--b); } i.c { background: var(--c); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; margin-top: 8px; }
th, td { text-align: left; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; } th { color: var(--quiet); font-weight: 500; white-space: nowrap; }
`;
