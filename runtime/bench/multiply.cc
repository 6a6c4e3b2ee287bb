#include "bench/multiply.h"

#include "support/error.h"

namespace aegis {
namespace {

// Blocks that fill a GPU several times over, and steps next to which loads and stores are nothing.
constexpr uint32_t kBlocks = 8192, kSteps = 1024;
constexpr uint32_t kEmulatedBlocks = 2, kEmulatedSteps = 64;
constexpr uint64_t kModulus = 1125899904679937;  // the largest prime below 2^50 that is 1 mod 2^15
constexpr uint64_t kFactor = 987654321012345;

std::vector<uint64_t> residues(uint64_t count) {
  std::vector<uint64_t> words(count);
  uint64_t state = 1;
  for (uint64_t& word : words) {
    state = state * 6364136223846793005 + 1442695040888963407;
    word = (state >> 14) % kModulus;
  }
  return words;
}

}  // namespace

std::vector<BenchRow> multiplyRows(Machine& machine) {
  std::vector<BenchRow> rows;
  if (!machine.multiplies()) return rows;
  cuda::MultiplyChainJob job;
  job.blocks = machine.timed() ? kBlocks : kEmulatedBlocks;
  job.steps = machine.timed() ? kSteps : kEmulatedSteps;
  job.q = kModulus;
  job.w = kFactor;
  job.companion = uint64_t((static_cast<unsigned __int128>(kFactor) << 64) / kModulus);
  const std::vector<uint64_t> words = residues(uint64_t(job.blocks) * cuda::kChainBlockWords);
  job.words = machine.allocate(words.size());
  std::vector<uint64_t> expected;
  constexpr const char* kNames[cuda::kMultiplyForms] = {"multiply_shoup64", "multiply_split32",
                                                        "multiply_fp64"};
  for (uint32_t form = 0; form < cuda::kMultiplyForms; form++) {
    machine.write(job.words, words);
    machine.multiplyChain(form, job);
    const std::vector<uint64_t> got = machine.read(job.words, words.size());
    if (form == 0) expected = got;
    if (got != expected)
      fail("R408",
           std::string("the GPU failed: ") + kNames[form] + " and " + kNames[0] + " give different words",
           "build the CUDA module again, and run aegis_conformance --table cuda");
    const Floors floors = {double(words.size()) * job.steps, 16.0 * double(words.size())};
    rows.push_back({kNames[form], 1, 0, 1, machine.time([&] { machine.multiplyChain(form, job); }), floors,
                    true});
  }
  return rows;
}

}  // namespace aegis
