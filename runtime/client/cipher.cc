#include "client/cipher.h"

#include <utility>

#include "client/sampling.h"
#include "support/error.h"

namespace aegis {

EncryptionKey openEncryptionKey(const std::string& path, const ClientParameters& parameters) {
  const SafeTensors file = SafeTensors::open(path);
  if (file.meta("format") == "aegis-secret-key") return readSecretKey(file, parameters);
  return readPublicKey(file, parameters);
}

Encryptor::Encryptor(CryptoContext& context, EncryptionKey key, Randomness random)
    : context_(context), key_(std::move(key)), random_(std::move(random)) {
  const auto* secret = std::get_if<SecretKey>(&key_);
  if (secret == nullptr) return;
  const std::vector<uint16_t> limbs = context_.levelLimbs(context_.parameters.maxLevel);
  secretRows_.resize(limbs.size() * context_.degree());
  context_.smallToNtt(secret->dense, limbs, secretRows_.data());
}

Encryptor::~Encryptor() = default;

const std::string& Encryptor::keyId() const {
  return std::visit([](const auto& key) -> const std::string& { return key.keyId; }, key_);
}

void Encryptor::encrypt(const uint64_t* plain, uint32_t level, uint64_t* cipher) {
  AEGIS_INVARIANT(level <= context_.parameters.maxLevel);
  if (const auto* key = std::get_if<PublicKey>(&key_)) return encryptPublic(*key, plain, level, cipher);
  encryptSecret(plain, level, cipher);
}

void Encryptor::encryptPublic(const PublicKey& key, const uint64_t* plain, uint32_t level, uint64_t* cipher) {
  const size_t n = context_.degree(), words = (level + size_t(1)) * n;
  const std::vector<uint16_t> limbs = context_.levelLimbs(level);
  SecretVector<uint64_t> v(words), e0(words), e1(words);
  context_.smallToNtt(sampleTernary(random_, n), limbs, v.data());
  context_.smallToNtt(sampleError(random_, n), limbs, e0.data());
  context_.smallToNtt(sampleError(random_, n), limbs, e1.data());
  context_.pool.parallelFor(limbs.size(), 1, [&](size_t begin, size_t end) {
    for (size_t i = begin * n; i < end * n; i++) {
      const Prime& prime = context_.ring.prime(uint32_t(i / n));
      cipher[i] = reduce128(uint128(key.b[i]) * v[i] + e0[i] + plain[i], prime);
      cipher[words + i] = reduce128(uint128(key.a[i]) * v[i] + e1[i], prime);
    }
  });
}

void Encryptor::encryptSecret(const uint64_t* plain, uint32_t level, uint64_t* cipher) {
  const size_t n = context_.degree(), words = (level + size_t(1)) * n;
  const std::vector<uint16_t> limbs = context_.levelLimbs(level);
  Seed seed;
  random_.fill(seed.data(), seed.size());
  SecretVector<uint64_t> error(words);
  context_.smallToNtt(sampleError(random_, n), limbs, error.data());
  context_.pool.parallelFor(limbs.size(), 1, [&](size_t begin, size_t end) {
    for (size_t j = begin; j < end; j++) {
      const Prime& prime = context_.ring.prime(uint32_t(j));
      uint64_t* a = cipher + words + j * n;
      expandUniform(seed, publicNonce(uint32_t(j)), prime, a, n);
      for (size_t i = 0; i < n; i++)
        cipher[j * n + i] = reduce128(
            uint128(prime.q - a[i]) * secretRows_[j * n + i] + error[j * n + i] + plain[j * n + i], prime);
    }
  });
}

Decryptor::Decryptor(CryptoContext& context, const SecretKey& key) : context_(context), keyId_(key.keyId) {
  const std::vector<uint16_t> limbs = context_.levelLimbs(context_.parameters.maxLevel);
  secretRows_.resize(limbs.size() * context_.degree());
  context_.smallToNtt(key.dense, limbs, secretRows_.data());
}

void Decryptor::decrypt(const uint64_t* cipher, uint32_t level, uint64_t* plain) const {
  const size_t n = context_.degree(), limbs = level + size_t(1);
  context_.pool.parallelFor(limbs, 1, [&](size_t begin, size_t end) {
    for (size_t j = begin; j < end; j++) {
      std::copy(cipher + j * n, cipher + (j + 1) * n, plain + j * n);
      multiplyAddRow(cipher + (limbs + j) * n, &secretRows_[j * n], plain + j * n, n,
                     context_.ring.prime(uint32_t(j)));
    }
  });
}

}  // namespace aegis
