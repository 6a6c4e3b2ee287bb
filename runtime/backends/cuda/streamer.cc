#include "backends/cuda/streamer.h"

#include <algorithm>
#include <thread>

#include "support/error.h"

namespace aegis {
namespace {

constexpr uint64_t kSlots = 256;
constexpr uint64_t kNowhere = ~uint64_t(0);

uint64_t aligned(uint64_t bytes) {
  return (bytes + Streamer::kAlignBytes - 1) / Streamer::kAlignBytes * Streamer::kAlignBytes;
}

}  // namespace

Streamer::Streamer(const Gpu& gpu, uint64_t ringBytes)
    : gpu_(gpu), ringBytes_(ringBytes / kAlignBytes * kAlignBytes), stream_(gpu.makeStream()),
      ring_(gpu.allocate(ringBytes)), slots_(gpu.allocatePinned(kSlots * kSlotBytes)) {
  for (uint64_t i = 0; i < kSlots; i++) slotEvents_.push_back(gpu.makeEvent());
}

void Streamer::awaitOnHost(void* event) const {
  for (int done = 0; !done;) {
    gpu_.check(gpu_.runtime.query(event, &done));
    if (!done) std::this_thread::yield();
  }
}

// Once round, the copy out of a slot must be over.
void* Streamer::slot() {
  if (nextSlot_ >= kSlots) awaitOnHost(slotEvents_[nextSlot_ % kSlots].get());
  slotTaken_ = true;
  return static_cast<uint8_t*>(slots_.get()) + nextSlot_ % kSlots * kSlotBytes;
}

void Streamer::evict(Chunks::iterator chunk) {
  Chunk& old = chunk->second;
  if (old.wasUsed) gpu_.check(gpu_.runtime.streamWait(stream_.get(), old.events.used.get()));
  if (!old.isFresh) offsets_.erase(old.item);
  spare_.push_back(std::move(old.events));
  chunks_.erase(chunk);
}

// Pushes out what lies in the way, the oldest by and large, once its last launch is done.
uint64_t Streamer::place(const Item& item) {
  const uint64_t bytes = aligned(item.bytes);
  AEGIS_INVARIANT(bytes <= ringBytes_);
  if (next_ + bytes > ringBytes_) next_ = 0;
  const uint64_t offset = next_;
  auto chunk = chunks_.upper_bound(offset);
  if (chunk != chunks_.begin() && std::prev(chunk)->first + std::prev(chunk)->second.bytes > offset) --chunk;
  while (chunk != chunks_.end() && chunk->first < offset + bytes) evict(chunk++);
  next_ += bytes;
  Chunk& placed = chunks_[offset];
  placed.item = {item.host, item.bytes};
  placed.bytes = bytes;
  placed.isFresh = item.isFresh;
  if (spare_.empty()) spare_.push_back({gpu_.makeEvent(), gpu_.makeEvent()});
  placed.events = std::move(spare_.back());
  spare_.pop_back();
  if (!item.isFresh) offsets_[placed.item] = offset;
  return offset;
}

void Streamer::load(uint64_t offset, Chunk& chunk) {
  uint8_t* const to = static_cast<uint8_t*>(ring_.get()) + offset;
  gpu_.check(gpu_.api.copyBytes(to, chunk.item.first, chunk.item.second, stream_.get()));
  gpu_.check(gpu_.runtime.record(chunk.events.loaded.get(), stream_.get()));
  chunk.isLoaded = true;
  copiedBytes_ += chunk.item.second;
}

std::vector<void*> Streamer::fetch(const std::vector<Item>& items, void* compute,
                                   const std::function<void(const std::vector<void*>&)>& fill) {
  current_.assign(items.size(), kNowhere);
  const auto isThere = [&](size_t i) {
    const auto chunk = chunks_.find(current_[i]);
    return chunk != chunks_.end() && chunk->second.item == std::make_pair(items[i].host, items[i].bytes);
  };
  bool moved = true;
  for (int round = 0; moved; round++) {
    AEGIS_INVARIANT(round < 4);
    moved = false;
    for (size_t i = 0; i < items.size(); i++) {
      if (isThere(i)) continue;
      const auto found = offsets_.find({items[i].host, items[i].bytes});
      const bool known = !items[i].isFresh && found != offsets_.end();
      current_[i] = known ? found->second : place(items[i]);
      moved = true;
    }
  }
  std::vector<void*> result;
  for (const uint64_t offset : current_) result.push_back(static_cast<uint8_t*>(ring_.get()) + offset);
  if (fill) fill(result);
  for (const uint64_t offset : current_) {
    Chunk& chunk = chunks_.at(offset);
    if (!chunk.isLoaded) load(offset, chunk);
    gpu_.check(gpu_.runtime.streamWait(compute, chunk.events.loaded.get()));
  }
  if (slotTaken_) gpu_.check(gpu_.runtime.record(slotEvents_[nextSlot_++ % kSlots].get(), stream_.get()));
  slotTaken_ = false;
  return result;
}

void Streamer::used(void* compute) {
  for (const uint64_t offset : current_) {
    Chunk& chunk = chunks_.at(offset);
    chunk.wasUsed = true;
    gpu_.check(gpu_.runtime.record(chunk.events.used.get(), compute));
  }
  current_.clear();
}

}  // namespace aegis
