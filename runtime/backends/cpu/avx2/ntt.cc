// NTT for AVX2 in double precision (vector.h). Three layers at a time on eight vectors at stride s, depth
// first for the caches; the last three layers (strides 4, 2, 1) inside pairs of vectors. Between passes the
// doubles live in the output row, bit for bit.
//
// Ranges, in units of q. Forward: a pass first reduces the four rows that its first layer does not multiply,
// so with inputs up to b: 1/2, T <= 0.5 + 0.19 b; after layers 1, 2, 3 the values are below 1 + 0.19 b, 1.7 +
// 0.23 b and 2.5 + 0.27 b, hence b <= 3.5 throughout. Inverse: sums double per layer. Inputs up to 1.25: 2.5
// after one layer, sums of sums 5 after two (reduced there to 1/2, others stay below 2), 4 after three, where
// sums are reduced to 1/2 and products are below 0.5 + 0.19 * 4 = 1.25.
#include <cstring>

#include "backends/cpu/avx2/vector.h"
#include "backends/cpu/row_ops.h"

namespace aegis::cpu {
namespace {

inline D loadDouble(const uint64_t* p) { return _mm256_castsi256_pd(load(p)); }
inline void storeDouble(uint64_t* p, D x) { store(p, _mm256_castpd_si256(x)); }

struct Plan {
  const double* w;
  const double* ratio;
  Modulus m;
};

inline void forwardButterfly(D& x, D& y, D w, D ratio, const Modulus& m) {
  const D t = m.mul(y, w, ratio);
  y = sub(x, t);
  x = add(x, t);
}

inline void inverseButterfly(D& x, D& y, D w, D ratio, const Modulus& m) {
  const D difference = sub(x, y);
  x = add(x, y);
  y = m.mul(difference, w, ratio);
}

// R layers over 2^R rows of s words; `node` = m + i of block i in the first of them. kFirst: rows hold
// integers.
template <int R, bool kFirst>
void forwardPass(uint64_t* out, const uint64_t* in, size_t s, size_t node, const Plan& plan) {
  constexpr int n = 1 << R;
  const Modulus m = plan.m;
  for (size_t k = 0; k < s; k += 4) {
    D x[n];
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) {
      x[i] = kFirst ? toDouble(load(in + i * s + k)) : loadDouble(in + i * s + k);
      if (!kFirst && i < n / 2) x[i] = m.reduce(x[i]);
    }
#pragma GCC unroll 3
    for (int layer = 0; layer < R; layer++) {
      const int half = n >> (layer + 1);
#pragma GCC unroll 4
      for (int j = 0; j < n / 2; j++) {
        const int block = j / half, at = 2 * block * half + j % half;
        const size_t t = (node << layer) + size_t(block);
        forwardButterfly(x[at], x[at + half], broadcastDouble(plan.w[t]), broadcastDouble(plan.ratio[t]), m);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) storeDouble(out + i * s + k, x[i]);
  }
}

// kLast: the last layer is the top one; it divides by N and writes integers.
template <int R, bool kLast>
void inversePass(uint64_t* out, size_t s, size_t node, const Plan& plan, const Twiddles<double>& t) {
  constexpr int n = 1 << R;
  const Modulus m = plan.m;
  for (size_t k = 0; k < s; k += 4) {
    D x[n];
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) x[i] = loadDouble(out + i * s + k);
#pragma GCC unroll 3
    for (int layer = R - 1; layer >= (kLast ? 1 : 0); layer--) {
      const int half = n >> (layer + 1);
#pragma GCC unroll 4
      for (int j = 0; j < n / 2; j++) {
        const int block = j / half, at = 2 * block * half + j % half;
        const size_t i = (node << layer) + size_t(block);
        inverseButterfly(x[at], x[at + half], broadcastDouble(plan.w[i]), broadcastDouble(plan.ratio[i]), m);
        // After the last layer, and sums of sums after the second of three.
        if (layer == 0 || (R == 3 && layer == 1 && at % half == 0)) x[at] = m.reduce(x[at]);
      }
    }
    if constexpr (kLast) {
#pragma GCC unroll 4
      for (int i = 0; i < n / 2; i++) {
        const D sum = add(x[i], x[i + n / 2]), difference = sub(x[i], x[i + n / 2]);
        const D a = m.mul(sum, broadcastDouble(t.nInverse), broadcastDouble(t.nInverseCompanion));
        const D b = m.mul(difference, broadcastDouble(t.nInverseTwiddle),
                          broadcastDouble(t.nInverseTwiddleCompanion));
        store(out + i * s + k, m.canonical(a));
        store(out + (i + n / 2) * s + k, m.canonical(b));
      }
    } else {
#pragma GCC unroll 8
      for (int i = 0; i < n; i++) storeDouble(out + i * s + k, x[i]);
    }
  }
}

// (x0 x1 x2 x3, y0 y1 y2 y3) to (x0 x1 y0 y1, x2 x3 y2 y3), its own inverse.
inline void exchangeHalves(D& x, D& y) {
  const D x0 = x;
  x = _mm256_permute2f128_pd(x0, y, 0x20);
  y = _mm256_permute2f128_pd(x0, y, 0x31);
}
// Even and odd words apart within lanes, its own inverse.
inline void exchangeWords(D& x, D& y) {
  const D x0 = x;
  x = _mm256_unpacklo_pd(x0, y);
  y = _mm256_unpackhi_pd(x0, y);
}
// Twiddles of strides 2 and 1 for the pair of vectors whose stride-4 twiddle is entry `node`.
inline D twiddles2(const double* w, size_t node) {
  return _mm256_permute4x64_pd(_mm256_castpd128_pd256(_mm_loadu_pd(w + 2 * node)), 0x50);
}
// (x0 x2 | y0 y2) pairs with (x1 x3 | y1 y3): natural order.
inline D twiddles1(const double* w, size_t node) { return _mm256_loadu_pd(w + 4 * node); }

#define AEGIS_EACH_PAIR(p) _Pragma("GCC unroll 2") for (int p = 0; p < 2; p++)

// What is stored of a forward transform's value in about [-q/2, q/2], as words.
struct Transformed {
  I operator()(D x, const uint64_t*, const Modulus& m) const { return toInteger(m.nonNegative(x)); }
};

struct SubScaled {  // (a - x) scalar
  const uint64_t *out, *a;
  double scalar, ratio;

