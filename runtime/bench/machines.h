// Where aegis-bench runs: memory for rows, kernels that follow pointers into it, and a clock.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backends/cuda/multiply_chain.h"
#include "hal/kernels.h"
#include "hal/thread_pool.h"

namespace aegis {

struct Timing {
  double medianUs, minUs;
};

class Machine {
 public:
  virtual ~Machine() = default;
  virtual const char* backend() const = 0;  // "avx512ifma", "cuda", "cuda-emulated"
  virtual bool timed() const { return true; }  // false: times say nothing about a machine
  virtual bool twoPasses() const = 0;  // transforms of rows above 2^12 words pass twice over memory
  virtual const KernelTable& kernels() const = 0;
  virtual ThreadPool& pool() = 0;
  // Lives as long as the machine.
  virtual uint64_t* allocate(uint64_t words) = 0;
  virtual void write(uint64_t* to, const std::vector<uint64_t>& words) = 0;
  virtual std::vector<uint64_t> read(const uint64_t* from, uint64_t words) = 0;
  // Of machines with CUDA kernels; `form` is a cuda::MultiplyForm.
  virtual bool multiplies() const { return false; }
  virtual void multiplyChain(uint32_t, const cuda::MultiplyChainJob&) {}
  // At least 5 repetitions and about half a second, after one that warms tables and caches.
  virtual Timing time(const std::function<void()>& call) = 0;
};

// `backend`: cpu, cuda (R404 where there is none) or cuda-emulated.
std::unique_ptr<Machine> makeMachine(const std::string& backend, uint32_t threads);

}  // namespace aegis
