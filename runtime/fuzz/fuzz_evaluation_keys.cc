// Any bytes as evaluation keys: all keys of the plan are loaded, or the file is refused by code.
#include <set>

#include "client/eval_keys.h"
#include "fuzz/untrusted_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace aegis;
  const fuzz::Setting& s = fuzz::setting();
  static ThreadPool pool(1);
  std::set<std::string> names;
  uint64_t words = 0;
  for (const KeySpec& key : s.parameters.keys)
    if (names.insert(key.name(s.parameters.keyClasses)).second) words += s.parameters.keyElements(key);
  return fuzz::readFile(data, size, words * sizeof(uint64_t), [&](const std::string& path) {
    const EvalKeys keys = EvalKeys::open(path, s.parameters, pool, {});
    for (uint32_t i = 0; i < keys.count(); i++) keys.view(i);
  });
}
