// Plans run on encrypted data, against double arithmetic. aegis_executor_test
#include <cmath>

#include "executor/materialize.h"
#include "test/client_check.h"
#include "test/toy_setting.h"

namespace aegis::test {
namespace {

using Complex = std::complex<double>;
using Setting = ToySetting;

double worst(const Setting& setting, const RunResult& result, uint32_t output,
             const std::vector<Complex>& expected) {
  const plan::Port& port = *setting.plan->plan().outputs()->Get(output);
  const auto slots = setting.crypto->decrypt(result.outputs[output].data.data(), port.level(), port.scale());
  double error = 0;
  for (size_t i = 0; i < slots.size(); i++) error = std::max(error, std::abs(slots[i] - expected[i]));
  return error;
}

void checkResults(Checker& checker, const Setting& setting, const RunResult& result) {
  const size_t slots = setting.x.size();
  const std::vector<double>& w = setting.weights.tensors.at("w").data;
  std::vector<Complex> product(slots), rotated(slots), affine(slots);
  for (size_t i = 0; i < slots; i++) {
    product[i] = setting.x[i] * setting.y[i];
    affine[i] = 2.0 * (setting.x[i] + setting.y[i]) - setting.y[i] + 0.5;
    for (size_t s = 0; s < kToySteps.size(); s++)
      rotated[i] += w[s * kToyPeriod + i % kToyPeriod] * setting.x[(i + size_t(kToySteps[s])) % slots];
  }
  checker.near(worst(setting, result, 0, product), 0, 1e-7, "multiply, relinearize, rescale");
  checker.near(worst(setting, result, 1, rotated), 0, 1e-7,
               "hoisted rotations in a loop, contraction in QP, calls");
  checker.near(worst(setting, result, 2, affine), 0, 1e-8, "zero, add, sub, copy with a sum, add a constant");
}

void checkSession(Checker& checker) {
  const Setting setting;
  std::vector<uint64_t> firstOutput;
  for (const uint32_t threads : {1u, 3u}) {
    uint64_t reports = 0, lastDone = 0, total = 0;
    Session session(setting.plan, setting.weights, setting.keySource(), threads);
    RunOptions options;
    options.progress = [&](uint64_t done, uint64_t all, std::string_view) {
      reports++, lastDone = done, total = all;
    };
    const RunResult result = session.run(setting.inputs, options);
    if (threads == 1) checkResults(checker, setting, result);
    checker.check(lastDone == total && reports >= 1, "progress ends at its total");
    if (firstOutput.empty()) firstOutput = result.outputs[0].data;
    checker.check(result.outputs[0].data == firstOutput,
                  "same bits with " + std::to_string(threads) + " threads");
    checker.check(session.run(setting.inputs).outputs[1].data == result.outputs[1].data,
                  "same bits in a second run");
    double nodes = 0, opcodes = 0;
    for (const double seconds : result.nodeSeconds) nodes += seconds;
    for (const OpcodeStatistics& statistics : result.opcodes) opcodes += statistics.seconds;
    checker.check(std::fabs(nodes - opcodes) < 1e-9 && nodes > 0 && nodes <= result.seconds, "times add up");
    checker.check(result.opcodes[plan::Opcode_KeyProduct].launches == 4,
                  "launches are counted through loops");
    const RankStatistics& rank = result.ranks.at(0);
    checker.check(rank.arenaBytes == setting.plan->memory().arenaBytes, "the arena has the predicted size");
    checker.check(rank.peakBytes() == setting.plan->memory().total(), "peak bytes are the predicted ones");
    checker.check(rank.computeSeconds > 0 && rank.waitSeconds == 0, "all time is computing");
  }
}

// Weights held as coefficients give the bits of weights held as residues, in the memory of one limb of them.
void checkHeldWeights(Checker& checker) {
  const Setting residues, held(makeHeldPlan());
  const uint64_t saved = (kToyLevels + 1 + kToySpecials - 1) * kToySteps.size() * 2 * kToyPeriod * 8;
  checker.check(held.plan->memory().plaintextBytes + saved == residues.plan->memory().plaintextBytes,
                "held weights take the memory of one limb");
  Session first(residues.plan, residues.weights, residues.keySource(), 2);
  Session second(held.plan, held.weights, held.keySource(), 2);
  const RunResult expected = first.run(residues.inputs), result = second.run(held.inputs);
  checker.check(result.outputs[1].data == expected.outputs[1].data, "held weights give the same bits");
  checker.check(result.ranks.at(0).peakBytes() == held.plan->memory().total(),
                "peak bytes with held weights are the predicted ones");
  WeightMap large = toyWeights();
  large.tensors["w"].data.assign(kToySteps.size() * kToyPeriod, 0x1p23);
  checker.refuses("R402", "held weights of 2^63",
                  [&] { Session(held.plan, large, held.keySource(), 1); });
}

void checkRefusals(Checker& checker) {
  const Setting setting;
  Session session(setting.plan, setting.weights, setting.keySource(), 1);
  std::atomic<bool> cancelled{true};
  RunOptions options;
  options.cancel = &cancelled;
  checker.refuses("R401", "a cancelled run", [&] { session.run(setting.inputs, options); });
  checker.refuses("R401", "cancelled loading",
                  [&] { Session(setting.plan, setting.weights, setting.keySource(), 1, options); });
  checker.refuses("R302", "a missing input", [&] { session.run({setting.inputs[0]}); });
  std::vector<CiphertextArray> inputs = setting.inputs;
  inputs[1].data[5] = setting.plan->ring().modulus(0);
  checker.refuses("R302", "a residue not below its prime", [&] { session.run(inputs); });
  inputs = setting.inputs;
  inputs[0].limbCount--;
  checker.refuses("R302", "an input of another shape", [&] { session.run(inputs); });
  checker.refuses("R223", "a missing weight",
                  [&] { Session(setting.plan, WeightMap(), setting.keySource(), 1); });
  WeightMap small = toyWeights();
  small.tensors["w"].data.resize(20);
  checker.refuses("R223", "a small weight", [&] { Session(setting.plan, small, setting.keySource(), 1); });
  WeightMap bad = toyWeights();
  bad.tensors["w"].data[3] = std::nan("");
  checker.refuses("R402", "a weight that is NaN",
                  [&] { Session(setting.plan, bad, setting.keySource(), 1); });
  KeySource keys = setting.keySource();
  keys.view = [&](uint32_t i) { return KeyView{setting.keys[i].data(), 3, kToyLevels + kToySpecials}; };
  checker.refuses("R303", "a key of another shape", [&] { Session(setting.plan, setting.weights, keys, 1); });
  checker.check(session.run(setting.inputs).outputs.size() == 3, "the session survives refusals");
}

// Recipes as slot vectors, against the sentences of src/ir/ops/plain.ts.
void checkRecipes(Checker& checker) {
  plan::PlanT p = makeToyPlan();
  const auto add = [&p](uint32_t elements, uint32_t period, uint32_t words) -> plan::PlaintextT& {
    p.plaintexts.push_back(std::make_unique<plan::PlaintextT>(*std::make_unique<plan::PlaintextT>()));
    plan::PlaintextT& q = *p.plaintexts.back();
    q.elements = elements;
    q.period = period;
    q.row_words = words;
    q.limbs = {0};
    q.scale = kToyScale;
    return q;
  };
  const uint32_t slots = 1u << (kToyLogN - 1), base = uint32_t(p.plaintexts.size());
  const auto table = [&p](std::vector<int32_t> values) {
    p.tables.push_back(std::make_unique<plan::IntTableT>());
    p.tables.back()->name = "t";
    p.tables.back()->values = std::move(values);
    return uint32_t(p.tables.size() - 1);
  };
  plan::DiagonalsRecipeT diagonals;
  diagonals.weight = "m";
  diagonals.rows = table({0, 1, 2, -1, 3, 4, -1, 0});
  diagonals.columns = table({2, -1, 1, 0});
  diagonals.baby = {0, 1};
  diagonals.giant = {-2, 0, 2};
  diagonals.factor = 2;
  add(2 * 3 * 1 * 2, 4, 8).recipe.Set(plan::DiagonalsRecipeT(diagonals));
  plan::VectorRecipeT vector;
  vector.weight = "v";
  std::vector<int32_t> tokens(2 * (slots / 4));  // two token blocks of one element each
  for (size_t t = 0; t < tokens.size(); t++) tokens[t] = t % 3 == 0 ? -1 : int32_t(t);
  vector.features = table({0, 3, -1, 1, 1, 1, 2, 0});
  vector.tokens = int32_t(table(tokens));
  vector.factor = -1;
  add(2, slots, 2 * slots).recipe.Set(plan::VectorRecipeT(vector));
  const PlanFile file = PlanFile::fromBytes(packPlan(p));
  ThreadPool pool(1);
  const Encoder encoder(file.ring(), pool);
  WeightTensor m{{5, 3}, {}}, v{{300}, {}};
  for (int i = 0; i < 15; i++) m.data.push_back(i + 1);
  for (int i = 0; i < 300; i++) v.data.push_back(i);
  const Materializer diagonalSlots(file, encoder, base, &m), vectorSlots(file, encoder, base + 1, &v);
  bool equal = true;
  for (uint32_t e = 0; e < 12; e++) {
    const auto found = diagonalSlots.slots(e);
    const int baby = diagonals.baby[e % 2], giant = diagonals.giant[e / 2 % 3], out = int(e / 6);
    for (int pos = 0; pos < 4; pos++) {
      const int u = ((pos - giant) % 4 + 4) % 4, from = u + giant + baby;
      double expected = 0;
      if (from >= 0 && from < 4) {
        const int row = p.tables[diagonals.rows]->values[size_t(out * 4 + u)];
        const int column = p.tables[diagonals.columns]->values[size_t(from)];
        if (row >= 0 && column >= 0) expected = 2 * m.data[size_t(row * 3 + column)];
      }
      equal &= found[size_t(pos)] == expected;
    }
  }
  checker.check(equal, "diagonals recipe");
  equal = true;
  for (uint32_t e = 0; e < 2; e++) {
    const auto found = vectorSlots.slots(e);
    for (uint32_t s = 0; s < slots; s++) {
      const int feature = p.tables[vector.features]->values[e * 4 + s % 4];
      const int token = tokens[e * (slots / 4) + s / 4];
      equal &= found[s] == (feature < 0 || token < 0 ? 0.0 : -double(feature + token));
    }
  }
  checker.check(equal, "vector recipe with tokens");
}

}  // namespace
}  // namespace aegis::test

int main() {
  aegis::test::Checker checker;
  aegis::test::checkSession(checker);
  aegis::test::checkHeldWeights(checker);
  aegis::test::checkRefusals(checker);
  aegis::test::checkRecipes(checker);
  return checker.finish();
}
