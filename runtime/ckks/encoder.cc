#include "ckks/encoder.h"

#include <cmath>
#include <cstring>
#include <string>

#include "ckks/rns_decode.h"
#include "ckks/subring_ntt.h"
#include "support/error.h"

namespace aegis {
namespace {

// A double of integer value below 2^120, exactly.
uint64_t residueOf(double integer, const Prime& prime) {
  const double magnitude = std::fabs(integer);
  const uint64_t r =
      magnitude < 0x1p63 ? reduce64(uint64_t(magnitude), prime) : reduce128(uint128(magnitude), prime);
  return integer < 0 && r != 0 ? prime.q - r : r;
}

double roundScaled(double value, double scale, uint32_t maxBits) {
  const double scaled = std::nearbyint(value * scale);  // the default rounding mode: ties to even
  if (!(std::fabs(scaled) < std::ldexp(1.0, int(maxBits))))
    fail("R402",
         "a plaintext coefficient is " + std::to_string(value * scale) + " but must be below 2^" +
             std::to_string(maxBits),
         "check the weights for huge or missing (NaN) values");
  return scaled;
}

bool isPowerOfTwo(uint64_t x) { return x != 0 && (x & (x - 1)) == 0; }

}  // namespace

Encoder::Encoder(const RingContext& ring, ThreadPool& pool) : ring_(ring), pool_(pool), fft_(ring.logN()) {}

std::vector<double> Encoder::coefficients(std::span<const std::complex<double>> slots, double scale,
                                          uint32_t maxBits) const {
  const uint32_t period = uint32_t(slots.size());
  AEGIS_INVARIANT(isPowerOfTwo(period) && period <= this->slots());
  std::vector<std::complex<double>> values(slots.begin(), slots.end());
  fft_.toCoefficients(values.data(), period);
  std::vector<double> result(2 * size_t(period));
  for (uint32_t k = 0; k < period; k++) {
    result[k] = roundScaled(values[k].real(), scale, maxBits);
    result[period + k] = roundScaled(values[k].imag(), scale, maxBits);
  }
  return result;
}

void Encoder::encode(std::span<const std::complex<double>> slots, double scale,
                     std::span<const uint16_t> limbs, uint32_t rowWords, uint64_t* out) const {
  const std::vector<double> coefficient = coefficients(slots, scale);
  const uint32_t words = uint32_t(coefficient.size()), n = ring_.degree();
  AEGIS_INVARIANT(rowWords == words || rowWords == n);
  const uint32_t gap = rowWords / words;  // coefficient k belongs to X^(k N / (2 period))
  for (size_t j = 0; j < limbs.size(); j++) {
    uint64_t* row = out + j * rowWords;
    const Prime& prime = ring_.prime(limbs[j]);
    if (gap > 1) std::memset(row, 0, rowWords * sizeof(uint64_t));
    for (uint32_t k = 0; k < words; k++) row[size_t(k) * gap] = residueOf(coefficient[k], prime);
    if (rowWords != n) subringNtt(row, rowWords, ring_.nttTable(limbs[j], TwiddleForm::kShoup64));
  }
  if (rowWords == n) kernelNtt(out, limbs, true);
}

void Encoder::encode(std::span<const double> slots, double scale, std::span<const uint16_t> limbs,
                     uint32_t rowWords, uint64_t* out) const {
  const std::vector<std::complex<double>> values(slots.begin(), slots.end());
  encode(std::span<const std::complex<double>>(values), scale, limbs, rowWords, out);
}

void Encoder::encodeCoefficients(std::span<const std::complex<double>> slots, double scale,
                                 uint64_t* out) const {
  for (const double integer : coefficients(slots, scale, kMaxHeldBits)) *out++ = uint64_t(int64_t(integer));
}

void Encoder::encodeConstant(double value, double scale, std::span<const uint16_t> limbs,
                             uint64_t* out) const {
  const double integer = roundScaled(value, scale, kMaxCoefficientBits);
  for (size_t j = 0; j < limbs.size(); j++) out[j] = residueOf(integer, ring_.prime(limbs[j]));
}

void Encoder::encodeMonomial(uint32_t power, std::span<const uint16_t> limbs, uint32_t rowWords,
                             uint64_t* out) const {
  const uint32_t n = ring_.degree();
  AEGIS_INVARIANT(power < 2 * n && uint64_t(power) * rowWords % n == 0);
  // Index k evaluates at psi^(2 brv(k) + 1); a block of n / rowWords indices
  // shares the low bits of brv(k) that count.
  for (size_t j = 0; j < limbs.size(); j++) {
    const uint64_t q = ring_.modulus(limbs[j]), psi = ring_.psi(limbs[j]);
    for (uint32_t word = 0; word < rowWords; word++) {
      const uint64_t point = 2 * uint64_t(ring_.bitReverse(word * (n / rowWords))) + 1;
      out[j * rowWords + word] = powMod(psi, point * power % (2 * uint64_t(n)), q);
    }
  }
}

void Encoder::kernelNtt(uint64_t* rows, std::span<const uint16_t> limbs, bool forward) const {
  Launch launch;
  launch.limbs = limbs.data();
  launch.limbCount = uint32_t(limbs.size());
  Rows operand;
  operand.base = rows;
  operand.limbStride = ptrdiff_t(ring_.degree());
  const KernelTable& kernels = cpuKernels();
  (forward ? kernels.ntt : kernels.intt)(ring_, pool_, launch, operand, operand);
}

std::vector<std::complex<double>> Encoder::decode(const uint64_t* rows, std::span<const uint16_t> limbs,
                                                  double scale) const {
  const uint32_t n = ring_.degree(), half = n / 2;
  std::vector<uint64_t> coefficientRows(rows, rows + limbs.size() * n);
  kernelNtt(coefficientRows.data(), limbs, false);
  const RnsDecoder decoder(ring_, limbs);
  std::vector<std::complex<double>> values(half);
  pool_.parallelFor(half, 1024, [&](size_t begin, size_t end) {
    for (size_t k = begin; k < end; k++)
      values[k] = {decoder.centred(coefficientRows.data() + k, n) / scale,
                   decoder.centred(coefficientRows.data() + half + k, n) / scale};
  });
  fft_.toSlots(values.data(), half);
  return values;
}

}  // namespace aegis
