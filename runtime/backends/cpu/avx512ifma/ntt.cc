// NTT for AVX-512 IFMA. Four layers at a time: sixteen vectors at stride s are loaded, transformed in
// registers and stored, depth first, so that a 4096-word block (32 KiB) and then its 256-word blocks stay in
// the first-level cache. The last four layers (strides 8, 4, 2, 1) work inside pairs of vectors.
//
// Ranges. Below 2^46 ("small") a forward value only grows: by 2q a layer from [0, q), below 35q < 2^52 after
// 17 layers, no correction at all, arithmetic modulo 2^52. Otherwise Harvey: values in [0, 4q), the
// untwiddled operand of each butterfly is brought to [0, 2q). Inverse, small: sums double for four layers (2q
// to 32q < 2^52) and are reduced once per pass; otherwise each sum is brought back to [0, 2q).
#include "backends/cpu/avx512ifma/vector.h"
#include "backends/cpu/row_ops.h"

namespace aegis::cpu {
namespace {

constexpr uint64_t kSmallPrime = uint64_t(1) << 46;
constexpr int kTailPairs = 4;

template <bool kSmall>
inline void forwardButterfly(V& x, V& y, V w, V companion, const Modulus& m) {
  if constexpr (!kSmall) x = subtractOnce(x, m.twoQ);
  V t = m.mulShoup(y, w, companion);
  if constexpr (!kSmall) t = m.clean(t);
  y = sub(add(x, m.twoQ), t);
  x = add(x, t);
}

// x, y in [0, bound) with bound a multiple of q (2q unless small); the sum is left unreduced if small.
template <bool kSmall>
inline void inverseButterfly(V& x, V& y, V w, V companion, V bound, const Modulus& m) {
  const V difference = add(sub(x, y), bound);
  x = add(x, y);
  y = m.mulShoup(difference, w, companion);
  if constexpr (!kSmall) {
    x = subtractOnce(x, m.twoQ);
    y = m.clean(y);
  }
}

struct Plan {
  const uint64_t* w;
  const uint64_t* companion;
  Modulus m;
  Plan(const uint64_t* twiddles, const uint64_t* companions, const Prime& p)
      : w(twiddles), companion(companions), m(p) {}
};

// R layers over 2^R rows of s words; `node` = m + i of block i in the first of these layers.
template <int R, bool kSmall>
void forwardPass(uint64_t* out, const uint64_t* in, size_t s, size_t node, const Plan& plan) {
  constexpr int n = 1 << R;
  const Modulus m = plan.m;
  for (size_t k = 0; k < s; k += 8) {
    V x[n];
#pragma GCC unroll 16
    for (int i = 0; i < n; i++) x[i] = load(in + i * s + k);
#pragma GCC unroll 4
    for (int layer = 0; layer < R; layer++) {
      const int half = n >> (layer + 1);
#pragma GCC unroll 8
      for (int j = 0; j < n / 2; j++) {
        const int block = j / half, at = 2 * block * half + j % half;
        const size_t t = (node << layer) + size_t(block);
        forwardButterfly<kSmall>(x[at], x[at + half], broadcast(plan.w[t]), broadcast(plan.companion[t]), m);
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; i++) store(out + i * s + k, x[i]);
  }
}

// Layers from the smallest stride up; kLast: the last of them is the top layer, which also divides by N.
template <int R, bool kSmall, bool kLast>
void inversePass(uint64_t* out, const uint64_t* in, size_t s, size_t node, const Plan& plan,
                 const Twiddles<uint64_t>& words) {
  constexpr int n = 1 << R;
  const Modulus m = plan.m;
  for (size_t k = 0; k < s; k += 8) {
    V x[n];
#pragma GCC unroll 16
    for (int i = 0; i < n; i++) x[i] = load(in + i * s + k);
    V bound = m.twoQ;
#pragma GCC unroll 4
    for (int layer = R - 1; layer >= (kLast ? 1 : 0); layer--) {
      const int half = n >> (layer + 1);
#pragma GCC unroll 8
      for (int j = 0; j < n / 2; j++) {
        const int block = j / half, at = 2 * block * half + j % half;
        const size_t t = (node << layer) + size_t(block);
        inverseButterfly<kSmall>(x[at], x[at + half], broadcast(plan.w[t]), broadcast(plan.companion[t]),
                                 bound, m);
        if (kSmall && layer == 0) x[at] = m.clean(m.barrett(x[at]));
      }
      if (kSmall) bound = add(bound, bound);
    }
    if constexpr (kLast) {
      const V w0 = broadcast(words.nInverse), c0 = broadcast(words.nInverseCompanion);
      const V w1 = broadcast(words.nInverseTwiddle), c1 = broadcast(words.nInverseTwiddleCompanion);
#pragma GCC unroll 8
      for (int i = 0; i < n / 2; i++) {
        const V sum = add(x[i], x[i + n / 2]), difference = add(sub(x[i], x[i + n / 2]), bound);
        x[i] = subtractOnce(m.clean(m.mulShoup(sum, w0, c0)), m.q);
        x[i + n / 2] = subtractOnce(m.clean(m.mulShoup(difference, w1, c1)), m.q);
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; i++) store(out + i * s + k, x[i]);
  }
}

// Twiddles of strides 4, 2 and 1 for the pair of vectors whose stride-8 twiddle is entry `node`.
inline V twiddles4(const uint64_t* w, size_t node) {
  const V pair = _mm512_castsi128_si512(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w + 2 * node)));
  return _mm512_permutexvar_epi64(_mm512_set_epi64(1, 1, 1, 1, 0, 0, 0, 0), pair);
}
inline V twiddles2(const uint64_t* w, size_t node) {
  const V four = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + 4 * node)));
  return _mm512_permutexvar_epi64(_mm512_set_epi64(3, 3, 2, 2, 1, 1, 0, 0), four);
}
inline V twiddles1(const uint64_t* w, size_t node) { return load(w + 8 * node); }