  I operator()(D x, const uint64_t* to, const Modulus& m) const {
    const D difference = sub(toDouble(load(a + (to - out))), x);
    return m.canonical(m.mul(difference, broadcastDouble(scalar), broadcastDouble(ratio)));
  }
};

// Strides 4, 2, 1 of 16 words: two pairs side by side hide the latency of one chain.
template <bool kFirst, class Finish>
void forwardTail(uint64_t* out, const uint64_t* in, size_t words, size_t node, const Plan& plan,
                 const Finish& finish) {
  const Modulus m = plan.m;
  const double *w = plan.w, *r = plan.ratio;
  for (size_t k = 0; k < words; k += 16, node += 2) {
    D x[2], y[2];
    AEGIS_EACH_PAIR (p) {
      x[p] = kFirst ? toDouble(load(in + k + 8 * p)) : m.reduce(loadDouble(in + k + 8 * p));
      y[p] = kFirst ? toDouble(load(in + k + 8 * p + 4)) : loadDouble(in + k + 8 * p + 4);
    }
    AEGIS_EACH_PAIR (p)
      forwardButterfly(x[p], y[p], broadcastDouble(w[node + p]), broadcastDouble(r[node + p]), m);
    AEGIS_EACH_PAIR (p) exchangeHalves(x[p], y[p]);
    AEGIS_EACH_PAIR (p) forwardButterfly(x[p], y[p], twiddles2(w, node + p), twiddles2(r, node + p), m);
    AEGIS_EACH_PAIR (p) exchangeWords(x[p], y[p]);
    AEGIS_EACH_PAIR (p) forwardButterfly(x[p], y[p], twiddles1(w, node + p), twiddles1(r, node + p), m);
    AEGIS_EACH_PAIR (p) {
      D a = m.reduce(x[p]), b = m.reduce(y[p]);
      exchangeWords(a, b);
      exchangeHalves(a, b);
      uint64_t *low = out + k + 8 * p, *high = low + 4;
      store(low, finish(a, low, m));
      store(high, finish(b, high, m));
    }
  }
}

void inverseTail(uint64_t* out, const uint64_t* in, size_t words, size_t node, const Plan& plan) {
  const Modulus m = plan.m;
  const double *w = plan.w, *r = plan.ratio;
  for (size_t k = 0; k < words; k += 16, node += 2) {
    D x[2], y[2];
    AEGIS_EACH_PAIR (p) {
      x[p] = toDouble(load(in + k + 8 * p)), y[p] = toDouble(load(in + k + 8 * p + 4));
      exchangeHalves(x[p], y[p]);
      exchangeWords(x[p], y[p]);
    }
    AEGIS_EACH_PAIR (p) inverseButterfly(x[p], y[p], twiddles1(w, node + p), twiddles1(r, node + p), m);
    AEGIS_EACH_PAIR (p) exchangeWords(x[p], y[p]);
    AEGIS_EACH_PAIR (p) inverseButterfly(x[p], y[p], twiddles2(w, node + p), twiddles2(r, node + p), m);
    AEGIS_EACH_PAIR (p) exchangeHalves(x[p], y[p]);
    AEGIS_EACH_PAIR (p) {
      x[p] = m.reduce(x[p]);
      y[p] = m.reduce(y[p]);
      inverseButterfly(x[p], y[p], broadcastDouble(w[node + p]), broadcastDouble(r[node + p]), m);
      storeDouble(out + k + 8 * p, m.reduce(x[p]));
      storeDouble(out + k + 8 * p + 4, y[p]);
    }
  }
}

// The row's layers but the last three: (logN - 3) % 3 first, then passes of three. A block has 2^log words.
template <class Finish>
void forwardBlock(uint64_t* out, uint32_t log, size_t node, const Plan& plan, const Finish& finish) {
  const size_t s = size_t(1) << (log - 3);
  forwardPass<3, false>(out, out, s, node, plan);
  if (log <= 6) return forwardTail<false>(out, out, size_t(1) << log, 8 * node, plan, finish);
  for (size_t i = 0; i < 8; i++) forwardBlock(out + i * s, log - 3, 8 * node + i, plan, finish);
}

void inverseBlock(uint64_t* out, const uint64_t* in, uint32_t log, size_t node, const Plan& plan,
                  const Twiddles<double>& t) {
  const size_t s = size_t(1) << (log - 3);
  if (log <= 6) {
    inverseTail(out, in, size_t(1) << log, 8 * node, plan);
  } else {
    for (size_t i = 0; i < 8; i++) inverseBlock(out + i * s, in + i * s, log - 3, 8 * node + i, plan, t);
  }
  inversePass<3, false>(out, s, node, plan, t);
}

// The top pass, of one to three layers, also converts: logN = 3 + first + 3 * rest.
template <class Finish>
void forward(uint64_t* out, const uint64_t* a, const NttTable& table, const Finish& finish) {
  const Plan plan{table.floats.forward, table.floats.forwardCompanion, Modulus(table.prime)};
  const uint32_t first = (table.logN - 4) % 3 + 1, log = table.logN - first;
  const size_t s = size_t(1) << log, blocks = size_t(1) << first;
  if (first == 1) forwardPass<1, true>(out, a, s, 1, plan);
  if (first == 2) forwardPass<2, true>(out, a, s, 1, plan);
  if (first == 3) forwardPass<3, true>(out, a, s, 1, plan);
  if (log == 3) return forwardTail<false>(out, out, size_t(1) << table.logN, blocks, plan, finish);
  for (size_t i = 0; i < blocks; i++) forwardBlock(out + i * s, log, blocks + i, plan, finish);
}

}  // namespace

