#include "backends/cuda/gpu.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <thread>

#include "support/error.h"

namespace aegis {

Gpu::Gpu(const AegisCuda& a, uint32_t o) : api(a), runtime(*a.runtime), ordinal(o) {
  name_ = "device " + std::to_string(ordinal);
  AegisCudaDevice device{};
  check(api.describe(ordinal, &device));
  name_ += " (" + std::string(device.name) + ")";
}

void Gpu::check(const char* problem) const {
  if (problem != nullptr) fail("R408", name_ + ": " + problem, "see what nvidia-smi says");
}

uint64_t Gpu::freeBytes() const {
  uint64_t free = 0, total = 0;
  check(runtime.memory(&free, &total));
  return free;
}

CudaHandle Gpu::allocate(uint64_t bytes) const {
  void* memory = nullptr;
  if (const char* problem = api.allocate(std::max<uint64_t>(bytes, 1), &memory))
    fail("R501", name_ + " does not give " + printedBytes(bytes) + ": " + problem,
         "use a device with more memory, or one that nothing else uses");
  return {memory, [release = api.release](void* m) { release(m); }};
}

CudaHandle Gpu::allocatePinned(uint64_t bytes) const {
  void* memory = nullptr;
  if (const char* problem = runtime.hostAllocate(std::max<uint64_t>(bytes, 1), &memory))
    fail("R501", "the machine does not give " + printedBytes(bytes) + " of pinned memory: " + problem);
  return {memory, [release = runtime.hostRelease](void* m) { release(m); }};
}

CudaHandle Gpu::makeStream() const {
  void* stream = nullptr;
  check(api.createStream(&stream));
  return {stream, [destroy = api.destroyStream](void* s) { destroy(s); }};
}

CudaHandle Gpu::makeEvent() const {
  void* event = nullptr;
  check(runtime.createEvent(&event));
  return {event, [destroy = runtime.destroyEvent](void* e) { destroy(e); }};
}

std::string printedBytes(uint64_t bytes) {
  char text[32];
  const bool large = bytes >> 30 != 0;
  std::snprintf(text, sizeof text, "%.2f %s", double(bytes) / double(large ? 1 << 30 : 1 << 20),
                large ? "GiB" : "MiB");
  return text;
}

Stager::Stager(const Gpu& gpu, void* stream) : gpu_(gpu), stream_(stream) {
  for (uint32_t i = 0; i < 2; i++) {
    chunks_[i] = gpu.allocatePinned(kChunkBytes);
    events_[i] = gpu.makeEvent();
  }
}

void Stager::await(uint32_t slot) {
  for (int done = !used_[slot]; !done;) {
    gpu_.check(gpu_.runtime.query(events_[slot].get(), &done));
    if (!done) std::this_thread::yield();
  }
  used_[slot] = false;
}

void Stager::upload(void* to, uint64_t bytes,
                    const std::function<void(uint64_t, uint64_t, uint8_t*)>& pack) {
  for (uint64_t at = 0; at < bytes; at += kChunkBytes) {
    const uint32_t slot = next_++ % 2;
    const uint64_t count = std::min(kChunkBytes, bytes - at);
    await(slot);
    pack(at, count, static_cast<uint8_t*>(chunks_[slot].get()));
    gpu_.check(gpu_.api.copyBytes(static_cast<uint8_t*>(to) + at, chunks_[slot].get(), count, stream_));
    gpu_.check(gpu_.runtime.record(events_[slot].get(), stream_));
    used_[slot] = true;
  }
}

void Stager::upload(void* to, const void* from, uint64_t bytes) {
  upload(to, bytes, [from](uint64_t at, uint64_t count, uint8_t* out) {
    std::memcpy(out, static_cast<const uint8_t*>(from) + at, count);
  });
}

void Stager::drain() {
  await(0);
  await(1);
}

void Stager::download(const void* from, uint64_t bytes,
                      const std::function<void(uint64_t, uint64_t, const uint8_t*)>& unpack) {
  drain();
  const uint64_t chunks = (bytes + kChunkBytes - 1) / kChunkBytes;
  const auto start = [&](uint64_t i) {
    const uint64_t at = i * kChunkBytes, count = std::min(kChunkBytes, bytes - at);
    const uint32_t slot = uint32_t(i % 2);
    gpu_.check(
        gpu_.api.copyBytes(chunks_[slot].get(), static_cast<const uint8_t*>(from) + at, count, stream_));
    gpu_.check(gpu_.runtime.record(events_[slot].get(), stream_));
    used_[slot] = true;
  };
  if (chunks > 0) start(0);
  for (uint64_t i = 0; i < chunks; i++) {
    if (i + 1 < chunks) start(i + 1);
    await(uint32_t(i % 2));
    const uint64_t at = i * kChunkBytes;
    unpack(at, std::min(kChunkBytes, bytes - at), static_cast<const uint8_t*>(chunks_[i % 2].get()));
  }
}

}  // namespace aegis
