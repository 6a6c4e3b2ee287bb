#include "test/toy_ranks.h"

#include <algorithm>

#include "test/plan_parts.h"
#include "test/toy_plan.h"

namespace aegis::test {
namespace {

constexpr uint32_t kQ = kToyLevels + 1, kBoth = 2 * kQ, kDigits = 3, kKey = 1;
constexpr uint64_t kRowBytes = (uint64_t(1) << kToyLogN) * 8;

enum CollectiveIndex : uint32_t {
  kGatherInput,
  kSumAll,
  kScatterSum,
  kGatherProduct,
  kTranspose,
  kSpread,
  kCount
};
// Arguments x, own doubled elements y, sums s, transposed v, spread b; then locals.
enum BufferIndex : uint32_t {
  kX,
  kY,
  kS,
  kV,
  kB,
  kAll,
  kHalves,
  kPartial,
  kPacked,
  kOwnSum,
  kProduct,
  kProducts,
  kZ,
  kSend,
  kReceive
};

class Maker {
 public:
  explicit Maker(uint32_t ranks) : ranks_(ranks) {}

  plan::PlanT make() {
    plan::PlanT p = makeToyPlan();
    p.model_name = "ranks";
    p.programs.clear();
    p.plaintexts.clear();
    p.inputs.clear();
    p.outputs.clear();
    p.locations = {"input", "sum", "product", "transpose", "spread"};
    p.mesh.push_back(std::make_unique<plan::MeshAxisT>());
    p.mesh.back()->name = "app";
    p.mesh.back()->size = ranks_;
    addTable(p, int32_t(kRanksElements * kToyPeriod), 1);                // 3
    addTable(p, int32_t((1u << (kToyLogN - 1)) / kToyPeriod), 0);        // 4: all tokens are the same
    addTable(p, int32_t(2 * kToyPeriod), 1);                             // 5
    collectives(p);
    for (uint32_t r = 0; r < ranks_; r++) p.programs.push_back(program(p, r));
    p.inputs.push_back(port("x", kRanksElements, 3));
    p.outputs.push_back(port("y", kRanksElements, 3));
    p.outputs.push_back(port("s", 2, 5));
    p.outputs.push_back(port("v", kRanksElements, 3));
    p.outputs.push_back(port("b", 1, 0));
    return p;
  }

 private:
  // Elements and limbs that a rank owns: as even as can be for elements, uneven for limbs.
  uint32_t firstElement(uint32_t r) const { return kRanksElements * r / ranks_; }
  uint32_t elements(uint32_t r) const { return firstElement(r + 1) - firstElement(r); }
  uint32_t firstLimb(uint32_t r) const {
    return r == 0 ? 0 : std::min(kQ - (ranks_ - r), 1 + kQ * r / ranks_);
  }
  Limbs limbs(uint32_t r) const {
    const uint32_t end = r + 1 == ranks_ ? kQ : firstLimb(r + 1);
    return range(uint16_t(firstLimb(r)), uint16_t(end - firstLimb(r)));
  }

  static void addTable(plan::PlanT& p, int32_t count, int32_t step) {
    p.tables.push_back(std::make_unique<plan::IntTableT>());
    p.tables.back()->name = "ranks";
    for (int32_t i = 0; i < count; i++) p.tables.back()->values.push_back(i * step);
  }

  static std::unique_ptr<plan::PortT> port(const char* name, uint32_t elements, uint32_t features) {
    auto p = std::make_unique<plan::PortT>();
    p->name = name;
    p->shape = {elements * kToyPeriod};
    p->elements = elements;
    p->period = kToyPeriod;
    p->features = features;
    p->tokens = 4;
    p->level = kToyLevels;
    p->scale = kToyScale;
    p->factor = 1;
    return p;
  }

