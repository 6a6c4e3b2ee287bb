// NTT for AVX-512 IFMA. Four layers at a time: sixteen vectors at stride s are loaded, transformed in
// registers and stored, depth first, so that a 4096-word block (32 KiB) and then its 256-word blocks stay in
// the first-level cache. The last four layers (strides 8, 4, 2, 1) work inside pairs of vectors.
//
// Ranges, all modulo 2^52: multiplications ignore higher bits, and only what is compared or stored is masked.
// Below 2^46 ("small") a forward value starts in [17q, 18q), moves by at most q a layer either way and stays
// in [0, 35q) after 17 layers, below 2^52: no correction at all. Otherwise Harvey: values in [0, 4q), the
// untwiddled operand of each butterfly is brought to [0, 2q). Inverse, small: sums double for four layers (2q
// to 32q < 2^52) and are reduced once per pass; otherwise each sum is brought back to [0, 2q).
//
// Floors on Zen 4, where a cycle starts two 512-bit operations, one multiplication, comparison or shuffle:
// a butterfly is 3 multiplications and 2 (small) or 6 other operations, 3 or 4.5 cycles; N = 2^16 has 65536
// butterflies of eight words, 32768 shuffles and 8192 final corrections of 5 operations: 250 thousand cycles
// if small, else 348 thousand, 69 and 96 us at 3.63 GHz. Memory: 1.1 MiB in (row and twiddles), 0.5 MiB out.
#include "backends/cpu/avx512ifma/vector.h"
#include "backends/cpu/row_ops.h"

namespace aegis::cpu {
namespace {

constexpr uint64_t kSmallPrime = uint64_t(1) << 46;
constexpr int kTailPairs = 8;

// (x, y) to (x + w y, x - w y), modulo 2^52. If small, w y - q in [-q, q) is added and subtracted.
template <bool kSmall>
inline void forwardButterfly(V& x, V& y, V w, V companion, const Modulus& m) {
  const V quotient = mulHigh(y, companion);
  if constexpr (kSmall) {
    const V t = maddLow(maddLow(m.minusQ, y, w), quotient, m.minusQ);
    y = sub(x, t);
    x = add(x, t);
  } else {
    x = subtractOnce(m.clean(x), m.twoQ);
    const V t = maddLow(mulLow(y, w), quotient, m.minusQ);
    y = sub(add(x, m.twoQ), t);
    x = add(x, t);
  }
}

// x, y in [0, bound), modulo 2^52, to (x + y, (x - y) w); bound is a multiple of q (2q unless small), and the
// sum is left unreduced if small.
template <bool kSmall>
inline void inverseButterfly(V& x, V& y, V w, V companion, V bound, const Modulus& m) {
  const V difference = add(sub(x, y), bound);
  x = add(x, y);
  y = m.mulShoup(difference, w, companion);
  if constexpr (!kSmall) x = subtractOnce(m.clean(x), m.twoQ);
}

struct Plan {
  const uint64_t* w;
  const uint64_t* companion;
  Modulus m;
  const uint64_t *out, *ahead;
  Plan(const uint64_t* twiddles, const uint64_t* companions, const Prime& p, const uint64_t* row,
       const uint64_t* next)
      : w(twiddles), companion(companions), m(p), out(row), ahead(next) {}
  // Of the row that is transformed next, the words that lie as `at` does in this one: memory is waited for by
  // nobody if it is asked while another row is computed.
  void prefetchPair(const uint64_t* at) const {
    const uint64_t* next = ahead + (at - out);
    _mm_prefetch(next, _MM_HINT_T1);
    _mm_prefetch(next + 8, _MM_HINT_T1);
  }
};

// R layers over 2^R rows of s words; `node` = m + i of block i in the first of these layers. kFirst: in holds
// canonical residues.
template <int R, bool kSmall, bool kFirst>
void forwardPass(uint64_t* out, const uint64_t* in, size_t s, size_t node, const Plan& plan) {
  constexpr int n = 1 << R;
  const Modulus m = plan.m;
  for (size_t k = 0; k < s; k += 8) {
    V x[n];
#pragma GCC unroll 16
    for (int i = 0; i < n; i++) x[i] = load(in + i * s + k);
    if constexpr (kSmall && kFirst) {
#pragma GCC unroll 8
      for (int i = 0; i < n / 2; i++) x[i] = add(x[i], m.offset);
    }
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
        if (kSmall && layer == 0) x[at] = m.barrett(x[at]);
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

// Twiddles of strides 4, 2 and 1 for the pair of vectors whose stride-8 twiddle is entry `node`, repeated.
inline V twiddles4(const uint64_t* w, size_t node) {
  return _mm512_broadcast_i64x2(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w + 2 * node)));
}
inline V twiddles2(const uint64_t* w, size_t node) {
  return _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + 4 * node)));
}
inline V twiddles1(const uint64_t* w, size_t node) { return load(w + 8 * node); }

