// What the launches of all ranks on one GPU only read: the ring's tables, keys, plaintexts. Uploaded once
// when a session starts, or kept in pinned memory to be streamed (internal to backends/cuda).
#pragma once

#include <map>
#include <vector>

#include "backends/cuda/batch.h"
#include "backends/cuda/gpu.h"
#include "executor/backend.h"

namespace aegis {

// The rows of a key that the ranks of a GPU hold, in the order of hal/kernels.h.
struct GpuKey {
  KeyView host;                // where they are read from
  std::vector<uint16_t> rows;  // of the whole key, rising
  uint32_t wholeRows = 0;
  const uint64_t* base = nullptr;    // of the device; pinned, if keys are streamed
  const uint16_t* rowOf = nullptr;   // of the device; null: all rows are held
  uint64_t words(uint64_t degree) const { return uint64_t(host.digitCount) * 2 * rows.size() * degree; }
};

// What stays on the host, in pinned memory.
struct Streaming {
  bool keys = false, plaintexts = false;
  bool any() const { return keys || plaintexts; }
};

class Residents {
 public:
  // Nothing is allocated yet. References are kept.
  Residents(const PlanFile& plan, const std::vector<uint32_t>& ranks, const KeyLookup& keys,
            TwiddleForm twiddles);

  struct Bytes {
    uint64_t ring = 0, keys = 0, plaintexts = 0;
    uint64_t total(const Streaming& streaming) const {
      return ring + (streaming.keys ? 0 : keys) + (streaming.plaintexts ? 0 : plaintexts);
    }
  };
  const Bytes& bytes() const { return bytes_; }
  const std::vector<uint32_t>& ranks() const { return ranks_; }
  const std::vector<bool>& usedPlaintexts() const { return used_; }

  // Takes the memory and uploads ring and keys. R501, R408; R401 cancelled.
  void load(const Gpu& gpu, Stager& stager, ThreadPool& pool, const RunOptions& loading,
            const Streaming& streaming);
  // Words first .. first + words - 1 of a plaintext's array.
  void loadPlaintext(Stager& stager, uint32_t plaintext, uint64_t first, const uint64_t* from,
                     uint64_t words);

  const Streaming& streaming() const { return streaming_; }
  uint64_t keyBytes(uint32_t planKey) const {
    return keyOf_.at(planKey)->words(plan_.ring().degree()) * sizeof(uint64_t);
  }
  const cuda::RingView& ring() const { return ring_; }
  const std::vector<EncodedPlaintext>& plaintexts() const { return plaintexts_; }
  // By index into Plan.keys; the view of its digits from `firstDigit` on.
  KeyView key(uint32_t planKey, uint32_t firstDigit) const;

 private:
  void loadRing(const Gpu& gpu, Stager& stager, ThreadPool& pool);
  void loadKeys(Stager& stager, ThreadPool& pool, const RunOptions& loading);

  const PlanFile& plan_;
  const std::vector<uint32_t> ranks_;
  const TwiddleForm twiddles_;
  std::vector<bool> used_;        // plaintexts
  std::vector<bool> transforms_;  // primes of some transform
  std::map<const uint64_t*, GpuKey> keys_;  // by where they lie on the host: entries may share one
  std::map<uint32_t, GpuKey*> keyOf_;       // by index into Plan.keys
  Bytes bytes_;
  Streaming streaming_;
  CudaHandle twiddleRows_, ringTables_, keyRows_, keyPlaces_, plaintextRows_;
  cuda::RingView ring_;
  std::vector<EncodedPlaintext> plaintexts_;
};

}  // namespace aegis
