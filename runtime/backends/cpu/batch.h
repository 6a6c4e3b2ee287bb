// Index arithmetic of strided batches (hal/kernels.h): flat index over some batch dimensions -> offset in
// words.
#pragma once

#include <vector>

#include "hal/kernels.h"

namespace aegis::cpu {

// Words of work handed to a thread at a time: some 10 us, against about 2 us to hand out a range.
constexpr size_t kGrainWords = 1 << 15;

inline uint32_t outerRank(const Launch& launch) { return launch.rank - launch.reduceRank; }

inline size_t dimsProduct(const Launch& launch, uint32_t begin, uint32_t end) {
  size_t product = 1;
  for (uint32_t d = begin; d < end; d++) product *= launch.dims[d];
  return product;
}

inline size_t outerCount(const Launch& launch) { return dimsProduct(launch, 0, outerRank(launch)); }
inline size_t reduceCount(const Launch& launch) {
  return dimsProduct(launch, outerRank(launch), launch.rank);
}

// Offset of flat index `flat` over dimensions [begin, end), the last one running fastest.
inline ptrdiff_t offsetOf(const Launch& launch, const ptrdiff_t* strides, uint32_t begin, uint32_t end,
                          size_t flat) {
  ptrdiff_t offset = 0;
  for (uint32_t d = end; d-- > begin;) {
    offset += ptrdiff_t(flat % launch.dims[d]) * strides[d];
    flat /= launch.dims[d];
  }
  return offset;
}

inline std::vector<ptrdiff_t> offsets(const Launch& launch, const ptrdiff_t* strides, uint32_t begin,
                                      uint32_t end) {
  std::vector<ptrdiff_t> table(dimsProduct(launch, begin, end));
  for (size_t flat = 0; flat < table.size(); flat++)
    table[flat] = offsetOf(launch, strides, begin, end, flat);
  return table;
}

inline std::vector<ptrdiff_t> outerOffsets(const Launch& launch, const ptrdiff_t* strides) {
  return offsets(launch, strides, 0, outerRank(launch));
}

inline std::vector<ptrdiff_t> reduceOffsets(const Launch& launch, const ptrdiff_t* strides) {
  return offsets(launch, strides, outerRank(launch), launch.rank);
}

// Index of batch dimension `dim` at flat index `flat` over [begin, end); dim lies in that range.
inline uint32_t indexOf(const Launch& launch, uint32_t dim, uint32_t end, size_t flat) {
  for (uint32_t d = end; d-- > dim + 1;) flat /= launch.dims[d];
  return uint32_t(flat % launch.dims[dim]);
}

}  // namespace aegis::cpu
