// Index arithmetic of strided batches (hal/kernels.h) inside a kernel, and how a launch is cut into
// blocks. All pointers of a launch and its operands are device pointers.
#pragma once

#include "backends/cuda/block.h"
#include "ckks/tables.h"
#include "hal/kernels.h"

namespace aegis::cuda {

// What kernels read of a RingContext.
struct RingView {
  uint32_t logN = 0;
  const Prime* primes = nullptr;  // of every prime index
  const NttTable* ntt = nullptr;  // the same, of form kTwiddles; null where no transform is launched
};

// Memory for plaintexts that are expanded ahead of a kernel.
struct Scratch {
  uint64_t* base = nullptr;
  size_t words = 0;
};

// Which rows and words a block has: a piece of `words` words of one limb, at one index over the outer (not
// reduced) dimensions. Outer index fastest, then pieces, then limbs: blocks that run at a time share what
// a limb or a piece shares over the batch (plaintexts, keys, broadcast operands) in the second-level
// cache.
struct Cut {
  uint32_t outerRank = 0;
  uint32_t outerCount = 1, reducedCount = 1;
  uint32_t pieces = 1, words = 0;
};

struct Place {
  uint32_t outer, limb, begin;
};

AEGIS_DEVICE Place placeOf(const Cut& cut, uint32_t block) {
  const uint32_t piece = block / cut.outerCount;
  return {block % cut.outerCount, piece / cut.pieces, piece % cut.pieces * cut.words};
}

// A block that has several rows along one outer dimension of size `tiledRows`, `perTile` of them or what is
// left; `inner` outer indices lie inside of that dimension, and cut.outerCount counts tiles. `first` is the
// place of the tile's first row.
struct Tile {
  Place first;
  uint32_t rows;
};

AEGIS_DEVICE Tile tileOf(const Cut& cut, uint32_t block, uint32_t tiledRows, uint32_t inner,
                         uint32_t perTile) {
  const uint32_t tiles = (tiledRows + perTile - 1) / perTile;
  const Place place = placeOf(cut, block);
  const uint32_t around = place.outer / inner;
  const uint32_t first = around % tiles * perTile, rest = tiledRows - first;
  return {{(around / tiles * tiledRows + first) * inner + place.outer % inner, place.limb, place.begin},
          rest < perTile ? rest : perTile};
}

// Offset of flat index `flat` over dimensions [begin, end), the last one running fastest.
AEGIS_DEVICE ptrdiff_t offsetOf(const Launch& launch, const ptrdiff_t* strides, uint32_t begin, uint32_t end,
                                uint32_t flat) {
  ptrdiff_t offset = 0;
  for (uint32_t d = end; d-- > begin;) {
    const uint32_t dim = launch.dims[d], rest = flat / dim;
    offset += ptrdiff_t(flat - rest * dim) * strides[d];
    flat = rest;
  }
  return offset;
}

// Index of batch dimension `dim` at flat index `flat` over [begin, end), dim in that range.
AEGIS_DEVICE uint32_t indexOf(const Launch& launch, uint32_t dim, uint32_t end, uint32_t flat) {
  for (uint32_t d = end; d-- > dim + 1;) flat /= launch.dims[d];
  return flat % launch.dims[dim];
}

// The same at an outer and a reduced index, whichever of them `dim` belongs to; 0 if dim is ~0u.
AEGIS_DEVICE uint32_t indexAlong(const Launch& launch, uint32_t outerRank, uint32_t dim, uint32_t outer,
                                 uint32_t reduced) {
  if (dim == ~0u) return 0;
  return dim < outerRank ? indexOf(launch, dim, outerRank, outer)
                         : indexOf(launch, dim, launch.rank, reduced);
}

// The row of an operand (Rows or PlainRows) at an outer index, and at one reduced index.
template <class Operand>
AEGIS_DEVICE auto* rowOf(const Launch& launch, const Cut& cut, const Operand& x, const Place& place) {
  return x.base + offsetOf(launch, x.strides, 0, cut.outerRank, place.outer) +
         ptrdiff_t(place.limb) * x.limbStride;
}

template <class Operand>
AEGIS_DEVICE auto* rowOf(const Launch& launch, const Cut& cut, const Operand& x, const Place& place,
                         uint32_t reduced) {
  return rowOf(launch, cut, x, place) + offsetOf(launch, x.strides, cut.outerRank, launch.rank, reduced);
}

}  // namespace aegis::cuda
