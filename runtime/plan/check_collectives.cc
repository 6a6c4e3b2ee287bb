// Collectives: their shapes, and that all ranks issue them in one order.
//
// Codes: R245 the shape of a collective; R247 no order of the collectives fits all ranks. R246, commands, is
// in decode_exchange.cc.
#include <algorithm>
#include <memory>

#include "plan/checks.h"

namespace aegis {
namespace {

class CollectiveDecoder {
 public:
  CollectiveDecoder(const CheckContext& context, uint32_t index)
      : context_(context),
        source_(*context.plan.collectives()->Get(index)),
        ranks_(context.plan.programs()->size()) {
    result_.id = index;
  }

  Collective run() {
    if (source_.kind() > plan::CollectiveKind_MAX) refuse("has an unknown kind");
    if (source_.block() > plan::LayerBlock_MAX) refuse("is in an unknown block");
    result_.kind = CollectiveKind(source_.kind());
    group();
    rows();
    limbs();
    result_.root = source_.root();
    if (result_.kind == CollectiveKind::kBroadcast && result_.root >= result_.size())
      refuse("has root " + std::to_string(result_.root));
    if (source_.node() >= context_.plan.locations()->size())
      refuse("has location " + std::to_string(source_.node()));
    result_.node = context_.plan.locations()->Get(source_.node())->str();
    result_.executions = source_.executions();
    if (source_.received_bytes()->size() != result_.size()) refuse("has not one prediction for each rank");
    result_.predictedBytes.assign(source_.received_bytes()->begin(), source_.received_bytes()->end());
    return std::move(result_);
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    fail("R245", "collective " + std::to_string(result_.id) + " " + what);
  }

  void group() {
    if (source_.group()->size() == 0 || source_.group()->size() > ranks_) refuse("has no ranks, or too many");
    for (const uint16_t rank : *source_.group()) {
      if (rank >= ranks_ || (!result_.group.empty() && rank <= result_.group.back()))
        refuse("has rank " + std::to_string(rank) + ", out of order or none of the plan");
      result_.group.push_back(rank);
    }
  }

  void rows() {
    const size_t g = result_.size(), count = source_.rows()->size();
    context_.budget.charge(1 + count);
    size_t expected = g;
    if (result_.kind == CollectiveKind::kAllReduce || result_.kind == CollectiveKind::kBroadcast)
      expected = 1;
    if (result_.kind == CollectiveKind::kAllToAll) expected = g * g;
    if (count != expected)
      refuse("has " + std::to_string(count) + " row counts instead of " + std::to_string(expected));
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
      const uint64_t rows = source_.rows()->Get(uint32_t(i));
      if (rows > kMaxRows || (sum += rows) > kMaxRows) refuse("moves too many rows");
      if (result_.kind == CollectiveKind::kAllToAll && i % (g + 1) == 0 && rows != 0)
        refuse("has rows from a rank to itself");
      result_.rows.push_back(rows);
    }
  }

  void limbs() {
    const uint32_t count = source_.limbs() == nullptr ? 0 : source_.limbs()->size();
    const uint32_t expected = result_.reduces() ? uint32_t(result_.rows.size()) : 0;
    if (count != expected)
      refuse("has " + std::to_string(count) + " lists of limbs instead of " + std::to_string(expected));
    for (uint32_t k = 0; k < count; k++) {
      const auto& list = *source_.limbs()->Get(k)->limbs();
      context_.budget.charge(1 + list.size());
      if (list.size() > context_.ring.primeCount() || (list.size() == 0) != (result_.rows[k] == 0) ||
          (list.size() != 0 && result_.rows[k] % list.size() != 0))
        refuse("has " + std::to_string(list.size()) + " limbs for " + std::to_string(result_.rows[k]) +
               " rows");
      for (const uint16_t limb : list)
        if (limb >= context_.ring.primeCount()) refuse("sums modulo prime " + std::to_string(limb));
      result_.limbs.emplace_back(list.begin(), list.end());
    }
  }

  const CheckContext& context_;
  const plan::CollectiveInfo& source_;
  const size_t ranks_;
  Collective result_;
};

// What a rank issues, calls written out: collectives, and loops that contain some.
struct TraceItem {
  uint32_t collective = 0;  // unless a loop
  uint32_t trips = 0;       // 0: no loop
  std::shared_ptr<const std::vector<TraceItem>> body;
};
using Trace = std::vector<TraceItem>;
using TracePointer = std::shared_ptr<const Trace>;

class Tracer {
 public:
  Tracer(const CheckContext& context, const ProgramSpec& program) : context_(context) {
    for (const FunctionSpec& function : program.functions)
      functions_.push_back(std::make_shared<const Trace>(trace(function.commands)));
  }
  TracePointer entry() const { return functions_.back(); }

