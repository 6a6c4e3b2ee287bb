// The transform between slots and coefficients in double precision, bit for bit the same in every build:
// roots of unity come from exact half-angle recurrences in 113-bit arithmetic and never from libm, products
// are written out (no library complex multiplication), and this file is compiled with -ffp-contract=off.
//
// With zeta = exp(2 pi i / 2N) and S = N/2 slots, slot j of a polynomial m is m(zeta^{5^j}). Coefficients k
// and k + S form the complex number w[k] = m_k + i m_{k+S}. (Cheon, Han, Kim, Kim, Song: Bootstrapping for
// approximate homomorphic encryption, 2018, section 5.2: the special FFT.)
#pragma once

#include <complex>
#include <cstdint>
#include <vector>

namespace aegis {

class SpecialFft {
 public:
  explicit SpecialFft(uint32_t logN);

  uint32_t slots() const { return uint32_t(1) << logSlots_; }
  uint32_t logSlots() const { return logSlots_; }

  // exp(2 pi i k / 2N), correctly rounded up to the last place; k is taken mod 2N.
  std::complex<double> root(uint64_t k) const;

  // The twiddle zeta_{4 len}^{5^j} of stage s = 1.. (len = 2^s), j < len / 2.
  std::complex<double> twiddle(uint32_t stage, uint32_t j) const {
    return twiddles_[(size_t(1) << (stage - 1)) - 1 + j];
  }

  // Both in place on `size` values, a power of two up to S: the ring of degree 2 size, whose slots are those
  // of N with period `size`.
  void toSlots(std::complex<double>* values, uint32_t size) const;         // from natural coefficient order
  void toCoefficients(std::complex<double>* values, uint32_t size) const;  // divided by size

  // The butterflies alone: stage s joins values 2^(s-1) apart. Forward in rising order after a bit reversal
  // is toSlots; inverse in falling order, each with a factor 1/2, then a bit reversal, is toCoefficients.
  void stageForward(std::complex<double>* values, uint32_t size, uint32_t stage) const;
  void stageInverse(std::complex<double>* values, uint32_t size, uint32_t stage) const;

 private:
  uint32_t logN_, logSlots_;
  std::vector<std::complex<double>> quadrant_;  // root(0 .. N/2)
  std::vector<std::complex<double>> twiddles_;  // stages 1.. one after another
};

inline std::complex<double> multiply(std::complex<double> a, std::complex<double> b) {
  return {a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real()};
}

void bitReversePermute(std::complex<double>* values, uint32_t size);

}  // namespace aegis