void nttAvx2(uint64_t* out, const uint64_t* a, const uint64_t*, const NttTable& table) {
  forward(out, a, table, Transformed{});
}

void nttSubScaleAvx2(uint64_t* out, const uint64_t* a, const uint64_t* b, const uint64_t*, uint64_t scalar,
                     const NttTable& table) {
  const double ratio = double(scalar) / double(table.prime.q);
  forward(out, b, table, SubScaled{out, a, double(scalar), ratio});
}

void inttAvx2(uint64_t* out, const uint64_t* a, const uint64_t*, const NttTable& table) {
  const Twiddles<double>& t = table.floats;
  const Plan plan{t.inverse, t.inverseCompanion, Modulus(table.prime)};
  const uint32_t last = (table.logN - 4) % 3 + 1, log = table.logN - last;
  const size_t s = size_t(1) << log, blocks = size_t(1) << last;
  if (log == 3) {
    inverseTail(out, a, size_t(1) << table.logN, blocks, plan);
  } else {
    for (size_t i = 0; i < blocks; i++) inverseBlock(out + i * s, a + i * s, log, blocks + i, plan, t);
  }
  if (last == 1) inversePass<1, true>(out, s, 1, plan, t);
  if (last == 2) inversePass<2, true>(out, s, 1, plan, t);
  if (last == 3) inversePass<3, true>(out, s, 1, plan, t);
}

}  // namespace aegis::cpu
