// zero, add, sub, addPlain, subScale: one word in, one word out, no sums.
//
// Floors of one row of N words: 8 N bytes written and, but for zero, 8 N read for each ciphertext operand
// (a plaintext row of period c: 8 c). Operations: none to speak of, except 21 N IMAD for subScale, whose
// scalar has no companion. On an H100 (3.35 TB/s, 132 x 64 IMAD at 1.7 GHz) the bytes are the floor of all
// of them: subScale needs 7.3 ns for 1024 words and 1.5 ns for their operations.
#pragma once

#include "backends/cuda/arithmetic.h"
#include "backends/cuda/batch.h"

namespace aegis::cuda {
inline namespace AEGIS_CUDA_MULTIPLY {

// Op::bind gives the row's part, which has value(k) for every word.
template <class Op>
struct Elementwise {
  RingView ring;
  Launch launch;
  Cut cut;
  Rows out;
  Op op;

  template <class Block>
  AEGIS_DEVICE void run(Block& block) const {
    const Place place = placeOf(cut, block.index);
    const Prime& prime = ring.primes[launch.limbs[place.limb]];
    block.phase([&](uint32_t thread) {
      uint64_t* to = rowOf(launch, cut, out, place);
      const auto row = op.bind(launch, cut, place, prime);
      for (uint32_t k = place.begin + thread; k < place.begin + cut.words; k += block.threads)
        to[k] = row.value(k);
    });
  }
};

struct Zero {
  struct Row {
    AEGIS_DEVICE uint64_t value(uint32_t) const { return 0; }
  };
  AEGIS_DEVICE Row bind(const Launch&, const Cut&, const Place&, const Prime&) const { return {}; }
};

struct Add {
  Rows a, b;
  struct Row {
    const uint64_t *a, *b;
    uint64_t q;
    AEGIS_DEVICE uint64_t value(uint32_t k) const { return addMod(a[k], b[k], q); }
  };
  AEGIS_DEVICE Row bind(const Launch& launch, const Cut& cut, const Place& place, const Prime& prime) const {
    return {rowOf(launch, cut, a, place), rowOf(launch, cut, b, place), prime.q};
  }
};

struct Sub {
  Rows a, b;
  struct Row {
    const uint64_t *a, *b;
    uint64_t q;
    AEGIS_DEVICE uint64_t value(uint32_t k) const { return subMod(a[k], b[k], q); }
  };
  AEGIS_DEVICE Row bind(const Launch& launch, const Cut& cut, const Place& place, const Prime& prime) const {
    return {rowOf(launch, cut, a, place), rowOf(launch, cut, b, place), prime.q};
  }
};

struct AddPlain {
  Rows a;
  PlainRows plain;  // residues
  uint32_t shift;   // word k meets word k >> shift of the plaintext
  struct Row {
    const uint64_t *a, *plain;
    uint32_t shift;
    uint64_t q;
    AEGIS_DEVICE uint64_t value(uint32_t k) const { return addMod(a[k], plain[k >> shift], q); }
  };
  AEGIS_DEVICE Row bind(const Launch& launch, const Cut& cut, const Place& place, const Prime& prime) const {
    return {rowOf(launch, cut, a, place), rowOf(launch, cut, plain, place), shift, prime.q};
  }
};

struct SubScale {
  Rows a, b;
  const uint64_t* scalars;
  struct Row {
    const uint64_t *a, *b;
    uint64_t q;
    Factor scalar;
    AEGIS_DEVICE uint64_t value(uint32_t k) const { return scalar.times(a[k] + q - b[k]); }
  };
  AEGIS_DEVICE Row bind(const Launch& launch, const Cut& cut, const Place& place, const Prime& prime) const {
    return {rowOf(launch, cut, a, place), rowOf(launch, cut, b, place), prime.q,
            Factor(reduce(scalars[place.limb], prime), prime)};
  }
};

}  // namespace AEGIS_CUDA_MULTIPLY
}  // namespace aegis::cuda
