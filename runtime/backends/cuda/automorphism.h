// automorphism: out[k] (+)= sum a[perm_g(k)], perm_g(k) = brv((g (2 brv(k) + 1) mod 2N - 1) / 2),
// computed, not read from a table: one multiplication and two bit reversals.
//
// Floors of one output row with T terms: (T + 17) N IMAD; 8 N (T + 1) bytes. Aligned groups of 8 words
// come from aligned groups of 8 (their exponents agree modulo 2N / 8), so whole sectors of 32 bytes are
// used.
#pragma once

#include "backends/cuda/reduction.h"

namespace aegis::cuda {
inline namespace AEGIS_CUDA_MULTIPLY {

struct AutomorphismTerms {
  static constexpr uint32_t kOutputs = 1;
  struct Entry {
    const uint64_t* a;
    uint64_t galois;
  };
  Rows a;
  const uint32_t* galois;
  uint32_t galoisDim;

  AEGIS_DEVICE Entry entry(const RingView&, const Launch& launch, const Cut& cut, const Place& place,
                           uint32_t reduced) const {
    return {rowOf(launch, cut, a, place, reduced),
            galois[indexAlong(launch, cut.outerRank, galoisDim, place.outer, reduced)]};
  }
  // 32-bit wrap is exact: 2N divides 2^32.
  AEGIS_DEVICE void add(const RingView& ring, Wide* sums, const Entry& entry, uint32_t k) const {
    const uint32_t exponent = uint32_t(entry.galois) * (2 * reverseBits(k, ring.logN) + 1);
    const uint32_t index = exponent >> 1 & ((1u << ring.logN) - 1);
    sums[0].add(entry.a[reverseBits(index, ring.logN)]);
  }
};

using Automorphism = Reduction<AutomorphismTerms>;

}  // namespace AEGIS_CUDA_MULTIPLY
}  // namespace aegis::cuda