// Twiddles come from memory once in a transform: those of the block of 256 words that follows are asked for,
// 1/16 of them with each pair of vectors. Of strides 2 and 1, three quarters of all, only companions are
// read.
inline void prefetchTwiddles(const uint64_t* w, const uint64_t* companion, size_t node) {
  const size_t next = node + 16;
  _mm_prefetch(companion + 8 * next, _MM_HINT_T0);
  if (node % 2 == 0) _mm_prefetch(companion + 4 * next, _MM_HINT_T0);
  if (node % 4 == 0) _mm_prefetch(companion + 2 * next, _MM_HINT_T0), _mm_prefetch(w + 2 * next, _MM_HINT_T0);
  if (node % 8 == 0) _mm_prefetch(companion + next, _MM_HINT_T0), _mm_prefetch(w + next, _MM_HINT_T0);
}

// A perfect shuffle of the 16 words of (x, y) brings the operands of the next stride's butterflies under one
// another: (0 8 1 9 2 10 3 11, 4 12 5 13 6 14 7 15) for stride 4, its twiddles in turn; a second and a third
// one do so for strides 2 and 1, and a fourth restores the order.
inline void shuffle(V& x, V& y) {
  const V x0 = x;
  x = _mm512_permutex2var_epi64(x0, _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0), y);
  y = _mm512_permutex2var_epi64(x0, _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4), y);
}
inline void unshuffle(V& x, V& y) {
  const V x0 = x;
  x = _mm512_permutex2var_epi64(x0, _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0), y);
  y = _mm512_permutex2var_epi64(x0, _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1), y);
}

// What is stored of a forward transform. Values are below 35 q if small, else below 4q.
struct Transformed {
  V operator()(V x, const uint64_t*, const Modulus& m) const {
    return subtractOnce(m.clean(m.barrett(x)), m.q);
  }
};

// (a - x) scalar: the difference stays in (0, 3q). The jumps of the passes defeat the prefetchers: a is asked
// for kAhead words before its use.
struct SubScaled {
  static constexpr ptrdiff_t kAhead = 2048;

  const uint64_t *out, *a;
  uint64_t scalar, companion;

  V operator()(V x, const uint64_t* to, const Modulus& m) const {
    const uint64_t* from = a + (to - out);
    _mm_prefetch(from + kAhead, _MM_HINT_T0);
    const V difference = add(sub(load(from), m.barrett(x)), m.twoQ);
    return subtractOnce(m.clean(m.mulShoup(difference, broadcast(scalar), broadcast(companion))), m.q);
  }
};

