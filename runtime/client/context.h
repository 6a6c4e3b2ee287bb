// What all of the client shares: checked parameters, the ring, threads, kernels, the encoder.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "ckks/encoder.h"
#include "ckks/ring.h"
#include "client/parameters.h"
#include "client/secret_memory.h"
#include "hal/kernels.h"
#include "hal/thread_pool.h"

namespace aegis {

// How a long call reports and is stopped. `report` may be called from the calling thread only.
struct Progress {
  std::function<void(const std::string& phase, uint64_t done, uint64_t total)> report;
  const std::atomic<bool>* cancelled = nullptr;
  // Something that the user should know at once. From any thread.
  std::function<void(const std::string& code, const std::string& message)> warn;

  void warning(const char* code, const std::string& message) const {
    if (warn) warn(code, message);
  }
  void step(const char* phase, uint64_t done, uint64_t total) const;  // R401 once cancelled
};

class CryptoContext {
 public:
  CryptoContext(const plan::Plan& plan, uint32_t threads);

  ClientParameters parameters;
  RingContext ring;
  ThreadPool pool;
  const KernelTable& kernels;
  Encoder encoder;

  uint32_t degree() const { return ring.degree(); }
  std::vector<uint16_t> levelLimbs(uint32_t level) const;  // 0..level
  std::vector<uint16_t> allLimbs() const;                  // special primes included

  // A small polynomial modulo each limb in NTT form: limbs.size() rows of N words.
  void smallToNtt(const SmallPolynomial& small, const std::vector<uint16_t>& limbs, uint64_t* rows);
};

// a b mod q, canonical. Rows of `count` words.
void multiplyRow(const uint64_t* a, const uint64_t* b, uint64_t* out, size_t count, const Prime& prime);
// out += a b
void multiplyAddRow(const uint64_t* a, const uint64_t* b, uint64_t* out, size_t count, const Prime& prime);
// True if every word is below q.
bool isCanonicalRow(const uint64_t* row, size_t count, uint64_t q);

}  // namespace aegis
