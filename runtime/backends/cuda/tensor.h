// tensor: (out0, out1, out2) (+)= sum (a0 b0, a0 b1 + a1 b0, a1 b1).
//
// Floors of one output (three rows) with T terms: (16 T + 51) N IMAD; 8 N (4 T + 3) bytes, 2 T fewer for
// squares: bytes bound on an H100 (T = 1: 1.1 us against 0.3 us at N = 2^16).
#pragma once

#include "backends/cuda/reduction.h"

namespace aegis::cuda {
inline namespace AEGIS_CUDA_MULTIPLY {

struct TensorTerms {
  static constexpr uint32_t kOutputs = 3;
  struct Entry {
    const uint64_t *a, *b;
  };
  Rows a, b;

  AEGIS_DEVICE Entry entry(const RingView&, const Launch& launch, const Cut& cut, const Place& place,
                           uint32_t reduced) const {
    return {rowOf(launch, cut, a, place, reduced), rowOf(launch, cut, b, place, reduced)};
  }
  AEGIS_DEVICE void add(const RingView&, Wide* sums, const Entry& entry, uint32_t k) const {
    const uint64_t a0 = entry.a[k], a1 = entry.a[a.componentStride + k];
    const uint64_t b0 = entry.b[k], b1 = entry.b[b.componentStride + k];
    sums[0].addProduct(a0, b0);
    sums[1].addProduct(a0, b1);
    sums[1].addProduct(a1, b0);
    sums[2].addProduct(a1, b1);
  }
};

using Tensor = Reduction<TensorTerms>;

}  // namespace AEGIS_CUDA_MULTIPLY
}  // namespace aegis::cuda
