#include "client_fixture.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <unistd.h>

#include "ckks/modulus.h"
#include "client/randomness.h"
#include "io/safetensors.h"

namespace aegis::test {
namespace {

namespace fb = flatbuffers;

constexpr uint32_t kMaxLevel = 4, kSpecials = 2, kPortLevel = 2, kPeriod = 64, kElements = 2;
constexpr uint32_t kKeys = 8;
constexpr double kScale = double(uint64_t(1) << 40);

// The largest `count` primes 1 mod 2N below 2^bits that are not taken yet.
void takePrimes(uint32_t logN, uint32_t bits, uint32_t count, std::vector<uint64_t>& primes) {
  const uint64_t step = uint64_t(2) << logN;
  for (uint64_t q = (uint64_t(1) << bits) - step + 1; count > 0; q -= step) {
    if (!isPrime(q) || std::find(primes.begin(), primes.end(), q) != primes.end()) continue;
    primes.push_back(q);
    count--;
  }
}

std::vector<uint8_t> makeWeights() {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("aegis-fixture-weights-" + std::to_string(getpid())))
          .string();
  SafeTensorsWriter writer(path, FileMode::kPublic, {{"format", "aegis-weights"}, {"version", "1"}},
                           {{"w", Dtype::kF32, {kFixtureFeatures}}});
  for (uint32_t i = 0; i < kFixtureFeatures; i++) {
    const auto value = float(fixtureWeight(i));
    writer.write("w", &value, sizeof value);
  }
  writer.commit();
  std::ifstream file(path, std::ios::binary);
  std::vector<uint8_t> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::filesystem::remove(path);
  return bytes;
}

class Maker {
 public:
  explicit Maker(const FixtureOptions& options) : options_(options) {
    takePrimes(options.logN, 50, 1, primes_);
    takePrimes(options.logN, 40, kMaxLevel, primes_);
    takePrimes(options.logN, 50, kSpecials, primes_);
  }

  Fixture make() {
    Fixture fixture;
    fixture.weights = makeWeights();
    const std::string weightsHash = sha256Hex(fixture.weights.data(), fixture.weights.size());
    const auto parameters = makeParameters();
    const auto keys = makeKeys();
    const auto tables = makeTables();
    const auto plaintexts = makePlaintexts();
    const auto programs = makePrograms();
    const auto inputs = fbb_.CreateVector(std::vector{port("x", 2.0, options_.bound, 0)});
    const auto outputs = fbb_.CreateVector(std::vector{output("y"), output("z")});
    const auto mesh = fbb_.CreateVector(std::vector{plan::CreateMeshAxisDirect(fbb_, "app", 1)});
    const auto locations = fbb_.CreateVectorOfStrings({"add_y", "add_w", "add_z"});
    fbb_.Finish(plan::CreatePlan(fbb_, 2, 0, fbb_.CreateString("test"), fbb_.CreateString("fixture"),
                                 fbb_.CreateString(std::string(64, 'a')), fbb_.CreateString(weightsHash),
                                 fbb_.CreateString("app"), mesh, parameters, keys, tables, plaintexts,
                                 programs, inputs, outputs, locations, plan::CreateSummary(fbb_, kPortLevel),
                                 fbb_.CreateVector(std::vector<fb::Offset<plan::CollectiveInfo>>{})),
                plan::PlanIdentifier());
    fixture.plan.assign(fbb_.GetBufferPointer(), fbb_.GetBufferPointer() + fbb_.GetSize());
    return fixture;
  }

 private:
  fb::Offset<plan::KeyClass> keyClass(const char* name, uint16_t level, uint16_t specials,
                                      const std::vector<plan::DigitRange>& digits) {
    return plan::CreateKeyClass(fbb_, fbb_.CreateString(name), level, specials,
                                fbb_.CreateVectorOfStructs(digits));
  }

