// Precision and time of one bootstrap: a plan that does nothing else, run encrypted on inputs that are hard
// in different ways. Two real vectors share the bootstrap as real + i*imag, so the slots are complex.
//
//   npm run bench:bootstrap -- [--ring small|secure] [--levels 13] [--arcsine] [--runs 10] [--threads n]
//                              [--out FOLDER] [--json]
//
// --levels: usable levels, above the three of SlotsToCoeffs; 9 make a chain of 24 limbs, 1 + 9 + 3 + 8 + 3.
// --arcsine: two more levels of EvalMod. Seconds of processor time are those of all threads, loading included.
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { cpus, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { decrypt, encrypt, run } from '../dist/executor/index.js';
import { defaultUsableLevels } from '../dist/target/parameters.js';
import { bootstrapParameters, makeBootstrap } from './bootstrap-plan.mjs';

const { values: options } = parseArgs({
  options: {
    ring: { type: 'string', default: 'secure' },
    runs: { type: 'string', default: '10' },
    levels: { type: 'string', default: String(defaultUsableLevels) },
    arcsine: { type: 'boolean', default: false },
    threads: { type: 'string', default: String(cpus().length) },
    out: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});
const threads = Number(options.threads);
const parameters = bootstrapParameters({
  ring: options.ring,
  levels: Number(options.levels),
  arcsine: options.arcsine,
});
const { slots } = parameters;

/** mulberry32 in [-1, 1). */
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z = (z + Math.imul(z ^ (z >>> 7), z | 61)) ^ z;
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 31 - 1;
  };
}

const inputs = {
  random: (seed) => {
    const next = random(seed);
    return Float64Array.from({ length: 2 * slots }, next);
  },
  'all-ones': () => new Float64Array(2 * slots).fill(1),
  'one-hot': (seed) => {
    const vector = new Float64Array(2 * slots);
    vector[seed % slots] = 1;
    vector[slots + (seed % slots)] = -1;
    return vector;
  },
  'period-16': (seed) => {
    const next = random(seed);
    const period = Float64Array.from({ length: 32 }, next);
    return Float64Array.from({ length: 2 * slots }, (_, i) => period[(i < slots ? 0 : 16) + (i % 16)]);
  },
};

/** Errors in bits: mean and worst over slots, slot 0 (and its conjugate, the imaginary part) apart. */
function statistics(expected, got) {
  const errors = expected.map((x, i) => Math.abs(x - got[i]));
  const rest = errors.filter((_, i) => i !== 0 && i !== slots);
  const bits = (error) => Math.log2(Math.max(error, 2 ** -60));
  return {
    meanBits: bits(errors.reduce((a, b) => a + b, 0) / errors.length),
    worstBits: bits(rest.reduce((a, b) => Math.max(a, b), 0)),
    slot0Bits: bits(errors[0]),
    slot0ConjugateBits: bits(errors[slots]),
  };
}

const folder = options.out ?? (await mkdtemp(join(tmpdir(), 'aegis-bootstrap-')));
await mkdir(folder, { recursive: true });
const at = (name) => join(folder, name);
try {
  const { keygenSeconds, evalKeysBytes, keyBytes } = await makeBootstrap(folder, parameters, { threads });
  const rows = [];
  for (const [name, make] of Object.entries(inputs)) {
    for (let i = 0; i < Number(options.runs); i++) {
      const x = make(1000 + 7 * i);
      await encrypt({
        plan: at('plan.aegis'),
        key: at('public.key'),
        inputs: { x },
        out: at('request.ct'),
        threads,
      });
      const before = process.cpuUsage();
      const report = await run({
        plan: at('plan.aegis'),
        keys: at('eval.keys'),
        in: at('request.ct'),
        out: at('response.ct'),
        threads,
      });
      const { user, system } = process.cpuUsage(before);
      const {
        outputs: { y },
      } = await decrypt({ plan: at('plan.aegis'), key: at('secret.key'), in: at('response.ct'), threads });
      rows.push({
        input: name,
        run: i,
        ...statistics(x, y),
        seconds: report.seconds,
        userSeconds: user / 1e6,
        systemSeconds: system / 1e6,
        peakBytes: report.ranks[0].peakBytes,
      });
      if (!options.json) console.error(JSON.stringify(rows.at(-1)));
    }
  }
  const summary = {
    ring: options.ring,
    logN: parameters.logN,
    logQP: parameters.logQP,
    securityBits: parameters.securityBits,
    insecure: parameters.insecure,
    threads,
    cpu: cpus()[0].model,
    memoryBytes: totalmem(),
    keygenSeconds,
    evalKeysBytes,
    keyBytes,
    limbs: parameters.maxLevel + 1,
    specials: parameters.specials,
    levelsLeft: parameters.computeTop,
    levelsUsable: parameters.computeTop - parameters.bootstrapInputLevel,
  };
  if (options.json) console.log(JSON.stringify({ ...summary, rows }));
  else {
    console.log(summary);
    console.table(
      Object.keys(inputs).map((input) => {
        const own = rows.filter((row) => row.input === input);
        const mean = (key) => own.reduce((sum, row) => sum + row[key], 0) / own.length;
        const worst = (key) => Math.max(...own.map((row) => row[key]));
        return {
          input,
          runs: own.length,
          meanBits: mean('meanBits').toFixed(2),
          worstMeanBits: worst('meanBits').toFixed(2),
          worstBits: worst('worstBits').toFixed(2),
          slot0Bits: worst('slot0Bits').toFixed(2),
          slot0ConjugateBits: worst('slot0ConjugateBits').toFixed(2),
          seconds: mean('seconds').toFixed(2),
          leastSeconds: Math.min(...own.map((row) => row.seconds)).toFixed(2),
          userSeconds: mean('userSeconds').toFixed(2),
          systemSeconds: mean('systemSeconds').toFixed(2),
          peakGiB: (worst('peakBytes') / 2 ** 30).toFixed(2),
        };
      }),
    );
  }
} finally {
  if (options.out === undefined) await rm(folder, { recursive: true, force: true });
}