// P pairs of vectors side by side hide the latency of one chain (about 70 cycles); P divides words / 16.
template <bool kSmall, int P, class Finish>
void forwardTailStep(uint64_t* out, const uint64_t* in, size_t node, const Plan& plan, const Modulus& m,
                     const Finish& finish) {
  const uint64_t *w = plan.w, *c = plan.companion;
  V x[P], y[P];
#define AEGIS_EACH_PAIR(p) _Pragma("GCC unroll 8") for (int p = 0; p < P; p++)
  AEGIS_EACH_PAIR (p) prefetchTwiddles(w, c, node + p), plan.prefetchPair(out + 16 * p);
  AEGIS_EACH_PAIR (p) x[p] = load(in + 16 * p), y[p] = load(in + 16 * p + 8);
  AEGIS_EACH_PAIR (p)
    forwardButterfly<kSmall>(x[p], y[p], broadcast(w[node + p]), broadcast(c[node + p]), m);
  AEGIS_EACH_PAIR (p) shuffle(x[p], y[p]);
  AEGIS_EACH_PAIR (p)
    forwardButterfly<kSmall>(x[p], y[p], twiddles4(w, node + p), twiddles4(c, node + p), m);
  AEGIS_EACH_PAIR (p) shuffle(x[p], y[p]);
  AEGIS_EACH_PAIR (p) {
    const V companion = twiddles2(c, node + p);
    forwardButterfly<kSmall>(x[p], y[p], m.fromCompanion(companion), companion, m);
  }
  AEGIS_EACH_PAIR (p) shuffle(x[p], y[p]);
  AEGIS_EACH_PAIR (p) {
    const V companion = twiddles1(c, node + p);
    forwardButterfly<kSmall>(x[p], y[p], m.fromCompanion(companion), companion, m);
  }
  AEGIS_EACH_PAIR (p) shuffle(x[p], y[p]);
  AEGIS_EACH_PAIR (p) {
    uint64_t *low = out + 16 * p, *high = low + 8;
    store(low, finish(x[p], low, m));
    store(high, finish(y[p], high, m));
  }
}