  fb::Offset<plan::Parameters> makeParameters() {
    using Digit = plan::DigitRange;
    const uint16_t sparseLevel = options_.highSparseKey ? 1 : 0,
                   sparseSpecials = options_.wideSparseKey ? 2 : 1;
    const auto classes = fbb_.CreateVector(std::vector{
        keyClass("low", 1, 2, {Digit(0, 2)}),
        keyClass("compute", kMaxLevel, 2, {Digit(0, 2), Digit(2, 2), Digit(4, 1)}),
        keyClass("sparse", sparseLevel, sparseSpecials, {Digit(0, uint16_t(sparseLevel + 1))})});
    double logQP = 0;
    for (uint64_t q : primes_) logQP += std::log2(double(q));
    return plan::CreateParameters(fbb_, uint8_t(options_.logN), fbb_.CreateVector(primes_), kMaxLevel,
                                  kSpecials, fbb_.CreateVector(std::vector<double>(kMaxLevel + 1, kScale)),
                                  classes, 32, logQP, 0, options_.insecure);
  }

  fb::Offset<fb::Vector<fb::Offset<plan::Key>>> makeKeys() {
    const uint32_t order = uint32_t(2) << options_.logN;
    const auto rotation = [&](uint32_t k) {
      uint32_t g = 1;
      for (uint32_t i = 0; i < k; i++) g = g * 5 % order;
      return g;
    };
    const auto key = [&](plan::KeyKind kind, uint32_t galois, uint16_t keyClass, uint16_t level) {
      return plan::CreateKey(fbb_, kind, galois, keyClass, level);
    };
    const uint16_t sparseLevel = options_.highSparseKey ? 1 : 0;
    // The rotation by 64 is cut below the level of its class.
    return fbb_.CreateVector(std::vector{
        key(plan::KeyKind_Relinearize, 0, 1, kMaxLevel), key(plan::KeyKind_Galois, rotation(1), 1, kMaxLevel),
        key(plan::KeyKind_Galois, rotation(7), 0, 1), key(plan::KeyKind_Galois, rotation(64), 1, 2),
        key(plan::KeyKind_Galois, order - 1, 1, kMaxLevel), key(plan::KeyKind_ToSparse, 0, 2, sparseLevel),
        key(plan::KeyKind_ToDense, 0, 1, kMaxLevel), key(plan::KeyKind_Relinearize, 0, 0, 1)});
  }

  // Element e holds features 20 e .. 20 e + 19 in positions 0..19 of each token's group; the rest is empty.
  fb::Offset<fb::Vector<fb::Offset<plan::IntTable>>> makeTables() {
    const uint32_t slots = uint32_t(1) << (options_.logN - 1), perElement = kFixtureFeatures / kElements;
    std::vector<int32_t> features(kElements * kPeriod, -1), tokens(slots / kPeriod, -1);
    for (uint32_t i = 0; i < kFixtureFeatures; i++)
      features[i / perElement * kPeriod + i % perElement] = int32_t(i);
    for (uint32_t t = 0; t < kFixtureTokens; t++) tokens[t] = int32_t(t * kFixtureFeatures);
    return fbb_.CreateVector(std::vector{plan::CreateIntTableDirect(fbb_, "features", &features),
                                         plan::CreateIntTableDirect(fbb_, "tokens", &tokens)});
  }

  fb::Offset<fb::Vector<fb::Offset<plan::Plaintext>>> makePlaintexts() {
    const auto recipe = plan::CreateVectorRecipeDirect(fbb_, "w", 0, -1, 0.5);  // ports have factor 2
    const std::vector<uint16_t> limbs = {0, 1, 2};
    return fbb_.CreateVector(std::vector{plan::CreatePlaintextDirect(
        fbb_, plan::Recipe_VectorRecipe, recipe.Union(), kElements, kPeriod, 2 * kPeriod, &limbs, kScale)});
  }

  fb::Offset<plan::View> view(uint32_t buffer) {
    const std::vector<int64_t> strides = {2 * (kPortLevel + 1), kPortLevel + 1};
    return plan::CreateViewDirect(fbb_, buffer, 0, &strides, 0, 1);
  }

