// Runs CUDA kernel bodies on the host: blocks on the threads of a pool, the threads of a block one after
// another, phase by phase. What a missing barrier would leave to chance shows here: odd blocks run their
// threads from the last to the first, and shared memory starts as garbage.
#pragma once

#include <algorithm>
#include <vector>

#include "backends/cuda/block.h"
#include "hal/thread_pool.h"
#include "support/error.h"

namespace aegis::cuda {

struct EmulatedBlock {
  uint32_t index, threads;
  uint64_t* shared;

  template <class Phase>
  void phase(const Phase& run) const {
    if (index % 2 == 0) {
      for (uint32_t thread = 0; thread < threads; thread++) run(thread);
    } else {
      for (uint32_t thread = threads; thread-- > 0;) run(thread);
    }
  }

  template <class Value>
  class PerThread {
   public:
    explicit PerThread(const EmulatedBlock& block) : values_(block.threads) {}
    Value& operator[](uint32_t thread) { return values_[thread]; }

   private:
    std::vector<Value> values_;
  };
};

class EmulatedLauncher {
 public:
  explicit EmulatedLauncher(ThreadPool& pool) : pool_(pool) {}

  template <class Kernel>
  void start(const Kernel& kernel, uint32_t blocks, uint32_t threads, uint32_t sharedWords) {
    AEGIS_INVARIANT(threads != 0 && threads <= kBlockThreads && sharedWords <= kSharedWords);
    pool_.parallelFor(blocks, 1, [&](size_t begin, size_t end) {
      std::vector<uint64_t> shared(sharedWords);
      for (size_t i = begin; i < end; i++) {
        std::fill(shared.begin(), shared.end(), 0xa5a5a5a5a5a5a5a5);
        EmulatedBlock block{uint32_t(i), threads, shared.data()};
        kernel.run(block);
      }
    });
  }

 private:
  ThreadPool& pool_;
};

}  // namespace aegis::cuda
