// Writes plans for 1 to 5 ranks that give the same outputs, for test/executor: aegis_ranks_fixture_files
// DIRECTORY
//   ranksN.aegis, ranksN.aegis.weights (toy_ranks.h)
#include <cstdio>
#include <string>

#include "client/randomness.h"
#include "client_fixture.h"
#include "io/files.h"
#include "support/error.h"
#include "test/toy_plan.h"
#include "test/toy_ranks.h"

namespace {

void writeFile(const std::string& path, const std::vector<uint8_t>& bytes) {
  aegis::AtomicFile file(path, aegis::FileMode::kPublic);
  file.write(bytes.data(), bytes.size());
  file.commit();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: aegis_ranks_fixture_files DIRECTORY\n");
    return 2;
  }
  try {
    const std::vector<uint8_t> weights = aegis::test::makeFixture().weights;
    for (uint32_t ranks = 1; ranks <= 5; ranks++) {
      const std::string path = std::string(argv[1]) + "/ranks" + std::to_string(ranks) + ".aegis";
      aegis::plan::PlanT plan = aegis::test::makeRanksPlan(ranks);
      plan.source_hash = std::string(64, 'b');
      plan.weights_hash = aegis::sha256Hex(weights.data(), weights.size());
      writeFile(path, aegis::test::packPlan(plan));
      writeFile(path + ".weights", weights);
    }
  } catch (const aegis::Error& error) {
    std::fprintf(stderr, "%s: %s\n", error.code().c_str(), error.what());
    return 1;
  }
  return 0;
}
