// Arithmetic modulo an odd prime q < 2^50 (the scalar side: tables, keys, tests).
#pragma once

#include <cstdint>

#include "ckks/tables.h"

namespace aegis {

using uint128 = unsigned __int128;

constexpr uint32_t kMaxPrimeBits = 50;

inline uint64_t addMod(uint64_t a, uint64_t b, uint64_t q) {
  const uint64_t sum = a + b;
  return sum >= q ? sum - q : sum;
}

inline uint64_t subMod(uint64_t a, uint64_t b, uint64_t q) { return a >= b ? a - b : a + q - b; }

inline uint64_t mulMod(uint64_t a, uint64_t b, uint64_t q) { return uint64_t(uint128(a) * b % q); }

inline uint64_t powMod(uint64_t base, uint64_t exponent, uint64_t q) {
  uint64_t result = 1 % q;
  for (base %= q; exponent != 0; exponent >>= 1, base = mulMod(base, base, q))
    if (exponent & 1) result = mulMod(result, base, q);
  return result;
}

// q prime, a not divisible by q.
inline uint64_t invMod(uint64_t a, uint64_t q) { return powMod(a, q - 2, q); }

// Miller-Rabin with the first twelve primes as bases: exact below 3.3 * 10^24 (Sorenson, Webster 2015).
inline bool isPrime(uint64_t n) {
  constexpr uint64_t bases[] = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37};
  if (n < 2) return false;
  for (uint64_t p : bases)
    if (n % p == 0) return n == p;
  const int twos = __builtin_ctzll(n - 1);
  for (uint64_t p : bases) {
    uint64_t x = powMod(p, (n - 1) >> twos, n);
    if (x == 1 || x == n - 1) continue;
    int i = 1;
    for (; i < twos; i++) {
      x = mulMod(x, x, n);
      if (x == n - 1) break;
    }
    if (i == twos) return false;
  }
  return true;
}

// floor(w 2^b / q), w < q.
inline uint64_t shoup64(uint64_t w, uint64_t q) { return uint64_t((uint128(w) << 64) / q); }
inline uint64_t shoup52(uint64_t w, uint64_t q) { return uint64_t((uint128(w) << 52) / q); }

// x w mod q up to one q: in [0, 2q), for any 64-bit x.
inline uint64_t mulShoupLazy(uint64_t x, uint64_t w, uint64_t companion, uint64_t q) {
  return x * w - uint64_t(uint128(x) * companion >> 64) * q;
}

inline uint64_t mulShoup(uint64_t x, uint64_t w, uint64_t companion, uint64_t q) {
  const uint64_t r = mulShoupLazy(x, w, companion, q);
  return r >= q ? r - q : r;
}

inline uint64_t reduce64(uint64_t x, const Prime& prime) {
  const uint64_t r = x - uint64_t(uint128(x) * prime.one64 >> 64) * prime.q;
  return r >= prime.q ? r - prime.q : r;
}

// Any 128-bit value: high 2^64 + low, each half in [0, 2q), so the sum is below 4q < 2^52.
inline uint64_t reduce128(uint128 x, const Prime& prime) {
  const uint64_t low = uint64_t(x), high = uint64_t(x >> 64), q = prime.q;
  uint64_t r = low - uint64_t(uint128(low) * prime.one64 >> 64) * q;
  r += mulShoupLazy(high, prime.r64, prime.r64Shoup, q);
  r = r >= 2 * q ? r - 2 * q : r;
  return r >= q ? r - q : r;
}

inline Prime makePrime(uint64_t q) {
  Prime p;
  p.q = q;
  p.one64 = uint64_t((uint128(1) << 64) / q);
  p.r64 = uint64_t((uint128(1) << 64) % q);
  p.r64Shoup = shoup64(p.r64, q);
  p.one52 = (uint64_t(1) << 52) / q;
  p.r52 = (uint64_t(1) << 52) % q;
  p.r52Shoup = shoup52(p.r52, q);
  p.r104 = uint64_t((uint128(1) << 104) % q);
  p.r104Shoup = shoup52(p.r104, q);
  p.r50 = (uint64_t(1) << 50) % q;
  p.r98 = uint64_t((uint128(1) << 98) % q);
  p.inverse = 1 / double(q);
  return p;
}

// psi = g^((q-1)/order), g the smallest integer >= 2 for which psi has exact order `order` (a power of two):
// psi^(order/2) = -1. q = 1 mod order.
inline uint64_t primitiveRoot(uint64_t q, uint64_t order) {
  for (uint64_t g = 2;; g++) {
    const uint64_t psi = powMod(g, (q - 1) / order, q);
    if (powMod(psi, order / 2, q) == q - 1) return psi;
  }
}

inline uint32_t reverseBits(uint32_t value, uint32_t bits) {
  uint32_t result = 0;
  for (uint32_t i = 0; i < bits; i++) result |= ((value >> i) & 1u) << (bits - 1 - i);
  return result;
}

}  // namespace aegis
