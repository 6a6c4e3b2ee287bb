#include "backends/cuda/module.h"

#include <cuda_runtime_api.h>

#include <cstdio>
#include <string>
#include <type_traits>
#include <vector>

#include "backends/cuda/launches.h"
#include "backends/cuda/runtime.cuh"

namespace aegis::cuda {
namespace {

// Blocks that a multiprocessor is to hold at least: registers are cut to fit. 0: no matter, and 1 is not the
// same, it lets every kernel take more registers.
template <class Kernel, class = void>
struct ResidentBlocks {
  static constexpr uint32_t kCount = 0;
};
template <class Kernel>
struct ResidentBlocks<Kernel, std::void_t<decltype(Kernel::kResidentBlocks)>> {
  static constexpr uint32_t kCount = Kernel::kResidentBlocks;
};

template <class Kernel>
__global__ void __launch_bounds__(kBlockThreads, ResidentBlocks<Kernel>::kCount)
    entry(const __grid_constant__ Kernel kernel) {
  extern __shared__ uint64_t shared[];
  DeviceBlock block{blockIdx.x, blockDim.x, shared};
  kernel.run(block);
}

// Those of this module (loadKernels).
std::vector<const void*>& kernels() {
  static std::vector<const void*> all;
  return all;
}

template <class Kernel>
struct Listed {
  static inline const bool done = (kernels().push_back(reinterpret_cast<const void*>(entry<Kernel>)), true);
};

class StreamLauncher {
 public:
  explicit StreamLauncher(void* stream) : stream_(static_cast<cudaStream_t>(stream)) {}

  // After a kernel that did not start, no other is started.
  template <class Kernel>
  void start(const Kernel& kernel, uint32_t blocks, uint32_t threads, uint32_t sharedWords) {
    if (!Listed<Kernel>::done || blocks == 0 || status_ != cudaSuccess) return;
    entry<Kernel><<<blocks, threads, sharedWords * sizeof(uint64_t), stream_>>>(kernel);
    status_ = cudaGetLastError();
  }
  cudaError_t status() const { return status_; }

 private:
  cudaStream_t stream_;
  cudaError_t status_ = cudaSuccess;
};

// run(commands) on the launch's stream.
template <class Run>
const char* launched(const char* what, const AegisCudaLaunch* on, const Run& run) {
  if (!fitsGrid(*on->ring, *on->launch)) return say(std::string(what) + ": a launch of more than 2^35 words");
  StreamLauncher launcher(on->stream);
  Commands<StreamLauncher> commands(launcher, *on->ring);
  run(commands);
  return said(what, launcher.status());
}

const char* lacksScratch(const AegisCudaLaunch* on, const PlainRows& plain, const Scratch& scratch) {
  const size_t needed = scratchWords(*on->launch, plain);
  if (scratch.words >= needed) return nullptr;
  return say("plaintexts to expand: " + std::to_string(needed) + " words of scratch needed, " +
             std::to_string(scratch.words) + " given");
}

uint32_t driver() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? uint32_t(version) : 0;
}

const char* deviceCount(uint32_t* count) {
  int found = 0;
  const cudaError_t status = cudaGetDeviceCount(&found);
  *count = status == cudaSuccess ? uint32_t(found) : 0;
  return status == cudaErrorNoDevice ? nullptr : said("counting devices", status);
}

const char* describe(uint32_t device, AegisCudaDevice* out) {
  cudaDeviceProp properties;
  const cudaError_t status = cudaGetDeviceProperties(&properties, int(device));
  if (status != cudaSuccess) return said("describing a device", status);
  std::snprintf(out->name, sizeof out->name, "%s", properties.name);
  out->memoryBytes = properties.totalGlobalMem;
  out->major = uint32_t(properties.major);
  out->minor = uint32_t(properties.minor);
  return nullptr;
}

const char* useDevice(uint32_t device) { return said("choosing a device", cudaSetDevice(int(device))); }

// Of the device in use.
const char* loadKernels() {
  cudaFuncAttributes attributes;
  cudaError_t status = cudaSuccess;
  for (const void* kernel : kernels())
    if (status == cudaSuccess) status = cudaFuncGetAttributes(&attributes, kernel);
  return said("loading the kernels", status);
}

const char* allocate(uint64_t bytes, void** out) {
  return said("allocating device memory", cudaMalloc(out, bytes));
}

const char* release(void* memory) { return said("releasing device memory", cudaFree(memory)); }

const char* createStream(void** out) {
  return said("making a stream", cudaStreamCreateWithFlags(reinterpret_cast<cudaStream_t*>(out),
                                                           cudaStreamNonBlocking));
}

const char* destroyStream(void* stream) {
  return said("ending a stream", cudaStreamDestroy(static_cast<cudaStream_t>(stream)));
}

const char* copyBytes(void* to, const void* from, uint64_t bytes, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  return said("copying", cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, on));
}

// Errors of kernels appear here.
const char* synchronise(void* stream) {
  return said("waiting for a stream", cudaStreamSynchronize(static_cast<cudaStream_t>(stream)));
}

const char* zero(const AegisCudaLaunch* on, const Rows* out) {
  return launched("zero", on, [&](auto& run) { run.zero(*on->launch, *out); });
}

