// The encoder: round trips, compressed rows, constants, decoding of large values, and the same bits
// everywhere. aegis_encoder_test
#include "ckks/encoder.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "ckks/rns_decode.h"
#include "executor/materialize.h"
#include "test/client_check.h"
#include "test/toy_plan.h"

namespace aegis::test {
namespace {

using Complex = std::complex<double>;
constexpr double kScale = 0x1p40;
constexpr double kPi = 3.14159265358979323846;

std::vector<Complex> randomSlots(size_t count, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::vector<Complex> values(count);
  const auto draw = [&] { return double(int64_t(engine() >> 11)) * 0x1p-52 - 1; };  // no library distribution
  for (Complex& value : values) {
    const double re = draw();
    value = {re, draw()};
  }
  return values;
}

double distance(const std::vector<Complex>& a, const std::vector<Complex>& b) {
  double result = a.size() == b.size() ? 0 : 1e300;
  for (size_t i = 0; i < std::min(a.size(), b.size()); i++)
    result = std::max({result, std::fabs(a[i].real() - b[i].real()), std::fabs(a[i].imag() - b[i].imag())});
  return result;
}

// Slot j is the polynomial at zeta^(5^j): by definition, in O(N^2).
void checkDefinition(Checker& checker) {
  const SpecialFft fft(6);
  const std::vector<Complex> w = randomSlots(32, 1);
  std::vector<Complex> slots = w;
  fft.toSlots(slots.data(), 32);
  double worst = 0;
  uint64_t power = 1;
  for (uint32_t j = 0; j < 32; j++, power = power * 5 % 128) {
    Complex sum = 0;
    for (uint32_t k = 0; k < 64; k++) {
      const double coefficient = k < 32 ? w[k].real() : w[k - 32].imag();
      sum += coefficient * std::polar(1.0, 2 * kPi * double(power * k % 128) / 128);
    }
    worst = std::max(worst, std::abs(sum - slots[j]));
  }
  checker.near(worst, 0, 1e-13, "slots by definition");
  double rootError = 0;
  const SpecialFft large(13);
  for (uint32_t k = 0; k < 16384; k += 7) {
    const long double angle = 2 * 3.14159265358979323846264338327950288L * k / 16384;
    const std::complex<double> root = large.root(k);
    rootError = std::max({rootError, double(std::fabs(root.real() - std::cos(angle))),
                          double(std::fabs(root.imag() - std::sin(angle)))});
  }
  checker.check(rootError < 0x1.01p-54, "roots of unity are correctly rounded",
                std::to_string(rootError * 0x1p54));
}

void checkRoundTrip(Checker& checker, uint32_t logN) {
  const RingContext ring(logN, toyPrimes(logN, 3, 0));
  ThreadPool pool(2);
  const Encoder encoder(ring, pool);
  const uint32_t n = ring.degree();
  const std::vector<uint16_t> limbs = {0, 1, 2};
  const std::vector<Complex> slots = randomSlots(n / 2, logN);
  std::vector<uint64_t> rows(3 * n);
  encoder.encode(std::span<const Complex>(slots), kScale, limbs, n, rows.data());
  // Rounding: N coefficient errors of variance 1/12 make slot noise sqrt(N/12); eight times that, and
  // the FFT's.
  const double bound = 8 * std::sqrt(n / 12.0) / kScale + 1e-14 * std::sqrt(n);
  const std::string name = "logN " + std::to_string(logN);
  checker.near(distance(encoder.decode(rows.data(), limbs, kScale), slots), 0, bound, name + " round trip");
  checker.near(distance(encoder.decode(rows.data(), std::vector<uint16_t>{0}, kScale), slots), 0, bound,
               name + " round trip, one limb");
}

// Compressed rows are the full rows, word for word.
void checkPeriodic(Checker& checker) {
  const RingContext ring(10, toyPrimes(10, 3, 1));
  ThreadPool pool(1);
  const Encoder encoder(ring, pool);
  const uint32_t n = ring.degree();
  const std::vector<uint16_t> limbs = {2, 0, 3};
  bool equal = true, sameAsUnfolded = true, sameIntegers = true;
  for (uint32_t period = 1; period <= n / 2; period *= 2) {
    const std::vector<Complex> slots = randomSlots(period, period);
    std::vector<Complex> unfolded;
    for (uint32_t i = 0; i < n / 2; i++) unfolded.push_back(slots[i % period]);
    std::vector<uint64_t> full(3 * n), compressed(6 * period), direct(3 * n);
    encoder.encode(std::span<const Complex>(slots), kScale, limbs, n, full.data());
    encoder.encode(std::span<const Complex>(unfolded), kScale, limbs, n, direct.data());
    encoder.encode(std::span<const Complex>(slots), kScale, limbs, 2 * period, compressed.data());
    sameAsUnfolded &= full == direct;
    std::vector<uint64_t> held(2 * period);
    encoder.encodeCoefficients(slots, kScale, held.data());
    const std::vector<double> integers = encoder.coefficients(slots, kScale);
    for (uint32_t k = 0; k < 2 * period; k++) sameIntegers &= double(int64_t(held[k])) == integers[k];
    for (uint32_t j = 0; j < 3; j++)
      for (uint32_t k = 0; k < n; k++)
        equal &= full[j * n + k] == compressed[j * 2 * period + k / (n / (2 * period))];
  }
  checker.check(equal, "compressed rows equal full rows for every period");
  checker.check(sameIntegers, "held coefficients are the integers of the encoding");
  checker.check(sameAsUnfolded, "a periodic vector equals its unfolding");
}

void checkConstants(Checker& checker) {
  const RingContext ring(10, toyPrimes(10, 3, 0));
  ThreadPool pool(1);
  const Encoder encoder(ring, pool);
  const std::vector<uint16_t> limbs = {0, 1, 2};
  uint64_t words[3];
  const auto value = [&](double x, double scale) {
    encoder.encodeConstant(x, scale, limbs, words);
    return words[1];
  };
  const uint64_t q = ring.modulus(1);
  checker.check(value(2.5, 1) == 2 && value(3.5, 1) == 4, "ties go to even");
  checker.check(value(-2.5, 1) == q - 2 && value(-0.25, 1) == 0, "negative constants");
  checker.check(
      value(1, 0x1p80) == powMod(2, 80, q) && value(-3, 0x1p100) == q - mulMod(3, powMod(2, 100, q), q),
      "constants beyond 64 bits are exact");
  checker.refuses("R402", "a coefficient of 2^120", [&] { value(1, 0x1p120); });
  checker.refuses("R402", "NaN", [&] { value(std::nan(""), 1); });
  std::vector<Complex> slots(512, Complex(0.5));
  slots[3] = INFINITY;
  std::vector<uint64_t> rows(3 * 1024);
  checker.refuses("R402", "an infinite slot",
                  [&] { encoder.encode(std::span<const Complex>(slots), kScale, limbs, 1024, rows.data()); });
  slots.assign(8, Complex(0.5));
  checker.refuses("R402", "a held coefficient of 2^63",
                  [&] { encoder.encodeCoefficients(slots, 0x1p64, rows.data()); });
  encoder.encodeCoefficients(slots, 0x1.fffffffffffffp63, rows.data());
  checker.check(rows[0] == 0x7ffffffffffffc00, "the largest held coefficient");
  // A constant vector has the constant's residue at every index.
  const std::vector<double> constant = {0.37};
  encoder.encode(std::span<const double>(constant), kScale, limbs, 1024, rows.data());
  value(0.37, kScale);
  checker.check(
      std::all_of(rows.begin() + 1024, rows.begin() + 2048, [&](uint64_t w) { return w == words[1]; }),
      "a constant vector is the constant");
}

void checkMonomials(Checker& checker) {
  const RingContext ring(10, toyPrimes(10, 2, 0));
  ThreadPool pool(1);
  const Encoder encoder(ring, pool);
  const uint32_t n = ring.degree();
  const std::vector<uint16_t> limbs = {0, 1};
  bool equal = true;
  for (const uint32_t power : {0u, 1u, 5u, n / 2, n - 1, n, n + 3, 3 * n / 2}) {
    std::vector<uint64_t> rows(2 * n), expected(2 * n, 0);
    encoder.encodeMonomial(power, limbs, n, rows.data());
    for (uint32_t j = 0; j < 2; j++) expected[j * n + power % n] = power < n ? 1 : ring.modulus(j) - 1;
    Launch launch;
    launch.limbs = limbs.data();
    launch.limbCount = 2;
    Rows operand;
    operand.base = expected.data();
    operand.limbStride = n;
    cpuKernels().ntt(ring, pool, launch, operand, operand);
    equal &= rows == expected;
  }
  checker.check(equal, "monomials are the NTT of X^power");
  std::vector<uint64_t> rows(2 * n), two(4);
  encoder.encodeMonomial(n / 2, limbs, n, rows.data());
  encoder.encodeMonomial(n / 2, limbs, 2, two.data());
  bool same = true;
  for (uint32_t k = 0; k < n; k++) same &= rows[k] == two[k / (n / 2)] && rows[n + k] == two[2 + k / (n / 2)];
  checker.check(same && mulMod(two[0], two[0], ring.modulus(0)) == ring.modulus(0) - 1,
                "X^(N/2) in two words");
  const std::vector<Complex> slots = encoder.decode(rows.data(), limbs, 1);
  checker.near(distance(slots, std::vector<Complex>(n / 2, Complex(0, 1))), 0, 1e-12,
               "X^(N/2) is i in every slot");
}

// Values far beyond q_0 q_1, of both signs.
void checkLargeValues(Checker& checker) {
  const RingContext ring(10, toyPrimes(10, 6, 0));
  const std::vector<uint16_t> limbs = {0, 1, 2, 3, 4, 5};
  const RnsDecoder decoder(ring, limbs);
  double worst = 0;
  for (int exponent = 0; exponent < 230; exponent += 3) {
    for (const int64_t sign : {1, -1}) {
      uint64_t residues[6];
      const int64_t mantissa = 0x1234567890ab + exponent;
      for (uint32_t i = 0; i < 6; i++) {
        const uint64_t q = ring.modulus(i);
        const uint64_t r = mulMod(uint64_t(mantissa) % q, powMod(2, exponent > 190 ? 190 : exponent, q), q);
        residues[i] = sign < 0 && r != 0 ? q - r : r;
      }
      const double expected = std::ldexp(double(sign * mantissa), exponent > 190 ? 190 : exponent);
      worst = std::max(worst, std::fabs(decoder.centred(residues, 1) / expected - 1));
    }
  }
  checker.check(worst == 0, "large centred values are exact", std::to_string(worst));
}

// Applying a linear map by its diagonals: out[s] = sum_r d_r[s] x[s + r].
std::vector<Complex> applyStages(const SpecialFft& fft, bool inverse, uint32_t first, uint32_t count,
                                 const std::vector<Complex>& x) {
  const uint32_t size = uint32_t(x.size());
  std::vector<Complex> out(size);
  for (uint32_t r = 0; r < size; r++)
    for (uint32_t s = 0; s < size; s++)
      out[s] += dftEntry(fft, inverse, first, count, s, (s + r) % size) * x[(s + r) % size];
  return out;
}

void checkDft(Checker& checker) {
  const SpecialFft fft(8);
  const std::vector<Complex> x = randomSlots(128, 3);
  std::vector<Complex> expected = x, reversed = x;
  bitReversePermute(reversed.data(), 128);
  fft.toSlots(expected.data(), 128);
  std::vector<Complex> forward = applyStages(fft, false, 1, 3, reversed);
  forward = applyStages(fft, false, 4, 2, forward);
  forward = applyStages(fft, false, 6, 2, forward);
  checker.near(distance(forward, expected), 0, 1e-12, "forward diagonals are the special FFT");
  std::vector<Complex> back = applyStages(fft, true, 5, 3, forward);
  back = applyStages(fft, true, 1, 4, back);
  checker.near(distance(back, reversed), 0, 1e-12, "inverse diagonals undo them");
}

// Bits that every build and machine must agree on (DESIGN section 1, promise 2).
void checkBits(Checker& checker) {
  const RingContext ring(12, toyPrimes(12, 3, 0));
  ThreadPool pool(1);
  const Encoder encoder(ring, pool);
  const std::vector<Complex> slots = randomSlots(2048, 42);
  std::vector<uint64_t> rows(3 * 4096);
  encoder.encode(std::span<const Complex>(slots), 0x1p48, std::vector<uint16_t>{0, 1, 2}, 4096, rows.data());
  uint64_t hash = 0xcbf29ce484222325;
  for (const uint64_t word : rows) hash = (hash ^ word) * 0x100000001b3;
  checker.check(hash == 5819475891070705753u, "encoded bits are what they always were", std::to_string(hash));
}

}  // namespace
}  // namespace aegis::test

int main() {
  using namespace aegis::test;
  Checker checker;
  checkDefinition(checker);
  for (const uint32_t logN : {10, 11, 12, 13}) checkRoundTrip(checker, logN);
  checkPeriodic(checker);
  checkConstants(checker);
  checkMonomials(checker);
  checkLargeValues(checker);
  checkDft(checker);
  checkBits(checker);
  return checker.finish();
}
