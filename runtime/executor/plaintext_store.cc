#include "executor/plaintext_store.h"

#include <algorithm>
#include <map>
#include <string>

#include "executor/materialize.h"
#include "executor/progress.h"

namespace aegis {
namespace {

constexpr uint64_t kAlignWords = 8;  // a cache line
// Encoded at a time, so that progress and cancellation come through during large arrays.
constexpr uint64_t kPieceWords = uint64_t(1) << 22;

uint64_t elementWords(const plan::Plaintext& p) { return uint64_t(rowsPerElement(p)) * p.row_words(); }

uint64_t pieceElements(const plan::Plaintext& p) {
  return std::max<uint64_t>(1, kPieceWords / elementWords(p));
}

// Plaintexts that read one weight are encoded one after another, so that every weight is loaded once.
std::vector<std::vector<uint32_t>> groupsByWeight(const plan::Plan& plan, const std::vector<bool>& used) {
  std::vector<std::vector<uint32_t>> groups(1);  // the first one reads no weight
  std::map<std::string, size_t> groupOf{{"", 0}};
  for (uint32_t i = 0; i < plan.plaintexts()->size(); i++) {
    if (!used[i]) continue;
    const auto [entry, isNew] =
        groupOf.emplace(Materializer::weightName(*plan.plaintexts()->Get(i)), groups.size());
    if (isNew) groups.emplace_back();
    groups[entry->second].push_back(i);
  }
  return groups;
}

// In the memory of a store.
class StoreSink final : public PlaintextSink {
 public:
  explicit StoreSink(const std::vector<uint64_t*>& arrays) : arrays_(arrays) {}
  uint64_t* room(uint32_t plaintext, uint64_t first, uint64_t) override { return arrays_[plaintext] + first; }
  void written(uint32_t, uint64_t, uint64_t) override {}

 private:
  const std::vector<uint64_t*>& arrays_;
};

}  // namespace

std::vector<bool> plaintextsOf(const PlanFile& file, const std::vector<uint32_t>& ranks) {
  std::vector<bool> used(file.plan().plaintexts()->size(), false);
  for (const uint32_t rank : ranks)
    for (const uint32_t i : file.programs()[rank].plaintexts) used[i] = true;
  return used;
}

uint64_t plaintextWords(const plan::Plaintext& p) {
  return (p.elements() * elementWords(p) + kAlignWords - 1) / kAlignWords * kAlignWords;
}

uint64_t largestPlaintextPiece(const PlanFile& file, const std::vector<bool>& used) {
  uint64_t words = 0;
  for (uint32_t i = 0; i < used.size(); i++) {
    const plan::Plaintext& p = *file.plan().plaintexts()->Get(i);
    if (used[i])
      words = std::max(words, elementWords(p) * std::min<uint64_t>(pieceElements(p), p.elements()));
  }
  return words;
}

void encodePlaintexts(const PlanFile& file, const std::vector<bool>& used, const Weights& weights,
                      ThreadPool& pool, const RunOptions& options, PlaintextSink& sink) {
  const plan::Plan& plan = file.plan();
  uint64_t total = 0;
  for (uint32_t i = 0; i < used.size(); i++)
    if (used[i]) total += plaintextWords(*plan.plaintexts()->Get(i));
  const Encoder encoder(file.ring(), pool);
  ProgressMeter meter(options, total);
  for (const std::vector<uint32_t>& group : groupsByWeight(plan, used)) {
    if (group.empty()) continue;
    const std::string name = Materializer::weightName(*plan.plaintexts()->Get(group[0]));
    const std::shared_ptr<const WeightTensor> weight = name.empty() ? nullptr : weights.load(name);
    for (const uint32_t i : group) {
      const plan::Plaintext& p = *plan.plaintexts()->Get(i);
      const Materializer materializer(file, encoder, i, weight.get());
      const uint64_t words = elementWords(p), round = pieceElements(p);
      for (uint64_t first = 0; first < p.elements(); first += round) {
        const uint64_t count = std::min<uint64_t>(round, p.elements() - first);
        meter.step(0, name);
        uint64_t* const to = sink.room(i, first * words, count * words);
        pool.parallelFor(count, 1 + count / (16 * pool.threadCount()), [&](size_t begin, size_t end) {
          for (uint64_t e = begin; e < end; e++) materializer.encode(uint32_t(first + e), to + e * words);
        });
        sink.written(i, first * words, count * words);
        meter.step(count * words, name);
      }
    }
  }
}

PlaintextStore::PlaintextStore(const PlanFile& file, const std::vector<uint32_t>& ranks,
                               const Weights& weights, ThreadPool& pool, const RunOptions& options) {
  const plan::Plan& plan = file.plan();
  const std::vector<bool> used = plaintextsOf(file, ranks);
  uint64_t total = 0;
  for (uint32_t i = 0; i < used.size(); i++)
    if (used[i]) total += plaintextWords(*plan.plaintexts()->Get(i));
  memory_ = WordBlock(total);
  std::vector<uint64_t*> arrays;
  uint64_t* next = memory_.data();
  for (uint32_t i = 0; i < used.size(); i++) {
    const plan::Plaintext& p = *plan.plaintexts()->Get(i);
    arrays.push_back(used[i] ? next : nullptr);
    plaintexts_.push_back({arrays.back(), p.row_words(), p.coefficients()});
    if (used[i]) next += plaintextWords(p);
  }
  StoreSink sink(arrays);
  encodePlaintexts(file, used, weights, pool, options, sink);
}

}  // namespace aegis
