#include "test/oracles.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <random>
#include <stdexcept>
#include <thread>

#include "ckks/ring.h"
#include "hal/thread_pool.h"
#include "support/error.h"

namespace aegis::test {
namespace {

using Words = std::vector<uint64_t>;

Launch oneRow(const uint16_t* limbs, uint32_t limbCount = 1) {
  Launch launch;
  launch.limbs = limbs;
  launch.limbCount = limbCount;
  return launch;
}

Rows rowsOf(Words& words, ptrdiff_t limbStride = 0) {
  Rows rows;
  rows.base = words.data();
  rows.limbStride = limbStride;
  return rows;
}

Words randomRow(std::mt19937_64& random, size_t n, uint64_t q) {
  Words row(n);
  for (uint64_t& x : row) x = random() % q;
  return row;
}

std::string difference(const Words& actual, const Words& expected) {
  for (size_t k = 0; k < expected.size(); k++)
    if (actual[k] != expected[k])
      return "word " + std::to_string(k) + ": " + std::to_string(actual[k]) + " instead of " +
             std::to_string(expected[k]);
  return "";
}

// The NTT's definition, term by term: out[k] = sum a[i] psi^((2 brv(k) + 1) i).
std::string nttDefinition(const KernelTable& kernels, std::mt19937_64& random) {
  ThreadPool pool(1);
  for (uint32_t logN = 4; logN <= 8; logN++) {
    RingContext ring(logN, firstPrimes(logN, 50, 1));
    const uint32_t n = ring.degree();
    const uint64_t q = ring.modulus(0), psi = ring.psi(0);
    if (powMod(psi, n, q) != q - 1) return "psi has no order 2N";
    Words a = randomRow(random, n, q), actual(n), expected(n, 0);
    for (uint32_t k = 0; k < n; k++)
      for (uint32_t i = 0; i < n; i++) {
        const uint64_t power = powMod(psi, uint64_t(2 * ring.bitReverse(k) + 1) * i, q);
        expected[k] = addMod(expected[k], mulMod(a[i], power, q), q);
      }
    const uint16_t limb = 0;
    kernels.ntt(ring, pool, oneRow(&limb), rowsOf(actual), rowsOf(a));
    if (std::string d = difference(actual, expected); !d.empty()) return d;
    kernels.intt(ring, pool, oneRow(&limb), rowsOf(actual), rowsOf(actual));
    if (std::string d = difference(actual, a); !d.empty()) return d;
  }
  return "";
}

// intt(ntt(a) * ntt(b)) against the schoolbook product mod X^N + 1.
std::string negacyclicProduct(const KernelTable& kernels, std::mt19937_64& random) {
  ThreadPool pool(1);
  for (uint32_t logN : {4u, 6u, 9u}) {
    RingContext ring(logN, firstPrimes(logN, 40, 1));
    const uint32_t n = ring.degree();
    const uint64_t q = ring.modulus(0);
    Words a = randomRow(random, n, q), b = randomRow(random, n, q), expected(n, 0), product(n);
    for (uint32_t i = 0; i < n; i++)
      for (uint32_t k = 0; k < n; k++) {
        const uint64_t term = mulMod(a[i], b[k], q);
        uint64_t& to = expected[(i + k) % n];
        to = i + k < n ? addMod(to, term, q) : subMod(to, term, q);
      }
    const uint16_t limb = 0;
    const Launch launch = oneRow(&limb);
    kernels.ntt(ring, pool, launch, rowsOf(a), rowsOf(a));
    kernels.ntt(ring, pool, launch, rowsOf(b), rowsOf(b));
    PlainRows plain;
    plain.base = b.data();
    plain.rowWords = n;
    kernels.contract(ring, pool, launch, rowsOf(product), rowsOf(a), plain);
    kernels.intt(ring, pool, launch, rowsOf(product), rowsOf(product));
    if (std::string d = difference(product, expected); !d.empty()) return d;
  }
  return "";
}

// X -> X^g on coefficients (a_i goes to i g mod 2N, X^N = -1), against the NTT-order permutation.
std::string automorphismMap(const KernelTable& kernels, std::mt19937_64& random) {
  ThreadPool pool(1);
  for (uint32_t logN : {4u, 8u, 11u}) {
    RingContext ring(logN, firstPrimes(logN, 50, 1));
    const uint32_t n = ring.degree();
    const uint64_t q = ring.modulus(0);
    for (uint32_t galois : {1u, 3u, 5u, 2 * n - 1, uint32_t(random() % n * 2 + 1)}) {
      Words a = randomRow(random, n, q), expected(n, 0), actual(n);
      for (uint32_t i = 0; i < n; i++) {
        const uint32_t to = uint32_t(uint64_t(i) * galois % (2 * n));
        expected[to % n] = to < n ? a[i] : subMod(0, a[i], q);
      }
      const uint16_t limb = 0;
      const Launch launch = oneRow(&limb);
      kernels.ntt(ring, pool, launch, rowsOf(a), rowsOf(a));
      kernels.automorphism(ring, pool, launch, rowsOf(actual), rowsOf(a), &galois, ~0u);
      kernels.intt(ring, pool, launch, rowsOf(actual), rowsOf(actual));
      if (std::string d = difference(actual, expected); !d.empty()) return d;
    }
  }
  return "";
}

// Natural numbers, 32-bit digits, low first: just enough to hold sums of products of primes.
class Natural {
 public:
  explicit Natural(uint64_t value = 0) : digits_{uint32_t(value), uint32_t(value >> 32)} {}
  void multiply(uint64_t factor) {
    const Natural low = times(uint32_t(factor)), high = times(uint32_t(factor >> 32));
    digits_ = high.digits_;
    digits_.insert(digits_.begin(), 0);
    add(low);
  }
  void add(const Natural& other) {
    digits_.resize(std::max(digits_.size(), other.digits_.size()) + 1, 0);
    uint64_t carry = 0;
    for (size_t i = 0; i < digits_.size(); i++) {
      carry += uint64_t(digits_[i]) + (i < other.digits_.size() ? other.digits_[i] : 0);
      digits_[i] = uint32_t(carry);
      carry >>= 32;
    }
  }
  uint64_t modulo(uint64_t q) const {
    uint128 rest = 0;
    for (size_t i = digits_.size(); i-- > 0;) rest = ((rest << 32) | digits_[i]) % q;
    return uint64_t(rest);
  }

