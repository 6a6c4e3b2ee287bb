// The plaintexts of some ranks, encoded once when a session starts and resident until it ends.
#pragma once

#include <vector>

#include "ckks/encoder.h"
#include "executor/memory.h"
#include "executor/run_types.h"
#include "executor/weights.h"
#include "hal/device.h"
#include "plan/plan_file.h"

namespace aegis {

// Which of Plan.plaintexts these ranks name.
std::vector<bool> plaintextsOf(const PlanFile& file, const std::vector<uint32_t>& ranks);
// Of a plaintext's array, with what keeps the next one aligned.
uint64_t plaintextWords(const plan::Plaintext& p);

// Where encoded plaintexts go.
class PlaintextSink {
 public:
  virtual ~PlaintextSink() = default;
  // Host memory for words first .. first + words - 1 of a plaintext's array; written() follows.
  virtual uint64_t* room(uint32_t plaintext, uint64_t first, uint64_t words) = 0;
  virtual void written(uint32_t plaintext, uint64_t first, uint64_t words) = 0;
};

// Every array in order, in pieces of 32 MiB or one element if that is more. R223 weights that do not fit,
// R402 values that cannot be encoded, R401 cancelled.
void encodePlaintexts(const PlanFile& file, const std::vector<bool>& used, const Weights& weights,
                      ThreadPool& pool, const RunOptions& options, PlaintextSink& sink);
// The words of the largest piece.
uint64_t largestPlaintextPiece(const PlanFile& file, const std::vector<bool>& used);

// In the memory of the host.
class PlaintextStore {
 public:
  // Errors of encodePlaintexts; R501.
  PlaintextStore(const PlanFile& file, const std::vector<uint32_t>& ranks, const Weights& weights,
                 ThreadPool& pool, const RunOptions& options);
  const std::vector<EncodedPlaintext>& plaintexts() const { return plaintexts_; }
  uint64_t bytes() const { return memory_.bytes(); }

 private:
  WordBlock memory_;
  std::vector<EncodedPlaintext> plaintexts_;
};

}  // namespace aegis
