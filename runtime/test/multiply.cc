// The forms of backends/cuda/multiply.h against products by division, at the edges of their ranges; the
// chains of multiply_chain.h against powers.
#include <random>

#include "backends/cuda/emulator.h"
#include "backends/cuda/multiply_chain.h"
#include "ckks/modulus.h"
#include "test/oracles.h"

namespace aegis::test {
namespace {

namespace floating = cuda::floating;
using cuda::Multiply;
using cuda::MultiplyForm;

// Near 0, near the bound, or anywhere below it; 0 stands for 2^64.
uint64_t edge(std::mt19937_64& random, uint64_t bound) {
  const uint64_t choice = random() % 4, step = random() % 3;
  if (choice == 0) return step;
  if (choice == 1) return bound - 1 - step;
  return bound == 0 ? random() : random() % bound;
}

std::string problemAt(const char* what, uint64_t x, uint64_t w, uint64_t q) {
  return std::string(what) + " of " + std::to_string(x) + " and " + std::to_string(w) + " modulo " +
         std::to_string(q);
}

template <MultiplyForm form>
std::string multiplyOnce(uint64_t q, std::mt19937_64& random) {
  const uint64_t w = edge(random, q), x = edge(random, Multiply<form>::kNarrow ? uint64_t(1) << 52 : 0);
  const uint64_t companion = uint64_t((uint128(w) << 64) / q);
  const uint64_t r = Multiply<form>::lazy(x, w, companion, q);
  if (r >= 2 * q || r % q != uint64_t(uint128(x) * w % q)) return problemAt("lazy", x, w, q);
  const uint64_t narrow = edge(random, 2 * q);
  const uint64_t f = floating::multiply(floating::ofWord(narrow), floating::ofWord(w), double(w) / double(q),
                                        floating::ofWord(q));
  if (f >= 2 * q || f % q != uint64_t(uint128(narrow) * w % q)) return problemAt("fp64", narrow, w, q);

  const uint64_t a = edge(random, uint64_t(1) << 51), b = edge(random, uint64_t(1) << 51);
  uint64_t high = random() >> 32, low = edge(random, 0);
  const uint128 expected = (uint128(high) << 64 | low) + uint128(a) * b;
  Multiply<form>::addProduct(high, low, a, b);
  if ((uint128(high) << 64 | low) != expected) return problemAt("addProduct", a, b, q);
  const uint64_t y = edge(random, 0);
  return Multiply<form>::high(x, y) == uint64_t(uint128(x) * y >> 64) ? "" : problemAt("high", x, y, q);
}

template <MultiplyForm form>
std::string chainOnce(uint64_t q, std::mt19937_64& random, ThreadPool& pool) {
  cuda::MultiplyChainJob job;
  job.blocks = 2, job.steps = uint32_t(random() % 40);
  job.q = q, job.w = edge(random, q), job.companion = uint64_t((uint128(job.w) << 64) / q);
  std::vector<uint64_t> words(job.blocks * cuda::kChainBlockWords), expected;
  for (uint64_t& word : words) {
    word = edge(random, q);
    expected.push_back(uint64_t(uint128(word) * powMod(job.w, job.steps, q) % q));
  }
  job.words = words.data();
  cuda::EmulatedLauncher launcher(pool);
  cuda::startChain(launcher, uint32_t(form), job);
  return words == expected ? "" : "a chain of " + std::to_string(job.steps) + " modulo " + std::to_string(q);
}

template <MultiplyForm form>
std::string testForm(uint64_t seed) {
  std::mt19937_64 random(seed);
  ThreadPool pool(2);
  std::string difference;
  for (const uint32_t bits : {50u, 46u, 40u, 20u})
    for (const uint64_t q : firstPrimes(9, bits, 3)) {
      for (int i = 0; i < 20000 && difference.empty(); i++) difference = multiplyOnce<form>(q, random);
      for (int i = 0; i < 3 && difference.empty(); i++) difference = chainOnce<form>(q, random, pool);
    }
  return difference;
}

}  // namespace

void testMultiply(const char* table, uint64_t seed, Report report) {
  report(table, "multiply, shoup64", testForm<MultiplyForm::shoup64>(seed));
  report(table, "multiply, split32", testForm<MultiplyForm::split32>(seed));
  report(table, "multiply, fp64", testForm<MultiplyForm::fp64>(seed));
}

}  // namespace aegis::test
