// The plaintexts of some ranks, encoded once when a session starts and resident until it ends.
#pragma once

#include <vector>

#include "ckks/encoder.h"
#include "executor/memory.h"
#include "executor/run_types.h"
#include "executor/weights.h"
#include "plan/plan_file.h"

namespace aegis {

struct EncodedPlaintext {
  const uint64_t* base = nullptr;  // [elements][limbs][rowWords]; coefficients: [elements][rowWords]
  uint32_t rowWords = 0;
  bool coefficients = false;
};

class PlaintextStore {
 public:
  // What these ranks name. R223 weights that do not fit, R402 values that cannot be encoded, R401 cancelled.
  PlaintextStore(const PlanFile& file, const std::vector<uint32_t>& ranks, const Weights& weights,
                 ThreadPool& pool, const RunOptions& options);
  const EncodedPlaintext& operator[](uint32_t plaintext) const { return plaintexts_[plaintext]; }
  uint64_t bytes() const { return memory_.bytes(); }

 private:
  WordBlock memory_;
  std::vector<EncodedPlaintext> plaintexts_;
};

}  // namespace aegis