 private:
  Trace trace(const std::vector<CommandSpec>& commands) const {
    Trace result;
    for (const CommandSpec& command : commands) {
      if (command.op == plan::Opcode_Collective) {
        result.push_back({command.collective, 0, nullptr});
      } else if (command.op == plan::Opcode_Call) {
        const Trace& callee = *functions_[command.callee];
        context_.budget.charge(64 * callee.size());  // memory, too
        result.insert(result.end(), callee.begin(), callee.end());
      } else if (command.op == plan::Opcode_Loop) {
        Trace body = trace(command.body);
        if (!body.empty())
          result.push_back({0, command.tripCount, std::make_shared<const Trace>(std::move(body))});
      }
    }
    return result;
  }

  const CheckContext& context_;
  std::vector<TracePointer> functions_;
};

struct Cursor {
  uint32_t rank;
  const Trace* trace;
  size_t at = 0;
  const TraceItem* head() const { return at < trace->size() ? &(*trace)[at] : nullptr; }
};

// Runs the traces against each other. A collective goes on when it is next on all ranks of its group; a loop,
// when it is next, with as many iterations, on all ranks that take part in any collective of its body; one
// iteration stands for all of them. If this comes to the end, the collectives of the plan have an order that
// fits every rank, and then the earliest one that is open never waits for a later one.
class OrderCheck {
 public:
  explicit OrderCheck(const CheckContext& context) : context_(context) {}

  void run(std::vector<Cursor> cursors) {
    for (bool moved = true; moved;) {
      moved = false;
      context_.budget.charge(cursors.size());
      for (Cursor& cursor : cursors)
        while (advance(cursor, cursors)) moved = true;
    }
    for (const Cursor& cursor : cursors)
      if (cursor.head() != nullptr)
        fail("R247", "rank " + std::to_string(cursor.rank) + " would wait for ever at " +
                         name(*cursor.head()) + ": other ranks have another order of collectives");
  }

 private:
  bool advance(Cursor& cursor, std::vector<Cursor>& cursors) {
    const TraceItem* item = cursor.head();
    if (item == nullptr) return false;
    context_.budget.charge(kMaxRanks);
    std::vector<Cursor*> members;
    if (item->trips == 0) {
      const Collective& collective = context_.collectives[item->collective];
      for (const uint16_t rank : collective.group) {
        Cursor* other = find(cursors, rank);
        const TraceItem* head = other == nullptr ? nullptr : other->head();
        if (head == nullptr || head->trips != 0 || head->collective != item->collective) return false;
        members.push_back(other);
      }
    } else {
      if (!gather(cursor, cursors, item->trips, members)) return false;
      std::vector<Cursor> inner;
      for (const Cursor* member : members) inner.push_back({member->rank, member->head()->body.get()});
      run(std::move(inner));
    }
    for (Cursor* member : members) member->at++;
    return true;
  }

  // The ranks that the bodies of loops at hand name, from one rank on.
  bool gather(Cursor& first, std::vector<Cursor>& cursors, uint32_t trips,
              std::vector<Cursor*>& members) const {
    uint64_t known = uint64_t(1) << first.rank;
    members.push_back(&first);
    for (size_t i = 0; i < members.size(); i++) {
      const uint64_t named = ranksOf(*members[i]->head()->body) & ~known;
      known |= named;
      for (uint32_t rank = 0; rank < kMaxRanks; rank++) {
        if ((named >> rank & 1) == 0) continue;
        Cursor* other = find(cursors, rank);
        if (other == nullptr || other->head() == nullptr || other->head()->trips != trips) return false;
        members.push_back(other);
      }
    }
    return true;
  }

  uint64_t ranksOf(const Trace& trace) const {
    uint64_t ranks = 0;
    context_.budget.charge(8 * trace.size());
    for (const TraceItem& item : trace) {
      if (item.trips != 0) {
        ranks |= ranksOf(*item.body);
        continue;
      }
      for (const uint16_t rank : context_.collectives[item.collective].group) ranks |= uint64_t(1) << rank;
    }
    return ranks;
  }

  static Cursor* find(std::vector<Cursor>& cursors, uint32_t rank) {
    for (Cursor& cursor : cursors)
      if (cursor.rank == rank) return &cursor;
    return nullptr;
  }

  static std::string name(const TraceItem& item) {
    return item.trips == 0 ? "collective " + std::to_string(item.collective)
                           : "a loop of " + std::to_string(item.trips) + " iterations";
  }

  const CheckContext& context_;
};

}  // namespace

std::vector<Collective> decodeCollectives(const CheckContext& context) {
  std::vector<Collective> result;
  context.budget.charge(context.plan.collectives()->size());
  for (uint32_t i = 0; i < context.plan.collectives()->size(); i++)
    result.push_back(CollectiveDecoder(context, i).run());
  return result;
}

void checkCollectiveOrder(const CheckContext& context, const std::vector<ProgramSpec>& programs) {
  std::vector<TracePointer> traces;
  std::vector<Cursor> cursors;
  for (uint32_t rank = 0; rank < programs.size(); rank++) {
    traces.push_back(Tracer(context, programs[rank]).entry());
    cursors.push_back({rank, traces.back().get()});
  }
  OrderCheck(context).run(std::move(cursors));
}

}  // namespace aegis
