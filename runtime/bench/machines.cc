#include "bench/machines.h"

#include <algorithm>
#include <chrono>

#include "backends/cuda/emulated.h"
#include "backends/cuda/emulator.h"
#include "backends/cuda/load.h"
#include "backends/cuda/module_kernels.h"
#include "executor/memory.h"
#include "support/error.h"

namespace aegis {
namespace {

using Clock = std::chrono::steady_clock;
constexpr double kTotalUs = 5e5;
constexpr size_t kLeast = 5, kMost = 2000;

double since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

// measure() gives the microseconds of one repetition, which may be a mean over several calls.
Timing repeat(const std::function<double()>& measure) {
  std::vector<double> us;
  const auto start = Clock::now();
  while (us.size() < kLeast || (us.size() < kMost && since(start) < kTotalUs)) us.push_back(measure());
  std::sort(us.begin(), us.end());
  return {us[us.size() / 2], us[0]};
}

class HostMachine : public Machine {
 public:
  HostMachine(const KernelTable& kernels, uint32_t threads) : kernels_(kernels), pool_(threads) {}
  const char* backend() const override { return kernels_.name; }
  bool twoPasses() const override { return false; }
  const KernelTable& kernels() const override { return kernels_; }
  ThreadPool& pool() override { return pool_; }
  uint64_t* allocate(uint64_t words) override {
    blocks_.emplace_back(words);
    blocks_.back().touch(pool_);
    return blocks_.back().data();
  }
  void write(uint64_t* to, const std::vector<uint64_t>& words) override {
    std::copy(words.begin(), words.end(), to);
  }
  std::vector<uint64_t> read(const uint64_t* from, uint64_t words) override { return {from, from + words}; }
  Timing time(const std::function<void()>& call) override {
    call();
    return repeat([&] {
      const auto start = Clock::now();
      call();
      return since(start);
    });
  }

 private:
  const KernelTable& kernels_;
  ThreadPool pool_;
  std::vector<WordBlock> blocks_;
};

// Functional checks: one repetition.
class EmulatedMachine : public HostMachine {
 public:
  explicit EmulatedMachine(uint32_t threads)
      : HostMachine(emulatedCudaKernels<cuda::MultiplyForm::shoup64>(), threads) {}
  bool timed() const override { return false; }
  bool twoPasses() const override { return true; }
  bool multiplies() const override { return true; }
  void multiplyChain(uint32_t form, const cuda::MultiplyChainJob& job) override {
    cuda::EmulatedLauncher launcher(pool());
    AEGIS_INVARIANT(cuda::startChain(launcher, form, job));
  }
  Timing time(const std::function<void()>& call) override {
    const auto start = Clock::now();
    call();
    const double us = since(start);
    return {us, us};
  }
};

class CudaMachineBench : public Machine {
 public:
  explicit CudaMachineBench(const AegisCuda& api) : kernels_(api, 0), pool_(1) {}
  ~CudaMachineBench() override {
    for (uint64_t* block : blocks_) kernels_.release(block);
  }
  const char* backend() const override { return "cuda"; }
  bool twoPasses() const override { return true; }
  const KernelTable& kernels() const override { return ModuleKernels::deviceTable(); }
  ThreadPool& pool() override { return pool_; }
  uint64_t* allocate(uint64_t words) override {
    blocks_.push_back(kernels_.allocate(words));
    return blocks_.back();
  }
  void write(uint64_t* to, const std::vector<uint64_t>& words) override {
    kernels_.upload(to, words.data(), words.size());
    kernels_.synchronise();
  }
  std::vector<uint64_t> read(const uint64_t* from, uint64_t words) override {
    std::vector<uint64_t> result(words);
    kernels_.download(result.data(), from, words);
    return result;
  }
  bool multiplies() const override { return true; }
  void multiplyChain(uint32_t form, const cuda::MultiplyChainJob& job) override {
    kernels_.check(kernels_.api().multiplyChain(kernels_.stream(), form, &job));
  }
  // Launches follow each other on one stream; a repetition is as many calls as take about 2 ms, so that
  // waiting for the last of them does not count.
  Timing time(const std::function<void()>& call) override {
    const auto timed = [&](uint32_t calls) {
      const auto start = Clock::now();
      for (uint32_t i = 0; i < calls; i++) call();
      kernels_.synchronise();
      return since(start);
    };
    timed(1);
    const double once = timed(1);
    const uint32_t calls = uint32_t(std::clamp(2000.0 / once, 1.0, 1000.0));
    return repeat([&] { return timed(calls) / calls; });
  }

 private:
  ModuleKernels kernels_;
  ThreadPool pool_;
  std::vector<uint64_t*> blocks_;
};

}  // namespace

std::unique_ptr<Machine> makeMachine(const std::string& backend, uint32_t threads) {
  if (backend == "cpu") return std::make_unique<HostMachine>(cpuKernels(), threads);
  if (backend == "cuda-emulated") return std::make_unique<EmulatedMachine>(threads);
  AEGIS_INVARIANT(backend == "cuda");
  const AegisCuda* api = nullptr;
  const CudaMachine machine = cudaMachine(&api);
  if (api == nullptr) fail("R404", machine.problem, machine.help);
  return std::make_unique<CudaMachineBench>(*api);
}

}  // namespace aegis