 private:
  Natural times(uint32_t factor) const {
    Natural product;
    product.digits_.assign(digits_.size() + 1, 0);
    uint64_t carry = 0;
    for (size_t i = 0; i < digits_.size(); i++) {
      carry += uint64_t(digits_[i]) * factor;
      product.digits_[i] = uint32_t(carry);
      carry >>= 32;
    }
    product.digits_.back() = uint32_t(carry);
    return product;
  }
  std::vector<uint32_t> digits_;
};

// The conversion's integer sum_i y_i D/q_i, formed exactly as the difference of two naturals (positive and
// negative centred residues), then reduced by every destination; and its residues at the sources must be the
// input.
std::string bigIntegerConversion(const KernelTable& kernels, std::mt19937_64& random) {
  ThreadPool pool(1);
  const uint32_t logN = 4, n = 16;
  for (uint32_t sourceCount : {1u, 2u, 5u}) {
    Words primes = firstPrimes(logN, 50, 6), more = firstPrimes(logN, 40, 3);
    primes.insert(primes.end(), more.begin(), more.end());
    RingContext ring(logN, primes);
    std::vector<uint16_t> sources, all;
    for (uint16_t i = 0; i < sourceCount; i++) sources.push_back(uint16_t(i == 1 ? 7 : i));
    for (uint16_t j = 0; j < primes.size(); j++) all.push_back(j);
    Words a(size_t(sourceCount) * n), actual(primes.size() * n), expected(primes.size() * n);
    for (uint32_t i = 0; i < sourceCount; i++)
      for (uint32_t k = 0; k < n; k++) {
        const uint64_t q = primes[sources[i]];
        const uint64_t edges[] = {0, 1, q - 1, q / 2, q / 2 + 1};
        a[i * n + k] = k < 5 ? edges[(k + i) % 5] : random() % q;
      }
    for (uint32_t k = 0; k < n; k++) {
      Natural positive, negative;
      for (uint32_t i = 0; i < sourceCount; i++) {
        const uint64_t q = primes[sources[i]];
        Natural hat(1);
        for (uint32_t s = 0; s < sourceCount; s++)
          if (s != i) hat.multiply(primes[sources[s]]);
        const uint64_t y = mulMod(a[i * n + k], invMod(hat.modulo(q), q), q);
        hat.multiply(y > q / 2 ? q - y : y);
        (y > q / 2 ? negative : positive).add(hat);
      }
      for (size_t j = 0; j < primes.size(); j++)
        expected[j * n + k] = subMod(positive.modulo(primes[j]), negative.modulo(primes[j]), primes[j]);
      for (uint32_t i = 0; i < sourceCount; i++)
        if (expected[size_t(sources[i]) * n + k] != a[i * n + k])
          return "the integer is not congruent to its input";
    }
    kernels.baseConvert(ring, pool, oneRow(all.data(), uint32_t(all.size())), rowsOf(actual, n), rowsOf(a, n),
                        sources.data(), sourceCount);
    if (std::string d = difference(actual, expected); !d.empty()) return d;
  }
  return "";
}

std::string ringErrors() {
  const Words good = firstPrimes(10, 50, 2);
  struct Case {
    const char* code;
    uint32_t logN;
    Words primes;
  };
  const Case cases[] = {{"R201", 3, good},
                        {"R201", 18, good},
                        {"R202", 10, {}},
                        {"R203", 10, {(uint64_t(1) << 50) + 1}},
                        {"R204", 10, {(uint64_t(1) << 40) + 1}},
                        {"R205", 10, {1000003}},
                        {"R206", 10, {good[0], good[1], good[0]}}};
  for (const Case& c : cases) {
    try {
      RingContext ring(c.logN, c.primes);
      return std::string("no ") + c.code;
    } catch (const Error& error) {
      if (error.code() != c.code) return error.code() + " instead of " + c.code;
    }
  }
  RingContext ring(10, good);
  const uint16_t repeated[] = {0, 0}, destination[] = {1};
  try {
    ring.conversion(repeated, 2, destination, 1);
    return "no R208";
  } catch (const Error& error) {
    if (error.code() != "R208") return error.code() + " instead of R208";
  }
  try {
    ring.permutation(4);
    return "no R207";
  } catch (const Error& error) {
    return error.code() == "R207" ? "" : error.code() + " instead of R207";
  }
}

std::string threadPool() {
  for (uint32_t threads : {1u, 2u, 5u}) {
    ThreadPool pool(threads);
    std::vector<std::atomic<uint32_t>> hits(1000);
    // Four callers at once, each with nested loops.
    std::vector<std::thread> callers;
    for (int c = 0; c < 4; c++)
      callers.emplace_back([&] {
        for (int round = 0; round < 50; round++)
          pool.parallelFor(10, 1, [&](size_t begin, size_t end) {
            for (size_t i = begin; i < end; i++)
              pool.parallelFor(100, 7, [&](size_t b, size_t e) {
                for (size_t k = b; k < e; k++) hits[i * 100 + k]++;
              });
          });
      });
    for (std::thread& caller : callers) caller.join();
    for (auto& hit : hits)
      if (hit != 200) return "an index ran " + std::to_string(hit) + " times instead of 200";
    try {
      pool.parallelFor(100, 1, [](size_t begin, size_t) {
        if (begin == 57) throw std::runtime_error("57");
      });
      return "the exception was lost";
    } catch (const std::runtime_error& error) {
      if (std::strcmp(error.what(), "57") != 0) return error.what();
    }
  }
  return "";
}

// AEGIS_KERNELS names the table; an unknown name is an error and never a fallback. Must run before
// cpuKernels().
std::string dispatch() {
  if (findCpuKernels("nonsense") != nullptr) return "a table called nonsense";
  setenv("AEGIS_KERNELS", "nonsense", 1);
  try {
    cpuKernels();
    return "no R501";
  } catch (const Error& error) {
    if (error.code() != "R501") return error.code() + " instead of R501";
  }
  setenv("AEGIS_KERNELS", "portable", 1);
  return &cpuKernels() == findCpuKernels("portable")
             ? ""
             : std::string(cpuKernels().name) + " instead of portable";
}

}  // namespace

std::vector<uint64_t> firstPrimes(uint32_t logN, uint32_t bits, uint32_t count) {
  std::vector<uint64_t> primes;
  const uint64_t step = uint64_t(2) << logN;
  for (uint64_t q = (uint64_t(1) << bits) + 1 - step; primes.size() < count; q -= step)
    if (isPrime(q)) primes.push_back(q);
  return primes;
}

void runOracles(const KernelTable& reference, uint64_t seed, Report report) {
  std::mt19937_64 random(seed);
  report("ring", "errors", ringErrors());
  report("dispatch", "AEGIS_KERNELS", dispatch());
  report("pool", "loops and exceptions", threadPool());
  report("reference", "ntt definition", nttDefinition(reference, random));
  report("reference", "negacyclic product", negacyclicProduct(reference, random));
  report("reference", "automorphism map", automorphismMap(reference, random));
  report("reference", "big-integer conversion", bigIntegerConversion(reference, random));
}

}  // namespace aegis::test
