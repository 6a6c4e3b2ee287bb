// reduceRows (backends/cuda/reduce_rows.h) in the emulator against sums by division.
#include <random>

#include "backends/cuda/emulator.h"
#include "backends/cuda/reduce_rows.h"
#include "ckks/modulus.h"
#include "test/oracles.h"

namespace aegis::test {
namespace {

// One job; the limbs of rows and whether the output is one of the blocks are random. Sums of 2^14 residues
// stand for what a channel has added.
std::string reduceOnce(uint32_t logN, std::mt19937_64& random, ThreadPool& pool) {
  const size_t n = size_t(1) << logN;
  std::vector<Prime> primes;
  for (const uint64_t q : firstPrimes(17, 50, 3)) primes.push_back(makePrime(q));
  std::vector<uint16_t> limbs(1 + random() % 4);
  for (uint16_t& limb : limbs) limb = uint16_t(random() % primes.size());
  cuda::ReduceRowsJob job;
  job.primes = primes.data();
  job.limbs = limbs.data();
  job.limbCount = uint32_t(limbs.size());
  job.logN = logN;
  job.first = random() % 7;
  job.rows = 1 + random() % 5;
  job.count = 1 + uint32_t(random() % 4);
  std::vector<std::vector<uint64_t>> blocks(job.count + 1, std::vector<uint64_t>(job.rows * n));
  for (uint32_t b = 0; b < job.count; b++) {
    for (size_t i = 0; i < job.rows * n; i++) {
      const uint64_t q = primes[limbs[(job.first + i / n) % limbs.size()]].q;
      blocks[b][i] = job.count == 1 ? random() % ((q - 1) << 14) : random() % 5 == 0 ? q - 1 : random() % q;
    }
    job.blocks[b] = blocks[b].data();
  }
  std::vector<uint64_t> expected(job.rows * n);
  for (size_t i = 0; i < expected.size(); i++) {
    uint128 sum = 0;
    for (uint32_t b = 0; b < job.count; b++) sum += blocks[b][i];
    expected[i] = uint64_t(sum % primes[limbs[(job.first + i / n) % limbs.size()]].q);
  }
  std::vector<uint64_t>& out = blocks[random() % 2 == 0 ? 0 : job.count];
  job.out = out.data();
  cuda::EmulatedLauncher(pool).start(cuda::ReduceRows{job}, uint32_t(cuda::reduceBlocks(job)),
                                     cuda::kBlockThreads, 0);
  for (size_t i = 0; i < expected.size(); i++)
    if (out[i] != expected[i])
      return "logN " + std::to_string(logN) + ", row " + std::to_string(i / n) + ", word "
             + std::to_string(i % n);
  return "";
}

}  // namespace

void testOtherKernels(const char* table, uint64_t seed, Report report) {
  std::mt19937_64 random(seed);
  ThreadPool pool(2);
  std::string difference;
  for (uint32_t logN = 4; logN <= 14; logN++)
    for (int i = 0; i < 6 && difference.empty(); i++) difference = reduceOnce(logN, random, pool);
  report(table, "reduceRows", difference);
  testMultiply(table, seed, report);
}

}  // namespace aegis::test
