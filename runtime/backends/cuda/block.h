// The one form of every CUDA kernel: a trivially copyable struct whose run(block) is the work of one block
// of threads, cut into phases with a barrier after each.
//
//   template <class Block> AEGIS_DEVICE void run(Block& block) const {
//     block.phase([&](uint32_t thread) { ... });   // all threads, then a barrier
//   }
//
// nvcc compiles it for the device, where a phase is the lambda on the own thread and __syncthreads(); the
// host compiler compiles the same text for the emulator (emulator.h), which runs the threads of a phase
// one after another. Outside phases a body may only compute what is the same for all threads. Data passes
// from phase to phase in block.shared, or in Block::PerThread for values that belong to one thread.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#define AEGIS_DEVICE __device__ __forceinline__
#define AEGIS_UNROLL _Pragma("unroll")
#else
#define AEGIS_DEVICE inline
#define AEGIS_UNROLL
#endif

namespace aegis::cuda {

constexpr uint32_t kBlockThreads = 256;
// What every device gives a block without being asked: 48 KiB.
constexpr uint32_t kSharedWords = 6144;

#if defined(__CUDACC__)
struct DeviceBlock {
  uint32_t index, threads;
  uint64_t* shared;

  template <class Phase>
  AEGIS_DEVICE void phase(const Phase& run) const {
    run(threadIdx.x);
    __syncthreads();
  }

  template <class Value>
  class PerThread {
   public:
    AEGIS_DEVICE explicit PerThread(const DeviceBlock&) {}
    AEGIS_DEVICE Value& operator[](uint32_t) { return value_; }

   private:
    Value value_{};
  };
};
#endif

}  // namespace aegis::cuda
