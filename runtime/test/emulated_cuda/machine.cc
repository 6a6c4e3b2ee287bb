#include "test/emulated_cuda/machine.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>

namespace aegis::emulated {
namespace {

// What cudaMalloc promises.
constexpr size_t kAlignBytes = 256;

Settings fromEnvironment() {
  Settings settings;
  const char* text = std::getenv("AEGIS_EMULATED_CUDA");
  std::istringstream list(text == nullptr ? "" : text);
  for (std::string one; std::getline(list, one, ',');) {
    const size_t equals = one.find('=');
    const std::string name = one.substr(0, equals);
    const auto value = unsigned(equals == std::string::npos ? 0 : std::atoi(one.c_str() + equals + 1));
    bool known = false;
    const std::pair<const char*, unsigned*> fields[] = {{"devices", &settings.devices},
                                                        {"memory", &settings.memoryMiB},
                                                        {"peers", &settings.peers},
                                                        {"fail", &settings.fail},
                                                        {"jitter", &settings.jitter}};
    for (const auto& [field, place] : fields)
      if (name == field) *place = value, known = true;
    if (!known || settings.devices > kMaxDevices) {
      std::fprintf(stderr, "AEGIS_EMULATED_CUDA: \"%s\"\n", one.c_str());
      std::abort();
    }
  }
  return settings;
}

}  // namespace

void Machine::restart() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!regions_.empty()) return;
  settings = fromEnvironment();
  launches = graphs = 0;
  peers_.clear();
  for (std::string& failure : failures_) failure.clear();
}

uint64_t Machine::regionCount() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return regions_.size();
}

Machine& Machine::get() {
  static Machine& machine = *new Machine;  // outlives the threads of streams
  return machine;
}

std::string Machine::add(void* memory, const Region& region) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto first = reinterpret_cast<uintptr_t>(memory);
  const auto next = regions_.lower_bound(first);
  if (next != regions_.end() && next->first < first + region.bytes) return "memory is pinned twice";
  regions_[first] = region;
  return "";
}

std::string Machine::allocate(uint32_t device, uint64_t bytes, void** out) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (bytes > (uint64_t(settings.memoryMiB) << 20) - used_[device]) return "out of memory";
    used_[device] += bytes;
  }
  *out = std::aligned_alloc(kAlignBytes, (bytes + kAlignBytes - 1) / kAlignBytes * kAlignBytes);
  if (*out == nullptr) return "out of memory";
  std::memset(*out, 0xa5, bytes);  // new memory is not zero
  return add(*out, {bytes, int(device), true});
}

std::string Machine::allocatePinned(uint64_t bytes, void** out) {
  *out = std::aligned_alloc(kAlignBytes, (bytes + kAlignBytes - 1) / kAlignBytes * kAlignBytes);
  if (*out == nullptr) return "out of memory";
  std::memset(*out, 0xa5, bytes);
  return add(*out, {bytes, kPinned, true});
}

std::string Machine::pin(void* memory, uint64_t bytes) { return add(memory, {bytes, kPinned, false}); }

std::string Machine::remove(void* memory, bool pinned) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = regions_.find(reinterpret_cast<uintptr_t>(memory));
  if (found == regions_.end() || (found->second.owner == kPinned) != pinned)
    return "memory that was not allocated so";
  if (!pinned) used_[uint32_t(found->second.owner)] -= found->second.bytes;
  if (found->second.own) {
    std::memset(memory, 0x5a, found->second.bytes);
    std::free(memory);
  }
  regions_.erase(found);
  return "";
}

std::string Machine::release(void* memory) { return remove(memory, false); }
std::string Machine::unpin(void* memory) { return remove(memory, true); }

uint64_t Machine::freeBytes(uint32_t device) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return (uint64_t(settings.memoryMiB) << 20) - used_[device];
}

int Machine::ownerOf(const void* memory, uint64_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto first = reinterpret_cast<uintptr_t>(memory);
  auto region = regions_.upper_bound(first);
  if (region == regions_.begin()) return kPageable;
  --region;
  const uintptr_t end = region->first + region->second.bytes;
  if (first >= end) return kPageable;
  return first + bytes <= end ? region->second.owner : -3;
}

void Machine::enablePeer(uint32_t device, uint32_t peer) {
  const std::lock_guard<std::mutex> lock(mutex_);
  peers_.insert({device, peer});
}

bool Machine::peerEnabled(uint32_t device, uint32_t peer) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return device == peer || peers_.count({device, peer}) != 0;
}

void Machine::setFailure(uint32_t device, const std::string& what) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (failures_[device].empty()) failures_[device] = what;
}

std::string Machine::failure(uint32_t device) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return failures_[device];
}

}  // namespace aegis::emulated
