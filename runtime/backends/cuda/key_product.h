// keyProduct: out_c (+)= sum over digits d and reduced dimensions of digits[d] * key[d][c], both components
// and up to kKeys rotations of one decomposition in one pass over the digits: outer rows that read the same
// digits (stride 0) along the dimension of the keys are taken together.
//
// Floors of one output (two rows) with T terms of D digits: (8 T D + 34) N IMAD. Bytes: 8 N (3 T D + 2)
// alone, 8 N (2 T D + T D / kKeys + 2) for each of kKeys rotations, 8 N (T D + 2) if the key stays in the
// second-level cache for a batch. At T = 1, D = 4, N = 2^16 on an H100: operations 0.3 us, memory 2.2 us a
// limb, 1.7 us in fours. 64 registers; fours spill 28 bytes on sm_80, nothing on sm_90 and sm_100.
// On that H100: 3.2 us a limb.
#pragma once

#include "backends/cuda/reduction.h"

namespace aegis::cuda {
inline namespace AEGIS_CUDA_MULTIPLY {

struct KeyOperands {
  Rows digits;
  uint32_t digitCount;
  const KeyView* keys;
  uint32_t keyDim;
  const uint16_t* keyRows;
};

// kKeys outer rows along keyDim, kWords words of each for a thread: 8 kKeys kWords registers of sums.
template <uint32_t kKeys, uint32_t kWords>
struct KeyProduct {
  struct Entry {
    const uint64_t *digits, *key;
    uint64_t componentWords;  // between the components of the key; between digits twice as many
  };
  struct Sums {
    Wide of[kWords][kKeys][2];
  };
  static constexpr uint32_t kTerms = kEntries / kKeys;
  static constexpr uint32_t kShared = uint32_t(kTerms * kKeys * sizeof(Entry) / sizeof(uint64_t));
  static_assert(kShared <= kSharedWords);

  RingView ring;
  Launch launch;
  Cut cut;  // outerCount counts tiles
  Rows out;
  KeyOperands operands;
  uint32_t tiledRows, inner;  // size of keyDim, outer indices inside of it; kKeys = 1: both are 1

  template <class Block>
  AEGIS_DEVICE void run(Block& block) const {
    const Tile tile = tileOf(cut, block.index, tiledRows, inner, kKeys);
    const Place place = tile.first;
    const uint32_t rows = tile.rows;
    Entry* entries = reinterpret_cast<Entry*>(block.shared);
    typename Block::template PerThread<Sums> sums(block);
    if (launch.accumulate)
      block.phase([&](uint32_t thread) { load(sums[thread], place, rows, thread, block.threads); });
    for (uint32_t done = 0; done < cut.reducedCount; done += kTerms) {
      const uint32_t left = cut.reducedCount - done, count = left < kTerms ? left : kTerms;
      block.phase([&](uint32_t thread) {
        for (uint32_t i = thread; i < count * rows; i += block.threads)
          entries[i] = entry({place.outer + i % rows * inner, place.limb, place.begin}, done + i / rows);
      });
      block.phase([&](uint32_t thread) {
        for (uint32_t i = 0; i < count; i++)
          add(sums[thread], entries + i * rows, rows, place.begin + thread, block.threads);
      });
    }
    block.phase([&](uint32_t thread) { store(sums[thread], place, rows, thread, block.threads); });
  }

 private:
  AEGIS_DEVICE Entry entry(const Place& place, uint32_t reduced) const {
    const KeyView& key =
        operands.keys[indexAlong(launch, cut.outerRank, operands.keyDim, place.outer, reduced)];
    const uint16_t wholeRow = operands.keyRows[place.limb];
    const uint64_t row = key.rowOf == nullptr ? wholeRow : key.rowOf[wholeRow];
    return {rowOf(launch, cut, operands.digits, place, reduced), key.base + (row << ring.logN),
            uint64_t(key.rowCount) << ring.logN};
  }

  AEGIS_DEVICE void add(Sums& sums, const Entry* entries, uint32_t rows, uint32_t k, uint32_t threads) const {
    for (uint32_t d = 0; d < operands.digitCount; d++) {
      uint64_t x[kWords];
      AEGIS_UNROLL
      for (uint32_t w = 0; w < kWords; w++)
        x[w] = entries[0].digits[ptrdiff_t(d) * operands.digits.componentStride + k + w * threads];
      AEGIS_UNROLL
      for (uint32_t row = 0; row < kKeys; row++) {
        if (row >= rows) continue;
        const uint64_t step = entries[row].componentWords;
        const uint64_t* key = entries[row].key + 2 * d * step + k;
        AEGIS_UNROLL
        for (uint32_t w = 0; w < kWords; w++) {
          sums.of[w][row][0].addProduct(x[w], key[w * threads]);
          sums.of[w][row][1].addProduct(x[w], key[step + w * threads]);
        }
      }
    }
  }

  AEGIS_DEVICE uint64_t* wordsOf(const Place& place, uint32_t row, uint32_t component) const {
    const ptrdiff_t along = kKeys == 1 ? 0 : ptrdiff_t(row) * out.strides[operands.keyDim];
    return rowOf(launch, cut, out, place) + along + ptrdiff_t(component) * out.componentStride + place.begin;
  }

  AEGIS_DEVICE void load(Sums& sums, const Place& place, uint32_t rows, uint32_t thread,
                         uint32_t threads) const {
    AEGIS_UNROLL
    for (uint32_t row = 0; row < kKeys; row++) {
      if (row >= rows) continue;
      AEGIS_UNROLL
      for (uint32_t c = 0; c < 2; c++) {
        const uint64_t* from = wordsOf(place, row, c) + thread;
        AEGIS_UNROLL
        for (uint32_t w = 0; w < kWords; w++) sums.of[w][row][c].low = from[w * threads];
      }
    }
  }

  AEGIS_DEVICE void store(const Sums& sums, const Place& place, uint32_t rows, uint32_t thread,
                          uint32_t threads) const {
    const Prime& prime = ring.primes[launch.limbs[place.limb]];
    AEGIS_UNROLL
    for (uint32_t row = 0; row < kKeys; row++) {
      if (row >= rows) continue;
      AEGIS_UNROLL
      for (uint32_t c = 0; c < 2; c++) {
        uint64_t* to = wordsOf(place, row, c) + thread;
        AEGIS_UNROLL
        for (uint32_t w = 0; w < kWords; w++) to[w * threads] = reduce(sums.of[w][row][c], prime);
      }
    }
  }
};

}  // namespace AEGIS_CUDA_MULTIPLY
}  // namespace aegis::cuda
