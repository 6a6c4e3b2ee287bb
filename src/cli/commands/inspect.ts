import { readFile } from 'node:fs/promises';
import { lowerToPlan, printSchedule, readPlan } from '../../backend/index.js';
import { printModule } from '../../ir/printer.js';
import type { Module } from '../../ir/module.js';
import { AegisError } from '../../support/diagnostics.js';
import { checkShapeOptions, defineCommand, parseDims, shapeOptions } from '../command.js';
import type { Context } from '../context.js';
import { allMemoryFields, describeKeys, describePlan, keysText, planText } from '../describe-plan.js';
import { describeModule, moduleText, nodeOpsText, opsOfNode } from '../describe-module.js';
import { cipherBeside, clientOf, loadPlan, readCipher, type LoadedPlan } from '../engine.js';
import { checkInputs } from '../files.js';
import { formatBytes, formatFields, formatTable, insecureNotice } from '../format.js';

const phases = ['tensor', 'cipher', 'poly', 'schedule'] as const;
type PhaseName = (typeof phases)[number];

export const inspectCommand = defineCommand({
  command: 'inspect <file>',
  describe: 'show a plan, a cipher module or an ONNX model',
  positionals: { file: { type: 'string', demandOption: true, describe: 'plan, cipher text or ONNX file' } },
  options: {
    phase: { choices: phases, describe: 'print the text of that phase' },
    node: {
      type: 'string',
      requiresArg: true,
      describe: 'only what was made for ONNX nodes of that name, or part',
    },
    memory: {
      type: 'boolean',
      default: false,
      describe: 'what keys, weights, activations and scratch of a run take',
    },
    keys: { type: 'boolean', default: false, describe: 'every key that the plan needs' },
    ...shapeOptions,
  },
  examples: [
    ['aegis inspect model.aegis', 'parameters, security, work, predicted error, bytes'],
    ['aegis inspect model.aegis --keys', 'the keys, with their levels and sizes'],
    ['aegis inspect model.onnx --phase tensor', 'the model as the compiler reads it'],
  ],
  check: checkShapeOptions,
  run: async (args, context) => {
    await checkInputs([args.file]);
    const wanted = { ...args, phase: args.phase as PhaseName | undefined };
    switch (await kindOf(args.file)) {
      case 'plan':
        return inspectPlan(await loadPlan(args.file), wanted, context);
      case 'cipher':
        return inspectModule(await readCipher(args.file), 'cipher', wanted, context);
      case 'model': {
        const { importModel } = await import('../../frontend/index.js');
        const { module } = importModel(args.file, { seqLen: args.seqLen, dims: parseDims(args.dim) });
        return inspectModule(module, 'model', wanted, context);
      }
    }
  },
});

interface Wanted {
  readonly file: string;
  readonly phase: PhaseName | undefined;
  readonly node: string | undefined;
  readonly memory: boolean;
  readonly keys: boolean;
}

/** By content, not by name: plans carry their identifier at byte 4, modules start with a keyword. */
async function kindOf(path: string): Promise<'plan' | 'cipher' | 'model'> {
  const bytes = await readFile(path);
  if (bytes.subarray(4, 8).toString('latin1') === 'AEGS') return 'plan';
  if (bytes.subarray(0, 7).toString('latin1') === 'module ') return 'cipher';
  if (path.endsWith('.onnx')) return 'model';
  throw new AegisError({
    code: 'C110',
    message: `${path} is neither a plan nor a cipher module nor an ONNX model`,
    help: 'make a plan with aegis compile',
  });
}

