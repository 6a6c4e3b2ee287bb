// One GPU, and what is taken from it: memory, streams, events (internal to backends/cuda).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "backends/cuda/module.h"

namespace aegis {

// A module's handle, or memory; given back when it goes.
using CudaHandle = std::unique_ptr<void, std::function<void(void*)>>;

class Gpu {
 public:
  // R408.
  Gpu(const AegisCuda& api, uint32_t ordinal);
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  const AegisCuda& api;
  const AegisCudaRuntime& runtime;
  const uint32_t ordinal;
  const std::string& name() const { return name_; }  // "device 0 (NVIDIA H100 80GB HBM3)"

  // Makes it the calling thread's device: before anything else here.
  void use() const { check(api.useDevice(ordinal)); }
  // R408, unless `problem` is null.
  void check(const char* problem) const;
  uint64_t freeBytes() const;

  CudaHandle allocate(uint64_t bytes) const;        // R501
  CudaHandle allocatePinned(uint64_t bytes) const;  // R501; of the host
  CudaHandle makeStream() const;
  CudaHandle makeEvent() const;

 private:
  std::string name_;
};

// "12.25 GiB", "3.50 MiB".
std::string printedBytes(uint64_t bytes);

// Copies between a GPU and any host memory, through pinned chunks: one is packed or unpacked while the other
// travels.
class Stager {
 public:
  Stager(const Gpu& gpu, void* stream);
  static constexpr uint64_t kChunkBytes = uint64_t(8) << 20;
  static constexpr uint64_t kPinnedBytes = 2 * kChunkBytes;

  // pack(at, bytes, to): bytes at .. at + bytes - 1 of what is sent, chunks in order, which start at
  // multiples of kChunkBytes. The copies may go on after the return, until drain().
  void upload(void* to, uint64_t bytes, const std::function<void(uint64_t, uint64_t, uint8_t*)>& pack);
  void upload(void* to, const void* from, uint64_t bytes);
  void drain();
  // Done on return.
  void download(const void* from, uint64_t bytes,
                const std::function<void(uint64_t, uint64_t, const uint8_t*)>& unpack);

 private:
  void await(uint32_t slot);

  const Gpu& gpu_;
  void* const stream_;
  CudaHandle chunks_[2], events_[2];
  bool used_[2] = {};
  uint32_t next_ = 0;
};

}  // namespace aegis
