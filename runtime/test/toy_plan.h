// A plan with every kind of command, made without the compiler, and toy encryption for it (INSECURE, no real
// randomness): inputs x, y; outputs
//   product   rescale(relinearize(x y))
//   rotated   sum over steps of weight_step * rotate(x, step), from one ModUp, summed before one ModDown
//   affine    2 (x + y) - y + 0.5
#pragma once

#include <complex>
#include <cstdint>
#include <vector>

#include "ckks/encoder.h"
#include "executor/weights.h"
#include "plan/plan_generated.h"

namespace aegis::test {

constexpr uint32_t kToyLogN = 10, kToyLevels = 5, kToySpecials = 2;
constexpr double kToyScale = double(uint64_t(1) << 40);
constexpr uint32_t kToyPeriod = 16;
const std::vector<int32_t> kToySteps = {1, 2, 35};

// One prime of 50 bits, `levels` of 40 bits, `specials` of 50 bits, all 1 mod 2N.
std::vector<uint64_t> toyPrimes(uint32_t logN, uint32_t levels, uint32_t specials);
uint32_t galoisOf(int32_t step, uint32_t logN);  // 5^step mod 2N

plan::PlanT makeToyPlan();
plan::PlanT makeHeldPlan();  // the same, its weights held as coefficients
WeightMap toyWeights();  // "w": one row of kToyPeriod values for each step
std::vector<uint8_t> packPlan(const plan::PlanT& plan);

class ToyCrypto {
 public:
  ToyCrypto(const RingContext& ring, ThreadPool& pool, uint64_t seed);

  const Encoder& encoder() const { return encoder_; }
  // Slots 0..N/2-1 -> [component][limb][N] at a level; and back.
  std::vector<uint64_t> encrypt(const std::vector<std::complex<double>>& slots, uint32_t level, double scale);
  std::vector<std::complex<double>> decrypt(const uint64_t* cipher, uint32_t level, double scale) const;
  // [digit][component][row][N] for Plan.keys[index].
  std::vector<uint64_t> makeKey(const plan::PlanT& plan, uint32_t index);

 private:
  std::vector<uint64_t> small(uint32_t modulus);  // random small polynomial modulo every prime, NTT form
  uint64_t uniform(uint64_t q) { return next() % q; }
  uint64_t next();

  const RingContext& ring_;
  ThreadPool& pool_;
  Encoder encoder_;
  uint64_t state_;
  std::vector<uint64_t> secret_;  // [prime][N]
};

}  // namespace aegis::test
