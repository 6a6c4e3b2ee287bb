export { formatNpz, parseNpz } from './npz.js';
export { parseRanges, readRanges } from './ranges.js';
export { parseSamplesJson } from './samples-json.js';
export {
  parseTake,
  readNpz,
  readSamples,
  sampleAt,
  samplesOfArrays,
  takeSamples,
  type Take,
} from './samples.js';
export { elementCount, type DType, type SampleInput, type Samples, type Tensor } from './types.js';
