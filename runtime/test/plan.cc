// The plan reader against hostile plans: every validation, mutated bytes, mutated fields.
// aegis_plan_test [--mutations n]
#include "plan/plan_file.h"

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <random>

#include "plan/row_set.h"
#include "test/client_check.h"
#include "test/plan_collectives.h"
#include "test/plan_mutations.h"
#include "test/toy_plan.h"

namespace aegis::test {
namespace {

using plan::PlanT;
using Change = std::function<void(PlanT&)>;

plan::FunctionT& function(PlanT& p, size_t i) { return *p.programs[0]->functions[i]; }

// The n-th command with this op, in program order, loops entered.
plan::CommandT* find(std::vector<std::unique_ptr<plan::CommandT>>& commands, plan::Opcode op, int& n) {
  for (auto& command : commands) {
    if (command->op == op && n-- == 0) return command.get();
    if (plan::CommandT* found = find(command->body, op, n)) return found;
  }
  return nullptr;
}

plan::CommandT& command(PlanT& p, plan::Opcode op, int n = 0) {
  for (auto& f : p.programs[0]->functions)
    if (plan::CommandT* found = find(f->commands, op, n)) return *found;
  invariantFailed("the toy plan has such a command", __FILE__, __LINE__);
}

void refuses(Checker& checker, const char* code, const char* name, const Change& change) {
  PlanT p = makeToyPlan();
  change(p);
  checker.refuses(code, name, [&] { PlanFile::fromBytes(packPlan(p)); });
}

void checkFormat(Checker& checker) {
  const std::vector<uint8_t> good = packPlan(makeToyPlan());
  checker.check(PlanFile::fromBytes(good).programs().size() == 1, "the toy plan is valid");
  checker.refuses("R101", "a missing file", [] { PlanFile::open("/nonexistent/plan"); });
  checker.refuses("R101", "a directory", [] { PlanFile::open("/tmp"); });
  checker.refuses("R210", "an empty file", [] { PlanFile::fromBytes({}); });
  checker.refuses("R210", "another file", [] { PlanFile::fromBytes(std::vector<uint8_t>(1000, 'x')); });
  std::vector<uint8_t> half(good.begin(), good.begin() + ptrdiff_t(good.size() / 2));
  checker.refuses("R212", "half a file", [&] { PlanFile::fromBytes(half); });
  refuses(checker, "R211", "another major version", [](PlanT& p) { p.format_major = 3; });
  refuses(checker, "R242", "a plan beyond any memory",
          [](PlanT& p) { function(p, 2).frame_rows = uint64_t(1) << 40; });
  PlanT large = makeToyPlan();
  function(large, 2).frame_rows = uint64_t(1) << 40;
  checker.check(PlanFile::fromBytes(packPlan(large), {kNoMemoryLimit}).memory().total() > uint64_t(1) << 50,
                "which may be read without a limit");
  checker.refuses("R242", "a plan above the given limit", [&] { PlanFile::fromBytes(good, {100000}); });
}

void checkParameterChecks(Checker& checker) {
  const auto refuse = [&](const char* code, const char* name, const Change& change) {
    refuses(checker, code, name, change);
  };
  refuse("R201", "logN 40", [](PlanT& p) { p.parameters->log_n = 40; });
  refuse("R204", "a composite modulus", [](PlanT& p) { p.parameters->primes[2] -= 2; });
  refuse("R206", "a repeated prime", [](PlanT& p) { p.parameters->primes[2] = p.parameters->primes[1]; });
  refuse("R213", "a missing prime", [](PlanT& p) { p.parameters->primes.pop_back(); });
  refuse("R213", "a missing scale", [](PlanT& p) { p.parameters->scales.pop_back(); });
  refuse("R213", "scale NaN", [](PlanT& p) { p.parameters->scales[0] = NAN; });
  refuse("R213", "a sparse secret heavier than N", [](PlanT& p) { p.parameters->ephemeral_weight = 5000; });
  refuse("R214", "a key class above the chain", [](PlanT& p) { p.parameters->key_classes[0]->level = 6; });
  refuse("R214", "a key class with too many special primes",
         [](PlanT& p) { p.parameters->key_classes[0]->specials = 3; });
  refuse("R214", "digits with a gap", [](PlanT& p) { p.parameters->key_classes[0]->digits[1] = {3, 1}; });
  refuse("R214", "missing digits", [](PlanT& p) { p.parameters->key_classes[0]->digits.pop_back(); });
  refuse("R214", "too many digits",
         [](PlanT& p) { p.parameters->key_classes[0]->digits.emplace_back(6, 2); });
  refuse("R215", "an unknown key kind", [](PlanT& p) { p.keys[0]->kind = plan::KeyKind(9); });
  refuse("R215", "a key above the level of its class", [](PlanT& p) { p.keys[0]->level = kToyLevels + 1; });
  refuse("R215", "a key of an unknown class", [](PlanT& p) { p.keys[0]->key_class = 1; });
  refuse("R215", "an even Galois element", [](PlanT& p) { p.keys[1]->galois = 4; });
  refuse("R215", "a Galois element above 2N", [](PlanT& p) { p.keys[1]->galois = 2049; });
  refuse("R215", "a key to the sparse secret at a large modulus",
         [](PlanT& p) { p.keys[0]->kind = plan::KeyKind_ToSparse; });
  refuse("R216", "a wrong log2(QP)", [](PlanT& p) { p.parameters->log_qp = 20; });
  refuse("R216", "a false security claim", [](PlanT& p) { p.parameters->security_bits = 128; });
  refuse("R216", "a missing INSECURE mark", [](PlanT& p) { p.parameters->insecure = false; });
  refuse("R217", "a program for a rank that the mesh does not have", [](PlanT& p) {
    p.programs.push_back(nullptr);
    p.programs.back() = std::make_unique<plan::ProgramT>(*p.programs[0]);
  });
  refuse("R217", "a mesh axis of size 0",
         [](PlanT& p) { p.mesh.push_back(std::make_unique<plan::MeshAxisT>()); });
}

void checkPlaintextChecks(Checker& checker) {
  const auto refuse = [&](const char* code, const char* name, const Change& change) {
    refuses(checker, code, name, change);
  };
  refuse("R220", "no elements", [](PlanT& p) { p.plaintexts[1]->elements = 0; });
  refuse("R220", "a period that is no power of two", [](PlanT& p) { p.plaintexts[1]->period = 12; });
  refuse("R220", "a period above the slots", [](PlanT& p) { p.plaintexts[1]->period = 1024; });
  refuse("R220", "rows of another length", [](PlanT& p) { p.plaintexts[1]->row_words = 64; });
  refuse("R220", "rows of one word for a vector", [](PlanT& p) { p.plaintexts[1]->row_words = 1; });
  refuse("R220", "a limb that is no prime", [](PlanT& p) { p.plaintexts[1]->limbs[0] = 8; });
  refuse("R220", "no limbs", [](PlanT& p) { p.plaintexts[1]->limbs.clear(); });
  const auto hold = [](plan::PlaintextT& p) {
    p.coefficients = true;
    p.limbs.clear();
  };
  refuse("R220", "coefficients with limbs", [](PlanT& p) { p.plaintexts[1]->coefficients = true; });
  refuse("R220", "coefficients of residues", [&](PlanT& p) { hold(*p.plaintexts[0]); });
  refuse("R220", "coefficients of a constant", [&](PlanT& p) { hold(*p.plaintexts[2]); });
  refuse("R220", "coefficients in rows too long to expand", [&](PlanT& p) {
    hold(*p.plaintexts[1]);
    p.plaintexts[1]->period = 32;
    p.plaintexts[1]->row_words = 64;
  });
  refuse("R220", "coefficients in full rows", [&](PlanT& p) {
    hold(*p.plaintexts[1]);
    p.plaintexts[1]->row_words = 1024;
  });
  refuse("R239", "coefficients read limb by limb", [&](PlanT& p) { hold(*p.plaintexts[1]); });
  refuse("R220", "scale 0", [](PlanT& p) { p.plaintexts[1]->scale = 0; });
  refuse("R221", "no recipe", [](PlanT& p) { p.plaintexts[2]->recipe.AsConstantRecipe()->values.clear(); });
  refuse("R221", "a constant that is not finite",
         [](PlanT& p) { p.plaintexts[2]->recipe.AsConstantRecipe()->values[0] = INFINITY; });
  refuse("R221", "a feature table that is not there",
         [](PlanT& p) { p.plaintexts[1]->recipe.AsVectorRecipe()->features = 3; });
  refuse("R221", "a short feature table",
         [](PlanT& p) { p.plaintexts[1]->recipe.AsVectorRecipe()->features = 0; });
  refuse("R221", "tokens that do not fill the slots",
         [](PlanT& p) { p.plaintexts[1]->recipe.AsVectorRecipe()->tokens = 1; });
  refuse("R221", "a residue that is not below its prime",
         [](PlanT& p) { p.plaintexts[0]->recipe.AsResidueRecipe()->residues[0] = ~0ull; });
  refuse("R221", "a missing residue",
         [](PlanT& p) { p.plaintexts[0]->recipe.AsResidueRecipe()->residues.pop_back(); });
  refuse("R221", "diagonals of another count", [](PlanT& p) {
    plan::DiagonalsRecipeT recipe;
    recipe.weight = "w";
    recipe.baby = recipe.giant = {0};
    p.plaintexts[1]->recipe.Set(std::move(recipe));
  });
  refuse("R221", "transform stages beyond the slots", [](PlanT& p) {
    plan::DftRecipeT recipe;
    recipe.first = 9;
    recipe.count = 2;
    recipe.baby = recipe.giant = {0};
    p.plaintexts[2]->period = 512;
    p.plaintexts[2]->row_words = 1024;
    p.plaintexts[2]->recipe.Set(std::move(recipe));
  });
  refuse("R221", "a monomial that its rows do not hold", [](PlanT& p) {
    plan::MonomialRecipeT recipe;
    recipe.power = 3;
    p.plaintexts[2]->recipe.Set(std::move(recipe));
  });
}

void checkFunctionChecks(Checker& checker) {
  const auto refuse = [&](const char* code, const char* name, const Change& change) {
    refuses(checker, code, name, change);
  };
  refuse("R230", "no functions", [](PlanT& p) { p.programs[0]->functions.clear(); });
  refuse("R230", "a buffer outside of its frame",
         [](PlanT& p) { function(p, 2).buffers[5]->offset = 1 << 20; });
  refuse("R230", "a buffer whose end overflows",
         [](PlanT& p) { function(p, 2).buffers[5]->offset = ~0ull - 3; });
  refuse("R230", "a buffer without rows", [](PlanT& p) { function(p, 2).buffers[5]->rows = 0; });
  refuse("R230", "an argument after a local", [](PlanT& p) { function(p, 2).buffers[6]->argument = true; });
  refuse("R230", "a plaintext that is not there",
         [](PlanT& p) { function(p, 2).plaintexts[0]->plaintext = 3; });
  refuse("R230", "an entry with plaintext arguments", [](PlanT& p) { p.programs[0]->functions.pop_back(); });
  refuse("R234", "a call to itself", [](PlanT& p) { command(p, plan::Opcode_Call).callee = 1; });
  refuse("R234", "a missing binding", [](PlanT& p) { command(p, plan::Opcode_Call).bindings.pop_back(); });
  refuse("R234", "a binding to no buffer",
         [](PlanT& p) { command(p, plan::Opcode_Call).bindings[0]->view_buffer = 99; });
  refuse("R234", "a binding that leaves its buffer",
         [](PlanT& p) { command(p, plan::Opcode_Call).bindings[0]->offset = 1; });
  refuse("R234", "a binding whose end overflows",
         [](PlanT& p) { command(p, plan::Opcode_Call).bindings[0]->offset = ~0ull; });
  refuse("R234", "a frame outside of the caller's",
         [](PlanT& p) { command(p, plan::Opcode_Call).frame_offset = 1000; });
  refuse("R234", "a frame on top of an argument",
         [](PlanT& p) { command(p, plan::Opcode_Call).frame_offset = 4; });
  refuse("R234", "two written arguments in one place",
         [](PlanT& p) { command(p, plan::Opcode_Call).bindings[1]->view_buffer = 2; });
  refuse("R234", "a missing plaintext binding",
         [](PlanT& p) { command(p, plan::Opcode_Call, 2).plain_bindings.clear(); });
  refuse("R234", "a plaintext slot that is not there",
         [](PlanT& p) { command(p, plan::Opcode_Call, 2).plain_bindings = {7}; });
  refuse("R239", "a bound plaintext that is too small",
         [](PlanT& p) { command(p, plan::Opcode_Call, 2).plain_bindings = {2}; });
  refuse("R235", "a loop without iterations", [](PlanT& p) { command(p, plan::Opcode_Loop).trip_count = 0; });
  refuse("R235", "loops nested nine deep", [](PlanT& p) {
    for (int i = 0; i < 8; i++) {
      auto& commands = function(p, 2).commands;
      auto loop = std::make_unique<plan::CommandT>();
      loop->op = plan::Opcode_Loop;
      loop->trip_count = 1;
      loop->body = std::move(commands);
      commands.clear();
      commands.push_back(std::move(loop));
    }
  });
  refuse("R243", "loops that never end", [](PlanT& p) {
    auto& commands = function(p, 2).commands;
    for (int i = 0; i < 2; i++) {
      auto loop = std::make_unique<plan::CommandT>();
      loop->op = plan::Opcode_Loop;
      loop->trip_count = ~0u;
      if (i > 0) loop->body.push_back(std::move(commands.back()));
      if (i > 0) commands.pop_back();
      commands.push_back(std::move(loop));
    }
  });
  refuse("R244", "an unknown command", [](PlanT& p) { command(p, plan::Opcode_Zero).op = plan::Opcode(18); });
  refuse("R244", "a location that is not there", [](PlanT& p) { command(p, plan::Opcode_Zero).node = 3; });
}

void checkLaunchChecks(Checker& checker) {
  const auto refuse = [&](const char* code, const char* name, const Change& change) {
    refuses(checker, code, name, change);
  };
  refuse("R231", "seven dimensions", [](PlanT& p) { command(p, plan::Opcode_Zero).dims.assign(7, 1); });
  refuse("R231", "a dimension of size 0", [](PlanT& p) { command(p, plan::Opcode_Zero).dims[0] = 0; });
  refuse("R231", "a launch beyond any size",
         [](PlanT& p) { command(p, plan::Opcode_Copy).dims.assign(6, 1 << 30); });
  refuse("R231", "more summed dimensions than dimensions",
         [](PlanT& p) { command(p, plan::Opcode_Copy).reduce_rank = 3; });
  refuse("R231", "a sum where there is none",
         [](PlanT& p) { command(p, plan::Opcode_Zero).reduce_rank = 1; });
  refuse("R231", "accumulation where there is none",
         [](PlanT& p) { command(p, plan::Opcode_Ntt).accumulate = true; });
  refuse("R231", "an output that moves along a sum", [](PlanT& p) {
    command(p, plan::Opcode_Copy).limbs.pop_back();
    command(p, plan::Opcode_Copy).out->strides[1] = 1;
  });
  refuse("R231", "no limbs", [](PlanT& p) { command(p, plan::Opcode_Zero).limbs.clear(); });
  refuse("R231", "a limb that is no prime", [](PlanT& p) { command(p, plan::Opcode_Zero).limbs[0] = 8; });
  refuse("R231", "a limb twice", [](PlanT& p) { command(p, plan::Opcode_Zero).limbs[0] = 1; });
  refuse("R232", "a missing operand", [](PlanT& p) { command(p, plan::Opcode_Add).b = nullptr; });
  refuse("R232", "an operand without a buffer",
         [](PlanT& p) { command(p, plan::Opcode_Add).a->buffer = 99; });
  refuse("R232", "an offset past the buffer", [](PlanT& p) { command(p, plan::Opcode_Add).b->offset = 1; });
  refuse("R232", "an offset beyond 64 bits of rows",
         [](PlanT& p) { command(p, plan::Opcode_Add).a->offset = ~0ull; });
  refuse("R232", "a stride past the buffer",
         [](PlanT& p) { command(p, plan::Opcode_Add).b->strides[0] = 7; });
  refuse("R232", "a stride before the buffer",
         [](PlanT& p) { command(p, plan::Opcode_Add).a->strides[0] = -1; });
  refuse("R232", "the lowest stride",
         [](PlanT& p) { command(p, plan::Opcode_Add).a->strides[0] = INT64_MIN; });
  refuse("R232", "a limb stride past the buffer",
         [](PlanT& p) { command(p, plan::Opcode_Add).a->limb_stride = 3; });
  refuse("R232", "a component stride past the buffer",
         [](PlanT& p) { command(p, plan::Opcode_Tensor).a->component_stride = 7; });
  refuse("R232", "a loop stride past the buffer",
         [](PlanT& p) { command(p, plan::Opcode_Automorphism).out->loop_strides[0] = 17; });
  refuse("R232", "one stride too many",
         [](PlanT& p) { command(p, plan::Opcode_Add).a->strides.push_back(0); });
  refuse("R232", "loop strides outside of loops",
         [](PlanT& p) { command(p, plan::Opcode_Add).a->loop_strides = {1}; });
  refuse("R233", "an output that writes a row twice",
         [](PlanT& p) { command(p, plan::Opcode_Zero).out->strides[0] = 0; });
  refuse("R233", "an output that overlaps itself",
         [](PlanT& p) { command(p, plan::Opcode_Zero).out->strides[0] = 5; });
  refuse("R233", "a tensor product in place", [](PlanT& p) {
    plan::CommandT& c = command(p, plan::Opcode_Tensor);
    c.a = std::make_unique<plan::ViewT>(*c.out);
  });
  refuse("R233", "an input shifted against the output", [](PlanT& p) {
    plan::CommandT& c = command(p, plan::Opcode_Ntt, 2);
    c.limbs.pop_back();
    c.a->offset = 1;
  });
  refuse("R233", "two buffers in one place of the frame", [](PlanT& p) {
    function(p, 2).buffers[9]->offset = function(p, 2).buffers[5]->offset + 6;
    command(p, plan::Opcode_Add).out->buffer = 9;
    command(p, plan::Opcode_Add).out->strides[0] = 6;
  });
  refuse("R233", "a loop that reads what another iteration's rows hold", [](PlanT& p) {
    plan::CommandT& c = command(p, plan::Opcode_Automorphism);
    c.a = std::make_unique<plan::ViewT>(*c.out);
    c.a->offset = 16;
    c.a->loop_strides = {0};
  });
}

void checkOperandChecks(Checker& checker) {
  const auto refuse = [&](const char* code, const char* name, const Change& change) {
    refuses(checker, code, name, change);
  };
  refuse("R239", "a plaintext slot that is not there",
         [](PlanT& p) { command(p, plan::Opcode_AddPlain).plain->buffer = 9; });
  refuse("R239", "a plaintext past its end",
         [](PlanT& p) { command(p, plan::Opcode_AddPlain).plain->offset = 1; });
  refuse("R239", "a plaintext of other limbs",
         [](PlanT& p) { command(p, plan::Opcode_AddPlain).plain->limb_stride = 0; });
  refuse("R239", "plaintext strides that are no elements",
         [](PlanT& p) { command(p, plan::Opcode_Contract).plain->strides[1] = 7; });
  refuse("R238", "no source limbs",
         [](PlanT& p) { command(p, plan::Opcode_BaseConvert).source_limbs.clear(); });
  refuse("R238", "a source limb twice",
         [](PlanT& p) { command(p, plan::Opcode_BaseConvert).source_limbs = {6, 6}; });
  refuse("R238", "a source limb that is no prime",
         [](PlanT& p) { command(p, plan::Opcode_BaseConvert).source_limbs[0] = 9; });
  refuse("R238", "a missing scalar", [](PlanT& p) { command(p, plan::Opcode_SubScale).scalars.pop_back(); });
  refuse("R238", "a scalar above its prime",
         [](PlanT& p) { command(p, plan::Opcode_SubScale).scalars[0] = ~0ull; });
  refuse("R238", "a missing scalar of the fused command",
         [](PlanT& p) { command(p, plan::Opcode_NttSubScale).scalars.pop_back(); });
  refuse("R233", "a fused transform that writes over its minuend", [](PlanT& p) {
    plan::CommandT& c = command(p, plan::Opcode_NttSubScale);
    *c.out = *c.a;
  });
  refuse("R236", "no keys", [](PlanT& p) { command(p, plan::Opcode_KeyProduct).keys.clear(); });
  refuse("R236", "a key that is not there",
         [](PlanT& p) { command(p, plan::Opcode_KeyProduct).keys[0] = 4; });
  refuse("R236", "too few keys for the iterations",
         [](PlanT& p) { command(p, plan::Opcode_KeyProduct, 1).keys.pop_back(); });
  refuse("R236", "a key dimension that is not there",
         [](PlanT& p) { command(p, plan::Opcode_KeyProduct).key_dim = 0; });
  refuse("R236", "a key dimension below -1",
         [](PlanT& p) { command(p, plan::Opcode_KeyProduct).key_dim = -2; });
  refuse("R236", "no digits", [](PlanT& p) { command(p, plan::Opcode_KeyProduct).digit_count = 0; });
  refuse("R236", "digits beyond the last",
         [](PlanT& p) { command(p, plan::Opcode_KeyProduct).first_digit = 1; });
  refuse("R236", "too many digits", [](PlanT& p) { command(p, plan::Opcode_KeyProduct).digit_count = 4; });
  refuse("R236", "limbs that the key does not have",
         [](PlanT& p) { p.parameters->key_classes[0]->specials = 1; });
  refuse("R236", "limbs above the key's level",
         [](PlanT& p) { for (auto& key : p.keys) key->level = 1; });
  refuse("R236", "keys of two classes", [](PlanT& p) {
    p.parameters->key_classes.push_back(std::make_unique<plan::KeyClassT>(*p.parameters->key_classes[0]));
    p.keys[3]->key_class = 1;
  });
  refuse("R237", "an even automorphism",
         [](PlanT& p) { command(p, plan::Opcode_Automorphism).galois[0] = 2; });
  refuse("R237", "an automorphism above 2N",
         [](PlanT& p) { command(p, plan::Opcode_Automorphism).galois[0] = 2049; });
  refuse("R237", "too few automorphisms",
         [](PlanT& p) { command(p, plan::Opcode_Automorphism).galois.pop_back(); });
  refuse("R240", "a port to no argument", [](PlanT& p) { p.programs[0]->inputs[0]->buffer = 5; });
  refuse("R240", "two ports in one buffer", [](PlanT& p) { p.programs[0]->inputs[1]->buffer = 0; });
  refuse("R240", "an argument without a port", [](PlanT& p) {
    p.inputs.pop_back();
    p.programs[0]->inputs.pop_back();
  });
  refuse("R240", "a port of another level", [](PlanT& p) { p.inputs[0]->level = 4; });
  refuse("R240", "a port above the chain", [](PlanT& p) { p.inputs[0]->level = 6; });
  refuse("R240", "a port with a short table", [](PlanT& p) { p.inputs[0]->period = 32; });
  refuse("R240", "a port with no such table", [](PlanT& p) { p.inputs[0]->tokens = 3; });
  refuse("R240", "a slot map past the tensor", [](PlanT& p) { p.inputs[0]->shape = {511}; });
  refuse("R240", "an impossible shape", [](PlanT& p) { p.inputs[0]->shape.assign(9, ~0u); });
  refuse("R240", "factor 0", [](PlanT& p) { p.inputs[0]->factor = 0; });
  refuse("R240", "scale NaN at a port", [](PlanT& p) { p.outputs[0]->scale = NAN; });
}

// RowSet against plain enumeration.
void checkRowSets(Checker& checker) {
  std::mt19937_64 engine(5);
  const auto below = [&](uint64_t bound) { return engine() % bound; };
  uint32_t wrong = 0, meetings = 0, repeats = 0;
  for (int round = 0; round < 4000; round++) {
    CheckBudget budget;
    std::vector<int64_t> rows[2];
    std::vector<RowSet> sets;
    for (int side = 0; side < 2; side++) {
      const int64_t offset = int64_t(below(30));
      sets.emplace_back(offset);
      rows[side] = {offset};
      for (uint64_t d = below(4); d > 0; d--) {
        const uint64_t count = 1 + below(4);
        const int64_t stride = int64_t(below(41)) - 20;
        sets[size_t(side)].add(count, stride);
        std::vector<int64_t> next;
        for (const int64_t row : rows[side])
          for (uint64_t i = 0; i < count; i++) next.push_back(row + int64_t(i) * stride);
        rows[side] = next;
      }
      std::sort(rows[side].begin(), rows[side].end());
    }
    std::vector<int64_t> common;
    std::set_intersection(rows[0].begin(), rows[0].end(), rows[1].begin(), rows[1].end(),
                          std::back_inserter(common));
    const bool repeated = std::adjacent_find(rows[0].begin(), rows[0].end()) != rows[0].end();
    wrong += RowSet::meet(sets[0], sets[1], budget) != !common.empty();
    wrong += sets[0].isInjective(budget) == repeated;
    wrong += sets[0].first() != rows[0].front() || sets[0].last() != rows[0].back();
    meetings += !common.empty();
    repeats += repeated;
  }
  checker.check(wrong == 0 && meetings > 200 && repeats > 200, "row sets agree with enumeration",
                std::to_string(meetings) + " meetings, " + std::to_string(repeats) + " repeats");
}

}  // namespace
}  // namespace aegis::test

int main(int argc, char** argv) {
  using namespace aegis::test;
  uint32_t mutations = 300;
  for (int i = 1; i + 1 < argc; i++)
    if (std::strcmp(argv[i], "--mutations") == 0) mutations = uint32_t(std::atoi(argv[i + 1]));
  Checker checker;
  checkFormat(checker);
  checkParameterChecks(checker);
  checkPlaintextChecks(checker);
  checkFunctionChecks(checker);
  checkLaunchChecks(checker);
  checkOperandChecks(checker);
  checkCollectiveChecks(checker);
  checkRowSets(checker);
  checkMutations(checker, mutations);
  return checker.finish();
}