const char* copy(const AegisCudaLaunch* on, const Rows* out, const Rows* a) {
  return launched("copy", on, [&](auto& run) { run.copy(*on->launch, *out, *a); });
}

const char* add(const AegisCudaLaunch* on, const Rows* out, const Rows* a, const Rows* b) {
  return launched("add", on, [&](auto& run) { run.add(*on->launch, *out, *a, *b); });
}

const char* sub(const AegisCudaLaunch* on, const Rows* out, const Rows* a, const Rows* b) {
  return launched("sub", on, [&](auto& run) { run.sub(*on->launch, *out, *a, *b); });
}

const char* addPlain(const AegisCudaLaunch* on, const Rows* out, const Rows* a, const PlainRows* p,
                     const Scratch* scratch) {
  if (const char* problem = lacksScratch(on, *p, *scratch)) return problem;
  return launched("addPlain", on, [&](auto& run) { run.addPlain(*on->launch, *out, *a, *p, *scratch); });
}

const char* contract(const AegisCudaLaunch* on, const Rows* out, const Rows* a, const PlainRows* p,
                     const Scratch* scratch) {
  if (const char* problem = lacksScratch(on, *p, *scratch)) return problem;
  return launched("contract", on, [&](auto& run) { run.contract(*on->launch, *out, *a, *p, *scratch); });
}

const char* tensor(const AegisCudaLaunch* on, const Rows* out, const Rows* a, const Rows* b) {
  return launched("tensor", on, [&](auto& run) { run.tensor(*on->launch, *out, *a, *b); });
}

const char* ntt(const AegisCudaLaunch* on, const Rows* out, const Rows* a) {
  return launched("ntt", on, [&](auto& run) { run.ntt(*on->launch, *out, *a); });
}

const char* intt(const AegisCudaLaunch* on, const Rows* out, const Rows* a) {
  return launched("intt", on, [&](auto& run) { run.intt(*on->launch, *out, *a); });
}

const char* baseConvert(const AegisCudaLaunch* on, const Rows* out, const Rows* a,
                        const ConversionTable* table) {
  return launched("baseConvert", on, [&](auto& run) { run.baseConvert(*on->launch, *out, *a, *table); });
}

const char* subScale(const AegisCudaLaunch* on, const Rows* out, const Rows* a, const Rows* b,
                     const uint64_t* scalars) {
  return launched("subScale", on, [&](auto& run) { run.subScale(*on->launch, *out, *a, *b, scalars); });
}

const char* nttSubScale(const AegisCudaLaunch* on, const Rows* out, const Rows* a, const Rows* b,
                        const uint64_t* scalars) {
  return launched("nttSubScale", on, [&](auto& run) { run.nttSubScale(*on->launch, *out, *a, *b, scalars); });
}

const char* keyProduct(const AegisCudaLaunch* on, const Rows* out, const Rows* digits, uint32_t digitCount,
                       const KeyView* keys, uint32_t keyDim, const uint16_t* keyRows) {
  return launched("keyProduct", on, [&](auto& run) {
    run.keyProduct(*on->launch, *out, *digits, digitCount, keys, keyDim, keyRows);
  });
}

const char* automorphism(const AegisCudaLaunch* on, const Rows* out, const Rows* a, const uint32_t* galois,
                         uint32_t galoisDim) {
  return launched("automorphism", on,
                  [&](auto& run) { run.automorphism(*on->launch, *out, *a, galois, galoisDim); });
}

const char* multiplyChain(void* stream, uint32_t form, const MultiplyChainJob* job) {
  StreamLauncher launcher(stream);
  if (!startChain(launcher, form, *job)) return say("multiplyChain: no form " + std::to_string(form));
  return said("multiplyChain", launcher.status());
}

const char* reduceRows(void* stream, const ReduceRowsJob* job) {
  if (reduceBlocks(*job) >> 31) return say("reduceRows: a launch of more than 2^41 words");
  StreamLauncher launcher(stream);
  launcher.start(ReduceRows{*job}, uint32_t(reduceBlocks(*job)), kBlockThreads, 0);
  return said("reduceRows", launcher.status());
}

constexpr AegisCudaRuntime runtimeApi = {
    memory,       hostAllocate, hostRelease, hostRegister, hostUnregister, fill,         createEvent,
    destroyEvent, record,       streamWait,  query,        elapsed,        beginCapture, endCapture,
    dropCapture,  launchGraph,  destroyGraph, canAccessPeer, enablePeer,   reduceRows};

constexpr AegisCuda api = {
    kAegisCudaVersion, CUDART_VERSION, &runtimeApi,
    driver,            deviceCount,    describe,      useDevice,     loadKernels,
    allocate,          release,        createStream,  destroyStream, copyBytes, synchronise,
    zero,              copy,           add,           sub,         addPlain, contract,
    tensor,            ntt,            intt,          baseConvert, subScale, nttSubScale,
    keyProduct,        automorphism,
    uint32_t(MultiplyForm::AEGIS_CUDA_MULTIPLY), multiplyChain};

}  // namespace
}  // namespace aegis::cuda

extern "C" __attribute__((visibility("default"))) const AegisCuda* aegisCuda() { return &aegis::cuda::api; }
