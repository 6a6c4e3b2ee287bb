// keyProduct: out_c (+)= sum over digits d and reduced dimensions of digits[d] * key[d][c], both
// components in one pass over the digits.
//
// Floors of one output (two rows) with T terms of D digits: (8 T D + 34) N IMAD; 8 N (3 T D + 2) bytes, 8
// N (T D + 2) if the key stays in the second-level cache for a batch. At T = 1, D = 4, N = 2^16 on an
// H100: operations 0.3 us, memory 2.2 us a limb.
#pragma once

#include "backends/cuda/reduction.h"

namespace aegis::cuda {

struct KeyProductTerms {
  static constexpr uint32_t kOutputs = 2;
  struct Entry {
    const uint64_t *digits, *key;
    uint64_t componentWords;  // between the components of the key; between digits twice as many
  };
  Rows digits;
  uint32_t digitCount;
  const KeyView* keys;
  uint32_t keyDim;
  const uint16_t* keyRows;

  AEGIS_DEVICE Entry entry(const RingView& ring, const Launch& launch, const Cut& cut, const Place& place,
                           uint32_t reduced) const {
    const KeyView& key = keys[indexAlong(launch, cut.outerRank, keyDim, place.outer, reduced)];
    const uint16_t wholeRow = keyRows[place.limb];
    const uint64_t row = key.rowOf == nullptr ? wholeRow : key.rowOf[wholeRow];
    return {rowOf(launch, cut, digits, place, reduced), key.base + (row << ring.logN),
            uint64_t(key.rowCount) << ring.logN};
  }
  AEGIS_DEVICE void add(const RingView&, Wide* sums, const Entry& entry, uint32_t k) const {
    const uint64_t *digit = entry.digits + k, *key = entry.key + k;
    for (uint32_t d = 0; d < digitCount; d++) {
      const uint64_t x = *digit;
      sums[0].addProduct(x, key[0]);
      sums[1].addProduct(x, key[entry.componentWords]);
      digit += digits.componentStride;
      key += 2 * entry.componentWords;
    }
  }
};

using KeyProduct = Reduction<KeyProductTerms>;

}  // namespace aegis::cuda
