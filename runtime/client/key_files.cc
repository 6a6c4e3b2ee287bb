#include "client/key_files.h"

#include <algorithm>

#include "ckks/modulus.h"
#include "client/context.h"
#include "support/error.h"

namespace aegis {
namespace {

constexpr size_t kKeyIdDigits = 32;

// Ternary coefficients as int32, and back.
SecretVector<int32_t> widen(const SmallPolynomial& small) {
  return SecretVector<int32_t>(small.begin(), small.end());
}

SmallPolynomial readTernary(const SafeTensors& file, const char* tensor, uint32_t degree) {
  const TensorInfo& info = file.require(tensor, Dtype::kI32, {degree});
  const auto values = file.readAll<int32_t, SecretVector<int32_t>>(info);
  SmallPolynomial small(degree);
  bool bad = false;
  for (uint32_t i = 0; i < degree; i++) {
    bad |= uint32_t(values[i]) + 1 > 2;
    small[i] = int8_t(values[i]);
  }
  if (bad)
    fail("R312", std::string("\"") + tensor + "\" of " + file.name() + " has coefficients outside -1..1");
  return small;
}

const char* describe(const std::string& format) {
  if (format == "aegis-secret-key") return "a secret key";
  if (format == "aegis-public-key") return "a public key";
  if (format == "aegis-eval-keys") return "a file of evaluation keys";
  if (format == "aegis-ciphertext") return "a file of ciphertexts";
  return "not a file of Aegis";
}

}  // namespace

std::map<std::string, std::string> fileMetadata(const char* format, const ClientParameters& parameters,
                                                const std::string& keyId) {
  std::map<std::string, std::string> metadata = {
      {"format", format},
      {"version", kFileVersion},
      {"parametersHash", parameters.hash},
      {"keyId", keyId},
      {"insecure", parameters.insecure ? "true" : "false"},
  };
  if (parameters.insecure) metadata["warning"] = "INSECURE: made for a plan below 128 bits, for tests only";
  return metadata;
}

void checkMetadata(const SafeTensors& file, const char* format, const ClientParameters& parameters) {
  const std::string found = file.meta("format");
  if (found != format) {
    const bool secret = found == "aegis-secret-key";
    fail(secret ? "R310" : "R110", file.name() + " is " + describe(found) + ", expected " + describe(format),
         secret
             ? "a secret key belongs to `aegis decrypt` and `aegis encrypt` on the data owner's machine only"
             : "");
  }
  if (file.meta("version") != kFileVersion)
    fail("R111", file.name() + " has version \"" + file.meta("version").substr(0, 20)
                     + "\", this program reads " + kFileVersion);
  if (file.meta("parametersHash") != parameters.hash)
    fail("R301", file.name() + " was made for other parameters than the plan's",
         "generate keys and requests from the same plan (aegis keygen, aegis encrypt)");
  if (file.meta("insecure") != (parameters.insecure ? "true" : "false"))
    fail("R301", file.name() + (parameters.insecure ? " does not say that it is INSECURE, as the plan does"
                                                    : " is marked INSECURE but the plan is not"));
}

std::string keyIdOf(const SafeTensors& file) {
  const std::string id = file.meta("keyId");
  const bool good =
      id.size() == kKeyIdDigits && id.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (!good) fail("R112", file.name() + " has no valid keyId");
  return id;
}

Seed seedOf(const SafeTensors& file) {
  Seed seed;
  if (!seedFromHex(file.meta("seed"), seed)) fail("R112", file.name() + " has no valid seed");
  return seed;
}

SafeTensorsWriter stageSecretKey(const std::string& path, const ClientParameters& parameters,
                                 const SecretKey& key) {
  const Shape shape = {parameters.degree()};
  SafeTensorsWriter writer(path, FileMode::kSecret, fileMetadata("aegis-secret-key", parameters, key.keyId),
                           {{"dense", Dtype::kI32, shape}, {"ephemeral", Dtype::kI32, shape}});
  const auto dense = widen(key.dense), ephemeral = widen(key.ephemeral);
  writer.write("dense", dense.data(), dense.size() * sizeof(int32_t));
  writer.write("ephemeral", ephemeral.data(), ephemeral.size() * sizeof(int32_t));
  return writer;
}

SecretKey readSecretKey(const SafeTensors& file, const ClientParameters& parameters) {
  checkMetadata(file, "aegis-secret-key", parameters);
  SecretKey key;
  key.keyId = keyIdOf(file);
  key.dense = readTernary(file, "dense", parameters.degree());
  key.ephemeral = readTernary(file, "ephemeral", parameters.degree());
  const auto weight =
      std::count_if(key.ephemeral.begin(), key.ephemeral.end(), [](int8_t c) { return c != 0; });
  if (uint64_t(weight) != parameters.ephemeralWeight)
    fail("R312", "the sparse secret of " + file.name() + " has another Hamming weight than the plan's");
  return key;
}

uint64_t publicNonce(uint32_t limb) { return uint64_t(15) << 60 | limb; }

SafeTensorsWriter stagePublicKey(const std::string& path, const ClientParameters& parameters,
                                 const std::string& keyId, const Seed& seed, const std::vector<uint64_t>& b) {
  auto metadata = fileMetadata("aegis-public-key", parameters, keyId);
  metadata["seed"] = toHex(seed.data(), seed.size());
  SafeTensorsWriter writer(path, FileMode::kPublic, metadata,
                           {{"b", Dtype::kU64, {parameters.maxLevel + 1, parameters.degree()}}});
  writer.write("b", b.data(), b.size() * sizeof(uint64_t));
  return writer;
}

PublicKey readPublicKey(const SafeTensors& file, const ClientParameters& parameters) {
  checkMetadata(file, "aegis-public-key", parameters);
  const size_t n = parameters.degree(), limbs = parameters.maxLevel + 1;
  PublicKey key;
  key.keyId = keyIdOf(file);
  const Seed seed = seedOf(file);
  key.b = file.readAll<uint64_t>(file.require("b", Dtype::kU64, {limbs, n}));
  key.a.resize(key.b.size());
  for (size_t i = 0; i < limbs; i++) {
    if (!isCanonicalRow(&key.b[i * n], n, parameters.primes[i]))
      fail("R302", "the public key " + file.name() + " has a residue that is not below its prime");
    expandUniform(seed, publicNonce(uint32_t(i)), makePrime(parameters.primes[i]), &key.a[i * n], n);
  }
  return key;
}

}  // namespace aegis
