// Row operations for AVX2. Inner products split residues into 25-bit halves, a = a1 2^25 + a0, and sum the
// three kinds of 50-bit products apart; double precision reduces the totals.
#include "backends/cpu/avx2/vector.h"
#include "backends/cpu/tables.h"

namespace aegis::cpu {

// ntt.cc of this folder
void nttAvx2(uint64_t* out, const uint64_t* a, const uint64_t*, const NttTable& table);
void inttAvx2(uint64_t* out, const uint64_t* a, const uint64_t*, const NttTable& table);
void nttSubScaleAvx2(uint64_t* out, const uint64_t* a, const uint64_t* b, const uint64_t*, uint64_t scalar,
                     const NttTable& table);

namespace {

#include "backends/cpu/elementwise.inl"

constexpr uint32_t kHalfBits = 25;
constexpr uint64_t kHalfMask = (uint64_t(1) << kHalfBits) - 1;

inline I lowHalf(I x) { return _mm256_and_si256(x, broadcast(kHalfMask)); }
inline I highHalf(I x) { return _mm256_srli_epi64(x, kHalfBits); }
inline I multiply(I a, I b) { return _mm256_mul_epu32(a, b); }

// high 2^50 + middle 2^25 + low. Bounds for kMaxTerms = 4080 products: low, high < 4080 * 2^50 < 2^62,
// middle (two products a term) < 2^63; an old value or offset below 2^50 may be added to low.
struct Totals {
  I low = _mm256_setzero_si256(), middle = low, high = low;
};

struct Reducer {
  Modulus m;
  D r50, r50Ratio, r98, r98Ratio;
  explicit Reducer(const Prime& p)
      : m(p),
        r50(broadcastDouble(double(p.r50))),
        r50Ratio(broadcastDouble(double(p.r50) / double(p.q))),
        r98(broadcastDouble(double(p.r98))),
        r98Ratio(broadcastDouble(double(p.r98) / double(p.q))) {}

  // Carries make low and middle 25-bit halves of a value below 2^50; high < 2^63 is cut at bit 48. The sum of
  // that value and two products is below 2^50 + 2q < 2^53.
  I operator()(const Totals& t) const {
    const I middle = add(t.middle, highHalf(t.low));
    const I high = add(t.high, highHalf(middle));
    const I rest = _mm256_or_si256(lowHalf(t.low), _mm256_slli_epi64(lowHalf(middle), kHalfBits));
    const D top = toDouble(_mm256_srli_epi64(high, 48));
    const D main = toDouble(_mm256_and_si256(high, broadcast((uint64_t(1) << 48) - 1)));
    return m.canonical(add(add(m.mul(main, r50, r50Ratio), m.mul(top, r98, r98Ratio)), toDouble(rest)));
  }
};

void subScale(uint64_t* out, const uint64_t* a, const uint64_t* b, size_t words, uint64_t scalar,
              const Prime& prime) {
  const Modulus m(prime);
  const D w = broadcastDouble(double(scalar)), ratio = broadcastDouble(double(scalar) / double(prime.q));
  for (size_t k = 0; k < words; k += 4)
    store(out + k, m.canonical(m.mul(sub(toDouble(load(a + k)), toDouble(load(b + k))), w, ratio)));
}

// Totals below 2^64, as (total >> 50) 2^50 + the rest.
inline I reduceSum(I total, const Reducer& reduce) {
  Totals t;
  t.low = lowHalf(total);
  t.middle = lowHalf(highHalf(total));
  t.high = _mm256_srli_epi64(total, 2 * kHalfBits);
  return reduce(t);
}

void sum(uint64_t* out, const uint64_t* const* rows, size_t count, size_t words, bool accumulate,
         const Prime& prime) {
  const Reducer reduce(prime);
  for (size_t k = 0; k < words; k += 8) {
    I s0 = _mm256_setzero_si256(), s1 = s0;
    if (accumulate) s0 = load(out + k), s1 = load(out + k + 4);
    for (size_t i = 0; i < count; i++) {
      s0 = add(s0, load(rows[i] + k));
      s1 = add(s1, load(rows[i] + k + 4));
    }
    store(out + k, reduceSum(s0, reduce));
    store(out + k + 4, reduceSum(s1, reduce));
  }
}

// AVX2 has no 64-bit shuffle by register, and its gathers are slower than four loads: scalar indices.
void gather(uint64_t* out, const Gather* terms, size_t count, size_t words, Write write,
            const Prime& prime) {
  const bool accumulate = write == Write::kAccumulate;
  if (count == 1 && !accumulate) {
    for (size_t k = 0; k < words; k++) out[k] = terms[0].a[terms[0].index[k]];
    return;
  }
  const Reducer reduce(prime);
  alignas(32) uint64_t total[16];
  for (size_t k = 0; k < words; k += 16) {
    for (size_t v = 0; v < 16; v++) total[v] = accumulate ? out[k + v] : 0;
    for (size_t i = 0; i < count; i++)
      for (size_t v = 0; v < 16; v++) total[v] += terms[i].a[terms[i].index[k + v]];
    for (size_t v = 0; v < 16; v += 4) store(out + k + v, reduceSum(load(total + v), reduce));
  }
}

// Plaintext words k .. k + 3 of a row in which a word stands for 2^shift values.
template <uint32_t kShift>  // 0, 1, or 2 for more
inline I plainWords(const uint64_t* b, size_t k, uint32_t shift) {
  if constexpr (kShift == 0) return load(b + k);
  if constexpr (kShift == 1)
    return _mm256_permute4x64_epi64(
        _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b + k / 2))), 0x50);
  return broadcast(b[k >> shift]);
}

