/**
 * A PlanView as FlatBuffers bytes. Children are written before their parents, in field order: same view, same
 * bytes.
 */
import * as flatbuffers from 'flatbuffers';
import type { Approximation, ClientParts } from '../ir/module.js';
import { unreachable } from '../support/invariant.js';
import * as fb from './generated/plan_generated.js';
import {
  collectiveKinds,
  keyKinds,
  layerBlocks,
  opcodes,
  type CollectiveInfo,
  type Command,
  type IntTable,
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

type B = flatbuffers.Builder;
type Offset = flatbuffers.Offset;

export function writePlan(plan: PlanView): Uint8Array {
  const b = new flatbuffers.Builder(1 << 16);
  const text = (value: string): Offset => b.createString(value);
  const fields = {
    version: text(plan.compilerVersion),
    model: text(plan.modelName),
    source: text(plan.sourceHash),
    weights: text(plan.weightsHash),
    strategy: text(plan.strategy),
    mesh: writeMesh(b, plan.mesh),
    parameters: writeParameters(b, plan.parameters),
    keys: fb.Plan.createKeysVector(
      b,
      plan.keys.map((key) =>
        fb.Key.createKey(b, keyKinds.indexOf(key.kind), key.galois, key.keyClass, key.level),
      ),
    ),
    tables: fb.Plan.createTablesVector(
      b,
      plan.tables.map((table) => writeTable(b, table)),
    ),
    plaintexts: fb.Plan.createPlaintextsVector(
      b,
      plan.plaintexts.map((p) => writePlaintext(b, p)),
    ),
    programs: fb.Plan.createProgramsVector(
      b,
      plan.programs.map((program) => writeProgram(b, program)),
    ),
    inputs: fb.Plan.createInputsVector(
      b,
      plan.inputs.map((port) => writePort(b, port)),
    ),
    outputs: fb.Plan.createOutputsVector(
      b,
      plan.outputs.map((port) => writePort(b, port)),
    ),
    locations: fb.Plan.createLocationsVector(b, plan.locations.map(text)),
    summary: writeSummary(b, plan.summary),
    collectives: fb.Plan.createCollectivesVector(
      b,
      plan.collectives.map((collective) => writeCollective(b, collective)),
    ),
    client: writeClient(b, plan.client),
    approximations: writeApproximations(b, plan.approximations),
  };
  fb.Plan.startPlan(b);
  fb.Plan.addFormatMajor(b, plan.formatMajor);
  fb.Plan.addFormatMinor(b, plan.formatMinor);
  fb.Plan.addCompilerVersion(b, fields.version);
  fb.Plan.addModelName(b, fields.model);
  fb.Plan.addSourceHash(b, fields.source);
  fb.Plan.addWeightsHash(b, fields.weights);
  fb.Plan.addStrategy(b, fields.strategy);
  fb.Plan.addMesh(b, fields.mesh);
  fb.Plan.addParameters(b, fields.parameters);
  fb.Plan.addKeys(b, fields.keys);
  fb.Plan.addTables(b, fields.tables);
  fb.Plan.addPlaintexts(b, fields.plaintexts);
  fb.Plan.addPrograms(b, fields.programs);
  fb.Plan.addInputs(b, fields.inputs);
  fb.Plan.addOutputs(b, fields.outputs);
  fb.Plan.addLocations(b, fields.locations);
  fb.Plan.addSummary(b, fields.summary);
  fb.Plan.addCollectives(b, fields.collectives);
  fb.Plan.addClient(b, fields.client);
  fb.Plan.addApproximations(b, fields.approximations);
  fb.Plan.finishPlanBuffer(b, fb.Plan.endPlan(b));
  return b.asUint8Array().slice();
}

function writeMesh(b: B, axes: PlanView['mesh']): Offset {
  return fb.Plan.createMeshVector(
    b,
    axes.map(({ name, size }) => fb.MeshAxis.createMeshAxis(b, b.createString(name), size)),
  );
}

function writeClient(b: B, client: ClientParts | undefined): Offset {
  if (client === undefined) return 0;
  const { prologue, epilogue } = client;
  const C = fb.ClientParts;
  const first = prologue === null ? 0 : C.createPrologueVector(b, prologue);
  const last = epilogue === null ? 0 : C.createEpilogueVector(b, epilogue);
  return C.createClientParts(b, first, last);
}

function writeApproximations(b: B, all: readonly Approximation[]): Offset {
  const A = fb.Approximation;
  const offsets = all.map((one) => {
    const [node, name] = [b.createString(one.node), b.createString(one.function)];
    const degrees = A.createDegreesVector(b, [...one.degrees]);
    const { min, max } = one.interval;
    const { steps, levels, error, relative } = one;
    return A.createApproximation(b, node, name, min, max, degrees, steps, levels, error, relative);
  });
  return fb.Plan.createApproximationsVector(b, offsets);
}

function writeProgram(b: B, program: PlanProgram): Offset {
  const P = fb.Program;
  const functions = P.createFunctionsVector(
    b,
    program.functions.map((func) => writeFunction(b, func)),
  );
  const keys = P.createKeysVector(
    b,
    program.keys.map(({ key, limbs }) =>
      fb.KeyPart.createKeyPart(b, key, limbs.length === 0 ? 0 : fb.KeyPart.createLimbsVector(b, [...limbs])),
    ),
  );
  const inputs = P.createInputsVector(
    b,
    program.inputs.map((part) => writePortPart(b, part)),
  );
  const outputs = P.createOutputsVector(
    b,
    program.outputs.map((part) => writePortPart(b, part)),
  );
  const { memory: m } = program;
  const memory = fb.RankMemory.createRankMemory(
    b,
    BigInt(m.ports),
    BigInt(m.frame),
    BigInt(m.keys),
    BigInt(m.plaintexts),
  );
  P.startProgram(b);
  P.addFunctions(b, functions);
  P.addKeys(b, keys);
  P.addInputs(b, inputs);
  P.addOutputs(b, outputs);
  P.addMemory(b, memory);
  return P.endProgram(b);
}

function writePortPart(b: B, part: PortPart): Offset {
  const { elements, limbs } = part;
  const elementList = elements.length === 0 ? 0 : fb.PortPart.createElementsVector(b, [...elements]);
  const limbList = limbs.length === 0 ? 0 : fb.PortPart.createLimbsVector(b, [...limbs]);
  return fb.PortPart.createPortPart(b, part.buffer, elementList, limbList);
}

function writeCollective(b: B, c: CollectiveInfo): Offset {
  const C = fb.CollectiveInfo;
  const group = C.createGroupVector(b, [...c.group]);
  const rows = C.createRowsVector(b, bigints(c.rows));
  const limbs =
    c.limbs.length === 0
      ? 0
      : C.createLimbsVector(
          b,
          c.limbs.map((list) => fb.LimbList.createLimbList(b, fb.LimbList.createLimbsVector(b, [...list]))),
        );
  const received = C.createReceivedBytesVector(b, bigints(c.receivedBytes));
  return C.createCollectiveInfo(
    b,
    collectiveKinds.indexOf(c.kind),
    group,
    rows,
    limbs,
    c.root,
    c.node,
    layerBlocks.indexOf(c.block),
    BigInt(c.executions),
    received,
  );
}

function writeSummary(b: B, summary: PlanView['summary']): Offset {
  const { levels, bootstraps, rotations, ctMultiplications, keyBytes, weightsBytes } = summary;
  return fb.Summary.createSummary(
    b,
    levels,
    bootstraps,
    rotations,
    ctMultiplications,
    BigInt(keyBytes),
    BigInt(weightsBytes),
  );
}

const bigints = (values: readonly number[]): bigint[] => values.map((value) => BigInt(value));

function writeParameters(b: B, p: PlanParameters): Offset {
  const primes = fb.Parameters.createPrimesVector(b, [...p.primes]);
  const scales = fb.Parameters.createScalesVector(b, [...p.scales]);
  const classes = fb.Parameters.createKeyClassesVector(
    b,
    p.keyClasses.map((keyClass) => {
      const name = b.createString(keyClass.name);
      fb.KeyClass.startDigitsVector(b, keyClass.digits.length);
      for (const digit of [...keyClass.digits].reverse()) {
        fb.DigitRange.createDigitRange(b, digit.first, digit.count);
      }
      return fb.KeyClass.createKeyClass(b, name, keyClass.level, keyClass.specials, b.endVector());
    }),
  );
  return fb.Parameters.createParameters(
    b,
    p.logN,
    primes,
    p.maxLevel,
    p.specials,
    scales,
    classes,
    p.ephemeralWeight,
    p.logQP,
    p.securityBits,
    p.insecure,
  );
}

function writeTable(b: B, table: IntTable): Offset {
  const name = b.createString(table.name);
  return fb.IntTable.createIntTable(b, name, fb.IntTable.createValuesVector(b, table.values));
}

function writeRecipe(b: B, recipe: Recipe): readonly [fb.Recipe, Offset] {
  switch (recipe.kind) {
    case 'constant':
      return [
        fb.Recipe.ConstantRecipe,
        fb.ConstantRecipe.createConstantRecipe(
          b,
          fb.ConstantRecipe.createValuesVector(b, [...recipe.values]),
        ),
      ];
    case 'vector':
      return [
        fb.Recipe.VectorRecipe,
        fb.VectorRecipe.createVectorRecipe(
          b,
          b.createString(recipe.weight),
          recipe.features,
          recipe.tokens,
          recipe.factor,
        ),
      ];
    case 'diagonals': {
      const weight = b.createString(recipe.weight);
      const baby = fb.DiagonalsRecipe.createBabyVector(b, [...recipe.baby]);
      const giant = fb.DiagonalsRecipe.createGiantVector(b, [...recipe.giant]);
      return [
        fb.Recipe.DiagonalsRecipe,
        fb.DiagonalsRecipe.createDiagonalsRecipe(
          b,
          weight,
          recipe.rows,
          recipe.columns,
          baby,
          giant,
          recipe.factor,
        ),
      ];
    }
    case 'dft': {
      const baby = fb.DftRecipe.createBabyVector(b, [...recipe.baby]);
      const giant = fb.DftRecipe.createGiantVector(b, [...recipe.giant]);
      return [
        fb.Recipe.DftRecipe,
        fb.DftRecipe.createDftRecipe(
          b,
          recipe.inverse,
          recipe.first,
          recipe.count,
          baby,
          giant,
          recipe.factor,
        ),
      ];
    }
    case 'residue':
      return [
        fb.Recipe.ResidueRecipe,
        fb.ResidueRecipe.createResidueRecipe(
          b,
          fb.ResidueRecipe.createResiduesVector(b, bigints(recipe.residues)),
        ),
      ];
    case 'monomial':
      return [fb.Recipe.MonomialRecipe, fb.MonomialRecipe.createMonomialRecipe(b, recipe.power)];
    default:
      return unreachable(recipe);
  }
}

function writePlaintext(b: B, p: Plaintext): Offset {
  const [kind, recipe] = writeRecipe(b, p.recipe);
  const limbs = fb.Plaintext.createLimbsVector(b, [...p.limbs]);
  const { elements, period, scale, coefficients } = p;
  return fb.Plaintext.createPlaintext(
    b,
    kind,
    recipe,
    elements,
    period,
    p.rowWords,
    limbs,
    scale,
    coefficients,
  );
}

function writePort(b: B, port: PlanPort): Offset {
  const name = b.createString(port.name);
  const shape = fb.Port.createShapeVector(b, [...port.shape]);
  return fb.Port.createPort(
    b,
    name,
    shape,
    port.elements,
    port.period,
    port.features,
    port.tokens,
    port.level,
    port.scale,
    port.factor,
    port.bound,
    port.predictedError,
  );
}

function writeFunction(b: B, func: PlanFunction): Offset {
  const name = b.createString(func.name);
  const buffers = fb.Function.createBuffersVector(
    b,
    func.buffers.map((buffer) =>
      fb.Buffer.createBuffer(b, buffer.argument, BigInt(buffer.offset), BigInt(buffer.rows)),
    ),
  );
  const plaintexts = fb.Function.createPlaintextsVector(
    b,
    func.plaintexts.map((slot) => fb.PlaintextSlot.createPlaintextSlot(b, slot.argument, slot.plaintext)),
  );
  const commands = fb.Function.createCommandsVector(
    b,
    func.commands.map((command) => writeCommand(b, command)),
  );
  return fb.Function.createFunction(b, name, BigInt(func.frameRows), buffers, plaintexts, commands);
}

function writeView(b: B, view: View | null): Offset {
  if (view === null) return 0;
  const strides = fb.View.createStridesVector(b, bigints(view.strides));
  const loopStrides =
    view.loopStrides.length === 0 ? 0 : fb.View.createLoopStridesVector(b, bigints(view.loopStrides));
  return fb.View.createView(
    b,
    view.buffer,
    BigInt(view.offset),
    strides,
    BigInt(view.componentStride),
    BigInt(view.limbStride),
    loopStrides,
  );
}

/** Empty vectors and absent views are left out: most commands use few of the fields. */
function writeCommand(b: B, command: Command): Offset {
  const C = fb.Command;
  const unless = <T>(list: readonly T[], write: (values: T[]) => Offset): Offset =>
    list.length === 0 ? 0 : write([...list]);
  const body = unless(command.body, (list) =>
    C.createBodyVector(
      b,
      list.map((inner) => writeCommand(b, inner)),
    ),
  );
  const dims = unless(command.dims, (list) => C.createDimsVector(b, list));
  const limbs = unless(command.limbs, (list) => C.createLimbsVector(b, list));
  const [out, first, second, plain] = [command.out, command.a, command.b, command.plain].map((view) =>
    writeView(b, view),
  );
  const sourceLimbs = unless(command.sourceLimbs, (list) => C.createSourceLimbsVector(b, list));
  const scalars = unless(command.scalars, (list) => C.createScalarsVector(b, bigints(list)));
  const keys = unless(command.keys, (list) => C.createKeysVector(b, list));
  const galois = unless(command.galois, (list) => C.createGaloisVector(b, list));
  const bindings = unless(command.bindings, (list) =>
    C.createBindingsVector(
      b,
      list.map(({ buffer, offset }) => fb.Binding.createBinding(b, buffer, BigInt(offset))),
    ),
  );
  const plainBindings = unless(command.plainBindings, (list) => C.createPlainBindingsVector(b, list));
  C.startCommand(b);
  C.addOp(b, opcodes.indexOf(command.op));
  C.addDims(b, dims);
  C.addReduceRank(b, command.reduceRank);
  C.addAccumulate(b, command.accumulate);
  C.addLimbs(b, limbs);
  C.addOut(b, out ?? 0);
  C.addA(b, first ?? 0);
  C.addB(b, second ?? 0);
  C.addPlain(b, plain ?? 0);
  C.addSourceLimbs(b, sourceLimbs);
  C.addScalars(b, scalars);
  C.addKeys(b, keys);
  C.addKeyDim(b, command.keyDim);
  C.addKeysPerIteration(b, command.keysPerIteration);
  C.addDigitCount(b, command.digitCount);
  C.addGalois(b, galois);
  C.addGaloisDim(b, command.galoisDim);
  C.addGaloisPerIteration(b, command.galoisPerIteration);
  C.addTripCount(b, command.tripCount);
  C.addBody(b, body);
  C.addCallee(b, command.callee);
  C.addBindings(b, bindings);
  C.addPlainBindings(b, plainBindings);
  C.addFrameOffset(b, BigInt(command.frameOffset));
  C.addNode(b, command.node);
  C.addCollective(b, command.collective);
  C.addBlocking(b, command.blocking);
  C.addFirstDigit(b, command.firstDigit);
  return C.endCommand(b);
}
