// Every kernel of every available table against the reference, bit by bit, and the reference against
// independent oracles. aegis_conformance [--full] [--seed S] [--table NAME]
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backends/cuda/emulated.h"
#include "backends/cuda/load.h"
#include "backends/cuda/module_kernels.h"
#include "ckks/ring.h"
#include "hal/kernels.h"
#include "hal/thread_pool.h"
#include "test/oracles.h"

namespace aegis::test {
namespace {

uint64_t seed = 20260101;
uint32_t passed = 0, failed = 0;

void report(const std::string& table, const std::string& kernel, const std::string& difference) {
  const bool ok = difference.empty();
  std::printf("%-21s %-26s %s\n", table.c_str(), kernel.c_str(),
              ok ? "ok" : ("FAILED " + difference).c_str());
  std::fflush(stdout);
  (ok ? passed : failed)++;
}

// How residues are drawn: edges are where lazy ranges and carries break.
enum class Fill { kRandom, kZero, kMax, kMixed };
constexpr Fill kFills[] = {Fill::kRandom, Fill::kZero, Fill::kMax, Fill::kMixed};

class Random {
 public:
  explicit Random(uint64_t s) : engine_(s) {}
  uint64_t below(uint64_t bound) { return engine_() % bound; }
  bool coin() { return below(2) != 0; }
  uint64_t residue(uint64_t q, Fill fill) {
    if (fill == Fill::kMixed) fill = kFills[below(3)];
    return fill == Fill::kZero ? 0 : fill == Fill::kMax ? q - 1 : below(q);
  }

 private:
  std::mt19937_64 engine_;
};

// One random operand: strides with gaps, some of them 0, and canonical residues in every row that is reached.
struct Operand {
  std::vector<uint64_t> words;
  ptrdiff_t strides[kMaxRank] = {};
  ptrdiff_t limbStride = 0, componentStride = 0;

  Rows rows() {
    Rows r;
    r.base = words.data();
    std::copy(strides, strides + kMaxRank, r.strides);
    r.limbStride = limbStride;
    r.componentStride = componentStride;
    return r;
  }
};

struct Shape {
  uint32_t rank = 0, reduceRank = 0;
  uint32_t dims[kMaxRank] = {};
  std::vector<uint16_t> limbs;
  bool accumulate = false;

  Launch launch() const {
    Launch l;
    l.rank = rank;
    l.reduceRank = reduceRank;
    std::copy(dims, dims + kMaxRank, l.dims);
    l.limbs = limbs.data();
    l.limbCount = uint32_t(limbs.size());
    l.accumulate = accumulate;
    return l;
  }
};

Shape randomShape(Random& random, const RingContext& ring, bool reductions, uint32_t maxLimbs) {
  Shape s;
  s.rank = uint32_t(random.below(4));
  if (reductions) s.reduceRank = uint32_t(random.below(s.rank + 1));
  if (reductions) s.accumulate = random.coin();
  for (uint32_t d = 0; d < s.rank; d++)
    s.dims[d] = 1 + uint32_t(random.below(d + s.reduceRank >= s.rank ? 5 : random.below(4) == 0 ? 6 : 2));
  std::vector<uint16_t> all(ring.primeCount());
  for (size_t i = 0; i < all.size(); i++) all[i] = uint16_t(i);
  for (size_t i = all.size(); i-- > 1;) std::swap(all[i], all[random.below(i + 1)]);
  s.limbs.assign(all.begin(), all.begin() + ptrdiff_t(1 + random.below(maxLimbs)));
  return s;
}

// Layout from the innermost outwards: components, limbs, batch dimensions in a random order, each with a
// random gap. limbOf[j] is the prime of limb j. rowWords is N but for plaintexts.
Operand randomOperand(Random& random, const RingContext& ring, const Shape& s,
                      const std::vector<uint16_t>& limbOf, uint32_t components, uint32_t rowWords,
                      bool output, Fill fill) {
  Operand x;
  ptrdiff_t extent = rowWords;
  auto axis = [&](size_t count) {
    extent += ptrdiff_t(random.below(2) * 8 * random.below(3));
    const ptrdiff_t stride = extent;
    extent *= ptrdiff_t(std::max<size_t>(count, 1));
    return stride;
  };
  const bool componentsFirst = random.coin();
  if (componentsFirst) x.componentStride = axis(components);
  x.limbStride = axis(limbOf.size());
  if (!componentsFirst) x.componentStride = axis(components);
  for (uint32_t d = s.rank; d-- > 0;) {
    const bool reduced = d + s.reduceRank >= s.rank;
    const bool broadcast = output ? reduced : random.below(4) == 0;
    x.strides[d] = broadcast ? 0 : axis(s.dims[d]);
  }
  x.words.assign(size_t(extent), 0x5555555555555555);  // gaps must survive
  Shape flat = s;
  size_t batch = 1;
  for (uint32_t d = 0; d < s.rank; d++) batch *= s.dims[d];
  for (size_t i = 0; i < batch; i++) {
    ptrdiff_t offset = 0;
    size_t rest = i;
    for (uint32_t d = s.rank; d-- > 0; rest /= s.dims[d])
      offset += ptrdiff_t(rest % s.dims[d]) * x.strides[d];
    for (uint32_t c = 0; c < std::max(components, 1u); c++)
      for (size_t j = 0; j < limbOf.size(); j++)
        for (uint32_t k = 0; k < rowWords; k++)
          x.words[size_t(offset + ptrdiff_t(c) * x.componentStride + ptrdiff_t(j) * x.limbStride) + k] =
              random.residue(ring.modulus(limbOf[j]), fill);
  }
  return x;
}

uint32_t randomRowWords(Random& random, uint32_t n) {
  const uint32_t choices[] = {1, 2, 8, 16, 64, n, n / 2, n / 4, n / 8, n / 16};
  return std::min(n, choices[random.below(10)]);
}

// A plaintext operand: residues, or coefficients at the edges of signed words and of the primes.
struct PlainOperand {
  Operand operand;
  uint32_t rowWords;
  bool coefficients;

