// A small INSECURE plan for tests of the client and of the readers: logN 10, every kind of key in two
// classes, input "x" [2, 40] in two ciphertexts, outputs "y" = 2 x + w and "z" = 3 x.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "plan/plan_generated.h"

namespace aegis::test {

struct FixtureOptions {
  uint32_t logN = 10;
  bool insecure = true;
  bool wideSparseKey = false;  // two special primes for the key to the sparse secret: 150 bits
  bool highSparseKey = false;  // that key at level 1: 140 bits
  double bound = 0;            // of the input
  double outputBound = 0, outputError = 0;  // as a plan predicts them
};

constexpr uint32_t kFixtureTokens = 2, kFixtureFeatures = 40;

struct Fixture {
  std::vector<uint8_t> plan;
  std::vector<uint8_t> weights;  // its weights file
  const plan::Plan& root() const { return *plan::GetPlan(plan.data()); }
};

double fixtureWeight(uint32_t feature);
Fixture makeFixture(const FixtureOptions& options = {});

}  // namespace aegis::test