// Pairs of 128-bit lanes: (x0 x1 x2 x3, y0 y1 y2 y3) to (x0 y0 x2 y2, x1 y1 x3 y3), its own inverse.
inline void exchangeLanes(V& x, V& y) {
  const V even = _mm512_set_epi64(13, 12, 5, 4, 9, 8, 1, 0),
          odd = _mm512_set_epi64(15, 14, 7, 6, 11, 10, 3, 2);
  const V x0 = x;
  x = _mm512_permutex2var_epi64(x0, even, y);
  y = _mm512_permutex2var_epi64(x0, odd, y);
}
// (x0 .. x3, y0 .. y3) to (x0 x1 y0 y1, x2 x3 y2 y3), its own inverse.
inline void exchangeHalves(V& x, V& y) {
  const V x0 = x;
  x = _mm512_shuffle_i64x2(x0, y, 0x44);
  y = _mm512_shuffle_i64x2(x0, y, 0xEE);
}
// Even and odd words apart within lanes, its own inverse.
inline void exchangeWords(V& x, V& y) {
  const V x0 = x;
  x = _mm512_unpacklo_epi64(x0, y);
  y = _mm512_unpackhi_epi64(x0, y);
}

// What is stored of a forward transform. Values are below 35 q if small, else in [0, 4q).
struct Transformed {
  template <bool kSmall>
  V operator()(V x, const uint64_t*, const Modulus& m) const {
    return kSmall ? subtractOnce(m.clean(m.barrett(x)), m.q) : m.canonical(x);
  }
};

// (a - x) scalar: the difference stays in (0, 3q). The jumps of the passes defeat the prefetchers: a is asked
// for kAhead words before its use.
struct SubScaled {
  static constexpr ptrdiff_t kAhead = 2048;

  const uint64_t *out, *a;
  uint64_t scalar, companion;

  template <bool kSmall>
  V operator()(V x, const uint64_t* to, const Modulus& m) const {
    const uint64_t* from = a + (to - out);
    _mm_prefetch(from + kAhead, _MM_HINT_T0);
    const V reduced = kSmall ? m.clean(m.barrett(x)) : subtractOnce(x, m.twoQ);
    const V difference = add(sub(load(from), reduced), m.twoQ);
    return subtractOnce(m.clean(m.mulShoup(difference, broadcast(scalar), broadcast(companion))), m.q);
  }
};

