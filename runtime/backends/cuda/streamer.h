// Keys and plaintexts that do not fit a GPU: copied from pinned memory ahead of the launches that read them,
// into a ring of device memory. The host runs ahead of the launches, so copies of later ones pass while
// earlier ones compute (internal to backends/cuda).
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "backends/cuda/gpu.h"

namespace aegis {

class Streamer {
 public:
  // The ring must be this many times as large as what one launch reads: whatever lies where, a launch's own
  // chunks then never push each other out for good.
  static constexpr uint64_t kLaunchesInRing = 3;
  static constexpr uint64_t kAlignBytes = 256;
  // R501, R408.
  Streamer(const Gpu& gpu, uint64_t ringBytes);

  struct Item {
    const void* host = nullptr;  // pinned
    uint64_t bytes = 0;
    bool isFresh = false;  // not what was there before: never found again
  };
  // Where the items are on the device, in order. `fill` is told before they are copied, to write what is
  // fresh. What comes next on `compute` may read them; then used(). R408.
  std::vector<void*> fetch(const std::vector<Item>& items, void* compute,
                           const std::function<void(const std::vector<void*>&)>& fill = {});
  void used(void* compute);  // also if nothing was fetched since the last time
  // Pinned memory to write a fresh item into; of up to kSlotBytes.
  static constexpr uint64_t kSlotBytes = 16 << 10;
  void* slot();

  uint64_t copiedBytes() const { return copiedBytes_; }

 private:
  struct Events {
    CudaHandle loaded, used;
  };
  struct Chunk {
    std::pair<const void*, uint64_t> item{};
    uint64_t bytes = 0;
    bool isFresh = false, isLoaded = false, wasUsed = false;
    Events events;
  };
  using Chunks = std::map<uint64_t, Chunk>;  // by offset in the ring

  uint64_t place(const Item& item);
  void load(uint64_t offset, Chunk& chunk);
  void evict(Chunks::iterator chunk);
  void awaitOnHost(void* event) const;

  const Gpu& gpu_;
  const uint64_t ringBytes_;
  CudaHandle stream_, ring_, slots_;
  std::vector<CudaHandle> slotEvents_;
  uint64_t nextSlot_ = 0;
  bool slotTaken_ = false;
  Chunks chunks_;
  std::map<std::pair<const void*, uint64_t>, uint64_t> offsets_;  // of chunks that may be found again
  std::vector<Events> spare_;
  std::vector<uint64_t> current_;  // chunks of the last fetch
  uint64_t next_ = 0;              // offset
  uint64_t copiedBytes_ = 0;
};

}  // namespace aegis
