/** Progress on standard error: a bar on a terminal, a line now and then elsewhere, nothing for short work. */
import { formatSeconds } from './format.js';

export interface Stream {
  write(text: string): void;
  readonly isTTY: boolean;
  readonly columns: number;
}

/** Nobody wants to read about work that is over before the line is read. */
const quietMs = 1500;
const barPeriodMs = 100;
const linePeriodMs = 10_000;
const barWidth = 24;

export interface Task {
  /** `fraction` in 0..1; `detail` names what is being done. */
  update(fraction: number, detail?: string): void;
  finish(): void;
}

export class Progress {
  constructor(
    private readonly stream: Stream,
    private readonly now: () => number = () => performance.now(),
  ) {}

  start(title: string): Task {
    const begun = this.now();
    let shownAt = -Infinity;
    let shownColumns = 0;
    const bar = (fraction: number, detail: string) => {
      const filled = Math.round(barWidth * fraction);
      const text =
        `${title} [${'#'.repeat(filled)}${'.'.repeat(barWidth - filled)}] `
        + `${percent(fraction)} ${formatSeconds((this.now() - begun) / 1000)} ${detail}`;
      const line = text.slice(0, this.stream.columns - 1);
      this.stream.write(`\r${line.padEnd(shownColumns)}`);
      shownColumns = line.length;
    };
    const line = (fraction: number, detail: string) => {
      const elapsed = formatSeconds((this.now() - begun) / 1000);
      const suffix = detail === '' ? '' : `, ${detail}`;
      this.stream.write(`${title}: ${percent(fraction)} after ${elapsed}${suffix}\n`);
    };
    return {
      update: (fraction, detail = '') => {
        const now = this.now();
        if (now - begun < quietMs || now - shownAt < (this.stream.isTTY ? barPeriodMs : linePeriodMs)) return;
        shownAt = now;
        const bounded = Math.min(1, Math.max(0, fraction));
        if (this.stream.isTTY) bar(bounded, detail);
        else line(bounded, detail);
      },
      finish: () => {
        if (shownColumns > 0) this.stream.write(`\r${' '.repeat(shownColumns)}\r`);
        shownColumns = 0;
      },
    };
  }

  /** Progress of one piece of work, cleared whether it ends well or not. */
  async during<T>(title: string, work: (task: Task) => Promise<T>): Promise<T> {
    const task = this.start(title);
    try {
      return await work(task);
    } finally {
      task.finish();
    }
  }
}

function percent(fraction: number): string {
  return `${Math.floor(fraction * 100)
    .toString()
    .padStart(3)} %`;
}