// P pairs of vectors side by side hide the latency of one chain (about 70 cycles); P divides words / 16.
template <bool kSmall, int P, class Finish>
void forwardTailStep(uint64_t* out, const uint64_t* in, size_t node, const Plan& plan, const Modulus& m,
                     const Finish& finish) {
  const uint64_t *w = plan.w, *c = plan.companion;
  V x[P], y[P];
#define AEGIS_EACH_PAIR(p) _Pragma("GCC unroll 4") for (int p = 0; p < P; p++)
  AEGIS_EACH_PAIR (p) x[p] = load(in + 16 * p), y[p] = load(in + 16 * p + 8);
  AEGIS_EACH_PAIR (p) forwardButterfly<kSmall>(x[p], y[p], broadcast(w[node + p]), broadcast(c[node + p]), m);
  AEGIS_EACH_PAIR (p) exchangeHalves(x[p], y[p]);
  AEGIS_EACH_PAIR (p) forwardButterfly<kSmall>(x[p], y[p], twiddles4(w, node + p), twiddles4(c, node + p), m);
  AEGIS_EACH_PAIR (p) exchangeLanes(x[p], y[p]);
  AEGIS_EACH_PAIR (p) forwardButterfly<kSmall>(x[p], y[p], twiddles2(w, node + p), twiddles2(c, node + p), m);
  AEGIS_EACH_PAIR (p) exchangeWords(x[p], y[p]);
  AEGIS_EACH_PAIR (p) forwardButterfly<kSmall>(x[p], y[p], twiddles1(w, node + p), twiddles1(c, node + p), m);
  AEGIS_EACH_PAIR (p) exchangeWords(x[p], y[p]);
  AEGIS_EACH_PAIR (p) exchangeLanes(x[p], y[p]);
  AEGIS_EACH_PAIR (p) exchangeHalves(x[p], y[p]);
  AEGIS_EACH_PAIR (p) {
    uint64_t *low = out + 16 * p, *high = low + 8;
    store(low, finish.template operator()<kSmall>(x[p], low, m));
    store(high, finish.template operator()<kSmall>(y[p], high, m));
  }
}

template <bool kSmall, class Finish>
void forwardTail(uint64_t* out, const uint64_t* in, size_t words, size_t node, const Plan& plan,
                 const Finish& finish) {
  const Modulus m = plan.m;
  if (words == 16) return forwardTailStep<kSmall, 1>(out, in, node, plan, m, finish);
  if (words == 32) return forwardTailStep<kSmall, 2>(out, in, node, plan, m, finish);
  for (size_t k = 0; k < words; k += 16 * kTailPairs, node += kTailPairs)
    forwardTailStep<kSmall, kTailPairs>(out + k, in + k, node, plan, m, finish);
}

template <bool kSmall, bool kLast, int P>
void inverseTailStep(uint64_t* out, const uint64_t* in, size_t node, const Plan& plan, const Modulus& m,
                     const Twiddles<uint64_t>& t) {
  const uint64_t *w = plan.w, *c = plan.companion;
  const V bound1 = m.twoQ, bound2 = kSmall ? add(bound1, bound1) : m.twoQ;
  const V bound4 = kSmall ? add(bound2, bound2) : m.twoQ, bound8 = kSmall ? add(bound4, bound4) : m.twoQ;
  V x[P], y[P];
  AEGIS_EACH_PAIR (p) x[p] = load(in + 16 * p), y[p] = load(in + 16 * p + 8);
  AEGIS_EACH_PAIR (p) exchangeHalves(x[p], y[p]);
  AEGIS_EACH_PAIR (p) exchangeLanes(x[p], y[p]);
  AEGIS_EACH_PAIR (p) exchangeWords(x[p], y[p]);
  AEGIS_EACH_PAIR (p)
    inverseButterfly<kSmall>(x[p], y[p], twiddles1(w, node + p), twiddles1(c, node + p), bound1, m);
  AEGIS_EACH_PAIR (p) exchangeWords(x[p], y[p]);
  AEGIS_EACH_PAIR (p)
    inverseButterfly<kSmall>(x[p], y[p], twiddles2(w, node + p), twiddles2(c, node + p), bound2, m);
  AEGIS_EACH_PAIR (p) exchangeLanes(x[p], y[p]);
  AEGIS_EACH_PAIR (p)
    inverseButterfly<kSmall>(x[p], y[p], twiddles4(w, node + p), twiddles4(c, node + p), bound4, m);
  AEGIS_EACH_PAIR (p) exchangeHalves(x[p], y[p]);
  AEGIS_EACH_PAIR (p) {
    if constexpr (kLast) {
      const V sum = add(x[p], y[p]), difference = add(sub(x[p], y[p]), bound8);
      x[p] = m.mulShoup(sum, broadcast(t.nInverse), broadcast(t.nInverseCompanion));
      y[p] = m.mulShoup(difference, broadcast(t.nInverseTwiddle), broadcast(t.nInverseTwiddleCompanion));
      x[p] = subtractOnce(m.clean(x[p]), m.q);
      y[p] = subtractOnce(m.clean(y[p]), m.q);
    } else {
      inverseButterfly<kSmall>(x[p], y[p], broadcast(w[node + p]), broadcast(c[node + p]), bound8, m);
      if (kSmall) x[p] = m.clean(m.barrett(x[p]));
    }
  }
  AEGIS_EACH_PAIR (p) store(out + 16 * p, x[p]), store(out + 16 * p + 8, y[p]);
#undef AEGIS_EACH_PAIR
}

