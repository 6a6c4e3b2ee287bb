// baseConvert: a modular matrix product of the scaled source residues (ckks/tables.h, ConversionTable)
// with a small matrix in shared memory:
//   u_i = ([a_i (D/q_i)^-1] + h_i) mod q_i,   out_j = offset_j + sum_i u_i matrix[j][i]  mod p_j.
// A thread has one word and kDestinations destinations: u_i is made once for them and never leaves
// registers.
//
// Floors of one word from S sources to T destinations: S (10 ceil(T / kDestinations) + 4 T) + 17 T IMAD; 8
// (S + T) bytes from memory (the other passes over a source hit the second-level cache). At S = 6, T = 24,
// N = 2^16 on an H100: operations 5.3 us, memory 4.7 us a polynomial.
#pragma once

#include "backends/cuda/arithmetic.h"
#include "backends/cuda/batch.h"

namespace aegis::cuda {
inline namespace AEGIS_CUDA_MULTIPLY {

constexpr uint32_t kDestinations = 8;  // accumulators of a thread: 32 registers
constexpr uint32_t kSourceChunk = 64;  // sources whose part of the matrix is in shared memory

struct BaseConvert {
  static constexpr uint32_t kShared = kDestinations * kSourceChunk;
  struct Sums {
    Wide of[kDestinations];
  };

  Launch launch;
  Cut cut;  // a "limb" of the cut is a group of kDestinations destination limbs
  Rows out, a;
  ConversionTable table;

  template <class Block>
  AEGIS_DEVICE void run(Block& block) const {
    const Place place = placeOf(cut, block.index);
    const uint32_t first = place.limb * kDestinations, rest = table.destinationCount - first,
                   destinations = rest < kDestinations ? rest : kDestinations;
    typename Block::template PerThread<Sums> sums(block);
    uint64_t* matrix = block.shared;  // [source][destination]
    for (uint32_t begin = 0; begin < table.sourceCount; begin += kSourceChunk) {
      const uint32_t left = table.sourceCount - begin, sources = left < kSourceChunk ? left : kSourceChunk;
      block.phase([&](uint32_t thread) {
        for (uint32_t i = thread; i < sources * kDestinations; i += block.threads) {
          const uint32_t source = begin + i / kDestinations, j = i % kDestinations;
          matrix[i] = j < destinations ? table.matrix[(first + j) * table.sourceCount + source] : 0;
        }
      });
      block.phase([&](uint32_t thread) {
        const uint64_t* from = a.base + offsetOf(launch, a.strides, 0, launch.rank, place.outer) +
                               ptrdiff_t(begin) * a.limbStride + place.begin + thread;
        for (uint32_t i = 0; i < sources; i++) {
          const uint64_t u = scaled(begin + i, from[ptrdiff_t(i) * a.limbStride]);
          AEGIS_UNROLL
          for (uint32_t j = 0; j < kDestinations; j++)
            sums[thread].of[j].addProduct(u, matrix[i * kDestinations + j]);
        }
      });
    }
    block.phase([&](uint32_t thread) {
      uint64_t* to = out.base + offsetOf(launch, out.strides, 0, launch.rank, place.outer) +
                     ptrdiff_t(first) * out.limbStride + place.begin + thread;
      AEGIS_UNROLL
      for (uint32_t j = 0; j < kDestinations; j++) {
        if (j >= destinations) continue;
        Wide& sum = sums[thread].of[j];
        sum.add(table.offset[first + j]);
        to[ptrdiff_t(j) * out.limbStride] = reduce(sum, table.destinations[first + j]);
      }
    });
  }

 private:
  AEGIS_DEVICE uint64_t scaled(uint32_t source, uint64_t word) const {
    const uint64_t q = table.sources[source].q;
    return addMod(mulShoup(word, table.scale[source], table.scaleShoup64[source], q), (q - 1) / 2, q);
  }
};

}  // namespace AEGIS_CUDA_MULTIPLY
}  // namespace aegis::cuda
