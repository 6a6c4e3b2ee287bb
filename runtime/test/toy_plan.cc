#include "test/toy_plan.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "test/plan_parts.h"

namespace aegis::test {
namespace {

constexpr uint32_t kQ = kToyLevels + 1, kQP = kQ + kToySpecials, kDigits = 3;

class Maker {
 public:
  Maker() : primes_(toyPrimes(kToyLogN, kToyLevels, kToySpecials)) {}

  plan::PlanT make() {
    plan::PlanT p;
    p.format_major = 2;
    p.compiler_version = "test";
    p.model_name = "toy";
    p.strategy = "app";
    p.parameters = parameters();
    p.locations = {"product", "rotated", "affine"};
    p.summary = std::make_unique<plan::SummaryT>();
    addKey(p, plan::KeyKind_Relinearize, 0);
    for (const int32_t step : kToySteps) addKey(p, plan::KeyKind_Galois, galoisOf(step, kToyLogN));
    tables(p);
    plaintexts(p);
    p.programs.push_back(std::make_unique<plan::ProgramT>());
    p.programs[0]->functions.push_back(modDown());
    p.programs[0]->functions.push_back(weightedSum());
    p.programs[0]->functions.push_back(entry());
    plan::ProgramT& program = *p.programs[0];
    program.memory = std::make_unique<plan::RankMemoryT>();
    for (uint32_t i = 0; i < p.keys.size(); i++) {
      program.keys.push_back(std::make_unique<plan::KeyPartT>());
      program.keys.back()->key = i;
    }
    for (uint32_t buffer = 0; buffer < 5; buffer++) {
      auto& parts = buffer < 2 ? program.inputs : program.outputs;
      parts.push_back(std::make_unique<plan::PortPartT>());
      parts.back()->buffer = buffer;
    }
    p.inputs.push_back(port("x", kToyLevels, kToyScale));
    p.inputs.push_back(port("y", kToyLevels, kToyScale));
    const double rescaled = kToyScale * (kToyScale / double(primes_[kToyLevels]));
    p.outputs.push_back(port("product", kToyLevels - 1, rescaled));
    p.outputs.push_back(port("rotated", kToyLevels - 1, rescaled));
    p.outputs.push_back(port("affine", kToyLevels, kToyScale));
    return p;
  }

 private:
  std::unique_ptr<plan::ParametersT> parameters() {
    auto p = std::make_unique<plan::ParametersT>();
    p->log_n = kToyLogN;
    p->primes = primes_;
    p->max_level = kToyLevels;
    p->specials = kToySpecials;
    p->scales.assign(kQ, kToyScale);
    p->insecure = true;
    p->ephemeral_weight = 32;
    for (const uint64_t q : primes_) p->log_qp += std::log2(double(q));
    p->key_classes.push_back(std::make_unique<plan::KeyClassT>());
    p->key_classes[0]->name = "compute";
    p->key_classes[0]->level = kToyLevels;
    p->key_classes[0]->specials = kToySpecials;
    for (uint16_t d = 0; d < kDigits; d++)
      p->key_classes[0]->digits.emplace_back(uint16_t(2 * d), uint16_t(2));
    return p;
  }

  static void addKey(plan::PlanT& p, plan::KeyKind kind, uint32_t galois) {
    p.keys.push_back(std::make_unique<plan::KeyT>());
    p.keys.back()->kind = kind;
    p.keys.back()->galois = galois;
    p.keys.back()->level = kToyLevels;
  }

  static void addTable(plan::PlanT& p, const char* name, std::vector<int32_t> values) {
    p.tables.push_back(std::make_unique<plan::IntTableT>());
    p.tables.back()->name = name;
    p.tables.back()->values = std::move(values);
  }

  static std::vector<int32_t> iota(int32_t count, int32_t step = 1) {
    std::vector<int32_t> values(static_cast<size_t>(count));
    for (int32_t i = 0; i < count; i++) values[size_t(i)] = i * step;
    return values;
  }

  static void tables(plan::PlanT& p) {
    const int32_t slots = 1 << (kToyLogN - 1);
    addTable(p, "slot", iota(int32_t(kToyPeriod)));
    addTable(p, "token", iota(slots / int32_t(kToyPeriod), int32_t(kToyPeriod)));
    addTable(p, "weight", iota(int32_t(kToyPeriod * kToySteps.size())));
  }