  plan::CollectiveInfoT& add(plan::PlanT& p, plan::CollectiveKind kind, uint32_t node, uint64_t executions,
                             std::vector<uint64_t> rows) {
    p.collectives.push_back(std::make_unique<plan::CollectiveInfoT>());
    plan::CollectiveInfoT& c = *p.collectives.back();
    c.kind = kind;
    for (uint32_t r = 0; r < ranks_; r++) c.group.push_back(uint16_t(r));
    c.rows = std::move(rows);
    c.node = node;
    c.executions = executions;
    return c;
  }

  void addLimbs(plan::CollectiveInfoT& c, Limbs list) const {
    c.limbs.push_back(std::make_unique<plan::LimbListT>());
    c.limbs.back()->limbs = std::move(list);
  }

  void collectives(plan::PlanT& p) {
    std::vector<uint64_t> input, scattered, transposed;
    for (uint32_t r = 0; r < ranks_; r++) {
      input.push_back(elements(r) * kBoth);
      scattered.push_back(2 * limbs(r).size());
      for (uint32_t d = 0; d < ranks_; d++)
        transposed.push_back(r == d ? 0 : elements(r) * 2 * limbs(d).size());
    }
    add(p, plan::CollectiveKind_AllGather, 0, 1, input);
    addLimbs(add(p, plan::CollectiveKind_AllReduce, 1, 2, {kBoth}), range(0, kQ));
    auto& scatter = add(p, plan::CollectiveKind_ReduceScatter, 2, 1, scattered);
    for (uint32_t r = 0; r < ranks_; r++) addLimbs(scatter, limbs(r));
    add(p, plan::CollectiveKind_AllGather, 2, 1, scattered);
    add(p, plan::CollectiveKind_AllToAll, 3, 1, transposed);
    add(p, plan::CollectiveKind_Broadcast, 4, 1, {kBoth}).root = uint16_t(ranks_ - 1);
    for (uint32_t r = 0; r < ranks_; r++) predict(p, r, input, scattered, transposed);
  }

  void predict(plan::PlanT& p, uint32_t r, const std::vector<uint64_t>& input,
               const std::vector<uint64_t>& scattered, const std::vector<uint64_t>& transposed) const {
    const auto others = [&](const std::vector<uint64_t>& rows) {
      return std::accumulate(rows.begin(), rows.end(), uint64_t(0)) - rows[r];
    };
    const uint64_t segment = kBoth / ranks_ + (r < kBoth % ranks_ ? 1 : 0);
    uint64_t column = 0;
    for (uint32_t s = 0; s < ranks_; s++) column += transposed[s * ranks_ + r];
    const uint64_t rows[kCount] = {others(input), 2 * ((ranks_ - 1) * segment + kBoth - segment),
                                   (ranks_ - 1) * scattered[r], others(scattered), column,
                                   r + 1 == ranks_ ? 0 : uint64_t(kBoth)};
    for (uint32_t c = 0; c < kCount; c++) p.collectives[c]->received_bytes.push_back(rows[c] * kRowBytes);
  }

  static Command exchange(uint32_t collective, uint32_t node, std::unique_ptr<plan::ViewT> out,
                          std::unique_ptr<plan::ViewT> a, bool blocking = true) {
    Command c = command(plan::Opcode_Collective, {}, {}, std::move(out), std::move(a));
    c->collective = collective;
    c->blocking = blocking;
    c->node = node;
    return c;
  }

  static Command wait(uint32_t collective, uint32_t node) {
    Command c = command(plan::Opcode_Wait, {}, {}, nullptr);
    c->collective = collective;
    c->node = node;
    return c;
  }

