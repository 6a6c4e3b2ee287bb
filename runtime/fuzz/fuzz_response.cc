// Any bytes as a response: every ciphertext can be read, or the file is refused by code.
#include "client/ciphertext_file.h"
#include "fuzz/untrusted_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace aegis;
  const fuzz::Setting& s = fuzz::setting();
  const auto kind = CiphertextKind::kResponse;
  uint64_t words = 0;
  for (const plan::Port* port : portsOf(s.plan.plan(), kind)) words += ciphertextWords(*port, s.parameters);
  return fuzz::readFile(data, size, words * sizeof(uint64_t), [&](const std::string& path) {
    const CiphertextReader reader(path, s.plan.plan(), s.parameters, kind);
    for (const plan::Port* port : portsOf(s.plan.plan(), kind)) {
      std::vector<uint64_t> one(ciphertextWords(*port, s.parameters) / port->elements());
      for (uint32_t i = 0; i < port->elements(); i++) reader.readElement(*port, i, one.data());
    }
  });
}
