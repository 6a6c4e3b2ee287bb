// The client's view of a plan's parameters: checked again here, because the client trusts no plan with its
// secrets.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "client/randomness.h"
#include "plan/plan_generated.h"

namespace aegis {

// log2 of the largest modulus a switching key under the sparse ephemeral secret may have (NUMBERS section 2).
constexpr double kMaxSparseKeyBits = 121;
constexpr uint32_t kSecureEphemeralWeight = 32;

struct KeyClassShape {
  struct Digit {
    uint32_t first, count;
  };
  std::string name;
  uint32_t level = 0, specials = 0;
  std::vector<Digit> digits;
  // Prime index of each key row: the first `specials` special primes, then q_0..q_level.
  std::vector<uint16_t> limbs;

  uint32_t rowOf(uint32_t qLimb) const { return specials + qLimb; }
  // The same family cut at a lower level: fewer limbs, and the digits that hold them.
  KeyClassShape cutAt(uint32_t lower) const;
};

struct KeySpec {
  plan::KeyKind kind;
  uint32_t galois = 0;    // 0 unless kind is Galois
  uint32_t keyClass = 0;
  KeyClassShape shape;    // of the class, cut at the key's level

  // Tensor name in eval.keys.
  std::string name(const std::vector<KeyClassShape>& classes) const;
  // ChaCha20 nonce of the uniform half: unique per (key, digit, row) under one seed.
  uint64_t nonce(uint32_t digit, uint32_t row) const;
};

struct ClientParameters {
  uint32_t logN = 0;
  std::vector<uint64_t> primes;  // q_0..q_maxLevel, then the special primes
  uint32_t maxLevel = 0, specials = 0;
  uint32_t ephemeralWeight = 0;
  bool insecure = false;
  std::vector<KeyClassShape> keyClasses;
  std::vector<KeySpec> keys;     // same order as Plan.keys
  std::string hash;              // SHA-256 over everything above but `keys`

  uint32_t degree() const { return uint32_t(1) << logN; }
  double log2Primes(const std::vector<uint16_t>& limbs) const;
  uint64_t keyElements(const KeySpec& key) const;  // words of one half of a key

  // R320: parameters that contradict themselves. R308: not marked INSECURE, yet below 128 bits.
  // R307: a key to the sparse secret above its modulus bound, whether the plan is marked or not.
  static ClientParameters fromPlan(const plan::Plan& plan);
};

// g^-1 mod 2N, g odd.
uint32_t inverseGalois(uint32_t galois, uint32_t logN);

}  // namespace aegis
