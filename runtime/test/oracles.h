// Independent oracles for the reference kernels: schoolbook products, big integers, coefficient-domain maps.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hal/kernels.h"

namespace aegis::test {

// The `count` largest primes below 2^bits that are 1 mod 2^(logN + 1).
std::vector<uint64_t> firstPrimes(uint32_t logN, uint32_t bits, uint32_t count);

using Report = void (*)(const std::string& table, const std::string& test, const std::string& difference);

// What the CUDA kernels have in no kernel table.
void testOtherKernels(const char* table, uint64_t seed, Report report);
void testMultiply(const char* table, uint64_t seed, Report report);  // a part of it

// Output larger than a core's caches, which CPU kernels may write past them: each kernel with sums on 320
// rows of 2^12 words at an address of 64 bytes, against the reference.
void testStreamed(const KernelTable& table, Report report);

void runOracles(const KernelTable& reference, uint64_t seed, Report report);

}  // namespace aegis::test
