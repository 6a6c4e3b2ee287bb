// Any bytes as a secret key.
#include "client/key_files.h"
#include "fuzz/untrusted_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace aegis;
  const fuzz::Setting& s = fuzz::setting();
  const uint64_t bytes = 2 * s.parameters.degree() * sizeof(int32_t);
  return fuzz::readFile(data, size, bytes, [&](const std::string& path) {
    readSecretKey(SafeTensors::open(path), s.parameters);
  });
}
