#include "client/randomness.h"

#include <sodium.h>

#include <cstring>

#include "ckks/modulus.h"
#include "support/error.h"

namespace aegis {
namespace {

void ensureSodium() {
  static const int status = sodium_init();  // 0 first time, 1 if a host program did it before
  if (status < 0) fail("R503", "libsodium found no source of randomness on this machine");
}

void putWord(uint8_t* out, uint64_t word) { std::memcpy(out, &word, sizeof word); }

}  // namespace

std::string toHex(const uint8_t* data, size_t bytes) {
  constexpr char digits[] = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes);
  for (size_t i = 0; i < bytes; i++) {
    text += digits[data[i] >> 4];
    text += digits[data[i] & 15];
  }
  return text;
}

bool seedFromHex(const std::string& text, Seed& seed) {
  if (text.size() != 2 * seed.size()) return false;
  for (size_t i = 0; i < text.size(); i++) {
    const char c = text[i];
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return false;
    seed[i / 2] = uint8_t(i % 2 == 0 ? digit << 4 : seed[i / 2] | digit);
  }
  return true;
}

std::string sha256Hex(const void* data, size_t bytes) {
  ensureSodium();
  uint8_t hash[crypto_hash_sha256_BYTES];
  crypto_hash_sha256(hash, static_cast<const uint8_t*>(data), bytes);
  return toHex(hash, sizeof hash);
}

Randomness Randomness::system() {
  ensureSodium();
  return Randomness();
}

Randomness Randomness::insecureSeed(uint64_t seed) {
  ensureSodium();
  Randomness random;
  random.seeded_ = true;
  uint8_t text[32] = "aegis insecure seed";
  putWord(text + 24, seed);
  crypto_hash_sha256(random.key_.data(), text, sizeof text);
  return random;
}

Randomness::~Randomness() { sodium_memzero(key_.data(), key_.size()); }

Randomness Randomness::fork(uint64_t purpose) const {
  Randomness random;
  if (!seeded_) return random;
  random.seeded_ = true;
  uint8_t text[40];
  std::memcpy(text, key_.data(), key_.size());
  putWord(text + 32, purpose);
  crypto_hash_sha256(random.key_.data(), text, sizeof text);
  sodium_memzero(text, sizeof text);
  return random;
}

void Randomness::fill(void* out, size_t bytes) {
  if (!seeded_) return randombytes_buf(out, bytes);
  uint8_t nonce[crypto_stream_chacha20_NONCEBYTES];
  putWord(nonce, calls_++);
  crypto_stream_chacha20(static_cast<uint8_t*>(out), bytes, nonce, key_.data());
}

void expandUniform(const Seed& seed, uint64_t nonceWord, const Prime& prime, uint64_t* out, size_t count) {
  constexpr size_t kWords = 1024, kBlockBytes = 64;
  uint64_t words[kWords];
  uint8_t nonce[crypto_stream_chacha20_NONCEBYTES];
  putWord(nonce, nonceWord);
  const uint64_t limit = ~prime.r64 + 1;  // 2^64 - (2^64 mod q); q is odd, so the remainder is not 0
  uint64_t block = 0;
  for (size_t done = 0; done < count;) {
    std::memset(words, 0, sizeof words);
    auto* bytes = reinterpret_cast<uint8_t*>(words);
    crypto_stream_chacha20_xor_ic(bytes, bytes, sizeof words, nonce, block, seed.data());
    block += sizeof words / kBlockBytes;
    for (size_t i = 0; i < kWords && done < count; i++)
      if (words[i] < limit) out[done++] = reduce64(words[i], prime);
  }
}

}  // namespace aegis
