// The GPUs of the emulated CUDA module: their memory, and which pointers are whose.
//
// AEGIS_EMULATED_CUDA="devices=2,memory=512,peers=0,fail=100,jitter=1": number of devices (1), MiB of memory
// each (1024), whether they reach each other's memory (1), the launch that fails (0: none), whether work
// starts late at random (0). Read when devices are counted and no memory is taken: then the devices, and the
// count of launches, start anew.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>

namespace aegis::emulated {

constexpr uint32_t kMaxDevices = 8;
constexpr int kPinned = -1, kPageable = -2;

struct Settings {
  unsigned devices = 1, memoryMiB = 1024, peers = 1, fail = 0, jitter = 0;
};

class Machine {
 public:
  static Machine& get();
  Settings settings;
  std::atomic<unsigned> launches{0}, graphs{0};  // since then; graphs that were launched

  void restart();          // if no memory is taken
  uint64_t regionCount();  // of memory that is taken

  // "": done.
  std::string allocate(uint32_t device, uint64_t bytes, void** out);
  std::string release(void* memory);
  std::string pin(void* memory, uint64_t bytes);  // that there is
  std::string unpin(void* memory);
  std::string allocatePinned(uint64_t bytes, void** out);
  uint64_t freeBytes(uint32_t device);

  // Device of the live memory that holds these bytes whole, kPinned, or kPageable if it is neither. -3: they
  // leave it.
  int ownerOf(const void* memory, uint64_t bytes);

  bool canAccess(uint32_t device, uint32_t peer) const { return device != peer && settings.peers != 0; }
  void enablePeer(uint32_t device, uint32_t peer);
  bool peerEnabled(uint32_t device, uint32_t peer);

  // What a kernel or copy did wrong stays with the device.
  void setFailure(uint32_t device, const std::string& what);
  std::string failure(uint32_t device);

 private:
  struct Region {
    uint64_t bytes = 0;
    int owner = kPageable;
    bool own = true;  // to be freed here
  };
  Machine() { restart(); }
  std::string add(void* memory, const Region& region);
  std::string remove(void* memory, bool pinned);

  std::mutex mutex_;
  std::map<uintptr_t, Region> regions_;  // by first byte
  std::array<uint64_t, kMaxDevices> used_{};
  std::set<std::pair<uint32_t, uint32_t>> peers_;
  std::array<std::string, kMaxDevices> failures_;
};

}  // namespace aegis::emulated
