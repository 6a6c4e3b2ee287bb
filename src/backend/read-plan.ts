/**
 * Plan bytes as a PlanView. The JavaScript FlatBuffers runtime has no verifier: the bytes must have passed
 * the addon's verifier before; here only the file identifier and the major version are looked at (codes B101,
 * B102).
 */
import * as flatbuffers from 'flatbuffers';
import type { Approximation, ClientParts } from '../ir/module.js';
import { AegisError } from '../support/diagnostics.js';
import { defined, unreachable } from '../support/invariant.js';
import * as fb from './generated/plan_generated.js';
import {
  collectiveKinds,
  formatMajor,
  keyKinds,
  layerBlocks,
  opcodes,
  type CollectiveInfo,
  type Command,
  type Key,
  type Plaintext,
  type PlanFunction,
  type PlanParameters,
  type PlanPort,
  type PlanProgram,
  type PortPart,
  type PlanView,
  type Recipe,
  type View,
} from './plan-view.js';

export function readPlan(bytes: Uint8Array): PlanView {
  // Typed array accessors need the alignment that the file has from its first byte on; pooled Buffers lack
  // it.
  const aligned = bytes.byteOffset % 8 === 0 ? bytes : new Uint8Array(bytes);
  const buffer = new flatbuffers.ByteBuffer(aligned);
  if (bytes.length < 8 || !fb.Plan.bufferHasIdentifier(buffer)) {
    throw new AegisError({
      code: 'B101',
      message: 'this is not an Aegis plan',
      help: 'make one with `aegis compile`',
    });
  }
  const plan = fb.Plan.getRootAsPlan(buffer);
  if (plan.formatMajor() !== formatMajor) {
    throw new AegisError({
      code: 'B102',
      message: `the plan has format ${plan.formatMajor()} but this version reads format ${formatMajor}`,
      help: 'compile the model again with this version',
    });
  }
  const summary = present(plan.summary());
  return {
    formatMajor: plan.formatMajor(),
    formatMinor: plan.formatMinor(),
    compilerVersion: present(plan.compilerVersion()),
    modelName: present(plan.modelName()),
    sourceHash: present(plan.sourceHash()),
    weightsHash: present(plan.weightsHash()),
    strategy: present(plan.strategy()),
    mesh: list(
      plan.meshLength(),
      (i) => present(plan.mesh(i)),
      (axis) => ({ name: present(axis.name()), size: axis.size() }),
    ),
    parameters: readParameters(present(plan.parameters())),
    keys: list(plan.keysLength(), (i) => present(plan.keys(i)), readKey),
    tables: list(
      plan.tablesLength(),
      (i) => present(plan.tables(i)),
      (table) => ({ name: present(table.name()), values: Int32Array.from(table.valuesArray() ?? []) }),
    ),
    plaintexts: list(plan.plaintextsLength(), (i) => present(plan.plaintexts(i)), readPlaintext),
    programs: list(plan.programsLength(), (i) => present(plan.programs(i)), readProgram),
    inputs: list(plan.inputsLength(), (i) => present(plan.inputs(i)), readPort),
    outputs: list(plan.outputsLength(), (i) => present(plan.outputs(i)), readPort),
    locations: list(
      plan.locationsLength(),
      (i) => present(plan.locations(i)),
      (name) => name,
    ),
    summary: {
      levels: summary.levels(),
      bootstraps: summary.bootstraps(),
      rotations: summary.rotations(),
      ctMultiplications: summary.ctMultiplications(),
      keyBytes: Number(summary.keyBytes()),
      weightsBytes: Number(summary.weightsBytes()),
    },
    collectives: list(plan.collectivesLength(), (i) => present(plan.collectives(i)), readCollective),
    client: readClient(plan.client()),
    approximations: list(
      plan.approximationsLength(),
      (i) => present(plan.approximations(i)),
      readApproximation,
    ),
  };
}

function readApproximation(one: fb.Approximation): Approximation {
  return {
    node: present(one.node()),
    function: present(one.functionName()),
    interval: { min: one.min(), max: one.max() },
    degrees: Array.from(one.degreesArray() ?? []),
    steps: one.steps(),
    levels: one.levels(),
    error: one.error(),
    relative: one.relative(),
  };
}

