// Arithmetic modulo a prime q < 2^50 on device and host: the only file that knows how words are
// multiplied. Operations are counted in 32-bit multiply-adds (IMAD), of which a 64-bit product takes 3 for
// its low word, 4 for the high word or for both; an Ampere to Blackwell multiprocessor does 64 a clock.
#pragma once

#include "backends/cuda/block.h"
#include "ckks/tables.h"

namespace aegis::cuda {

AEGIS_DEVICE uint64_t multiplyHigh(uint64_t a, uint64_t b) {
#if defined(__CUDACC__)
  return __umul64hi(a, b);
#else
  return uint64_t(static_cast<unsigned __int128>(a) * b >> 64);
#endif
}

AEGIS_DEVICE uint64_t addMod(uint64_t a, uint64_t b, uint64_t q) {
  const uint64_t sum = a + b;
  return sum >= q ? sum - q : sum;
}

AEGIS_DEVICE uint64_t subMod(uint64_t a, uint64_t b, uint64_t q) { return a >= b ? a - b : a + q - b; }

// x w mod q in [0, 2q), for any 64-bit x; `companion` is floor(w 2^64 / q) (Shoup). 10 IMAD.
AEGIS_DEVICE uint64_t mulShoupLazy(uint64_t x, uint64_t w, uint64_t companion, uint64_t q) {
  return x * w - multiplyHigh(x, companion) * q;
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
  // 4 IMAD.
  AEGIS_DEVICE void addProduct(uint64_t a, uint64_t b) {
    const uint64_t product = a * b;
    low += product;
    high += multiplyHigh(a, b) + (low < product ? 1 : 0);
  }
};

// high 2^64 + low, each part in [0, 2q), so that their sum is below 4q < 2^52. 17 IMAD.
AEGIS_DEVICE uint64_t reduce(const Wide& x, const Prime& prime) {
  const uint64_t q = prime.q;
  uint64_t r = x.low - multiplyHigh(x.low, prime.one64) * q;
  r += mulShoupLazy(x.high, prime.r64, prime.r64Shoup, q);
  r = r >= 2 * q ? r - 2 * q : r;
  return r >= q ? r - q : r;
}

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

}  // namespace aegis::cuda
