import { it } from 'vitest';
import fs from 'node:fs';
import * as ort from 'onnxruntime-node';
import { readGraph } from '/work/main/src/frontend/index.js';
import { runTensor } from '/work/main/src/ir/interpreter/tensor.js';
import { verifyModule } from '/work/main/src/ir/verifier.js';
const D='/work/shared/data/';
it('x', async () => {
  const codes={};
  for(const f of fs.readdirSync(D+'zoo').filter(f=>f.endsWith('.onnx'))){
    try{
      const t0=Date.now();
      const g=readGraph(D+'zoo/'+f,{seqLen:8});
      const t1=Date.now();
      let rawmsg='';const raw={};const feed={};
      try{
      const sess=await ort.InferenceSession.create(D+'zoo/'+f,{logSeverityLevel:4});
      let seed=1;const rnd=()=>{seed=(seed*1103515245+12345)%2147483648;return seed/2147483648};
      for(const i of g.inputs){const n=i.shape.reduce((a,b)=>a*b,1);
        if(i.dtype==='int64'){raw[i.name]=/mask/.test(i.name)?Array(n).fill(1):Array.from({length:n},()=>Math.floor(rnd()*10)+1);feed[i.name]=new ort.Tensor('int64',BigInt64Array.from(raw[i.name].map(BigInt)),i.shape)}
        else {raw[i.name]=Array.from({length:n},()=>Math.fround(rnd()*2-1));feed[i.name]=new ort.Tensor('float32',Float32Array.from(raw[i.name]),i.shape)}}
      const res=await sess.run(feed);
      const mine=g.run(raw);
      for(const o of sess.outputNames){const w=Array.from(res[o].data).map(Number);const y=Array.from(mine[o].data).map(Number);const e=Math.max(...w.map((v,i)=>Math.abs(v-y[i])));rawmsg+=' '+e.toExponential(1)}
      var res2=res;
      }catch(e){rawmsg='RAWFAIL '+String(e.message).slice(0,200)}
      let msg='';
      try{const m=g.lower();const y=runTensor(m,raw);for(const o in y){const w=Array.from(res2[o].data);msg+=' OK '+Math.max(...w.map((v,i)=>Math.abs(v-y[o][i]))).toExponential(1)}; msg+=verifyModule(m).map(d=>d.code+d.message)}
      catch(e){ if(!e.diagnostics) throw e; const by={};for(const d of e.diagnostics){const k=d.code+' '+d.message.slice(0,60);by[k]=(by[k]??0)+1;codes[d.code]=(codes[d.code]??0)+1}; msg=JSON.stringify(by)}
      console.log(f,t1-t0,'ms raw',rawmsg,'|',Date.now()-t1,msg);
    }catch(e){console.log(f,e.diagnostics?String(e.message).slice(0,500):e.stack)}
  }
  console.log(codes);
});