  PlainOperand(Random& random, const RingContext& ring, const Shape& s, Fill fill)
      : rowWords(randomRowWords(random, ring.degree())),
        coefficients(rowWords < ring.degree() && random.coin()) {
    operand = randomOperand(random, ring, s, coefficients ? std::vector<uint16_t>{s.limbs[0]} : s.limbs, 1,
                            rowWords, false, fill);
    if (!coefficients) return;
    operand.limbStride = 0;
    for (uint64_t& word : operand.words) {
      const uint64_t choice = random.below(6);
      if (choice == 0) word = uint64_t(INT64_MIN) + random.below(2);
      if (choice == 1) word = uint64_t(INT64_MAX);
      if (choice == 2) word = -word;
      if (choice == 3) word = random.below(1u << 30) << 34 | random.below(1u << 30);
    }
  }

  PlainRows rows() {
    PlainRows p;
    p.base = operand.words.data();
    std::copy(operand.strides, operand.strides + kMaxRank, p.strides);
    p.limbStride = operand.limbStride;
    p.rowWords = rowWords;
    p.coefficients = coefficients;
    return p;
  }
};

PlainRows plainRows(Operand& x, uint32_t rowWords) {
  PlainRows p;
  p.base = x.words.data();
  std::copy(x.strides, x.strides + kMaxRank, p.strides);
  p.limbStride = x.limbStride;
  p.rowWords = rowWords;
  return p;
}

struct Bench {
  const RingContext& ring;
  ThreadPool& pool;
  const KernelTable& table;
  const KernelTable& reference;
  Random& random;
  uint32_t logN;
};

// Runs `call` on both tables with equal output buffers; the position of the first difference, or "".
template <class Call>
std::string compare(Bench& b, const Shape& s, Operand& out, const Call& call) {
  Operand expected = out;
  const Launch launch = s.launch();
  call(b.reference, launch, expected);
  call(b.table, launch, out);
  for (size_t i = 0; i < out.words.size(); i++)
    if (out.words[i] != expected.words[i])
      return "N=2^" + std::to_string(b.logN) + " threads=" + std::to_string(b.pool.threadCount()) + " word " +
             std::to_string(i) + " row word " + std::to_string(i & (b.ring.degree() - 1)) + ": " +
             std::to_string(out.words[i]) + " instead of " + std::to_string(expected.words[i]);
  return "";
}

std::string testZero(Bench& b, Fill fill) {
  const Shape s = randomShape(b.random, b.ring, false, 3);
  Operand out = randomOperand(b.random, b.ring, s, s.limbs, 1, b.ring.degree(), true, fill);
  return compare(b, s, out, [&](const KernelTable& t, const Launch& l, Operand& o) {
    t.zero(b.ring, b.pool, l, o.rows());
  });
}

std::string testCopy(Bench& b, Fill fill) {
  const Shape s = randomShape(b.random, b.ring, true, 3);
  const uint32_t n = b.ring.degree();
  Operand out = randomOperand(b.random, b.ring, s, s.limbs, 1, n, true, fill);
  Operand a = randomOperand(b.random, b.ring, s, s.limbs, 1, n, false, fill);
  return compare(b, s, out, [&](const KernelTable& t, const Launch& l, Operand& o) {
    t.copy(b.ring, b.pool, l, o.rows(), a.rows());
  });
}

// Out apart from the inputs, or the same buffer as one of them.
template <class Call>
std::string testBinary(Bench& b, Fill fill, const Call& call, bool overA = true) {
  const Shape s = randomShape(b.random, b.ring, false, 3);
  const uint32_t n = b.ring.degree();
  Operand out = randomOperand(b.random, b.ring, s, s.limbs, 1, n, true, fill);
  Operand a = randomOperand(b.random, b.ring, s, s.limbs, 1, n, false, fill);
  Operand c = randomOperand(b.random, b.ring, s, s.limbs, 1, n, false, kFills[b.random.below(4)]);
  std::vector<uint64_t> scalars;
  for (uint16_t limb : s.limbs) scalars.push_back(b.random.residue(b.ring.modulus(limb), fill));
  const uint64_t alias = b.random.below(3);
  return compare(b, s, out, [&](const KernelTable& t, const Launch& l, Operand& o) {
    const Rows x = overA && alias == 1 ? o.rows() : a.rows(), y = alias == 2 ? o.rows() : c.rows();
    call(t, l, o.rows(), x, y, scalars.data());
  });
}

template <auto KernelTable::* entry>
std::string testSum(Bench& b, Fill fill) {
  return testBinary(b, fill,
                    [&](const KernelTable& t, const Launch& l, Rows o, Rows x, Rows y, const uint64_t*) {
                      (t.*entry)(b.ring, b.pool, l, o, x, y);
                    });
}

std::string testSubScale(Bench& b, Fill fill) {
  return testBinary(b, fill,
                    [&](const KernelTable& t, const Launch& l, Rows o, Rows x, Rows y, const uint64_t* c) {
                      t.subScale(b.ring, b.pool, l, o, x, y, c);
                    });
}

std::string testNttSubScale(Bench& b, Fill fill) {
  return testBinary(
      b, fill,
      [&](const KernelTable& t, const Launch& l, Rows o, Rows x, Rows y, const uint64_t* c) {
        t.nttSubScale(b.ring, b.pool, l, o, x, y, c);
      },
      false);
}

std::string testAddPlain(Bench& b, Fill fill) {
  const Shape s = randomShape(b.random, b.ring, false, 3);
  const uint32_t n = b.ring.degree();
  Operand out = randomOperand(b.random, b.ring, s, s.limbs, 1, n, true, fill);
  Operand a = randomOperand(b.random, b.ring, s, s.limbs, 1, n, false, fill);
  PlainOperand p(b.random, b.ring, s, fill);
  const bool alias = b.random.coin();
  return compare(b, s, out, [&](const KernelTable& t, const Launch& l, Operand& o) {
    t.addPlain(b.ring, b.pool, l, o.rows(), alias ? o.rows() : a.rows(), p.rows());
  });
}

std::string testContract(Bench& b, Fill fill) {
  const Shape s = randomShape(b.random, b.ring, true, 3);
  const uint32_t n = b.ring.degree();
  Operand out = randomOperand(b.random, b.ring, s, s.limbs, 1, n, true, fill);
  Operand a = randomOperand(b.random, b.ring, s, s.limbs, 1, n, false, fill);
  PlainOperand p(b.random, b.ring, s, fill);
  return compare(b, s, out, [&](const KernelTable& t, const Launch& l, Operand& o) {
    t.contract(b.ring, b.pool, l, o.rows(), a.rows(), p.rows());
  });
}

// One reduction of 9000 broadcast terms: past every bound on unreduced accumulation.
std::string testLongReduction(Bench& b, Fill fill) {
  Shape s;
  s.rank = s.reduceRank = 2;
  s.dims[0] = 3;
  s.dims[1] = 3000;
  s.accumulate = b.random.coin();
  s.limbs = {0};
  RingContext ring(6, {firstPrimes(6, 50, 1)[0]});
  Operand out = randomOperand(b.random, ring, s, s.limbs, 1, 64, true, fill);
  Operand a = randomOperand(b.random, ring, s, s.limbs, 1, 64, false, fill);
  for (ptrdiff_t& stride : a.strides) stride = 0;
  const uint32_t galois[] = {1, 3, 5};
  std::string difference = compare(b, s, out, [&](const KernelTable& t, const Launch& l, Operand& o) {
    t.contract(ring, b.pool, l, o.rows(), a.rows(), plainRows(a, 64));
  });
  if (difference.empty())
    difference = compare(b, s, out, [&](const KernelTable& t, const Launch& l, Operand& o) {
      t.copy(ring, b.pool, l, o.rows(), a.rows());
    });
  if (difference.empty())
    difference = compare(b, s, out, [&](const KernelTable& t, const Launch& l, Operand& o) {
      t.automorphism(ring, b.pool, l, o.rows(), a.rows(), galois, 0);
    });
  return difference;
}

// A contraction of inner x terms plaintext rows held as coefficients, at N = 2^logN.
std::string testCoefficients(Bench& b, Fill fill, uint32_t logN, uint32_t rowWords, uint32_t inner,
                             uint32_t terms) {
  Shape s;
  s.rank = 3, s.reduceRank = 1;
  s.dims[0] = 2, s.dims[1] = inner, s.dims[2] = terms;
  s.limbs = {1, 0};
  RingContext ring(logN, firstPrimes(logN, 50, 2));
  Operand out = randomOperand(b.random, ring, s, s.limbs, 1, ring.degree(), true, fill);
  Operand a = randomOperand(b.random, ring, s, s.limbs, 1, ring.degree(), false, fill);
  a.strides[1] = 0;  // rows of a meet several weights
  std::vector<uint64_t> words(size_t(inner) * terms * rowWords);
  for (uint64_t& word : words) word = b.random.below(uint64_t(1) << 63) - (uint64_t(1) << 62);
  PlainRows p;
  p.base = words.data();
  p.rowWords = rowWords;
  p.strides[1] = ptrdiff_t(terms) * rowWords;
  p.strides[2] = rowWords;
  p.coefficients = true;
  return compare(b, s, out, [&](const KernelTable& t, const Launch& l, Operand& o) {
    t.contract(ring, b.pool, l, o.rows(), a.rows(), p);
  });
}

std::string testTensor(Bench& b, Fill fill) {
  const Shape s = randomShape(b.random, b.ring, true, 2);
  const uint32_t n = b.ring.degree();
  Operand out = randomOperand(b.random, b.ring, s, s.limbs, 3, n, true, fill);
  Operand a = randomOperand(b.random, b.ring, s, s.limbs, 2, n, false, fill);
  Operand c = randomOperand(b.random, b.ring, s, s.limbs, 2, n, false, fill);
  const bool square = b.random.coin();
  return compare(b, s, out, [&](const KernelTable& t, const Launch& l, Operand& o) {
    t.tensor(b.ring, b.pool, l, o.rows(), a.rows(), square ? a.rows() : c.rows());
  });
}

template <class Call>
std::string testTransform(Bench& b, Fill fill, const Call& call) {
  Shape s = randomShape(b.random, b.ring, false, b.ring.primeCount());
  const uint32_t n = b.ring.degree();
  Operand out = randomOperand(b.random, b.ring, s, s.limbs, 1, n, true, fill);
  Operand a = randomOperand(b.random, b.ring, s, s.limbs, 1, n, false, fill);
  const bool inPlace = b.random.coin();
  return compare(b, s, out, [&](const KernelTable& t, const Launch& l, Operand& o) {
    call(t, l, o.rows(), inPlace ? o.rows() : a.rows());
  });
}

template <auto KernelTable::* entry>
std::string testNtt(Bench& b, Fill fill) {
  return testTransform(b, fill, [&](const KernelTable& t, const Launch& l, Rows o, Rows a) {
    (t.*entry)(b.ring, b.pool, l, o, a);
  });
}

using KernelCheck = std::string (*)(Bench&, Fill);

// The transforms at every degree: odd and even numbers of layers take different paths.
std::string testDegrees(Bench& b, Fill fill, KernelCheck check, uint32_t maxLogN) {
  for (uint32_t logN = kMinLogN; logN <= maxLogN; logN++) {
    RingContext ring(logN, {firstPrimes(logN, 50, 1)[0], firstPrimes(logN, 46, 1)[0],
                            firstPrimes(logN, 40, 1)[0], firstPrimes(logN, logN + 8, 1)[0]});
    Bench inner{ring, b.pool, b.table, b.reference, b.random, logN};
    const std::string difference = check(inner, fill);
    if (!difference.empty()) return difference;
  }
  return "";
}

std::string testBaseConvert(Bench& b, Fill fill) {
  Shape s = randomShape(b.random, b.ring, false, b.ring.primeCount());
  Shape sources = randomShape(b.random, b.ring, false, b.ring.primeCount());
  const uint32_t n = b.ring.degree();
  Operand out = randomOperand(b.random, b.ring, s, s.limbs, 1, n, true, fill);
  Operand a = randomOperand(b.random, b.ring, s, sources.limbs, 1, n, false, fill);
  return compare(b, s, out, [&](const KernelTable& t, const Launch& l, Operand& o) {
    t.baseConvert(b.ring, b.pool, l, o.rows(), a.rows(), sources.limbs.data(),
                  uint32_t(sources.limbs.size()));
  });
}

// More sources and destinations than a kernel has at a time, to the bit at the edges of the sums.
std::string testWideConversion(Bench& b, Fill fill) {
  RingContext ring(5, firstPrimes(5, 50, 90));
  Shape s;
  Shape sources;
  for (uint16_t i = 0; i < 70; i++) sources.limbs.push_back(i);
  for (uint16_t i = 67; i < 90; i++) s.limbs.push_back(i);
  Operand out = randomOperand(b.random, ring, s, s.limbs, 1, 32, true, fill);
  Operand a = randomOperand(b.random, ring, s, sources.limbs, 1, 32, false, fill);
  return compare(b, s, out, [&](const KernelTable& t, const Launch& l, Operand& o) {
    t.baseConvert(ring, b.pool, l, o.rows(), a.rows(), sources.limbs.data(), uint32_t(sources.limbs.size()));
  });
}

std::string testKeyProduct(Bench& b, Fill fill) {
  const Shape s = randomShape(b.random, b.ring, true, 2);
  const uint32_t n = b.ring.degree(), digitCount = 1 + uint32_t(b.random.below(4));
  Operand out = randomOperand(b.random, b.ring, s, s.limbs, 2, n, true, fill);
  Operand digits = randomOperand(b.random, b.ring, s, s.limbs, digitCount, n, false, fill);
  const uint32_t keyDim = s.rank == 0 || b.random.coin() ? ~0u : uint32_t(b.random.below(s.rank));
  if (keyDim != ~0u && b.random.coin()) digits.strides[keyDim] = 0;  // one decomposition for all keys
  const uint32_t keyCount = keyDim == ~0u ? 1 : s.dims[keyDim];
  std::vector<std::vector<uint64_t>> words(keyCount);
  std::vector<KeyView> keys(keyCount);
  std::vector<uint16_t> keyRows, rowOf;
  const bool sparse = b.random.coin();  // every second row of the whole key is held
  for (size_t j = 0; j < s.limbs.size(); j++) {
    const uint16_t place = uint16_t(s.limbs.size() - 1 - j);
    keyRows.push_back(sparse ? uint16_t(2 * place + 1) : place);
    if (sparse) rowOf.insert(rowOf.end(), {kAbsentKeyRow, uint16_t(j)});
  }
  for (uint32_t i = 0; i < keyCount; i++) {
    const uint32_t keyDigits = digitCount + uint32_t(b.random.below(2));
    const uint32_t rowCount = uint32_t(s.limbs.size() + b.random.below(2));
    words[i].assign(size_t(keyDigits) * 2 * rowCount * n, 0);
    for (uint32_t row = 0; row < keyDigits * 2 * rowCount; row++)
      if (row % rowCount < s.limbs.size())
        for (uint32_t k = 0; k < n; k++)
          words[i][size_t(row) * n + k] =
              b.random.residue(b.ring.modulus(s.limbs[s.limbs.size() - 1 - row % rowCount]), fill);
    keys[i] = {words[i].data(), keyDigits, rowCount, sparse ? rowOf.data() : nullptr};
  }
  return compare(b, s, out, [&](const KernelTable& t, const Launch& l, Operand& o) {
    t.keyProduct(b.ring, b.pool, l, o.rows(), digits.rows(), digitCount, keys.data(), keyDim, keyRows.data());
  });
}

std::string testAutomorphism(Bench& b, Fill fill) {
  const Shape s = randomShape(b.random, b.ring, true, 2);
  const uint32_t n = b.ring.degree();
  Operand out = randomOperand(b.random, b.ring, s, s.limbs, 1, n, true, fill);
  Operand a = randomOperand(b.random, b.ring, s, s.limbs, 1, n, false, fill);
  const uint32_t galoisDim = s.rank == 0 || b.random.coin() ? ~0u : uint32_t(b.random.below(s.rank));
  std::vector<uint32_t> galois(galoisDim == ~0u ? 1 : s.dims[galoisDim]);
  for (uint32_t& g : galois) g = b.random.below(4) == 0 ? 2 * n - 1 : uint32_t(2 * b.random.below(n) + 1);
  return compare(b, s, out, [&](const KernelTable& t, const Launch& l, Operand& o) {
    t.automorphism(b.ring, b.pool, l, o.rows(), a.rows(), galois.data(), galoisDim);
  });
}

std::string testSumRows(Bench& b, Fill fill) {
  const size_t count = 1 + b.random.below(9), words = 16 * (1 + b.random.below(40));
  const uint16_t limb = uint16_t(b.random.below(b.ring.primeCount()));
  std::vector<std::vector<uint64_t>> rows(count, std::vector<uint64_t>(words));
  for (auto& row : rows)
    for (uint64_t& word : row) word = b.random.residue(b.ring.modulus(limb), fill);
  Operand out;
  out.words.assign(words, 0x5555555555555555);
  const bool alias = b.random.coin();
  return compare(b, Shape{}, out, [&](const KernelTable& t, const Launch&, Operand& o) {
    if (alias) o.words = rows[0];
    std::vector<const uint64_t*> from;
    for (const auto& row : rows) from.push_back(row.data());
    if (alias) from[0] = o.words.data();
    t.sumRows(o.words.data(), from.data(), count, words, b.ring.prime(limb));
  });
}

struct KernelTest {
  const char* name;
  KernelCheck run;
  uint32_t repeats;
};

constexpr KernelTest kTests[] = {
    {"zero", testZero, 1},
    {"copy", testCopy, 3},
    {"add", testSum<&KernelTable::add>, 3},
    {"sub", testSum<&KernelTable::sub>, 3},
    {"addPlain", testAddPlain, 6},
    {"contract", testContract, 8},
    {"tensor", testTensor, 3},
    {"ntt", testNtt<&KernelTable::ntt>, 1},
    {"intt", testNtt<&KernelTable::intt>, 1},
    {"baseConvert", testBaseConvert, 2},
    {"subScale", testSubScale, 3},
    {"nttSubScale", testNttSubScale, 2},
    {"keyProduct", testKeyProduct, 4},
    {"automorphism", testAutomorphism, 4},
    {"sumRows", testSumRows, 2},
};

// Primes near 2^50 and near 2^40, and one between, where a kernel may switch to its lazier form.
std::vector<uint64_t> testPrimes(uint32_t logN) {
  std::vector<uint64_t> primes = firstPrimes(logN, 50, 4);
  for (uint32_t bits : {46u, 40u}) {
    const auto more = firstPrimes(logN, bits, bits == 46 ? 1 : 3);
    primes.insert(primes.end(), more.begin(), more.end());
  }
  return primes;
}

void runTable(const KernelTable& table, const KernelTable& reference, bool full, bool longRows) {
  std::vector<std::unique_ptr<RingContext>> rings;
  for (uint32_t logN : full ? std::vector<uint32_t>{10, 12, 16} : std::vector<uint32_t>{10, 12})
    rings.push_back(std::make_unique<RingContext>(logN, testPrimes(logN)));
  ThreadPool pools[2] = {ThreadPool(1), ThreadPool(2)};
  for (const KernelTest& test : kTests) {
    std::string difference;
    Random random(seed);
    for (auto& ring : rings)
      for (ThreadPool& pool : pools)
        for (Fill fill : kFills)
          for (uint32_t i = 0; i < (ring->logN() == 10   ? 6 * test.repeats
                                    : ring->logN() == 12 ? test.repeats
                                                         : 1) &&
                               difference.empty();
               i++) {
            Bench bench{*ring, pool, table, reference, random, ring->logN()};
            difference = test.run(bench, fill);
          }
    report(table.name, test.name, difference);
  }
  Random random(seed);
  Bench bench{*rings[0], pools[1], table, reference, random, 6};
  std::string forward, inverse, fused, sums, expanded, wide;
  for (Fill fill : kFills) {
    // Long rows are the point of some tables and cost 2 s, so without --full they come with one fill.
    const uint32_t maxLogN = full || (longRows && fill == Fill::kMixed) ? kMaxLogN : 13;
    if (forward.empty()) forward = testDegrees(bench, fill, testNtt<&KernelTable::ntt>, maxLogN);
    if (inverse.empty()) inverse = testDegrees(bench, fill, testNtt<&KernelTable::intt>, maxLogN);
    if (fused.empty()) fused = testDegrees(bench, fill, testNttSubScale, maxLogN);
    for (int i = 0; i < 4 && sums.empty(); i++) sums = testLongReduction(bench, fill);
    if (expanded.empty()) expanded = testCoefficients(bench, fill, 8, 256, 7, 96);
    if (expanded.empty()) expanded = testCoefficients(bench, fill, 14, 1 << 13, 1, 3);
    if (wide.empty()) wide = testWideConversion(bench, fill);
  }
  report(table.name, "ntt, every degree", forward);
  report(table.name, "intt, every degree", inverse);
  report(table.name, "nttSubScale, every degree", fused);
  report(table.name, "9000 terms", sums);
  report(table.name, "many coefficients", expanded);
  report(table.name, "wide base conversion", wide);
}

int run(int argc, char** argv) {
  bool full = false;
  const char* only = nullptr;
  for (int i = 1; i < argc; i++) {
    if (std::strcmp(argv[i], "--full") == 0) full = true;
    else if (std::strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
      seed = std::strtoull(argv[++i], nullptr, 10);
    else if (std::strcmp(argv[i], "--table") == 0 && i + 1 < argc) only = argv[++i];
    else {
      std::fprintf(stderr, "usage: aegis_conformance [--full] [--seed S] [--table NAME]\n");
      return 2;
    }
  }
  const auto asked = [&](const char* name) { return only == nullptr || std::strcmp(only, name) == 0; };
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  const KernelTable& reference = *findCpuKernels("reference");
  runOracles(reference, seed, report);
  for (const char* name : {"portable", "avx2", "avx512ifma"}) {
    const KernelTable* table = findCpuKernels(name);
    if (asked(name) && table) runTable(*table, reference, full, false), testStreamed(*table, report);
    else if (asked(name)) std::printf("%-21s skipped: this machine cannot run it\n", name);
  }
  if (asked("cuda")) {
    const AegisCuda* api = nullptr;
    const CudaMachine machine = cudaMachine(&api);
    if (api != nullptr) {
      ModuleKernels kernels(*api, 0);
      std::printf("cuda                  %s\n", machine.devices[0].c_str());
      runTable(ModuleKernels::hostTable(), reference, full, true);
    } else {
      std::printf("%-21s skipped: %s\n", "cuda", machine.problem.c_str());
      if (only != nullptr) return 1;
    }
  }
  for (const auto table : kEmulatedCudaTables)
    if (asked(table().name)) runTable(table(), reference, full, true);
  if (asked("cuda-emulated")) testOtherKernels("cuda-emulated", seed, report);
  std::printf("%u passed, %u failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace aegis::test

int main(int argc, char** argv) { return aegis::test::run(argc, argv); }
