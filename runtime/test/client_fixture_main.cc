// Writes the fixture's files for test/executor: aegis_client_fixture_files DIRECTORY
//   plan.aegis, plan.aegis.weights (client_fixture.h), other.aegis (another ring)
#include <cstdio>
#include <string>

#include "client_fixture.h"
#include "io/files.h"
#include "support/error.h"

namespace {

void writeFile(const std::string& path, const std::vector<uint8_t>& bytes) {
  aegis::AtomicFile file(path, aegis::FileMode::kPublic);
  file.write(bytes.data(), bytes.size());
  file.commit();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: aegis_client_fixture_files DIRECTORY\n");
    return 2;
  }
  try {
    const std::string directory = argv[1];
    const auto fixture = aegis::test::makeFixture();
    writeFile(directory + "/plan.aegis", fixture.plan);
    writeFile(directory + "/plan.aegis.weights", fixture.weights);
    const auto other = aegis::test::makeFixture({.logN = 11, .bound = 1});
    writeFile(directory + "/other.aegis", other.plan);
    writeFile(directory + "/other.aegis.weights", other.weights);
  } catch (const aegis::Error& error) {
    std::fprintf(stderr, "%s: %s\n", error.code().c_str(), error.what());
    return 1;
  }
  return 0;
}
