import { test } from 'vitest';
import { writeFileSync, mkdirSync } from 'node:fs';
import { compile } from '../../src/compile.js';
import { readSamples } from '../../src/data/index.js';
test('compile', async () => {
  const f=process.env.F ?? '/work/main/examples/digits-vit/digits_vit.onnx';
  const s=process.env.S ?? f.replace('.onnx','.samples.json');
  const samples = await readSamples(s, {from:0,to:16});
  const t=Date.now();
  const r = await compile(f, { ring:'small', insecure:true, samples, dumpIr: '/tmp/dump' });
  console.log('total ms', Date.now()-t, JSON.stringify(r.summary), r.cipher.outputs.map(o=>o.predictedError));
  mkdirSync('/tmp/out',{recursive:true}); writeFileSync('/tmp/out/m.aegis', r.plan); writeFileSync('/tmp/out/m.aegis.weights', r.weights);
});
