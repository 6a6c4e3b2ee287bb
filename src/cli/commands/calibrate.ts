import { checkInputs, checkOutputs, writeTogether } from '../files.js';
import {
  checkShapeOptions,
  defineCommand,
  outputOption,
  paddingOption,
  parseDims,
  readTaken,
  sampleOptions,
  shapeOptions,
} from '../command.js';

export const calibrateCommand = defineCommand({
  command: 'calibrate <model>',
  describe: 'measure the ranges of a model on sample inputs',
  positionals: { model: { type: 'string', demandOption: true, describe: 'ONNX file' } },
  options: {
    samples: { ...sampleOptions.samples, demandOption: true },
    take: sampleOptions.take,
    output: { ...outputOption, describe: 'ranges file to write' },
    ...shapeOptions,
    padding: paddingOption,
  },
  examples: [
    [
      'aegis calibrate model.onnx --samples model.samples.json --take 0:16 -o ranges.json',
      'the first sixteen samples',
    ],
  ],
  check: checkShapeOptions,
  run: async (args, { out, err, json, progress }) => {
    await checkInputs([args.model, args.samples]);
    await checkOutputs([args.output]);
    const { calibrate } = await import('../../compile.js');
    const samples = await readTaken(args.samples, args.take);
    const ranges = await progress.during('calibrate', (task) =>
      calibrate(args.model, samples, {
        seqLen: args.seqLen,
        noPadding: !args.padding,
        dims: parseDims(args.dim),
        onProgress: (fraction) => task.update(fraction, `${samples.count} samples`),
      }),
    );
    await writeTogether([{ path: args.output, content: `${JSON.stringify(ranges)}\n` }]);
    if (json) {
      const { model, sourceHash, nodes } = ranges;
      out.write(`${JSON.stringify({ model, sourceHash, samples: samples.count, nodes: nodes.length })}\n`);
    } else {
      err.write(`${args.output}: ranges of ${ranges.nodes.length} nodes over ${samples.count} samples\n`);
    }
  },
});