template <bool kSmall, bool kLast>
void inverseTail(uint64_t* out, const uint64_t* in, size_t words, size_t node, const Plan& plan,
                 const Twiddles<uint64_t>& t) {
  const Modulus m = plan.m;
  if (words == 16) return inverseTailStep<kSmall, kLast, 1>(out, in, node, plan, m, t);
  for (size_t k = 0; k < words; k += 16 * kTailPairs, node += kTailPairs)
    inverseTailStep<kSmall, kLast, kTailPairs>(out + k, in + k, node, plan, m, t);
}

// A block of 2^log words, log a multiple of 4, from 8: `node` is its entry in the first layer it still needs.
template <bool kSmall, class Finish>
void forwardBlock(uint64_t* out, const uint64_t* in, uint32_t log, size_t node, const Plan& plan,
                  const Finish& finish) {
  const size_t s = size_t(1) << (log - 4);
  forwardPass<4, kSmall>(out, in, s, node, plan);
  if (log == 8) return forwardTail<kSmall>(out, out, 256, 16 * node, plan, finish);
  for (size_t i = 0; i < 16; i++)
    forwardBlock<kSmall>(out + i * s, out + i * s, log - 4, 16 * node + i, plan, finish);
}

template <bool kSmall, class Finish>
void forward(uint64_t* out, const uint64_t* in, const NttTable& table, const Finish& finish) {
  const Plan plan(table.words.forward, table.words.forwardCompanion, table.prime);
  const uint32_t log = table.logN & ~3u, first = table.logN & 3u;
  const size_t s = size_t(1) << log;
  if (first == 1) forwardPass<1, kSmall>(out, in, s, 1, plan);
  if (first == 2) forwardPass<2, kSmall>(out, in, s, 1, plan);
  if (first == 3) forwardPass<3, kSmall>(out, in, s, 1, plan);
  const size_t blocks = size_t(1) << first;
  if (log == 4) return forwardTail<kSmall>(out, first != 0 ? out : in, 16 * blocks, blocks, plan, finish);
  for (size_t i = 0; i < blocks; i++)
    forwardBlock<kSmall>(out + i * s, (first != 0 ? out : in) + i * s, log, blocks + i, plan, finish);
}

// kLast: the block is the whole row.
template <bool kSmall, bool kLast>
void inverseBlock(uint64_t* out, const uint64_t* in, uint32_t log, size_t node, const Plan& plan,
                  const Twiddles<uint64_t>& words) {
  if (log == 4) return inverseTail<kSmall, kLast>(out, in, 16, node, plan, words);
  const size_t s = size_t(1) << (log - 4);
  if (log == 8) {
    inverseTail<kSmall, false>(out, in, 256, 16 * node, plan, words);
  } else {
    for (size_t i = 0; i < 16; i++)
      inverseBlock<kSmall, false>(out + i * s, in + i * s, log - 4, 16 * node + i, plan, words);
  }
  inversePass<4, kSmall, kLast>(out, out, s, node, plan, words);
}

template <bool kSmall>
void inverse(uint64_t* out, const uint64_t* in, const NttTable& table) {
  const Twiddles<uint64_t>& words = table.words;
  const Plan plan(words.inverse, words.inverseCompanion, table.prime);
  const uint32_t log = table.logN & ~3u, last = table.logN & 3u;
  if (last == 0) return inverseBlock<kSmall, true>(out, in, log, 1, plan, words);
  const size_t s = size_t(1) << log, blocks = size_t(1) << last;
  for (size_t i = 0; i < blocks; i++)
    inverseBlock<kSmall, false>(out + i * s, in + i * s, log, blocks + i, plan, words);
  if (last == 1) inversePass<1, kSmall, true>(out, out, s, 1, plan, words);
  if (last == 2) inversePass<2, kSmall, true>(out, out, s, 1, plan, words);
  if (last == 3) inversePass<3, kSmall, true>(out, out, s, 1, plan, words);
}

}  // namespace

void nttAvx512ifma(uint64_t* out, const uint64_t* a, const NttTable& table) {
  table.prime.q < kSmallPrime ? forward<true>(out, a, table, Transformed{})
                              : forward<false>(out, a, table, Transformed{});
}

void nttSubScaleAvx512ifma(uint64_t* out, const uint64_t* a, const uint64_t* b, uint64_t scalar,
                           const NttTable& table) {
  const uint64_t companion = uint64_t((static_cast<unsigned __int128>(scalar) << 52) / table.prime.q);
  const SubScaled finish{out, a, scalar, companion};
  table.prime.q < kSmallPrime ? forward<true>(out, b, table, finish) : forward<false>(out, b, table, finish);
}

void inttAvx512ifma(uint64_t* out, const uint64_t* a, const NttTable& table) {
  table.prime.q < kSmallPrime ? inverse<true>(out, a, table) : inverse<false>(out, a, table);
}

}  // namespace aegis::cpu