  std::unique_ptr<plan::ProgramT> program(const plan::PlanT& p, uint32_t r) const {
    auto result = std::make_unique<plan::ProgramT>();
    result->functions.push_back(spread(r));
    result->functions.push_back(entry(p, r));
    result->keys.push_back(std::make_unique<plan::KeyPartT>());
    result->keys[0]->key = kKey;
    result->keys[0]->limbs = limbs(r);
    for (uint32_t buffer = kX; buffer <= kB; buffer++) {
      auto& parts = buffer == kX ? result->inputs : result->outputs;
      parts.push_back(std::make_unique<plan::PortPartT>());
      parts.back()->buffer = buffer;
      if (buffer == kX || buffer == kY)
        for (uint32_t e = 0; e < elements(r); e++) parts.back()->elements.push_back(firstElement(r) + e);
      if (buffer == kV) parts.back()->limbs = limbs(r);
    }
    result->memory = std::make_unique<plan::RankMemoryT>();
    const plan::FunctionT& f = *result->functions[1];
    for (const auto& buffer : f.buffers)
      if (buffer->argument) result->memory->ports += buffer->rows * kRowBytes;
    result->memory->frame = f.frame_rows * kRowBytes;
    result->memory->keys = kDigits * 2 * limbs(r).size() * kRowBytes;
    return result;
  }

  // (send, out): what the last rank has goes to all.
  std::unique_ptr<plan::FunctionT> spread(uint32_t r) const {
    auto f = function("spread", {kBoth, kBoth}, {}, 0);
    if (r + 1 == ranks_) {
      f->commands.push_back(exchange(kSpread, 4, nullptr, view(0, 0)));
      f->commands.push_back(
          command(plan::Opcode_Copy, range(0, kQ), {2}, view(1, 0, {kQ}), view(0, 0, {kQ})));
    } else {
      f->commands.push_back(exchange(kSpread, 4, view(1, 0), nullptr));
    }
    return f;
  }

  std::unique_ptr<plan::FunctionT> entry(const plan::PlanT& p, uint32_t r) const {
    const uint32_t own = elements(r), share = uint32_t(limbs(r).size());
    auto f = function(
        "main", {own * kBoth, own * kBoth, 2 * kBoth, kRanksElements * 2 * share, kBoth},
        {kRanksElements * kBoth, 2 * own * kBoth, 2 * kBoth, kBoth, 2 * share, 2 * share, kBoth, kBoth,
         kRanksElements * kBoth, kRanksElements * 2 * share},
        0);
    auto& c = f->commands;
    const auto own2 = [&](uint32_t buffer, uint64_t offset) { return view(buffer, offset, {kBoth, kQ}); };
    // y = 2 x while the others' x are on their way; halves = (x, y).
    c.push_back(exchange(kGatherInput, 0, view(kAll, 0), view(kX, 0), false));
    c.push_back(command(plan::Opcode_Add, range(0, kQ), {own, 2}, own2(kY, 0), own2(kX, 0), own2(kX, 0)));
    c.push_back(command(plan::Opcode_Copy, range(0, kQ), {own, 2}, own2(kHalves, 0), own2(kX, 0)));
    c.push_back(command(plan::Opcode_Copy, range(0, kQ), {own, 2}, own2(kHalves, own * kBoth), own2(kY, 0)));
    c.push_back(wait(kGatherInput, 0));
    sums(c, own);
    // The sum of all ranks' partial sums of y, by limbs, times a key; then with the sum of all elements.
    uint64_t offset = 0;
    for (uint32_t d = 0; d < ranks_; d++) {
      c.push_back(pack(kPacked, offset, limbs(d), kPartial, kBoth));
      offset += 2 * limbs(d).size();
    }
    c.push_back(exchange(kScatterSum, 2, view(kOwnSum, 0), view(kPacked, 0)));
    c.push_back(
        command(plan::Opcode_KeyProduct, limbs(r), {}, view(kProduct, 0, {}, share), view(kOwnSum, 0)));
    c.back()->keys = {kKey};
    c.back()->digit_count = kDigits;
    c.push_back(exchange(kGatherProduct, 2, view(kProducts, 0), view(kProduct, 0)));
    offset = 0;
    for (uint32_t s = 0; s < ranks_; s++) {
      const int64_t count = int64_t(limbs(s).size());
      c.push_back(command(plan::Opcode_Copy, limbs(s), {2}, view(kZ, firstLimb(s), {kQ}),
                          view(kProducts, offset, {count})));
      offset += uint64_t(2 * count);
    }
    c.push_back(command(plan::Opcode_Copy, range(0, kQ), {2, kRanksElements}, view(kZ, 0, {kQ, 0}),
                        view(kAll, 0, {kQ, kBoth})));
    c.back()->reduce_rank = 1;
    c.back()->accumulate = true;
    transpose(c, r);
    Command call = std::make_unique<plan::CommandT>();
    call->op = plan::Opcode_Call;
    call->node = 4;
    for (const uint32_t buffer : {uint32_t(kZ), uint32_t(kB)}) {
      call->bindings.push_back(std::make_unique<plan::BindingT>());
      call->bindings.back()->view_buffer = buffer;
    }
    c.push_back(std::move(call));
    (void)p;
    return f;
  }

