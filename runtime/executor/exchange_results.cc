#include "executor/exchange_results.h"

#include <algorithm>
#include <cstring>

#include "support/error.h"

namespace aegis {
namespace {

// The rows of an output that are taken from each rank: those that no earlier rank holds.
class Sources {
 public:
  Sources(const PlanFile& plan, uint32_t output)
      : plan_(plan), output_(output), limbCount_(plan.plan().outputs()->Get(output)->level() + 1u),
        taken_(size_t(plan.plan().outputs()->Get(output)->elements()) * 2 * limbCount_, false) {}

  // Rows of the part, to be asked for rank by rank.
  std::vector<size_t> next(uint32_t rank) {
    const PortPartSpec& part = plan_.programs()[rank].outputs[output_];
    std::vector<size_t> rows;
    for (size_t row = 0; row < part.elements.size() * 2 * part.limbs.size(); row++) {
      const size_t at = portRow(part, limbCount_, row);
      if (!taken_[at]) rows.push_back(row);
      taken_[at] = true;
    }
    return rows;
  }
  size_t place(uint32_t rank, size_t row) const {
    return portRow(plan_.programs()[rank].outputs[output_], limbCount_, row);
  }
  uint32_t limbCount() const { return limbCount_; }

 private:
  const PlanFile& plan_;
  const uint32_t output_, limbCount_;
  std::vector<bool> taken_;
};

// Statistics as words; times as bits of doubles.
class Words {
 public:
  std::vector<uint64_t> words;
  size_t at = 0;
  template <class T>
  void pass(T& value, bool writes) {
    static_assert(sizeof(T) <= sizeof(uint64_t));
    uint64_t word = 0;
    if (writes) {
      std::memcpy(&word, &value, sizeof value);
      words.push_back(word);
    } else {
      AEGIS_INVARIANT(at < words.size());
      word = words[at++];
      std::memcpy(&value, &word, sizeof value);
    }
  }
};

// Both sides know how many nodes and collectives there are.
void passStatistics(Words& w, RankStatistics& s, bool writes) {
  w.pass(s.seconds, writes);
  w.pass(s.computeSeconds, writes);
  w.pass(s.waitSeconds, writes);
  w.pass(s.staticBytes, writes);
  w.pass(s.arenaBytes, writes);
  for (double& seconds : s.nodeSeconds) w.pass(seconds, writes);
  for (OpcodeStatistics& op : s.opcodes) {
    w.pass(op.seconds, writes);
    w.pass(op.launches, writes);
    w.pass(op.rowBytes, writes);
  }
  for (CollectiveStatistics& c : s.collectives) {
    w.pass(c.id, writes);
    w.pass(c.executions, writes);
    w.pass(c.predictedBytes, writes);
    w.pass(c.receivedBytes, writes);
    w.pass(c.waitSeconds, writes);
  }
}

RankStatistics emptyStatistics(const PlanFile& plan, uint32_t rank) {
  RankStatistics statistics;
  statistics.rank = rank;
  statistics.nodeSeconds.assign(plan.plan().locations()->size(), 0);
  for (const Collective& collective : plan.collectives())
    if (collective.indexOf(rank) != ~0u) statistics.collectives.emplace_back();
  return statistics;
}

Rank* ownRank(const std::vector<Rank*>& ranks, uint32_t rank) {
  for (Rank* one : ranks)
    if (one->rank() == rank) return one;
  return nullptr;
}

// The sending side: rows of every output that the root takes from this rank, then what it measured.
void sendToRoot(const PlanFile& plan, Transport& transport, Rank& rank, RankStatistics& statistics) {
  const size_t n = plan.ring().degree();
  for (uint32_t i = 0; i < plan.plan().outputs()->size(); i++) {
    Sources sources(plan, i);
    for (uint32_t earlier = 0; earlier < rank.rank(); earlier++) sources.next(earlier);
    const std::vector<size_t> rows = sources.next(rank.rank());
    const uint64_t* part = rank.argument(rank.program().outputs[i].buffer);
    std::vector<uint64_t> packed(rows.size() * n);
    rank.device().readRows(part, rows, [&](size_t k) { return packed.data() + k * n; });
    if (!packed.empty()) transport.send(0, packed.data(), packed.size() * sizeof(uint64_t));
  }
  Words w;
  passStatistics(w, statistics, true);
  transport.send(0, w.words.data(), w.words.size() * sizeof(uint64_t));
}

void receiveRows(const PlanFile& plan, Transport& transport, uint32_t rank, const std::vector<size_t>& rows,
                 const Sources& sources, std::vector<uint64_t>& data) {
  const size_t n = plan.ring().degree();
  std::vector<uint64_t> packed(rows.size() * n);
  if (!packed.empty()) transport.receive(rank, packed.data(), packed.size() * sizeof(uint64_t));
  for (size_t k = 0; k < rows.size(); k++)
    std::memcpy(data.data() + sources.place(rank, rows[k]) * n, packed.data() + k * n, n * sizeof(uint64_t));
}

}  // namespace

void gatherResults(const PlanFile& plan, Transport& transport, const std::vector<Rank*>& ranks,
                   RunResult& result) {
  if (ownRank(ranks, 0) == nullptr) {
    for (size_t i = 0; i < ranks.size(); i++) sendToRoot(plan, transport, *ranks[i], result.ranks[i]);
    return;
  }
  const size_t n = plan.ring().degree();
  std::vector<Sources> sources;
  for (uint32_t i = 0; i < plan.plan().outputs()->size(); i++) {
    const plan::Port& port = *plan.plan().outputs()->Get(i);
    sources.emplace_back(plan, i);
    result.outputs.push_back({port.elements(), sources[i].limbCount(), {}});
    result.outputs[i].data.resize(size_t(port.elements()) * 2 * sources[i].limbCount() * n);
  }
  std::vector<RankStatistics> all;
  for (uint32_t rank = 0; rank < plan.programs().size(); rank++) {
    Rank* const own = ownRank(ranks, rank);
    for (uint32_t i = 0; i < sources.size(); i++) {
      const std::vector<size_t> rows = sources[i].next(rank);
      std::vector<uint64_t>& data = result.outputs[i].data;
      if (own == nullptr) {
        receiveRows(plan, transport, rank, rows, sources[i], data);
        continue;
      }
      const uint64_t* part = own->argument(own->program().outputs[i].buffer);
      own->device().readRows(part, rows,
                             [&](size_t k) { return data.data() + sources[i].place(rank, rows[k]) * n; });
    }
    if (own != nullptr) {
      for (RankStatistics& statistics : result.ranks)
        if (statistics.rank == rank) all.push_back(std::move(statistics));
      continue;
    }
    RankStatistics statistics = emptyStatistics(plan, rank);
    Words w, size;
    passStatistics(size, statistics, true);
    w.words.resize(size.words.size());
    transport.receive(rank, w.words.data(), w.words.size() * sizeof(uint64_t));
    passStatistics(w, statistics, false);
    all.push_back(std::move(statistics));
  }
  result.ranks = std::move(all);
}

}  // namespace aegis
