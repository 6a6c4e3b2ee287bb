// aegis-seeded-keys: the evaluation keys of an INSECURE plan from a seed, where there is no Node. The same
// seed gives the keys that `aegis keygen --seed` gives.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "client/keygen.h"
#include "plan/plan_file.h"
#include "support/error.h"

namespace aegis {
namespace {

constexpr int kUserError = 1, kUsage = 2;

int run(const std::string& plan, const std::string& folder, const std::string& seed) {
  char* end = nullptr;
  const unsigned long long value = std::strtoull(seed.c_str(), &end, 10);
  if (seed.empty() || seed[0] < '0' || seed[0] > '9' || *end != '\0') {
    std::fprintf(stderr, "aegis-seeded-keys: SEED is not a whole number of at least 0\n");
    return kUsage;
  }
  try {
    const PlanFile file = PlanFile::open(plan, {kNoMemoryLimit});
    CryptoContext context(file.plan(), 0);
    KeygenOptions options;
    options.directory = folder;
    options.seed = value;
    const KeygenResult result = generateKeys(context, options);
    std::printf("%s: %u keys, %llu bytes\n", result.evalKeys.c_str(), result.keyCount,
                static_cast<unsigned long long>(result.evalKeysBytes));
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "error[%s]: %s\n", error.code().c_str(), error.what());
    return kUserError;
  }
}

}  // namespace
}  // namespace aegis

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: aegis-seeded-keys PLAN FOLDER SEED\n");
    return aegis::kUsage;
  }
  return aegis::run(argv[1], argv[2], argv[3]);
}
