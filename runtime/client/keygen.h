// Key generation for the manifest of a plan.
#pragma once

#include <optional>
#include <string>

#include "client/context.h"
#include "client/key_files.h"

namespace aegis {

struct KeygenOptions {
  std::string directory;         // gets secret.key (0600), public.key, eval.keys
  std::optional<uint64_t> seed;  // INSECURE plans only (R309): the same seed gives the same keys
  Progress progress;
};

struct KeygenResult {
  std::string secretKey, publicKey, evalKeys;  // paths
  uint64_t evalKeysBytes = 0;
  uint32_t keyCount = 0;
};

// Streams eval.keys digit by digit: memory holds the secrets and one digit. The three files are written
// beside their places and renamed together at the end, so a run that fails or is cancelled leaves earlier
// keys as they were.
KeygenResult generateKeys(CryptoContext& context, const KeygenOptions& options);

// The secrets modulo every prime of the plan, NTT form: [prime][N].
struct SecretRows {
  SecretVector<uint64_t> dense, denseSquared, ephemeral;
};

SecretKey sampleSecretKey(const ClientParameters& parameters, Randomness& random);
SecretRows secretRows(CryptoContext& context, const SecretKey& secret);

// Component b of digit `digit` of a switching key, [row][N], NTT form:
//   b = -a s_to + e + [row in digit] P s_from,   P the product of the key class's special primes,
// with a from `seed`. Digits d of a polynomial c (centred, extended to all rows) then give
// sum d b + (sum d a) s_to = P c s_from + sum d e.
//   Relinearize  s^2 -> s            Galois g  s -> X^(g^-1) of s (the runtime applies X -> X^g afterwards)
//   ToSparse     s -> ephemeral      ToDense   ephemeral -> s
void makeKeyDigit(CryptoContext& context, const SecretRows& secrets, const KeySpec& key, uint32_t digit,
                  const Seed& seed, Randomness& random, uint64_t* b);

}  // namespace aegis