template <bool kSmall, class Finish>
void forwardTail(uint64_t* out, const uint64_t* in, size_t words, size_t node, const Plan& plan,
                 const Finish& finish) {
  const Modulus m = plan.m;
  if (words == 16) return forwardTailStep<kSmall, 1>(out, in, node, plan, m, finish);
  if (words == 32) return forwardTailStep<kSmall, 2>(out, in, node, plan, m, finish);
  if (words == 64) return forwardTailStep<kSmall, 4>(out, in, node, plan, m, finish);
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
  AEGIS_EACH_PAIR (p) prefetchTwiddles(w, c, node + p), plan.prefetchPair(out + 16 * p);
  AEGIS_EACH_PAIR (p) x[p] = load(in + 16 * p), y[p] = load(in + 16 * p + 8);
  AEGIS_EACH_PAIR (p) unshuffle(x[p], y[p]);
  AEGIS_EACH_PAIR (p) {
    const V companion = twiddles1(c, node + p);
    inverseButterfly<kSmall>(x[p], y[p], m.fromCompanion(companion), companion, bound1, m);
  }
  AEGIS_EACH_PAIR (p) unshuffle(x[p], y[p]);
  AEGIS_EACH_PAIR (p) {
    const V companion = twiddles2(c, node + p);
    inverseButterfly<kSmall>(x[p], y[p], m.fromCompanion(companion), companion, bound2, m);
  }
  AEGIS_EACH_PAIR (p) unshuffle(x[p], y[p]);
  AEGIS_EACH_PAIR (p)
    inverseButterfly<kSmall>(x[p], y[p], twiddles4(w, node + p), twiddles4(c, node + p), bound4, m);
  AEGIS_EACH_PAIR (p) unshuffle(x[p], y[p]);
  AEGIS_EACH_PAIR (p) {
    if constexpr (kLast) {
      const V sum = add(x[p], y[p]), difference = add(sub(x[p], y[p]), bound8);
      x[p] = m.mulShoup(sum, broadcast(t.nInverse), broadcast(t.nInverseCompanion));
      y[p] = m.mulShoup(difference, broadcast(t.nInverseTwiddle), broadcast(t.nInverseTwiddleCompanion));
      x[p] = subtractOnce(m.clean(x[p]), m.q);
      y[p] = subtractOnce(m.clean(y[p]), m.q);
    } else {
      inverseButterfly<kSmall>(x[p], y[p], broadcast(w[node + p]), broadcast(c[node + p]), bound8, m);
      if (kSmall) x[p] = m.barrett(x[p]);
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
template <bool kSmall, bool kFirst, class Finish>
void forwardBlock(uint64_t* out, const uint64_t* in, uint32_t log, size_t node, const Plan& plan,
                  const Finish& finish) {
  const size_t s = size_t(1) << (log - 4);
  forwardPass<4, kSmall, kFirst>(out, in, s, node, plan);
  if (log == 8) return forwardTail<kSmall>(out, out, 256, 16 * node, plan, finish);
  for (size_t i = 0; i < 16; i++)
    forwardBlock<kSmall, false>(out + i * s, out + i * s, log - 4, 16 * node + i, plan, finish);
}

template <bool kSmall, class Finish>
void forward(uint64_t* out, const uint64_t* in, const uint64_t* ahead, const NttTable& table,
             const Finish& finish) {
  const Plan plan(table.words.forward, table.words.forwardCompanion, table.prime, out, ahead);
  const uint32_t log = table.logN & ~3u, first = table.logN & 3u;
  const size_t s = size_t(1) << log;
  if (first == 1) forwardPass<1, kSmall, true>(out, in, s, 1, plan);
  if (first == 2) forwardPass<2, kSmall, true>(out, in, s, 1, plan);
  if (first == 3) forwardPass<3, kSmall, true>(out, in, s, 1, plan);
  const size_t blocks = size_t(1) << first;
  if (log == 4) return forwardTail<kSmall>(out, first != 0 ? out : in, 16 * blocks, blocks, plan, finish);
  if (first == 0) return forwardBlock<kSmall, true>(out, in, log, 1, plan, finish);
  for (size_t i = 0; i < blocks; i++)
    forwardBlock<kSmall, false>(out + i * s, out + i * s, log, blocks + i, plan, finish);
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
void inverse(uint64_t* out, const uint64_t* in, const uint64_t* ahead, const NttTable& table) {
  const Twiddles<uint64_t>& words = table.words;
  const Plan plan(words.inverse, words.inverseCompanion, table.prime, out, ahead);
  const uint32_t log = table.logN & ~3u, last = table.logN & 3u;
  if (last == 0) return inverseBlock<kSmall, true>(out, in, log, 1, plan, words);
  const size_t s = size_t(1) << log, blocks = size_t(1) << last;
  for (size_t i = 0; i < blocks; i++)
    inverseBlock<kSmall, false>(out + i * s, in + i * s, log, blocks + i, plan, words);
  if (last == 1) inversePass<1, kSmall, true>(out, out, s, 1, plan, words);
  if (last == 2) inversePass<2, kSmall, true>(out, out, s, 1, plan, words);
  if (last == 3) inversePass<3, kSmall, true>(out, out, s, 1, plan, words);
}

// A row of 16 words has no pass in which its offset could be added.
bool isSmall(const NttTable& table) { return table.prime.q < kSmallPrime && table.logN > 4; }

}  // namespace

void nttAvx512ifma(uint64_t* out, const uint64_t* a, const uint64_t* ahead, const NttTable& table) {
  isSmall(table) ? forward<true>(out, a, ahead, table, Transformed{})
                 : forward<false>(out, a, ahead, table, Transformed{});
}

void nttSubScaleAvx512ifma(uint64_t* out, const uint64_t* a, const uint64_t* b, const uint64_t* ahead,
                           uint64_t scalar, const NttTable& table) {
  const uint64_t companion = uint64_t((static_cast<unsigned __int128>(scalar) << 52) / table.prime.q);
  const SubScaled finish{out, a, scalar, companion};
  isSmall(table) ? forward<true>(out, b, ahead, table, finish) : forward<false>(out, b, ahead, table, finish);
}

void inttAvx512ifma(uint64_t* out, const uint64_t* a, const uint64_t* ahead, const NttTable& table) {
  isSmall(table) ? inverse<true>(out, a, ahead, table) : inverse<false>(out, a, ahead, table);
}

}  // namespace aegis::cpu
