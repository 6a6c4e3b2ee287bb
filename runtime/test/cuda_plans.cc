// Plans on the CUDA backend over the emulated module: the bits of the CPU, whatever the devices, and what is
// said when they fail. aegis_cuda_plans_test
#include <dlfcn.h>

#include <cstdlib>
#include <random>
#include <thread>

#include "backends/cuda/graphs.h"
#include "backends/cuda/load.h"
#include "backends/cuda/streamer.h"
#include "support/module_path.h"
#include "test/client_check.h"
#include "test/toy_setting.h"

namespace aegis::test {
namespace {

// The settings of emulated_cuda/machine.h, for sessions that begin while this lives; the memory of all
// devices must be given back in the end.
class Devices {
 public:
  Devices(Checker& checker, const std::string& settings) : checker_(checker), settings_(settings) {
    setenv("AEGIS_EMULATED_CUDA", settings.c_str(), 1);
  }
  ~Devices() {
    if (count("aegisEmulatedCudaRegions") != 0)
      checker_.check(false, settings_ + ": all memory is given back");
  }
  uint64_t graphs() const { return count("aegisEmulatedCudaGraphs"); }  // launched

 private:
  static uint64_t count(const char* function) {
    void* module = dlopen(std::getenv("AEGIS_CUDA_MODULE"), RTLD_NOW | RTLD_LOCAL);
    return reinterpret_cast<uint64_t (*)()>(dlsym(module, function))();
  }