async function inspectPlan(plan: LoadedPlan, wanted: Wanted, context: Context): Promise<void> {
  const client = plan.view.client === undefined ? [] : (await clientOf(plan)).describe();
  const description = describePlan(plan.view, plan.bytes.length, client);
  const { insecure } = description;
  if (wanted.phase === 'schedule') {
    return printText(printSchedule(plan.view), insecure, 'schedule', context);
  }
  if (wanted.phase !== undefined || wanted.node !== undefined) {
    if (wanted.phase === 'tensor') throw noPhase('a plan holds no tensor phase', 'inspect the ONNX file');
    return inspectModule(await cipherBeside(plan), 'cipher', wanted, context);
  }
  const keys = wanted.keys ? describeKeys(plan.view) : undefined;
  if (context.json) {
    context.out.write(`${JSON.stringify({ ...description, ...(keys === undefined ? {} : { keys }) })}\n`);
    return;
  }
  const notice = insecure ? `${insecureNotice(context.style)}\n` : '';
  if (keys !== undefined) context.out.write(`${keysText(keys)}${notice}`);
  else if (wanted.memory) context.out.write(`${await memoryText(plan)}${notice}`);
  else context.out.write(planText(plan.path, plan.view, description, context.style));
}

/** Buffers by function: a frame holds the frames of the functions it calls. */
async function memoryText({ view, bytes }: LoadedPlan): Promise<string> {
  const { memory } = describePlan(view, bytes.length);
  const { doctor } = await import('../../executor/index.js');
  const { availableBytes } = await doctor();
  const fields: [string, string][] = [
    ...allMemoryFields(memory),
    ['free on this machine', formatBytes(availableBytes)],
  ];
  const functions = view.programs[0]?.functions ?? [];
  const rows = functions.map((func) => [func.name, String(func.buffers.length), String(func.frameRows)]);
  return `${formatFields(fields)}\n\n${formatTable(
    [['function', 'buffers', 'frame rows'], ...rows],
    [1, 2],
  )}\n`;
}

async function inspectModule(
  module: Module,
  file: 'model' | 'cipher',
  wanted: Wanted,
  context: Context,
): Promise<void> {
  if (wanted.memory || wanted.keys) {
    throw noPhase('--memory and --keys are known of a plan only', 'compile first, then inspect the plan');
  }
  const shown = wanted.phase === undefined ? module : inPhase(module, wanted.phase);
  if (typeof shown === 'string') {
    return printText(shown, module.parameters?.insecure === true, 'schedule', context);
  }
  if (wanted.node !== undefined) {
    const ops = opsOfNode(shown, wanted.node);
    if (ops.length === 0) {
      const message = `nothing was made for a node named ${JSON.stringify(wanted.node)}`;
      throw new AegisError({ code: 'C112', message });
    }
    context.out.write(context.json ? `${JSON.stringify({ ops })}\n` : nodeOpsText(ops));
    return;
  }
  if (wanted.phase !== undefined) {
    const text = printModule(shown, { data: 'hash', locations: true });
    return printText(text, shown.parameters?.insecure === true, wanted.phase, context);
  }
  const description = describeModule(module, file);
  context.out.write(
    context.json ? `${JSON.stringify(description)}\n` : moduleText(wanted.file, description, context.style),
  );
}

/** The module in that phase, or the text of its schedule. */
function inPhase(module: Module, phase: PhaseName): Module | string {
  if (phase === module.phase) return module;
  if (module.phase === 'tensor') {
    throw noPhase(
      `phase ${phase} of a model depends on ranges and parameters`,
      'compile it with --samples or --ranges, then inspect the plan',
    );
  }
  if (phase === 'tensor') throw noPhase('a cipher module holds no tensor phase', 'inspect the ONNX file');
  const lowered = lowerToPlan(module, { compilerVersion: 'inspect' });
  return phase === 'poly' ? lowered.poly : printSchedule(readPlan(lowered.plan));
}

function printText(text: string, insecure: boolean, phase: string, context: Context): void {
  const notice = insecure ? `// ${insecureNotice({ ...context.style, color: false })}\n` : '';
  context.out.write(context.json ? `${JSON.stringify({ phase, insecure, text })}\n` : `${notice}${text}`);
}

function noPhase(message: string, help: string): AegisError {
  return new AegisError({ code: 'C111', message, help });
}
