// 52-bit modular arithmetic on eight words. Included only by files compiled with -mavx512ifma.
//
// vpmadd52luq/huq multiply the low 52 bits of two operands and add the low or high 52 bits of the product to
// a 64-bit accumulator. Residues are below q < 2^50, so lazy values up to 4q < 2^52 are still legal operands,
// and bits above 52 in an operand are ignored: a value may be kept modulo 2^52 as long as its true value is
// in [0, 2^52).
#pragma once

#include <immintrin.h>

#include "ckks/tables.h"

namespace aegis::cpu {
namespace {

using V = __m512i;

constexpr uint64_t kMask52 = (uint64_t(1) << 52) - 1;

inline V load(const uint64_t* p) { return _mm512_loadu_si512(p); }
inline void store(uint64_t* p, V x) { _mm512_storeu_si512(p, x); }
inline void stream(uint64_t* p, V x) { _mm512_stream_si512(reinterpret_cast<V*>(p), x); }
inline V broadcast(uint64_t x) { return _mm512_set1_epi64(static_cast<long long>(x)); }
inline V add(V a, V b) { return _mm512_add_epi64(a, b); }
inline V sub(V a, V b) { return _mm512_sub_epi64(a, b); }
inline V maddLow(V sum, V a, V b) { return _mm512_madd52lo_epu64(sum, a, b); }
inline V maddHigh(V sum, V a, V b) { return _mm512_madd52hi_epu64(sum, a, b); }
inline V mulLow(V a, V b) { return maddLow(_mm512_setzero_si512(), a, b); }
inline V mulHigh(V a, V b) { return maddHigh(_mm512_setzero_si512(), a, b); }
// x in [0, 2m) to [0, m): x - m wraps to a huge word where x < m.
inline V subtractOnce(V x, V m) { return _mm512_min_epu64(x, sub(x, m)); }

struct Modulus {
  V q, twoQ, offset, minusQ, mask, unit, one, r52, r52Shoup, r104, r104Shoup;

  explicit Modulus(const Prime& p)
      : q(broadcast(p.q)),
        twoQ(broadcast(2 * p.q)),
        offset(broadcast(17 * p.q)),
        minusQ(broadcast((uint64_t(1) << 52) - p.q)),
        mask(broadcast(kMask52)),
        unit(broadcast(1)),
        one(broadcast(p.one52)),
        r52(broadcast(p.r52)),
        r52Shoup(broadcast(p.r52Shoup)),
        r104(broadcast(p.r104)),
        r104Shoup(broadcast(p.r104Shoup)) {}

  V clean(V x) const { return _mm512_and_si512(x, mask); }

  // sum + x w - floor(x companion / 2^52) q modulo 2^52: the product's true value is in [0, 2q) for x < 2^52.
  V maddShoup(V sum, V x, V w, V companion) const {
    return maddLow(maddLow(sum, x, w), mulHigh(x, companion), minusQ);
  }
  V mulShoup(V x, V w, V companion) const { return maddShoup(_mm512_setzero_si512(), x, w, companion); }

  // w in [1, q) from its companion c: w 2^52 - c q lies in (0, q).
  V fromCompanion(V companion) const { return maddHigh(unit, companion, q); }

  // Any value below 2^52 to [0, 2q), modulo 2^52.
  V barrett(V x) const { return maddLow(x, mulHigh(x, one), minusQ); }

  // A clean value in [0, 4q) to [0, q).
  V canonical(V x) const { return subtractOnce(subtractOnce(x, twoQ), q); }

  // high 2^52 + low, low < 2^64 and high + low / 2^52 < 2^64 (2^52 unless kLong), to [0, q): with high' =
  // high plus the carry of low, the parts low', high' mod 2^52 and high' >> 52 are reduced to [0, 2q) each.
  template <bool kLong>
  V reduce(V low, V high) const {
    high = add(high, _mm512_srli_epi64(low, 52));
    low = clean(low);
    // Both quotients are subtracted by one product; the value is below 4q < 2^52.
    const V quotient = maddHigh(mulHigh(low, one), high, r52Shoup);
    V r = clean(maddLow(maddLow(low, high, r52), quotient, minusQ));
    if constexpr (kLong) {
      const V top = clean(mulShoup(_mm512_srli_epi64(high, 52), r104, r104Shoup));
      r = add(subtractOnce(r, twoQ), top);
    }
    return canonical(r);
  }
};

}  // namespace
}  // namespace aegis::cpu
