// Arithmetic modulo a prime q < 2^50 on device and host: the only file that knows how words are
// multiplied; -DAEGIS_CUDA_MULTIPLY=shoup64|split32|fp64 chooses among the forms of multiply.h. Kernels lie
// in an inline namespace of that name, so that a program may have those of several forms.
//
// Operations are counted in 32-bit multiply-adds (IMAD), of which a 64-bit product takes 3 for its low word,
// 4 for the high word or for both; an Ampere to Blackwell multiprocessor does 64 a clock.
#pragma once

#include "backends/cuda/multiply.h"
#include "ckks/tables.h"

#if !defined(AEGIS_CUDA_MULTIPLY)
#define AEGIS_CUDA_MULTIPLY shoup64
#endif

namespace aegis::cuda {
inline namespace AEGIS_CUDA_MULTIPLY {

using Multiplication = Multiply<MultiplyForm::AEGIS_CUDA_MULTIPLY>;

// Of the twiddles that transforms read.
constexpr TwiddleForm kTwiddles = twiddlesOf(MultiplyForm::AEGIS_CUDA_MULTIPLY);

AEGIS_DEVICE uint64_t multiplyHigh(uint64_t a, uint64_t b) { return Multiplication::high(a, b); }

AEGIS_DEVICE uint64_t addMod(uint64_t a, uint64_t b, uint64_t q) {
  const uint64_t sum = a + b;
  return sum >= q ? sum - q : sum;
}

AEGIS_DEVICE uint64_t subMod(uint64_t a, uint64_t b, uint64_t q) { return a >= b ? a - b : a + q - b; }

// x w mod q in [0, 2q), for any 64-bit x, in form fp64 for x < 2^52; `companion` is floor(w 2^64 / q)
// (Shoup). 10 IMAD.
AEGIS_DEVICE uint64_t mulShoupLazy(uint64_t x, uint64_t w, uint64_t companion, uint64_t q) {
  return Multiplication::lazy(x, w, companion, q);
}

AEGIS_DEVICE uint64_t mulShoup(uint64_t x, uint64_t w, uint64_t companion, uint64_t q) {
  const uint64_t r = mulShoupLazy(x, w, companion, q);
  return r >= q ? r - q : r;
}

// Any 64-bit x: the companion of 1 is the Barrett constant. 7 IMAD.
AEGIS_DEVICE uint64_t reduce(uint64_t x, const Prime& prime) {
  const uint64_t r = x - multiplyHigh(x, prime.one64) * prime.q;
  return r >= prime.q ? r - prime.q : r;
}

// Two's complement words.
AEGIS_DEVICE uint64_t reduceSigned(uint64_t x, const Prime& prime) {
  const bool negative = (x >> 63) != 0;
  const uint64_t r = reduce(negative ? 0 - x : x, prime);
  return negative && r != 0 ? prime.q - r : r;
}

// A sum that is reduced once, at its end: 2^28 products of residues fit.
struct Wide {
  uint64_t low = 0, high = 0;

  AEGIS_DEVICE void add(uint64_t x) {
    low += x;
    high += low < x ? 1 : 0;
  }
  AEGIS_DEVICE void add(const Wide& x) {
    add(x.low);
    high += x.high;
  }
  // Of words below 2^51. 4 IMAD.
  AEGIS_DEVICE void addProduct(uint64_t a, uint64_t b) { Multiplication::addProduct(high, low, a, b); }
};

// high 2^64 + low, each part in [0, 2q), so that their sum is below 4q < 2^52. 17 IMAD.
AEGIS_DEVICE uint64_t reduce(const Wide& x, const Prime& prime) {
  const uint64_t q = prime.q;
  uint64_t r = x.low - multiplyHigh(x.low, prime.one64) * q;
  r += x.high * prime.r64 - multiplyHigh(x.high, prime.r64Shoup) * q;
  r = r >= 2 * q ? r - 2 * q : r;
  return r >= q ? r - q : r;
}

// A factor in [0, q) without a companion that meets many words x < 2q: x w mod q. 21 IMAD a word.
class Factor {
 public:
  AEGIS_DEVICE Factor(uint64_t w, const Prime& prime) : w_(w), prime_(&prime) {
    if constexpr (Multiplication::kNarrow) ratio_ = double(w) / double(prime.q);
  }
  AEGIS_DEVICE uint64_t times(uint64_t x) const {
    const uint64_t q = prime_->q;
    if constexpr (Multiplication::kNarrow) {
      const uint64_t r =
          floating::multiply(floating::ofWord(x), floating::ofWord(w_), ratio_, floating::ofWord(q));
      return r >= q ? r - q : r;
    } else {
      Wide product;
      product.addProduct(x, w_);
      return reduce(product, *prime_);
    }
  }

 private:
  uint64_t w_;
  const Prime* prime_;
  double ratio_ = 0;  // w / q; fp64 only
};

AEGIS_DEVICE uint32_t reverseBits(uint32_t value, uint32_t bits) {
#if defined(__CUDACC__)
  value = __brev(value);
#else
  value = (value & 0x55555555) << 1 | (value >> 1 & 0x55555555);
  value = (value & 0x33333333) << 2 | (value >> 2 & 0x33333333);
  value = (value & 0x0f0f0f0f) << 4 | (value >> 4 & 0x0f0f0f0f);
  value = value << 24 | (value & 0xff00) << 8 | (value >> 8 & 0xff00) | value >> 24;
#endif
  return bits == 0 ? 0 : value >> (32 - bits);
}

}  // namespace AEGIS_CUDA_MULTIPLY
}  // namespace aegis::cuda
