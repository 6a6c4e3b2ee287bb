// Any bytes as the key of an encryption: a public key, or a secret one.
#include "client/cipher.h"
#include "fuzz/untrusted_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace aegis;
  const fuzz::Setting& s = fuzz::setting();
  const uint64_t bytes = (s.parameters.maxLevel + uint64_t(1)) * s.parameters.degree() * sizeof(uint64_t);
  return fuzz::readFile(data, size, bytes,
                        [&](const std::string& path) { openEncryptionKey(path, s.parameters); });
}
