// Keys, encryption and decryption: correctness of every kind of key, noise, distributions, refusals.
//   aegis_client_test
#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <filesystem>
#include <fstream>
#include <map>
#include <unistd.h>

#include "ckks/modulus.h"
#include "client/cipher.h"
#include "client/eval_keys.h"
#include "client/keygen.h"
#include "client/sampling.h"
#include "client_check.h"
#include "client_files.h"
#include "client_fixture.h"
#include "client_keyswitch.h"
#include "client_noise.h"

namespace aegis::test {
namespace {

using Complex = std::complex<double>;
namespace fs = std::filesystem;

constexpr double kScale = double(uint64_t(1) << 40);

// One plan, one set of keys, and what the tests need to look inside.
struct Bench {
  Checker checker;
  Fixture fixture = makeFixture();
  const plan::Plan& plan = fixture.root();
  CryptoContext context{plan, 2};
  std::string directory =
      (fs::temp_directory_path() / ("aegis-client-test-" + std::to_string(getpid()))).string();
  KeygenResult files = generateKeys(context, {directory, 1234, {}});
  SecretKey secret = readSecretKey(SafeTensors::open(files.secretKey), context.parameters);
  EvalKeys keys = EvalKeys::open(files.evalKeys, plan, 2, {});
  Decryptor decryptor{context, secret};
  ~Bench() { fs::remove_all(directory); }
  size_t n() const { return context.degree(); }
};

std::vector<Complex> randomSlots(size_t count, uint32_t seed) {
  Randomness random = Randomness::insecureSeed(seed);
  std::vector<uint32_t> words(2 * count);
  random.fill(words.data(), words.size() * sizeof(uint32_t));
  std::vector<Complex> slots(count);
  for (size_t i = 0; i < count; i++) slots[i] = {words[2 * i] / 0x1p31 - 1, words[2 * i + 1] / 0x1p31 - 1};
  return slots;
}

Poly encode(Bench& b, const std::vector<Complex>& slots, uint32_t level) {
  Poly plain((level + 1) * b.n());
  b.context.encoder.encode(std::span<const Complex>(slots), kScale, b.context.levelLimbs(level),
                           uint32_t(b.n()), plain.data());
  return plain;
}

// Centred coefficients, in limb 0, of c0 + c1 s - plain.
std::vector<double> noiseOf(Bench& b, const Poly& cipher, const Poly& plain, uint32_t level) {
  const size_t n = b.n();
  Poly found((level + 1) * n);
  b.decryptor.decrypt(cipher.data(), level, found.data());
  const Prime& prime = b.context.ring.prime(0);
  for (size_t i = 0; i < n; i++) found[i] = subMod(found[i], plain[i], prime.q);
  const uint16_t limb = 0;
  Launch launch;
  launch.limbs = &limb;
  launch.limbCount = 1;
  Rows rows;
  rows.base = found.data();
  rows.limbStride = ptrdiff_t(n);
  b.context.kernels.intt(b.context.ring, b.context.pool, launch, rows, rows);
  std::vector<double> noise(n);
  for (size_t i = 0; i < n; i++)
    noise[i] = found[i] > prime.q / 2 ? -double(prime.q - found[i]) : double(found[i]);
  return noise;
}

double variance(const std::vector<double>& values) {
  double sum = 0;
  for (double v : values) sum += v * v;
  return sum / double(values.size());
}

double largestDifference(const std::vector<Complex>& a, const std::vector<Complex>& b) {
  double largest = 0;
  for (size_t i = 0; i < a.size(); i++) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

std::vector<Complex> decrypted(Bench& b, const Poly& c0, const Poly& c1, uint32_t level) {
  Poly cipher = c0, plain((level + 1) * b.n());
  cipher.insert(cipher.end(), c1.begin(), c1.end());
  b.decryptor.decrypt(cipher.data(), level, plain.data());
  return b.context.encoder.decode(plain.data(), b.context.levelLimbs(level), kScale);
}

std::pair<Poly, Poly> encrypted(Bench& b, const std::vector<Complex>& slots, uint32_t level,
                                const std::string& key) {
  Encryptor encryptor(b.context, openEncryptionKey(key, b.context.parameters), Randomness::system());
  Poly cipher(2 * (level + 1) * b.n());
  encryptor.encrypt(encode(b, slots, level).data(), level, cipher.data());
  const auto middle = cipher.begin() + ptrdiff_t(cipher.size() / 2);
  return {Poly(cipher.begin(), middle), Poly(middle, cipher.end())};
}

// Noise of fresh ciphertexts in coefficients and in slots: variance as predicted, mean zero, slot 0 like any
// other.
void testFreshNoise(Bench& b, const std::string& name, const std::string& key, double expectedVariance) {
  const size_t n = b.n(), repeats = 64;
  Encryptor encryptor(b.context, openEncryptionKey(key, b.context.parameters), Randomness::system());
  double sum = 0, mean = 0, slotZero = 0, allSlots = 0;
  for (size_t r = 0; r < repeats; r++) {
    const uint32_t level = uint32_t(r % 5);
    const Poly plain = encode(b, randomSlots(n / 2, uint32_t(r)), level);
    Poly cipher(2 * plain.size());
    encryptor.encrypt(plain.data(), level, cipher.data());
    const std::vector<double> noise = noiseOf(b, cipher, plain, level);
    sum += variance(noise) / double(repeats);
    std::vector<Complex> slots(n / 2);
    for (size_t i = 0; i < n / 2; i++) {
      slots[i] = {noise[i], noise[i + n / 2]};
      mean += (noise[i] + noise[i + n / 2]) / double(repeats * n);
    }
    b.context.encoder.fft().toSlots(slots.data(), uint32_t(n / 2));
    slotZero += std::norm(slots[0]) / double(repeats);
    for (const Complex& slot : slots) allSlots += std::norm(slot) / double(repeats * n / 2);
  }
  b.checker.near(sum / expectedVariance, 1, 0.1, name + ": variance of the noise against theory");
  b.checker.near(mean / std::sqrt(expectedVariance), 0, 6 / std::sqrt(double(repeats * n)),
                 name + ": mean of the noise");
  // Under one public key the error's own slot 0 is fixed, so the ratio varies from key to key, but not by a
  // factor of 83.
  b.checker.check(slotZero > 0.02 * allSlots && slotZero < 6 * allSlots,
                  name + ": slot 0 against the average slot", std::to_string(slotZero / allSlots));
}

void testEncryption(Bench& b) {
  const std::vector<Complex> slots = randomSlots(b.n() / 2, 7);
  for (uint32_t level : {0u, 2u, 4u}) {
    for (const std::string& key : {b.files.publicKey, b.files.secretKey}) {
      const auto [c0, c1] = encrypted(b, slots, level, key);
      const double error = largestDifference(decrypted(b, c0, c1, level), slots);
      b.checker.check(
          error < 0x1p-24,
          "round trip at level " + std::to_string(level) + " with " + fs::path(key).filename().string(),
          std::to_string(std::log2(error)) + " bits");
    }
  }
  const double sigma2 = kErrorSigma * kErrorSigma, n = double(b.n());
  testFreshNoise(b, "secret key", b.files.secretKey, sigma2);
  testFreshNoise(b, "public key", b.files.publicKey, sigma2 * (4 * n / 3 + 1));
}

// Rotation: slots move left by k. Conjugation: slots are conjugated. At every level of the key's class.
void testGalois(Bench& b) {
  const std::vector<Complex> slots = randomSlots(b.n() / 2, 8);
  const uint32_t order = uint32_t(2 * b.n());
  for (uint32_t i = 0; i < b.context.parameters.keys.size(); i++) {
    const KeySpec& spec = b.context.parameters.keys[i];
    if (spec.kind != plan::KeyKind_Galois) continue;
    const KeyClassShape& shape = spec.shape;
    std::vector<Complex> expected = slots;
    if (spec.galois == order - 1) {
      for (Complex& slot : expected) slot = std::conj(slot);
    } else {
      uint32_t steps = 0, g = 1;
      for (; g != spec.galois; steps++) g = g * 5 % order;
      std::rotate(expected.begin(), expected.begin() + steps, expected.end());
    }
    double worst = 0;
    for (uint32_t level = 0; level <= shape.level; level++) {
      const auto [c0, c1] = encrypted(b, slots, level, b.files.secretKey);
      const auto [d0, d1] = keySwitch(b.context, {shape, b.keys.view(i), level, c1, c0});
      worst = std::max(
          worst,
          largestDifference(expected, decrypted(b, automorphism(b.context, d0, level, spec.galois),
                                                automorphism(b.context, d1, level, spec.galois), level)));
    }
    b.checker.check(worst < 0x1p-24, "key " + spec.name(b.context.parameters.keyClasses) + " at every level",
                    std::to_string(std::log2(worst)) + " bits");
  }
}

void testRelinearization(Bench& b) {
  const std::vector<Complex> x = randomSlots(b.n() / 2, 9), y = randomSlots(b.n() / 2, 10);
  std::vector<Complex> expected(x.size());
  for (size_t i = 0; i < x.size(); i++) expected[i] = x[i] * y[i];
  for (uint32_t i = 0; i < b.context.parameters.keys.size(); i++) {
    const KeySpec& spec = b.context.parameters.keys[i];
    if (spec.kind != plan::KeyKind_Relinearize) continue;
    const KeyClassShape& shape = spec.shape;
    for (uint32_t level = 1; level <= shape.level; level += shape.level > 1 ? 3 : 1) {
      const auto [a0, a1] = encrypted(b, x, level, b.files.secretKey);
      const auto [b0, b1] = encrypted(b, y, level, b.files.secretKey);
      Poly d0(a0.size()), d1(a0.size()), d2(a0.size());
      for (size_t k = 0; k < d0.size(); k++) {
        const Prime& prime = b.context.ring.prime(uint32_t(k / b.n()));
        d0[k] = mulMod(a0[k], b0[k], prime.q);
        d1[k] = reduce128(uint128(a0[k]) * b1[k] + uint128(a1[k]) * b0[k], prime);
        d2[k] = mulMod(a1[k], b1[k], prime.q);
      }
      auto [k0, k1] = keySwitch(b.context, {shape, b.keys.view(i), level, d2, d0});
      for (size_t k = 0; k < k1.size(); k++)
        k1[k] = addMod(k1[k], d1[k], b.context.ring.modulus(uint32_t(k / b.n())));
      std::vector<Complex> found = decrypted(b, k0, k1, level);
      for (Complex& slot : found) slot /= kScale;
      const double error = largestDifference(found, expected);
      b.checker.check(
          error < 0x1p-22,
          "key " + spec.name(b.context.parameters.keyClasses) + " at level " + std::to_string(level),
          std::to_string(std::log2(error)) + " bits");
    }
  }
}

// dense -> sparse at level 0, then back: decryption under the dense secret gives the message again, and in
// between the ciphertext belongs to the sparse secret.
void testEncapsulation(Bench& b) {
  const auto& p = b.context.parameters;
  const auto find = [&](plan::KeyKind kind) {
    return uint32_t(
        std::find_if(p.keys.begin(), p.keys.end(), [&](const KeySpec& k) { return k.kind == kind; })
        - p.keys.begin());
  };
  const uint32_t toSparse = find(plan::KeyKind_ToSparse), toDense = find(plan::KeyKind_ToDense);
  std::vector<Complex> slots = randomSlots(b.n() / 2, 11);
  const auto [c0, c1] = encrypted(b, slots, 0, b.files.secretKey);
  const auto [s0, s1] =
      keySwitch(b.context, {p.keys[toSparse].shape, b.keys.view(toSparse), 0, c1, c0});
  SecretKey ephemeral = b.secret;
  ephemeral.dense = b.secret.ephemeral;
  Poly cipher = s0, plain(b.n());
  cipher.insert(cipher.end(), s1.begin(), s1.end());
  Decryptor(b.context, ephemeral).decrypt(cipher.data(), 0, plain.data());
  const uint16_t limb = 0;
  double error =
      largestDifference(slots, b.context.encoder.decode(plain.data(), std::span(&limb, 1), kScale));
  b.checker.check(error < 0x1p-20, "to-sparse decrypts under the sparse secret",
                  std::to_string(std::log2(error)) + " bits");
  const auto [d0, d1] =
      keySwitch(b.context, {p.keys[toDense].shape, b.keys.view(toDense), 0, s1, s0});
  error = largestDifference(slots, decrypted(b, d0, d1, 0));
  b.checker.check(error < 0x1p-20, "to-dense gives back the message",
                  std::to_string(std::log2(error)) + " bits");
}

double uniformChiSquare(const uint64_t* values, size_t count, uint64_t q) {
  std::vector<double> bins(64, 0);
  for (size_t i = 0; i < count; i++) bins[size_t(uint128(values[i]) * 64 / q)]++;
  double chi = 0;
  for (double bin : bins)
    chi += (bin - double(count) / 64) * (bin - double(count) / 64) / (double(count) / 64);
  return chi;
}

void testDistributions(Checker& c) {
  Randomness random = Randomness::system();
  constexpr size_t n = size_t(1) << 20;
  // 6 sigma of a binomial count, so that a good generator fails once in 10^8 runs.
  const SmallPolynomial ternary = sampleTernary(random, n);
  for (int value : {-1, 0, 1})
    c.near(double(std::count(ternary.begin(), ternary.end(), value)) / n, 1.0 / 3, 6 * std::sqrt(2.0 / 9 / n),
           "ternary: frequency of " + std::to_string(value));
  const SmallPolynomial error = sampleError(random, n);
  double mean = 0, second = 0, fourth = 0;
  for (int8_t e : error) {
    mean += e / double(n);
    second += double(e) * e / double(n);
    fourth += double(e) * e * e * e / double(n);
  }
  c.near(mean, 0, 6 * kErrorSigma / std::sqrt(double(n)), "error: mean");
  c.near(second, 10.5, 0.1, "error: variance");
  c.near(fourth / (second * second), 3 - 1.0 / 21, 0.06, "error: kurtosis of a centred binomial");

  std::vector<double> places(16, 0);
  bool exact = true;
  int sum = 0;
  for (int i = 0; i < 2000; i++) {
    const SmallPolynomial sparse = sampleSparse(random, 1024, 32);
    int weight = 0;
    for (size_t k = 0; k < sparse.size(); k++) {
      weight += sparse[k] != 0;
      sum += sparse[k];
      places[k / 64] += sparse[k] != 0;
    }
    exact &= weight == 32;
  }
  c.check(exact, "sparse: weight is 32 in 2000 draws");
  c.near(sum, 0, 6 * std::sqrt(64000.0), "sparse: signs balance");
  double chi = 0;
  for (double place : places) chi += (place - 4000) * (place - 4000) / 4000;
  c.check(chi < 60, "sparse: positions are uniform",
          "chi square " + std::to_string(chi) + ", 15 degrees of freedom");

  Seed seed{};
  std::vector<uint64_t> words(n);
  for (uint64_t q : {uint64_t(1125899906826241), uint64_t(1099511592961), uint64_t(12289)}) {
    expandUniform(seed, q, makePrime(q), words.data(), n);
    c.check(isCanonicalRow(words.data(), n, q), "uniform: residues below " + std::to_string(q));
    const double square = uniformChiSquare(words.data(), n, q);
    // 12289 values in 64 bins are not quite even: allow for it.
    c.check(square < (q == 12289 ? 400 : 140), "uniform: 64 bins mod " + std::to_string(q),
            "chi square " + std::to_string(square));
  }
}

std::string fileHash(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  return sha256Hex(bytes.data(), bytes.size());
}

void testSeeds(Bench& b) {
  const std::string other = b.directory + "/other", unseeded = b.directory + "/unseeded";
  generateKeys(b.context, {other, 1234, {}});
  generateKeys(b.context, {unseeded, {}, {}});
  for (const char* name : {"/secret.key", "/public.key", "/eval.keys"}) {
    b.checker.check(fileHash(b.directory + name) == fileHash(other + name),
                    std::string("same seed, same bytes: ") + name);
    b.checker.check(fileHash(b.directory + name) != fileHash(unseeded + name),
                    std::string("no seed, other bytes: ") + name);
  }
  struct stat status {};
  stat(b.files.secretKey.c_str(), &status);
  b.checker.check((status.st_mode & 0777) == 0600, "secret.key has mode 0600");
  const SafeTensors secret = SafeTensors::open(b.files.secretKey);
  b.checker.check(secret.meta("insecure") == "true" && secret.meta("warning").find("INSECURE") == 0,
                  "key files of an INSECURE plan say so");
}

void testRequests(Bench& b) {
  ClearTensors inputs;
  for (uint32_t i = 0; i < kFixtureTokens * kFixtureFeatures; i++)
    inputs["x"].push_back(std::sin(double(i)) * 3);
  const std::string request = b.directory + "/request.ct", response = b.directory + "/response.ct";
  encryptRequest(b.context, b.plan, inputs, {b.files.publicKey, request, false, {}});
  const CiphertextReader reader(request, b.plan, b.context.parameters, CiphertextKind::kRequest);
  const plan::Port& port = *b.plan.inputs()->Get(0);
  std::vector<uint64_t> cipher(ciphertextWords(port, b.context.parameters));
  reader.read(port, b.context.pool, cipher.data());
  // The response of a server that returns its input twice.
  const std::string hash =
      writeResponse(response, b.plan, b.context.parameters, reader.keyId(), {cipher.data(), cipher.data()});
  std::vector<uint64_t> twice = cipher;
  twice.insert(twice.end(), cipher.begin(), cipher.end());
  b.checker.check(hash == sha256Hex(twice.data(), twice.size() * sizeof(uint64_t)),
                  "outputSha256 is over the residues");
  const DecryptResult result = decryptResponse(b.context, b.plan, {b.files.secretKey, response, {}});
  double error = 0;
  for (const char* name : {"y", "z"})
    for (size_t i = 0; i < inputs["x"].size(); i++)
      error = std::max(error, std::fabs(result.outputs.at(name)[i] - inputs["x"][i]));
  b.checker.check(error < 0x1p-22, "request and response round trip",
                  std::to_string(std::log2(error)) + " bits");

  Checker& c = b.checker;
  c.refuses("R303", "a response as a request", [&] {
    CiphertextReader(response, b.plan, b.context.parameters, CiphertextKind::kRequest);
  });
  c.refuses("R310", "a secret key as evaluation keys",
            [&] { EvalKeys::open(b.files.secretKey, b.plan, 1, {}); });
  c.refuses("R110", "evaluation keys as a key to encrypt",
            [&] { openEncryptionKey(b.files.evalKeys, b.context.parameters); });
  c.refuses("R311", "another secret key", [&] {
    decryptResponse(b.context, b.plan, {b.directory + "/unseeded/secret.key", response, {}});
  });
  ClearTensors bad = inputs;
  bad["x"].pop_back();
  c.refuses("R305", "an input of the wrong size", [&] {
    encryptRequest(b.context, b.plan, bad, {b.files.publicKey, request, false, {}});
  });
  bad = inputs;
  bad["x"][3] = NAN;
  c.refuses("R305", "an input that is not a number", [&] {
    encryptRequest(b.context, b.plan, bad, {b.files.publicKey, request, false, {}});
  });
  bad = inputs;
  bad["q"] = {};
  c.refuses("R305", "an unknown input", [&] {
    encryptRequest(b.context, b.plan, bad, {b.files.publicKey, request, false, {}});
  });
}

// Noise of shared results, for the response that testRequests left behind.
void testShare(Bench& b) {
  Checker& c = b.checker;
  const std::string response = b.directory + "/response.ct";
  constexpr uint64_t queries = 1024;
  const auto decryptWith = [&](const Fixture& fixture, uint64_t shared) {
    return decryptResponse(b.context, fixture.root(), {b.files.secretKey, response, {}, shared});
  };
  const Fixture small = makeFixture({.outputBound = 1e6, .outputError = 1e-12});
  const DecryptResult own = decryptWith(small, 0), shared = decryptWith(small, queries);
  // E sqrt(q D) 2^39 for the 160 values of y and z.
  const double sigma = 1e-12 * std::sqrt(1024.0 * 160) * 0x1p39;
  double squares = 0;
  bool coarse = true;
  for (const char* name : {"y", "z"}) {
    c.near(shared.floodSigma.at(name) / sigma, 1, 1e-12, std::string("flooding of ") + name);
    for (size_t i = 0; i < own.outputs.at(name).size(); i++) {
      const double value = shared.outputs.at(name)[i], noise = (value - own.outputs.at(name)[i]) / sigma;
      const double grid = std::exp2(std::floor(std::log2(sigma)) - 20);
      squares += noise * noise;
      coarse &= value / grid == std::nearbyint(value / grid);
    }
  }
  // Chi-square of 160 degrees of freedom, 1e-9 on either side (client_noise.cc).
  c.check(squares > 43 && squares < 321, "flooding: variance", std::to_string(squares / 160));
  c.check(coarse, "flooding: values lie on the grid");
  c.check(own.floodSigma.empty(), "the owner's result is not flooded");
  c.refuses("R323", "sharing without a predicted error", [&] { decryptWith(b.fixture, 1); });
  const Fixture large = makeFixture({.outputBound = 1e6, .outputError = 1e-6});
  c.refuses("R323", "sharing of what the noise would cover", [&] { decryptWith(large, queries); });
}

void testRefusals(Bench& b) {
  Checker& c = b.checker;
  const auto contextOf = [](const FixtureOptions& options) {
    const Fixture fixture = makeFixture(options);
    return ClientParameters::fromPlan(fixture.root());
  };
  c.refuses("R307", "a key to the sparse secret of 150 bits", [&] { contextOf({.wideSparseKey = true}); });
  c.refuses("R307", "a key to the sparse secret at level 1", [&] { contextOf({.highSparseKey = true}); });
  c.refuses("R308", "a plan that hides its insecurity", [&] { contextOf({.insecure = false}); });
  const Fixture bounded = makeFixture({.bound = 1});
  CryptoContext context(bounded.root(), 1);
  ClearTensors inputs;
  inputs["x"].assign(kFixtureTokens * kFixtureFeatures, 1.5);
  c.refuses("R306", "an input outside its calibrated range", [&] {
    encryptRequest(context, bounded.root(), inputs, {b.files.publicKey, b.directory + "/r.ct", false, {}});
  });
  const auto warnings =
      encryptRequest(context, bounded.root(), inputs, {b.files.publicKey, b.directory + "/r.ct", true, {}});
  c.check(warnings.size() == 1 && warnings[0].code == "R306", "the same with allowOutOfRange is a warning");
  const Fixture larger = makeFixture({.logN = 11});
  const ClientParameters other = ClientParameters::fromPlan(larger.root());
  c.refuses("R301", "keys of other parameters",
            [&] { readSecretKey(SafeTensors::open(b.files.secretKey), other); });
  std::atomic<bool> cancelled = true;
  c.refuses("R401", "a cancelled keygen", [&] {
    generateKeys(b.context, {b.directory + "/never", {}, {nullptr, &cancelled, nullptr}});
  });
  c.check(fs::is_empty(b.directory + "/never"), "a cancelled keygen leaves no file");
}

int run() {
  Bench bench;
  testFiles(bench.checker, bench.directory);
  testDistributions(bench.checker);
  testNoise(bench.checker);
  testEncryption(bench);
  testGalois(bench);
  testRelinearization(bench);
  testEncapsulation(bench);
  testSeeds(bench);
  testRequests(bench);
  testShare(bench);
  testRefusals(bench);
  return bench.checker.finish();
}

}  // namespace
}  // namespace aegis::test

int main() { return aegis::test::run(); }