function readClient(client: fb.ClientParts | null): ClientParts | undefined {
  if (client === null) return undefined;
  // Copies: the parts outlive the file's bytes.
  const part = (bytes: Uint8Array | null) => (bytes === null ? null : Uint8Array.from(bytes));
  return { prologue: part(client.prologueArray()), epilogue: part(client.epilogueArray()) };
}

const present = <T>(value: T | null | undefined): T => defined(value, 'required plan field');

function list<T, R>(length: number, at: (i: number) => T, read: (item: T) => R): R[] {
  return Array.from({ length }, (_, i) => read(at(i)));
}

/** 64-bit fields of a valid plan are sizes, offsets and residues below 2^53. */
function numbers(length: number, at: (i: number) => bigint | null): number[] {
  return list(length, (i) => present(at(i)), Number);
}

function readProgram(program: fb.Program): PlanProgram {
  const memory = present(program.memory());
  return {
    functions: list(program.functionsLength(), (i) => present(program.functions(i)), readFunction),
    keys: list(
      program.keysLength(),
      (i) => present(program.keys(i)),
      (part) => ({ key: part.key(), limbs: [...(part.limbsArray() ?? [])] }),
    ),
    inputs: list(program.inputsLength(), (i) => present(program.inputs(i)), readPortPart),
    outputs: list(program.outputsLength(), (i) => present(program.outputs(i)), readPortPart),
    memory: {
      ports: Number(memory.ports()),
      frame: Number(memory.frame()),
      keys: Number(memory.keys()),
      plaintexts: Number(memory.plaintexts()),
    },
  };
}

function readPortPart(part: fb.PortPart): PortPart {
  return {
    buffer: part.buffer(),
    elements: [...(part.elementsArray() ?? [])],
    limbs: [...(part.limbsArray() ?? [])],
  };
}

function readCollective(c: fb.CollectiveInfo): CollectiveInfo {
  return {
    kind: present(collectiveKinds[c.kind()]),
    group: [...(c.groupArray() ?? [])],
    rows: numbers(c.rowsLength(), (i) => c.rows(i)),
    limbs: list(
      c.limbsLength(),
      (i) => present(c.limbs(i)),
      (one) => [...(one.limbsArray() ?? [])],
    ),
    root: c.root(),
    node: c.node(),
    block: present(layerBlocks[c.block()]),
    executions: Number(c.executions()),
    receivedBytes: numbers(c.receivedBytesLength(), (i) => c.receivedBytes(i)),
  };
}

function readKey(key: fb.Key): Key {
  return {
    kind: present(keyKinds[key.kind()]),
    galois: key.galois(),
    keyClass: key.keyClass(),
    level: key.level(),
  };
}

function readParameters(p: fb.Parameters): PlanParameters {
  return {
    logN: p.logN(),
    primes: list(
      p.primesLength(),
      (i) => present(p.primes(i)),
      (prime) => prime,
    ),
    maxLevel: p.maxLevel(),
    specials: p.specials(),
    scales: [...(p.scalesArray() ?? [])],
    keyClasses: list(
      p.keyClassesLength(),
      (i) => present(p.keyClasses(i)),
      (keyClass) => ({
        name: present(keyClass.name()),
        level: keyClass.level(),
        specials: keyClass.specials(),
        digits: list(
          keyClass.digitsLength(),
          (i) => present(keyClass.digits(i)),
          (digit) => ({ first: digit.first(), count: digit.count() }),
        ),
      }),
    ),
    ephemeralWeight: p.ephemeralWeight(),
    logQP: p.logQp(),
    securityBits: p.securityBits(),
    insecure: p.insecure(),
  };
}

