// Metadata that every binary file of a plan carries, and the secret and public key files.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "client/parameters.h"
#include "client/secret_memory.h"
#include "io/safetensors.h"

namespace aegis {

constexpr const char* kFileVersion = "1";

// format: "aegis-secret-key", "aegis-public-key", "aegis-eval-keys", "aegis-ciphertext".
std::map<std::string, std::string> fileMetadata(const char* format, const ClientParameters& parameters,
                                                const std::string& keyId);

// R110: another format (R310 when it is a secret key, which only decrypt and encrypt may open), R111: another
// version, R301: made for other parameters, or INSECURE on one side only.
void checkMetadata(const SafeTensors& file, const char* format, const ClientParameters& parameters);
// The file's `keyId`, 32 hexadecimal digits naming one run of keygen. R112 if it has none.
std::string keyIdOf(const SafeTensors& file);
// The file's `seed`. R112.
Seed seedOf(const SafeTensors& file);

struct SecretKey {
  SmallPolynomial dense;      // uniform ternary
  SmallPolynomial ephemeral;  // sparse; used in bootstraps only
  std::string keyId;
};

// Writes the file; it appears once the writer is committed.
SafeTensorsWriter stageSecretKey(const std::string& path, const ClientParameters& parameters,
                                 const SecretKey& key);
// R312: coefficients are not those of a secret of these parameters.
SecretKey readSecretKey(const SafeTensors& file, const ClientParameters& parameters);

// Encryptions of zero (b, a) = (-a s + e, a) modulo q_0..q_maxLevel, NTT form; a is expanded from the seed.
struct PublicKey {
  std::vector<uint64_t> b, a;  // [limb][N]
  std::string keyId;
};

// Nonces of uniform halves that are not of a switching key: kind 15 (KeySpec::nonce uses 0..3).
uint64_t publicNonce(uint32_t limb);

SafeTensorsWriter stagePublicKey(const std::string& path, const ClientParameters& parameters,
                                 const std::string& keyId, const Seed& seed, const std::vector<uint64_t>& b);
// R302: a residue is not below its prime.
PublicKey readPublicKey(const SafeTensors& file, const ClientParameters& parameters);

}  // namespace aegis
