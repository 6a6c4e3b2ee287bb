#include "client_noise.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <string>
#include <vector>

#include "ckks/modulus.h"
#include "client/cipher.h"
#include "client/eval_keys.h"
#include "client/keygen.h"
#include "client/sampling.h"
#include "client_fixture.h"
#include "client_keyswitch.h"

namespace aegis::test {
namespace {

using Complex = std::complex<double>;

// Every check fails by chance with probability below 1e-9 (and, the seeds being fixed, never for a generator
// that has passed once). A chi-square value of k degrees of freedom leaves k - 2 sqrt(k x) .. k + 2 sqrt(k x)
// + 2 x with probability at most 2 e^-x (Laurent and Massart, Annals of Statistics 28, 2000, lemma 1).
constexpr double kX = 21.5;
double chiSquareAbove(double degrees) { return degrees + 2 * std::sqrt(degrees * kX) + 2 * kX; }
double chiSquareBelow(double degrees) { return degrees - 2 * std::sqrt(degrees * kX); }
// A normal value is outside of 6.2 sigma with probability 6e-10.
constexpr double kSigmas = 6.2;

double chiSquare(const std::vector<double>& counts, const std::vector<double>& expected) {
  double sum = 0;
  for (size_t i = 0; i < counts.size(); i++)
    sum += (counts[i] - expected[i]) * (counts[i] - expected[i]) / expected[i];
  return sum;
}

void checkChiSquare(Checker& c, double value, double degrees, const std::string& name) {
  c.check(value < chiSquareAbove(degrees), name,
          "chi square " + std::to_string(value) + ", " + std::to_string(int(degrees)) +
              " degrees of freedom, at most " + std::to_string(chiSquareAbove(degrees)));
}

// Errors against the centred binomial of 42 coins: P(k) = C(42, 21 + k) / 2^42, |k| > 11 in two bins.
void checkBinomial(Checker& c, const std::vector<int64_t>& errors, const std::string& name) {
  constexpr int kEdge = 12, kCoins = 2 * int(kBinomialHalfBits);
  std::vector<double> counts(2 * kEdge + 1), expected(2 * kEdge + 1);
  double sum = 0, second = 0, probability = std::exp2(-kCoins);
  for (const int64_t e : errors) {
    counts[size_t(std::clamp<int64_t>(e, -kEdge, kEdge) + kEdge)]++;
    sum += double(e);
    second += double(e) * double(e);
  }
  const double total = double(errors.size()), variance = kCoins / 4.0;
  for (int k = 0; k <= kCoins; k++) {
    expected[size_t(std::clamp(k - kCoins / 2, -kEdge, kEdge) + kEdge)] += total * probability;
    probability *= double(kCoins - k) / (k + 1);
  }
  checkChiSquare(c, chiSquare(counts, expected), 2 * kEdge, name + ": centred binomial");
  c.near(sum / total, 0, kSigmas * std::sqrt(variance / total), name + ": mean");
  // The fourth central moment is (3 - 2/42) variance^2.
  c.near(second / total, variance, kSigmas * variance * std::sqrt((2 - 1.0 / 21) / total),
         name + ": variance");
}

void testSamplers(Checker& c) {
  Randomness random = Randomness::insecureSeed(2026);
  constexpr size_t n = size_t(1) << 20;
  const SmallPolynomial error = sampleError(random, n), ternary = sampleTernary(random, n);
  checkBinomial(c, {error.begin(), error.end()}, "sampled errors");
  std::vector<double> pairs(9), even(9, n / 2 / 9.0);
  for (size_t i = 0; i < n; i += 2) pairs[size_t(3 * (ternary[i] + 1) + ternary[i + 1] + 1)]++;
  checkChiSquare(c, chiSquare(pairs, even), 8, "ternary secret: pairs of neighbours");
  constexpr size_t draws = 4000, degree = 1024, weight = 32, bins = 64;
  std::vector<double> places(bins), expected(bins, draws * weight / double(bins));
  bool exact = true;
  double signs = 0;
  for (size_t i = 0; i < draws; i++) {
    const SmallPolynomial sparse = sampleSparse(random, degree, weight);
    size_t found = 0;
    for (size_t k = 0; k < degree; k++) {
      exact &= sparse[k] >= -1 && sparse[k] <= 1;
      found += sparse[k] != 0;
      signs += sparse[k];
      places[k * bins / degree] += sparse[k] != 0;
    }
    exact &= found == weight;
  }
  c.check(exact, "sparse secret: weight 32 in every draw");
  checkChiSquare(c, chiSquare(places, expected), bins - 1, "sparse secret: places");
  c.near(signs, 0, kSigmas * std::sqrt(double(draws * weight)), "sparse secret: signs");
}

struct Noise {
  Checker& c;
  Fixture fixture = makeFixture();
  const plan::Plan& plan = fixture.root();
  CryptoContext context{plan, 1};
  Randomness random = Randomness::insecureSeed(7);
  SecretKey secret = sampleSecretKey(context.parameters, random);
  SecretRows rows = secretRows(context, secret);
  size_t n = context.degree();
  explicit Noise(Checker& checker) : c(checker) {}

