#include "test/plan_collectives.h"

#include <algorithm>
#include <functional>

#include "plan/plan_file.h"
#include "test/toy_plan.h"
#include "test/toy_ranks.h"

namespace aegis::test {
namespace {

using plan::PlanT;
using Change = std::function<void(PlanT&)>;
using Refuse = std::function<void(const char* code, const char* name, const Change&)>;

// In the order of toy_ranks.cc.
enum : uint32_t { kGatherInput, kSumAll, kScatterSum, kGatherProduct, kTranspose, kSpread };

std::vector<std::unique_ptr<plan::CommandT>>& entry(PlanT& p, size_t rank) {
  return p.programs[rank]->functions[1]->commands;
}

// Where the entry of a rank starts (or waits for) a collective; the loop for kSumAll.
size_t placeOf(PlanT& p, size_t rank, plan::Opcode op, uint32_t collective) {
  auto& commands = entry(p, rank);
  for (size_t i = 0; i < commands.size(); i++)
    if (commands[i]->op == op && (op == plan::Opcode_Loop || commands[i]->collective == collective)) return i;
  invariantFailed("the plan has such a command", __FILE__, __LINE__);
}

plan::CommandT& start(PlanT& p, size_t rank, uint32_t collective) {
  if (collective == kSumAll) return *entry(p, rank)[placeOf(p, rank, plan::Opcode_Loop, 0)]->body[1];
  if (collective == kSpread) return *p.programs[rank]->functions[0]->commands[0];
  return *entry(p, rank)[placeOf(p, rank, plan::Opcode_Collective, collective)];
}

plan::CommandT& loop(PlanT& p, size_t rank) {
  return *entry(p, rank)[placeOf(p, rank, plan::Opcode_Loop, 0)];
}

void swap(PlanT& p, size_t rank, size_t i, size_t j) { std::swap(entry(p, rank)[i], entry(p, rank)[j]); }

void checkShapes(const Refuse& refuse) {
  refuse("R245", "an unknown kind", [](PlanT& p) { p.collectives[0]->kind = plan::CollectiveKind(9); });
  refuse("R245", "an unknown block", [](PlanT& p) { p.collectives[0]->block = plan::LayerBlock(9); });
  refuse("R245", "no group", [](PlanT& p) { p.collectives[0]->group.clear(); });
  refuse("R245", "a rank twice", [](PlanT& p) { p.collectives[0]->group = {0, 0, 1}; });
  refuse("R245", "a falling group", [](PlanT& p) { p.collectives[0]->group = {1, 0, 2}; });
  refuse("R245", "a rank that is not there", [](PlanT& p) { p.collectives[0]->group = {0, 1, 3}; });
  refuse("R245", "a missing row count", [](PlanT& p) { p.collectives[0]->rows.pop_back(); });
  refuse("R245", "rows that overflow", [](PlanT& p) { p.collectives[0]->rows = {~0ull, 2, 2}; });
  refuse("R245", "too many rows", [](PlanT& p) { p.collectives[1]->rows = {1ull << 60}; });
  refuse("R245", "rows from a rank to itself", [](PlanT& p) { p.collectives[kTranspose]->rows[4] = 1; });
  refuse("R245", "a reduction without limbs", [](PlanT& p) { p.collectives[kSumAll]->limbs.clear(); });
  refuse("R245", "an empty list of limbs", [](PlanT& p) { p.collectives[kSumAll]->limbs[0]->limbs.clear(); });
  refuse("R245", "limbs that do not divide the rows",
         [](PlanT& p) { p.collectives[kSumAll]->limbs[0]->limbs.resize(5); });
  refuse("R245", "a limb that is no prime", [](PlanT& p) { p.collectives[kSumAll]->limbs[0]->limbs[0] = 8; });
  refuse("R245", "limbs of what is no reduction", [](PlanT& p) {
    p.collectives[0]->limbs.push_back(std::make_unique<plan::LimbListT>(*p.collectives[kSumAll]->limbs[0]));
  });
  refuse("R245", "a root outside of the group", [](PlanT& p) { p.collectives[kSpread]->root = 3; });
  refuse("R245", "a location that is not there", [](PlanT& p) { p.collectives[0]->node = 99; });
  refuse("R245", "a missing prediction", [](PlanT& p) { p.collectives[0]->received_bytes.pop_back(); });
}

void checkCommands(const Refuse& refuse) {
  refuse("R246", "a collective that is not there", [](PlanT& p) { start(p, 1, kSumAll).collective = 6; });
  refuse("R246", "a collective of other ranks", [](PlanT& p) {
    p.collectives[0]->group = {0, 1};
    p.collectives[0]->rows.pop_back();
    p.collectives[0]->received_bytes.pop_back();
  });
  refuse("R232", "a missing send block", [](PlanT& p) { start(p, 0, kGatherInput).a = nullptr; });
  refuse("R232", "a missing receive block", [](PlanT& p) { start(p, 0, kGatherInput).out = nullptr; });
  refuse("R232", "a send block past its buffer", [](PlanT& p) { start(p, 0, kGatherInput).a->offset = 1; });
  refuse("R232", "a send block of no buffer", [](PlanT& p) { start(p, 0, kGatherInput).a->buffer = 77; });
  refuse("R232", "an offset beyond any buffer",
         [](PlanT& p) { start(p, 0, kGatherInput).out->offset = ~0ull; });
  refuse("R232", "a receive block that leaves its buffer in the second iteration",
         [](PlanT& p) { start(p, 2, kSumAll).out->loop_strides = {13}; });
  refuse("R232", "loop strides outside of loops",
         [](PlanT& p) { start(p, 2, kScatterSum).out->loop_strides = {1}; });
  refuse("R232", "a loop stride beyond any buffer",
         [](PlanT& p) { start(p, 2, kSumAll).a->loop_strides = {INT64_MIN}; });
  refuse("R233", "a receive block over the send block", [](PlanT& p) {
    start(p, 0, kSumAll).out->buffer = start(p, 0, kSumAll).a->buffer;
  });
  refuse("R246", "a wait for nothing", [](PlanT& p) {
    entry(p, 0)[placeOf(p, 0, plan::Opcode_Wait, kGatherInput)]->collective = kTranspose;
  });
  refuse("R246", "a start without a wait", [](PlanT& p) {
    entry(p, 0).erase(entry(p, 0).begin() + ptrdiff_t(placeOf(p, 0, plan::Opcode_Wait, kTranspose)));
  });
  refuse("R246", "a second wait", [](PlanT& p) {
    auto& commands = entry(p, 0);
    commands.push_back(std::make_unique<plan::CommandT>(
        *commands[placeOf(p, 0, plan::Opcode_Wait, kTranspose)]));
  });
  refuse("R246", "a wait in another block", [](PlanT& p) {
    auto& commands = entry(p, 0);
    const size_t wait = placeOf(p, 0, plan::Opcode_Wait, kGatherInput);
    loop(p, 0).body.push_back(std::move(commands[wait]));
    commands.erase(commands.begin() + ptrdiff_t(wait));
  });
  refuse("R246", "a collective that is started while it is open", [](PlanT& p) {
    auto& commands = entry(p, 0);
    commands.insert(commands.begin() + 1, std::make_unique<plan::CommandT>(*commands[0]));
  });
  refuse("R246", "rows that are read while they are on their way", [](PlanT& p) {
    auto& add = *entry(p, 0)[1];
    add.a->buffer = start(p, 0, kGatherInput).out->buffer;
  });
  refuse("R246", "rows that are written while they are sent", [](PlanT& p) {
    auto& add = *entry(p, 0)[1];
    add.out->buffer = start(p, 0, kGatherInput).a->buffer;
  });
}

void checkOrder(const Refuse& refuse) {
  refuse("R247", "a rank that does not take part", [](PlanT& p) {
    auto& commands = entry(p, 1);
    commands.erase(commands.begin() + ptrdiff_t(placeOf(p, 1, plan::Opcode_Collective, kScatterSum)));
  });
  refuse("R247", "two collectives in another order", [](PlanT& p) {
    swap(p, 1, placeOf(p, 1, plan::Opcode_Loop, 0), placeOf(p, 1, plan::Opcode_Collective, kScatterSum));
  });
  refuse("R247", "a loop of another length", [](PlanT& p) { loop(p, 2).trip_count = 1; });
  refuse("R247", "a collective twice on one rank", [](PlanT& p) {
    auto& commands = entry(p, 1);
    const size_t at = placeOf(p, 1, plan::Opcode_Collective, kScatterSum);
    commands.insert(commands.begin() + ptrdiff_t(at), std::make_unique<plan::CommandT>(*commands[at]));
  });
}

// Three pairs in a ring: every two ranks agree on their one common collective, and all three wait for ever.
void checkRing(Checker& checker) {
  const auto make = [](bool deadlock) {
    PlanT p = makeRanksPlan(3);
    for (uint16_t pair = 0; pair < 3; pair++) {
      p.collectives.push_back(std::make_unique<plan::CollectiveInfoT>());
      plan::CollectiveInfoT& c = *p.collectives.back();
      const uint16_t from = pair, to = uint16_t((pair + 1) % 3);
      c.group = {std::min(from, to), std::max(from, to)};
      c.rows = {1, 1};
      c.received_bytes = {8192, 8192};
      c.executions = 1;
    }
    for (uint32_t rank = 0; rank < 3; rank++) {
      // Pair `rank` first, then pair `rank - 1`; without deadlock in the order of pairs.
      std::vector<uint32_t> pairs = {6 + rank, 6 + (rank + 2) % 3};
      if (!deadlock) std::sort(pairs.begin(), pairs.end());
      for (const uint32_t pair : pairs) {
        entry(p, rank).push_back(std::make_unique<plan::CommandT>(start(p, rank, kGatherProduct)));
        plan::CommandT& c = *entry(p, rank).back();
        c.collective = pair;
        c.a = std::make_unique<plan::ViewT>(*c.a);
        c.out->buffer = 5;  // of all elements
      }
    }
    return packPlan(p);
  };
  checker.check(PlanFile::fromBytes(make(false)).collectives().size() == 9, "pairs in one order are valid");
  checker.refuses("R247", "a ring of pairs", [&] { PlanFile::fromBytes(make(true)); });
}

void checkParts(const Refuse& refuse) {
  refuse("R248", "a part of a key that is not there", [](PlanT& p) { p.programs[0]->keys[0]->key = 4; });
  refuse("R248", "a key twice", [](PlanT& p) {
    p.programs[0]->keys.push_back(std::make_unique<plan::KeyPartT>(*p.programs[0]->keys[0]));
  });
  refuse("R248", "limbs of a key out of order", [](PlanT& p) { p.programs[0]->keys[0]->limbs = {1, 0, 2}; });
  refuse("R248", "limbs that the key does not have",
         [](PlanT& p) { p.programs[0]->keys[0]->limbs = {0, 1, 8}; });
  refuse("R236", "a key product without its rows", [](PlanT& p) { p.programs[1]->keys[0]->limbs = {3}; });
  refuse("R236", "a key product without its key", [](PlanT& p) { p.programs[1]->keys.clear(); });
  refuse("R241", "a missing part", [](PlanT& p) { p.programs[1]->outputs.pop_back(); });
  refuse("R241", "an element that is not there", [](PlanT& p) { p.programs[1]->inputs[0]->elements[1] = 5; });
  refuse("R241", "an element twice", [](PlanT& p) { p.programs[1]->inputs[0]->elements = {2, 2}; });
  refuse("R241", "a limb that is not there", [](PlanT& p) { p.programs[2]->outputs[2]->limbs = {6}; });
  refuse("R241", "an output that no rank holds whole",
         [](PlanT& p) { p.programs[2]->outputs[2]->limbs = {0}; });
  refuse("R240", "a part of another size", [](PlanT& p) { p.programs[1]->inputs[0]->elements.pop_back(); });
  refuse("R248", "a wrong prediction for ports", [](PlanT& p) { p.programs[1]->memory->ports++; });
  refuse("R248", "a wrong prediction for keys", [](PlanT& p) { p.programs[1]->memory->keys++; });
  refuse("R248", "a wrong prediction for plaintexts", [](PlanT& p) { p.programs[1]->memory->plaintexts++; });
  refuse("R217", "sixty-five ranks", [](PlanT& p) { p.mesh[0]->size = 65; });
}

}  // namespace

void checkCollectiveChecks(Checker& checker) {
  const auto refuse = [&](const char* code, const char* name, const Change& change) {
    PlanT p = makeRanksPlan(3);
    change(p);
    checker.refuses(code, name, [&] { PlanFile::fromBytes(packPlan(p)); });
  };
  const PlanFile good = PlanFile::fromBytes(packPlan(makeRanksPlan(3)));
  checker.check(good.programs().size() == 3 && good.collectives().size() == 6,
                "a plan for three ranks is valid");
  uint64_t arena = 0;
  for (const ProgramSpec& program : good.programs()) arena += program.memory.arenaBytes();
  checker.check(good.memory().arenaBytes == arena, "one process holds the buffers of all ranks");
  checker.check(good.memoryOf({1}).arenaBytes == good.programs()[1].memory.arenaBytes(),
                "or those of one rank");
  checkShapes(refuse);
  checkCommands(refuse);
  checkOrder(refuse);
  checkRing(checker);
  checkParts(refuse);
}

}  // namespace aegis::test
