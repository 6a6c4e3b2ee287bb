// Times of commands, of CKKS operations and of one bootstrap at 128 bits (24 limbs, 1 + 9 + 3 + 8 + 3).
//
//   npm run bench -- [--json] [--no-bootstrap] [options of aegis-bench]
//
// The bootstrap needs 6 GiB of memory; its keys are made for it and deleted behind it.
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { encrypt } from '../dist/executor/index.js';
import { bootstrapParameters, makeBootstrap } from './bootstrap-plan.mjs';

const program = fileURLToPath(new URL('../build/bin/aegis-bench', import.meta.url));
const given = process.argv.slice(2);
const json = given.includes('--json');
const args = given.filter((arg) => arg !== '--no-bootstrap');
const valueOf = (flag) => (args.includes(flag) ? args[args.indexOf(flag) + 1] : undefined);

const interrupt = new AbortController();
// A second Ctrl-C must not end the program before the keys are gone.
process.on('SIGINT', () => interrupt.abort(new Error('interrupted')));

/** Output of aegis-bench, which prints its own errors and keeps its files in `folder`. */
function bench(options, folder = tmpdir()) {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, TMPDIR: folder };
    const child = spawn(program, options, { stdio: ['ignore', 'pipe', 'inherit'], env });
    let out = '';
    child.stdout.on('data', (chunk) => {
      if (json) out += chunk;
      else process.stdout.write(chunk);
    });
    child.on('error', (error) => reject(new Error(`${program}: ${error.message}; run npm run setup`)));
    child.on('close', (status) => {
      if (status === 0) resolve(out);
      else reject(new Error(`aegis-bench ended with status ${status}`, { cause: status }));
    });
  });
}

async function bootstrapRow() {
  const folder = await mkdtemp(join(tmpdir(), 'aegis-bench-'));
  try {
    console.error('bench: keys of the bootstrap, about 10 s');
    const parameters = bootstrapParameters({ levels: 9 });
    const { plan } = await makeBootstrap(folder, parameters, { signal: interrupt.signal });
    const x = Float64Array.from({ length: 2 * parameters.slots }, (_, i) => Math.sin(i));
    const request = join(folder, 'request.ct');
    await encrypt({ plan, key: join(folder, 'public.key'), inputs: { x }, out: request });
    const machine = ['--backend', '--threads'].flatMap((flag) => {
      const value = valueOf(flag);
      return value === undefined ? [] : [flag, value];
    });
    const files = ['--plan', 'bootstrap', plan, join(folder, 'eval.keys'), request];
    return await bench([...(json ? ['--json'] : []), ...machine, ...files], folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const whole = !args.includes('--plan') && valueOf('--backend') !== 'cuda-emulated';
try {
  const out = [await bench(args)];
  if (whole && !given.includes('--no-bootstrap')) out.push(await bootstrapRow());
  const rows = json ? out.flatMap((text) => JSON.parse(text)) : [];
  if (json) console.log(JSON.stringify(rows, null, 1));
} catch (error) {
  console.error(`bench: ${error.message}`);
  process.exitCode = interrupt.signal.aborted ? 130 : (error.cause ?? 1);
}
