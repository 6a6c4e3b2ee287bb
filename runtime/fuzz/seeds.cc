// Seeds of the fuzz targets, made with fresh keys of small plans: aegis_fuzz_seeds FOLDER writes a folder for
// each target.
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "client/cipher.h"
#include "client/keygen.h"
#include "exec/checkpoint_file.h"
#include "fuzz/checkpoint_plans.h"
#include "fuzz/untrusted_file.h"

namespace aegis::fuzz {
namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<uint8_t>;

// Of the tensors: the rest of a seed's file is zeros.
constexpr size_t kBodyBytes = 64;

Bytes bytesOf(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return Bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
}

class Seeds {
 public:
  explicit Seeds(std::string folder) : folder_(std::move(folder)) {}

  void add(const std::string& target, const std::string& name, const Bytes& bytes) const {
    fs::create_directories(folder_ + "/" + target);
    std::ofstream file(folder_ + "/" + target + "/" + name, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()), std::streamsize(bytes.size()));
    if (!file) throw std::runtime_error("cannot write below " + folder_);
  }

  // `before`, the file's header and so many bytes of its tensors.
  void addFile(const std::string& target, const std::string& path, size_t body, const Bytes& before) const {
    const Bytes whole = bytesOf(path);
    uint64_t header = 0;
    std::memcpy(&header, whole.data(), sizeof header);
    const size_t size = std::min<size_t>(whole.size(), sizeof header + header + body);
    Bytes seed = before;
    seed.insert(seed.end(), whole.begin(), whole.begin() + ptrdiff_t(size));
    add(target, fs::path(path).filename(), seed);
  }

 private:
  const std::string folder_;
};

void addPlans(const Seeds& seeds) {
  seeds.add("plan", "fixture", setting().fixture.plan);
  seeds.add("plan", "toy", test::packPlan(test::makeToyPlan()));
  seeds.add("plan", "held", test::packPlan(test::makeHeldPlan()));
  for (uint32_t ranks = 1; ranks <= 3; ranks++)
    seeds.add("plan", "ranks" + std::to_string(ranks), test::packPlan(test::makeRanksPlan(ranks)));
  seeds.add("safetensors", "weights", setting().fixture.weights);
}

void addClientFiles(const Seeds& seeds, const std::string& scratch) {
  const Setting& s = setting();
  const plan::Plan& plan = s.plan.plan();
  CryptoContext context(plan, 1);
  const KeygenResult keys = generateKeys(context, {scratch, 1, {}});
  const ClearTensors inputs = {{"x", std::vector<double>(test::kFixtureTokens * test::kFixtureFeatures, 1)}};
  const std::string request = scratch + "/request", response = scratch + "/response";
  encryptRequest(context, plan, inputs, {keys.publicKey, request, false, {}});
  std::vector<std::vector<uint64_t>> outputs;
  std::vector<const uint64_t*> data;
  for (const plan::Port* port : *plan.outputs())
    outputs.emplace_back(ciphertextWords(*port, s.parameters));
  for (const auto& output : outputs) data.push_back(output.data());
  const std::string keyId = keyIdOf(SafeTensors::open(keys.publicKey));
  writeResponse(response, plan, s.parameters, keyId, data);
  seeds.addFile("request", request, kBodyBytes, {0});
  seeds.addFile("response", response, kBodyBytes, {0});
  seeds.addFile("evaluation_keys", keys.evalKeys, kBodyBytes, {0});
  seeds.addFile("public_key", keys.publicKey, kBodyBytes, {0});
  seeds.addFile("public_key", keys.secretKey, size_t(-1) / 2, {0});
  seeds.addFile("secret_key", keys.secretKey, size_t(-1) / 2, {0});
}

// Rows are zeros: the header, the position and the sum are what a reader must look at.
void addCheckpoint(const Seeds& seeds, const std::string& scratch, uint32_t ranks) {
  const PlanFile plan = checkpointPlan(ranks);
  std::vector<RankSnapshot> snapshots;
  std::vector<Bytes> rows;
  for (uint32_t rank = 0; rank < ranks; rank++) {
    const ProgramSpec& program = plan.programs()[rank];
    const Position position = checkpointPosition(plan, rank);
    uint64_t count = 0;
    for (const RowRange& range : liveRows(program, position)) count += range.count;
    rows.emplace_back(count * plan.ring().degree() * sizeof(uint64_t));
    const std::vector<uint64_t> counts(plan.collectives().size(), 1);
    snapshots.push_back({rank, position, counts, counts,
                         {{reinterpret_cast<const uint64_t*>(rows.back().data()), count}}});
  }
  const std::string path = scratch + "/checkpoint" + std::to_string(ranks);
  CheckpointFolder folder(path, plan, {});
  folder.save(snapshots, [] {});
  const std::string file = path + "/ranks" + std::to_string(ranks);
  fs::rename(path + "/checkpoint-0.aegis", file);
  seeds.addFile("checkpoint", file, 1024, {uint8_t(ranks - 1), 0});
}

void addMeetings(const Seeds& seeds) {
  Bytes seed = {0, 2};
  seed.resize(seed.size() + 8 + 32, 1);
  seeds.add("meeting", "message", seed);
  seed.assign(2 + 512 + 2, 'a');
  seed[0] = 128;
  seed[1] = 0;
  seeds.add("meeting", "failed", seed);
  seed = {250, 250, 'a'};
  seeds.add("meeting", "cut", seed);
}

}  // namespace
}  // namespace aegis::fuzz

int main(int argc, char** argv) {
  using namespace aegis::fuzz;
  if (argc != 2) {
    std::fprintf(stderr, "usage: aegis_fuzz_seeds FOLDER\n");
    return 2;
  }
  const std::string scratch = std::string(argv[1]) + "/.scratch";
  try {
    const Seeds seeds(argv[1]);
    addPlans(seeds);
    addClientFiles(seeds, scratch);
    addCheckpoint(seeds, scratch, 1);
    addCheckpoint(seeds, scratch, 2);
    addMeetings(seeds);
    std::filesystem::remove_all(scratch);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "aegis_fuzz_seeds: %s\n", error.what());
    return 1;
  }
  return 0;
}
