// Plaintexts held as coefficients (hal/kernels.h, PlainRows), made residues in NTT form ahead of the kernel
// that reads them: every row once for a launch and limb, however many outputs and pieces use it. Included by
// driver.h only.
#pragma once

#include <algorithm>
#include <vector>

#include "backends/cpu/batch.h"
#include "backends/cpu/row_ops.h"
#include "ckks/ring.h"
#include "ckks/subring_ntt.h"
#include "hal/thread_pool.h"

namespace aegis::cpu {

// Words expanded at a time, of several limbs where one has fewer: half of a second-level cache of 2 MiB.
constexpr size_t kExpandedWords = 1 << 17;
// Shorter rows than the transforms of RowOps take.
constexpr uint32_t kShortRow = 1u << kMinLogN;

class PlainExpander {
 public:
  PlainExpander(const RowOps& ops, const RingContext& ring, const Launch& launch, const PlainRows& plain)
      : ops_(ops), ring_(ring), launch_(launch), plain_(plain) {
    Launch distinct = launch;  // a dimension of stride 0 reads the same rows again
    distinct.reduceRank = 0;
    rows_.rowWords = plain.rowWords;
    ptrdiff_t extent = plain.rowWords;
    for (uint32_t d = launch.rank; d-- > 0;) {
      if (plain.strides[d] == 0) distinct.dims[d] = 1;
      else rows_.strides[d] = extent;
      extent *= distinct.dims[d];
    }
    rows_.limbStride = extent;
    sources_ = outerOffsets(distinct, plain.strides);
  }

  // run(launch of some limbs, index of the first of them, their plaintext rows), limbs in order.
  template <class Run>
  void forEachPart(ThreadPool& pool, const Run& run) {
    const size_t words = std::max<size_t>(1, size_t(rows_.limbStride));
    const uint32_t together =
        uint32_t(std::clamp<size_t>(kExpandedWords / words, 1, std::max(1u, launch_.limbCount)));
    thread_local std::vector<uint64_t> scratch;  // of the thread that launches; the pool's write to it
    if (scratch.size() < words * together) scratch.resize(words * together);
    uint64_t* const to = scratch.data();
    rows_.base = to;
    for (uint32_t first = 0; first < launch_.limbCount; first += together) {
      Launch part = launch_;
      part.limbs += first;
      part.limbCount = std::min(together, launch_.limbCount - first);
      expand(pool, part, to);
      run(part, first, rows_);
    }
  }

 private:
  void expand(ThreadPool& pool, const Launch& part, uint64_t* to) const {
    const size_t count = sources_.size(), words = plain_.rowWords;
    const uint32_t log = uint32_t(__builtin_ctz(plain_.rowWords));
    const size_t grain = std::max<size_t>(1, kGrainWords / (words * (log + 1)));
    std::vector<NttTable> tables;
    for (uint32_t j = 0; j < part.limbCount; j++) {
      tables.push_back(ring_.nttTable(part.limbs[j], form()));
      tables.back().logN = log;  // the subring's twiddles are the first ones (subring_ntt.h)
    }
    pool.parallelFor(count * part.limbCount, grain, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; i++)
        expandRow(to + i * words, plain_.base + sources_[i % count], tables[i / count]);
    });
  }

  void expandRow(uint64_t* to, const uint64_t* from, const NttTable& table) const {
    const Prime& prime = table.prime;
    // Weights at their usual scales are below the primes.
    const bool small = ops_.signedWords(to, from, plain_.rowWords, prime);
    for (uint32_t k = 0; !small && k < plain_.rowWords; k++) {
      const bool negative = from[k] >> 63;
      const uint64_t residue = reduce64(negative ? -from[k] : from[k], prime);
      to[k] = negative && residue != 0 ? prime.q - residue : residue;
    }
    if (plain_.rowWords < kShortRow) subringNtt(to, plain_.rowWords, table);
    else ops_.ntt(to, to, to, table);
  }

  TwiddleForm form() const { return plain_.rowWords < kShortRow ? TwiddleForm::kShoup64 : ops_.twiddles; }

  const RowOps& ops_;
  const RingContext& ring_;
  const Launch& launch_;
  const PlainRows& plain_;
  PlainRows rows_;                  // dense [limb][distinct row][rowWords]
  std::vector<ptrdiff_t> sources_;  // of the distinct rows
};

}  // namespace aegis::cpu
