import { test } from 'vitest';
import { existsSync, readFileSync } from 'node:fs';
import { compile, sampleInputs } from '../../src/compile.js';
import { readSamples } from '../../src/data/index.js';
import { runCipher } from '../../src/ir/interpreter/cipher.js';
test('margin', async () => {
  for (const f of readFileSync('/tmp/mlist.txt','utf8').trim().split('\n').filter(f=>f.includes(process.env.M??''))) {
    const own=f.replace('.onnx','.samples.json'); const s=existsSync(own)?own:f.replace(/\.[^/.]*\.onnx$/,'.samples.json');
    const all=await readSamples(s);
    const r=await compile(f,{ring:'small',insecure:true,samples:await readSamples(s,{from:0,to:16})});
    const name=r.cipher.outputs[0]!.name;
    const e=sampleInputs(r.tensor,all).slice(16, 16+Number(process.env.K??1000)).map((inp,i)=>Math.max(...Array.from(runCipher(r.cipher,inp)[name]!,(x,j)=>Math.abs(x-all.logits![16+i]![j]!)))).sort((a,b)=>b-a);
    console.log(f.split('/').pop(),'pred',r.cipher.outputs[0]!.predictedError,'held-out clear errors',e.slice(0,5).map(x=>x.toExponential(1)).join(' '),'ratio',(e[0]!/r.cipher.outputs[0]!.predictedError!).toFixed(3), 'boots',r.summary.bootstraps, r.summary.passes.map(p=>p.name[0]+p.seconds.toFixed(1)).join(' '));
  }
}, 3600000);
