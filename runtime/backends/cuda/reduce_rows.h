// reduceRows: sums of contiguous rows of several blocks, each modulo its own prime: the reductions of
// channels. With one block, sums of residues that were added as 64-bit words become residues.
//
// Floors: 8 (count + 1) bytes and 7 IMAD a word: bytes bound.
#pragma once

#include "backends/cuda/arithmetic.h"
#include "backends/cuda/batch.h"

namespace aegis::cuda {

constexpr uint32_t kMaxBlocks = 64;  // kMaxRanks of hal/channel.h

// Row i has the prime limbs[(first + i) % limbCount]. The words of a row sum up to less than 2^64.
struct ReduceRowsJob {
  const Prime* primes = nullptr;    // of every prime index, in device memory
  const uint16_t* limbs = nullptr;  // in device memory
  uint32_t limbCount = 0;
  uint32_t logN = 0;
  uint64_t first = 0, rows = 0;
  uint32_t count = 0;  // of blocks
  const uint64_t* blocks[kMaxBlocks] = {};
  uint64_t* out = nullptr;  // may be one of the blocks
};

// Words of a block.
constexpr uint32_t kReduceWords = 4 * kBlockThreads;

inline namespace AEGIS_CUDA_MULTIPLY {

struct ReduceRows {
  ReduceRowsJob job;

  AEGIS_DEVICE static uint32_t piecesOfRow(uint32_t logN) {
    return 1u << logN < kReduceWords ? 1 : (1u << logN) / kReduceWords;
  }

  template <class Block>
  AEGIS_DEVICE void run(Block& block) const {
    block.phase([&](uint32_t thread) {
      const uint32_t n = 1u << job.logN, pieces = piecesOfRow(job.logN);
      const uint64_t row = block.index / pieces;
      const uint32_t begin = block.index % pieces * kReduceWords;
      const uint32_t end = n - begin < kReduceWords ? n : begin + kReduceWords;
      const Prime& prime = job.primes[job.limbs[(job.first + row) % job.limbCount]];
      for (uint32_t k = begin + thread; k < end; k += block.threads) {
        uint64_t sum = 0;
        for (uint32_t b = 0; b < job.count; b++) sum += job.blocks[b][(row << job.logN) + k];
        job.out[(row << job.logN) + k] = reduce(sum, prime);
      }
    });
  }
};

}  // namespace AEGIS_CUDA_MULTIPLY

// Of a grid, which has fewer than 2^31.
inline uint64_t reduceBlocks(const ReduceRowsJob& job) {
  const uint64_t words = uint64_t(1) << job.logN;
  return job.rows * ((words + kReduceWords - 1) / kReduceWords);
}

// One sum of `count` rows of `words` words, a multiple of 16, as rows of 16. `prime` and `limb` (0) lie where
// kernels read them.
inline ReduceRowsJob sumJob(uint64_t* out, const uint64_t* const* rows, size_t count, size_t words,
                            const Prime* prime, const uint16_t* limb) {
  ReduceRowsJob job;
  job.primes = prime;
  job.limbs = limb;
  job.limbCount = 1;
  job.logN = 4;
  job.rows = words >> job.logN;
  job.count = uint32_t(count);
  for (size_t i = 0; i < count; i++) job.blocks[i] = rows[i];
  job.out = out;
  return job;
}

}  // namespace aegis::cuda