  fb::Offset<plan::Command> add(uint32_t out, uint32_t a, uint32_t b, uint32_t node) {
    const auto views = std::vector{view(out), view(a), view(b)};
    const auto dims = fbb_.CreateVector(std::vector<uint32_t>{kElements, 2});
    const auto limbs = fbb_.CreateVector(std::vector<uint16_t>{0, 1, 2});
    plan::CommandBuilder command(fbb_);
    command.add_op(plan::Opcode_Add);
    command.add_dims(dims);
    command.add_limbs(limbs);
    command.add_out(views[0]);
    command.add_a(views[1]);
    command.add_b(views[2]);
    command.add_node(node);
    return command.Finish();
  }

  // Component 0 of every element of y += w, in place.
  fb::Offset<plan::Command> addWeights() {
    const std::vector<int64_t> strides = {2 * (kPortLevel + 1)}, plainStrides = {kPortLevel + 1};
    const auto y = plan::CreateViewDirect(fbb_, 1, 0, &strides, 0, 1);
    const auto weights = plan::CreateViewDirect(fbb_, 0, 0, &plainStrides, 0, 1);
    const auto dims = fbb_.CreateVector(std::vector<uint32_t>{kElements});
    const auto limbs = fbb_.CreateVector(std::vector<uint16_t>{0, 1, 2});
    plan::CommandBuilder command(fbb_);
    command.add_op(plan::Opcode_AddPlain);
    command.add_dims(dims);
    command.add_limbs(limbs);
    command.add_out(y);
    command.add_a(y);
    command.add_plain(weights);
    command.add_node(1);
    return command.Finish();
  }

  fb::Offset<fb::Vector<fb::Offset<plan::Program>>> makePrograms() {
    const uint64_t rows = kElements * 2 * (kPortLevel + 1);
    const std::vector<fb::Offset<plan::Command>> commands = {add(1, 0, 0, 0), add(2, 0, 0, 2),
                                                             add(2, 2, 0, 2), addWeights()};
    std::vector<fb::Offset<plan::Buffer>> buffers;
    for (int i = 0; i < 3; i++) buffers.push_back(plan::CreateBuffer(fbb_, true, 0, rows));
    const std::vector<fb::Offset<plan::PlaintextSlot>> slots = {plan::CreatePlaintextSlot(fbb_, false, 0)};
    const std::vector<fb::Offset<plan::Function>> functions = {
        plan::CreateFunctionDirect(fbb_, "main", 0, &buffers, &slots, &commands)};
    std::vector<fb::Offset<plan::KeyPart>> keys;
    for (uint32_t key = 0; key < kKeys; key++) keys.push_back(plan::CreateKeyPartDirect(fbb_, key));
    const std::vector<fb::Offset<plan::PortPart>> inputs = {plan::CreatePortPartDirect(fbb_, 0)};
    const std::vector<fb::Offset<plan::PortPart>> outputs = {plan::CreatePortPartDirect(fbb_, 1),
                                                             plan::CreatePortPartDirect(fbb_, 2)};
    return fbb_.CreateVector(std::vector{plan::CreateProgramDirect(fbb_, &functions, &keys, &inputs, &outputs,
                                                                   plan::CreateRankMemory(fbb_))});
  }

  fb::Offset<plan::Port> output(const char* name) {
    return port(name, 2.0, options_.outputBound, options_.outputError);
  }

  fb::Offset<plan::Port> port(const char* name, double factor, double bound, double error) {
    const std::vector<uint32_t> shape = {kFixtureTokens, kFixtureFeatures};
    return plan::CreatePortDirect(fbb_, name, &shape, kElements, kPeriod, 0, 1, kPortLevel, kScale, factor,
                                  bound, error);
  }

  FixtureOptions options_;
  fb::FlatBufferBuilder fbb_;
  std::vector<uint64_t> primes_;
};

}  // namespace

double fixtureWeight(uint32_t feature) { return double(feature) / 8 - 2; }

Fixture makeFixture(const FixtureOptions& options) { return Maker(options).make(); }

}  // namespace aegis::test
