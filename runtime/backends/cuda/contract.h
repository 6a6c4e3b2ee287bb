// contract: out (+)= sum a * p, pointwise; p residues with one word for 2^shift words of a. At each word a
// modular matrix product: outer rows that read the same a (one outer dimension along which a has stride 0)
// and differ in p are taken kTileRows at a time, so that a word of a, once in a register, meets as many
// weights.
//
// Floors of one output row with T terms: (4 T + 17) N IMAD. Bytes of kTileRows such rows: 8 N (T + kTileRows)
// and 8 T c kTileRows of plaintexts with period c, against 8 N (T + 1) for each row alone; what remains
// between tiles of one piece comes from the second-level cache. Words loaded a multiply-add: 1 / kTileRows
// + 1 of full periods, 1 / kTileRows + 2^-shift of others (threads of a warp share them). At T = 64, J = 48,
// N = 2^16 on an H100: operations 1.2 us, memory 0.4 us a row. 80 registers (sm_90), no spills.
#pragma once

#include "backends/cuda/reduction.h"

namespace aegis::cuda {
inline namespace AEGIS_CUDA_MULTIPLY {

constexpr uint32_t kTileRows = 4;  // a thread has kTileRows * kContractWords sums of 4 registers
constexpr uint32_t kContractWords = 2;

struct Contract {
  struct Entry {
    const uint64_t *a, *plain;  // of the tile's first row
  };
  struct Sums {
    Wide of[kContractWords][kTileRows];
  };
  static constexpr uint32_t kShared = uint32_t(kEntries * sizeof(Entry) / sizeof(uint64_t));

  RingView ring;
  Launch launch;
  Cut cut;  // outerCount counts tiles
  Rows out, a;
  PlainRows plain;     // residues
  uint32_t shift;
  uint32_t tileDim, tiledRows, inner;  // the tiled outer dimension, its size, outer indices inside of it

  template <class Block>
  AEGIS_DEVICE void run(Block& block) const {
    const Tile tile = tileOf(cut, block.index, tiledRows, inner, kTileRows);
    const Place place = tile.first;
    const uint32_t rows = tile.rows;
    Entry* entries = reinterpret_cast<Entry*>(block.shared);
    typename Block::template PerThread<Sums> sums(block);
    if (launch.accumulate)
      block.phase([&](uint32_t thread) { load(sums[thread], place, rows, thread, block.threads); });
    for (uint32_t done = 0; done < cut.reducedCount; done += kEntries) {
      const uint32_t left = cut.reducedCount - done, count = left < kEntries ? left : kEntries;
      block.phase([&](uint32_t thread) {
        for (uint32_t i = thread; i < count; i += block.threads)
          entries[i] = {rowOf(launch, cut, a, place, done + i), rowOf(launch, cut, plain, place, done + i)};
      });
      block.phase([&](uint32_t thread) {
        if (rows == kTileRows) accumulate(sums[thread], entries, count, place, thread, block.threads);
        else
          for (uint32_t row = 0; row < rows; row++)
            accumulateRow(sums[thread], entries, count, place, row, thread, block.threads);
      });
    }
    block.phase([&](uint32_t thread) { store(sums[thread], place, rows, thread, block.threads); });
  }

 private:
  AEGIS_DEVICE ptrdiff_t rowStride(const ptrdiff_t* strides) const {
    return tiledRows == 1 ? 0 : strides[tileDim];
  }

  AEGIS_DEVICE void accumulate(Sums& sums, const Entry* entries, uint32_t count, const Place& place,
                               uint32_t thread, uint32_t threads) const {
    const ptrdiff_t stride = rowStride(plain.strides);
    for (uint32_t i = 0; i < count; i++) {
      const Entry entry = entries[i];
      AEGIS_UNROLL
      for (uint32_t w = 0; w < kContractWords; w++) {
        const uint32_t k = place.begin + w * threads + thread;
        const uint64_t x = entry.a[k];
        const uint64_t* weight = entry.plain + (k >> shift);
        AEGIS_UNROLL
        for (uint32_t row = 0; row < kTileRows; row++)
          sums.of[w][row].addProduct(x, weight[ptrdiff_t(row) * stride]);
      }
    }
  }

  // A row of a tile that is not full; `row` is not known at compile time, but each of its values is.
  AEGIS_DEVICE void accumulateRow(Sums& sums, const Entry* entries, uint32_t count, const Place& place,
                                  uint32_t row, uint32_t thread, uint32_t threads) const {
    const ptrdiff_t offset = ptrdiff_t(row) * rowStride(plain.strides);
    AEGIS_UNROLL
    for (uint32_t w = 0; w < kContractWords; w++) {
      const uint32_t k = place.begin + w * threads + thread;
      Wide sum;
      for (uint32_t i = 0; i < count; i++)
        sum.addProduct(entries[i].a[k], entries[i].plain[(k >> shift) + offset]);
      AEGIS_UNROLL
      for (uint32_t r = 0; r < kTileRows; r++)
        if (r == row) sums.of[w][r].add(sum);
    }
  }

  AEGIS_DEVICE void load(Sums& sums, const Place& place, uint32_t rows, uint32_t thread,
                         uint32_t threads) const {
    const uint64_t* from = rowOf(launch, cut, out, place) + place.begin + thread;
    AEGIS_UNROLL
    for (uint32_t w = 0; w < kContractWords; w++)
      AEGIS_UNROLL
      for (uint32_t row = 0; row < kTileRows; row++)
        if (row < rows) sums.of[w][row].low = from[ptrdiff_t(row) * rowStride(out.strides) + w * threads];
  }

  AEGIS_DEVICE void store(const Sums& sums, const Place& place, uint32_t rows, uint32_t thread,
                          uint32_t threads) const {
    const Prime& prime = ring.primes[launch.limbs[place.limb]];
    uint64_t* to = rowOf(launch, cut, out, place) + place.begin + thread;
    AEGIS_UNROLL
    for (uint32_t w = 0; w < kContractWords; w++)
      AEGIS_UNROLL
      for (uint32_t row = 0; row < kTileRows; row++)
        if (row < rows)
          to[ptrdiff_t(row) * rowStride(out.strides) + w * threads] = reduce(sums.of[w][row], prime);
  }
};

}  // namespace AEGIS_CUDA_MULTIPLY
}  // namespace aegis::cuda
