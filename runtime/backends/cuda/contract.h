// contract: out (+)= sum a * p, pointwise; p residues with one word for 2^shift words of a.
//
// Floors of one output row with T terms: (4 T + 17) N IMAD. Bytes if nothing is shared: 8 N (T + 1) + 8 T
// c, c the plaintext's period; with J outer rows that read the same a (stride 0), 8 N (T / J + 1) of them
// from memory and the rest from the second-level cache, where blocks of one piece meet. At T = 64, J = 48,
// N = 2^16 on an H100: operations 1.2 us, memory 0.4 us a row.
#pragma once

#include "backends/cuda/reduction.h"

namespace aegis::cuda {

struct ContractTerms {
  static constexpr uint32_t kOutputs = 1;
  struct Entry {
    const uint64_t *a, *plain;
  };
  Rows a;
  PlainRows plain;  // residues
  uint32_t shift;

  AEGIS_DEVICE Entry entry(const RingView&, const Launch& launch, const Cut& cut, const Place& place,
                           uint32_t reduced) const {
    return {rowOf(launch, cut, a, place, reduced), rowOf(launch, cut, plain, place, reduced)};
  }
  AEGIS_DEVICE void add(const RingView&, Wide* sums, const Entry& entry, uint32_t k) const {
    sums[0].addProduct(entry.a[k], entry.plain[k >> shift]);
  }
};

using Contract = Reduction<ContractTerms>;

}  // namespace aegis::cuda
