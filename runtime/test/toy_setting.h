// The toy plans with keys and inputs, ready for a session.
#pragma once

#include <cmath>
#include <random>

#include "executor/session.h"
#include "test/toy_plan.h"
#include "test/toy_ranks.h"

namespace aegis::test {

struct ToySetting {
  using Complex = std::complex<double>;

  std::shared_ptr<const PlanFile> plan;
  WeightMap weights = toyWeights();
  ThreadPool pool{2};
  std::unique_ptr<ToyCrypto> crypto;
  std::vector<std::vector<uint64_t>> keys;
  std::vector<Complex> x, y;
  std::vector<CiphertextArray> inputs;

  explicit ToySetting(const plan::PlanT& plain = makeToyPlan()) {
    plan = std::make_shared<const PlanFile>(PlanFile::fromBytes(packPlan(plain)));
    crypto = std::make_unique<ToyCrypto>(plan->ring(), pool, 7);
    for (uint32_t i = 0; i < plain.keys.size(); i++) keys.push_back(crypto->makeKey(plain, i));
    for (uint32_t i = 0; i < plan->ring().degree() / 2; i++) {
      x.emplace_back(std::sin(0.1 * i), 0);
      y.emplace_back(std::cos(0.37 * i), 0);
    }
    for (const auto* values : {&x, &y})
      inputs.push_back({1, kToyLevels + 1, crypto->encrypt(*values, kToyLevels, kToyScale)});
  }
  KeySource keySource() const {
    uint64_t bytes = 0;
    for (const auto& key : keys) bytes += key.size() * sizeof(uint64_t);
    return {[this](uint32_t i) { return KeyView{keys[i].data(), 3, kToyLevels + 1 + kToySpecials}; }, bytes};
  }
};

// Random keys and inputs: sums and products do not mind.
struct RanksSetting {
  std::shared_ptr<const PlanFile> plan;
  std::vector<uint64_t> key;
  std::vector<CiphertextArray> inputs;

  explicit RanksSetting(uint32_t ranks) {
    plan = std::make_shared<const PlanFile>(PlanFile::fromBytes(packPlan(makeRanksPlan(ranks))));
    const RingContext& ring = plan->ring();
    std::mt19937_64 engine(17);
    const size_t n = ring.degree(), limbs = kToyLevels + 1, rows = limbs + kToySpecials;
    for (size_t row = 0; row < 3 * 2 * rows; row++) {
      const size_t r = row % rows, limb = r < kToySpecials ? limbs + r : r - kToySpecials;
      for (size_t k = 0; k < n; k++) key.push_back(engine() % ring.modulus(uint32_t(limb)));
    }
    inputs.push_back({kRanksElements, uint32_t(limbs), {}});
    for (size_t row = 0; row < kRanksElements * 2 * limbs; row++)
      for (size_t k = 0; k < n; k++) inputs[0].data.push_back(engine() % ring.modulus(uint32_t(row % limbs)));
  }
  KeySource wholeKeys() const {
    return {[this](uint32_t) { return KeyView{key.data(), 3, kToyLevels + 1 + kToySpecials}; },
            key.size() * 8};
  }
};

}  // namespace aegis::test
