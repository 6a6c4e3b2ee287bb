// sumRows: out = sum of `count` rows, for the reductions of channels.
//
// Floors: 8 (count + 1) bytes and 7 IMAD a word: bytes bound.
#pragma once

#include "backends/cuda/arithmetic.h"
#include "backends/cuda/batch.h"

namespace aegis::cuda {

struct SumRows {
  const Prime* prime;
  uint64_t* out;
  const uint64_t* const* rows;
  uint64_t count, words;

  template <class Block>
  AEGIS_DEVICE void run(Block& block) const {
    block.phase([&](uint32_t thread) {
      const uint64_t k = uint64_t(block.index) * block.threads + thread;
      if (k >= words) return;
      uint64_t sum = 0;  // below 2^13 residues below 2^50
      for (uint64_t i = 0; i < count; i++) sum += rows[i][k];
      out[k] = reduce(sum, *prime);
    });
  }
};

}  // namespace aegis::cuda