inline void multiplyAdd(Totals& t, I a0, I a1, I b0, I b1) {
  t.low = add(t.low, multiply(a0, b0));
  t.middle = add(t.middle, add(multiply(a0, b1), multiply(a1, b0)));
  t.high = add(t.high, multiply(a1, b1));
}

inline Totals loadTotals(const uint64_t* p) {
  Totals t;
  t.low = load(p), t.middle = load(p + 4), t.high = load(p + 8);
  return t;
}
inline void storeTotals(uint64_t* p, const Totals& t) {
  store(p, t.low), store(p + 4, t.middle), store(p + 8, t.high);
}

// Terms taken together in one sweep over the piece: more streams than this defeat the prefetchers.
constexpr size_t kSweepTerms = 8;

template <uint32_t kShift>
void dotWords(uint64_t* out, const Term* terms, size_t count, size_t words, uint32_t shift, bool accumulate,
              const Prime& prime) {
  const Reducer reduce(prime);
  alignas(64) uint64_t saved[3 * kPieceWords];
  for (size_t begin = 0; begin == 0 || begin < count; begin += kSweepTerms) {
    const size_t end = begin + kSweepTerms < count ? begin + kSweepTerms : count;
    for (size_t k = 0; k < words; k += 8) {
      Totals t0, t1;
      if (begin != 0) t0 = loadTotals(saved + 3 * k), t1 = loadTotals(saved + 3 * k + 12);
      else if (accumulate) t0.low = load(out + k), t1.low = load(out + k + 4);
      for (size_t i = begin; i < end; i++) {
        const I a0 = load(terms[i].a + k), a1 = load(terms[i].a + k + 4);
        const I b0 = plainWords<kShift>(terms[i].b, k, shift),
                b1 = plainWords<kShift>(terms[i].b, k + 4, shift);
        multiplyAdd(t0, lowHalf(a0), highHalf(a0), lowHalf(b0), highHalf(b0));
        multiplyAdd(t1, lowHalf(a1), highHalf(a1), lowHalf(b1), highHalf(b1));
      }
      if (end == count) {
        store(out + k, reduce(t0));
        store(out + k + 4, reduce(t1));
      } else {
        storeTotals(saved + 3 * k, t0), storeTotals(saved + 3 * k + 12, t1);
      }
    }
  }
}

