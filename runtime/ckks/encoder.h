// Slots <-> RNS plaintexts in NTT form (runtime/plan/plan.fbs, Plaintext). Same bits in every build and on
// every machine: see special_fft.h; value * scale is rounded to the nearest integer, ties to even.
#pragma once

#include <complex>
#include <cstdint>
#include <span>
#include <vector>

#include "ckks/ring.h"
#include "ckks/special_fft.h"
#include "hal/kernels.h"
#include "hal/thread_pool.h"

namespace aegis {

// Coefficients of an encoding are below 2^this in magnitude; those held as signed words below 2^63.
constexpr uint32_t kMaxCoefficientBits = 120;
constexpr uint32_t kMaxHeldBits = 63;

class Encoder {
 public:
  // Keeps references to both.
  Encoder(const RingContext& ring, ThreadPool& pool);

  const RingContext& ring() const { return ring_; }
  const SpecialFft& fft() const { return fft_; }
  uint32_t slots() const { return fft_.slots(); }

  // Slot vector of period `slots.size()` (a power of two up to N/2) at `scale`, as one row of rowWords words
  // for each limb, at out + limb * rowWords. rowWords: N; or 2 * period, the NTT of the polynomial in X^(N /
  // (2 period)), whose value at index k is word k / (N / rowWords). Both hold the same polynomial. R402: a
  // slot is not finite, or a coefficient reaches 2^120.
  void encode(std::span<const std::complex<double>> slots, double scale, std::span<const uint16_t> limbs,
              uint32_t rowWords, uint64_t* out) const;
  void encode(std::span<const double> slots, double scale, std::span<const uint16_t> limbs, uint32_t rowWords,
              uint64_t* out) const;

  // The same polynomial as its integer coefficients: 2 * period signed words (hal/kernels.h, PlainRows). R402
  // as above, or a coefficient reaches 2^63.
  void encodeCoefficients(std::span<const std::complex<double>> slots, double scale, uint64_t* out) const;

  // round(value * scale) modulo each limb: the single word of a constant's row. R402 as above.
  void encodeConstant(double value, double scale, std::span<const uint16_t> limbs, uint64_t* out) const;

  // X^power, power < 2N, at scale 1; power * rowWords divisible by N.
  void encodeMonomial(uint32_t power, std::span<const uint16_t> limbs, uint32_t rowWords,
                      uint64_t* out) const;

  // The integer coefficients [0, 2 period) of the encoding in X^(N / (2 period)), rounded. R402 as above, or
  // a coefficient reaches 2^maxBits.
  std::vector<double> coefficients(std::span<const std::complex<double>> slots, double scale,
                                   uint32_t maxBits = kMaxCoefficientBits) const;

  // rows: limbs.size() rows of N words in NTT form, at rows + limb * N. All N/2 slots: the centred value
  // modulo the product of the limbs, divided by scale.
  std::vector<std::complex<double>> decode(const uint64_t* rows, std::span<const uint16_t> limbs,
                                           double scale) const;

 private:
  void kernelNtt(uint64_t* rows, std::span<const uint16_t> limbs, bool forward) const;

  const RingContext& ring_;
  ThreadPool& pool_;
  SpecialFft fft_;
};

}  // namespace aegis
