// The ring Z[X]/(X^N + 1) modulo each prime of a plan: NTT tables, automorphism index tables, base conversion
// tables.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "ckks/modulus.h"
#include "ckks/tables.h"

namespace aegis {

constexpr uint32_t kMinLogN = 4;
constexpr uint32_t kMaxLogN = 17;

class RingContext {
 public:
  // Refuses (Error): R201 logN outside 4..17, R202 no primes or more than 65535, R203 prime not below 2^50,
  // R204 not prime, R205 not 1 mod 2N, R206 repeated.
  RingContext(uint32_t logN, std::vector<uint64_t> primes);
  ~RingContext();
  RingContext(const RingContext&) = delete;
  RingContext& operator=(const RingContext&) = delete;

  uint32_t logN() const { return logN_; }
  uint32_t degree() const { return uint32_t(1) << logN_; }
  uint32_t primeCount() const { return uint32_t(primes_.size()); }
  const Prime& prime(uint32_t index) const { return primes_[index]; }
  uint64_t modulus(uint32_t index) const { return primes_[index].q; }
  uint64_t psi(uint32_t index) const { return psi_[index]; }  // the primitive 2N-th root of the NTT
  uint32_t bitReverse(uint32_t k) const { return reverseBits(k, logN_); }

  // Everything below is built on first use, may be called from any thread and lives as long as the ring.

  const NttTable& nttTable(uint32_t index, TwiddleForm form) const;

  // perm[k] = brv((g (2 brv(k) + 1) mod 2N - 1) / 2): NTT-order index table of X -> X^g. g odd (R207), taken
  // mod 2N. N entries, then every eighth of them once more: N / 8 words.
  const uint32_t* permutation(uint32_t galois) const;

  // Prime indices; sources distinct (R208). A destination may be one of the sources.
  const ConversionTable& conversion(const uint16_t* sources, uint32_t sourceCount,
                                    const uint16_t* destinations, uint32_t destinationCount) const;

 private:
  class TableMemory;
  struct PrimeTables;
  struct Conversion;

  uint32_t logN_;
  std::vector<Prime> primes_;
  std::vector<uint64_t> psi_;
  std::unique_ptr<TableMemory> memory_;
  std::unique_ptr<std::unique_ptr<PrimeTables>[]> tables_;
  mutable std::mutex permutationMutex_;
  mutable std::vector<uint32_t> reversed_;  // brv of each index; guarded by permutationMutex_
  mutable std::unordered_map<uint32_t, std::unique_ptr<uint32_t[]>> permutations_;
  mutable std::mutex conversionMutex_;
  mutable std::map<std::vector<uint16_t>, std::unique_ptr<Conversion>> conversions_;
};

}  // namespace aegis
