// Row operations for AVX-512 IFMA: inner products, base conversion, sums, automorphisms.
#include "backends/cpu/avx512ifma/vector.h"
#include "backends/cpu/tables.h"

namespace aegis::cpu {

// ntt.cc of this folder
void nttAvx512ifma(uint64_t* out, const uint64_t* a, const uint64_t* ahead, const NttTable& table);
void inttAvx512ifma(uint64_t* out, const uint64_t* a, const uint64_t* ahead, const NttTable& table);
void nttSubScaleAvx512ifma(uint64_t* out, const uint64_t* a, const uint64_t* b, const uint64_t* ahead,
                           uint64_t scalar, const NttTable& table);

namespace {

#include "backends/cpu/elementwise.inl"

void subScale(uint64_t* out, const uint64_t* a, const uint64_t* b, size_t words, uint64_t scalar,
              const Prime& prime) {
  const Modulus m(prime);
  const V w = broadcast(scalar),
          companion = broadcast(uint64_t((static_cast<unsigned __int128>(scalar) << 52) / prime.q));
  for (size_t k = 0; k < words; k += 8) {
    const V difference = add(sub(load(a + k), load(b + k)), m.q);
    store(out + k, subtractOnce(m.clean(m.mulShoup(difference, w, companion)), m.q));
  }
}

// Totals are below 2^14 * 2^50 = 2^64.
void sum(uint64_t* out, const uint64_t* const* rows, size_t count, size_t words, bool accumulate,
         const Prime& prime) {
  const Modulus m(prime);
  for (size_t k = 0; k < words; k += 16) {
    V s0 = _mm512_setzero_si512(), s1 = s0;
    if (accumulate) s0 = load(out + k), s1 = load(out + k + 8);
    for (size_t i = 0; i < count; i++) {
      s0 = add(s0, load(rows[i] + k));
      s1 = add(s1, load(rows[i] + k + 8));
    }
    store(out + k, m.reduce<false>(s0, _mm512_setzero_si512()));
    store(out + k + 8, m.reduce<false>(s1, _mm512_setzero_si512()));
  }
}

// Eight aligned outputs k = 8u + v read eight aligned inputs: brv(k) has brv(u) in its low and brv3(v) in its
// high bits, so the exponents g (2 brv(k) + 1) mod 2N of one group agree modulo 2N/8 and differ in their top
// three bits only, which are the low bits of the source index. One load and one shuffle replace a gather.
//
// With t the top three bits of the group's first exponent, those of the others are t + g brv3(v) modulo 8:
// the shuffle is one of eight, chosen by the low bits brv3(t) of the group's first index, for each g mod 8.
struct Shuffles {
  uint64_t lanes[4][8][8];  // [g mod 8 / 2][brv3(t)][v]
};
constexpr uint32_t reverse3(uint32_t v) { return (v & 1) << 2 | (v & 2) | v >> 2; }
constexpr Shuffles makeShuffles() {
  Shuffles s{};
  for (uint32_t g = 0; g < 4; g++)
    for (uint32_t low = 0; low < 8; low++)
      for (uint32_t v = 0; v < 8; v++)
        s.lanes[g][low][v] = reverse3((reverse3(low) + (2 * g + 1) * reverse3(v)) & 7);
  return s;
}
alignas(64) constexpr Shuffles kShuffles = makeShuffles();

struct Permuted {
  const uint64_t* a;
  const uint32_t* heads;
  const uint64_t* ahead;
  const uint64_t (*lanes)[8];
  // brv3(4) = 1: entries 0 and 4 are g apart.
  explicit Permuted(const Gather& term)
      : a(term.a),
        heads(term.heads),
        ahead(term.ahead),
        lanes(kShuffles.lanes[((reverse3(term.index[4] & 7) - reverse3(term.index[0] & 7)) & 7) / 2]) {}
  // The jumps defeat the prefetchers: the row that comes next is asked for in order.
  V operator()(size_t k) const {
    const uint32_t head = heads[k / 8];
    _mm_prefetch(ahead + k, _MM_HINT_T1);
    return _mm512_permutexvar_epi64(load(lanes[head & 7]), load(a + (head & ~uint32_t(7))));
  }
};

void gather(uint64_t* out, const Gather* terms, size_t count, size_t words, Write write,
            const Prime& prime) {
  const bool accumulate = write == Write::kAccumulate;
  if (count == 1 && !accumulate) {
    const Permuted permuted(terms[0]);
    if (write == Write::kStream)
      for (size_t k = 0; k < words; k += 8) stream(out + k, permuted(k));
    else
      for (size_t k = 0; k < words; k += 8) store(out + k, permuted(k));
    return;
  }
  const Modulus m(prime);
  constexpr size_t kWords = 512;  // sums of a piece stay in the first-level cache
  alignas(64) uint64_t total[kWords];
  for (size_t begin = 0; begin < words; begin += kWords) {
    const size_t part = words - begin < kWords ? words - begin : kWords;
    for (size_t k = 0; k < part; k += 8)
      store(total + k, accumulate ? load(out + begin + k) : _mm512_setzero_si512());
    for (size_t i = 0; i < count; i++) {
      const Permuted permuted(terms[i]);
      for (size_t k = 0; k < part; k += 8) store(total + k, add(load(total + k), permuted(begin + k)));
    }
    for (size_t k = 0; k < part; k += 8) {
      const V sum = m.reduce<false>(load(total + k), _mm512_setzero_si512());
      if (write == Write::kStream) stream(out + begin + k, sum);
      else store(out + begin + k, sum);
    }
  }
}

// How eight products find their plaintext words: one each, one for all (shift >= 3), or 8 >> shift of them.
enum class Spread { kEach, kOne, kFew };

template <Spread spread>
struct Plain {
  uint32_t shift;
  __mmask8 mask;
  V index;
  explicit Plain(uint32_t s)
      : shift(s),
        mask(__mmask8((1u << (8 >> (s & 3))) - 1)),
        index(_mm512_srl_epi64(_mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0), _mm_cvtsi32_si128(int(s)))) {}
  V operator()(const uint64_t* b, size_t k) const {
    if constexpr (spread == Spread::kEach) return load(b + k);
    if constexpr (spread == Spread::kOne) return broadcast(b[k >> shift]);
    return _mm512_permutexvar_epi64(index, _mm512_maskz_loadu_epi64(mask, b + (k >> shift)));
  }
};

// Terms taken together in one sweep over the piece: 2 * 8 streams at most, sums in registers.
constexpr size_t kSweepTerms = 8;

// Low and high halves of the products are summed apart and reduced once. At most kMaxTerms = 4080 products
// and an old value: low < 4080 * 2^52 + 2^50 < 2^64, high < 4080 * 2^48 < 2^60. Up to 15 products high stays
// below 2^52.
template <Spread spread, bool kLong>
void dotSweeps(uint64_t* out, const Term* terms, size_t count, size_t words, uint32_t shift, Write write,
               const Prime& prime) {
  const Modulus m(prime);
  const Plain<spread> plain(shift);
  alignas(64) uint64_t low[kPieceWords], high[kPieceWords];
  for (size_t begin = 0, end; begin == 0 || begin < count; begin = end) {
    end = begin + kSweepTerms < count ? begin + kSweepTerms : count;
    const bool last = end >= count;
    for (size_t k = 0; k < words; k += 16) {
      V low0 = _mm512_setzero_si512(), low1 = low0, high0 = low0, high1 = low0;
      if (begin != 0) {
        low0 = load(low + k), low1 = load(low + k + 8), high0 = load(high + k), high1 = load(high + k + 8);
      } else if (write == Write::kAccumulate) {
        low0 = load(out + k), low1 = load(out + k + 8);
      }
      for (size_t i = begin; i < end; i++) {
        const V a0 = load(terms[i].a + k), a1 = load(terms[i].a + k + 8);
        const V b0 = plain(terms[i].b, k), b1 = plain(terms[i].b, k + 8);
        // The next piece of the row, most likely: pieces begin new pages, which no prefetcher foresees.
        if constexpr (spread == Spread::kEach) {
          _mm_prefetch(terms[i].b + k + kPieceWords, _MM_HINT_T1);
          _mm_prefetch(terms[i].b + k + 8 + kPieceWords, _MM_HINT_T1);
        }
        _mm_prefetch(terms[i].a + k + kPieceWords, _MM_HINT_T1);
        _mm_prefetch(terms[i].a + k + 8 + kPieceWords, _MM_HINT_T1);
        low0 = maddLow(low0, a0, b0);
        high0 = maddHigh(high0, a0, b0);
        low1 = maddLow(low1, a1, b1);
        high1 = maddHigh(high1, a1, b1);
      }
      if (last && write == Write::kStream) {
        stream(out + k, m.reduce<kLong>(low0, high0));
        stream(out + k + 8, m.reduce<kLong>(low1, high1));
      } else if (last) {
        store(out + k, m.reduce<kLong>(low0, high0));
        store(out + k + 8, m.reduce<kLong>(low1, high1));
      } else {
        store(low + k, low0), store(low + k + 8, low1), store(high + k, high0), store(high + k + 8, high1);
      }
    }
    if (last) break;
  }
}

void dot(uint64_t* out, const Term* terms, size_t count, size_t words, uint32_t shift, Write write,
         const Prime& prime) {
  const auto run = [&](auto sweepsShort, auto sweepsLong) {
    (count <= 15 ? sweepsShort : sweepsLong)(out, terms, count, words, shift, write, prime);
  };
  if (shift == 0) run(dotSweeps<Spread::kEach, false>, dotSweeps<Spread::kEach, true>);
  else if (shift >= 3) run(dotSweeps<Spread::kOne, false>, dotSweeps<Spread::kOne, true>);
  else run(dotSweeps<Spread::kFew, false>, dotSweeps<Spread::kFew, true>);
}

// Words converted at a time: with up to 16 sources they stay in the first-level cache.
constexpr size_t kConvertWords = 256;

// J destinations times 16 words: 4 J sums in registers; bounds as for dotSweeps, one product per source.
template <int J, bool kStreamed>
void convertTile(uint64_t* const* out, const uint64_t* residues, size_t begin, size_t words,
                 const ConversionTable& t, uint32_t j) {
  const uint64_t* matrix = t.matrix + size_t(j) * t.sourceCount;
  for (size_t k = 0; k < words; k += 16) {
    V low[J][2], high[J][2];
    for (int i = 0; i < J; i++) {
      low[i][0] = low[i][1] = broadcast(t.offset[j + uint32_t(i)]);
      high[i][0] = high[i][1] = _mm512_setzero_si512();
    }
    for (uint32_t s = 0; s < t.sourceCount; s++) {
      const V u0 = load(residues + s * words + k), u1 = load(residues + s * words + k + 8);
      for (int i = 0; i < J; i++) {
        const V w = broadcast(matrix[size_t(i) * t.sourceCount + s]);
        low[i][0] = maddLow(low[i][0], u0, w);
        high[i][0] = maddHigh(high[i][0], u0, w);
        low[i][1] = maddLow(low[i][1], u1, w);
        high[i][1] = maddHigh(high[i][1], u1, w);
      }
    }
    for (int i = 0; i < J; i++) {
      const Modulus m(t.destinations[j + uint32_t(i)]);
      for (int h = 0; h < 2; h++) {
        const V r = t.sourceCount <= 15 ? m.reduce<false>(low[i][h], high[i][h])
                                        : m.reduce<true>(low[i][h], high[i][h]);
        uint64_t* const to = out[j + uint32_t(i)] + begin + k + 8 * h;
        if constexpr (kStreamed) stream(to, r);
        else store(to, r);
      }
    }
  }
}

template <bool kStreamed>
void convertTiles(uint64_t* const* out, const uint64_t* residues, size_t begin, size_t words,
                  const ConversionTable& t) {
  uint32_t j = 0;
  for (; j + 4 <= t.destinationCount; j += 4) convertTile<4, kStreamed>(out, residues, begin, words, t, j);
  const uint32_t rest = t.destinationCount - j;
  if (rest == 3) convertTile<3, kStreamed>(out, residues, begin, words, t, j);
  if (rest == 2) convertTile<2, kStreamed>(out, residues, begin, words, t, j);
  if (rest == 1) convertTile<1, kStreamed>(out, residues, begin, words, t, j);
}

void convert(uint64_t* const* out, const uint64_t* const* in, size_t words, Write write,
             const ConversionTable& t, uint64_t* scratch) {
  for (size_t begin = 0; begin < words; begin += kConvertWords) {
    const size_t part = words - begin < kConvertWords ? words - begin : kConvertWords;
    for (uint32_t i = 0; i < t.sourceCount; i++) {
      const Modulus m(t.sources[i]);
      const V w = broadcast(t.scale[i]), companion = broadcast(t.scaleShoup52[i]);
      const V half = broadcast((t.sources[i].q - 1) / 2);
      const uint64_t* from = in[i] + begin;
      for (size_t k = 0; k < part; k += 8) {
        _mm_prefetch(from + k + kPieceWords, _MM_HINT_T1);  // the next piece of the row
        const V y = m.clean(m.mulShoup(load(from + k), w, companion));
        store(scratch + i * part + k, m.canonical(add(y, half)));  // below 2.5 q
      }
    }
    if (write == Write::kStream) convertTiles<true>(out, scratch, begin, part, t);
    else convertTiles<false>(out, scratch, begin, part, t);
  }
}

}  // namespace

const RowOps avx512ifmaOps = {
    "avx512ifma", TwiddleForm::kShoup52, addRow,        subRow, addPlainRow, signedRow, subScale, sum, gather,
    dot,          convert,               nttAvx512ifma, inttAvx512ifma,
    nttSubScaleAvx512ifma};

}  // namespace aegis::cpu