void dot(uint64_t* out, const Term* terms, size_t count, size_t words, uint32_t shift, Write write,
         const Prime& prime) {
  const bool accumulate = write == Write::kAccumulate;
  if (shift == 0) dotWords<0>(out, terms, count, words, shift, accumulate, prime);
  else if (shift == 1) dotWords<1>(out, terms, count, words, shift, accumulate, prime);
  else dotWords<2>(out, terms, count, words, shift, accumulate, prime);
}

// Words converted at a time: 3 * 128 words per source stay in the first-level cache for up to 8 sources.
constexpr size_t kConvertWords = 128;

// Karatsuba: both operands come split with their sums, (u0 + u1)(w0 + w1) = low + middle + high, three
// products instead of four. Sums of 26 bits: kMaxTerms products below 2^52 fit 64 bits. residues: per source,
// `words` low halves, then high halves, then their sums.
template <int J>
void convertTile(uint64_t* const* out, size_t begin, const uint64_t* residues, size_t words,
                 const ConversionTable& t, uint32_t j) {
  const uint64_t* matrix = t.matrix + size_t(j) * t.sourceCount;
  const Reducer reduce[2] = {Reducer(t.destinations[j]), Reducer(t.destinations[j + J - 1])};
  for (size_t k = 0; k < words; k += 4) {
    I low[J], both[J], high[J];
    for (int i = 0; i < J; i++) low[i] = both[i] = high[i] = _mm256_setzero_si256();
    for (uint32_t s = 0; s < t.sourceCount; s++) {
      const uint64_t* u = residues + 3 * size_t(s) * words + k;
      const I u0 = load(u), u1 = load(u + words), u01 = load(u + 2 * words);
      for (int i = 0; i < J; i++) {
        const uint64_t w = matrix[size_t(i) * t.sourceCount + s];
        const I w0 = broadcast(w & kHalfMask), w1 = broadcast(w >> kHalfBits);
        low[i] = add(low[i], multiply(u0, w0));
        high[i] = add(high[i], multiply(u1, w1));
        both[i] = add(both[i], multiply(u01, add(w0, w1)));
      }
    }
    for (int i = 0; i < J; i++) {
      Totals total;
      total.middle = sub(sub(both[i], low[i]), high[i]);
      total.low = add(low[i], broadcast(t.offset[j + uint32_t(i)]));
      total.high = high[i];
      store(out[j + uint32_t(i)] + begin + k, reduce[i](total));
    }
  }
}

void splitResidues(uint64_t* to, const uint64_t* in, size_t words, const ConversionTable& t, uint32_t i) {
  const Modulus m(t.sources[i]);
  const double q = double(t.sources[i].q), scale = double(t.scale[i]);
  const D w = broadcastDouble(scale), ratio = broadcastDouble(scale / q), half = broadcastDouble((q - 1) / 2);
  for (size_t k = 0; k < words; k += 4) {
    const I u = m.canonical(add(m.mul(toDouble(load(in + k)), w, ratio), half));
    store(to + k, lowHalf(u));
    store(to + words + k, highHalf(u));
    store(to + 2 * words + k, add(lowHalf(u), highHalf(u)));
  }
}

void convert(uint64_t* const* out, const uint64_t* const* in, size_t words, Write, const ConversionTable& t,
             uint64_t* scratch) {
  for (size_t begin = 0; begin < words; begin += kConvertWords) {
    const size_t part = words - begin < kConvertWords ? words - begin : kConvertWords;
    for (uint32_t i = 0; i < t.sourceCount; i++)
      splitResidues(scratch + 3 * size_t(i) * part, in[i] + begin, part, t, i);
    uint32_t j = 0;
    for (; j + 2 <= t.destinationCount; j += 2) convertTile<2>(out, begin, scratch, part, t, j);
    if (j < t.destinationCount) convertTile<1>(out, begin, scratch, part, t, j);
  }
}

}  // namespace

const RowOps avx2Ops = {
    "avx2",  TwiddleForm::kFloat, addRow, subRow, addPlainRow, signedRow, subScale, sum, gather, dot, convert,
    nttAvx2, inttAvx2, nttSubScaleAvx2};

}  // namespace aegis::cpu
