// 50-bit modular arithmetic on four words, in double precision. Included only by files compiled with -mavx2
// -mfma.
//
// AVX2 has no 64-bit multiplication, but a fused multiply-add gives the exact low part of a product of
// integers in doubles: h = fl(y w), l = fma(y, w, -h), y w = h + l. With c near y w / q, fma(-c, q, h) + l =
// y w - c q is an integer below 2^53 and every step is exact. Residues are signed here.
//
// c = round(fl(y * fl(w/q))) is off from y w / q by at most 1/2 + |y| (2^-53 + 2^-54), so for |y| <= b q, q <
// 2^50:
//   |y w - c q| <= (1/2 + 0.19 b) q.
// All integers stay below 8 q <= 2^53.
#pragma once

#include <immintrin.h>

#include "ckks/tables.h"

namespace aegis::cpu {
namespace {

using D = __m256d;
using I = __m256i;

inline I load(const uint64_t* p) { return _mm256_loadu_si256(reinterpret_cast<const I*>(p)); }
inline void store(uint64_t* p, I x) { _mm256_storeu_si256(reinterpret_cast<I*>(p), x); }
inline I broadcast(uint64_t x) { return _mm256_set1_epi64x(static_cast<long long>(x)); }
inline I add(I a, I b) { return _mm256_add_epi64(a, b); }
inline I sub(I a, I b) { return _mm256_sub_epi64(a, b); }
inline D broadcastDouble(double x) { return _mm256_set1_pd(x); }
inline D add(D a, D b) { return _mm256_add_pd(a, b); }
inline D sub(D a, D b) { return _mm256_sub_pd(a, b); }
inline D roundNearest(D x) { return _mm256_round_pd(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

// Integers in [0, 2^52): with the exponent of 2^52 put before them they are 2^52 + x.
inline I exponent52() { return broadcast(0x4330000000000000); }
inline D toDouble(I x) {
  return sub(_mm256_castsi256_pd(_mm256_or_si256(x, exponent52())), broadcastDouble(4503599627370496.0));
}
inline I toInteger(D x) {
  return _mm256_xor_si256(_mm256_castpd_si256(add(x, broadcastDouble(4503599627370496.0))), exponent52());
}

struct Modulus {
  D q, inverse;
  explicit Modulus(const Prime& p)
      : q(broadcastDouble(double(p.q))), inverse(broadcastDouble(1.0 / double(p.q))) {}

  D mul(D y, D w, D ratio) const {  // ratio = fl(w / q)
    const D h = _mm256_mul_pd(y, w);
    const D l = _mm256_fmsub_pd(y, w, h);
    const D c = roundNearest(_mm256_mul_pd(y, ratio));
    return add(_mm256_fnmadd_pd(c, q, h), l);
  }
  // |x| <= 2^53 to about [-q/2, q/2]: the quotient is below 2^53 / q, its error far below 1/2.
  D reduce(D x) const { return _mm256_fnmadd_pd(roundNearest(_mm256_mul_pd(x, inverse)), q, x); }
  // |x| < q to [0, q).
  D nonNegative(D x) const {
    return add(x, _mm256_and_pd(q, _mm256_cmp_pd(x, _mm256_setzero_pd(), _CMP_LT_OQ)));
  }
  I canonical(D x) const { return toInteger(nonNegative(reduce(x))); }
};

}  // namespace
}  // namespace aegis::cpu
