// Any bytes as a safetensors file: every tensor can be read, or the file is refused by code.
#include <vector>

#include "io/safetensors.h"
#include "support/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto file = aegis::SafeTensors::parse(aegis::ByteSource::fromMemory(data, size));
    for (const auto& [name, tensor] : file.tensors()) {
      std::vector<uint8_t> bytes(tensor.bytes);
      file.read(tensor, 0, bytes.data(), bytes.size());
    }
  } catch (const aegis::Error&) {
  }
  return 0;
}
