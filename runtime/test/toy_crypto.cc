#include <algorithm>

#include "test/toy_plan.h"

namespace aegis::test {

std::vector<uint64_t> toyPrimes(uint32_t logN, uint32_t levels, uint32_t specials) {
  std::vector<uint64_t> primes;
  const uint64_t step = uint64_t(2) << logN;
  const auto take = [&](uint32_t bits, uint32_t count) {
    for (uint64_t q = (uint64_t(1) << bits) - step + 1; count > 0; q -= step) {
      if (!isPrime(q) || std::find(primes.begin(), primes.end(), q) != primes.end()) continue;
      primes.push_back(q);
      count--;
    }
  };
  take(50, 1);
  take(40, levels);
  take(50, specials);
  return primes;
}

uint32_t galoisOf(int32_t step, uint32_t logN) {
  uint32_t result = 1;
  for (int32_t i = 0; i < step; i++) result = result * 5 & ((2u << logN) - 1);
  return result;
}

ToyCrypto::ToyCrypto(const RingContext& ring, ThreadPool& pool, uint64_t seed)
    : ring_(ring), pool_(pool), encoder_(ring, pool), state_(seed), secret_(small(3)) {}

// splitmix64: repeatable, and worth nothing as a secret.
uint64_t ToyCrypto::next() {
  uint64_t z = state_ += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

std::vector<uint64_t> ToyCrypto::small(uint32_t modulus) {
  const uint32_t n = ring_.degree(), count = ring_.primeCount();
  std::vector<uint64_t> rows(size_t(count) * n);
  for (uint32_t k = 0; k < n; k++) {
    const int64_t value = int64_t(next() % modulus) - modulus / 2;
    for (uint32_t i = 0; i < count; i++)
      rows[i * n + k] = value < 0 ? ring_.modulus(i) - uint64_t(-value) : uint64_t(value);
  }
  std::vector<uint16_t> limbs(count);
  for (uint32_t i = 0; i < count; i++) limbs[i] = uint16_t(i);
  Launch launch;
  launch.limbs = limbs.data();
  launch.limbCount = count;
  Rows operand;
  operand.base = rows.data();
  operand.limbStride = n;
  cpuKernels().ntt(ring_, pool_, launch, operand, operand);
  return rows;
}

std::vector<uint64_t> ToyCrypto::encrypt(const std::vector<std::complex<double>>& slots, uint32_t level,
                                         double scale) {
  const size_t n = ring_.degree();
  std::vector<uint16_t> limbs;
  for (uint32_t i = 0; i <= level; i++) limbs.push_back(uint16_t(i));
  std::vector<uint64_t> cipher(2 * limbs.size() * n);
  encoder_.encode(std::span<const std::complex<double>>(slots), scale, limbs, uint32_t(n), cipher.data());
  const std::vector<uint64_t> error = small(7);
  for (size_t i = 0; i <= level; i++) {
    const uint64_t q = ring_.modulus(uint32_t(i));
    for (size_t k = i * n; k < (i + 1) * n; k++) {
      const uint64_t a = uniform(q);
      cipher[limbs.size() * n + k] = a;
      cipher[k] = subMod(addMod(cipher[k], error[k], q), mulMod(a, secret_[k], q), q);
    }
  }
  return cipher;
}

std::vector<std::complex<double>> ToyCrypto::decrypt(const uint64_t* cipher, uint32_t level,
                                                     double scale) const {
  const size_t n = ring_.degree();
  std::vector<uint16_t> limbs;
  std::vector<uint64_t> plain((level + 1) * n);
  for (uint32_t i = 0; i <= level; i++) {
    limbs.push_back(uint16_t(i));
    const uint64_t q = ring_.modulus(i);
    for (size_t k = i * n; k < (i + 1) * n; k++)
      plain[k] = addMod(cipher[k], mulMod(cipher[(level + 1) * n + k], secret_[k], q), q);
  }
  return encoder_.decode(plain.data(), limbs, scale);
}

// b = -a s_to + e + [limb in digit] P s_from.
std::vector<uint64_t> ToyCrypto::makeKey(const plan::PlanT& plan, uint32_t index) {
  const plan::KeyT& key = *plan.keys[index];
  const plan::KeyClassT& keyClass = *plan.parameters->key_classes[key.key_class];
  const size_t n = ring_.degree(), maxLevel = plan.parameters->max_level;
  std::vector<size_t> limbs;
  for (size_t i = 0; i < keyClass.specials; i++) limbs.push_back(maxLevel + 1 + i);
  for (size_t i = 0; i <= key.level; i++) limbs.push_back(i);
  uint32_t inverse = 1;
  while (key.galois != 0 && (inverse * key.galois & (2 * n - 1)) != 1) inverse += 2;
  const uint32_t* permutation = ring_.permutation(inverse);
  std::vector<uint64_t> words;
  for (const plan::DigitRange& digit : keyClass.digits) {
    if (digit.first() > key.level) break;
    const size_t base = words.size();
    words.resize(base + 2 * limbs.size() * n);
    const std::vector<uint64_t> error = small(7);
    for (size_t row = 0; row < limbs.size(); row++) {
      const uint64_t q = ring_.modulus(uint32_t(limbs[row]));
      const size_t limb = limbs[row];
      uint64_t gadget = limb >= digit.first() && limb < size_t(digit.first()) + digit.count() ? 1 : 0;
      for (size_t i = 0; i < keyClass.specials; i++)
        gadget = mulMod(gadget, ring_.modulus(uint32_t(maxLevel + 1 + i)) % q, q);
      for (size_t k = 0; k < n; k++) {
        const uint64_t s = secret_[limbs[row] * n + k], permuted = secret_[limbs[row] * n + permutation[k]];
        const uint64_t from = key.kind == plan::KeyKind_Galois ? s : mulMod(s, s, q);
        const uint64_t to = key.kind == plan::KeyKind_Galois ? permuted : s, a = uniform(q);
        uint64_t* b = &words[base + row * n + k];
        *b = addMod(subMod(error[limbs[row] * n + k], mulMod(a, to, q), q), mulMod(gadget, from, q), q);
        b[limbs.size() * n] = a;
      }
    }
  }
  return words;
}

}  // namespace aegis::test
