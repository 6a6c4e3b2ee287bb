#include "client/keygen.h"

#include <algorithm>
#include <vector>

#include "ckks/modulus.h"
#include "client/sampling.h"
#include "support/error.h"

namespace aegis {
namespace {

// Purposes of forked generators; an error's purpose is the nonce of its digit, which is below 15 << 60.
enum Purpose : uint64_t {
  kDenseSecret = uint64_t(15) << 60, kEphemeralSecret, kPublicSeed, kPublicError, kEvalSeed, kKeyId
};

// What a key encrypts, what it is encrypted under, and the NTT permutation of the latter (null: none).
struct KeyPair {
  const uint64_t* from;
  const uint64_t* to;
  const uint32_t* permutation;
};

KeyPair secretsOf(CryptoContext& context, const SecretRows& s, const KeySpec& key) {
  switch (key.kind) {
    case plan::KeyKind_Relinearize: return {s.denseSquared.data(), s.dense.data(), nullptr};
    case plan::KeyKind_Galois:
      return {s.dense.data(), s.dense.data(),
              context.ring.permutation(inverseGalois(key.galois, context.parameters.logN))};
    case plan::KeyKind_ToSparse: return {s.dense.data(), s.ephemeral.data(), nullptr};
    case plan::KeyKind_ToDense: return {s.ephemeral.data(), s.dense.data(), nullptr};
  }
  fail("R320", "unknown kind of key");
}

Seed drawSeed(const Randomness& random, uint64_t purpose) {
  Seed seed;
  random.fork(purpose).fill(seed.data(), seed.size());
  return seed;
}

SafeTensorsWriter stageNewPublicKey(CryptoContext& context, const std::string& path,
                                    const SecretRows& secrets, const std::string& keyId,
                                    const Randomness& random) {
  const size_t n = context.degree();
  const std::vector<uint16_t> limbs = context.levelLimbs(context.parameters.maxLevel);
  const Seed seed = drawSeed(random, kPublicSeed);
  Randomness errors = random.fork(kPublicError);
  SecretVector<uint64_t> error(limbs.size() * n);
  context.smallToNtt(sampleError(errors, n), limbs, error.data());
  std::vector<uint64_t> b(limbs.size() * n);
  context.pool.parallelFor(limbs.size(), 1, [&](size_t begin, size_t end) {
    std::vector<uint64_t> a(n);
    for (size_t j = begin; j < end; j++) {
      const Prime& prime = context.ring.prime(limbs[j]);
      expandUniform(seed, publicNonce(uint32_t(j)), prime, a.data(), n);
      multiplyRow(a.data(), &secrets.dense[j * n], &b[j * n], n, prime);
      for (size_t i = 0; i < n; i++) b[j * n + i] = subMod(error[j * n + i], b[j * n + i], prime.q);
    }
  });
  return stagePublicKey(path, context.parameters, keyId, seed, b);
}

std::vector<KeySpec> distinctKeys(const ClientParameters& p) {
  std::vector<KeySpec> keys = p.keys;
  const auto name = [&](const KeySpec& key) { return key.name(p.keyClasses); };
  std::sort(keys.begin(), keys.end(), [&](const KeySpec& a, const KeySpec& b) { return name(a) < name(b); });
  const auto same = [&](const KeySpec& a, const KeySpec& b) { return name(a) == name(b); };
  keys.erase(std::unique(keys.begin(), keys.end(), same), keys.end());
  return keys;
}

SafeTensorsWriter stageEvalKeys(CryptoContext& context, const std::string& path, const SecretRows& secrets,
                                const std::string& keyId, const Randomness& random,
                                const Progress& progress) {
  const ClientParameters& p = context.parameters;
  const std::vector<KeySpec> keys = distinctKeys(p);
  std::vector<TensorSpec> specs;
  for (const KeySpec& key : keys) {
    const KeyClassShape& shape = key.shape;
    specs.push_back(
        {key.name(p.keyClasses), Dtype::kU64, {shape.digits.size(), shape.limbs.size(), p.degree()}});
  }
  const Seed seed = drawSeed(random, kEvalSeed);
  auto metadata = fileMetadata("aegis-eval-keys", p, keyId);
  metadata["seed"] = toHex(seed.data(), seed.size());
  SafeTensorsWriter writer(path, FileMode::kPublic, metadata, specs);
  std::vector<uint64_t> b;
  for (size_t i = 0; i < keys.size(); i++) {
    const KeyClassShape& shape = keys[i].shape;
    b.resize(shape.limbs.size() * p.degree());
    for (uint32_t digit = 0; digit < shape.digits.size(); digit++) {
      progress.step("keygen", i, keys.size());
      Randomness errors = random.fork(keys[i].nonce(digit, 0));
      makeKeyDigit(context, secrets, keys[i], digit, seed, errors, b.data());
      writer.write(specs[i].name, b.data(), b.size() * sizeof(uint64_t));
    }
  }
  progress.step("keygen", keys.size(), keys.size());
  return writer;
}

}  // namespace

SecretKey sampleSecretKey(const ClientParameters& parameters, Randomness& random) {
  SecretKey key;
  Randomness dense = random.fork(kDenseSecret), ephemeral = random.fork(kEphemeralSecret);
  key.dense = sampleTernary(dense, parameters.degree());
  key.ephemeral = sampleSparse(ephemeral, parameters.degree(), parameters.ephemeralWeight);
  const Seed id = drawSeed(random, kKeyId);
  key.keyId = toHex(id.data(), id.size() / 2);
  return key;
}

SecretRows secretRows(CryptoContext& context, const SecretKey& secret) {
  const size_t n = context.degree();
  const std::vector<uint16_t> limbs = context.allLimbs();
  SecretRows rows{SecretVector<uint64_t>(limbs.size() * n), SecretVector<uint64_t>(limbs.size() * n),
                  SecretVector<uint64_t>(limbs.size() * n)};
  context.smallToNtt(secret.dense, limbs, rows.dense.data());
  context.smallToNtt(secret.ephemeral, limbs, rows.ephemeral.data());
  for (size_t j = 0; j < limbs.size(); j++)
    multiplyRow(&rows.dense[j * n], &rows.dense[j * n], &rows.denseSquared[j * n], n,
                context.ring.prime(limbs[j]));
  return rows;
}

void makeKeyDigit(CryptoContext& context, const SecretRows& secrets, const KeySpec& key, uint32_t digit,
                  const Seed& seed, Randomness& random, uint64_t* b) {
  const ClientParameters& p = context.parameters;
  const KeyClassShape& shape = key.shape;
  const size_t n = p.degree();
  const KeyPair pair = secretsOf(context, secrets, key);
  SecretVector<uint64_t> error(shape.limbs.size() * n);
  context.smallToNtt(sampleError(random, n), shape.limbs, error.data());
  const uint32_t first = shape.rowOf(shape.digits[digit].first), end = first + shape.digits[digit].count;
  context.pool.parallelFor(shape.limbs.size(), 1, [&](size_t beginRow, size_t endRow) {
    std::vector<uint64_t> a(n);
    for (size_t row = beginRow; row < endRow; row++) {
      const uint16_t limb = shape.limbs[row];
      const Prime& prime = context.ring.prime(limb);
      const uint64_t* to = pair.to + limb * n;
      const uint64_t* from = pair.from + limb * n;
      uint64_t specials = 0;  // P mod q on the digit's own limbs; P is 0 modulo the special primes
      if (row >= first && row < end) {
        specials = 1;
        for (uint32_t k = 0; k < shape.specials; k++)
          specials = mulMod(specials, p.primes[p.maxLevel + 1 + k] % prime.q, prime.q);
      }
      expandUniform(seed, key.nonce(digit, uint32_t(row)), prime, a.data(), n);
      for (size_t i = 0; i < n; i++) {
        const uint64_t secret = to[pair.permutation == nullptr ? i : pair.permutation[i]];
        // -a s_to = (q - a) s_to, so that one reduction is enough.
        const uint128 sum =
            uint128(prime.q - a[i]) * secret + uint128(specials) * from[i] + error[row * n + i];
        b[row * n + i] = reduce128(sum, prime);
      }
    }
  });
}

KeygenResult generateKeys(CryptoContext& context, const KeygenOptions& options) {
  const ClientParameters& p = context.parameters;
  if (options.seed && !p.insecure)
    fail("R309", "a seed was given for a plan that is not INSECURE",
         "leave out --seed: keys must not be repeatable");
  if (p.ephemeralWeight > p.degree() / 2)
    fail("R320", "the sparse secret's Hamming weight is above N/2");
  Randomness random = options.seed ? Randomness::insecureSeed(*options.seed) : Randomness::system();
  makeDirectory(options.directory);
  const SecretKey secret = sampleSecretKey(p, random);
  const SecretRows rows = secretRows(context, secret);
  KeygenResult result;
  result.secretKey = options.directory + "/secret.key";
  result.publicKey = options.directory + "/public.key";
  result.evalKeys = options.directory + "/eval.keys";
  options.progress.step("keygen", 0, p.keys.size());
  SafeTensorsWriter secretFile = stageSecretKey(result.secretKey, p, secret);
  SafeTensorsWriter publicFile = stageNewPublicKey(context, result.publicKey, rows, secret.keyId, random);
  SafeTensorsWriter evalFile =
      stageEvalKeys(context, result.evalKeys, rows, secret.keyId, random, options.progress);
  secretFile.commit();
  publicFile.commit();
  evalFile.commit();
  result.evalKeysBytes = evalFile.totalBytes();
  result.keyCount = uint32_t(distinctKeys(p).size());
  return result;
}

}  // namespace aegis