  // 0: P mod q; 1: the weights of the steps; 2: constant 0.5.
  void plaintexts(plan::PlanT& p) {
    const auto add = [&p](uint32_t elements, uint32_t period, uint32_t words, Limbs limbs,
                          double scale) -> plan::PlaintextT& {
      p.plaintexts.push_back(std::make_unique<plan::PlaintextT>());
      plan::PlaintextT& q = *p.plaintexts.back();
      q.elements = elements;
      q.period = period;
      q.row_words = words;
      q.limbs = std::move(limbs);
      q.scale = scale;
      return q;
    };
    plan::ResidueRecipeT residues;
    for (uint32_t i = 0; i < kQ; i++)
      residues.residues.push_back(mulMod(primes_[kQ] % primes_[i], primes_[kQ + 1] % primes_[i], primes_[i]));
    add(1, 1, 1, range(0, kQ), 1).recipe.Set(std::move(residues));
    plan::VectorRecipeT weights;
    weights.weight = "w";
    weights.features = 2;
    weights.factor = 1;
    add(uint32_t(kToySteps.size()), kToyPeriod, 2 * kToyPeriod, range(0, kQP), kToyScale)
        .recipe.Set(std::move(weights));
    plan::ConstantRecipeT constant;
    constant.values = {0.5};
    add(1, 1, 1, range(0, kQ), kToyScale).recipe.Set(std::move(constant));
  }

  static std::unique_ptr<plan::PortT> port(const char* name, uint32_t level, double scale) {
    auto p = std::make_unique<plan::PortT>();
    p->name = name;
    p->shape = {1u << (kToyLogN - 1)};
    p->elements = 1;
    p->period = kToyPeriod;
    p->features = 0;
    p->tokens = 1;
    p->level = uint16_t(level);
    p->scale = scale;
    p->factor = 1;
    return p;
  }

  // product of primes[first ..] modulo q, inverted.
  uint64_t inverseOf(size_t first, size_t count, uint64_t q) const {
    uint64_t product = 1;
    for (size_t i = first; i < first + count; i++) product = mulMod(product, primes_[i] % q, q);
    return invMod(product, q);
  }

  // Divides rows by dropped primes: [components][rows] with the dropped limbs last; `converted` is scratch.
  // One prime, a rescale, by the fused command, several, a ModDown, by its parts.
  void divide(plan::FunctionT& f, uint32_t buffer, int64_t stride, uint16_t kept, uint16_t dropped,
              uint32_t converted, uint32_t out, uint64_t keptOffset) {
    const Limbs source = range(kept, dropped), target = range(0, kept);
    f.commands.push_back(command(plan::Opcode_Intt, source, {2}, view(buffer, keptOffset, {stride}),
                                 view(buffer, keptOffset, {stride})));
    f.commands.push_back(command(plan::Opcode_BaseConvert, target, {2}, view(converted, 0, {kept}),
                                 view(buffer, keptOffset, {stride})));
    f.commands.back()->source_limbs = source;
    const bool fused = dropped == 1;
    if (!fused)
      f.commands.push_back(
          command(plan::Opcode_Ntt, target, {2}, view(converted, 0, {kept}), view(converted, 0, {kept})));
    const plan::Opcode op = fused ? plan::Opcode_NttSubScale : plan::Opcode_SubScale;
    f.commands.push_back(command(op, target, {2}, view(out, 0, {kept}), view(buffer, 0, {stride}),
                                 view(converted, 0, {kept})));
    for (const uint16_t limb : target)
      f.commands.back()->scalars.push_back(inverseOf(kept, dropped, primes_[limb]));
  }

  // (extended [2][QP]) -> [2][Q]; the argument is overwritten.
  std::unique_ptr<plan::FunctionT> modDown() {
    auto f = function("mod_down", {2 * kQP, 2 * kQ}, {2 * kQ}, 0);
    divide(*f, 0, kQP, kQ, kToySpecials, 2, 1, kQ);
    return f;
  }

