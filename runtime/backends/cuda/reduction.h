// What copy, contract, tensor, keyProduct and automorphism have in common: outputs that are sums over the
// reduced dimensions, held in 128 bits and reduced once.
//
// A block finds the rows of up to kEntries terms together (one thread a term: the divisions of offsetOf
// are paid once for all words), keeps them in shared memory, and then every thread sums its words over
// them.
#pragma once

#include "backends/cuda/arithmetic.h"
#include "backends/cuda/batch.h"

namespace aegis::cuda {
inline namespace AEGIS_CUDA_MULTIPLY {

constexpr uint32_t kEntries = 256;
// Words of a thread, whose loads are in flight together.
constexpr uint32_t kThreadWords = 2;

// Terms has: kOutputs, the polynomials of the output; Entry, a trivially copyable term; entry(), which
// finds it; add(), which adds its products at word k to the sums.
template <class Terms>
struct Reduction {
  using Entry = typename Terms::Entry;
  struct Sums {
    Wide of[kThreadWords][Terms::kOutputs];
  };
  static constexpr uint32_t kShared = uint32_t(kEntries * sizeof(Entry) / sizeof(uint64_t));
  static_assert(kShared <= kSharedWords && sizeof(Entry) % sizeof(uint64_t) == 0);

  RingView ring;
  Launch launch;
  Cut cut;
  Rows out;
  Terms terms;

  template <class Block>
  AEGIS_DEVICE void run(Block& block) const {
    const Place place = placeOf(cut, block.index);
    Entry* entries = reinterpret_cast<Entry*>(block.shared);
    typename Block::template PerThread<Sums> sums(block);
    if (launch.accumulate)
      block.phase([&](uint32_t thread) { load(sums[thread], place, thread, block.threads); });
    for (uint32_t first = 0; first < cut.reducedCount; first += kEntries) {
      const uint32_t rest = cut.reducedCount - first, count = rest < kEntries ? rest : kEntries;
      block.phase([&](uint32_t thread) {
        for (uint32_t i = thread; i < count; i += block.threads)
          entries[i] = terms.entry(ring, launch, cut, place, first + i);
      });
      block.phase([&](uint32_t thread) {
        for (uint32_t i = 0; i < count; i++) {
          const Entry entry = entries[i];
          AEGIS_UNROLL
          for (uint32_t w = 0; w < kThreadWords; w++)
            terms.add(ring, sums[thread].of[w], entry, place.begin + w * block.threads + thread);
        }
      });
    }
    block.phase([&](uint32_t thread) { store(sums[thread], place, thread, block.threads); });
  }

 private:
  AEGIS_DEVICE void load(Sums& sums, const Place& place, uint32_t thread, uint32_t threads) const {
    const uint64_t* row = rowOf(launch, cut, out, place) + place.begin + thread;
    AEGIS_UNROLL
    for (uint32_t w = 0; w < kThreadWords; w++)
      AEGIS_UNROLL
      for (uint32_t c = 0; c < Terms::kOutputs; c++)
        sums.of[w][c].low = row[ptrdiff_t(c) * out.componentStride + w * threads];
  }

  AEGIS_DEVICE void store(const Sums& sums, const Place& place, uint32_t thread, uint32_t threads) const {
    const Prime& prime = ring.primes[launch.limbs[place.limb]];
    uint64_t* row = rowOf(launch, cut, out, place) + place.begin + thread;
    AEGIS_UNROLL
    for (uint32_t w = 0; w < kThreadWords; w++)
      AEGIS_UNROLL
      for (uint32_t c = 0; c < Terms::kOutputs; c++)
        row[ptrdiff_t(c) * out.componentStride + w * threads] = reduce(sums.of[w][c], prime);
  }
};

}  // namespace AEGIS_CUDA_MULTIPLY
}  // namespace aegis::cuda