  // Centred coefficients of an NTT row modulo prime `limb`.
  std::vector<int64_t> centred(std::vector<uint64_t> row, uint16_t limb) {
    Launch launch;
    launch.limbs = &limb;
    launch.limbCount = 1;
    Rows at;
    at.base = row.data();
    at.limbStride = ptrdiff_t(n);
    context.kernels.intt(context.ring, context.pool, launch, at, at);
    const uint64_t q = context.ring.modulus(limb);
    std::vector<int64_t> out(n);
    for (size_t i = 0; i < n; i++) out[i] = row[i] > q / 2 ? -int64_t(q - row[i]) : int64_t(row[i]);
    return out;
  }
  Complex slotZero(const std::vector<int64_t>& coefficients, double& others) {
    std::vector<Complex> slots(n / 2);
    for (size_t i = 0; i < n / 2; i++)
      slots[i] = {double(coefficients[i]), double(coefficients[i + n / 2])};
    context.encoder.fft().toSlots(slots.data(), uint32_t(n / 2));
    others = 0;
    for (size_t i = 1; i < n / 2; i++) others += std::norm(slots[i]) / double(n / 2 - 1);
    return slots[0];
  }
};

// Slot 0 is where systematic errors of rounding meet. Over independent samples its mean is 0, and its second
// moment that of the other slots. With Gaussian slots the sum of R squared moduli over their mean is half a
// chi-square of 2 R degrees of freedom. Noise of the form r0 + r1 s with uniform r0, r1 has a variance
// proportional to 1 + |s|^2 in a slot where the secret's value is s: `secret` is then given.
class SlotZero {
 public:
  explicit SlotZero(Noise& noise, const SmallPolynomial* secret = nullptr) : noise_(noise) {
    if (secret == nullptr) return;
    double others = 0;
    const Complex zero = noise.slotZero({secret->begin(), secret->end()}, others);
    share_ = (1 + std::norm(zero)) / (1 + others);
  }
  void add(const std::vector<int64_t>& coefficients) {
    double others = 0;
    const Complex zero = noise_.slotZero(coefficients, others);
    sum_ += zero;
    zero_ += std::norm(zero);
    others_ += others * share_;
    count_++;
  }
  void check(const std::string& name) const {
    const double degrees = 2 * double(count_), value = degrees * zero_ / others_;
    noise_.c.check(value > chiSquareBelow(degrees) && value < chiSquareAbove(degrees),
                   name + ": variance of slot 0 against the others", std::to_string(value / degrees));
    const double mean = std::abs(sum_) / std::sqrt(double(count_) * others_);  // exp(-m^2) above m
    noise_.c.check(mean < std::sqrt(kX), name + ": mean of slot 0",
                   std::to_string(mean) + " sigma, at most " + std::to_string(std::sqrt(kX)));
  }