  Checker& checker_;
  const std::string settings_;
};

bool sameOutputs(const RunResult& a, const RunResult& b) {
  bool same = a.outputs.size() == b.outputs.size();
  for (size_t i = 0; same && i < a.outputs.size(); i++) same = a.outputs[i].data == b.outputs[i].data;
  return same;
}

// Launches and row bytes do not depend on where they are, nor on graphs.
bool sameCounts(const RunResult& a, const RunResult& b) {
  bool same = true;
  for (uint32_t i = 0; i < kOpcodeCount; i++)
    same &= a.opcodes[i].launches == b.opcodes[i].launches && a.opcodes[i].rowBytes == b.opcodes[i].rowBytes;
  return same;
}

void checkToyPlans(Checker& checker) {
  const ToySetting residues, held(makeHeldPlan());
  for (const ToySetting* setting : {&residues, &held}) {
    const std::string name = setting == &held ? "held weights" : "toy plan";
    Session cpu(setting->plan, setting->weights, setting->keySource(), 2);
    const RunResult expected = cpu.run(setting->inputs);
    for (const char* graphs : {"1", "0"}) {
      setenv("AEGIS_CUDA_GRAPHS", graphs, 1);
      const Devices devices(checker, "jitter=1");
      Session cuda(setting->plan, setting->weights, setting->keySource(), 2, {}, nullptr, "cuda");
      bool bits = true, counts = true, progress = true, measured = true, memory = true;
      for (int run = 0; run < 4; run++) {
        uint64_t done = 0, total = 0;
        RunOptions options;
        options.progress = [&](uint64_t d, uint64_t all, std::string_view) { done = d, total = all; };
        const RunResult result = cuda.run(setting->inputs, options);
        const RankStatistics& rank = result.ranks.at(0);
        bits &= sameOutputs(result, expected);
        counts &= sameCounts(result, expected);
        progress &= done == total && total > 0;
        measured &= rank.computeSeconds > 0 && rank.computeSeconds < result.seconds;
        measured &= std::isnan(result.opcodes[plan::Opcode_Ntt].seconds);
        memory &= rank.peakBytes() == setting->plan->memory().total();
      }
      const std::string which = name + ", graphs " + graphs;
      checker.check(bits, which + ": the bits of the CPU");
      checker.check(counts, which + ": the launches of the CPU");
      checker.check(progress, which + ": progress ends at its total");
      checker.check(measured, which + ": no time that was not measured");
      checker.check(memory, which + ": the predicted memory");
      checker.check((devices.graphs() > 0) == (*graphs == '1'), which + ": calls that come again are graphs",
                    std::to_string(devices.graphs()) + " graphs launched");
    }
    unsetenv("AEGIS_CUDA_GRAPHS");
  }
}

// Whatever the launches of a call depend on tells it from others.
void checkSignatures(Checker& checker) {
  GraphCache cache;
  const FunctionSpec functions[2];
  const EncodedPlaintext weights[2];
  uint64_t words[4];
  const auto entry = [&](int function, int frame, int buffer, int plaintext, uint64_t launches = 100) {
    return cache.find({functions[function], words + frame, {words + 2, words + 2 + buffer},
                       {weights + plaintext}, launches, 1});
  };
  GraphCache::Entry* const first = entry(0, 0, 0, 0);
  checker.check(first != nullptr && entry(0, 0, 0, 0) == first, "an equal call is known again");
  checker.check(entry(1, 0, 0, 0) != first && entry(0, 1, 0, 0) != first && entry(0, 0, 1, 0) != first &&
                    entry(0, 0, 0, 1) != first,
                "a call of another function, frame, buffer or plaintext is another");
  checker.check(entry(0, 0, 0, 0, GraphCache::kMaxLaunches + 1) == nullptr, "a large call is no graph");
}

void checkProfile(Checker& checker) {
  const ToySetting setting;
  setenv("AEGIS_CUDA_PROFILE", "1", 1);
  const Devices devices(checker, "");
  Session session(setting.plan, setting.weights, setting.keySource(), 1, {}, nullptr, "cuda");
  const RunResult result = session.run(setting.inputs);
  double nodes = 0, opcodes = 0;
  for (const double seconds : result.nodeSeconds) nodes += seconds;
  for (const OpcodeStatistics& statistics : result.opcodes) opcodes += statistics.seconds;
  checker.check(nodes > 0 && std::fabs(nodes - opcodes) < 1e-6 && opcodes <= result.seconds,
                "a profile times every launch");
  unsetenv("AEGIS_CUDA_PROFILE");
}

// Random items through a ring that holds few of them: what a launch reads is what was asked for.
void checkRing(Checker& checker) {
  constexpr uint32_t kItems = 40, kRounds = 400, kMost = 4;
  constexpr uint64_t kWords = 512, kBytes = kWords * 8;
  const Devices devices(checker, "jitter=1");
  const AegisCuda* api = nullptr;
  cudaMachine(&api);
  const Gpu gpu(*api, 0);
  gpu.use();
  Streamer streamer(gpu, Streamer::kLaunchesInRing * (kMost * kBytes + kBytes));
  const CudaHandle compute = gpu.makeStream(), host = gpu.allocatePinned(kItems * kBytes);
  const CudaHandle read = gpu.allocatePinned(uint64_t(kRounds) * (kMost + 1) * kBytes);
  auto* const source = static_cast<uint64_t*>(host.get());
  for (uint64_t i = 0; i < kItems * kWords; i++) source[i] = i;
  std::vector<uint64_t> expected;  // first words
  std::mt19937_64 random(5);
  auto* to = static_cast<uint8_t*>(read.get());
  for (uint32_t round = 0; round < kRounds; round++) {
    std::vector<Streamer::Item> items;
    for (uint64_t i = 1 + random() % kMost; i > 0; i--) {
      const uint64_t item = random() % kItems;
      items.push_back({source + item * kWords, kBytes, false});
      expected.push_back(item * kWords);
    }
    auto* const fresh = static_cast<uint64_t*>(streamer.slot());
    items.push_back({fresh, kBytes, true});
    expected.push_back(uint64_t(1) << 40 | round);
    const std::vector<void*> found = streamer.fetch(items, compute.get(), [&](const std::vector<void*>&) {
      for (uint64_t k = 0; k < kWords; k++) fresh[k] = expected.back() + k;
    });
    for (const void* item : found) {
      gpu.check(api->copyBytes(to, item, kBytes, compute.get()));
      to += kBytes;
    }
    streamer.used(compute.get());
  }
  gpu.check(api->synchronise(compute.get()));
  uint64_t wrong = 0;
  for (size_t i = 0; i < expected.size(); i++)
    for (uint64_t k = 0; k < kWords; k++)
      wrong += static_cast<const uint64_t*>(read.get())[i * kWords + k] != expected[i] + k;
  const uint64_t most = expected.size() * kBytes;
  checker.check(wrong == 0 && streamer.copiedBytes() < most, "what is streamed is what was asked for",
                std::to_string(wrong) + " wrong words");
}

// Keys and weights from pinned memory, through a ring that pushes them out again and again.
void checkStreaming(Checker& checker) {
  setenv("AEGIS_CUDA_STREAM", "1", 1);
  const ToySetting residues, held(makeHeldPlan());
  for (const ToySetting* setting : {&residues, &held}) {
    Session cpu(setting->plan, setting->weights, setting->keySource(), 1);
    const RunResult expected = cpu.run(setting->inputs);
    const Devices devices(checker, "jitter=1");
    Session cuda(setting->plan, setting->weights, setting->keySource(), 1, {}, nullptr, "cuda");
    bool same = true;
    for (int run = 0; run < 4; run++) {
      const RunResult result = cuda.run(setting->inputs);
      same &= sameOutputs(result, expected) && sameCounts(result, expected);
    }
    const std::string name = setting == &held ? "held weights" : "toy plan";
    checker.check(same, name + ", streamed: the bits of the CPU");
    const std::string warning = cuda.warnings().size() == 1 ? cuda.warnings()[0] : "";
    checker.check(warning.rfind("keys and weights (", 0) == 0, name + ", streamed: the user is told",
                  warning);
  }
  const RanksSetting ranks(3);
  Session cpu(ranks.plan, WeightMap(), ranks.wholeKeys(), 1);
  const RunResult expected = cpu.run(ranks.inputs);
  const Devices devices(checker, "devices=2,jitter=1");
  Session cuda(ranks.plan, WeightMap(), ranks.wholeKeys(), 1, {}, nullptr, "cuda");
  checker.check(sameOutputs(cuda.run(ranks.inputs), expected), "three ranks on two devices, streamed");
  unsetenv("AEGIS_CUDA_STREAM");
}

void checkRanks(Checker& checker) {
  const RanksSetting one(1);
  Session reference(one.plan, WeightMap(), one.wholeKeys(), 1);
  const RunResult expected = reference.run(one.inputs);
  const std::pair<uint32_t, const char*> cases[] = {
      {1, "jitter=1"},
      {2, "jitter=1"},
      {2, "devices=2,jitter=1"},
      {2, "devices=2,peers=0,jitter=1"},
      {4, "jitter=1"},
      {4, "devices=2,jitter=1"},
      {5, "devices=3,peers=0,jitter=1"},
  };
  for (const auto& [ranks, settings] : cases) {
    const RanksSetting setting(ranks);
    Session cpu(setting.plan, WeightMap(), setting.wholeKeys(), 1);
    const RunResult onCpu = cpu.run(setting.inputs);
    const Devices devices(checker, settings);
    Session cuda(setting.plan, WeightMap(), setting.wholeKeys(), 1, {}, nullptr, "cuda");
    bool bytes = true, same = true;
    for (int run = 0; run < 3; run++) {
      const RunResult result = cuda.run(setting.inputs);
      same &= sameOutputs(result, expected) && sameCounts(result, onCpu);
      for (const RankStatistics& rank : result.ranks)
        for (const CollectiveStatistics& c : rank.collectives) bytes &= c.receivedBytes == c.predictedBytes;
    }
    const std::string name = std::to_string(ranks) + " ranks, " + settings;
    checker.check(same, name + ": the bits of one rank on the CPU");
    checker.check(bytes, name + ": received bytes are the predicted ones");
    const bool far = std::string(settings).find("peers=0") != std::string::npos;
    checker.check(cuda.warnings().empty() != far, name + ": warned of devices out of reach");
  }
}

void checkRefusals(Checker& checker) {
  const ToySetting setting;
  const auto open = [&](const char* settings) {
    const Devices devices(checker, settings);
    Session session(setting.plan, setting.weights, setting.keySource(), 1, {}, nullptr, "cuda");
    session.run(setting.inputs);
  };
  const auto messageOf = [&](const char* settings) -> std::string {
    try {
      open(settings);
    } catch (const Error& error) {
      return error.code() + " " + error.what();
    }
    return "";
  };
  const std::string small = messageOf("memory=65");
  checker.check(small.rfind("R501 device 0 (EMULATED GPU 0) has 65.00 MiB free but the plan needs", 0) == 0,
                "too little device memory is refused before anything is taken", small);
  const std::string broken = messageOf("fail=20");
  checker.check(broken.rfind("R408 rank 0 on device 0 (EMULATED GPU 0) stopped ", 0) == 0 &&
                    broken.find("an illegal memory access was encountered") != std::string::npos,
                "a kernel that fails", broken);
  checker.check(messageOf("fail=0").empty(), "and the devices start anew");
  const RanksSetting ranks(3);
  const Devices devices(checker, "devices=3,fail=12");
  Session session(ranks.plan, WeightMap(), ranks.wholeKeys(), 1, {}, nullptr, "cuda");
  std::vector<std::string> codes;
  try {
    session.run(ranks.inputs);
  } catch (const Error& error) {
    codes.push_back(error.code());
    for (const Error& other : error.others()) codes.push_back(other.code());
  }
  checker.check(codes == std::vector<std::string>{"R408", "R405", "R405"},
                "a device that fails ends the ranks on the others", codes.empty() ? "no error" : codes[0]);
}

void checkCancel(Checker& checker) {
  const ToySetting setting;
  Session cpu(setting.plan, setting.weights, setting.keySource(), 1);
  const RunResult expected = cpu.run(setting.inputs);
  const Devices devices(checker, "jitter=1");
  Session session(setting.plan, setting.weights, setting.keySource(), 1, {}, nullptr, "cuda");
  // At every place: while launches are enqueued, captured, and waited for.
  uint32_t cancelled = 0, wrong = 0;
  for (int steps = 0; steps < 12; steps++) {
    std::atomic<bool> cancel{false};
    RunOptions options;
    options.cancel = &cancel;
    std::thread later([&] {
      std::this_thread::sleep_for(std::chrono::microseconds(1500 * steps));
      cancel = true;
    });
    try {
      wrong += !sameOutputs(session.run(setting.inputs, options), expected);
    } catch (const Error& error) {
      (error.code() == "R401" ? cancelled : wrong)++;
    }
    later.join();
    wrong += !sameOutputs(session.run(setting.inputs), expected);
  }
  checker.check(wrong == 0 && cancelled > 0, "a session goes on after runs that were cancelled",
                std::to_string(cancelled) + " of 12 cancelled");
}

}  // namespace
}  // namespace aegis::test

int main() {
  using namespace aegis::test;
  setenv("AEGIS_CUDA_MODULE", aegis::modulePath("AEGIS_CUDA_EMULATED", "aegis_cuda_emulated.so").c_str(), 1);
  Checker checker;
  checkToyPlans(checker);
  checkSignatures(checker);
  checkProfile(checker);
  checkRing(checker);
  checkStreaming(checker);
  checkRanks(checker);
  checkRefusals(checker);
  checkCancel(checker);
  return checker.finish();
}