  // s[i] = sum over all elements of x (i = 0) and of y (i = 1).
  void sums(std::vector<Command>& c, uint32_t own) const {
    auto loop = std::make_unique<plan::CommandT>();
    loop->op = plan::Opcode_Loop;
    loop->trip_count = 2;
    loop->node = 1;
    loop->body.push_back(command(plan::Opcode_Copy, range(0, kQ), {2, own},
                                 view(kPartial, 0, {kQ, 0}, 0, {kBoth}),
                                 view(kHalves, 0, {kQ, kBoth}, 0, {int64_t(own) * kBoth})));
    loop->body.back()->reduce_rank = 1;
    loop->body.push_back(
        exchange(kSumAll, 1, view(kS, 0, {}, 0, {kBoth}), view(kPartial, 0, {}, 0, {kBoth})));
    c.push_back(std::move(loop));
  }

  static Command pack(uint32_t to, uint64_t offset, Limbs limbs, uint32_t from, uint64_t base) {
    const int64_t count = int64_t(limbs.size());
    const uint64_t first = limbs[0];
    return command(plan::Opcode_Copy, std::move(limbs), {2}, view(to, offset, {count}),
                   view(from, base + first, {kQ}));
  }

  // v = y, all elements on the rank's own limbs.
  void transpose(std::vector<Command>& c, uint32_t r) const {
    const uint32_t own = elements(r);
    const auto rows = [](uint32_t buffer, uint64_t offset, int64_t count) {
      return view(buffer, offset, {2 * count, count});
    };
    const auto mine = [&](uint32_t d) { return view(kY, firstLimb(d), {kBoth, kQ}); };
    uint64_t offset = 0;
    for (uint32_t d = 0; d < ranks_; d++) {
      if (d == r) continue;
      const int64_t count = int64_t(limbs(d).size());
      c.push_back(command(plan::Opcode_Copy, limbs(d), {own, 2}, rows(kSend, offset, count), mine(d)));
      offset += own * 2 * uint64_t(count);
    }
    const int64_t share = int64_t(limbs(r).size());
    c.push_back(exchange(kTranspose, 3, ranks_ == 1 ? nullptr : view(kReceive, 0),
                         ranks_ == 1 ? nullptr : view(kSend, 0), false));
    c.push_back(command(plan::Opcode_Copy, limbs(r), {own, 2},
                        rows(kV, firstElement(r) * 2 * uint64_t(share), share), mine(r)));
    c.push_back(wait(kTranspose, 3));
    offset = 0;
    for (uint32_t s = 0; s < ranks_; s++) {
      if (s == r) continue;
      c.push_back(command(plan::Opcode_Copy, limbs(r), {elements(s), 2},
                          rows(kV, firstElement(s) * 2 * uint64_t(share), share),
                          rows(kReceive, offset, share)));
      offset += elements(s) * 2 * uint64_t(share);
    }
  }

  const uint32_t ranks_;
};

}  // namespace

plan::PlanT makeRanksPlan(uint32_t ranks) { return Maker(ranks).make(); }

}  // namespace aegis::test
