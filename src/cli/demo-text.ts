/** The pictures and tables of `aegis demo`. */
import { bold, formatBytes, formatSeconds, formatTable, type Style } from './format.js';
import { argmax } from './measure.js';

const shades = ' .:-=+*#%@';

/** Pixels in 0..1, row-major; two characters a pixel, since characters are twice as high as wide. */
export function drawDigit(pixels: Float64Array, side: number): string {
  const edge = `+${'-'.repeat(2 * side)}+`;
  const rows = Array.from({ length: side }, (_, y) => {
    const row = Array.from(pixels.subarray(y * side, (y + 1) * side), (value) => {
      const shade = shades[Math.round(Math.min(1, Math.max(0, value)) * (shades.length - 1))] ?? ' ';
      return shade + shade;
    });
    return `|${row.join('')}|`;
  });
  return [edge, ...rows, edge].map((line) => `    ${line}`).join('\n');
}

/** Class scores of the encrypted run beside those of ONNX Runtime. */
export function scoresTable(encrypted: Float64Array, reference: Float64Array, style: Style): string {
  const best = argmax(encrypted);
  const rows = Array.from(encrypted, (value, digit) => [
    `    ${digit}`,
    value.toFixed(5),
    (reference[digit] ?? NaN).toFixed(5),
    Math.abs(value - (reference[digit] ?? NaN)).toExponential(1),
    digit === best ? '<- read as' : '',
  ]);
  const head = ['digit', 'encrypted', 'ONNX Runtime', 'error', ''];
  return formatTable([head, ...rows], [0, 1, 2, 3])
    .split('\n')
    .map((line, i) => `    ${i === best + 1 ? bold(style, line) : line}`)
    .join('\n');
}

export interface TimeShare {
  readonly name: string;
  readonly seconds: number;
  readonly detail: string;
}

const barWidth = 24;

/** Largest first, the small ones summed up in a last line. */
export function timeTable(title: string, shares: readonly TimeShare[], maxRows: number): string {
  const total = shares.reduce((sum, share) => sum + share.seconds, 0);
  const sorted = [...shares].sort((a, b) => b.seconds - a.seconds);
  const rest = sorted.slice(maxRows);
  const shown =
    rest.length === 0
      ? sorted
      : [
          ...sorted.slice(0, maxRows),
          {
            name: `${rest.length} more`,
            seconds: rest.reduce((sum, share) => sum + share.seconds, 0),
            detail: '',
          },
        ];
  const longest = shown[0]?.seconds ?? 1;
  const rows = shown.map(({ name, seconds, detail }) => [
    `    ${name}`,
    formatSeconds(seconds),
    `${((100 * seconds) / total).toFixed(1)} %`,
    '#'.repeat(Math.round((barWidth * seconds) / longest)),
    detail,
  ]);
  return formatTable([[`    ${title}`, 'time', 'share', '', ''], ...rows], [1, 2]);
}

export function sizesTable(files: readonly { what: string; bytes: number; place: string }[]): string {
  return formatTable(
    files.map(({ what, bytes, place }) => [`    ${what}`, formatBytes(bytes), place]),
    [1],
  );
}