  // (rotations [step][2][QP], out [2][Q-1]; weights) -> rescaled sum of products.
  std::unique_ptr<plan::FunctionT> weightedSum() {
    auto f = function("weighted_sum", {kToySteps.size() * 2 * kQP, 2 * (kQ - 1)},
                      {2 * kQP, 2 * kQ, 2 * (kQ - 1)}, 2 * kQ);
    f->plaintexts.push_back(std::make_unique<plan::PlaintextSlotT>());
    f->plaintexts[0]->argument = true;
    f->commands.push_back(command(plan::Opcode_Contract, range(0, kQP), {2, uint32_t(kToySteps.size())},
                                  view(2, 0, {kQP, 0}), view(0, 0, {kQP, 2 * kQP})));
    f->commands.back()->reduce_rank = 1;
    f->commands.back()->plain = view(0, 0, {0, kQP});
    f->commands.push_back(call(0, {{2, 0}, {3, 0}}, 2 * kQP + 2 * kQ + 2 * (kQ - 1)));
    divide(*f, 3, kQ, kQ - 1, 1, 4, 1, kQ - 1);
    return f;
  }

  static Command call(uint32_t callee, const std::vector<std::pair<uint32_t, uint64_t>>& bindings,
                      uint64_t frameOffset) {
    auto c = std::make_unique<plan::CommandT>();
    c->op = plan::Opcode_Call;
    c->callee = callee;
    c->frame_offset = frameOffset;
    for (const auto& [buffer, offset] : bindings) {
      c->bindings.push_back(std::make_unique<plan::BindingT>());
      c->bindings.back()->view_buffer = buffer;
      c->bindings.back()->offset = offset;
    }
    return c;
  }

  // Centred digits of one polynomial in all of QP, NTT form: digits[d][QP].
  void modUp(plan::FunctionT& f, uint32_t buffer, uint64_t offset, uint32_t coefficients, uint32_t digits) {
    f.commands.push_back(
        command(plan::Opcode_Intt, range(0, kQ), {}, view(coefficients, 0), view(buffer, offset)));
    for (uint16_t d = 0; d < kDigits; d++) {
      f.commands.push_back(command(plan::Opcode_BaseConvert, range(0, kQP), {}, view(digits, d * kQP),
                                   view(coefficients, 2 * d)));
      f.commands.back()->source_limbs = range(uint16_t(2 * d), 2);
    }
    f.commands.push_back(
        command(plan::Opcode_Ntt, range(0, kQP), {kDigits}, view(digits, 0, {kQP}), view(digits, 0, {kQP})));
  }

  std::unique_ptr<plan::FunctionT> entry() {
    // 0 x, 1 y, 2 product, 3 rotated, 4 affine; 5 tensor, 6 coefficients, 7 digits, 8 key products, 9
    // switched, 10 scratch, 11 rotations
    const uint64_t rotations = kToySteps.size() * 2 * kQP;
    auto f = function("main", {2 * kQ, 2 * kQ, 2 * (kQ - 1), 2 * (kQ - 1), 2 * kQ},
                      {3 * kQ, kQ, kDigits * kQP, 2 * kQP, 2 * kQ, 2 * (kQ - 1), rotations}, 100);
    const uint64_t frame = f->frame_rows - 100;
    for (uint32_t i = 0; i < 3; i++) {
      f->plaintexts.push_back(std::make_unique<plan::PlaintextSlotT>());
      f->plaintexts.back()->plaintext = i;
    }
    product(*f, frame);
    for (size_t i = 0; i < f->commands.size(); i++) f->commands[i]->node = 0;
    const size_t start = f->commands.size();
    rotated(*f, frame);
    for (size_t i = start; i < f->commands.size(); i++) f->commands[i]->node = 1;
    affine(*f);
    return f;
  }

  void product(plan::FunctionT& f, uint64_t frame) {
    f.commands.push_back(command(plan::Opcode_Tensor, range(0, kQ), {}, view(5, 0, {}, kQ),
                                 view(0, 0, {}, kQ), view(1, 0, {}, kQ)));
    modUp(f, 5, 2 * kQ, 6, 7);
    f.commands.push_back(
        command(plan::Opcode_KeyProduct, range(0, kQP), {}, view(8, 0, {}, kQP), view(7, 0, {}, kQP)));
    f.commands.back()->keys = {0};
    f.commands.back()->digit_count = kDigits;
    f.commands.push_back(call(0, {{8, 0}, {9, 0}}, frame));
    f.commands.push_back(
        command(plan::Opcode_Add, range(0, kQ), {2}, view(5, 0, {kQ}), view(5, 0, {kQ}), view(9, 0, {kQ})));
    divide(f, 5, kQ, kQ - 1, 1, 10, 2, kQ - 1);
  }

