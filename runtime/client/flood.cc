#include "client/flood.h"

#include <cmath>

namespace aegis {
namespace {

constexpr int kGridBits = 20;

// In (0, 1].
double uniform(Randomness& random) {
  uint64_t word = 0;
  random.fill(&word, sizeof word);
  return (double(word >> 11) + 1) * 0x1p-53;
}

}  // namespace

double floodSigma(double errorBound, uint64_t values, uint64_t queries) {
  return errorBound * std::sqrt(double(queries) * double(values)) * std::exp2(kFloodBits - 1);
}

// Box and Muller. 53 bits reach 8.5 sigma; beyond it lies a probability of 2^-55.
double flooded(double value, double sigma, Randomness& random) {
  const double radius = std::sqrt(-2 * std::log(uniform(random)));
  const double noisy = value + sigma * radius * std::cos(2 * M_PI * uniform(random));
  const double grid = std::exp2(std::floor(std::log2(sigma)) - kGridBits);
  return std::nearbyint(noisy / grid) * grid;
}

}  // namespace aegis
