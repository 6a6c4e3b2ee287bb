#include "ckks/special_fft.h"

#include <cmath>
#include <utility>

#include "support/error.h"

namespace aegis {
namespace {

#if defined(__SIZEOF_FLOAT128__)
__extension__ typedef __float128 Quad;  // software arithmetic, IEEE: the same on every machine
#else
using Quad = long double;  // AArch64: IEEE binary128 as well
static_assert(__LDBL_MANT_DIG__ == 113);
#endif

struct QuadComplex {
  Quad re, im;
};

QuadComplex multiply(const QuadComplex& a, const QuadComplex& b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

// Newton from the correctly rounded double root: 53 -> 106 -> past 113 bits.
Quad squareRoot(Quad x) {
  Quad y = std::sqrt(double(x));
  for (int i = 0; i < 3; i++) y = (y + x / y) / 2;
  return y;
}

// exp(2 pi i / 2^bits) for bits = 2, 3, ...: cos(t/2) = sqrt((1 + cos t)/2), sin(t/2) = sin t / (2 cos(t/2)),
// no cancellation in either.
QuadComplex halfAngle(const QuadComplex& w) {
  const Quad cosine = squareRoot((1 + w.re) / 2);
  return {cosine, w.im / (2 * cosine)};
}

}  // namespace

SpecialFft::SpecialFft(uint32_t logN) : logN_(logN), logSlots_(logN - 1) {
  AEGIS_INVARIANT(logN >= 2 && logN <= 17);
  // root(k) for k in [0, N/2]: the product of the powers of two in k, largest angle first.
  const uint32_t quarter = slots();
  std::vector<QuadComplex> exact(quarter + 1);
  exact[0] = {1, 0};
  exact[quarter] = {0, 1};
  QuadComplex w = {0, 1};
  for (uint32_t step = quarter / 2; step >= 1; step /= 2) {
    w = halfAngle(w);  // the angle of `step`
    for (uint32_t k = 0; k < quarter; k += 2 * step) exact[k + step] = multiply(exact[k], w);
  }
  for (const QuadComplex& z : exact) quadrant_.emplace_back(double(z.re), double(z.im));

  const uint32_t order = uint32_t(2) << logN_;
  for (uint32_t stage = 1; stage <= logSlots_; stage++) {
    const uint32_t quad = uint32_t(4) << stage;
    uint32_t power = 1;  // 5^j mod quad
    for (uint32_t j = 0; j < uint32_t(1) << (stage - 1); j++, power = power * 5 % quad)
      twiddles_.push_back(root(uint64_t(power) * (order / quad)));
  }
}

std::complex<double> SpecialFft::root(uint64_t k) const {
  const uint64_t quarter = slots();
  const std::complex<double> z = quadrant_[k % quarter];
  switch (k / quarter % 4) {
    case 0: return z;
    case 1: return {-z.imag(), z.real()};
    case 2: return {-z.real(), -z.imag()};
    default: return {z.imag(), -z.real()};
  }
}

void bitReversePermute(std::complex<double>* values, uint32_t size) {
  for (uint32_t i = 1, j = 0; i < size; i++) {
    uint32_t bit = size >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) std::swap(values[i], values[j]);
  }
}

void SpecialFft::stageForward(std::complex<double>* values, uint32_t size, uint32_t stage) const {
  const uint32_t half = uint32_t(1) << (stage - 1);
  const std::complex<double>* zeta = twiddles_.data() + (half - 1);
  for (uint32_t i = 0; i < size; i += 2 * half) {
    for (uint32_t j = 0; j < half; j++) {
      const std::complex<double> u = values[i + j], v = multiply(values[i + j + half], zeta[j]);
      values[i + j] = {u.real() + v.real(), u.imag() + v.imag()};
      values[i + j + half] = {u.real() - v.real(), u.imag() - v.imag()};
    }
  }
}

void SpecialFft::stageInverse(std::complex<double>* values, uint32_t size, uint32_t stage) const {
  const uint32_t half = uint32_t(1) << (stage - 1);
  const std::complex<double>* zeta = twiddles_.data() + (half - 1);
  for (uint32_t i = 0; i < size; i += 2 * half) {
    for (uint32_t j = 0; j < half; j++) {
      const std::complex<double> u = values[i + j], v = values[i + j + half];
      const std::complex<double> difference = {(u.real() - v.real()) * 0.5, (u.imag() - v.imag()) * 0.5};
      values[i + j] = {(u.real() + v.real()) * 0.5, (u.imag() + v.imag()) * 0.5};
      values[i + j + half] = multiply(difference, std::conj(zeta[j]));
    }
  }
}

void SpecialFft::toSlots(std::complex<double>* values, uint32_t size) const {
  AEGIS_INVARIANT(size >= 1 && size <= slots() && (size & (size - 1)) == 0);
  bitReversePermute(values, size);
  for (uint32_t stage = 1; uint32_t(1) << stage <= size; stage++) stageForward(values, size, stage);
}

void SpecialFft::toCoefficients(std::complex<double>* values, uint32_t size) const {
  AEGIS_INVARIANT(size >= 1 && size <= slots() && (size & (size - 1)) == 0);
  for (uint32_t stage = uint32_t(__builtin_ctz(size)); stage >= 1; stage--) stageInverse(values, size, stage);
  bitReversePermute(values, size);
}

}  // namespace aegis