  void rotated(plan::FunctionT& f, uint64_t frame) {
    modUp(f, 0, kQ, 6, 7);
    auto loop = std::make_unique<plan::CommandT>();
    loop->op = plan::Opcode_Loop;
    loop->trip_count = uint32_t(kToySteps.size());
    loop->node = 1;
    auto& body = loop->body;
    body.push_back(
        command(plan::Opcode_KeyProduct, range(0, kQP), {}, view(8, 0, {}, kQP), view(7, 0, {}, kQP)));
    body.back()->keys = {1, 2, 3};
    body.back()->keys_per_iteration = 1;
    body.back()->digit_count = kDigits;
    body.push_back(command(plan::Opcode_Contract, range(0, kQ), {}, view(8, 0), view(0, 0)));
    body.back()->plain = view(0, 0);
    body.back()->accumulate = true;
    body.push_back(command(plan::Opcode_Automorphism, range(0, kQP), {2}, view(11, 0, {kQP}, 0, {2 * kQP}),
                           view(8, 0, {kQP})));
    for (const int32_t step : kToySteps) body.back()->galois.push_back(galoisOf(step, kToyLogN));
    body.back()->galois_per_iteration = 1;
    f.commands.push_back(std::move(loop));
    f.commands.push_back(call(1, {{11, 0}, {3, 0}}, frame));
    f.commands.back()->plain_bindings = {1};
  }

  void affine(plan::FunctionT& f) {
    const auto both = [](uint32_t buffer) { return view(buffer, 0, {kQ}); };
    f.commands.push_back(command(plan::Opcode_Zero, range(0, kQ), {2}, both(4)));
    f.commands.push_back(command(plan::Opcode_Add, range(0, kQ), {2}, both(9), both(0), both(1)));
    // Twice the sum: two copies are added, the second through a summed dimension of stride 0.
    f.commands.push_back(
        command(plan::Opcode_Copy, range(0, kQ), {2, 2}, view(4, 0, {kQ, 0}), view(9, 0, {kQ, 0})));
    f.commands.back()->reduce_rank = 1;
    f.commands.back()->accumulate = true;
    f.commands.push_back(command(plan::Opcode_Sub, range(0, kQ), {2}, both(4), both(4), both(1)));
    f.commands.push_back(command(plan::Opcode_AddPlain, range(0, kQ), {}, view(4, 0), view(4, 0)));
    f.commands.back()->plain = view(2, 0);
    for (size_t i = f.commands.size() - 5; i < f.commands.size(); i++) f.commands[i]->node = 2;
  }

  const std::vector<uint64_t> primes_;
};

}  // namespace

plan::PlanT makeToyPlan() { return Maker().make(); }

plan::PlanT makeHeldPlan() {
  plan::PlanT p = makeToyPlan();
  p.plaintexts[1]->coefficients = true;
  p.plaintexts[1]->limbs.clear();
  plan::ViewT& weights = *p.programs[0]->functions[1]->commands[0]->plain;
  weights.strides = {0, 1};
  weights.limb_stride = 0;
  return p;
}

WeightMap toyWeights() {
  WeightMap weights;
  WeightTensor& w = weights.tensors["w"];
  w.shape = {kToySteps.size(), kToyPeriod};
  for (size_t i = 0; i < kToySteps.size() * kToyPeriod; i++) w.data.push_back(double(i % 7) / 7 - 0.4);
  return weights;
}

std::vector<uint8_t> packPlan(const plan::PlanT& plan) {
  flatbuffers::FlatBufferBuilder builder;
  builder.Finish(plan::CreatePlan(builder, &plan), plan::PlanIdentifier());
  return std::vector<uint8_t>(builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize());
}

}  // namespace aegis::test
