import { test } from 'vitest';
import { writeFileSync, mkdirSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { compile, sampleInputs } from '../../src/compile.js';
import { readSamples } from '../../src/data/index.js';
import { runCipher } from '../../src/ir/interpreter/cipher.js';
const native: any = createRequire(import.meta.url)('/tmp/mybuild/bin/aegis.node');
const call = (name: string, o: any) => { const t = native[name](o); return t.promise ?? t; };
test('run', async () => {
  const f=process.env.F ?? '/work/main/examples/digits-vit/digits_vit.onnx';
  const s=process.env.S ?? f.replace('.onnx','.samples.json');
  const all = await readSamples(s); const samples = await readSamples(s, {from:0,to:16});
  const dir='/tmp/out'; mkdirSync(dir,{recursive:true});
  let t=Date.now(); const lap=(n:string)=>{ console.log(n, Date.now()-t,'ms'); t=Date.now(); };
  const r = await compile(f, { ring:'small', insecure:true, samples }); lap('compile');
  console.log(JSON.stringify({...r.summary,passes:0}), 'predicted', r.cipher.outputs.map(o=>o.predictedError));
  const plan=dir+'/m.aegis'; writeFileSync(plan, r.plan); writeFileSync(plan+'.weights', r.weights);
  console.log(await call('keygen', { plan, out: dir, directory: dir, seed: 1, threads: 2 })); lap('keygen'); console.log(statSync(dir+'/eval.keys').size/1e6,'MB');
  const inputs = sampleInputs(r.tensor, all);
  for (let i=16;i<16+Number(process.env.K??2);i++) {
    await call('encrypt', { plan, key: dir+'/public.key', inputs: inputs[i], out: dir+'/q.ct', threads:2 }); lap('encrypt');
    const res = await call('run', { plan, weights: plan+'.weights', keys: dir+'/eval.keys', in: dir+'/q.ct', out: dir+'/a.ct', threads: 2 }); lap('run');
    console.log(res.outputSha256, res.seconds, JSON.stringify(res.opcodes), JSON.stringify(res.ranks));
    const y = await call('decrypt', { plan, key: dir+'/secret.key', in: dir+'/a.ct', threads:2 }); lap('decrypt');
    const name = r.cipher.outputs[0]!.name; const got = (y.outputs ?? y)[name] ?? y; const clear = runCipher(r.cipher, inputs[i]!)[name]!;
    console.log('sample',i,'enc', Array.from(got as Float64Array).map(x=>x.toFixed(4)).join(' '), '\n clear', Array.from(clear).map(x=>x.toFixed(4)).join(' '), '\n ort  ', Array.from(all.logits![i]!).map(x=>x.toFixed(4)).join(' '));
    console.log('max err vs clear', Math.max(...Array.from(clear).map((x,j)=>Math.abs(x-got[j]))), 'vs ort', Math.max(...Array.from(all.logits![i]!).map((x,j)=>Math.abs(x-got[j]))));
  }
}, 3600000);
