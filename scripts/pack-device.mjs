// Gathers what a bare machine with a GPU needs to build, check and time the runtime (CUDA toolkit, CMake and a
// C++ compiler are there; no network, no Node): sources, generated code, headers and libsodium of this machine,
// the example's plans for 1, 2 and 4 ranks with a request, and device-check.sh, which does it all.
//
//   npm run pack:device -- -o FOLDER|FILE.tar.gz
//
// Evaluation keys would take 170 MB: they are made there from the same seed as here (the plans are INSECURE).
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, copyFile, cp, mkdir, mkdtemp, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { parseArgs, promisify } from 'node:util';

const run = promisify(execFile);
const megabyte = 2 ** 20;
const maxPackedBytes = 20 * megabyte;
const rankCounts = [1, 2, 4];
const seed = '7';
const sample = 20;
const left = 'addon';
const headers = ['flatbuffers', 'nlohmann', 'sodium', 'sodium.h'];

const root = resolve(dirname(new URL(import.meta.url).pathname), '..');
const { values } = parseArgs({ options: { output: { type: 'string', short: 'o' } } });

function fail(message) {
  process.stderr.write(`pack-device: ${message}\n`);
  process.exit(1);
}

async function aegis(...args) {
  try {
    return await run(process.execPath, [join(root, 'dist/cli/main.js'), ...args], { maxBuffer: 2 ** 28 });
  } catch (error) {
    return fail(`aegis ${args[0]} failed: ${error.stderr || error.stdout}`);
  }
}

/** The first of the places that has the file; what dpkg says is not asked, other systems have none. */
function find(name, places) {
  const place = places.find((folder) => existsSync(join(folder, name)));
  return place === undefined ? fail(`there is no ${name} in ${places.join(', ')}`) : join(place, name);
}

async function copySources(to) {
  const wanted = (path) => !path.startsWith(join(root, 'runtime', left));
  await cp(join(root, 'runtime'), join(to, 'runtime'), { recursive: true, filter: wanted });
  await cp(join(root, 'src/target/profiles'), join(to, 'profiles'), { recursive: true });
  await mkdir(join(to, 'generated/plan'), { recursive: true });
  const schema = join(root, 'runtime/plan/plan.fbs');
  await run('flatc', ['--cpp', '--gen-object-api', '-o', join(to, 'generated/plan'), schema]);
  await copyFile(join(root, 'scripts/device-check.sh'), join(to, 'device-check.sh'));
  await chmod(join(to, 'device-check.sh'), 0o755);
}

async function copyLibraries(to) {
  await mkdir(join(to, 'third_party/lib'), { recursive: true });
  const include = ['/usr/local/include', '/usr/include'];
  for (const name of headers) {
    await cp(find(name, include), join(to, 'third_party/include', name), { recursive: true });
  }
  const libraries = [
    `/usr/lib/${process.arch === 'x64' ? 'x86_64' : 'aarch64'}-linux-gnu`,
    '/usr/lib',
    '/usr/local/lib',
  ];
  await copyFile(find('libsodium.a', libraries), join(to, 'third_party/lib/libsodium.a'));
}

/** Plans of the example for each number of ranks, a request, and the hash that all of them give. */
async function makeExample(to, work) {
  await mkdir(to, { recursive: true });
  const model = join(root, 'examples/digits-vit');
  const samples = join(model, 'digits_vit.samples.json');
  const common = [
    '--samples',
    samples,
    '--take',
    '0:16',
    '--ring',
    'small',
    '--insecure',
    '--profile',
    'h100-80g',
  ];
  for (const ranks of rankCounts) {
    const plan = join(to, `ranks${ranks}.aegis`);
    await aegis('compile', join(model, 'digits_vit.onnx'), '-o', plan, '--devices', String(ranks), ...common);
    await rm(`${plan}.cipher`, { force: true });
    await rename(`${plan}.weights`, join(to, 'model.weights'));
  }
  const plan = join(to, 'ranks1.aegis');
  await aegis('keygen', plan, '-o', join(work, 'keys'), '--seed', seed);
  const request = join(to, 'request.ct');
  await aegis(
    'encrypt',
    plan,
    '--key',
    join(work, 'keys/public.key'),
    '--in',
    await inputs(samples, work),
    '-o',
    request,
  );
  const exec = join(root, 'build/runtime/bin/aegis-exec');
  const hashes = new Set();
  for (const ranks of rankCounts) {
    const args = [join(to, `ranks${ranks}.aegis`), '--weights', join(to, 'model.weights'), '--json'];
    const files = ['--keys', join(work, 'keys/eval.keys'), '--in', request, '-o', join(work, 'response.ct')];
    const { stdout } = await run(exec, [...args, ...files], { maxBuffer: 2 ** 28 }).catch((error) =>
      fail(`a run on ${ranks} ranks failed: ${error.stdout}${error.stderr}`),
    );
    hashes.add(JSON.parse(stdout).outputSha256);
  }
  if (hashes.size !== 1) fail(`the ranks give ${hashes.size} different outputs`);
  await writeFile(join(to, 'outputSha256'), `${[...hashes][0]}\n`);
  await writeFile(join(to, 'seed'), `${seed}\n`);
}

async function inputs(samples, work) {
  const { formatNpz, readSamples } = await import('../dist/data/index.js');
  const taken = await readSamples(samples, { from: sample, to: sample + 1 });
  const file = join(work, 'inputs.npz');
  const arrays = [...taken.inputs].map(([name, { dtype, shape, data }]) => [
    name,
    { dtype, shape, data: data[0] },
  ]);
  await writeFile(file, formatNpz(new Map(arrays)));
  return file;
}

async function bytesOf(path) {
  const info = await stat(path);
  if (!info.isDirectory()) return info.size;
  let total = 0;
  for (const name of await readdir(path)) total += await bytesOf(join(path, name));
  return total;
}

if (values.output === undefined) fail('where to? npm run pack:device -- -o FOLDER|FILE.tar.gz');
const output = resolve(values.output);
const packed = output.endsWith('.tar.gz');
if (existsSync(output)) fail(`${values.output} exists already`);
const work = await mkdtemp(join(tmpdir(), 'aegis-pack-'));
try {
  const folder = join(work, 'aegis-device');
  await mkdir(folder);
  await copySources(folder);
  await copyLibraries(folder);
  await makeExample(join(folder, 'example'), work);
  const archive = join(work, 'pack.tar.gz');
  await run('tar', ['-czf', archive, '-C', work, 'aegis-device']);
  const { size } = await stat(archive);
  if (size > maxPackedBytes) fail(`${size} bytes packed are more than ${maxPackedBytes}`);
  await mkdir(dirname(output), { recursive: true });
  await cp(packed ? archive : folder, output, { recursive: true });
  const unpacked = (await bytesOf(folder)) / megabyte;
  process.stdout.write(
    `${values.output}: ${(size / megabyte).toFixed(1)} MiB packed, ${unpacked.toFixed(1)} MiB unpacked; `
      + 'bash device-check.sh there\n',
  );
} finally {
  await rm(work, { recursive: true, force: true });
}
