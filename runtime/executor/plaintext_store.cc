#include "executor/plaintext_store.h"

#include <algorithm>
#include <map>
#include <string>

#include "executor/materialize.h"
#include "executor/progress.h"

namespace aegis {
namespace {

constexpr uint64_t kAlignWords = 8;  // a cache line

uint64_t elementWords(const plan::Plaintext& p) { return uint64_t(rowsPerElement(p)) * p.row_words(); }

uint64_t arrayWords(const plan::Plaintext& p) {
  return (p.elements() * elementWords(p) + kAlignWords - 1) / kAlignWords * kAlignWords;
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

}  // namespace

PlaintextStore::PlaintextStore(const PlanFile& file, const std::vector<uint32_t>& ranks,
                               const Weights& weights, ThreadPool& pool, const RunOptions& options) {
  const plan::Plan& plan = file.plan();
  std::vector<bool> used(plan.plaintexts()->size(), false);
  for (const uint32_t rank : ranks)
    for (const uint32_t i : file.programs()[rank].plaintexts) used[i] = true;
  uint64_t total = 0;
  for (uint32_t i = 0; i < used.size(); i++)
    if (used[i]) total += arrayWords(*plan.plaintexts()->Get(i));
  memory_ = WordBlock(total);
  uint64_t* next = memory_.data();
  for (uint32_t i = 0; i < used.size(); i++) {
    const plan::Plaintext& p = *plan.plaintexts()->Get(i);
    plaintexts_.push_back({used[i] ? next : nullptr, p.row_words(), p.coefficients()});
    if (used[i]) next += arrayWords(p);
  }

  const Encoder encoder(file.ring(), pool);
  ProgressMeter meter(options, total);
  for (const std::vector<uint32_t>& group : groupsByWeight(plan, used)) {
    if (group.empty()) continue;
    const std::string name = Materializer::weightName(*plan.plaintexts()->Get(group[0]));
    const std::shared_ptr<const WeightTensor> weight = name.empty() ? nullptr : weights.load(name);
    for (const uint32_t i : group) {
      const plan::Plaintext& p = *plan.plaintexts()->Get(i);
      const Materializer materializer(file, encoder, i, weight.get());
      uint64_t* const base = memory_.data() + (plaintexts_[i].base - memory_.data());
      // In rounds, so that progress and cancellation come through during large arrays.
      const uint64_t words = elementWords(p), round = std::max<uint64_t>(1, (uint64_t(1) << 22) / words);
      for (uint64_t first = 0; first < p.elements(); first += round) {
        const uint64_t count = std::min<uint64_t>(round, p.elements() - first);
        meter.step(0, name);
        pool.parallelFor(count, 1 + count / (16 * pool.threadCount()), [&](size_t begin, size_t end) {
          for (uint64_t e = first + begin; e < first + end; e++)
            materializer.encode(uint32_t(e), base + e * words);
        });
        meter.step(count * words, name);
      }
    }
  }
}

}  // namespace aegis
