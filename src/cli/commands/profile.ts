import { defineCommand, outputOption } from '../command.js';
import { checkOutputs, writeTogether } from '../files.js';
import { bold, formatBytes, formatFields, formatTable, type Style } from '../format.js';
import { kernelKinds } from '../../target/kernel-cost.js';
import type { DeviceProfile } from '../../target/profile.js';

export const profileCommand = defineCommand({
  command: 'profile',
  describe: 'measure this machine for simulate and compare',
  positionals: {},
  options: { output: { ...outputOption, describe: 'device profile to write' } },
  examples: [['aegis profile -o here.json', 'half a minute; keep the machine idle']],
  run: async ({ output }, context) => {
    await checkOutputs([output]);
    const { measureMachine } = await import('../measure-machine.js');
    const profile = await context.interruptible((signal) =>
      context.progress.during('profile', (task) =>
        measureMachine((fraction, detail) => task.update(fraction, detail), signal),
      ),
    );
    const content = `${JSON.stringify(profile, null, 2)}\n`;
    await writeTogether([{ path: output, content }]);
    context.out.write(
      context.json ? `${JSON.stringify(profile)}\n` : profileText(output, profile, context.style),
    );
  },
});

function profileText(path: string, profile: DeviceProfile, style: Style): string {
  const { link, measured } = profile;
  const tables = measured?.tables ?? [];
  const nanoseconds = (seconds: number) => (seconds * 1e9).toFixed(3);
  const header = ['ns', ...tables.flatMap(({ threads }) => [`${threads} thr: term`, 'word', 'byte'])];
  const rows = kernelKinds.map((kind) => [
    kind,
    ...tables.flatMap(({ kernels }) => {
      const { termSeconds, wordSeconds, byteSeconds } = kernels[kind];
      return [termSeconds, wordSeconds, byteSeconds].map(nanoseconds);
    }),
  ]);
  return [
    `${bold(style, path)}: ${profile.name}`,
    formatFields([
      ['memory', `${formatBytes(profile.memoryBytes)}, ${(profile.memoryBandwidth / 1e9).toFixed(1)} GB/s`],
      ['kernels', measured?.backend ?? 'not measured'],
      ['launch', `${(profile.launchSeconds * 1e6).toFixed(2)} us`],
      [
        'between ranks',
        `${(link.bandwidth / 1e9).toFixed(1)} GB/s, ${(link.latencySeconds * 1e6).toFixed(1)} us a step`,
      ],
    ]),
    formatTable([header, ...rows], header.map((_, i) => i).slice(1)),
    '',
  ].join('\n');
}
