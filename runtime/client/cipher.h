// Encryption and decryption: single ciphertexts, and whole requests and responses through a plan's ports.
#pragma once

#include <map>
#include <string>
#include <variant>
#include <vector>

#include "client/ciphertext_file.h"
#include "client/context.h"
#include "client/key_files.h"

namespace aegis {

// Opens either kind of key by its format; R110 for any other file.
using EncryptionKey = std::variant<PublicKey, SecretKey>;
EncryptionKey openEncryptionKey(const std::string& path, const ClientParameters& parameters);

class Encryptor {
 public:
  Encryptor(CryptoContext& context, EncryptionKey key, Randomness random);
  ~Encryptor();

  // plain: level + 1 rows in NTT form. cipher: [component][limb][N].
  //   public key: (b v + e0 + m, a v + e1), v ternary; noise sigma about 3.2 sqrt(4N/3)
  //   secret key: (-a s + e + m, a), a uniform; noise sigma 3.2
  void encrypt(const uint64_t* plain, uint32_t level, uint64_t* cipher);
  const std::string& keyId() const;

 private:
  void encryptPublic(const PublicKey& key, const uint64_t* plain, uint32_t level, uint64_t* cipher);
  void encryptSecret(const uint64_t* plain, uint32_t level, uint64_t* cipher);

  CryptoContext& context_;
  EncryptionKey key_;
  Randomness random_;
  SecretVector<uint64_t> secretRows_;  // the secret key modulo q_0..q_maxLevel, NTT form
};

class Decryptor {
 public:
  Decryptor(CryptoContext& context, const SecretKey& key);
  // c0 + c1 s: level + 1 rows in NTT form.
  void decrypt(const uint64_t* cipher, uint32_t level, uint64_t* plain) const;
  const std::string& keyId() const { return keyId_; }

 private:
  CryptoContext& context_;
  std::string keyId_;
  SecretVector<uint64_t> secretRows_;
};

// Tensors of the model, row-major, by port name.
using ClearTensors = std::map<std::string, std::vector<double>>;

struct Warning {
  std::string code, message;
};

struct EncryptOptions {
  std::string key, out;  // paths
  bool allowOutOfRange = false;  // values outside the calibrated range: a warning instead of R306
  Progress progress;
};

// Slots of array element `element` of a port: values / factor through the port's slot map.
std::vector<double> gatherSlots(const plan::Plan& plan, const plan::Port& port,
                                const std::vector<double>& values, uint32_t element);

// R305: an input is missing, unknown, of the wrong size or not finite. R306: outside of its calibrated range.
std::vector<Warning> encryptRequest(CryptoContext& context, const plan::Plan& plan,
                                    const ClearTensors& inputs, const EncryptOptions& options);

struct DecryptOptions {
  std::string key, in;  // paths
  Progress progress;
  uint64_t shareQueries = 0;  // results under one key that others may see, this one included; 0: none do
};

struct DecryptResult {
  ClearTensors outputs;
  // Largest |imaginary part| of the outputs' slots times the factor: all noise, since outputs are real. A
  // measured stand-in for the error, without knowing the right result.
  std::map<std::string, double> imaginary;
  // Standard deviation of the noise that was added to an output, if it is to be shared.
  std::map<std::string, double> floodSigma;
  // R322: that is above the predicted error; R306: a value left its calibrated range.
  std::vector<Warning> warnings;
};

// R311: the response was made with other keys. R323: with the noise that sharing takes, less than one bit of
// an output would be left, or its error is not known.
DecryptResult decryptResponse(CryptoContext& context, const plan::Plan& plan, const DecryptOptions& options);

}  // namespace aegis
