// The CUDA side of the runtime behind plain functions: aegis_cuda.so is the one file that nvcc compiles,
// and is loaded when something asks for a GPU (load.h). So one build serves machines with and without one.
#pragma once

#include <cstdint>

#include "backends/cuda/batch.h"
#include "backends/cuda/module_runtime.h"
#include "backends/cuda/multiply_chain.h"

extern "C" {

constexpr uint32_t kAegisCudaVersion = 5;

struct AegisCudaDevice {
  char name[256];
  uint64_t memoryBytes;
  uint32_t major, minor;  // compute capability
};

// One launch of hal/kernels.h on a stream. The structs are read during the call; every pointer in them and
// in the operands (limbs, primes, tables, keys, rowOf, ...) is a device pointer and must stay valid until
// the kernels have run. So what a plan fixes is uploaded once, and a launch may be captured into a graph.
struct AegisCudaLaunch {
  void* stream;
  const aegis::cuda::RingView* ring;
  const aegis::Launch* launch;
};

// Functions give null, or what went wrong in words that live until the thread's next call.
struct AegisCuda {
  uint32_t version;
  uint32_t toolkit;      // CUDA version that the module was built with: 13000 is 13.0
  const AegisCudaRuntime* runtime;
  uint32_t (*driver)();  // the latest that the driver supports; 0: there is no driver
  const char* (*deviceCount)(uint32_t* count);
  const char* (*describe)(uint32_t device, AegisCudaDevice* out);
  const char* (*useDevice)(uint32_t device);  // of the calling thread, from now on
  // Onto the thread's device. What is loaded at its first launch instead waits for all that runs there.
  const char* (*loadKernels)();
  const char* (*allocate)(uint64_t bytes, void** out);
  const char* (*release)(void* memory);
  const char* (*createStream)(void** out);
  const char* (*destroyStream)(void* stream);
  // In stream order, between host and device in either direction or on the device.
  const char* (*copyBytes)(void* to, const void* from, uint64_t bytes, void* stream);
  const char* (*synchronise)(void* stream);

  // The entries of KernelTable. addPlain and contract of coefficients need scratch on the device,
  // scratchWords() (launches.h) at least.
  const char* (*zero)(const AegisCudaLaunch*, const aegis::Rows* out);
  const char* (*copy)(const AegisCudaLaunch*, const aegis::Rows* out, const aegis::Rows* a);
  const char* (*add)(const AegisCudaLaunch*, const aegis::Rows* out, const aegis::Rows* a,
                     const aegis::Rows* b);
  const char* (*sub)(const AegisCudaLaunch*, const aegis::Rows* out, const aegis::Rows* a,
                     const aegis::Rows* b);
  const char* (*addPlain)(const AegisCudaLaunch*, const aegis::Rows* out, const aegis::Rows* a,
                          const aegis::PlainRows* p, const aegis::cuda::Scratch*);
  const char* (*contract)(const AegisCudaLaunch*, const aegis::Rows* out, const aegis::Rows* a,
                          const aegis::PlainRows* p, const aegis::cuda::Scratch*);
  const char* (*tensor)(const AegisCudaLaunch*, const aegis::Rows* out, const aegis::Rows* a,
                        const aegis::Rows* b);
  const char* (*ntt)(const AegisCudaLaunch*, const aegis::Rows* out, const aegis::Rows* a);
  const char* (*intt)(const AegisCudaLaunch*, const aegis::Rows* out, const aegis::Rows* a);
  const char* (*baseConvert)(const AegisCudaLaunch*, const aegis::Rows* out, const aegis::Rows* a,
                             const aegis::ConversionTable*);
  const char* (*subScale)(const AegisCudaLaunch*, const aegis::Rows* out, const aegis::Rows* a,
                          const aegis::Rows* b, const uint64_t* scalars);
  const char* (*nttSubScale)(const AegisCudaLaunch*, const aegis::Rows* out, const aegis::Rows* a,
                             const aegis::Rows* b, const uint64_t* scalars);
  const char* (*keyProduct)(const AegisCudaLaunch*, const aegis::Rows* out, const aegis::Rows* digits,
                            uint32_t digitCount, const aegis::KeyView* keys, uint32_t keyDim,
                            const uint16_t* keyRows);
  const char* (*automorphism)(const AegisCudaLaunch*, const aegis::Rows* out, const aegis::Rows* a,
                              const uint32_t* galois, uint32_t galoisDim);

  uint32_t multiply;  // MultiplyForm of these kernels
  // For the bench; in any form.
  const char* (*multiplyChain)(void* stream, uint32_t form, const aegis::cuda::MultiplyChainJob*);
};

typedef const AegisCuda* (*AegisCudaEntry)();
const AegisCuda* aegisCuda();
}
