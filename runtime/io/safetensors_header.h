// The JSON header of a safetensors file, as written there: nothing is checked against the file yet.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace aegis {

struct SafeTensorsHeader {
  struct Entry {
    std::string dtype;
    std::vector<uint64_t> shape;
    uint64_t begin = 0, end = 0;
  };
  std::map<std::string, Entry> tensors;
  std::map<std::string, std::string> metadata;
};

// R104: not JSON, or not of the header's form; R108: a name occurs twice.
SafeTensorsHeader parseSafeTensorsHeader(const std::string& text, const std::string& fileName);

}  // namespace aegis
