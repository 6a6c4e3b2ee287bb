// Randomness from libsodium: the system's generator for secrets, ChaCha20 for what both sides expand from a
// seed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "ckks/tables.h"

namespace aegis {

using Seed = std::array<uint8_t, 32>;

std::string toHex(const uint8_t* data, size_t bytes);
// False unless `text` is exactly the seed in lower case hexadecimal digits.
bool seedFromHex(const std::string& text, Seed& seed);
// SHA-256, lower case hexadecimal digits.
std::string sha256Hex(const void* data, size_t bytes);

class Randomness {
 public:
  static Randomness system();
  // Repeatable, hence worth nothing as a secret: only for plans marked INSECURE.
  static Randomness insecureSeed(uint64_t seed);
  ~Randomness();

  // A generator for one purpose: independent of the order in which purposes are served. The system's stays
  // itself.
  Randomness fork(uint64_t purpose) const;
  void fill(void* out, size_t bytes);

 private:
  Randomness() = default;
  bool seeded_ = false;
  Seed key_{};
  uint64_t calls_ = 0;
};

// Uniform residues modulo `prime`: the 64-bit little-endian words of the ChaCha20 stream (nonce little
// endian, counter from 0), words >= 2^64 - (2^64 mod q) skipped, the rest reduced mod q. Part of the key file
// format.
void expandUniform(const Seed& seed, uint64_t nonce, const Prime& prime, uint64_t* out, size_t count);

}  // namespace aegis
