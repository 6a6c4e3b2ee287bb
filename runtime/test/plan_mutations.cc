#include "test/plan_mutations.h"

#include <functional>
#include <random>

#include "executor/session.h"
#include "test/toy_plan.h"
#include "test/toy_ranks.h"

namespace aegis::test {
namespace {

using plan::PlanT;

// Runs whatever was accepted, with keys and inputs of the right shape, for a moment.
void runAccepted(PlanFile file) {
  const auto shared = std::make_shared<const PlanFile>(std::move(file));
  const plan::Plan& p = shared->plan();
  if (shared->memory().total() > uint64_t(256) << 20) return;
  std::vector<std::vector<uint64_t>> keys;
  for (uint32_t i = 0; i < p.keys()->size(); i++)
    keys.emplace_back(
        size_t(shared->keyDigitCount(i)) * 2 * shared->keyRowCount(i) * shared->ring().degree(),
        1);
  const KeySource source{[&](uint32_t i) {
                           return KeyView{keys[i].data(), shared->keyDigitCount(i),
                                          shared->keyRowCount(i)};
                         },
                         0};
  std::atomic<bool> stop{false};
  RunOptions options;
  options.cancel = &stop;
  options.progress = [&](uint64_t, uint64_t, std::string_view) { stop = true; };
  try {
    Session session(shared, toyWeights(), source, 1, options);
    std::vector<CiphertextArray> inputs;
    for (const plan::Port* port : *p.inputs()) {
      const uint32_t limbs = port->level() + 1u;
      inputs.push_back(
          {port->elements(), limbs,
           std::vector<uint64_t>(size_t(port->elements()) * 2 * limbs * shared->ring().degree(), 3)});
    }
    session.run(inputs, options);
  } catch (const Error&) {
  }
}

struct MutationCount {
  uint32_t accepted = 0, refused = 0;
};

void tryBytes(std::vector<uint8_t> bytes, MutationCount& count) {
  try {
    PlanFile file = PlanFile::fromBytes(std::move(bytes));
    count.accepted++;
    runAccepted(std::move(file));
  } catch (const Error&) {
    count.refused++;
  }
}

// Collectives, and what ranks hold of keys and ports.
template <class Number, class Disturb>
void mutateRanks(PlanT& p, std::mt19937_64& engine, const Number& number, const Disturb& disturb) {
  const auto below = [&](uint64_t bound) { return engine() % bound; };
  plan::ProgramT& program = *p.programs[below(p.programs.size())];
  plan::CollectiveInfoT& c = *p.collectives[below(p.collectives.size())];
  auto& parts = below(2) == 0 ? program.inputs : program.outputs;
  plan::PortPartT& part = *parts[below(parts.size())];
  std::vector<plan::CommandT*> exchanges;
  const std::function<void(std::vector<std::unique_ptr<plan::CommandT>>&)> collect = [&](auto& commands) {
    for (auto& command : commands) {
      collect(command->body);
      if (command->op == plan::Opcode_Collective || command->op == plan::Opcode_Wait)
        exchanges.push_back(command.get());
    }
  };
  for (auto& f : program.functions) collect(f->commands);
  plan::CommandT none;
  plan::CommandT& exchange = exchanges.empty() ? none : *exchanges[below(exchanges.size())];
  switch (below(14)) {
    case 0: c.kind = plan::CollectiveKind(below(6)); break;
    case 1: disturb(c.group); break;
    case 2: disturb(c.rows); break;
    case 3:
      if (!c.limbs.empty()) disturb(c.limbs[below(c.limbs.size())]->limbs);
      break;
    case 4: c.root = uint16_t(number()); break;
    case 5: exchange.collective = uint32_t(below(8)); break;
    case 6: exchange.blocking = !exchange.blocking; break;
    case 7: exchange.op = below(2) == 0 ? plan::Opcode_Wait : plan::Opcode_Collective; break;
    case 8:
      if (exchange.a != nullptr) exchange.a->offset = number();
      break;
    case 9:
      if (exchange.out != nullptr) exchange.out->buffer = uint32_t(below(16));
      break;
    case 10:
      if (exchange.out != nullptr) disturb(exchange.out->loop_strides);
      break;
    case 11: disturb(program.keys[0]->limbs); break;
    case 12: disturb(part.elements); break;
    default: disturb(part.limbs); break;
  }
}

// One hostile number somewhere in the structure: what random bytes seldom reach.
void mutateField(PlanT& p, std::mt19937_64& engine) {
  const auto below = [&](uint64_t bound) { return engine() % bound; };
  const auto number = [&]() -> uint64_t {
    switch (below(4)) {
      case 0: return below(20);
      case 1: return below(2000);
      case 2: return uint64_t(1) << below(64);
      default: return ~below(20);
    }
  };
  const auto disturb = [&](auto& list) {
    if (list.empty() || below(4) == 0)
      list.push_back(typename std::decay_t<decltype(list)>::value_type(number()));
    else if (below(3) == 0)
      list.pop_back();
    else
      list[below(list.size())] = typename std::decay_t<decltype(list)>::value_type(number());
  };
  const auto disturbView = [&](std::unique_ptr<plan::ViewT>& v) {
    if (v == nullptr) return;
    switch (below(6)) {
      case 0: v->buffer = uint32_t(below(13)); break;
      case 1: v->offset = number(); break;
      case 2: disturb(v->strides); break;
      case 3: v->component_stride = int64_t(number()); break;
      case 4: v->limb_stride = int64_t(number()); break;
      default: disturb(v->loop_strides); break;
    }
  };
  if (p.programs.size() > 1 && below(3) != 0) return mutateRanks(p, engine, number, disturb);
  std::vector<plan::CommandT*> commands;
  for (auto& f : p.programs[below(p.programs.size())]->functions)
    for (auto& c : f->commands) {
      commands.push_back(c.get());
      for (auto& inner : c->body) commands.push_back(inner.get());
    }
  plan::CommandT& c = *commands[below(commands.size())];
  plan::FunctionT& f = *p.programs[0]->functions[below(p.programs[0]->functions.size())];
  plan::PlaintextT none;
  plan::PlaintextT& plaintext = p.plaintexts.empty() ? none : *p.plaintexts[below(p.plaintexts.size())];
  switch (below(23)) {
    case 0: c.op = plan::Opcode(below(19)); break;
    case 1: disturb(c.dims); break;
    case 2: disturb(c.limbs); break;
    case 3: disturbView(c.out); break;
    case 4: disturbView(c.a); break;
    case 5: disturbView(c.b); break;
    case 6: disturbView(c.plain); break;
    case 7: disturb(c.source_limbs); break;
    case 8: disturb(c.keys); break;
    case 9: c.keys_per_iteration = uint32_t(number()); break;
    case 10: c.key_dim = int32_t(number()); break;
    case 11: disturb(c.galois); break;
    case 12: c.trip_count = uint32_t(number()); break;
    case 13: c.frame_offset = number(); break;
    case 14:
      if (!c.bindings.empty()) c.bindings[below(c.bindings.size())]->offset = number();
      break;
    case 15: f.frame_rows = number(); break;
    case 16:
      if (!f.buffers.empty()) f.buffers[below(f.buffers.size())]->rows = number();
      break;
    case 17:
      if (!f.buffers.empty()) f.buffers[below(f.buffers.size())]->offset = number();
      break;
    case 18: plaintext.elements = uint32_t(number()); break;
    case 19: plaintext.row_words = uint32_t(number()); break;
    case 20: plaintext.period = uint32_t(number()); break;
    case 21:
      plaintext.coefficients = !plaintext.coefficients;
      if (below(2) == 0) plaintext.limbs.clear();
      break;
    default: disturb(p.tables[below(p.tables.size())]->values); break;
  }
}

}  // namespace

void checkMutations(Checker& checker, uint32_t mutations) {
  const std::vector<uint8_t> plans[] = {packPlan(makeToyPlan()), packPlan(makeRanksPlan(3)),
                                        packPlan(makeHeldPlan())};
  std::mt19937_64 engine(11);
  MutationCount bytes, fields;
  for (uint32_t i = 0; i < mutations; i++) {
    std::vector<uint8_t> bad = plans[i % 3];
    for (uint64_t flips = 1 + engine() % 4; flips > 0; flips--)
      bad[engine() % bad.size()] ^= uint8_t(1 << engine() % 8);
    if (engine() % 8 == 0) bad.resize(engine() % bad.size());
    tryBytes(std::move(bad), bytes);
  }
  for (uint32_t i = 0; i < mutations; i++) {
    PlanT p = i % 3 == 0 ? makeToyPlan() : i % 3 == 1 ? makeRanksPlan(3) : makeHeldPlan();
    for (uint64_t changes = 1 + engine() % 3; changes > 0; changes--) mutateField(p, engine);
    tryBytes(packPlan(p), fields);
  }
  const auto print = [](const MutationCount& c) {
    return std::to_string(c.accepted) + " ran, " + std::to_string(c.refused) + " refused";
  };
  checker.check(bytes.accepted + bytes.refused == mutations, "mutated bytes end in a coded error or a run",
                print(bytes));
  checker.check(fields.accepted + fields.refused == mutations, "mutated fields end in a coded error or a run",
                print(fields));
}

}  // namespace aegis::test
