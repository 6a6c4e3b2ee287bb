// Small secret polynomials. Running time and memory accesses do not depend on the values (rejected draws
// excepted, and they are independent of what is kept).
#pragma once

#include <cstddef>
#include <cstdint>

#include "client/randomness.h"
#include "client/secret_memory.h"

namespace aegis {

// Half the number of bits of a centred binomial error: variance k/2 = 10.5, sigma 3.24 (the table's 3.19 or
// more).
constexpr uint32_t kBinomialHalfBits = 21;
constexpr double kErrorSigma = 3.2403703492039302;

// Each coefficient uniform in {-1, 0, 1}.
SmallPolynomial sampleTernary(Randomness& random, size_t degree);
// Exactly `weight` coefficients are +-1, uniform among all such polynomials. degree a power of two, weight <=
// degree/2.
SmallPolynomial sampleSparse(Randomness& random, size_t degree, uint32_t weight);
// Centred binomial, 2 * kBinomialHalfBits coins a coefficient.
SmallPolynomial sampleError(Randomness& random, size_t degree);

}  // namespace aegis
