// copy: out (+)= sum a.
//
// Floors of one output row with T summed rows: 8 N (T + 1) bytes, 8 N more with accumulate; 17 N IMAD for
// the reductions: bytes bound.
#pragma once

#include "backends/cuda/reduction.h"

namespace aegis::cuda {
inline namespace AEGIS_CUDA_MULTIPLY {

struct CopyTerms {
  static constexpr uint32_t kOutputs = 1;
  struct Entry {
    const uint64_t* a;
  };
  Rows a;

  AEGIS_DEVICE Entry entry(const RingView&, const Launch& launch, const Cut& cut, const Place& place,
                           uint32_t reduced) const {
    return {rowOf(launch, cut, a, place, reduced)};
  }
  AEGIS_DEVICE void add(const RingView&, Wide* sums, const Entry& entry, uint32_t k) const {
    sums[0].add(entry.a[k]);
  }
};

using Copy = Reduction<CopyTerms>;

}  // namespace AEGIS_CUDA_MULTIPLY
}  // namespace aegis::cuda
