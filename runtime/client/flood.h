// Noise that lets a result be shown to others than the key's owner (IND-CPA-D, docs/security.md).
#pragma once

#include <cstdint>

#include "client/randomness.h"

namespace aegis {

// What many shown results tell about the key's errors: at most a statistical distance of 2^-kFloodBits.
constexpr int kFloodBits = 40;

// Standard deviation for D values whose errors are at most E, over q queries: E sqrt(q D) 2^(kFloodBits - 1).
// The divergence of N(e, sigma^2) from N(0, sigma^2) in D coordinates is |e|^2 / (2 sigma^2), it adds up over
// adaptive queries, and half of it bounds the square of the statistical distance (Pinsker; Li, Micciancio,
// Schultz, Sorrell, CRYPTO 2022).
double floodSigma(double errorBound, uint64_t values, uint64_t queries);

// value + N(0, sigma^2), rounded to a multiple of sigma / 2^20 or finer: the low digits of the sum of two
// floating-point numbers would tell about either.
double flooded(double value, double sigma, Randomness& random);

}  // namespace aegis