function readRecipe(p: fb.Plaintext): Recipe {
  const kind = p.recipeType();
  const load = <T>(recipe: T): T => present(p.recipe(recipe)) as T;
  switch (kind) {
    case fb.Recipe.ConstantRecipe:
      return { kind: 'constant', values: [...(load(new fb.ConstantRecipe()).valuesArray() ?? [])] };
    case fb.Recipe.VectorRecipe: {
      const r = load(new fb.VectorRecipe());
      return {
        kind: 'vector',
        weight: present(r.weight()),
        features: r.features(),
        tokens: r.tokens(),
        factor: r.factor(),
      };
    }
    case fb.Recipe.DiagonalsRecipe: {
      const r = load(new fb.DiagonalsRecipe());
      return {
        kind: 'diagonals',
        weight: present(r.weight()),
        rows: r.rows(),
        columns: r.columns(),
        baby: [...(r.babyArray() ?? [])],
        giant: [...(r.giantArray() ?? [])],
        factor: r.factor(),
      };
    }
    case fb.Recipe.DftRecipe: {
      const r = load(new fb.DftRecipe());
      return {
        kind: 'dft',
        inverse: r.inverse(),
        first: r.first(),
        count: r.count(),
        baby: [...(r.babyArray() ?? [])],
        giant: [...(r.giantArray() ?? [])],
        factor: r.factor(),
      };
    }
    case fb.Recipe.ResidueRecipe: {
      const r = load(new fb.ResidueRecipe());
      return { kind: 'residue', residues: numbers(r.residuesLength(), (i) => r.residues(i)) };
    }
    case fb.Recipe.MonomialRecipe:
      return { kind: 'monomial', power: load(new fb.MonomialRecipe()).power() };
    case fb.Recipe.NONE:
      throw new AegisError({ code: 'B103', message: 'a plaintext of the plan has no recipe' });
    default:
      return unreachable(kind);
  }
}

function readPlaintext(p: fb.Plaintext): Plaintext {
  return {
    recipe: readRecipe(p),
    elements: p.elements(),
    period: p.period(),
    rowWords: p.rowWords(),
    limbs: [...(p.limbsArray() ?? [])],
    scale: p.scale(),
    coefficients: p.coefficients(),
  };
}

function readPort(port: fb.Port): PlanPort {
  return {
    name: present(port.name()),
    shape: [...(port.shapeArray() ?? [])],
    elements: port.elements(),
    period: port.period(),
    features: port.features(),
    tokens: port.tokens(),
    level: port.level(),
    scale: port.scale(),
    factor: port.factor(),
    bound: port.bound(),
    predictedError: port.predictedError(),
  };
}

function readFunction(func: fb.Function): PlanFunction {
  return {
    name: present(func.name()),
    frameRows: Number(func.frameRows()),
    buffers: list(
      func.buffersLength(),
      (i) => present(func.buffers(i)),
      (buffer) => ({
        argument: buffer.argument(),
        offset: Number(buffer.offset()),
        rows: Number(buffer.rows()),
      }),
    ),
    plaintexts: list(
      func.plaintextsLength(),
      (i) => present(func.plaintexts(i)),
      (slot) => ({ argument: slot.argument(), plaintext: slot.plaintext() }),
    ),
    commands: list(func.commandsLength(), (i) => present(func.commands(i)), readCommand),
  };
}

function readView(view: fb.View | null): View | null {
  return view === null
    ? null
    : {
        buffer: view.buffer(),
        offset: Number(view.offset()),
        strides: numbers(view.stridesLength(), (i) => view.strides(i)),
        componentStride: Number(view.componentStride()),
        limbStride: Number(view.limbStride()),
        loopStrides: numbers(view.loopStridesLength(), (i) => view.loopStrides(i)),
      };
}

function readCommand(c: fb.Command): Command {
  return {
    op: present(opcodes[c.op()]),
    dims: [...(c.dimsArray() ?? [])],
    reduceRank: c.reduceRank(),
    accumulate: c.accumulate(),
    limbs: [...(c.limbsArray() ?? [])],
    out: readView(c.out()),
    a: readView(c.a()),
    b: readView(c.b()),
    plain: readView(c.plain()),
    sourceLimbs: [...(c.sourceLimbsArray() ?? [])],
    scalars: numbers(c.scalarsLength(), (i) => c.scalars(i)),
    keys: [...(c.keysArray() ?? [])],
    keyDim: c.keyDim(),
    keysPerIteration: c.keysPerIteration(),
    digitCount: c.digitCount(),
    galois: [...(c.galoisArray() ?? [])],
    galoisDim: c.galoisDim(),
    galoisPerIteration: c.galoisPerIteration(),
    tripCount: c.tripCount(),
    body: list(c.bodyLength(), (i) => present(c.body(i)), readCommand),
    callee: c.callee(),
    bindings: list(
      c.bindingsLength(),
      (i) => present(c.bindings(i)),
      (binding) => ({ buffer: binding.viewBuffer(), offset: Number(binding.offset()) }),
    ),
    plainBindings: [...(c.plainBindingsArray() ?? [])],
    frameOffset: Number(c.frameOffset()),
    node: c.node(),
    collective: c.collective(),
    blocking: c.blocking(),
    firstDigit: c.firstDigit(),
  };
}