 private:
  Noise& noise_;
  Complex sum_ = 0;
  double zero_ = 0, others_ = 0, share_ = 1;
  size_t count_ = 0;
};

// b + a s on a special prime, where the key's message P s' vanishes.
void testKeyNoise(Noise& x) {
  const ClientParameters& p = x.context.parameters;
  std::vector<int64_t> errors;
  std::vector<double> bins(256);
  double words = 0;
  SlotZero slots(x);
  for (int round = 0; round < 20; round++) {
    for (const KeySpec& key : p.keys) {
      if (key.kind == plan::KeyKind_Galois) continue;
      const SecretVector<uint64_t>& to =
          key.kind == plan::KeyKind_ToSparse ? x.rows.ephemeral : x.rows.dense;
      for (uint32_t digit = 0; digit < key.shape.digits.size(); digit++) {
        Seed seed;
        x.random.fill(seed.data(), seed.size());
        std::vector<uint64_t> b(key.shape.limbs.size() * x.n), a(x.n);
        makeKeyDigit(x.context, x.rows, key, digit, seed, x.random, b.data());
        const uint16_t limb = key.shape.limbs[0];
        const Prime& prime = x.context.ring.prime(limb);
        expandUniform(seed, key.nonce(digit, 0), prime, a.data(), x.n);
        for (const uint64_t word : a) bins[size_t(uint128(word) * bins.size() / prime.q)]++;
        words += double(x.n);
        b.resize(x.n);
        multiplyAddRow(a.data(), &to[limb * x.n], b.data(), x.n, prime);
        const std::vector<int64_t> e = x.centred(b, limb);
        errors.insert(errors.end(), e.begin(), e.end());
        slots.add(e);
      }
    }
  }
  checkBinomial(x.c, errors, "errors of switching keys");
  slots.check("errors of switching keys");
  checkChiSquare(x.c, chiSquare(bins, std::vector<double>(bins.size(), words / double(bins.size()))),
                 double(bins.size() - 1), "uniform halves of switching keys");
}

// (c0, c1) of a fresh encryption of 0 at a level.
Poly encryptZero(Noise& x, Encryptor& encryptor, uint32_t level) {
  Poly cipher(2 * (level + 1) * x.n);
  encryptor.encrypt(Poly((level + 1) * x.n).data(), level, cipher.data());
  return cipher;
}

// c0 + c1 s in limb 0, centred; s the dense or the sparse secret.
std::vector<int64_t> phase(Noise& x, const Poly& c0, const Poly& c1, const SecretVector<uint64_t>& secret) {
  Poly row(c0.begin(), c0.begin() + ptrdiff_t(x.n));
  multiplyAddRow(c1.data(), secret.data(), row.data(), x.n, x.context.ring.prime(0));
  return x.centred(row, 0);
}

// Fresh, rescaled and switched encryptions of 0 under the secret key. What rescaling adds is uniform rounding
// of both components: variance (1 + 2N/3) / 12.
void testCiphertextNoise(Noise& x) {
  constexpr size_t samples = 1500;
  const ClientParameters& p = x.context.parameters;
  Encryptor encryptor(x.context, x.secret, Randomness::insecureSeed(8));
  const auto key = std::find_if(p.keys.begin(), p.keys.end(), [](const KeySpec& k) {
    return k.kind == plan::KeyKind_Relinearize && k.shape.digits.size() == 1;
  });
  Seed seed{};
  const size_t rows = key->shape.limbs.size();
  std::vector<uint64_t> memory(2 * rows * x.n);
  makeKeyDigit(x.context, x.rows, *key, 0, seed, x.random, memory.data());
  for (uint32_t row = 0; row < rows; row++)
    expandUniform(seed, key->nonce(0, row), x.context.ring.prime(key->shape.limbs[row]),
                  &memory[(rows + row) * x.n], x.n);
  SlotZero fresh(x), rescaled(x, &x.secret.dense), switched(x, &x.secret.dense);
  std::vector<int64_t> errors;
  double rounding = 0;
  for (size_t i = 0; i < samples; i++) {
    const Poly cipher = encryptZero(x, encryptor, 1);
    const auto middle = cipher.begin() + ptrdiff_t(2 * x.n);
    const Poly c0(cipher.begin(), middle), c1(middle, cipher.end());
    const std::vector<int64_t> e = phase(x, c0, c1, x.rows.dense);
    errors.insert(errors.end(), e.begin(), e.end());
    fresh.add(e);
    const std::vector<uint16_t> limbs = x.context.levelLimbs(1);
    const std::vector<int64_t> r =
        phase(x, modDown(x.context, c0, 0, limbs), modDown(x.context, c1, 0, limbs), x.rows.dense);
    rescaled.add(r);
    for (const int64_t v : r) rounding += double(v) * double(v) / double(samples * x.n);
    // Switching a uniform polynomial from s^2 to s; what c1 s^2 leaves of it is the noise of the switch.
    const auto [k0, k1] = keySwitch(x.context, {key->shape, {memory.data(), 1, uint32_t(rows)}, 1, c1, {}});
    Poly message(x.n);
    for (size_t k = 0; k < x.n; k++)
      message[k] = mulMod(c1[k], x.rows.denseSquared[k], x.context.ring.modulus(0));
    const std::vector<int64_t> expected = x.centred(message, 0);
    std::vector<int64_t> s = phase(x, k0, k1, x.rows.dense);
    const auto q = int64_t(x.context.ring.modulus(0));
    for (size_t k = 0; k < x.n; k++) {
      s[k] -= expected[k];
      s[k] = s[k] > q / 2 ? s[k] - q : s[k] < -q / 2 ? s[k] + q : s[k];
    }
    switched.add(s);
  }
  checkBinomial(x.c, errors, "errors of encryptions under the secret key");
  fresh.check("fresh encryption");
  rescaled.check("rescaled encryption");
  switched.check("switched key");
  // One secret: its own weight, and the fresh error over q, which is small.
  const auto weight = std::count_if(x.secret.dense.begin(), x.secret.dense.end(), [](int8_t v) { return v; });
  const double expected = (1 + double(weight)) / 12;
  x.c.near(rounding / expected, 1, 0.05, "rescaled encryption: variance of the rounding");
}

// ModRaise of an encryption under the sparse secret: phase = e + q0 I. Every residue is uniform and centred,
// so I is the rounded sum of 33 numbers in (-1/2, 1/2]: |I| <= 16, mean 0, variance about 33/12.
void testRaised(Noise& x) {
  constexpr size_t samples = 1500;
  const uint64_t q0 = x.context.ring.modulus(0);
  SecretKey sparse = x.secret;
  sparse.dense = x.secret.ephemeral;
  Encryptor encryptor(x.context, sparse, Randomness::insecureSeed(9));
  SlotZero slots(x, &x.secret.ephemeral);
  double second = 0, sum = 0;
  int64_t largest = 0;
  for (size_t i = 0; i < samples; i++) {
    const Poly cipher = encryptZero(x, encryptor, 0);
    Poly raised[2];
    for (size_t k = 0; k < 2; k++)
      raised[k] = raise(x.context, Poly(&cipher[k * x.n], &cipher[k * x.n] + x.n), 1);
    Poly row = raised[0];
    const Prime& prime = x.context.ring.prime(1);
    multiplyAddRow(raised[1].data(), &x.rows.ephemeral[x.n], row.data(), x.n, prime);
    // e and the inverse of q0 modulo q1 give I.
    std::vector<int64_t> e = phase(x, Poly(cipher.begin(), cipher.begin() + ptrdiff_t(x.n)),
                                   Poly(cipher.begin() + ptrdiff_t(x.n), cipher.end()), x.rows.ephemeral);
    std::vector<int64_t> lifted = x.centred(row, 1);
    const uint64_t inverse = invMod(q0 % prime.q, prime.q);
    for (size_t k = 0; k < x.n; k++) {
      const uint64_t v = uint64_t((lifted[k] - e[k]) % int64_t(prime.q) + int64_t(prime.q)) % prime.q;
      const uint64_t whole = mulMod(v, inverse, prime.q);
      lifted[k] = whole > prime.q / 2 ? -int64_t(prime.q - whole) : int64_t(whole);
      largest = std::max<int64_t>(largest, std::abs(lifted[k]));
      sum += double(lifted[k]);
      second += double(lifted[k]) * double(lifted[k]);
    }
    slots.add(lifted);
  }
  const double total = double(samples * x.n), variance = 33 / 12.0;
  x.c.check(largest >= 6 && largest <= 15, "raised encryption: largest |I|", std::to_string(largest));
  x.c.near(second / total, variance, 0.05, "raised encryption: variance of I");
  x.c.near(sum / total, 0, kSigmas * std::sqrt(variance / total), "raised encryption: mean of I");
  slots.check("raised encryption");
}

}  // namespace

void testNoise(Checker& checker) {
  testSamplers(checker);
  Noise noise(checker);
  testKeyNoise(noise);
  testCiphertextNoise(noise);
  testRaised(noise);
}

}  // namespace aegis::test
