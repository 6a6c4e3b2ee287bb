// The module's launches as a KernelTable, for programs that call kernels by hand (conformance, bench): what a
// launch reads besides rows (limbs, tables, scalars, keys' views) is uploaded when it is first seen and kept.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "backends/cuda/module.h"
#include "hal/kernels.h"

namespace aegis {

class RingContext;

// One at a time in a process, for one thread. Errors are R408.
class ModuleKernels {
 public:
  ModuleKernels(const AegisCuda& api, uint32_t device);
  ~ModuleKernels();
  ModuleKernels(const ModuleKernels&) = delete;
  ModuleKernels& operator=(const ModuleKernels&) = delete;

  uint64_t* allocate(uint64_t words);
  void release(uint64_t* words);
  void upload(uint64_t* to, const uint64_t* from, uint64_t words);
  void download(uint64_t* to, const uint64_t* from, uint64_t words);
  void synchronise();

  // Rows, plaintexts and keys are in the device's memory, everything else in the host's. Launches return at
  // once.
  static const KernelTable& deviceTable();
  // All operands are in the host's memory: every launch copies what it reads and writes, and waits.
  static const KernelTable& hostTable();

  // Used by the tables.
  static ModuleKernels& active();
  AegisCudaLaunch on(const RingContext& ring, const Launch& launch, bool transforms);
  ConversionTable conversion(const ConversionTable& table);
  aegis::cuda::Scratch scratch(const Launch& launch, const PlainRows& plain);
  template <class T>
  const T* keep(const T* data, size_t count) {
    return static_cast<const T*>(resident(data, count * sizeof(T)));
  }
  void check(const char* problem) const;
  const AegisCuda& api() const { return api_; }
  void* stream() const { return stream_; }

 private:
  struct Ring {
    aegis::cuda::RingView view;
    std::vector<NttTable> tables;
    NttTable* deviceTables = nullptr;
  };
  Ring& ringOf(const RingContext& ring);
  void addTransforms(Ring& kept, const RingContext& ring, const Launch& launch);
  const void* resident(const void* data, size_t bytes);
  void* take(size_t bytes);

  const AegisCuda& api_;
  void* stream_ = nullptr;
  std::vector<void*> chunks_;
  uint8_t* free_ = nullptr;  // of the last chunk
  size_t left_ = 0;
  std::map<std::string, const void*> residents_;  // by contents
  std::map<std::string, Ring> rings_;             // by degree and moduli
  Launch launch_;                                 // of the last call, with pointers of the device
  aegis::cuda::Scratch scratch_;
};

}  // namespace aegis
